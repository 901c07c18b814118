"""Revisions: what a name means is pinned, asked for once, and part of a run's id; and one sentence for each way to miss it."""

from __future__ import annotations

import dataclasses
import importlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants, errors

import w2s_lib as w2s
from w2s_lib.models import backbone as models
from w2s_lib.models import pins as revisions
from w2s_lib.models.pins import current, folder_digest
from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.model_names import is_planning, planning, split_revision
from w2s_lib.runs.spec import Lora, Recipe, RunSpec, Task
from w2s_lib.tasks import hub as registry
from w2s_lib.tasks import table as tasks
from w2s_lib.tasks.table import default_task, load_table

COMMIT, OTHER = "0123456789" * 4, "abcdef0123" * 4
QUICK: dict[str, Any] = {
    "recipe": Recipe(epochs=1, batch_size=16, learning_rate=1e-2),
    "lora": Lora(rank=4, blocks=1),
}
http = importlib.import_module(
    errors.HfHubHTTPError.__mro__[1].__module__.partition(".")[0]
)  # whatever the hub's library uses
MODEL_INFO = huggingface_hub.model_info


def answer(status: int) -> Any:
    return http.Response(status, request=http.Request("GET", "https://huggingface.co/api"))


UNREACHABLE: list[Exception] = [
    http.ConnectError("[Errno -2] Name or service not known"),
    http.ConnectTimeout("timed out"),
    errors.LocalEntryNotFoundError("not in the cache"),
    ConnectionError("reset"),
]
OFFLINE = errors.OfflineModeIsEnabled("Cannot reach it: offline mode is enabled.")
REFUSED: list[tuple[Exception, str]] = [
    (
        errors.GatedRepoError("403 Forbidden", response=answer(403)),
        r"^hf:a/b is gated: ask for access on https://huggingface.co/a/b, then log in with `hf auth login`$",
    ),
    (
        errors.RepositoryNotFoundError("401 Repository Not Found", response=answer(401)),
        r"^the hub shows no model 'a/b': check the name; if it is private, log in with `hf auth login`$",
    ),
    (
        errors.LocalTokenNotFoundError("Token is required"),
        r"^hf:a/b needs a login, and nobody is logged in: log in with `hf auth login`$",
    ),
    (
        errors.HfHubHTTPError("503 Server Error", response=answer(503)),
        r"^cannot load hf:a/b \(.*503 Server Error.*\)$",
    ),
    (
        OFFLINE,
        r"^hf:a/b is not in the hub's cache on this machine, and offline mode is on: unset HF_HUB_OFFLINE and",
    ),
    *(
        (
            error,
            r"^hf:a/b is not in the hub's cache on this machine, and the hub cannot be reached: check the network, or give a",
        )
        for error in UNREACHABLE
    ),
]


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine, empty; nothing resolved or looked at yet; and nobody asks the real hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(
        huggingface_hub, "model_info", raising(http.ConnectError("no test asks the hub"))
    )
    revisions._commit.cache_clear()
    models._examined.cache_clear()
    return tmp_path / "hub"


def raising(error: Exception) -> Callable[..., Any]:
    def call(*args: Any, **settings: Any) -> Any:
        raise error

    return call


def put(
    hub: Path, source: Path, commit: str = COMMIT, *, ref: str = "main", repository: str = "a/b"
) -> None:
    """A model in the cache, as a download leaves it."""
    folder = hub / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, folder / "snapshots" / commit)
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)


# The hub


def test_the_current_commit_is_asked_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str]] = []

    def info(repository: str, *, revision: str) -> Any:
        asked.append((repository, revision))
        return huggingface_hub.ModelInfo(
            id=repository,
            sha={"main": COMMIT, "step3": OTHER}[revision],
            private=False,
            downloads=0,
            likes=0,
            tags=[],
        )

    monkeypatch.setattr(huggingface_hub, "model_info", info)
    specs = [
        w2s.ceiling(model, "movie")
        for model in ("hf:a/b@6", "hf:a/b", "hf:a/b:step3@6", "hf:a/b:step3")
    ]
    assert [spec.revision for spec in specs] == [COMMIT, COMMIT, OTHER, OTHER]
    assert [spec.model for spec in specs] == ["hf:a/b@6", "hf:a/b", "hf:a/b@6", "hf:a/b"]
    assert asked == [("a/b", "main"), ("a/b", "step3")]
    assert len({spec.run_id for spec in specs}) == 4


def test_a_commit_is_taken_as_it_is() -> None:
    """The hub of this test raises whatever it is asked."""
    spec = w2s.ceiling(f"hf:a/b:{COMMIT}@6", "movie")
    assert (spec.model, spec.revision, spec.depth) == ("hf:a/b@6", COMMIT, 6)


@pytest.mark.parametrize(
    "model, expected",
    [
        ("hf:a/b", ("hf:a/b", "")),
        ("hf:a/b@6", ("hf:a/b@6", "")),
        ("hf:a/b:main@6", ("hf:a/b@6", "main")),
        ("hf:a/b:refs/pr/3", ("hf:a/b", "refs/pr/3")),
        ("./a:b@6", ("./a:b@6", "")),
        ("smollm2-135m@4", ("smollm2-135m@4", "")),
    ],
)
def test_names_with_revisions(model: str, expected: tuple[str, str]) -> None:
    assert split_revision(model) == expected


def test_an_empty_revision_is_refused() -> None:
    with pytest.raises(SpecError, match="'hf:a/b:@6' names no revision after its colon"):
        w2s.ceiling("hf:a/b:@6", "movie")


@pytest.mark.parametrize("error", [OFFLINE, *UNREACHABLE])
def test_where_the_hub_cannot_be_reached_the_cache_says(
    error: Exception, hub: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(hub, tiny_models / "llama")
    put(hub, tiny_models / "llama", OTHER, ref="step3")
    monkeypatch.setattr(huggingface_hub, "model_info", raising(error))
    assert (current("hf:a/b"), current("hf:a/b", "step3")) == (COMMIT, OTHER)
    shutil.rmtree(hub / "models--a--b" / "snapshots" / OTHER)  # a name without files is of no use
    revisions._commit.cache_clear()
    with pytest.raises(AssetError, match="not in the hub's cache on this machine"):
        current("hf:a/b", "step3")


def test_a_configuration_alone_is_no_download(hub: Path, tiny_models: Path) -> None:
    """`plan` fetches it to tell the memory; the weights are still to come."""
    put(hub, tiny_models / "llama")
    assert revisions.downloaded("hf:a/b", COMMIT) and not revisions.downloaded("hf:a/b", "")
    assert not revisions.downloaded("hf:a/b", OTHER) and not revisions.downloaded(
        "hf:a/other", COMMIT
    )
    for file in (hub / "models--a--b" / "snapshots" / COMMIT).glob("*.safetensors"):
        file.unlink()
    assert revisions._cached("a/b", "main") == COMMIT and not revisions.downloaded("hf:a/b", COMMIT)


def test_what_was_resolved_is_found_later_without_the_hub(
    hub: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Loading by commit leaves no name in the hub's cache: resolving it does."""
    put(hub, tiny_models / "llama", ref="other")
    info = huggingface_hub.ModelInfo(
        id="a/b", sha=COMMIT, private=False, downloads=0, likes=0, tags=[]
    )
    with monkeypatch.context() as patch:
        patch.setattr(huggingface_hub, "model_info", lambda *args, **settings: info)
        assert current("hf:a/b") == COMMIT
    revisions._commit.cache_clear()
    assert current("hf:a/b") == COMMIT


@pytest.mark.parametrize("error, message", REFUSED)
def test_a_model_that_the_hub_does_not_give_is_one_sentence(
    error: Exception, message: str, hub: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by name; a refusal is one though an old copy is in the cache."""
    monkeypatch.setattr(huggingface_hub, "model_info", raising(error))
    refused = error is not OFFLINE and error not in UNREACHABLE
    if refused:
        put(hub, tiny_models / "llama")
    with pytest.raises(AssetError, match=message):
        w2s.supervisor("hf:a/b", "movie")


@pytest.mark.parametrize("error, message", REFUSED)
def test_a_pinned_model_that_the_hub_does_not_give_is_one_sentence(
    error: Exception, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for by commit: the same, as `transformers` wraps it, before anything is trained."""
    import transformers.utils.hub

    monkeypatch.setattr(transformers.utils.hub, "hf_hub_download", raising(error))
    with pytest.raises(AssetError, match=message):
        models.check(RunSpec(model="hf:a/b@3", revision=COMMIT))


def test_a_revision_that_there_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        huggingface_hub,
        "model_info",
        raising(errors.RevisionNotFoundError("404", response=answer(404))),
    )
    with pytest.raises(
        AssetError,
        match="hf:a/b has no revision 'step3': https://huggingface.co/a/b/tree/main lists its",
    ):
        current("hf:a/b", "step3")


def test_offline_mode_is_named_where_a_pinned_model_is_not_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(
        AssetError,
        match="hf:a/b is not in the hub's cache on this machine, and offline mode is on: uns",
    ):
        models.check(RunSpec(model="hf:a/b@3", revision=COMMIT))


def test_an_unpinned_model_is_refused() -> None:
    with pytest.raises(
        SpecError,
        match="nothing says which revision of 'hf:a/b' is meant: build the run by `w2s.supervisor`",
    ):
        models.check(RunSpec(model="hf:a/b@3"))


def test_a_run_of_a_hub_model_from_the_cache(
    hub: Path, tiny_models: Path, small_task: Task, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a network: supervisor, student, and the weights of the commit that is pinned, not of the newest one."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    put(hub, tiny_models / "llama")
    weak = w2s.supervisor("hf:a/b@2", small_task, **QUICK)
    student = w2s.student("hf:a/b@3", weak, **QUICK)
    assert weak.revision == student.revision == COMMIT
    put(hub, tiny_models / "qwen3", OTHER)  # the name means another model now
    revisions._commit.cache_clear()
    record = w2s.run(student)
    assert record.spec == student and record.spec.name == "hf:a/b"
    assert models.load_backbone(student).config.model_type == "llama"
    later = w2s.supervisor("hf:a/b@2", small_task, **QUICK)
    assert later.revision == OTHER and later.run_id != weak.run_id
    assert models.load_backbone(later).config.model_type == "qwen3"
    with pytest.raises(SpecError, match="depth 4 of 'hf:a/b': must be 1 to 3"):
        models.check(dataclasses.replace(weak, model="hf:a/b@4"))


# Folders


def test_a_folders_digest_is_of_what_makes_the_model(tiny_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_models / "llama", folder)
    first = folder_digest(str(folder))
    assert len(first) == 64 and current(str(folder)) == first == folder_digest(
        str(tiny_models / "llama")
    )
    (folder / "README.md").write_text("words")
    (folder / ".hidden").write_text("words")
    assert folder_digest(str(folder)) == first
    found = {first}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        found.add(folder_digest(str(folder)))
    (folder / "chat_template.jinja").rename(folder / "other.jinja") if (
        folder / "chat_template.jinja"
    ).exists() else (folder / "other.jinja").write_text("")
    assert len(found | {folder_digest(str(folder))}) == 5


def test_an_unchanged_file_is_read_once(
    tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, read = tmp_path / "model", []
    shutil.copytree(tiny_models / "llama", folder)

    def sha256(path: Path) -> str:
        read.append(path.name)
        return "ab"

    monkeypatch.setattr(revisions, "file_sha256", sha256)
    folder_digest(str(folder))
    assert "model.safetensors" in read and (n := len(read)) == len(set(read))
    folder_digest(str(folder))
    assert len(read) == n
    os.utime(folder / "config.json", ns=(1, 1))
    folder_digest(str(folder))
    assert read[n:] == ["config.json"]


# Planning


def test_planning_asks_for_nothing(
    hub: Path, tiny_models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model that only the hub knows has no revision; the cache's and a folder's are there; afterwards all is as before."""
    monkeypatch.setattr(huggingface_hub, "model_info", raising(AssertionError("asked")))
    put(hub, tiny_models / "llama", repository="c/d")
    with planning():
        assert is_planning()
        unknown, known, local = (
            w2s.ceiling(model, "movie")
            for model in ("hf:a/b@3", "hf:c/d@3", f"{tiny_models}/llama@3")
        )
    assert not is_planning()
    assert (unknown.revision, known.revision, local.revision) == (
        "",
        COMMIT,
        folder_digest(f"{tiny_models}/llama"),
    )
    with pytest.raises(AssetError, match="cannot load hf:a/b .AssertionError: asked"):
        w2s.ceiling("hf:a/b@3", "movie")
    with pytest.raises(SpecError, match="nothing says which revision"):
        models.check(unknown)


def test_planning_fetches_no_table(
    own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a hub task, only what the cache has one table of is pinned."""
    import datasets

    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    rows = [
        {"sentence": f"a {word} film {n}", "label": n % 2, "idx": n}
        for n, word in enumerate(["warm", "dull"] * 30)
    ]
    monkeypatch.setattr(
        registry, "load_hub", lambda *args, **settings: datasets.Dataset.from_list(rows)
    )
    tasks._load.cache_clear()
    with planning():
        assert default_task("sst2").sha256 == default_task("hf:own/data").sha256 == ""
        with pytest.raises(
            AssetError, match="the table of sst2 is not in the cache, and planning fetches nothing"
        ):
            load_table(default_task("sst2"))
    fetched = default_task("sst2")
    tasks._load.cache_clear()
    with planning():
        assert default_task("sst2") == fetched and len(load_table(fetched).frame) == 60
    rows[0]["sentence"] = "another film"
    tasks._load.cache_clear()
    assert default_task("sst2").sha256 != fetched.sha256
    with planning():
        assert (
            default_task("sst2").sha256 == ""
            and default_task("sst2", sha256=fetched.sha256) == fetched
        )
        with pytest.raises(SpecError, match="unknown task 'sst3'"):
            default_task("sst3")
    tasks._load.cache_clear()
