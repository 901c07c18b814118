"""Worker processes: killed, left alone, interrupted, and in the way of another sweep."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import w2s_lib as w2s
from tests.conftest import until
from w2s_lib.experiments.local import Packing, gpu_share, gpus, train_jobs
from w2s_lib.experiments.sweep import sweep
from w2s_lib.experiments.worker import train
from w2s_lib.runs.errors import OutOfMemory, StoreUnavailable, TrainingError
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.runs.store import find, user_store

pytestmark = [
    pytest.mark.usefixtures("own_cache"),
    pytest.mark.filterwarnings("ignore:.* are also among the"),
]
REPO = Path(__file__).parents[2]
SWEEP = """
import sys
import w2s_lib as w2s
w2s.sweep([w2s.RunSpec.from_json(line) for line in open(sys.argv[1])], workers=2, progress=False)
"""


def workers_of(pid: int) -> list[psutil.Process]:
    found = []
    for child in psutil.Process(pid).children():
        with contextlib.suppress(psutil.Error):  # another test's process may just be ending
            if "w2s_lib.experiments.worker" in child.cmdline():
                found.append(child)
    return found


def default_signals() -> None:
    """As in a shell, whatever the tests were started from ignores."""
    for name in ("SIGINT", "SIGHUP", "SIGTERM"):
        signal.signal(signal.Signals[name], signal.SIG_DFL)


def test_where_a_store_takes_nothing_no_other_run_is_begun(
    own_store: Path, small_task: Task, full_disk: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those at work end, each after a try more."""
    runs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(6)]
    with full_disk(2_000), pytest.raises(StoreUnavailable, match="could not be written"):
        sweep(runs, workers=2, progress=False)
    assert capsys.readouterr().err.count("tried again") == 2


@pytest.fixture
def script(tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Runs a program as a user does, `python script.py`, from a folder of his own."""
    started: list[subprocess.Popen[str]] = []

    def start(code: str, specs: list[RunSpec]) -> subprocess.Popen[str]:
        (tmp_path / "script.py").write_text(code)
        (tmp_path / "specs").write_text("\n".join(spec.to_json() for spec in specs))
        process = subprocess.Popen(
            [sys.executable, "script.py", "specs"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(REPO)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=default_signals,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.fixture
def endless(small_task: Task, quick: dict[str, Any]) -> RunSpec:
    recipe = dataclasses.replace(quick["recipe"], epochs=100_000)
    return w2s.ceiling("smollm2-135m@1", small_task, **quick | {"recipe": recipe})


def is_trained(store: Path, spec: RunSpec) -> bool:
    return (store / f".{spec.run_id}.lock").exists()


def test_a_script_without_a_main_guard_trains_with_two_workers(
    script: Callable[..., subprocess.Popen[str]],
    own_store: Path,
    small_task: Task,
    quick: dict[str, Any],
) -> None:
    """Its supervisor first; what workers warn of is told, and no bar of theirs is."""
    weak = w2s.supervisor("tfidf", small_task)
    specs = [w2s.student("smollm2-135m@1", weak, **quick), w2s.supervisor("tfidf", small_task)]
    process = script(SWEEP, specs)
    out, err = process.communicate()
    assert process.returncode == 0 and out == "", err
    assert "w2s: 2 of 2 distinct runs to train" in err and "it/s" not in err
    assert {path.stem for path in own_store.glob("*.parquet")} == {s.run_id for s in specs}


def test_a_killed_worker_costs_its_own_run_alone(
    own_store: Path, endless: RunSpec, small_task: Task
) -> None:
    others = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(3)]
    taught = w2s.student(
        "tfidf", dataclasses.replace(endless, half="supervisor", predict_halves=True)
    )
    victim = taught.parents()[0]

    lock = str(own_store / f".{victim.run_id}.lock")

    def holders() -> list[psutil.Process]:
        return [w for w in workers_of(os.getpid()) if lock in (f.path for f in w.open_files())]

    def kill() -> None:
        until(holders)
        holders()[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(TrainingError) as error:
        sweep([taught, *others], workers=2, progress=False)
    killer.join()
    told = str(error.value)
    assert victim.run_id in told and "SIGKILL" in told and "memory" not in told
    assert told.endswith(f"Not trained, since they need a run that failed: {taught.run_id}.")
    assert {path.name for path in own_store.iterdir()} == {f"{s.run_id}.parquet" for s in others}
    assert not workers_of(os.getpid())


@pytest.mark.parametrize("workers", [1, 2])
def test_a_run_that_raises_costs_itself_and_its_students(
    workers: int, own_store: Path, small_task: Task, quick: dict[str, Any]
) -> None:
    recipe = dataclasses.replace(quick["recipe"], learning_rate=1e30)
    wild = w2s.supervisor("smollm2-135m@1", small_task, **quick | {"recipe": recipe})
    taught, fine = w2s.student("tfidf", wild), w2s.supervisor("tfidf", small_task)
    with pytest.raises(TrainingError, match="(?s)loss is nan.*Not trained.*" + taught.run_id):
        sweep([taught, fine], workers=workers, progress=False)
    assert [path.stem for path in own_store.glob("*.parquet")] == [fine.run_id]


@pytest.mark.parametrize(
    "name",
    [
        "SIGKILL",
        "SIGINT",
        *(pytest.param(n, marks=pytest.mark.torture) for n in ("SIGTERM", "SIGHUP")),
    ],
)
def test_workers_end_with_their_parent(
    name: str, script: Callable[..., subprocess.Popen[str]], own_store: Path, endless: RunSpec
) -> None:
    specs = [endless, endless.with_seed(1)]
    parent = script(SWEEP, specs)
    until(lambda: all(is_trained(own_store, spec) for spec in specs))
    workers = workers_of(parent.pid)
    assert len(workers) == 2
    parent.send_signal(signal.Signals[name])
    _, err = parent.communicate()
    assert psutil.wait_procs(workers, timeout=60)[1] == []
    assert err.count("KeyboardInterrupt") == (name == "SIGINT")
    assert not [path for path in own_store.iterdir() if path.suffix != ".lock"]


def test_a_run_is_trained_once_by_two_processes(
    script: Callable[..., subprocess.Popen[str]], own_store: Path, small_task: Task, tmp_path: Path
) -> None:
    code = """
import pathlib, sys, time
import w2s_lib as w2s
from w2s_lib.experiments.worker import train
from w2s_lib.training import execute
pathlib.Path(f"ready{sys.stdin.fileno()}-{time.time_ns()}").touch()
while len(list(pathlib.Path().glob("ready*"))) < 2:
    time.sleep(0.01)
for line in open(sys.argv[1]):
    spec = w2s.RunSpec.from_json(line)
    if train((spec, False)):
        print(spec.run_id)
"""
    specs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(8)]
    both = [script(code, specs), script(code, specs)]
    said = [process.communicate() for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert sorted(" ".join(out for out, _ in said).split()) == sorted(s.run_id for s in specs)


def test_a_run_that_another_process_trains_is_waited_for(own_store: Path, small_task: Task) -> None:
    """Until its record is there, or the other process has ended without one."""
    spec = w2s.supervisor("tfidf", small_task)
    trained: list[bool] = []
    # Not `capfd`: what is written while it is read is lost.
    with contextlib.redirect_stderr(io.StringIO()) as said, user_store().claim(spec.run_id) as mine:
        waiting = threading.Thread(target=lambda: trained.append(train((spec, False))))
        waiting.start()
        until(lambda: spec.run_id in said.getvalue())
        assert mine and find(spec) is None
    waiting.join()
    assert trained == [True] and train((spec, False)) is False


@pytest.mark.parametrize(
    "visible, count, expected", [("", 2, ["0", "1"]), ("3,5", 2, ["3", "5"]), ("7", 1, ["7"])]
)
def test_gpus_are_named_as_the_user_names_them(
    visible: str, count: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    assert gpus() == expected


def test_runs_share_a_gpu_as_far_as_its_memory_goes() -> None:
    """Two made-up GPUs; shares of 0.4 and 0.5, and one that has not been measured."""
    spec, shares = RunSpec(model="tfidf"), {0: 0.4, 1: 0.5, 2: 1.0}
    packing = Packing(2, lambda spec: shares[spec.seed])
    fits = [
        packing.start(gpu, name, spec.with_seed(seed))
        for gpu, name, seed in [(0, "a", 0), (0, "b", 1), (0, "c", 0), (0, "d", 2), (1, "d", 2)]
    ]
    assert fits == [True, True, False, False, True]
    assert packing.end(0, "a") == 0.4 and packing.start(0, "c", spec)
    packing.alone.add("a")
    assert not packing.start(0, "a", spec)
    for name in "bc":
        packing.end(0, name)
    assert packing.start(0, "a", spec) and not packing.start(0, "b", spec)


def test_a_run_takes_what_runs_like_it_took(own_store: Path, small_task: Task) -> None:
    spec = w2s.ceiling("smollm2-135m@1", small_task, device="cuda")
    record = w2s.run(w2s.supervisor("tfidf", small_task))
    measured = {"device_memory_bytes": 80 * 2**30, "peak_memory_bytes": 25 * 2**30}
    like = dataclasses.replace(record, spec=spec.with_seed(5), provenance=measured)
    other = dataclasses.replace(like, spec=w2s.ceiling("smollm2-135m@2", small_task, device="cuda"))
    assert gpu_share(record.spec, [record]) == 0
    assert gpu_share(spec, [record, other]) == 1
    assert gpu_share(spec, [other, like]) == pytest.approx((1.2 * 25 + 1) / 80)


def test_a_run_without_room_beside_others_is_tried_again_alone(
    own_store: Path, small_task: Task, quick: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    wide = dataclasses.replace(quick["lora"], rank=10**12)
    large = w2s.supervisor("smollm2-135m@1", small_task, **quick | {"lora": wide})
    fine = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(2)]
    jobs = {spec.run_id: (spec, False) for spec in (large, *fine)}
    ended = list(train_jobs(jobs, 2, lambda spec: 0.4))
    assert isinstance(dict(ended)[large.run_id], OutOfMemory) and all(map(find, fine))
    assert [name for name, error in ended].count(large.run_id) == 1
    said = capfd.readouterr().err
    assert said.count(f"w2s: {large.run_id} is tried again alone on its GPU") == 1
    assert said.count("w2s_lib.runs.errors.OutOfMemory: out of memory") == 2
