"""Records: one Parquet file a finished run, verified on reading, complete or absent.

A record holds predictions by row, and in its metadata the spec, metrics, provenance and a digest of all of it. It holds
no text and no pickle. Two stores are searched: the user's, then the published one (`book/results/`, read-only).
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from platformdirs import user_data_dir

from .record import SPLITS, Record, StoreError, snapshots_of
from .spec import RunSpec

FORMAT = 1


class DamagedRecord(StoreError):
    """A file whose content does not match its digest or its name."""


def repository_root() -> Path | None:
    """The folder above this package, where it is a checkout with a book in it."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "book" / "_toc.yml").is_file() else None


def user_store() -> Path:
    """`W2S_STORE`; else `.w2s/records` at the repository's root; else the platform's data folder."""
    if chosen := os.environ.get("W2S_STORE"):
        return Path(chosen).expanduser().absolute()
    root = repository_root()
    return root / ".w2s" / "records" if root else Path(user_data_dir("w2s", appauthor=False)) / "records"


def published_store() -> Path | None:
    """`book/results/`, unless `W2S_PUBLISHED=0` hides it or there is no repository around the library."""
    root = repository_root()
    return root / "book" / "results" if root and os.environ.get("W2S_PUBLISHED", "1") != "0" else None


def find(spec: RunSpec) -> Record | None:
    """The record of `spec`, from the user's store, else from the published one; None where neither has it.

    A damaged record in the user's store is set aside (`.damaged`) with a warning, and counts as missing.

    Raises:
        DamagedRecord: the published record is damaged.
    """
    path = user_store() / f"{spec.run_id}.parquet"
    if path.is_file():
        try:
            return read(path)
        except DamagedRecord as error:
            aside = path.with_suffix(".damaged")
            os.replace(path, aside)
            warnings.warn(f"{error} It is kept as {aside.name}, and the run counts as missing.", stacklevel=2)
    published = published_store()
    path = (published or user_store()) / f"{spec.run_id}.parquet"
    return read(path) if published and path.is_file() else None


def recorded() -> set[str]:
    """The ids of all runs that have a record in either store, by the names of the files alone: nothing is read or verified."""
    published = published_store()
    folders = [folder for folder in (user_store(), published) if folder is not None and folder.is_dir()]
    return {path.stem for folder in folders for path in folder.glob("*.parquet")}


def weights(spec: RunSpec) -> Path | None:
    """The folder of a run's adapters in the user's store; None where they are not (published records come without)."""
    folder = user_store() / spec.run_id
    return folder if (folder / "adapter_model.safetensors").is_file() else None


def read(path: Path) -> Record:
    """Reads and verifies one record.

    Raises:
        DamagedRecord: it is truncated, altered, or another run's.
    """
    try:
        table = pq.read_table(path)
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        frame = table.to_pandas(ignore_metadata=True).astype(
            {"split": str, "label": "int8", "p": "float32", "group": "int32"}).set_index("row")
        record = Record(RunSpec.from_json(metadata["spec"]), frame, json.loads(metadata["metrics"]),
                        json.loads(metadata["provenance"]), str(path))
        intact = metadata["digest"] == record.digest
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        raise DamagedRecord(f"damaged record {path}: {type(error).__name__}: {error}.") from error
    if not intact or record.spec.run_id != path.stem:
        raise DamagedRecord(f"damaged record {path}: its content is not what its "
                            f"{'name' if intact else 'digest'} says.")
    return record


def require_writable(store: Path) -> None:
    """Tries the store before training: raises `StoreError` where nothing can be written to it."""
    try:
        store.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=store):
            pass
    except OSError as error:
        raise StoreError(f"the store {store} cannot be written: {error}. Name another folder in W2S_STORE. Nothing was "
                         "trained.") from error


def write(record: Record, *, store: Path | None = None, artefacts: Callable[[Path], None] | None = None) -> Record:
    """Writes a record whole: under a temporary name, renamed last. Its folder of weights is in place before it.

    Args:
        record: a finished run.
        store: the folder; the user's store by default.
        artefacts: writes adapter and head into the folder that it is given.

    Returns:
        The record with its path.

    Raises:
        StoreError: the store cannot be written, or the disk is full; nothing half-written stays.
    """
    store = store or user_store()
    path = store / f"{record.spec.run_id}.parquet"
    temporary: Path | None = None
    try:
        store.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".part-{os.getpid()}-", dir=store))
        _write_parquet(record, temporary / path.name)
        if artefacts:
            (temporary / "weights").mkdir()
            artefacts(temporary / "weights")
            if any((temporary / "weights").iterdir()):
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                os.replace(temporary / "weights", path.with_suffix(""))
        os.replace(temporary / path.name, path)
    except OSError as error:
        raise StoreError(f"the record of {record.spec.run_id} could not be written to {store}: {error}. Free some space, "
                         "or name another folder in W2S_STORE. Nothing half-written was left.") from error
    finally:
        if temporary:
            shutil.rmtree(temporary, ignore_errors=True)
    return Record(record.spec, record.predictions, record.metrics, record.provenance, str(path))


def discard_partial(pid: int | None) -> None:
    """Removes what a process that was killed has left half-written in the user's store."""
    for folder in user_store().glob(f".part-{pid}-*"):
        shutil.rmtree(folder, ignore_errors=True)


def _write_parquet(record: Record, path: Path) -> None:
    frame = record.predictions
    names = [s for s in SPLITS if s in set(frame["split"])]
    table = pa.table({
        "row": pa.array(frame.index.to_numpy(np.int32)),
        "split": pa.DictionaryArray.from_arrays([names.index(s) for s in frame["split"]], names),
        "label": pa.array(frame["label"].to_numpy(np.int8)),
        "p": pa.array(frame["p"].to_numpy(np.float32)),
        "group": pa.array(frame["group"].to_numpy(np.int32)),
        **{name: pa.array(frame[name].to_numpy(np.float32)) for name in snapshots_of(frame)},
    }, metadata={"format": str(FORMAT), "spec": record.spec.to_json(), "metrics": json.dumps(record.metrics),
                 "provenance": json.dumps(record.provenance), "digest": record.digest})
    encoding = dict.fromkeys(("row", "label", "group"), "DELTA_BINARY_PACKED") | dict.fromkeys(
        ("p", *snapshots_of(frame)), "BYTE_STREAM_SPLIT")
    pq.write_table(table, path, compression="zstd", compression_level=19, use_dictionary=["split"],
                   column_encoding=encoding, write_statistics=False)
