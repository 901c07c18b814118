"""A damaged file of a model: one sentence that names the model, whatever library found it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.conftest import pinned
from w2s_lib.models.backbone import check, load_backbone
from w2s_lib.runs.errors import AssetError, SpecError


def weights(shape: list[int], *offsets: int, n_bytes: int = 0) -> bytes:
    """A file of one tensor of float32: what its header says, and so many bytes."""
    said = {"dtype": "F32", "shape": shape, "data_offsets": offsets}
    header = json.dumps({"model.norm.weight": said}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(n_bytes)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("tokenizer.json", b"{}"),
        ("tokenizer.json", b"\xff\xfe"),
        ("tokenizer_config.json", b"not JSON"),
        ("model.safetensors", b""),
        ("model.safetensors", b"\xff" * 7 + b"\x7f{}"),  # a header of 2**63 bytes
        ("model.safetensors", weights([10**12], 0, 4 * 10**12)),
        ("model.safetensors", weights([2**60], 0, 2**62)),
        ("model.safetensors", weights([2**32, 2**32], 0, 0)),  # 2**64 elements, which is 0
        ("model.safetensors", weights([32], 64, 192, n_bytes=128)),
        ("model.safetensors", weights([32], 128, 0, n_bytes=128)),
        ("model.safetensors", weights([-32], 0, 128, n_bytes=128)),
        ("model.safetensors", weights([32], -128, 0, n_bytes=128)),
        ("model.safetensors", b"\x08\0\0\0\0\0\0\0{}      "),
        ("model.safetensors", None),
    ],
)
def test_a_model_with_a_damaged_file_is_named(
    name: str, content: bytes | None, tiny_models: Path, tmp_path: Path
) -> None:
    """None: cut in half."""
    folder = tmp_path / "model"
    shutil.copytree(tiny_models / "llama", folder)
    whole = (folder / name).read_bytes()
    (folder / name).write_bytes(whole[: len(whole) // 2] if content is None else content)
    spec = pinned(folder)
    with pytest.raises((AssetError, SpecError)) as caught:
        check(spec)
        load_backbone(spec)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
