"""Weak-to-strong generalization, measured: the library under the book.

    import w2s_lib as w2s

Names are loaded when they are first used, so that importing the package stays quick and loads no torch.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any

_WHERE = {
    "spec": ("ConfidenceLoss", "Flip", "FromRun", "GroundTruth", "Lora", "Recipe", "RunSpec", "SpecError", "Task",
             "XentLoss"),
    "arms": ("ceiling", "chain", "probe", "student", "supervisor", "zero_shot"),
    "tasks": ("default_task", "load_table", "splits"),
    "losses": ("confidence_loss", "harden", "xent_loss"),
    "metrics": ("Agreement", "Interval", "accuracy", "accuracy_interval", "agreement", "difference_interval",
                "gap_interval", "pgr", "pgr_interval", "pgr_table", "predicted_label"),
    "probing": ("linear_probe",),
    "store": ("Record",),
    "sweep": ("run", "sweep"),
    "plots": ("accuracy_dots", "pgr_calculator", "plot_pgr", "use_theme"),
    "report": ("report",),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}
__all__ = sorted(_MODULE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        from .spec import nearest

        raise AttributeError(f"w2s_lib has no {name!r}: {nearest(name, __all__)}")
    value = getattr(importlib.import_module(f".{_MODULE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """`sweep` and `report` are also modules, which Python sets on the package when it imports them: the functions win."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in _MODULE and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
