"""The library's errors, and the end of a message that names what is allowed."""

import difflib
from collections.abc import Iterable


class SpecError(Exception):
    """A description that cannot be run. Raised before any model is loaded.

    It is no `ValueError`: pydantic would wrap that into an error of its own.
    """


def nearest(name: str, choices: Iterable[str]) -> str:
    """The allowed names, led by the one most like `name`, as the end of an error message."""
    allowed = list(choices)
    close = difflib.get_close_matches(name, allowed, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Allowed: {', '.join(allowed)}."


def require(ok: bool, message: str) -> None:
    """Raises `SpecError` unless `ok`."""
    if not ok:
        raise SpecError(message)


class AssetError(RuntimeError):
    """Something to be fetched cannot be had: no network, a damaged file, an unwritable cache."""


class DeviceError(RuntimeError):
    """What was asked for is not here. Nothing falls back to something else."""


class TrainingError(RuntimeError):
    """Training could not be finished: out of memory, one label alone, a loss that is no number.

    No record is written.
    """


class OutOfMemory(TrainingError):
    """Training could not be finished for want of memory, of the GPU or of the machine."""


class StoreError(RuntimeError):
    """A store that cannot be written, or a published record that is not what it says it is."""


class StoreUnavailable(StoreError):
    """A store that cannot be reached or written now: a full disk, a server that does not answer."""


RunError = TrainingError | StoreUnavailable
"""What costs a run, and no other one that is at work."""


class DamagedRecord(StoreError):
    """A file whose content does not match its digest or its name."""


ALL = (SpecError, AssetError, DeviceError, TrainingError, StoreError)
"""What a user, a disk, a network or a machine may be the reason of; anything else is a bug."""
