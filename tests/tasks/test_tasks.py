"""Tasks: canonical tables, fixed test and validation, halves by seed, and names that are none refused."""

import hashlib
import os
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.settings import EMBEDDED_TASKS
from w2s_lib.runs.spec import Task
from w2s_lib.tasks.table import (
    EMBEDDED,
    TaskTable,
    default_task,
    load_table,
    splits,
    texts_a_row,
    warn_of_shared_texts,
)

REPO = Path(__file__).parents[2]
SMALL = {"n_train": 4, "n_validation": 2, "n_test": 4}


def rows(n: int, **columns: object) -> pd.DataFrame:
    """A valid user's table of n rows, the labels in turn, with columns replaced or added."""
    table = {"text": [f"Text number {i}." for i in range(n)], "label": [i % 2 for i in range(n)]}
    return pd.DataFrame({**table, **columns})


def write(frame: pd.DataFrame, path: Path) -> str:
    if path.suffix == ".csv":
        frame.to_csv(path, index=False)
    elif path.suffix == ".jsonl":
        frame.to_json(path, orient="records", lines=True)
    else:
        frame.to_parquet(path)
    return str(path)


def parts_of(table: TaskTable, seed: int) -> dict[str, np.ndarray]:
    drawn = splits(table, seed)
    return {name: getattr(drawn, name) for name in ("test", "validation", "supervisor", "student")}


def check_parts(table: TaskTable, parts: dict[str, np.ndarray]) -> None:
    """What every draw must be: the sizes asked for, sorted, balanced, disjoint, groups whole."""
    task = table.task
    sizes = {
        "test": task.n_test,
        "validation": task.n_validation,
        "supervisor": task.n_train,
        "student": task.n_train,
    }
    label, group = table.frame["label"].to_numpy(), table.frame["group"].to_numpy()
    for name, size in sizes.items():
        assert parts[name].dtype == np.int64 and len(parts[name]) == size
        assert (np.diff(parts[name]) > 0).all()
        assert label[parts[name]].sum() == size // 2
    owners = [set(group[part]) for part in parts.values()]
    assert sum(map(len, owners)) == len(set.union(*owners))


# The embedded tasks


@pytest.mark.parametrize(
    ("name", "n_negative", "n_positive", "n_groups", "n_dropped"),
    [
        ("movie", 5060, 4981, 10041, 2),
        ("amazon", 1216, 1719, 298, 8),
        ("nyt", 1663, 1088, 497, 37),
        ("tweets", 962, 2201, 3163, 0),
    ],
)
def test_embedded_tables_are_what_they_were(name, n_negative, n_positive, n_groups, n_dropped):
    table = load_table(default_task(name))
    frame = table.frame
    assert frame["label"].value_counts().sort_index().to_list() == [n_negative, n_positive]
    assert (frame["group"].nunique(), table.n_dropped) == (n_groups, n_dropped)
    assert frame.index.to_list() == list(range(len(frame))) and frame["id"].is_unique
    assert frame["label"].dtype == np.int8
    assert ((frame["rating"] > 0) == (frame["label"] == 1)).all() and (
        frame["rating"].abs() > 0.5
    ).all()
    assert not frame["text"].str.contains(r"&amp;|&lt;|&gt;|\s\s|^\s|\s$").any()
    assert not frame["text"].str.casefold().duplicated().any()
    assert len(table.ratings) == len(frame)
    means = [sum(votes) / len(votes) for votes in table.ratings]
    np.testing.assert_allclose(means, frame["rating"], atol=1e-4)
    check_parts(table, parts_of(table, 0))


def test_a_rater_agrees_with_the_mean_as_often_as_measured():
    """The labels' own noise in `movie`: 94.5% with a rating of 0 counted half right, 92.5% with it counted wrong."""
    table = load_table(Task(name="movie"))
    votes = np.concatenate([np.sign(each) for each in table.ratings])
    side = np.repeat(
        2 * table.frame["label"].to_numpy(np.float64) - 1, [len(each) for each in table.ratings]
    )
    assert np.mean(votes == side) == pytest.approx(0.925, abs=0.001)
    assert np.mean((1 + votes * side) / 2) == pytest.approx(0.945, abs=0.001)


def test_the_default_tables_and_draws_are_pinned():
    """Published records are joined by this digest and these rows: a change here makes all of them void."""
    table = load_table(Task(name="movie"))
    drawn = hashlib.sha256(
        b"".join(part.astype("<i8").tobytes() for part in parts_of(table, 0).values())
    ).hexdigest()
    assert (table.digest[:16], drawn[:16]) == ("e7b276d478387715", "e6aeb7c42b5c8401")


@pytest.mark.parametrize(
    ("name", "n_seen", "published"),
    [("movie", 3000, "599319bc22944175"), ("movie-preference", 2000, "30124cfd86388fe4")],
)
def test_no_test_row_is_one_of_the_first_editions(name, n_seen, published):
    """These drew the first rows of either class in an order that the table's digest seeds.

    `published` is the digest of the 2,000 test rows in that edition's records; its pilot had the next 1,000 of `movie`.
    """
    table = load_table(default_task(name))
    label = table.frame["label"].to_numpy()
    order = np.random.default_rng(int(table.digest[:16], 16)).permutation(len(label))

    def seen(n: int) -> np.ndarray:
        return np.sort(np.concatenate([order[label[order] == k][: n // 2] for k in (0, 1)]))

    assert hashlib.sha256(seen(2000).astype("<i8").tobytes()).hexdigest()[:16] == published
    for seed in (0, 300):
        drawn = splits(table, seed)
        assert not np.isin(drawn.test, seen(n_seen)).any() and len(drawn.test) == table.task.n_test
    other = splits(load_table(default_task(name, n_test=400)), 0).test
    assert not np.isin(other, seen(n_seen)).any()


def test_min_rating_is_a_parameter():
    wide, narrow = (
        load_table(default_task("tweets", min_rating=limit)).frame for limit in (0.0, 2.0)
    )
    assert len(narrow) < 3163 < len(wide)
    assert wide["rating"].abs().min() > 0 and narrow["rating"].abs().min() > 2


def test_a_caller_cannot_spoil_the_table_of_another():
    frame = load_table(default_task("nyt")).frame
    frame.loc[:, "label"] = 1
    assert load_table(default_task("nyt")).frame["label"].nunique() == 2


def test_default_sizes_fit_and_can_be_overridden():
    assert default_task("movie") == Task()
    assert default_task("amazon", n_test=200) == Task(
        name="amazon", n_train=500, n_validation=200, n_test=200
    )
    for name in EMBEDDED:
        table = load_table(default_task(name))
        for seed in range(3):
            check_parts(table, parts_of(table, seed))


# Splits


@st.composite
def tables(draw: st.DrawFn) -> TaskTable:
    sizes = draw(st.lists(st.integers(1, 5), min_size=1, max_size=40))
    group = [f"g{i}" for i, size in enumerate(sizes) for _ in range(size)]
    label = draw(st.lists(st.integers(0, 1), min_size=len(group), max_size=len(group)))
    part = ["train", "validation", "test"] if draw(st.booleans()) else [""]
    split = [part[int(name[1:]) % len(part)] for name in group]
    frame = pd.DataFrame({"id": range(len(group)), "label": label, "group": group, "split": split})
    n_train, n_validation, n_test = draw(st.tuples(*[st.integers(1, 4)] * 3))
    task = Task(name="drawn", n_train=2 * n_train, n_validation=2 * n_validation, n_test=2 * n_test)
    digest = hashlib.sha256(repr((group, label)).encode()).hexdigest()
    return TaskTable(task=task, frame=frame, ratings=(), digest=digest, n_dropped=0)


@settings(max_examples=150, deadline=None)
@given(tables(), st.integers(0, 2**32))
def test_parts_are_balanced_and_disjoint_with_groups_whole_and_test_fixed(table, seed):
    try:
        parts = parts_of(table, seed)
    except SpecError as error:
        assert "too few rows for n_" in str(error)
        return
    check_parts(table, parts)
    if (table.frame["split"] != "").any():
        asked = {
            "test": "test",
            "validation": "validation",
            "supervisor": "train",
            "student": "train",
        }
        for name, split in asked.items():
            assert set(table.frame["split"].iloc[parts[name]]) == {split}
    again = parts_of(table, seed)
    assert all((parts[name] == again[name]).all() for name in parts)
    try:
        other = parts_of(table, seed + 1)
    except SpecError:  # whole groups can fall so that another seed has too few
        return
    assert (parts["test"] == other["test"]).all() and (
        parts["validation"] == other["validation"]
    ).all()


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 1), min_size=1, max_size=60), st.integers(0, 100))
def test_rows_without_groups_fail_only_when_there_are_too_few(labels, seed):
    frame = pd.DataFrame(
        {"label": labels, "group": [str(i) for i in range(len(labels))], "split": ""}
    )
    task = Task(name="drawn", n_train=6, n_validation=4, n_test=8)  # 12 rows of either label
    table = TaskTable(task, frame, (), hashlib.sha256(bytes(labels)).hexdigest(), 0)
    enough = min(labels.count(0), labels.count(1)) >= 12
    try:
        check_parts(table, parts_of(table, seed))
        assert enough
    except SpecError:
        assert not enough


def test_seeds_draw_other_halves_from_the_whole_pool():
    table = load_table(Task(name="movie", n_train=2000))
    drawn = [parts_of(table, seed) for seed in range(6)]
    assert len({part["supervisor"].tobytes() for part in drawn}) == 6
    held = set(drawn[0]["test"]) | set(drawn[0]["validation"])
    seen = set().union(*(set(part[half]) for part in drawn for half in ("supervisor", "student")))
    pool = len(table.frame) - len(held)
    assert not seen & held and len(seen) > 0.97 * pool  # a draw takes 53% of it, six take 99%


def test_test_rows_do_not_depend_on_the_other_sizes():
    few, many = (
        parts_of(load_table(Task(name="movie", n_train=n, n_validation=n)), 0)["test"]
        for n in (100, 1000)
    )
    assert (few == many).all()


def test_a_validation_split_that_a_user_lacks_comes_out_of_train(tmp_path):
    name = write(rows(40, split=["train"] * 30 + ["test"] * 10), tmp_path / "own.csv")
    parts = parts_of(load_table(default_task(name, **SMALL)), 0)
    assert (
        parts["test"].min() >= 30
        and max(parts[name].max() for name in ("validation", "supervisor", "student")) < 30
    )


def test_too_few_rows_says_how_many_there_are_and_what_to_set(tmp_path):
    name = write(rows(20), tmp_path / "own.csv")
    with pytest.raises(SpecError, match=r"n_test = 2000.*\b1000\b.*\b10\b"):
        splits(load_table(default_task(name)), 0)


# Names


def test_unknown_tasks_and_fields_are_refused_with_the_nearest():
    sizes = {"n_train": 2, "n_validation": 2, "n_test": 2}
    for ask in (default_task, lambda name: load_table(Task(name=name, **sizes))):
        for name, near in (("movi", "'movie'"), ("own.txt", ".parquet"), ("a\0b", ".parquet")):
            with pytest.raises(SpecError, match=near):
                ask(name)
    with pytest.raises(SpecError, match="'n_tests'.*'n_test'"):
        default_task("movie", n_tests=10)


def test_describing_a_task_reads_nothing(tmp_path, monkeypatch):
    """A cache that is empty, and cannot be filled, stays so."""
    monkeypatch.setenv("W2S_CACHE", str(tmp_path / "cache"))
    for name in ("movie", "movie-preference", "sst2", "nowhere/own.csv"):
        assert default_task(name).sha256 == ""
    assert [texts_a_row(default_task(name)) for name in ("movie", "movie-preference")] == [1, 2]
    assert [texts_a_row(default_task(name)) for name in ("sst2", "anthropic_hh")] == [1, 2]
    assert list(tmp_path.iterdir()) == []
    assert set(EMBEDDED) == set(EMBEDDED_TASKS)  # whose name alone pins them


# The hub


def test_the_hub_out_of_reach_is_one_clear_error(tmp_path):
    code = "from w2s_lib.tasks.table import *\ntry: resolve_task(default_task('sst2'))\nexcept Exception as e: print(repr(e))"
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert done.stdout.startswith("AssetError(") and "\\n" not in done.stdout
    assert "'train'" in done.stdout and "'nyu-mll/glue'" in done.stdout


# Two names for the same texts


def test_two_tasks_that_share_their_texts_are_told_of_where_both_are_used(tmp_path):
    movie = load_table(default_task("movie")).frame.head(300)
    shouted = movie["text"].str.upper().str.replace(",", " ,")
    name = write(pd.DataFrame({"text": shouted, "label": movie["label"]}), tmp_path / "reviews.csv")
    tasks = [default_task(each) for each in ("movie", "amazon", "movie-preference", name)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # one task at two thresholds is nothing to warn about
        for task in tasks:
            load_table(task)
        warn_of_shared_texts([tasks[0], default_task("movie", min_rating=1.0), tasks[1]])
    with pytest.warns(UserWarning, match=r"300 .*300 .*reviews\.csv.* movie"):
        warn_of_shared_texts([tasks[0], tasks[3]])
    with pytest.warns(UserWarning, match=r" movie-preference.* movie\b"):
        warn_of_shared_texts(tasks[:3])
