"""A user's own file of texts: one table of every kind of file, or refused by its name and row."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.tasks.test_tasks import SMALL, check_parts, parts_of, rows, write
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.folders import file_sha256
from w2s_lib.runs.spec import Task
from w2s_lib.tasks.table import default_task, load_table, resolve_task

REPO = Path(__file__).parents[2]


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_every_file_kind_gives_the_same_table(tmp_path, suffix):
    frame = rows(20, id=[f"00{i}" for i in range(20)], group=[str(i // 2) for i in range(20)])
    frame.loc[3, "text"] = 'NA, "quoted"\nand  broken — ünïcode'
    frame.loc[4, "text"] = "null"
    table = load_table(default_task(write(frame, tmp_path / f"own{suffix}"), **SMALL))
    assert table.frame["id"].to_list() == frame["id"].to_list()
    assert table.frame["text"].to_list()[2:5] == [
        "Text number 2.",
        'NA, "quoted" and broken — ünïcode',
        "null",
    ]
    assert table.frame["label"].to_list() == frame["label"].to_list()
    assert table.frame["rating"].isna().all() and table.ratings == () and table.n_dropped == 0
    assert (
        table.digest == load_table(default_task(write(frame, tmp_path / "as.csv"), **SMALL)).digest
    )
    check_parts(table, parts_of(table, 0))


def test_id_and_group_are_the_row_where_they_are_not_given(tmp_path):
    frame = load_table(
        default_task(write(rows(6, group=["a", "a", "", "", "b", "b"]), tmp_path / "own.csv"))
    ).frame
    assert frame["id"].to_list() == ["0", "1", "2", "3", "4", "5"]
    assert frame["group"].to_list() == ["a", "a", "2", "3", "b", "b"]


@pytest.mark.parametrize("labels", [[True, False] * 3, [1.0, 0.0] * 3, ["1", "0"] * 3])
def test_labels_may_be_written_in_any_of_these_ways(tmp_path, labels):
    for suffix in (".csv", ".jsonl", ".parquet"):
        table = load_table(default_task(write(rows(6, label=labels), tmp_path / f"own{suffix}")))
        assert table.frame["label"].to_list() == [1, 0] * 3


@pytest.mark.parametrize(
    ("frame", "message"),
    [
        (rows(6).drop(columns="text"), r"'text'.*'label'"),
        (rows(6).rename(columns={"label": "class"}), r"'label'.*'text', 'class'"),
        (rows(6, label=[0, 1, 0, 2, 0, 3]), r"row 3 .*label.*'2'.*\b1\b"),
        (rows(6, label=["0", "1", "", "0", "1", "1"]), r"row 2 .*label.*''"),
        (rows(6, label=[0.5] * 6), r"row 0 .*'0\.5'"),
        (rows(6, text=["a", "b", "  ", "d", "e", "f"]), r"row 2 .*text"),
        (rows(6, text=["a", "b", "c", "A ", "e", "b"]), r"rows 0, 3 .*'a'.*\b2\b"),
        (rows(6, id=["a", "b", "c", "a", "e", "f"]), r"row 3 .*id 'a'"),
        (rows(6, id=["a", "b", "", "d", "e", "f"]), r"row 2 .*\bid\b"),
        (
            rows(6, split=["train", "test", "dev", "test", "test", "test"]),
            r"row 2 .*train, validation, test.*'dev'",
        ),
        (
            rows(6, group=list("aabbcc"), split=["train"] * 3 + ["test"] * 3),
            r"row 3 .*group 'b'.*split",
        ),
    ],
)
def test_bad_content_is_refused_with_its_row(tmp_path, frame, message):
    with pytest.raises(SpecError, match=message):
        load_table(default_task(write(frame, tmp_path / "own.csv")))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("own.csv", b""),
        ("own.csv", b'text,label\n"never closed,1\n'),
        ("own.csv", b"text,label\n\xff\xfe,1\n"),
        ("own.csv", b"text,label\n"),
        ("own.csv", b"chosen,rejected\n"),
        ("own.jsonl", b'{"text": "a", "label": 1}\n{"text": \n'),
        ("own.jsonl", b"3\n"),
        ("own.jsonl", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b', "label": 1}\n'),
        ("own.parquet", b"PAR1 not at all"),
        # Not text: a list, a number, half a character.
        ("own.jsonl", b'{"text": ["a", "b"], "label": 1}\n'),
        ("own.jsonl", b'{"text": 7, "label": 1}\n'),
        ("own.jsonl", b'{"text": "half \\ud83d", "label": 1}\n'),
        ("own.jsonl", b'{"chosen": "a", "rejected": {"b": 1}}\n'),
        ("own.jsonl", b'{"text": "a", "label": 1, "group": [1]}\n'),
        ("own.jsonl", b'{"text": "a", "label": [1]}\n'),
    ],
)
def test_a_file_that_is_no_table_of_texts_is_refused_by_name(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(SpecError, match=f"{name}"):
        load_table(default_task(str(tmp_path / name)))


def test_a_binary_column_is_no_text(tmp_path):
    """Not trained on "b'...'"."""
    name = write(rows(4, text=[b"one", b"two", b"three", b"four"]), tmp_path / "own.parquet")
    with pytest.raises(SpecError, match="b'one'"):
        load_table(default_task(name))


@pytest.mark.parametrize(
    "spoiled",
    [
        lambda table: table.set_column(0, "text", pa.array([b"\xff("] * 4).view(pa.string())),
        lambda table: table.replace_schema_metadata(
            {"pandas": '{"columns": [{"name": "text"}], "index_columns": ["text"]}'}
        ),
    ],
)
def test_a_parquet_file_that_says_what_is_not_so_is_refused_by_name(tmp_path, spoiled):
    """Text that is no UTF-8; pandas' own notes cut short. As the fuzzer has found them."""
    table = pa.table({"text": ["one", "two", "three", "four"], "label": [0, 1, 0, 1]})
    pq.write_table(spoiled(table), tmp_path / "own.parquet")
    with pytest.raises(SpecError, match="own.parquet"):
        load_table(default_task(str(tmp_path / "own.parquet")))


def test_json_strings_may_hold_any_line_separator(tmp_path):
    """U+2028, U+2029 and U+0085 are ends of a line to `str.splitlines`, and not to JSON."""
    text = "one\u2028two\u2029three\u0085four"
    content = json.dumps({"text": text, "label": 1}, ensure_ascii=False)
    (tmp_path / "own.jsonl").write_text(content + "\r\n", encoding="utf-8")
    frame = load_table(default_task(str(tmp_path / "own.jsonl"))).frame
    assert frame["text"].to_list() == ["one two three four"]


def test_missing_text_in_json_is_an_empty_text(tmp_path):
    (tmp_path / "own.jsonl").write_text('{"text": "a", "label": 1}\n\n{"text": null, "label": 0}\n')
    with pytest.raises(SpecError, match="row 1 .*text"):
        load_table(default_task(str(tmp_path / "own.jsonl")))


@pytest.mark.parametrize("name", ["nowhere/own.csv", "~nosuchuser/own.csv", "o\0wn.csv"])
def test_a_file_that_cannot_be_read_is_named(name):
    """Describing it reads nothing; pinning it and loading it do."""
    task = default_task(name)
    assert task.sha256 == ""
    for ask in (resolve_task, load_table):
        with pytest.raises(SpecError, match=re.escape(repr(name))):
            ask(task)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_a_file_name_beyond_ascii_in_any_locale(tmp_path, suffix):
    name = write(rows(8), tmp_path / f"müsli und größe{suffix}")
    code = (
        "from w2s_lib.tasks.table import *; print(len(load_table(default_task(sys.argv[1])).frame))"
    )
    for locale in ("C", "C.UTF-8"):
        done = subprocess.run(
            [sys.executable, "-c", f"import sys; {code}", name],
            cwd=REPO,
            env={**os.environ, "LANG": locale, "LC_ALL": locale},
            capture_output=True,
            text=True,
        )
        assert done.stdout == "8\n", done.stderr


def test_duplicates_are_dropped_with_a_warning_that_counts_them(tmp_path):
    frame = rows(8, text=["a b", "c", "A  b", "d", "e", "f", "a b ", "g"])
    with pytest.warns(UserWarning, match="2 of 8 "):
        table = load_table(default_task(write(frame, tmp_path / "own.csv")))
    assert table.n_dropped == 2 and table.frame["id"].to_list() == ["0", "1", "3", "4", "5", "7"]
    assert table.frame.index.to_list() == list(range(6))


def test_a_changed_file_is_another_task(tmp_path):
    name = write(rows(20), tmp_path / "own.csv")
    task = resolve_task(default_task(name, **SMALL))
    assert task.sha256 == file_sha256(tmp_path / "own.csv") and resolve_task(task) == task
    write(rows(22), tmp_path / "own.csv")
    with pytest.raises(SpecError, match=task.sha256):
        load_table(task)
    assert len(load_table(default_task(name, **SMALL)).frame) == 22
    with pytest.raises(SpecError, match="movie.*sha256.*0000"):
        load_table(Task(name="movie", sha256="0" * 64))


def test_the_digest_covers_text_label_group_and_split(tmp_path):
    changes = [
        {},
        {"text": ["x", *rows(8)["text"][1:]]},
        {"label": [1, 1, 0, 1] * 2},
        {"group": list("aabcdefg")},
    ]
    changes += [{"id": list("abcdefgh")}, {"split": ["train"] * 8}]
    digests = set()
    for i, change in enumerate(changes):
        digests.add(
            load_table(default_task(write(rows(8, **change), tmp_path / f"own{i}.csv"))).digest
        )
    assert len(digests) == len(changes)
