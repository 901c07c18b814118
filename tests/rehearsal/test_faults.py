"""What a hub may do to its clients: it recovers, or one sentence says why not; and a second try is right."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.rehearsal.hub import Fault, Hub, Repository, serving
from tests.rehearsal.stock import SIZE, commit_of, parquet, random_model

TOKEN = "hf_rehearsal"
PATIENCE = 2
ORIGINS = ("hub", "storage")
COMMIT, LATER = commit_of("first"), commit_of("second")
CARD = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: data/train-*\n---\n"
FILES = "data/{split}-00000-of-00001.parquet"


def rows(first: str) -> dict[str, bytes]:
    """A dataset of 60 short sentences."""
    made = [{"sentence": f"{first} {number}", "label": number % 2} for number in range(60)]
    return {"README.md": CARD, FILES.format(split="train"): parquet(made)}


@pytest.fixture(scope="module")
def contents() -> dict[str, dict[str, dict[str, bytes]]]:
    """Kind -> commit -> files: the same in every repository."""
    small = SIZE | {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2}
    models = {
        COMMIT: random_model("Llama", **small),
        LATER: random_model("Qwen3", head_dim=8, **small),
    }
    return {"models": models, "datasets": {COMMIT: rows("No."), LATER: rows("Another")}}


@pytest.fixture(scope="module")
def hub(contents: dict[str, dict[str, dict[str, bytes]]]) -> Iterator[Hub]:
    with serving({}) as hub:
        yield hub


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the client has its caches, and those of the hub's libraries."""
    folder = tmp_path_factory.mktemp("home")
    (folder / "cache").mkdir()
    return folder


@pytest.fixture(scope="module")
def load(hub: Hub, home: Path) -> Iterator[Callable[..., dict[str, str]]]:
    """Has one process, which knows the hub and a token, load something; gives its answer."""
    environment = hub.environment(home / "hf", token=TOKEN, patience=PATIENCE)
    client = subprocess.Popen(
        [sys.executable, "-m", "tests.rehearsal.client"],
        env=environment | {"W2S_CACHE": str(home / "cache")},
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert client.stdin and client.stdout

    def load(**asked: str) -> dict[str, str]:
        assert client.stdin and client.stdout
        client.stdin.write(json.dumps(asked) + "\n")
        client.stdin.flush()
        answer: dict[str, str] = json.loads(client.stdout.readline())
        return answer

    yield load
    client.stdin.close()
    client.wait()


@dataclass
class Case:
    """What is wrong with a repository, and what is said of it; nothing where it recovers.

    Attributes:
        repository: fields of it that are wrong.
        faults: fields of `Fault`, but its path.
        said: words of the sentence.
        slow: whether the client waits long for it, so that `make rehearsal` alone tries it.
    """

    repository: dict[str, Any] = field(default_factory=dict)
    faults: dict[str, Any] = field(default_factory=dict)
    said: tuple[str, ...] = ()
    slow: bool = False


BUSY = {"headers": {"Retry-After": "0"}}
CASES = {
    "gated": Case({"gated": True}, said=("gated",)),
    "missing": Case(said=("hf auth login",)),
    "renamed": Case({"moved_to": "t/undisturbed"}),
    "vanished": Case({"commits": {}, "names": {}}, said=("revision", COMMIT)),
    "slow-once": Case(faults={"wait": PATIENCE + 1, "times": 1}),
    "slow": Case(faults={"wait": PATIENCE + 1}, said=("network",), slow=True),
    "cut-once": Case(faults={"origin": "storage", "sends": 700, "times": 1}),
    "cut": Case(faults={"origin": "storage", "sends": 0}, said=("connection", "again"), slow=True),
    "short": Case(faults={"origin": "storage", "grows": -100}, said=("not whole", "again")),
    "long": Case(faults={"origin": "storage", "grows": 100}, said=("again",), slow=True),
    "429-once": Case(faults={"status": 429, "times": 1} | BUSY),
    "429": Case(faults={"status": 429} | BUSY, said=("429", "later"), slow=True),
    "503-once": Case(faults={"origin": "hub", "status": 503, "times": 1} | BUSY),
    "503": Case(faults={"status": 503} | BUSY, said=("503", "later"), slow=True),
    "refused": Case(faults={"origin": "storage", "status": 403}, said=("403",)),
}
PARAMETERS = [
    pytest.param(kind, name, marks=pytest.mark.rehearsal if case.slow else ())
    for name, case in CASES.items()
    for kind in ("model", "dataset", "file")
]


def request(kind: str, name: str) -> dict[str, str]:
    """What is asked of the client: a model by its name's commit, a dataset by name, or its file."""
    if kind == "model":
        return {"model": name, "revision": COMMIT}
    return {"dataset": f"{name}:{COMMIT}"} | ({"files": FILES} if kind == "file" else {})


@pytest.mark.parametrize(("kind", "name"), PARAMETERS)
def test_a_fault_is_survived_or_said_in_one_sentence(
    kind: str,
    name: str,
    hub: Hub,
    home: Path,
    load: Callable[..., dict[str, str]],
    contents: dict[str, dict[str, dict[str, bytes]]],
) -> None:
    """And nothing half-made stays: what comes once it is mended is what an undisturbed hub gives."""
    case, place = CASES[name], "models" if kind == "model" else "datasets"
    own, undisturbed = f"t/{name}-{kind}", f"{place}/t/undisturbed"
    whole = {"commits": contents[place], "names": {"main": COMMIT}}
    hub.repositories[undisturbed] = Repository(**whole)
    if name != "missing":
        hub.repositories[f"{place}/{own}"] = Repository(**(whole | case.repository))
    hub.faults = [Fault(f"*/{own}/*", **case.faults)] if case.faults else []
    first = load(**request(kind, own))
    assert not list(home.rglob("*.incomplete"))
    hub.faults.clear()
    hub.repositories[f"{place}/{own}"] = Repository(**whole)
    expected = load(**request(kind, "t/undisturbed"))
    assert "digest" in expected, expected
    if case.said:
        said = first.get("message", "")
        assert first.get("error") == "AssetError" and own in said, first
        assert "\n" not in said and TOKEN not in said, said
        assert all(word in said for word in case.said) and len(said) < 400, said
    else:
        assert first == expected
    assert load(**request(kind, own)) == expected


def test_the_token_is_told_to_the_hub_alone(
    hub: Hub, load: Callable[..., dict[str, str]], contents: dict[str, Any]
) -> None:
    """Large files are sent on to another origin, which must not learn it."""
    for place, kinds in (("models", ["model"]), ("datasets", ["dataset", "file"])):
        for kind in kinds:
            hub.repositories[f"{place}/t/token-{kind}"] = Repository(
                {COMMIT: contents[place][COMMIT]}
            )
            hub.asked.clear()
            assert "digest" in load(**request(kind, f"t/token-{kind}"))
            tokens = {
                origin: {r.token for r in hub.asked if r.origin == origin} for origin in ORIGINS
            }
            assert tokens == {"hub": {f"Bearer {TOKEN}"}, "storage": {""}}


@pytest.mark.rehearsal
def test_a_download_that_was_cut_off_goes_on_where_it_stopped(
    hub: Hub, load: Callable[..., dict[str, str]]
) -> None:
    """Clients write a file in pieces of ten megabytes, and ask for what is beyond the last one."""
    noise = random.Random(0).randbytes(12_000_000).hex()
    made = [{"sentence": noise[n::8], "label": n % 2} for n in range(8)]
    large = {FILES.format(split="train"): parquet(made)}
    hub.repositories["datasets/t/large"] = Repository({COMMIT: large})
    hub.faults = [Fault("*/t/large/*", origin="storage", sends=11_000_000, times=1)]
    hub.asked.clear()
    assert "digest" in load(**request("file", "t/large"))
    stored = [(r.range, r.status) for r in hub.asked if r.origin == "storage"]
    assert stored == [("", 200), ("bytes=10485760-", 206)]


def test_rows_of_another_commit_are_never_taken(
    hub: Hub, load: Callable[..., dict[str, str]], contents: dict[str, Any]
) -> None:
    """`datasets` alone takes what it has loaded last, when the hub does not answer."""
    repository = hub.repositories["datasets/t/moving"] = Repository(contents["datasets"])
    first = load(dataset=f"t/moving:{COMMIT}")
    repository.gated = True
    assert load(dataset=f"t/moving:{LATER}").get("error") == "AssetError"
    repository.gated = False
    later = load(dataset=f"t/moving:{LATER}")
    assert "digest" in first and "digest" in later and first != later
