"""A record as a Parquet file: columns by row, and in the metadata spec, metrics, provenance and a digest of all of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_lib.runs.errors import DamagedRecord, SpecError, StoreError
from w2s_lib.runs.record import SPLITS, Record, snapshots_of
from w2s_lib.runs.spec import SEMANTICS, RunSpec

FORMAT = 1


def from_parquet(source: Any, name: str) -> Record:
    """Reads and verifies a record.

    Args:
        source: a path, or a file that is open for reading.
        name: its path or URL, whose last part is the run's id.

    Raises:
        DamagedRecord: it is truncated, altered, or another run's.
        StoreError: another version of the library has written it.
    """
    try:
        table = pq.read_table(source)
        metadata = {k.decode(): v.decode() for k, v in (table.schema.metadata or {}).items()}
        if (written := metadata["format"]) != str(FORMAT):
            raise StoreError(
                f"record {name} is of format {written}, and this library reads format {FORMAT}: another version "
                "has written it. Read it with that one, or name another store in W2S_STORE."
            )
        frame = (
            table.to_pandas(ignore_metadata=True)
            .astype({"split": str, "label": "int8", "p": "float32", "group": "int32"})
            .set_index("row")
        )
        record = Record(
            RunSpec.from_json(metadata["spec"]),
            frame,
            json.loads(metadata["metrics"]),
            json.loads(metadata["provenance"]),
            name,
        )
        intact = metadata["digest"] == record.digest
    except (
        OSError,
        ValueError,
        KeyError,
        TypeError,
        AttributeError,
        SpecError,
        pa.ArrowException,
    ) as error:
        raise DamagedRecord(f"damaged record {name}: {type(error).__name__}: {error}.") from error
    named = record.spec.run_id == Path(name).stem
    if intact and not named and record.spec.semantics != SEMANTICS:
        raise StoreError(
            f"record {name} is of a run of training semantics {record.spec.semantics}, and this library trains "
            f"{SEMANTICS}: it says nothing about the run of its name. Move it away."
        )
    if not (intact and named):
        raise DamagedRecord(
            f"damaged record {name}: its content is not what its {'name' if intact else 'digest'} says."
        )
    return record


def to_parquet(record: Record, path: Path) -> None:
    """Writes a record to a file."""
    frame = record.predictions
    names = [s for s in SPLITS if s in set(frame["split"])]
    table = pa.table(
        {
            "row": pa.array(frame.index.to_numpy(np.int32)),
            "split": pa.DictionaryArray.from_arrays(
                [names.index(s) for s in frame["split"]], names
            ),
            "label": pa.array(frame["label"].to_numpy(np.int8)),
            "p": pa.array(frame["p"].to_numpy(np.float32)),
            "group": pa.array(frame["group"].to_numpy(np.int32)),
            **{name: pa.array(frame[name].to_numpy(np.float32)) for name in snapshots_of(frame)},
        },
        metadata={
            "format": str(FORMAT),
            "spec": record.spec.to_json(),
            "metrics": json.dumps(record.metrics),
            "provenance": json.dumps(record.provenance),
            "digest": record.digest,
        },
    )
    encoding = dict.fromkeys(("row", "label", "group"), "DELTA_BINARY_PACKED") | dict.fromkeys(
        ("p", *snapshots_of(frame)), "BYTE_STREAM_SPLIT"
    )
    pq.write_table(
        table,
        path,
        compression="zstd",
        compression_level=19,
        use_dictionary=["split"],
        column_encoding=encoding,
        write_statistics=False,
    )
