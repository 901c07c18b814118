"""What a run is trained on: the processor or GPU by its name, and how many cores a run takes."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import torch

from w2s_lib.runs.errors import DeviceError


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(
            line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")
        )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def threads() -> int:
    """Cores that a run on a CPU takes: one, or what `W2S_THREADS` says.

    A run is over sooner with more, though not in proportion, and may have other last bits: so nothing published has more.

    Raises:
        DeviceError: `W2S_THREADS` is not a whole number from 1 on.
    """
    given = os.environ.get("W2S_THREADS") or "1"
    if not given.isdecimal() or int(given) < 1:
        raise DeviceError(f"W2S_THREADS must be a whole number from 1 on, not {given!r}")
    return int(given)


def hardware(device: str) -> str:
    """The name of the GPU, or of the CPU, with the number of threads where that is not one: what bits depend on."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    return cpu_model() + (f", {threads()} threads" if threads() > 1 else "")
