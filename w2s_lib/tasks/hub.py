"""Tasks of the hub by name: where each one's rows lie, and a function that makes examples of a row.

Declarations are in `catalogue`; a user adds one with `hub_task`. A table that was read once is kept
in the cache under its digest, so that workers and later sessions need neither the network nor the
function.
"""

import hashlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from w2s_lib.runs.errors import AssetError, SpecError, require
from w2s_lib.runs.folders import cache_dir
from w2s_lib.runs.hub_errors import reason
from w2s_lib.tasks.readers import in_either_order

MAX_ROWS = 20_000
"""Of a larger split this many rows are drawn, the same for everybody."""


@dataclass(frozen=True)
class Example:
    """What becomes a row of a task.

    Attributes:
        text: what the model reads, in place of the template's `{text}`; of a comparison the chosen
            text.
        label: 0 or 1; of a comparison nothing.
        group: examples of one group never cross a split: a question's answers, a passage's
            questions. "": its hub row.
        rejected: of a comparison, the other text.
    """

    text: str
    label: int = 1
    group: str = ""
    rejected: str = ""


Formatter = Callable[[dict[str, Any]], Iterator[Example]]


@dataclass(frozen=True, eq=False)  # hashed by identity: declared anew, it is read anew
class HubTask:
    """A task of the hub. Args of `hub_task`; `examples` is the decorated function."""

    name: str
    hub: str
    revision: str
    config: str | None
    parts: Mapping[str, str]
    files: str
    source: str
    pairs: bool
    settings: Mapping[str, Any]
    examples: Formatter

    @property
    def pinned(self) -> bool:
        """Whether its revision is a commit."""
        return len(self.revision) == 40


HUB_TASKS: dict[str, HubTask] = {}


def hub_task(
    hub: str,
    *,
    source: str = "",
    config: str | None = None,
    parts: Mapping[str, str] | None = None,
    files: str = "",
    pairs: bool = False,
    **settings: Any,
) -> Callable[[Formatter], Formatter]:
    """Declares a task by a function that yields the `Example`s of one row of the hub's dataset.

        @w2s.hub_task("me/riddles:a1b2c3", source="https://...", n_train=500)
        def riddles(row):
            yield w2s.Example(row["riddle"], int(row["right"]), group=row["riddle"])

    The function's name, in lower case, is the task's: `w2s.default_task("riddles")`.

    Args:
        hub: the dataset, `owner/name:revision`: a commit, so that it stays what it is; "main"
            where none is given.
        source: where the schema is described; by default the dataset's card on the hub.
        config: the dataset's configuration, if it has several.
        parts: our split -> the hub's; "train" alone by default. Where "test" or "validation" is
            missing it is drawn from "train".
        files: where `datasets` cannot load the dataset by name, since it is a script: the path of
            its Parquet files in the repository, with `{split}`.
        pairs: whether its examples are comparisons: all have a `rejected` text, or none has.
        **settings: fields of `Task` that fit it: `n_train`, `template`, ...

    Raises:
        SpecError: another task, declared elsewhere, has that name.
    """
    repository, _, revision = hub.partition(":")

    def declare(examples: Formatter) -> Formatter:
        name = examples.__name__
        said = f"hub_task: {name!r} is no name of a task: use lower case"
        require(name == name.lower(), said)
        # A cell may be run again.
        if name in HUB_TASKS and HUB_TASKS[name].examples.__module__ != examples.__module__:
            raise SpecError(f"hub_task: there is a task {name!r} already, of {HUB_TASKS[name].hub}")
        HUB_TASKS[name] = HubTask(
            name=name,
            hub=repository,
            revision=revision or "main",
            config=config,
            parts=parts or {"train": "train"},
            files=files,
            source=source or f"huggingface.co/datasets/{repository}, README",
            pairs=pairs,
            settings=settings,
            examples=examples,
        )
        return examples

    return declare


def cached_table(name: str, digest: str) -> Path:
    """The file in the cache of a task's table: what the hub gave, by the digest of the result."""
    return cache_dir() / "tasks" / f"{name}-{digest[:16]}.parquet"


def kept_table(file: Path) -> pd.DataFrame | None:
    """A hub task's table as it was kept; None where there is none, or where the file is damaged."""
    if not file.is_file():
        return None
    try:
        return pd.read_parquet(file)
    except (OSError, ValueError) as error:
        warnings.warn(f"{file} is damaged, its task is read again: {error}", stacklevel=2)
        return None


def read_hub_task(task: HubTask) -> pd.DataFrame:
    """The table of a task, from the hub.

    Raises:
        AssetError: the dataset cannot be loaded: no network, no such dataset or split, or it is
            gated.
        SpecError: its rows are not what the task's function expects.
    """
    frames = [
        frame_of(task, _load(task, theirs), part=ours).assign(split=ours)
        for ours, theirs in task.parts.items()
    ]
    return pd.concat(frames, ignore_index=True).assign(rating=np.nan)


def _load(task: HubTask, split: str) -> Any:
    from datasets.load import load_dataset
    from huggingface_hub import hf_hub_download

    what_is = f"split {split!r} of the hub's {task.hub!r} for task {task.name!r}"
    try:
        if task.files:  # `datasets` would not ask a busy hub again
            file = task.files.format(split=split)
            path = hf_hub_download(task.hub, file, repo_type="dataset", revision=task.revision)
            data = load_dataset("parquet", data_files={split: path}, split=split)
        else:
            data = load_dataset(task.hub, task.config, revision=task.revision, split=split)
    except Exception as error:  # datasets lets through the errors of half a dozen libraries
        raise AssetError(
            f"cannot load {what_is}: {reason(error)}; or save it as a file and give the file's path"
        ) from error
    # Where the hub fails it takes, with a warning, what it has loaded last: of whatever commit.
    found = {Path(file["filename"]).parent.name for file in data.cache_files}
    if task.pinned and not task.files and found - {task.revision}:
        raise AssetError(
            f"cannot load {what_is}: the hub cannot be asked, and what this machine has of it is "
            f"not of commit {task.revision}"
        )
    if len(data) > MAX_ROWS:
        drawn = np.random.default_rng(0).choice(len(data), MAX_ROWS, replace=False)
        data = data.select(np.sort(drawn))
    return data


def frame_of(task: HubTask, rows: Any, *, part: str = "train") -> pd.DataFrame:
    """The examples of a split's rows as a table.

    Args:
        task: gives the function.
        rows: dictionaries, such as a `datasets.Dataset` yields.
        part: our name of the split, which ids begin with.

    Returns:
        Columns `id`, `text`, `label`, `group`, and `text_b` of comparisons.

    Raises:
        SpecError: a row has not the columns, or not the values, that the function expects.
    """
    made: list[tuple[str, str, int, str, str]] = []
    for number, row in enumerate(rows):
        where, key = f"task {task.name!r}: row {number} of {task.hub}", f"{part}-{number}"
        try:
            examples = list(task.examples(dict(row)))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            said = f"is not as {task.source} describes it ({type(error).__name__}: {error})"
            raise SpecError(f"{where} {said}; its columns are {', '.join(row)}") from error
        for k, example in enumerate(examples):
            label, digest = example.label, hashlib.sha256(example.group.encode()).hexdigest()
            require(label in (0, 1), f"{where} has the label {label!r}, not 0 or 1")
            text, rejected = (" ".join(side.split()) for side in (example.text, example.rejected))
            group = digest[:16] if example.group else key
            made.append((f"{key}-{k}", text, label, group, rejected))
    columns = ["id", "text", "label", "group", "rejected"]
    frame = pd.DataFrame(made, columns=columns).astype({"label": "int8"})
    undeclared = bool((frame["rejected"] != "").any()) and not task.pairs
    require(not undeclared, f"task {task.name!r} has a `rejected` text: declare it with pairs=True")
    usable = frame["text"] != ""
    if task.pairs:
        usable &= (frame["rejected"] != "") & (frame["rejected"] != frame["text"])
    frame = frame[usable].reset_index(drop=True)
    if task.pairs:
        frame["label"], frame["text"], frame["text_b"] = in_either_order(
            frame["text"], frame["rejected"]
        )
    return frame.drop(columns="rejected")


def right_and_wrong(texts: list[str], right: int, *, context: str = "") -> Iterator[Example]:
    """Of a question's answers the right one and a wrong one, in one group: balanced.

    The question itself draws the wrong one.

    Args:
        texts: question and answer, a text an answer.
        right: which answer is right, from 0.
        context: what else makes up the group, such as the passage; none: the texts.
    """
    if not 0 <= right < len(texts):
        raise ValueError(f"answer {right} of {len(texts)}")
    wrong = [text for number, text in enumerate(texts) if number != right]
    question = "\n".join(texts)
    drawn = int.from_bytes(hashlib.sha256(question.encode()).digest()[:4]) % len(wrong)
    yield Example(texts[right], 1, context or question)
    yield Example(wrong[drawn], 0, context or question)
