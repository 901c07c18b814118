"""What a run is trained on: a processor or GPU by its name, one core, and whether a step fits."""

import contextlib
import functools
import gc
import platform
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint


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


def free_gpu() -> None:
    """Gives the GPU back what is no longer used: NF4 weights are in cycles, that only `gc` ends."""
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        gc.collect()
        torch.cuda.empty_cache()


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


NO_MEMORY = ("can't allocate memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED")
OPTIMISER_BYTES = 16
"""Of a trained parameter in AdamW: its float32 copy, that one's gradient and two moments."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out: the libraries raise several kinds."""
    named = isinstance(error, (MemoryError, torch.OutOfMemoryError))
    return named or any(words in str(error) for words in NO_MEMORY)


def checkpoint_where_needed(
    model: nn.Module, backbone: Any, loss_of_longest: Callable[[], Tensor]
) -> dict[str, Any]:
    """Turns gradient checkpointing on where a step on CUDA does not fit without it.

    It is slower, and has the same gradients. The model is left as it was, and so is the stream of
    random numbers. On a CPU nothing is done.

    Args:
        model: what is about to be trained.
        backbone: the peft model in it.
        loss_of_longest: the loss of a batch of the longest texts, from a forward pass.

    Returns:
        For the record's provenance: "step_bytes", the most that the device held in that step, and
        "gradient_checkpointing"; nothing on a CPU.

    Raises:
        torch.OutOfMemoryError: it does not fit with checkpointing either.
    """
    if next(model.parameters()).device.type != "cuda":
        return {}
    try:
        return {"step_bytes": step_bytes(model, loss_of_longest), "gradient_checkpointing": False}
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_gpu()  # not before: what the error holds is free once it is handled
    # Not by the public method, which also makes the embeddings' output need a gradient, through
    # every frozen block.
    recompute = functools.partial(checkpoint, use_reentrant=False)
    backbone.get_base_model()._set_gradient_checkpointing(True, recompute)
    return {"step_bytes": step_bytes(model, loss_of_longest), "gradient_checkpointing": True}


def step_bytes(model: nn.Module, loss_of_longest: Callable[[], Tensor]) -> int:
    """The most that the CUDA device holds in a step, with room for the optimiser. No weight moves.

    Raises:
        torch.OutOfMemoryError: it does not fit.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    n_bytes = OPTIMISER_BYTES * sum(p.numel() for p in trained)
    torch.cuda.reset_peak_memory_stats()
    model.train()
    try:
        with torch.random.fork_rng():
            room = torch.empty(n_bytes, dtype=torch.uint8, device=trained[0].device)
            loss_of_longest().backward()  # type: ignore[no-untyped-call]
            del room
    finally:
        model.zero_grad(set_to_none=True)
    return torch.cuda.max_memory_allocated()


def kept_bytes(model: nn.Module, loss: Callable[[], Tensor]) -> int:
    """What a forward pass keeps for its backward pass beside the model's weights, on any device."""
    own = {p.untyped_storage().data_ptr() for p in (*model.parameters(), *model.buffers())}
    sizes: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        sizes[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        kept = loss()  # held, so that no storage is used twice
    del kept
    return sum(n_bytes for place, n_bytes in sizes.items() if place not in own)
