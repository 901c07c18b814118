"""Shared by all tests: a store of its own for every test, a small task of our own sentences, the real model's cache."""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any

import pandas as pd
import psutil
import pytest
from filelock import FileLock
from hypothesis import settings

from w2s_lib.models.embedded import fetch_model
from w2s_lib.models.pins import resolve_revision
from w2s_lib.publishing.chapters import BookError
from w2s_lib.publishing.pdf import find_browser
from w2s_lib.runs.method import Method
from w2s_lib.runs.spec import Lora, Recipe, Relabelled, RunSpec, Task
from w2s_lib.tasks.embedded import fetch_data
from w2s_lib.tasks.table import default_task, resolve_task

# bitsandbytes compiles two functions that no test calls; importing the compiler for them takes a second a process.
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")

settings.register_profile(
    "book", deadline=None, derandomize=True, max_examples=50
)  # the machine may be busy; and the same cases everywhere
settings.load_profile("book")

SLOWEST = (
    *("experiments/test_ray", "experiments/test_execute", "publishing/test_execution"),
    *("experiments/test_torture", "experiments/test_workers", "publishing/test_commands"),
    *("rehearsal/test_stage", "rehearsal/test_faults", "publishing/test_audit"),
    *("training/test_gpu", "training/test_next_token", "browser/test_lab", "browser/test_paper"),
)
SWEPT = {f"experiments/test_{name}" for name in ("execute", "sweep", "results")}
"""They look at one sweep, which takes half a minute: one worker of the tests has all of them."""


Count = Callable[[str, object], None]
"""`record_property`, which is told what was done and how often: `tests/counts.py` keeps it."""


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For several workers: a file's tests stay together, and the slowest files come first.

    So none stands idle at the end. Pages are opened one by one, by whoever is free.
    """
    names = {item: f"{item.path.parent.name}/{item.path.stem}" for item in items}
    items.sort(key=lambda item: (*SLOWEST, names[item]).index(names[item]))
    for item, name in names.items():
        if not name.startswith("browser/"):
            group = "swept" if name in SWEPT else name
            item.add_marker(pytest.mark.xdist_group(group))


RELABEL = Method(source="def own(texts, labels, unlabeled, seed, *, p=0.5):\n    return labels")


def taught(kind: Any, run: RunSpec) -> Any:
    """Labels of a kind that come from a run; where a function makes them, it is `RELABEL`."""
    return kind(run=run, **({"method": RELABEL} if kind is Relabelled else {}))


def until(what: Callable[[], object], *, seconds: float = 60, step: float = 0.05) -> None:
    """Waits until something is so, and fails where it is not in time."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not in {seconds} seconds"
        time.sleep(step)


def processes(name: str, value: object) -> list[str]:
    """The commands of all processes that were started with an environment variable."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it may just be ending
            if process.environ().get(name) == str(value):
                found.append(" ".join(process.cmdline()))
    return found


def content(folder: Path) -> dict[str, bytes]:
    """What lies in a folder and below: path -> bytes."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


THINGS = ("film", "play", "song", "book", "meal", "room", "coat", "walk", "talk", "lamp")
LIKED = ("bright", "warm", "clever", "honest", "gentle")
DISLIKED = ("dull", "cold", "clumsy", "false", "harsh")
OPENINGS = ("Here", "In the end", "As far as anybody in the house could tell")


def sentences() -> pd.DataFrame:
    """300 short sentences with labels, of three lengths."""
    rows = [
        (f"{opening} the {thing} was {word}.", int(word in LIKED))
        for thing, word, opening in itertools.product(THINGS, LIKED + DISLIKED, OPENINGS)
    ]
    return pd.DataFrame(rows, columns=["text", "label"])


def pairs() -> pd.DataFrame:
    """300 comparisons of two sentences about one thing, the chosen one with a word of praise."""
    both = [
        (
            f"{opening} the {thing} was {good}.",
            f"{opening} the {thing} was {DISLIKED[(i + j + k + shift) % 5]}.",
        )
        for i, opening in enumerate(OPENINGS)
        for j, thing in enumerate(THINGS)
        for k, good in enumerate(LIKED)
        for shift in (0, 2)
    ]
    return pd.DataFrame(both, columns=["chosen", "rejected"])


@pytest.fixture(autouse=True)
def own_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees, or writes to, the user's records."""
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "records"))
    return tmp_path / "records"


@pytest.fixture(scope="session")
def made_once(
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[str, Callable[[Path], None]], Path]:
    """Makes a folder by its name: the first worker of these tests to ask for it, for all of them."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # whose own is in that of the session
        base = base.parent

    def made(name: str, make: Callable[[Path], None]) -> Path:
        folder, done = base / name, base / f"{name}.done"
        with FileLock(base / f"{name}.lock"):
            if not done.exists():
                folder.mkdir()
                make(folder)
                done.touch()
        return folder

    return made


@pytest.fixture(scope="session")
def make_cache() -> Callable[[Path], Path]:
    """Makes a cache that has the user's assets and no trunks, so that the user's own cache is left as it was."""

    def make(folder: Path) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        for asset in (fetch_model(), fetch_data()):
            (folder / asset.name).symlink_to(asset, target_is_directory=True)
        return folder

    return make


@pytest.fixture(scope="session")
def session_cache(
    tmp_path_factory: pytest.TempPathFactory, make_cache: Callable[[Path], Path]
) -> Path:
    return make_cache(tmp_path_factory.mktemp("shared") / "cache")


@pytest.fixture
def own_cache(session_cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The session's cache in place of the user's: trunks are computed once and left behind nowhere."""
    monkeypatch.setenv("W2S_CACHE", str(session_cache))
    return session_cache


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As runs do on a CPU: with two threads, on a busy machine, small matrices take longer than with one."""
    from w2s_lib.models import machine

    with machine.one_thread("cpu"):
        yield


@pytest.fixture(scope="session")
def small_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A user's file of 300 sentences, whose trunk takes a second."""
    path = tmp_path_factory.mktemp("task") / "sentences.csv"
    sentences().to_csv(path, index=False)
    return resolve_task(default_task(str(path), n_train=64, n_validation=40, n_test=80))


@pytest.fixture(scope="session")
def comparison_task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    """A user's file of 300 comparisons."""
    path = tmp_path_factory.mktemp("task") / "pairs.csv"
    pairs().to_csv(path, index=False)
    return resolve_task(default_task(str(path), n_train=64, n_validation=40, n_test=80))


@pytest.fixture(scope="session")
def quick() -> dict[str, Recipe | Lora]:
    """Settings of a run of 32 steps that learns the sentences, with a trunk under its one adapted block."""
    return {
        "recipe": Recipe(epochs=8, batch_size=16, learning_rate=4e-3),
        "lora": Lora(rank=16, alpha=32.0, blocks=1),
    }


@pytest.fixture
def full_disk() -> Callable[[int], AbstractContextManager[None]]:
    """In its context no file may grow beyond so many bytes: the system's own refusal, in the middle of a file."""

    @contextmanager
    def limit(n_bytes: int) -> Iterator[None]:
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    return limit


def pinned(model: Path | str, **settings: Any) -> RunSpec:
    """A run of a local folder, `folder@depth`, as its files are now; or of an embedded model."""
    return RunSpec(
        model=str(model), revision=resolve_revision(str(model).partition("@")[0]), **settings
    )


def killed_after_the_first(runs: list[RunSpec], folder: Path) -> Path:
    """The first run's record, of a sweep that is killed by the system while it trains the second.

    Args:
        runs: what is swept, by one worker in another process; the second must never end by itself.
        folder: the store.
    """
    code = "import sys; from w2s_lib.experiments.sweep import *; sweep(map(RunSpec.from_json, sys.argv[1:]), workers=1, progress=False)"
    root = Path(__file__).parent.parent
    process = subprocess.Popen(
        [sys.executable, "-c", code, *(spec.to_json() for spec in runs)], cwd=root
    )
    first = folder / f"{runs[0].run_id}.parquet"
    try:
        while not (first.is_file() and (folder / f".{runs[1].run_id}.lock").exists()):
            assert process.poll() is None
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    return first


def small_tokenizer(words: Iterable[str] = ("terrible", "great")) -> Any:
    """Bytes, pieces and words of our sentences, and these words; no token for padding."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        special_tokens=["<unk>", "<s>", "</s>"],
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    made.train_from_iterator(
        [f"{t} It was {word}." for t in sentences()["text"] for word in words], trainer
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )


@pytest.fixture(scope="session")
def need() -> Callable[[object, str], None]:
    """Skips where something is not there, or fails where `W2S_REQUIRE_BROWSER` says that it has to be."""

    def need(condition: object, reason: str) -> None:
        if not condition:
            (pytest.fail if os.environ.get("W2S_REQUIRE_BROWSER") else pytest.skip)(reason)

    return need


FLAGS = ("no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync")
FLAGS += ("disable-background-networking", "disable-component-update")


@pytest.fixture(scope="session")
def browser(need: Callable[[object, str], None]) -> Iterator[Any]:
    """Chromium."""
    path = None
    with suppress(BookError):
        path = find_browser()
    need(path, "no Chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        options = [f"--{flag}" for flag in FLAGS]
        chromium = playwright.chromium.launch(executable_path=path, args=options)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def s3_server() -> Iterator[dict[str, str]]:
    """A local S3 server with a bucket `w2s`; gives the environment in which a process finds it."""
    pytest.importorskip("moto", reason="moto is not installed: pip install '.[test]'")
    from tests.cluster import ObjectStore

    store = ObjectStore()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in store.environment.items():
            patch.setenv(name, value)
        yield store.environment
    store.stop()


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a three-block model of random weights, and a tokenizer, for each of several families.

    Windows are of four tokens, so that texts are longer than they are.
    """
    import torch
    import transformers as tf

    root, tokenizer = tmp_path_factory.mktemp("models"), small_tokenizer()
    size = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "vocab_size": 6000,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    grouped = {
        **size,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }  # two query heads share a key head
    gpt2 = {
        "n_embd": 32,
        "n_layer": 3,
        "n_head": 2,
        "vocab_size": 6000,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    for name, model in {
        "llama": lambda: tf.LlamaForCausalLM(tf.LlamaConfig(**grouped)),
        "mistral": lambda: tf.MistralForCausalLM(
            tf.MistralConfig(**grouped, head_dim=8, sliding_window=4)
        ),
        "qwen2": lambda: tf.Qwen2ForCausalLM(tf.Qwen2Config(**grouped)),
        "qwen2_window": lambda: tf.Qwen2ForCausalLM(
            tf.Qwen2Config(
                **grouped, use_sliding_window=True, sliding_window=4, max_window_layers=1
            )
        ),
        "smollm3": lambda: tf.SmolLM3ForCausalLM(
            tf.SmolLM3Config(**grouped, pad_token_id=0, no_rope_layer_interval=2)
        ),
        "gemma": lambda: tf.GemmaForCausalLM(tf.GemmaConfig(**grouped, head_dim=16)),
        "gemma2": lambda: tf.Gemma2ForCausalLM(
            tf.Gemma2Config(**grouped, head_dim=16, sliding_window=4, final_logit_softcapping=2.0)
        ),
        "gemma3": lambda: tf.Gemma3ForCausalLM(
            tf.Gemma3TextConfig(**grouped, head_dim=16, sliding_window=4, sliding_window_pattern=2)
        ),
        "qwen3": lambda: tf.Qwen3ForCausalLM(tf.Qwen3Config(**grouped, head_dim=8)),
        "gpt_neox": lambda: tf.GPTNeoXForCausalLM(tf.GPTNeoXConfig(**size)),
        "gpt2": lambda: tf.GPT2LMHeadModel(tf.GPT2Config(**gpt2)),
    }.items():
        torch.manual_seed(0)
        made = model()
        for parameter in (
            made.parameters()
        ):  # norms and biases too: at their first values some mistakes do not show
            torch.nn.init.normal_(parameter, mean=0.1 if parameter.ndim == 1 else 0.0, std=0.2)
        made.save_pretrained(root / name)
        tokenizer.save_pretrained(root / name)
    return root
