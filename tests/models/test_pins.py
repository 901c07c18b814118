"""Pins: what a name means is resolved once, and there is one sentence for each way to miss it."""

from __future__ import annotations

import dataclasses
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants

import w2s_lib as w2s
from w2s_lib.models import backbone, pins
from w2s_lib.models.pins import downloaded, folder_digest, pin, resolve_revision
from w2s_lib.runs.errors import AssetError, SpecError
from w2s_lib.runs.settings import Lora, Recipe, Task
from w2s_lib.runs.spec import RunSpec

COMMIT, OTHER = "0123456789" * 4, "abcdef0123" * 4
QUICK: dict[str, Any] = {
    "recipe": Recipe(epochs=1, batch_size=16, learning_rate=1e-2),
    "lora": Lora(rank=4, blocks=1),
}


class Hub(http.server.BaseHTTPRequestHandler):
    """A hub of configurations: what it answers for each name and revision."""

    answers: dict[str, tuple[int, dict[str, str]]] = {}
    asked: list[str] = []

    def do_HEAD(self) -> None:
        """As the real hub: a commit and a digest of the file, or an error by its code."""
        path = self.path.removeprefix("/api/models").replace("/revision/", "/resolve/")
        model, _, rest = path.lstrip("/").partition("/resolve/")
        self.asked.append(f"{self.command} {model} {rest.partition('/')[0]}")
        status, headers = self.answers.get(f"{model} {rest.partition('/')[0]}", (404, {}))
        body = b'{"id": "a/b"}' if "/api/" in self.path else b"{}"
        self.send_response(status)
        for key, value in {"ETag": '"e"', "Content-Length": str(len(body)), **headers}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    do_GET = do_HEAD

    def log_message(self, *args: Any) -> None:
        """Says nothing."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The hub's cache on this machine, empty; nothing resolved yet; and nobody asks the real hub."""
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    pins._commit.cache_clear()
    backbone._examined.cache_clear()
    return tmp_path / "hub"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Hub]]:
    """A hub of this machine."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(constants, "ENDPOINT", url)
    template = f"{url}/{{repo_id}}/resolve/{{revision}}/{{filename}}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    Hub.answers, Hub.asked = {}, []
    yield Hub
    server.shutdown()
    server.server_close()


def put(
    cache: Path, source: Path, commit: str = COMMIT, *, ref: str = "main", repository: str = "a/b"
) -> None:
    """A model in the cache, as a download leaves it."""
    folder = cache / f"models--{repository.replace('/', '--')}"
    shutil.copytree(source, folder / "snapshots" / commit)
    (folder / "refs").mkdir(parents=True, exist_ok=True)
    (folder / "refs" / ref).write_text(commit)


# The hub


def test_a_name_is_resolved_once_and_along_the_lineage(hub: type[Hub]) -> None:
    """And kept: later, without the hub, the name means the same commit."""
    hub.answers = {
        "a/b main": (200, {"X-Repo-Commit": COMMIT}),
        "a/b step3": (200, {"X-Repo-Commit": OTHER}),
    }
    weak = RunSpec(model="hf:a/b@3", half="supervisor", predict_halves=True)
    for spec in (weak, w2s.student("smollm2-135m", weak)):
        first = next(pin(spec).lineage())
        assert (first.model, first.revision) == ("hf:a/b@3", COMMIT)
    assert resolve_revision("hf:a/b", "step3") == OTHER
    assert resolve_revision("hf:a/b", COMMIT) == COMMIT  # as it is, and nobody is asked
    assert hub.asked.count("HEAD a/b main") == hub.asked.count("HEAD a/b step3") == 1
    hub.answers = {"a/b main": (503, {})}
    pins._commit.cache_clear()
    assert resolve_revision("hf:a/b") == COMMIT


def test_local_only_asks_nobody(hub: type[Hub], cache: Path, tiny_models: Path) -> None:
    put(cache, tiny_models / "llama", repository="c/d")
    folder = f"{tiny_models}/llama"
    for model, found in ((f"{folder}@3", folder_digest(folder)), ("hf:c/d@3", COMMIT)):
        assert pin(RunSpec(model=model), local_only=True).revision == found
    for task in ("movie", "sst2"):
        spec = RunSpec(model="hf:a/b@3", task=w2s.default_task(task))
        assert pin(spec, local_only=True) == spec
    # huggingface_hub fetches a registry of its own now and then
    assert [asked for asked in hub.asked if "a/b" in asked or "c/d" in asked] == []


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (403, "GatedRepo", ["gated"]),
        (401, "RepoNotFound", ["name", "hf auth login"]),
        (404, "RevisionNotFound", ["revision", "step3"]),
    ],
)
def test_a_model_that_the_hub_does_not_give_is_one_sentence(
    hub: type[Hub], status: int, code: str, words: list[str]
) -> None:
    """Asked for by name, and, as `transformers` wraps it, by commit, where no wait could help."""
    answer = (status, {"X-Error-Code": code})
    hub.answers = {"a/b step3": answer, f"a/b {COMMIT}": answer}
    with pytest.raises(AssetError) as caught:
        resolve_revision("hf:a/b", "step3")
    message = str(caught.value)
    assert "hf:a/b" in message and "\n" not in message
    for word in words:
        assert word in message
    with pytest.raises(AssetError, match="hf:a/b"):
        backbone.check(RunSpec(model="hf:a/b@3", revision=COMMIT))


def test_what_is_not_in_the_cache_offline_is_one_sentence() -> None:
    with pytest.raises(AssetError, match="hf:a/b: .*cache.* HF_HUB_OFFLINE"):
        resolve_revision("hf:a/b")
    with pytest.raises(AssetError, match="hf:a/b: .*cache"):
        backbone.check(RunSpec(model="hf:a/b@3", revision=COMMIT))


def test_own_code_is_never_run() -> None:
    with pytest.raises(SpecError, match="hf:a/b"), pins.explaining("hf:a/b"):
        raise ValueError("set trust_remote_code=True")


def test_a_configuration_alone_is_no_download(cache: Path, tiny_models: Path) -> None:
    """`plan` fetches it to tell the memory; the weights are still to come."""
    put(cache, tiny_models / "llama")
    assert downloaded("hf:a/b", COMMIT) and not downloaded("hf:a/b", "")
    assert not downloaded("hf:a/b", OTHER) and not downloaded("hf:a/other", COMMIT)
    for file in (cache / "models--a--b" / "snapshots" / COMMIT).glob("*.safetensors"):
        file.unlink()
    assert resolve_revision("hf:a/b") == COMMIT and not downloaded("hf:a/b", COMMIT)


def test_an_unpinned_model_is_refused(tiny_models: Path) -> None:
    for model in ("hf:a/b@3", f"{tiny_models}/llama@3"):
        with pytest.raises(SpecError, match="pinned to"):
            backbone.check(RunSpec(model=model))


def test_a_run_of_a_hub_model_from_the_cache(
    cache: Path, tiny_models: Path, small_task: Task, own_cache: Path
) -> None:
    """Without a network: the weights of the commit that is pinned, not of the newest one."""
    put(cache, tiny_models / "llama")
    weak = w2s.supervisor("hf:a/b@2", small_task, **QUICK)
    student = pin(w2s.student("smollm2-135m@1", weak, **QUICK))
    weak = next(student.lineage())
    put(cache, tiny_models / "qwen3", OTHER)  # the name means another model now
    pins._commit.cache_clear()
    record = w2s.run(weak)
    assert record.spec == weak and weak.revision == COMMIT
    assert backbone.load_backbone(weak).config.model_type == "llama"
    later = pin(dataclasses.replace(weak, revision=""))
    assert later.revision == OTHER and later.run_id != weak.run_id
    assert backbone.load_backbone(later).config.model_type == "qwen3"
    with pytest.raises(SpecError, match="depth 4 of 'hf:a/b'"):
        backbone.check(dataclasses.replace(weak, model="hf:a/b@4"))


# Folders


def test_a_folders_digest_is_of_what_makes_the_model(tiny_models: Path, tmp_path: Path) -> None:
    folder = tmp_path / "möd el"
    shutil.copytree(tiny_models / "llama", folder)
    first = folder_digest(str(folder))
    assert len(first) == 64 and first == folder_digest(str(tiny_models / "llama"))
    (folder / "README.md").write_text("words")
    (folder / ".hidden").write_text("words")
    assert folder_digest(str(folder)) == first
    pinned = pin(RunSpec(model=f"{folder}@2"))
    assert pinned.revision == first and pin(pinned) == pinned
    backbone.check(pinned)
    found = {first}
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        with (folder / name).open("ab") as file:
            file.write(b" ")
        found.add(folder_digest(str(folder)))
    (folder / "other.jinja").touch()
    assert len(found | {folder_digest(str(folder))}) == 5
    with pytest.raises(SpecError, match=first[:16]):
        backbone.check(pinned)
    os.remove(folder / "config.json")
    with pytest.raises(SpecError, match=r"config\.json"):
        pin(RunSpec(model=f"{folder}@2"))
