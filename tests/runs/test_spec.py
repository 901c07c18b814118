"""Specs: every field is in the id, JSON round-trips, published ids stay, streams are apart."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import RELABEL, taught
from w2s_lib.experiments import arms
from w2s_lib.runs.description import Description
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.losses import ConfidenceLoss, Loss, ProductLoss
from w2s_lib.runs.method import Method
from w2s_lib.runs.settings import APPLIES, GroundTruth, NextToken, NoisyTruth, Pretrained
from w2s_lib.runs.spec import (
    SEMANTICS,
    Centred,
    Continue,
    Erring,
    Flip,
    FromRun,
    Hard,
    Lora,
    Recipe,
    Relabelled,
    RunSpec,
    Task,
    Taught,
)
from w2s_lib.tasks.table import default_task

REPO = Path(__file__).parents[2]
PINS = Path(__file__).with_name("pinned_ids.json")
COMMIT = "0123456789" * 4
SIZES: dict[str, Any] = {"n_train": 2000, "n_validation": 500, "n_test": 4000}
LOSSES = get_args(get_args(Loss)[0])

METHOD = Method(source="def own(states, labels, unlabeled, seed, *, p=0.5):\n    return labels")
METHOD = METHOD.set(p=0.25)
WEAK = RunSpec(model="smollm2-135m@4", half="supervisor", predict_halves=True)


def pinned() -> dict[str, RunSpec]:
    """One spec of each kind of run and of labels."""
    weak = arms.supervisor("smollm2-135m@4", "movie")
    naive = arms.student("smollm2-135m", weak)
    read = arms.generative("smollm2-135m", "movie", corpus="nyt")
    judged = arms.supervisor("tfidf", default_task("nyt", panel=5, max_rating=1.5))
    all_settings: dict[str, Any] = {
        "recipe": Recipe(epochs=1),
        "lora": Lora(blocks="all"),
        "quantization": "none",
        "precision": "fp32",
        "device": "cuda",
    }
    return {
        "supervisor": weak,
        "ceiling with noise, all settings": arms.ceiling(
            "smollm2-135m@14", "amazon", noise=0.2, **all_settings
        ),
        "confidence loss": arms.student(
            "smollm2-135m", weak, loss=ConfidenceLoss(alpha_max=0.75, start=0.5)
        ),
        "hard labels of TF-IDF, seed 3": arms.student(
            "smollm2-135m@14", Hard(run=arms.supervisor("tfidf", "movie-preference", seed=3))
        ),
        "centred labels": arms.student("smollm2-135m", Centred(run=weak)),
        "flips, after reading": arms.student("smollm2-135m", Flip(run=weak), start=read),
        "chain": arms.chain(["smollm2-135m@4", "smollm2-135m@14", "smollm2-135m"], "movie")[-1],
        "probe of a student": arms.probe("smollm2-135m@25", "movie", start=naive),
        "zero-shot": arms.zero_shot("smollm2-135m", "tweets"),
        "transfer": arms.transfer(naive, "amazon"),
        "method": arms.entry(METHOD, "smollm2-135m@29", weak),
        "method of texts": arms.entry(RELABEL, "texts", weak),
        "relabelled": arms.student("smollm2-135m@14", taught(Relabelled, weak)),
        **{
            f"{kind.__name__}, panel": arms.student("smollm2-135m@14", kind(run=judged))
            for kind in get_args(Erring)
        },
    }


def test_ids_are_pinned() -> None:
    """If this fails, published records are orphans: undo it, or raise SEMANTICS and retrain them.

    After that, and for a new spec: `python -m tests.runs.test_spec` rewrites the file.
    """
    found = {name: spec.run_id for name, spec in pinned().items()}
    assert len(set(found.values())) == 18
    steps = [step for spec in pinned().values() for step in spec.lineage()]
    assert {step.kind for step in steps} == set(APPLIES)
    labels = {type(step.labels).__name__ for step in steps}
    assert labels == {
        kind.__name__ for kind in (GroundTruth, NoisyTruth, NextToken, *get_args(Taught))
    }
    assert found == json.loads(PINS.read_text(encoding="utf-8"))


def test_published_specs_are_read_and_written_as_they_stand() -> None:
    for file in (REPO / "book" / "results").glob("*.parquet"):
        text = pq.read_schema(file).metadata[b"spec"].decode()
        spec = RunSpec.from_json(text)
        assert (spec.to_json(), spec.run_id) == (text, file.stem)


# Identity

ALTERNATIVES: dict[type[Description], dict[str, Any]] = {
    Task: {
        "name": "amazon",
        "n_train": 400,
        "n_validation": 300,
        "n_test": 800,
        "min_rating": 1.0,
        "max_rating": 2.0,
        "panel": 5,
        "template": "So: {text}",
        "label_words": "bad/good",
        "max_tokens": 64,
        "cut": "start",
        "sha256": "ab",
    },
    ConfidenceLoss: {
        "alpha_max": 0.75,
        "warmup_fraction": 0.5,
        "start": 0.5,
        "threshold": 0.3,
        "schedule": "step",
    },
    ProductLoss: {"label_power": 0.5, "prediction_power": 0.0},
    Lora: {"rank": 8, "alpha": 16.0, "blocks": "all"},
    Recipe: {
        "epochs": 5,
        "batch_size": 6,
        "learning_rate": 1.5e-5,
        "warmup_fraction": 0.3,
        "weight_decay": 0.1,
        "max_grad_norm": 2.0,
    },
    **{kind: {"run": dataclasses.replace(WEAK, lora=Lora(rank=8))} for kind in get_args(Taught)},
    Relabelled: {
        "run": dataclasses.replace(WEAK, lora=Lora(rank=8)),
        "method": RELABEL.set(p=0.25),
    },
    NoisyTruth: {"share": 0.2},
    NextToken: {"corpus": "nyt"},
    RunSpec: {
        "model": "hf:a/b@7",
        "revision": COMMIT,
        "task": Task(n_train=400),
        "labels": GroundTruth(),
        "half": "supervisor",
        "loss": ConfidenceLoss(),
        "start": Continue(run=RunSpec(model="hf:a/b", revision="main", labels=NextToken())),
        "recipe": Recipe(epochs=1),
        "lora": Lora(rank=8),
        "quantization": "none",
        "precision": "fp32",
        "device": "cuda",
        "method": "probe",
        "predict_halves": True,
        "seed": 7,
        "semantics": SEMANTICS + 1,
    },
}


@pytest.mark.parametrize("kind", ALTERNATIVES)
def test_every_field_is_in_the_json(kind: Any) -> None:
    """A field that did not reach the JSON would give two different runs one id."""
    base = {
        Task: SIZES,
        RunSpec: {
            "model": "hf:a/b",
            "revision": "main",
            "labels": FromRun(run=RunSpec(model="x/y", half="supervisor", predict_halves=True)),
        },
        NoisyTruth: {"share": 0.1},
        **{kind: {"run": WEAK} for kind in get_args(Taught)},
        Relabelled: {"run": WEAK, "method": RELABEL},
    }.get(kind, {})
    changes = ALTERNATIVES[kind]
    names = {f.name for f in dataclasses.fields(kind)} - {"type"}
    assert changes.keys() == names, "a new field needs another value here"
    plain, found = kind(**base), set()
    for name, value in changes.items():
        drop = (
            {"labels"} if kind is RunSpec and name in ("task", "half", "seed", "start") else set()
        )
        given = {key: held for key, held in base.items() if key not in drop} | {name: value}
        found.add(kind(**given).to_json())
    assert len(found | {plain.to_json()}) == len(changes) + 1


def test_the_canonical_form_by_hand() -> None:
    """Sorted keys, no spaces, defaults left out, `semantics` always there; the id is its hash."""
    text = (
        '{"half":"supervisor","model":"smollm2-135m@4","predict_halves":true,'
        f'"semantics":{SEMANTICS}}}'
    )
    assert WEAK.to_json() == text
    assert WEAK.run_id == hashlib.sha256(text.encode()).hexdigest()[:16]
    student = RunSpec(
        model="smollm2-135m", labels=FromRun(run=WEAK), loss=ConfidenceLoss(alpha_max=1)
    )
    assert student.to_json() == (
        '{"labels":{"run":' + text + ',"type":"FromRun"},"loss":{"alpha_max":1.0,"type":'
        f'"ConfidenceLoss"}},"model":"smollm2-135m","semantics":{SEMANTICS}}}'
    )


@pytest.mark.parametrize(
    "one, other",
    [
        ({"model": "smollm2-135m@30"}, {}),
        ({"model": "smollm2-135m@04"}, {"model": "smollm2-135m@4"}),
        ({"seed": np.int64(3)}, {"seed": 3}),
        (
            {"recipe": Recipe(learning_rate=np.float64(5e-4))},
            {"recipe": Recipe(learning_rate=0.0005)},
        ),
        ({"lora": Lora(blocks=np.int32(4))}, {"lora": Lora(blocks=4)}),
        ({"loss": ConfidenceLoss(alpha_max=1)}, {"loss": ConfidenceLoss(alpha_max=1.0)}),
        ({"task": arms.ceiling("tfidf", "movie").task, "start": Pretrained()}, {}),
        ({"labels": NoisyTruth(share=np.float64(0.2))}, {"labels": NoisyTruth(share=0.2)}),
    ],
)
def test_one_run_has_one_id_by_whatever_route(one: dict[str, Any], other: dict[str, Any]) -> None:
    first, second = (RunSpec(**({"model": "smollm2-135m"} | given)) for given in (one, other))
    assert first == second and first.run_id == second.run_id and hash(first) == hash(second)


def test_with_seed_reseeds_the_whole_lineage() -> None:
    """Those that give labels, and the one that it starts from; first teachers first."""
    first = RunSpec(model="smollm2-135m@4", half="student", predict_halves=True)
    second = RunSpec(
        model="smollm2-135m@14", half="supervisor", labels=Flip(run=first), predict_halves=True
    )
    reader = RunSpec(model="smollm2-135m", labels=NextToken(corpus="amazon"))
    spec = RunSpec(model="smollm2-135m", labels=FromRun(run=second), start=Continue(run=reader))
    moved = spec.with_seed(9)
    assert [(step.model, type(step.labels), step.seed) for step in moved.lineage()] == [
        ("smollm2-135m@4", GroundTruth, 9),
        ("smollm2-135m@14", Flip, 9),
        ("smollm2-135m", NextToken, 9),
        ("smollm2-135m", FromRun, 9),
    ]
    assert moved.run_id != spec.run_id and moved.with_seed(0) == spec
    assert spec.parents() == [second, reader]
    on_gpu = spec.map_lineage(lambda run: {"device": "cuda"})
    assert {step.device for step in on_gpu.lineage()} == {"cuda"}


def test_what_is_not_pinned_has_no_id() -> None:
    """A branch, a folder without a digest and a file without one say nothing for good."""
    hub = RunSpec(model="hf:a/b@6", revision="main", half="supervisor", predict_halves=True)
    assert not hub.pinned
    assert not RunSpec(model="hf:c/d", revision=COMMIT, labels=FromRun(run=hub)).pinned
    assert not RunSpec(model="./folder").pinned
    assert not RunSpec(model="tfidf", task=Task(name="own.csv", **SIZES)).pinned
    for spec in (
        RunSpec(model="hf:a/b@6", revision=COMMIT),
        RunSpec(model="./folder", revision="ab" * 32),
        RunSpec(model="tfidf", task=Task(name="own.csv", sha256="ab" * 32, **SIZES)),
    ):
        assert spec.pinned and re.fullmatch("[0-9a-f]{16}", spec.run_id)
    with pytest.raises(SpecError, match="hf:a/b"):
        _ = RunSpec(model="hf:c/d", revision=COMMIT, labels=FromRun(run=hub)).run_id


def test_how_many_blocks_are_adapted() -> None:
    assert [Lora(blocks=given).n_adapted(6) for given in (4, 10, "all")] == [4, 6, 6]


# JSON

fraction = st.floats(0, 1)
losses = st.one_of(
    st.sampled_from([kind() for kind in LOSSES]),
    st.builds(
        ConfidenceLoss,
        alpha_max=fraction,
        warmup_fraction=fraction,
        schedule=st.sampled_from(["linear", "step"]),
        threshold=st.sampled_from(["half", "mean", 0.3]),
    ),
)


@given(
    st.text(max_size=9).map(lambda text: text + "{text}"),
    losses,
    st.integers(0, 99),
    st.floats(1e-9, 10),
    st.sampled_from(get_args(Taught)),
    st.booleans(),
)
def test_json_round_trips(
    template: str, loss: Any, seed: int, rate: float, kind: Any, teaches: bool
) -> None:
    task, recipe = Task(template=template), Recipe(learning_rate=rate)
    weak = dataclasses.replace(WEAK, task=task, seed=seed)
    spec = RunSpec(
        model="smollm2-135m",
        task=task,
        seed=seed,
        labels=taught(kind, weak),
        loss=loss,
        recipe=recipe,
        predict_halves=teaches,
    )
    again = RunSpec.from_json(spec.to_json())
    assert again == spec and again.to_json() == spec.to_json() and again.run_id == spec.run_id


# Streams


def test_teacher_and_student_begin_apart_and_student_and_ceiling_alike() -> None:
    """(seed, half, earlier teachers of that half): supervisor (7, 0, 0), student and ceiling (7, 1, 0), its student (7, 0, 1)."""
    weak = arms.supervisor("smollm2-135m@4", "movie", seed=7)
    itself = arms.student("smollm2-135m@4", weak)
    others = [arms.student("smollm2-135m@4", kind(run=weak)) for kind in (Hard, Centred, Flip)]
    tops = [arms.ceiling("smollm2-135m@4", "movie", seed=7, noise=noise) for noise in (None, 0.2)]
    assert weak.stream == (7, 0, 0)
    assert {spec.stream for spec in (itself, *others, *tops)} == {(7, 1, 0)}
    assert weak.with_seed(8).stream == (8, 0, 0)


@pytest.mark.parametrize("n", [2, 3, 6])
def test_every_rung_of_a_chain_of_one_depth_has_a_stream_of_its_own(n: int) -> None:
    """Halves alternate, so rung 0 to 5 are the first, first, second, second, third, third of their halves."""
    chain = arms.chain(["smollm2-135m@4"] * n, "movie")
    assert [spec.stream for spec in chain] == [(0, k % 2, k // 2) for k in range(n)]


def test_a_reader_and_what_continues_it_have_one_stream() -> None:
    """They are told apart by a tag in each use: what continues begins from the reader's adapters anyway."""
    read = arms.generative("smollm2-135m@4", "movie", seed=7)
    assert (
        read.stream
        == arms.ceiling("smollm2-135m@4", "movie", seed=7, start=read).stream
        == (7, 1, 0)
    )


if __name__ == "__main__":
    ids = {name: spec.run_id for name, spec in pinned().items()}
    PINS.write_text(json.dumps(ids, indent=1) + "\n", encoding="utf-8")
