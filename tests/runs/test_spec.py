"""Specs: every field anywhere in the lineage is in the id, JSON round-trips, ids stay, nonsense is refused by name."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_lib.experiments import arms
from w2s_lib.runs import codec, parts
from w2s_lib.runs import model_names as names
from w2s_lib.runs.codec import UNIONS
from w2s_lib.runs.errors import SpecError, nearest
from w2s_lib.runs.parts import (
    LOSSES,
    AdaptiveLoss,
    ConfidenceLoss,
    EntropyLoss,
    Part,
    ProductLoss,
    ReverseLoss,
    WindowLoss,
)
from w2s_lib.runs.spec import (
    SEMANTICS,
    Continue,
    Flip,
    FromRun,
    GroundTruth,
    Lora,
    NextToken,
    Pretrained,
    Recipe,
    RunSpec,
    Task,
    XentLoss,
)
from w2s_lib.tasks.table import default_task

PINS = Path(__file__).with_name("pinned_ids.json")

COMMIT = "0123456789" * 4
ALTERNATIVES: dict[type[Part], dict[str, Any]] = {
    Task: {
        "name": "amazon",
        "n_train": 400,
        "n_validation": 300,
        "n_test": 800,
        "min_rating": 1.0,
        "template": "So: {text}",
        "label_words": "bad/good",
        "max_tokens": 64,
        "cut": "start",
        "sha256": "ab",
    },
    ConfidenceLoss: {
        "alpha_max": 0.75,
        "warmup_fraction": 0.5,
        "threshold": "mean",
        "schedule": "step",
    },
    EntropyLoss: {"alpha_max": 0.75, "warmup_fraction": 0.5},
    ProductLoss: {"label_power": 0.5, "prediction_power": 0.0},
    WindowLoss: {"radius": 0.25},
    ReverseLoss: {"floor": 0.1},
    AdaptiveLoss: {"temperature": 2.0},
    Lora: {"rank": 8, "alpha": 16.0, "blocks": "all"},
    Recipe: {
        "epochs": 5,
        "batch_size": 6,
        "learning_rate": 1.5e-5,
        "warmup_fraction": 0.3,
        "weight_decay": 0.1,
        "max_grad_norm": 2.0,
    },
    FromRun: {"hard": True, "own_texts": True},
    Flip: {"hard": True},
    NextToken: {"corpus": "nyt"},
    RunSpec: {
        "model": "smollm2-135m@7",
        "revision": COMMIT,
        "half": "supervisor",
        "quantization": "none",
        "precision": "fp32",
        "device": "cuda",
        "method": "probe",
        "snapshots": (0.5,),
        "predict_halves": False,
        "seed": 7,
        "semantics": SEMANTICS + 1,
    },
}
"""Another value for every field that is not a part itself: a new field must be given one here."""


def pinned() -> dict[str, RunSpec]:
    """One spec for each thing that an id must tell apart; `python -m tests.test_spec` writes their ids."""
    weak = arms.supervisor("smollm2-135m@4", "movie")
    chain = arms.chain(["smollm2-135m@4", "smollm2-135m@14", "smollm2-135m"], "movie")
    return {
        "supervisor": weak,
        "ceiling": arms.ceiling("smollm2-135m", "movie"),
        "naive student": arms.student("smollm2-135m", weak),
        "hard labels": arms.student("smollm2-135m", weak, hard=True),
        "confidence loss": arms.student("smollm2-135m", weak, loss=ConfidenceLoss(alpha_max=0.75)),
        "random flips": arms.student("smollm2-135m", Flip(run=weak)),
        "chain": chain[-1],
        "tfidf student, seed 3": arms.student(
            "smollm2-135m@14", arms.supervisor("tfidf", "movie", seed=3)
        ),
        "other task, all settings": arms.ceiling(
            "smollm2-135m@14",
            "amazon",
            recipe=Recipe(epochs=1),
            lora=Lora(blocks="all"),
            quantization="none",
            precision="fp32",
            device="cuda",
        ),
        "probe": arms.probe("smollm2-135m@20", "tweets"),
        "continued reader, snapshots": arms.student(
            "smollm2-135m",
            weak,
            start=arms.generative("smollm2-135m", "movie", corpus="nyt"),
            snapshots=(0.25, 0.5),
            predict_halves=False,
        ),
        "own texts": arms.chain(
            ["smollm2-135m@4", "smollm2-135m@14", "smollm2-135m"], "movie", own_texts=True
        )[-1],
        "step schedule": arms.student("smollm2-135m", weak, loss=ConfidenceLoss(schedule="step")),
        "another loss": arms.student("smollm2-135m", weak, loss=ProductLoss(prediction_power=0.5)),
        "probe of a student": arms.probe(
            "smollm2-135m@25", "movie", start=arms.student("smollm2-135m", weak)
        ),
        "comparisons": arms.supervisor("smollm2-135m@4", "movie-preference"),
    }


def test_ids_are_pinned() -> None:
    """If this fails, published records are orphans: undo the change, or raise SEMANTICS and retrain what is published.

    After that, and for a new spec: `python -m tests.test_spec` rewrites the file.
    """
    found = {name: spec.run_id for name, spec in pinned().items()}
    assert len(set(found.values())) == 16
    assert found == json.loads(PINS.read_text(encoding="utf-8"))


# Identity

OTHER_RUN = RunSpec(model="tfidf")


def every_change(part: Part, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Each field in a part and in the parts in it, with another value for it: where there are several kinds, each kind."""
    for field in dataclasses.fields(part):
        value, here = getattr(part, field.name), (*path, field.name)
        if isinstance(value, Part):
            yield from every_change(value, here)
            for kind in UNIONS.get(field.name, ()):
                own = {f.name for f in dataclasses.fields(kind)}
                if not isinstance(value, kind):
                    yield (
                        here,
                        kind(**{name: getattr(value, name, OTHER_RUN) for name in own & {"run"}}),
                    )
        else:
            yield here, ALTERNATIVES[type(part)][field.name]


def changed(spec: RunSpec, path: tuple[str, ...], value: Any) -> RunSpec:
    """A copy with one field set, past validation: an id must tell even impossible lineages apart."""
    out = part = copy.deepcopy(spec)
    for name in path[:-1]:
        part = getattr(part, name)
    assert getattr(part, path[-1]) != value, (
        f"the alternative for {'.'.join(path)} is what it is already"
    )
    object.__setattr__(part, path[-1], value)
    return out


def lineage(loss: type[Part] = ConfidenceLoss) -> RunSpec:
    """A student of a student, which starts from a run of no labels: each kind of label, and both kinds of start."""
    first = RunSpec(model="smollm2-135m@4", half="student")
    second = RunSpec(model="smollm2-135m@14", half="supervisor", labels=Flip(run=first))
    reader = RunSpec(model="smollm2-135m", half="student", labels=NextToken(corpus="amazon"))
    return RunSpec(
        model="smollm2-135m",
        half="student",
        labels=FromRun(run=second),
        loss=loss(),
        start=Continue(run=reader),
    )


@pytest.mark.parametrize("loss", LOSSES)
def test_any_single_field_anywhere_in_the_lineage_is_in_the_id(loss: type[Part]) -> None:
    spec = lineage(loss)
    for run in (spec.labels.run.labels.run, spec.labels.run, spec.start.run):
        object.__setattr__(run, "half", "other")  # so that "supervisor" is a change everywhere
    changes = list(every_change(spec))
    ids = {
        ".".join(path) + f"={value!r}": changed(spec, path, value).run_id for path, value in changes
    }
    assert (
        len(ids) == len(changes) > 4 * (8 + 6 + 3 + 10 + 3 + 6 + 1)
    )  # task, recipe, lora, own, labels, loss, start
    assert len({*ids.values(), spec.run_id}) == len(ids) + 1, "two different lineages have one id"


def test_every_kind_of_part_has_its_alternatives() -> None:
    """Else the test above says nothing of it."""
    kinds = {
        *LOSSES,
        *(kind for union in UNIONS.values() for kind in union),
        Task,
        Recipe,
        Lora,
        RunSpec,
    }
    assert set(UNIONS["loss"]) == set(LOSSES)
    for kind in kinds:
        own = (
            {f.name for f in dataclasses.fields(kind)}
            - {"run"}
            - ({"task", "recipe", "lora"} | UNIONS.keys())
        )
        assert own == ALTERNATIVES.get(kind, {}).keys(), kind


def test_every_alternative_is_a_valid_value_of_a_field_that_exists() -> None:
    for kind, values in ALTERNATIVES.items():
        needed = {
            RunSpec: {"model": "smollm2-135m"},
            FromRun: {"run": OTHER_RUN},
            Flip: {"run": OTHER_RUN},
        }.get(kind, {})
        for name, value in values.items():
            needed |= {"model": "hf:a/b"} if name == "revision" else {}
            assert getattr(kind(**(needed | {name: value})), name) == value


def test_the_canonical_form_by_hand() -> None:
    """Sorted keys, no spaces, defaults left out, `semantics` always there; the id is the hash of it."""
    weak = RunSpec(model="smollm2-135m@4", half="supervisor")
    text = f'{{"half":"supervisor","model":"smollm2-135m@4","semantics":{SEMANTICS}}}'
    assert weak.to_json() == text
    assert weak.run_id == hashlib.sha256(text.encode()).hexdigest()[:16]
    student = RunSpec(
        model="smollm2-135m", labels=FromRun(run=weak), loss=ConfidenceLoss(alpha_max=1)
    )
    assert student.to_json() == (
        '{"labels":{"run":' + text + ',"type":"FromRun"},"loss":{"alpha_max":1.0,"type":'
        f'"ConfidenceLoss"}},"model":"smollm2-135m","semantics":{SEMANTICS}}}'
    )


@pytest.mark.parametrize(
    "one, other",
    [
        (RunSpec(model="smollm2-135m@30"), RunSpec(model="smollm2-135m")),
        (RunSpec(model="smollm2-135m@04"), RunSpec(model="smollm2-135m@4")),
        (RunSpec(model="tfidf", loss=XentLoss()), RunSpec(model="tfidf")),
        (
            RunSpec(model="hf:a/b", loss=ConfidenceLoss(alpha_max=1)),
            RunSpec(model="hf:a/b", loss=ConfidenceLoss(alpha_max=1.0)),
        ),
        (RunSpec(model="hf:a/b", seed=np.int64(3)), RunSpec(model="hf:a/b", seed=3)),
        (
            RunSpec(model="hf:a/b", recipe=Recipe(learning_rate=np.float64(5e-4))),
            RunSpec(model="hf:a/b", recipe=Recipe(learning_rate=0.0005)),
        ),
        (RunSpec(model="hf:a/b", task=default_task("movie")), RunSpec(model="hf:a/b")),
        (
            RunSpec(model="hf:a/b", task=Task(min_rating=1)),
            RunSpec(model="hf:a/b", task=Task(min_rating=1.0)),
        ),
        (
            RunSpec(model="hf:a/b", lora=Lora(blocks=np.int32(4))),
            RunSpec(model="hf:a/b", lora=Lora(blocks=4)),
        ),
        (dataclasses.replace(RunSpec(model="hf:a/b", seed=2), seed=0), RunSpec(model="hf:a/b")),
        (arms.ceiling("smollm2-135m@30", "movie"), RunSpec(model="smollm2-135m", half="student")),
        (
            arms.student("smollm2-135m", arms.supervisor("smollm2-135m@4", "movie")),
            RunSpec(
                model="smollm2-135m",
                labels=FromRun(run=RunSpec(model="smollm2-135m@4", half="supervisor")),
            ),
        ),
        (lineage().with_seed(5).with_seed(0), lineage()),
        (
            RunSpec(model="hf:a/b", snapshots=[0.25, 0.5]),
            RunSpec(model="hf:a/b", snapshots=(0.25, 0.5)),
        ),
        (RunSpec(model="hf:a/b", start=Pretrained()), RunSpec(model="hf:a/b")),
        (
            RunSpec(model="hf:a/b", loss=ConfidenceLoss(schedule="linear")),
            RunSpec(model="hf:a/b", loss=ConfidenceLoss()),
        ),
    ],
)
def test_one_run_has_one_id_by_whatever_route(one: RunSpec, other: RunSpec) -> None:
    assert one == other and one.run_id == other.run_id and hash(one) == hash(other)


def test_with_seed_reseeds_the_whole_lineage() -> None:
    """Those that give labels, and the one that it starts from; first teachers first."""
    spec = lineage().with_seed(9)
    assert [step.seed for step in spec.lineage()] == [9] * 4
    assert [(step.model, type(step.labels)) for step in spec.lineage()] == [
        ("smollm2-135m@4", GroundTruth),
        ("smollm2-135m@14", Flip),
        ("smollm2-135m", NextToken),
        ("smollm2-135m", FromRun),
    ]
    assert spec.parents() == [spec.labels.run, spec.start.run]
    assert spec.run_id != lineage().run_id and spec.labels.run == lineage().labels.run.with_seed(9)


# JSON

tasks = st.builds(
    Task,
    name=st.sampled_from(["movie", "amazon", "é.csv"]),
    n_train=st.integers(16, 900).map(lambda n: 2 * n),
    n_validation=st.integers(1, 900).map(lambda n: 2 * n),
    n_test=st.integers(1, 900).map(lambda n: 2 * n),
    min_rating=st.floats(0, 4),
    template=st.text(max_size=9).map(lambda text: text + "{text}"),
    max_tokens=st.integers(0, 999),
    cut=st.sampled_from(["end", "start"]),
    sha256=st.text("0af", max_size=6),
)
fraction = st.floats(0, 1)
inside = st.floats(0, 1, exclude_min=True, exclude_max=True)
losses = st.one_of(
    st.builds(XentLoss),
    st.builds(
        ConfidenceLoss,
        alpha_max=fraction,
        warmup_fraction=fraction,
        schedule=st.sampled_from(["linear", "step"]),
        threshold=st.one_of(st.sampled_from(["half", "mean"]), inside),
    ),
    st.builds(EntropyLoss, alpha_max=fraction, warmup_fraction=fraction),
    st.builds(ProductLoss, label_power=st.floats(0, 9), prediction_power=st.floats(0, 9)),
    st.builds(WindowLoss, radius=st.floats(0, 0.5)),
    st.builds(ReverseLoss, floor=st.floats(0, 0.5, exclude_min=True, exclude_max=True)),
    st.builds(AdaptiveLoss, temperature=st.floats(1e-3, 1e3)),
)
shares = st.lists(inside, max_size=3, unique=True).map(sorted)
loras = st.builds(
    Lora,
    rank=st.integers(1, 256),
    alpha=st.floats(0, 1e3),
    blocks=st.one_of(st.just("all"), st.integers(1, 99)),
)
recipes = st.builds(
    Recipe,
    epochs=st.integers(1, 99),
    batch_size=st.integers(2, 32),
    learning_rate=st.floats(1e-9, 10),
    warmup_fraction=fraction,
    weight_decay=st.floats(0, 1),
    max_grad_norm=st.floats(1e-3, 1e3),
)


@st.composite
def specs(draw: st.DrawFn) -> RunSpec:
    """A run with up to three teachers, some started from a run of no labels; the last one teaches nobody."""
    task, seed = draw(tasks), draw(st.integers(0, 99))
    spec = None
    for half in draw(
        st.sampled_from(
            [["student"], ["supervisor", "student"], ["student"] * 2, ["student", "supervisor"] * 2]
        )
    ):
        own = spec is not None and spec.half == half
        labels = (
            GroundTruth()
            if spec is None
            else FromRun(run=spec, hard=draw(st.booleans()), own_texts=own)
            if own
            else draw(st.sampled_from([FromRun, Flip]))(run=spec, hard=draw(st.booleans()))
        )
        common = {
            "model": draw(
                st.sampled_from(["smollm2-135m", "smollm2-135m@3", "hf:o/m@2", "./here"])
            ),
            "task": task,
            "seed": seed,
            "half": half,
            "lora": draw(loras),
            "quantization": draw(st.sampled_from(["nf4", "none"])),
            "device": draw(st.sampled_from(["cpu", "cuda"])),
            "precision": draw(st.sampled_from(["bf16", "fp32"])),
        }
        start = Pretrained()
        if draw(st.booleans()):
            corpus = draw(st.sampled_from(["", "nyt"]))
            start = Continue(
                run=RunSpec(labels=NextToken(corpus=corpus), recipe=draw(recipes), **common)
            )
        spec = RunSpec(
            labels=labels,
            loss=draw(losses),
            recipe=draw(recipes),
            start=start,
            snapshots=draw(shares),
            **common,
        )
    assert spec is not None
    return dataclasses.replace(spec, predict_halves=draw(st.booleans()))


@settings(max_examples=60)
@given(specs())
def test_json_round_trips(spec: RunSpec) -> None:
    again = RunSpec.from_json(spec.to_json())
    assert again == spec and again.to_json() == spec.to_json() and again.run_id == spec.run_id
    assert json.loads(spec.to_json())["semantics"] == SEMANTICS
    assert re.fullmatch("[0-9a-f]{16}", spec.run_id)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"model":"tfidf","sead":1}', "unknown field 'sead' of RunSpec: did you mean 'seed'"),
        (
            '{"model":"tfidf","task":{"n_tset":4}}',
            "unknown field 'n_tset' of Task: did you mean 'n_test'",
        ),
        (
            '{"model":"tfidf","labels":{"type":"Flop"}}',
            "unknown type 'Flop' of labels: did you mean 'Flip'",
        ),
        (
            '{"model":"tfidf","loss":{"type":"XentLoss","alpha":1}}',
            "unknown field 'alpha' of XentLoss",
        ),
        ('{"model":"tfidf","loss":{}}', "unknown type '' of loss"),
        ('{"model":"tfidf","recipe":{"epochs":-1}}', "Recipe.epochs must be at least 1"),
        ('{"model":"tfidf","task":"movie"}', "Task must be a JSON object, not 'movie'"),
        ('{"model":"tfidf","labels":3}', "labels"),
        (
            '{"model":"tfidf","start":{"type":"Continued"}}',
            "unknown type 'Continued' of start: did you mean 'Continue'",
        ),
        (
            '{"model":"hf:a/b","start":{"type":"Continue","run":3}}',
            "RunSpec must be a JSON object, not 3",
        ),
        (
            '{"model":"hf:a/b","snapshots":[0.5,0.25]}',
            "RunSpec.snapshots must be rising shares of training in (0, 1)",
        ),
        ('{"model":"hf:a/b","predict_halves":1}', "RunSpec.predict_halves must be a bool"),
        ('["tfidf"]', "RunSpec"),
    ],
)
def test_json_of_something_else_is_refused_by_name(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec.from_json(text)


# Bad input


@pytest.mark.parametrize(
    "name, message",
    [
        ("smolm2-135m", "unknown model 'smolm2-135m': did you mean 'smollm2-135m'?"),
        ("tf-idf", "did you mean 'tfidf'?"),
        ("gpt2", "Allowed: smollm2-135m, tfidf. Also 'hf:<owner>/<name>' or a local folder"),
        ("hf:", "unknown model 'hf:'"),
        ("", "unknown model ''"),
        ("smollm2-135m@0", "depth 0 of 'smollm2-135m': must be 1 to 30"),
        ("smollm2-135m@31", "depth 31 of 'smollm2-135m': must be 1 to 30"),
        ("smollm2-135m@-1", "depth in 'smollm2-135m@-1' must be a whole number"),
        ("smollm2-135m@2.5", "must be a whole number"),
        ("smollm2-135m@", "must be a whole number"),
        ("hf:a/b@0", "depth 0 of 'hf:a/b'"),
        ("tfidf@3", "'tfidf' has no depth"),
        ("hf:a/b:main", "RunSpec.model is 'hf:a/b:main': its revision belongs in RunSpec.revision"),
    ],
)
def test_unknown_models_and_depths(name: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec(model=name)


@pytest.mark.parametrize(
    "model, revision, message",
    [
        (
            "hf:a/b",
            "main",
            "RunSpec.revision of 'hf:a/b' is 'main': it must be a commit of the hub, 40 hexadecimal digits",
        ),
        ("hf:a/b@3", COMMIT.upper().replace("0", "A"), "it must be a commit of the hub"),
        ("hf:a/b", COMMIT + "0", "it must be a commit of the hub"),
        (
            "./model",
            COMMIT,
            "RunSpec.revision of './model' is '0123456789012345678901234567890123456789': it must be the SHA-256",
        ),
        ("smollm2-135m", COMMIT, "it must be empty"),
        ("tfidf", COMMIT, "it must be empty"),
    ],
)
def test_revisions_that_pin_nothing_are_refused(model: str, revision: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec(model=model, revision=revision)


def test_a_revision_is_in_the_id_and_its_absence_is_not() -> None:
    plain, one, other = (
        RunSpec(model="hf:a/b@3", revision=revision) for revision in ("", COMMIT, COMMIT[::-1])
    )
    assert (
        len({spec.run_id for spec in (plain, one, other)}) == 3
        and "revision" not in plain.to_json()
    )
    assert (
        RunSpec.from_json(one.to_json()) == one
        and one.model == "hf:a/b@3"
        and one.with_seed(3).revision == COMMIT
    )


def numbers() -> Iterator[tuple[type[Part], str]]:
    for kind in (Task, *LOSSES, Lora, Recipe, RunSpec):
        for field in dataclasses.fields(kind):
            if field.type in ("int", "float"):
                yield kind, field.name


@pytest.mark.parametrize("bad", [-1, -2.0, math.nan, math.inf, "2", None, True, [1]])
@pytest.mark.parametrize("kind, name", list(numbers()))
def test_every_hyperparameter_refuses_negative_nan_and_what_is_no_number(
    kind: type[Part], name: str, bad: object
) -> None:
    needed = {"model": "smollm2-135m"} if kind is RunSpec else {}
    with pytest.raises(SpecError, match=rf"{kind.__name__}\.{name} "):
        kind(**(needed | {name: bad}))


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: Task(n_test=3), "Task.n_test must be even, as classes are balanced: 3"),
        (lambda: Task(n_train=0), "Task.n_train must be at least 2"),
        (lambda: Task(template="It was"), "Task.template must contain '{text}'"),
        (lambda: Task(name=3), "Task.name must be a str, not 3"),
        (
            lambda: ConfidenceLoss(alpha_max=1.01),
            "ConfidenceLoss.alpha_max must be in [0, 1], not 1.01",
        ),
        (
            lambda: ConfidenceLoss(alpha_max=-0.1),
            "ConfidenceLoss.alpha_max must be in [0, 1], not -0.1",
        ),
        (
            lambda: ConfidenceLoss(warmup_fraction=1.5),
            "ConfidenceLoss.warmup_fraction must be in [0, 1]",
        ),
        (
            lambda: ConfidenceLoss(threshold="halv"),
            "ConfidenceLoss.threshold is 'halv': did you mean 'half'?",
        ),
        (lambda: ConfidenceLoss(threshold=1.0), "must be 'half', 'mean' or in (0, 1), not 1.0"),
        (
            lambda: ConfidenceLoss(threshold=math.nan),
            "must be 'half', 'mean' or in (0, 1), not nan",
        ),
        (
            lambda: ConfidenceLoss(schedule="steps"),
            "ConfidenceLoss.schedule is 'steps': did you mean 'step'?",
        ),
        (lambda: EntropyLoss(alpha_max=1.5), "EntropyLoss.alpha_max must be in [0, 1], not 1.5"),
        (
            lambda: ProductLoss(label_power=-1),
            "ProductLoss.label_power must be at least 0.0, not -1.0",
        ),
        (lambda: WindowLoss(radius=0.6), "WindowLoss.radius must be in [0, 0.5], not 0.6"),
        (lambda: ReverseLoss(floor=0), "ReverseLoss.floor must be in (0, 0.5), not 0.0"),
        (lambda: ReverseLoss(floor=0.5), "ReverseLoss.floor must be in (0, 0.5), not 0.5"),
        (lambda: AdaptiveLoss(temperature=0), "AdaptiveLoss.temperature must be above 0, not 0.0"),
        (lambda: NextToken(corpus=None), "NextToken.corpus must be a str, not None"),
        (
            lambda: RunSpec(model="hf:a/b", snapshots=(0.5, 0.25)),
            "RunSpec.snapshots must be rising shares of training in (0, 1)",
        ),
        (lambda: RunSpec(model="hf:a/b", snapshots=(0.5, 0.5)), "rising shares"),
        (lambda: RunSpec(model="hf:a/b", snapshots=(0.0, 0.5)), "rising shares"),
        (lambda: RunSpec(model="hf:a/b", snapshots=(0.5, 1.0)), "rising shares"),
        (lambda: RunSpec(model="hf:a/b", snapshots=(0.5, math.nan)), "rising shares"),
        (lambda: RunSpec(model="hf:a/b", snapshots=(0.5, "0.7")), "rising shares"),
        (lambda: RunSpec(model="hf:a/b", snapshots=0.5), "rising shares"),
        (
            lambda: RunSpec(model="hf:a/b", start="scratch"),
            "RunSpec.start is 'scratch': Allowed: Pretrained, Continue.",
        ),
        (lambda: Continue(run="hf:a/b"), "Continue.run is 'hf:a/b'"),
        (
            lambda: Lora(blocks=0),
            "Lora.blocks must be a whole number of at least 1 or 'all', not 0",
        ),
        (lambda: Lora(blocks="al"), "or 'all', not 'al'"),
        (lambda: Lora(blocks=True), "not True"),
        (lambda: Recipe(learning_rate=0), "Recipe.learning_rate must be above 0"),
        (lambda: Recipe(warmup_fraction=2), "Recipe.warmup_fraction must be in [0, 1]"),
        (lambda: Recipe(batch_size=1), "Recipe.batch_size must be at least 2"),
        (
            lambda: RunSpec(model="tfidf", half="studnet"),
            "RunSpec.half is 'studnet': did you mean 'student'?",
        ),
        (
            lambda: RunSpec(model="tfidf", method="prob"),
            "RunSpec.method is 'prob': did you mean 'probe'?",
        ),
        (lambda: RunSpec(model="tfidf", quantization="nf5"), "did you mean 'nf4'?"),
        (lambda: RunSpec(model="tfidf", precision="fp16"), "did you mean 'bf16'?"),
        (lambda: RunSpec(model="tfidf", device="gpu"), "RunSpec.device is 'gpu'"),
        (
            lambda: RunSpec(model="tfidf", loss="xent"),
            "RunSpec.loss is 'xent': did you mean 'XentLoss'?",
        ),
        (lambda: RunSpec(model="tfidf", loss="confidence"), "did you mean 'ConfidenceLoss'?"),
        (lambda: RunSpec(model="tfidf", labels="gt"), "RunSpec.labels is 'gt'"),
        (lambda: RunSpec(model="tfidf", task="movie"), "RunSpec.task is 'movie'"),
        (lambda: RunSpec(model="tfidf", recipe=None), "RunSpec.recipe is None"),
        (lambda: RunSpec(model="tfidf", lora=8), "RunSpec.lora is 8"),
        (lambda: FromRun(run="smollm2-135m@4"), "FromRun.run is 'smollm2-135m@4'"),
        (lambda: FromRun(run=RunSpec(model="tfidf"), hard="yes"), "FromRun.hard must be a bool"),
        (lambda: Recipe(epoch=2), "unknown field 'epoch' of Recipe: did you mean 'epochs'?"),
        (
            lambda: RunSpec(model="tfidf", recepi=Recipe()),
            "unknown field 'recepi' of RunSpec: did you mean 'recipe'?",
        ),
        (lambda: dataclasses.replace(Lora(), r=8), "unknown field 'r' of Lora"),
        (
            lambda: RunSpec(model="hf:a/b", task=Task(n_train=16), recipe=Recipe(batch_size=32)),
            "Recipe.batch_size is 32, more than the 16 rows of a half",
        ),
    ],
)
def test_nonsense_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        make()


WEAK = RunSpec(model="smollm2-135m@4", half="supervisor")


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"task": Task(name="amazon")}, "the labels come from a run on another task"),
        ({"task": Task(n_test=800)}, "the labels come from a run on another task"),
        ({"seed": 1}, "the labels come from seed 0, this run has seed 1"),
        ({"half": "supervisor"}, "the labels' run was trained on the supervisor half"),
    ],
)
@pytest.mark.parametrize("kind", [FromRun, Flip])
def test_a_teacher_that_cannot_teach_is_refused(
    kind: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec(model="smollm2-135m", labels=kind(run=WEAK), **settings)


@pytest.mark.parametrize(
    "half, own_texts, message",
    [
        (
            "supervisor",
            False,
            "the labels' run was trained on the supervisor half: the texts it would label",
        ),
        ("student", True, "own_texts=True is for a run on the half that it then labels"),
    ],
)
def test_own_texts_is_said_where_it_is_so_and_nowhere_else(
    half: str, own_texts: bool, message: str
) -> None:
    """`WEAK` was trained on the supervisor half."""
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec(model="smollm2-135m", half=half, labels=FromRun(run=WEAK, own_texts=own_texts))
    right = RunSpec(
        model="smollm2-135m", half=half, labels=FromRun(run=WEAK, own_texts=not own_texts)
    )
    assert right.role == "student" and right.labels.run.half == WEAK.half


@pytest.mark.parametrize("kind", [FromRun, Flip])
@pytest.mark.parametrize(
    "teacher",
    [
        dataclasses.replace(WEAK, predict_halves=False),
        dataclasses.replace(WEAK, labels=NextToken()),
    ],
)
def test_a_run_that_predicts_no_half_cannot_teach(kind: Any, teacher: RunSpec) -> None:
    with pytest.raises(
        SpecError, match=f"run {teacher.run_id} gives no labels: it predicts no half"
    ):
        RunSpec(model="smollm2-135m", labels=kind(run=teacher))


READER = RunSpec(model="smollm2-135m@20", labels=NextToken(), lora=Lora(blocks=4))


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"model": "smollm2-135m@21"}, "a classifier continues a NextToken run of the same model"),
        (
            {"model": "hf:a/b@20"},
            "a run starts from one of the same name, not from 'smollm2-135m' for 'hf:a/b'",
        ),
        ({"quantization": "none"}, "of the same quantization, not from 'nf4' for 'none'"),
        ({"precision": "fp32"}, "of the same precision"),
        ({"device": "cuda"}, "of the same device"),
        ({"lora": Lora(blocks=4, rank=8)}, "of the same lora"),
        ({"half": "supervisor"}, "of the same half, not from 'student' for 'supervisor'"),
        ({"seed": 1}, "the adapters come from seed 0, this run has seed 1"),
        ({"task": Task(name="tweets")}, "the adapters come from a run on another task"),
        ({"method": "zero_shot"}, "a classifier continues a NextToken run of the same model"),
        (
            {"start": Continue(run=dataclasses.replace(READER, labels=GroundTruth()))},
            "a classifier continues a NextToken run",
        ),
        (
            {
                "start": Continue(
                    run=dataclasses.replace(READER, labels=GroundTruth(), method="probe")
                )
            },
            "has no adapters to start",
        ),
    ],
)
def test_a_run_whose_adapters_do_not_fit_is_no_start(
    settings: dict[str, Any], message: str
) -> None:
    """What a run may change is its recipe, its labels and its loss."""
    fits = {"model": READER.model, "lora": READER.lora, "start": Continue(run=READER)}
    assert RunSpec(
        **fits, recipe=Recipe(epochs=1), loss=ConfidenceLoss(), labels=FromRun(run=WEAK)
    ).parents() == [WEAK, READER]
    with pytest.raises(SpecError, match=re.escape(message)):
        RunSpec(**(fits | settings))


@pytest.mark.parametrize(
    "blocks, layer, ok",
    [
        (4, 16, False),
        (4, 17, True),
        (4, 20, True),
        (4, 21, False),
        (4, 30, False),
        ("all", 1, True),
        (30, 1, True),
    ],
)
def test_a_probe_of_a_finetuned_run_reads_one_of_its_adapted_layers(
    blocks: int | str, layer: int, ok: bool
) -> None:
    """Four adapted blocks of twenty are the layers 17 to 20; with all adapted every layer is."""
    run = RunSpec(model="smollm2-135m@20", labels=FromRun(run=WEAK), lora=Lora(blocks=blocks))
    settings = {
        "model": f"smollm2-135m@{layer}",
        "method": "probe",
        "lora": run.lora,
        "start": Continue(run=run),
    }
    if ok:
        assert RunSpec(**settings).role == "baseline"
    else:
        with pytest.raises(
            SpecError,
            match=rf"layer {layer} of run {run.run_id} is not one of its 4 adapted ones, up to 20",
        ):
            RunSpec(**settings)


def test_a_probe_of_a_run_whose_depth_nobody_knows_is_refused() -> None:
    """Of `hf:a/b` only its own configuration knows which layers are adapted; named with its depth, it can be probed."""
    whole, named = (RunSpec(model=name, lora=Lora(blocks=4)) for name in ("hf:a/b", "hf:a/b@20"))
    settings = {"method": "probe", "lora": Lora(blocks=4)}
    assert RunSpec(model="hf:a/b@18", start=Continue(run=named), **settings).depth == 18
    with pytest.raises(SpecError):
        RunSpec(model="hf:a/b@5", start=Continue(run=whole), **settings)


@pytest.mark.parametrize(
    "settings, message",
    [
        ({"method": "probe"}, "NextToken is finetuned from the pretrained weights, with XentLoss"),
        ({"model": "tfidf"}, "NextToken is finetuned"),
        ({"loss": ConfidenceLoss()}, "NextToken is finetuned"),
        ({"start": Continue(run=READER)}, "NextToken is finetuned"),
        ({"method": "zero_shot"}, "zero_shot learns from no labels"),
        ({"snapshots": (0.5,)}, "only a finetuned classifier has snapshots"),
    ],
)
def test_a_run_of_no_labels_is_finetuned_from_the_pretrained_weights(
    settings: dict[str, Any], message: str
) -> None:
    assert READER.role == "generative" and READER.parents() == []
    with pytest.raises(SpecError, match=message):
        RunSpec(**({"model": READER.model, "lora": READER.lora, "labels": NextToken()} | settings))


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "tfidf", "snapshots": (0.5,)},
        {"model": "smollm2-135m", "method": "probe", "snapshots": (0.5,)},
        {"model": "smollm2-135m", "method": "zero_shot", "snapshots": (0.5,)},
    ],
)
def test_only_a_finetuned_classifier_has_snapshots(settings: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="only a finetuned classifier has snapshots"):
        RunSpec(**settings)


@pytest.mark.parametrize(
    "settings",
    [
        {"model": "tfidf", "loss": ConfidenceLoss()},
        *({"model": "tfidf", "loss": loss()} for loss in LOSSES if loss is not XentLoss),
        {"model": "smollm2-135m", "method": "probe", "loss": ConfidenceLoss()},
        {"model": "smollm2-135m", "method": "probe", "loss": WindowLoss()},
        {"model": "tfidf", "method": "probe"},
        {"model": "tfidf", "method": "zero_shot"},
        {"model": "smollm2-135m", "method": "zero_shot", "labels": FromRun(run=WEAK)},
    ],
)
def test_what_would_be_ignored_is_refused(settings: dict[str, Any]) -> None:
    """What was asked for is what runs, or it is an error."""
    with pytest.raises(SpecError, match="tfidf|probe|zero_shot"):
        RunSpec(**settings)


def test_specs_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        WEAK.seed = 3


def test_no_message_is_made_for_what_is_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looking for the nearest name takes a hundred times as long as the check, and a sweep makes thousands of specs."""
    made = arms.student("smollm2-135m", arms.supervisor("smollm2-135m@2", "movie"))
    for module in (parts, codec, names):
        monkeypatch.setattr(module, "nearest", lambda *names: pytest.fail("a message was made"))
    assert made.with_seed(3).with_seed(0) == made and RunSpec.from_json(made.to_json()) == made


def test_nearest_says_the_name_meant_and_all_that_are_allowed() -> None:
    assert nearest("moovie", ["movie", "nyt"]) == "did you mean 'movie'? Allowed: movie, nyt."
    assert nearest("xyz", ["movie", "nyt"]) == "Allowed: movie, nyt."


if __name__ == "__main__":
    PINS.write_text(
        json.dumps({name: spec.run_id for name, spec in pinned().items()}, indent=1) + "\n",
        encoding="utf-8",
    )
