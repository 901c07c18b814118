"""What a run is trained on: the processor or GPU by its name, and one core."""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterator
from pathlib import Path

import torch


def cpu_model() -> str:
    """The processor's own name, where the system tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = (line.split(":", 1)[1] for line in lines if line.startswith("model name"))
        return next(names).strip()
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def hardware(device: str) -> str:
    """The name of the GPU, or of the CPU: what bits depend on."""
    return torch.cuda.get_device_name() if device == "cuda" else cpu_model()


@contextlib.contextmanager
def one_thread(device: str) -> Iterator[None]:
    """Runs on a CPU with one thread: the bits do not depend on how many cores a machine has."""
    before = torch.get_num_threads()
    if device == "cpu":
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
