"""Mutated files for every reader: `python -m tests.fuzz [SECONDS [READER ...]]`. Nothing is kept.

Each reader takes what it is given, and then it means what it says, or it raises its own error.
Whatever else it does is printed once for each place in the code, with the shortest such file in
hexadecimal digits: another error, a crash, ten seconds of work without an answer, or a gigabyte of memory.
Mutations are drawn with a seed; how many there are depends on the machine.
"""

from __future__ import annotations

import dataclasses
import json
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import psutil

import w2s_lib as w2s
from tests.models.test_embedded_files import gguf
from tests.publishing.conftest import FILES
from tests.runs.test_store import SPEC, record
from w2s_lib.models.embedded import _read_to_the_end
from w2s_lib.publishing.chapters import Chapter, UsageError, resolve
from w2s_lib.runs.errors import SpecError, StoreError
from w2s_lib.runs.record import from_parquet, to_parquet
from w2s_lib.runs.spec import RunSpec
from w2s_lib.tasks.table import default_task, load_table

Read = Callable[[Path], None]
SECONDS, MEMORY = 10, 2**30
WORDS = b"""0 -1 1e999 NaN null true "" [] {} [[[[ {{{{ " ' , : # ! !!int !!binary !!timestamp &a *a << ? |
\\ud800 \\u0000 \xff\xfe \xef\xbb\xbf \xe2\x80\xa8 type run labels start FromRun chosen rejected text label split
test variants banner ../../x 2001-99-99 0x_ 99999999999999999999 __class__ \x00 \r \n \t""".split(
    b" "
)
RECORDS = [record(40), dataclasses.replace(record(40), rules="ab" * 32)]
NUMBERS = [0, 1, 2**15, 2**31 - 1, 2**31, 2**32 - 1, 2**60, 2**63 - 1, 2**63, 2**64 - 1]


def mutated(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """A file with up to eight places changed, and at times cut off."""
    for _ in range(rng.integers(1, 9)):
        place = int(rng.integers(len(content) + 1))
        part = content[place : place + int(rng.integers(1, 33))]
        word = WORDS[rng.integers(len(WORDS))]
        flipped = bytes(byte ^ 1 << int(rng.integers(8)) for byte in part[:1])
        n_replaced, new = [
            (1, flipped),
            (len(part), rng.bytes(len(part))),
            (8, NUMBERS[rng.integers(len(NUMBERS))].to_bytes(8, "little")),
            (0, word),
            (0, word * int(rng.integers(2, 2000))),
            (len(part), b""),
            (0, part * int(rng.integers(1, 5))),
            (len(part), other[place : place + len(part)]),
        ][rng.integers(8)]
        content = content[:place] + new + content[place + n_replaced :]
    return content[: rng.integers(len(content) + 1)] if rng.random() < 0.05 else content


def a_record(file: Path) -> None:
    again = from_parquet(file.read_bytes(), f"{SPEC.run_id}.parquet")
    assert again.digest in {one.digest for one in RECORDS}


def a_spec(file: Path) -> None:
    spec = RunSpec.from_json(file.read_bytes())  # type: ignore[arg-type]
    assert RunSpec.from_json(spec.to_json()) == spec


def a_table(file: Path) -> None:
    """What was read has the same content when it is written and read again."""
    table = load_table(default_task(str(file)))
    assert table.frame["label"].isin((0, 1)).all() and (table.frame["text"] != "").all()
    frame = table.frame.drop(columns="rating")
    if "text_b" in frame:
        first = frame["label"] == 1
        frame["chosen"] = frame["text"].where(first, frame["text_b"])
        frame["rejected"] = frame["text_b"].where(first, frame["text"])
        frame = frame.drop(columns=["text", "text_b", "label"])
    again = file.with_name("again.jsonl")
    frame.to_json(again, orient="records", lines=True)
    same = load_table(default_task(str(again))).frame
    for name in ("id", "group", "split"):
        assert list(same[name]) == list(table.frame[name]), name
    if "text_b" not in same:  # else the order within a pair is drawn by its row
        assert list(same["text"]) == list(table.frame["text"])


def a_profile(file: Path) -> None:
    (file.parent / "book").mkdir(exist_ok=True)
    (file.parent / "book" / "one.md").write_text(FILES["one.md"])
    (job,) = resolve([Chapter("one", file.parent)], profile=str(file), overrides={})
    assert set(job.parameters) <= {"seeds", "n"}


def a_gguf(file: Path) -> None:
    _read_to_the_end(str(file))


def tables(write: Callable[[pd.DataFrame, Path], object], suffix: str) -> list[bytes]:
    """A file of texts and one of comparisons, of a kind."""
    text, row = [f"text {i}, \N{SNOWMAN}" for i in range(6)], list(range(6))
    single = pd.DataFrame({"id": row, "text": text, "label": [0, 1] * 3, "group": row})
    pairs = pd.DataFrame(
        {"chosen": text, "rejected": [f"worse {i}" for i in row], "split": ["train", "test"] * 3}
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"own{suffix}")
        return [write(frame, path) or path.read_bytes() for frame in (single, pairs)]


def files() -> dict[str, tuple[str, Read, list[bytes], tuple[type[Exception], ...]]]:
    """Reader -> suffix of its files, what reads one, whole ones, the errors that are its own."""
    student = w2s.student(
        "smollm2-135m", w2s.supervisor("tfidf", "movie"), loss=w2s.ConfidenceLoss()
    )
    kinds = {
        ".csv": lambda frame, path: frame.to_csv(path, index=False),
        ".jsonl": lambda frame, path: frame.to_json(path, orient="records", lines=True),
        ".parquet": lambda frame, path: frame.to_parquet(path),
    }
    profile = [b"seeds: [0, 1]\nn: 4\nbanner: |\n  > A sketch.\nvariants:\n- {n: 5}\n", b"{n: 3}"]
    return {
        "record": (".parquet", a_record, [*map(to_parquet, RECORDS)], (StoreError,)),
        "spec": (".json", a_spec, [s.to_json().encode() for s in (SPEC, student)], (SpecError,)),
        "profile": (".yaml", a_profile, profile, (UsageError,)),
        "gguf": (".gguf", a_gguf, [gguf(), gguf(n_tensors=0)], (Exception,)),
        **{
            kind[1:]: (kind, a_table, tables(write, kind), (SpecError,))
            for kind, write in kinds.items()
        },
    }


def attack(name: str, seed: int, end: float, folder: Path) -> None:
    """Has a reader read mutated files until the time is over; tells what it did wrong."""
    warnings.simplefilter("ignore")
    suffix, read, whole, own = files()[name]
    rng, file, wrong, n_read, n_taken = (
        np.random.default_rng(seed),
        folder / f"own{suffix}",
        {},
        0,
        0,
    )
    for content in whole:
        file.write_bytes(content)
        read(file)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY,) * 2)
    while time.monotonic() < end:
        first, second = rng.integers(len(whole), size=2)
        file.write_bytes(content := mutated(whole[first], whole[second], rng))
        signal.setitimer(signal.ITIMER_PROF, SECONDS)  # of work, whose end ends this process
        n_read += 1
        try:
            read(file)
            n_taken += 1
        except Exception as error:
            if isinstance(error, MemoryError) or not isinstance(error, own):
                frames = traceback.extract_tb(error.__traceback__)
                ours = next(f for f in reversed(frames) if "site-packages" not in f.filename)
                place = f"{type(error).__name__} at {Path(ours.filename).name}:{ours.lineno}"
                if place not in wrong or len(content) < len(wrong[place][1]):
                    wrong[place] = str(error)[:300], content
    found = {place: [said, content.hex()] for place, (said, content) in wrong.items()}
    (folder / "told").write_text(json.dumps([n_read, n_taken, found]))


def main(seconds: float, names: list[str]) -> int:
    """A process for each reader, one after another; begun anew with another seed where it dies."""
    n_wrong = 0
    for name in names or files():
        seed, end, n_read, n_taken = 0, time.monotonic() + seconds, 0, 0
        while (left := end - time.monotonic()) > 1:
            with tempfile.TemporaryDirectory() as folder:
                given = (name, seed, time.monotonic() + left, Path(folder))
                process = multiprocessing.get_context("fork").Process(target=attack, args=given)
                process.start()
                process.join()
                found = {}
                if (told := Path(folder, "told")).exists():
                    read, taken, found = json.loads(told.read_text())
                    n_read, n_taken = n_read + read, n_taken + taken
                else:
                    content = next(Path(folder).glob("own.*")).read_bytes()
                    found[f"its process ended with {process.exitcode}"] = ["", content.hex()]
            for place, (said, content) in found.items():
                n_wrong += 1
                print(f"{name}: {place}: {said}\n    {content[:4000]}")
            seed += 1
        print(f"{name}: {n_read:,} files read, {n_taken:,} of them taken", flush=True)
    return 1 if n_wrong else 0


if __name__ == "__main__":
    os.environ |= {"W2S_CACHE": tempfile.mkdtemp(), "PYTHONWARNINGS": "ignore"}
    sys.exit(main(float((sys.argv[1:] or ["60"])[0]), sys.argv[2:]))
