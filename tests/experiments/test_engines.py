"""What every engine is asked, without a cluster: which there are, and which GPU a worker takes."""

from __future__ import annotations

import dataclasses
import math
import multiprocessing
import os
import sys
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import w2s_lib as w2s
from tests.conftest import pinned
from w2s_lib.experiments import engines, local_engine
from w2s_lib.experiments.sweep import ENGINES, sweep, train_missing
from w2s_lib.runs.errors import DeviceError, SpecError
from w2s_lib.runs.spec import Lora, RunSpec, Task
from w2s_lib.training.execute import trainings


def test_there_are_two_engines_behind_one_interface() -> None:
    for name in ENGINES:
        found = engines.engine_of(name)
        assert found.__name__ == f"w2s_lib.experiments.{name}_engine"  # type: ignore[attr-defined]
        assert callable(found.prepare) and callable(found.map_trainings)


def test_an_unknown_engine_is_said_even_where_nothing_is_missing(
    small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    w2s.run(spec, progress=False)
    with pytest.raises(SpecError, match="unknown engine 'rai': did you mean 'ray'"):
        sweep([spec], engine="rai")
    monkeypatch.setenv("W2S_ENGINE", "lokal")
    with pytest.raises(SpecError, match="unknown engine 'lokal': did you mean 'local'"):
        train_missing([spec])
    assert train_missing([spec], engine="local") == set()  # what is said wins


def test_ray_that_is_not_installed_is_one_clear_sentence(
    own_store: Path, small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("W2S_ENGINE", "ray")
    with pytest.raises(
        DeviceError,
        match=r"^engine='ray' needs Ray, which is not installed: pip install '\.\[cluster\]'$",
    ):
        sweep([w2s.supervisor("tfidf", small_task)], progress=False)
    assert not list(own_store.glob("*.parquet"))


@pytest.mark.parametrize(
    "set_by_user, count, expected",
    [("", 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("7", 1, ["7"]), ("", 0, [])],
)
def test_a_worker_has_a_gpu_of_its_own(
    set_by_user: str, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third worker shares the first one's; on a machine without a GPU nothing is set."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", set_by_user)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    names = local_engine.gpus()
    assert names == expected
    turn, taken = multiprocessing.get_context("spawn").Value("i", 0), []
    for _ in range(3):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "untouched")
        local_engine.take_gpu(turn, names)
        taken.append(os.environ["CUDA_VISIBLE_DEVICES"])
    assert taken == ([expected[i % count] for i in range(3)] if count else ["untouched"] * 3)


def test_a_worker_has_its_cores(
    small_task: Task, own_cache: Path, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = w2s.supervisor("tfidf", small_task)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    for given, expected in (("", 8), ("1", 8), ("3", 2), ("16", 1)):
        monkeypatch.setenv("W2S_THREADS", given)
        assert local_engine.prepare({spec.run_id: spec}, None) == expected
    assert local_engine.prepare({spec.run_id: spec}, 5) == 5


def test_a_model_that_is_split_over_the_gpus_is_trained_alone(
    small_task: Task, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a worker a GPU would each take all of them."""
    spec = w2s.supervisor("smollm2-135m@2", small_task, device="cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for given, asked, expected in (("", None, 4), ("auto", None, 1), ("auto", 2, 2)):
        monkeypatch.setenv("W2S_DEVICE_MAP", given)
        assert local_engine.prepare({spec.run_id: spec}, asked) == expected


def test_a_model_that_is_split_is_not_for_ray(
    small_task: Task, own_store: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("W2S_DEVICE_MAP", "auto")
    with pytest.raises(
        SpecError, match="engine='ray' gives each run one GPU: unset W2S_DEVICE_MAP"
    ):
        sweep([w2s.supervisor("tfidf", small_task)], engine="ray", progress=False)


def test_a_chapters_number_of_workers_is_not_for_a_cluster(
    small_task: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A chapter passes on its parameter; where the environment says Ray, the cluster is asked. Said together it is an error."""
    asked: list[int | None] = []

    def prepare(missing: dict[str, RunSpec], workers: int | None) -> int:
        asked.append(workers)
        return local_engine.prepare(missing, 1)

    monkeypatch.setattr(
        engines,
        "engine_of",
        lambda name: SimpleNamespace(prepare=prepare, map_trainings=local_engine.map_trainings),
    )
    for engine, environment, expected in (
        (None, "ray", None),
        ("ray", "", 3),
        (None, "local", 3),
        ("local", "ray", 3),
    ):
        monkeypatch.setenv("W2S_ENGINE", environment)
        sweep(
            [w2s.supervisor("tfidf", small_task, seed=len(asked))],
            workers=3,
            engine=engine,
            progress=False,
        )
        assert asked[-1] == expected


def test_the_time_is_told_by_records_of_the_same_model_and_device(
    tiny_models: Path,
    small_task: Task,
    quick: dict[str, Any],
    own_cache: Path,
    own_store: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """Those of a small model on a CPU say nothing of a large one, nor of a GPU."""
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    spec = pinned(f"{tiny_models}/llama@2", task=small_task, **quick)
    unknown = "1 of 1 distinct runs to train: for a time that no record tells (`plan` estimates it), with 1 worker"
    sweep([spec], workers=1, progress=False)
    assert unknown in capfd.readouterr().err
    sweep([spec.with_seed(1)], workers=1, progress=False)
    assert "1 of 1 distinct runs to train: about 0 min with 1 worker" in capfd.readouterr().err
    assert math.isnan(engines._seconds_a_unit()(dataclasses.replace(spec, device="cuda")))
    assert engines._seconds_a_unit()(RunSpec(model="smollm2-135m@2")) == engines.SECONDS_A_UNIT


def test_probes_of_the_untouched_model_come_first_and_others_last_the_lower_ones_first(
    small_task: Task, own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a probe reads is made of what flows below it, and trunks go on from there; all else stays in the order given."""
    weak = w2s.supervisor("smollm2-135m@2", small_task)
    wide = {"lora": Lora(blocks="all")}
    whole = w2s.ceiling("smollm2-135m@3", small_task, **wide)
    specs = [
        w2s.probe("smollm2-135m", small_task),
        w2s.probe("smollm2-135m@3", small_task),
        weak,
        w2s.student("smollm2-135m@3", weak),
        w2s.probe("smollm2-135m@2", small_task),
        w2s.ceiling("tfidf", small_task),
        *(w2s.probe(f"smollm2-135m@{layer}", small_task, start=whole, **wide) for layer in (3, 1)),
        whole,
        w2s.probe("smollm2-135m@1", teacher=weak),
    ]
    began: list[str] = []

    class Pool:
        _processes: dict[int, Any] = {}

        def __init__(self, *args: Any, **options: Any) -> None: ...

        def submit(self, function: Any, texts: list[str]) -> Future[None]:
            began.extend(RunSpec.from_json(text).run_id for text in texts)
            future: Future[None] = Future()
            future.set_result(None)
            return future

        def shutdown(self, **options: Any) -> None: ...

    monkeypatch.setattr(local_engine, "ProcessPoolExecutor", Pool)
    done = list(local_engine.in_workers(trainings(specs), 1))
    assert began == done == [specs[i].run_id for i in (4, 1, 0, 2, 9, 3, 5, 8, 7, 6)]
