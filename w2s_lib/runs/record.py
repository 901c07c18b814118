"""A finished run, its file (predictions as Parquet columns, all else in the metadata), its row.

The metadata holds format, spec, metrics, provenance, the digest of the edition's rules, and a
digest of all of it.
"""

import hashlib
import io
import json
import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_lib.runs.description import Description, defaults
from w2s_lib.runs.errors import DamagedRecord, SpecError, StoreError
from w2s_lib.runs.settings import NextToken
from w2s_lib.runs.spec import SEMANTICS, RunSpec

SPLITS = ("test", "validation", "supervisor", "student")
FORMAT = 3
"""Formats 1 and 2 are the first edition's."""
_NUMBERS: dict[str, Any] = {"row": np.int32, "label": np.int8, "p": np.float32, "group": np.int32}
"""Columns of the file, beside `split`, and their types."""
P_STEP = 2.0**-16
"""Predictions are rounded to this.

So records stay small, and a label read from one is the label that was made.
"""
FloatArray = np.ndarray[Any, np.dtype[np.float32]]
_UNREADABLE: tuple[type[Exception], ...] = (SpecError, OSError, ValueError, LookupError)
_UNREADABLE += (TypeError, AttributeError, RecursionError, pa.ArrowException)
"""What a damaged file makes the libraries raise. No bytes are fetched there: an `OSError` is
pyarrow's word for content that it cannot decode."""


@dataclass(frozen=True)
class Record:
    """A finished run.

    Attributes:
        spec: what was run.
        predictions: index `row`; columns `split` (one of `SPLITS`), `label` (ground truth, 0/1),
            `p` (float32, P(y = 1)) and `group` (rows of one group share a number). For `NextToken`,
            `p` is the geometric mean of the probabilities of a row's tokens.
        metrics: "accuracy" (test), "validation_accuracy", "supervisor_accuracy" and
            "student_accuracy", as far as predicted, all at the threshold 1/2 (what chapters call
            accuracy is `Results.accuracy`, at the median of P on the validation texts); for
            `NextToken`, "loss_before" and "loss".
        provenance: versions, device, hardware, threads, seconds, date, git commit, peak memory,
            the task's digest; and the digest of its adapters, where it has any.
        path: the file or URL; "" for one that was never written.
        rules: SHA-256 of the edition's rules file, in hex, of a published record; else "".
    """

    spec: RunSpec
    predictions: pd.DataFrame
    metrics: dict[str, float]
    provenance: dict[str, Any]
    path: str = ""
    rules: str = ""

    @cached_property
    def digest(self) -> str:
        """SHA-256 of spec, metrics, provenance, rules and every column."""
        h = hashlib.sha256()
        made = json.dumps([self.metrics, self.provenance], sort_keys=True)
        for part in (self.spec.to_json(), made, self.rules):
            h.update(part.encode() + b"\0")
        h.update(",".join(self.predictions["split"].tolist()).encode())
        for column in self.numbers().values():
            h.update(column.tobytes())
        return h.hexdigest()

    @cached_property
    def by_split(self) -> dict[str, pd.DataFrame]:
        """The predictions of each split, by rising row: what every measure asks for again."""
        return {str(name): part.sort_index() for name, part in self.predictions.groupby("split")}

    def numbers(self) -> dict[str, npt.NDArray[Any]]:
        """The columns of the file that hold numbers, row among them, in the file's types."""
        frame = self.predictions.reset_index(names="row")
        return {name: frame[name].to_numpy(kind) for name, kind in _NUMBERS.items()}

    def labels(self, rows: Any, *, task_digest: str) -> Any:
        """P(y = 1) that this run gives to `rows`, joined by task digest and row.

        Raises:
            StoreError: the record is of another task, or lacks a row.
        """
        made, own = self.provenance["task_digest"], f"record {self.spec.run_id}"
        if made != task_digest:
            said = f"was made on task {made[:12]}, not on {task_digest[:12]}"
            raise StoreError(f"{own} {said}: predictions of different tasks are not joined")
        missing = np.setdiff1d(rows, self.predictions.index.to_numpy())
        if len(missing):
            said = f"has no prediction for {len(missing)} rows, the first is {missing[0]}"
            raise StoreError(f"{own} {said}")
        return self.predictions["p"].loc[np.asarray(rows)].to_numpy()


def predicted_label(p: npt.ArrayLike) -> npt.NDArray[np.int8]:
    """Hard 0/1 labels of P(y = 1), any shape: 1 where p > 0.5. A tie is a 0, here and everywhere.

    Raises:
        ValueError: a probability outside [0, 1], or NaN.
    """
    values = np.asarray(p, dtype=np.float64)
    if not np.all((values >= 0) & (values <= 1)):
        raise ValueError("probabilities must be in [0, 1] and not NaN")
    return (values > 0.5).astype(np.int8)


def accuracies(predictions: pd.DataFrame) -> dict[str, float]:
    """A record's metrics: accuracy at 1/2 by split, that of test being "accuracy"."""
    right = predicted_label(predictions["p"].to_numpy()) == predictions["label"].to_numpy()
    splits = predictions["split"].to_numpy()
    return {
        ("accuracy" if name == "test" else f"{name}_accuracy"): float(right[splits == name].mean())
        for name in predictions["split"].unique()
    }


def check_content(record: Record) -> None:
    """Recomputes a record's metrics, and checks that every value is one that a run can have.

    Raises:
        ValueError: what is wrong.
    """
    frame = record.predictions
    unknown, p = set(frame["split"].unique()) - set(SPLITS), frame["p"]
    weights = record.provenance.get("weights", "")  # a folder: no other one may be meant
    sha256, digest = "([0-9a-f]{64})?", "([0-9a-f]{32})?"
    wrong = {
        f"unknown splits {sorted(unknown)}": unknown,
        "it has no rows": frame.empty,
        "a row is there twice, or is negative": frame.index.has_duplicates or frame.index.min() < 0,
        "a label is neither 0 nor 1": not frame["label"].isin((0, 1)).all(),
        "a group is negative": frame["group"].min() < 0,
        "p is not a probability": not p.between(0, 1).all(),
        f"its columns are {list(frame)}": list(frame) != ["split", "label", "p", "group"],
        f"rules is not a SHA-256: {record.rules!r}": not re.fullmatch(sha256, record.rules),
        f"its adapters have the name {weights!r}": not re.fullmatch(digest, weights),
    }
    for problem, found in wrong.items():
        if found:
            raise ValueError(problem)
    metrics = accuracies(frame)
    if isinstance(record.spec.labels, NextToken):
        metrics = {name: record.metrics[name] for name in ("loss_before", "loss")}
    if record.metrics != metrics or not np.isfinite(list(metrics.values())).all():
        raise ValueError(f"its metrics are {record.metrics}, its predictions make {metrics}")


def from_parquet(content: bytes, name: str) -> Record:
    """Reads and verifies a record.

    Args:
        content: of its file.
        name: its path or URL, whose last part is the run's id.

    Raises:
        DamagedRecord: it is truncated, altered, impossible, or another run's.
        StoreError: another version of the library has written it.
    """
    try:
        # Not `read_table`: it starts a thread, and a process that exits in that moment aborts.
        table = pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        if (written := metadata["format"]) != str(FORMAT):
            semantics = json.loads(metadata["spec"]).get("semantics")
            raise _of_another_edition(name, written, semantics)
        columns = {column: table[column].to_numpy() for column in table.column_names}
        frame = pd.DataFrame(columns).astype(_NUMBERS | {"split": str}).set_index("row")
        metrics, provenance = (json.loads(metadata[part]) for part in ("metrics", "provenance"))
        spec = RunSpec.from_json(metadata["spec"])
        record = Record(spec, frame, metrics, provenance, name, metadata["rules"])
        said = f"damaged record {name}: its content is not what its"
        if metadata["digest"] != record.digest:
            raise DamagedRecord(f"{said} digest says.")
        if spec.semantics != SEMANTICS:
            raise _of_another_edition(name, written, spec.semantics)
        if spec.run_id != Path(name).stem:
            raise DamagedRecord(f"{said} name says.")
        check_content(record)
    except _UNREADABLE as error:
        raise DamagedRecord(f"damaged record {name}: {type(error).__name__}: {error}.") from error
    return record


def _of_another_edition(name: str, written: str, semantics: Any) -> StoreError:
    return StoreError(
        f"record {name} is of format {written} and of training semantics {semantics}, not of "
        f"format {FORMAT} and semantics {SEMANTICS}: another edition has written it. Read it with "
        "that one, or name another store in W2S_STORE."
    )


def to_parquet(record: Record) -> bytes:
    """The content of a record's file: for the same record the same bytes."""
    split, numbers = record.predictions["split"].tolist(), record.numbers()
    names = [name for name in SPLITS if name in set(split)]
    codes = pa.DictionaryArray.from_arrays([names.index(name) for name in split], names)
    metadata = {
        "format": str(FORMAT),
        "spec": record.spec.to_json(),
        "metrics": json.dumps(record.metrics),
        "provenance": json.dumps(record.provenance),
        "rules": record.rules,
        "digest": record.digest,
    }
    table = pa.table({"row": numbers.pop("row"), "split": codes, **numbers}, metadata=metadata)
    encoding = dict.fromkeys(("row", "label", "group"), "DELTA_BINARY_PACKED")
    file = io.BytesIO()
    pq.write_table(
        table,
        file,
        compression="zstd",
        compression_level=19,
        use_dictionary=["split"],
        column_encoding=encoding | {"p": "BYTE_STREAM_SPLIT"},
        write_statistics=False,
    )
    return file.getvalue()


TEXT = (
    "run_id role model supervisor supervisor_run labels loss method start lora_blocks quantization "
    "half task device hardware date commit spec"
).split()
NUMBERS = "accuracy validation_accuracy next_token_loss_before next_token_loss seconds".split()
COLUMNS = (
    dict.fromkeys(TEXT, "str")
    | {"depth": "Int64", "seed": "int64", "n_train": "int64"}
    | dict.fromkeys(NUMBERS, "float64")
)
"""Column -> type of a table with a row a run."""


def row_of(record: Record) -> dict[str, Any]:
    """A run's row: its spec, metrics (accuracies at 1/2) and provenance, as in `COLUMNS`."""
    spec, metrics, made = record.spec, record.metrics, record.provenance
    teacher, start = spec.teacher, spec.continued
    same = ("run_id", "role", "model", "depth", "quantization", "half", "seed", "device")
    return {
        **{name: getattr(spec, name) for name in same},
        "method": str(spec.method),
        "labels": _words(spec.labels),
        "supervisor": teacher.model if teacher else "",
        "supervisor_run": teacher.run_id if teacher else "",
        "loss": _words(spec.loss),
        "start": f"Continue({start.run_id})" if start else type(spec.start).__name__,
        "lora_blocks": str(spec.lora.blocks),
        "n_train": spec.task.n_train,
        "task": spec.task.name,
        "accuracy": metrics.get("accuracy"),
        "validation_accuracy": metrics.get("validation_accuracy"),
        "next_token_loss_before": metrics.get("loss_before"),
        "next_token_loss": metrics.get("loss"),
        **{name: made.get(name) for name in ("seconds", "hardware", "date", "commit")},
        "spec": spec.to_json(),
    }


def _words(part: Description) -> str:
    """A part of a spec as Python would write it, without its run and what is as by default."""
    inside = ", ".join(
        f"{name}={own if isinstance(own, Description) else repr(own)}"
        for name, default in defaults(type(part)).items()
        if (own := getattr(part, name)) != default and name != "run"
    )
    return f"{type(part).__name__}({inside})" if inside else type(part).__name__
