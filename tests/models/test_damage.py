"""A damaged file of a model: one sentence that names the model, whatever library found it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.conftest import pinned
from w2s_lib.models.backbone import check, load_backbone
from w2s_lib.runs.errors import AssetError, SpecError

HEADER = b'{"model.norm.weight":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4000000000000]}}'
HUGE = len(HEADER).to_bytes(8, "little") + HEADER
"""Of a tensor of four terabytes, and none of its bytes."""


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
        ("model.safetensors", HUGE),
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
