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
    "parts": ("AdaptiveLoss", "ConfidenceLoss", "EntropyLoss", "Lora", "ProductLoss", "Recipe", "ReverseLoss", "SpecError",
              "Task", "WindowLoss", "XentLoss"),
    "spec": ("Continue", "Flip", "FromRun", "GroundTruth", "NextToken", "RunSpec"),
    "names": ("short_name",),
    "arms": ("ceiling", "chain", "generative", "probe", "student", "supervisor", "zero_shot"),
    "tasks": ("default_task", "load_table"),
    "halves": ("splits",),
    "registry": ("Example", "hub_task"),
    "losses": ("adaptive_confidence_loss", "confidence_loss", "entropy_loss", "harden", "product_loss", "reverse_xent_loss",
               "window_loss", "xent_loss"),
    "objective": ("alpha_at",),
    "metrics": ("Agreement", "Interval", "accuracy", "accuracy_interval", "agreement", "correctness", "difference_interval",
                "gap_interval", "pgr", "pgr_interval", "pgr_table", "predicted_label"),
    "contrasts": ("agreement_difference_interval", "agreement_interval", "contrast_interval", "error_correlation_interval",
                  "excess_agreement_difference_interval", "excess_agreement_interval", "stop_early"),
    "intervals": ("covers",),
    "probing": ("linear_probe",),
    "record": ("Record", "at_median", "by_arm"),
    "sweep": ("run", "sweep"),
    "plots": ("accuracy_dots", "plot_pgr"),
    "curves": ("curves",),
    "interactive": ("confidence_explorer", "pgr_calculator"),
    "theme": ("use_theme",),
    "report": ("report", "reports", "say"),
    "verdicts": ("scorecard", "untested"),
    "listing": ("benchmarks", "planned_runs", "profile_states", "published_on", "published_runs", "registered_tasks"),
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
