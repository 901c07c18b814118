"""Weak-to-strong generalization, measured: the library under the book. `import w2s_lib as w2s`.

Eight rooms; each imports only those named before it:

    runs         what a run is and what is kept of it: `RunSpec`, its losses, `Record`, stores
    measures     accuracy, AUC, PGR and agreement, each an `Interval`; the rules of claims
    figures      charts, sliders and tables, of numbers alone
    tasks        texts, labels and splits: embedded, a user's file, the hub
    models       a language model cut to a depth: pins, LoRA, frozen trunk, classifier
    training     one run from spec to record: finetuning, next tokens, the baselines
    experiments  what a chapter calls: arms, `sweep`, `Results`; workers of this machine, or Ray
    publishing   chapters executed and built to pages: prose, claims, tables, plan

`student(...)` describes a run as a `RunSpec`. `sweep` pins it (now it has an id), finds its record
in a store, or has `execute` train it and write one. `Results` measures records. A chapter's
`%%prose` cells and charts show the measures, and `make book` makes pages of the chapters.
Public names are loaded at first use, so importing the package is quick and loads no torch.
"""

import importlib
from typing import Any

_WHERE = {
    "runs.errors": "SpecError",
    "runs.losses": (
        "AdaptiveLoss ConfidenceLoss EntropyLoss ProductLoss ReverseLoss WindowLoss XentLoss "
        "adaptive_confidence_loss alpha_at confidence_loss entropy_loss harden product_loss "
        "reverse_xent_loss window_loss xent_loss"
    ),
    "runs.method": "method",
    "runs.settings": "GroundTruth Lora NextToken NoisyTruth Recipe Task",
    "runs.spec": (
        "Centred CoinErrors Continue Flip FromRun Hard LengthErrors ModelErrors RaterErrors "
        "Relabelled RunSpec WordErrors"
    ),
    "runs.model_names": "short_name",
    "experiments.arms": (
        "ceiling chain entry generative probe student supervisor transfer zero_shot"
    ),
    "experiments.methods": "self_training stopped_early surest_labels",
    "models.pins": "pin",
    "tasks.table": "default_task load_table resolve_task splits",
    "tasks.hub": "Example hub_task",
    "tasks.labels": "dissent own_texts training_labels",
    "measures.metrics": "Agreement Interval accuracy agreement collapsed pgr",
    "training.baselines": "linear_probe",
    "runs.record": "Record predicted_label",
    "experiments.compared": "Cells Comparison",
    "experiments.results": "Results",
    "experiments.sweep": "run sweep",
    "figures.charts": "curves scatter",
    "figures.rows": "accuracy_dots bars",
    "figures.table": "table",
    "figures.toys": "confidence_explorer pgr_calculator reward_explorer shares_explorer",
    "figures.planes": "agreement_explorer misfit_explorer noise_explorer probe_explorer",
    "figures.style": "use_theme",
    "publishing.claims": "claims decide decisions scorecard untested",
    "publishing.examples": "examples",
    "publishing.tables": (
        "benchmarks chapter_names last_audit planned_runs profile_states published published_runs "
        "registered_tasks taught_runs"
    ),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names.split()}
__all__ = sorted(_MODULE)  # noqa: PLE0605


def __getattr__(name: str) -> Any:
    if name not in _MODULE:
        from w2s_lib.runs.errors import nearest

        raise AttributeError(f"w2s_lib has no {name!r}: {nearest(name, __all__)}")
    value = getattr(importlib.import_module(f".{_MODULE[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__


def load_ipython_extension(shell: Any) -> None:
    """Adds the cell magic `%%prose` to a notebook: `%load_ext w2s_lib`. Dollars in frames are dollars."""
    import pandas as pd

    from w2s_lib.publishing.prose import magic

    pd.set_option("display.html.use_mathjax", False)
    shell.register_magic_function(magic(shell.user_ns), "cell", "prose")
