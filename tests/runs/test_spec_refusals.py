"""Specs that are refused: text that is none, nonsense, settings that would be ignored, runs that do not fit together."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import taught
from tests.runs.test_spec import COMMIT, LOSSES, SIZES, WEAK
from w2s_lib.runs.errors import SpecError, nearest
from w2s_lib.runs.losses import ConfidenceLoss
from w2s_lib.runs.settings import GroundTruth, NextToken, NoisyTruth
from w2s_lib.runs.spec import Continue, FromRun, Lora, Recipe, RunSpec, Task, Taught, XentLoss

READER = RunSpec(model="smollm2-135m@20", labels=NextToken(), lora=Lora(blocks=4))
values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(-3, 3),
        st.floats(),
        st.sampled_from(["tfidf", "smollm2-135m@4", "FromRun", "Continue", "XentLoss", "all", ""]),
        st.text(max_size=3),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=2),
        st.dictionaries(
            st.sampled_from(
                [
                    "type",
                    *(
                        f.name
                        for kind in (RunSpec, Task, FromRun)
                        for f in dataclasses.fields(kind)
                    ),
                ]
            ),
            inner,
            max_size=4,
        ),
    ),
    max_leaves=12,
)


@given(st.one_of(values.map(json.dumps), st.text(), st.binary()))
def test_any_other_text_is_a_spec_error(text: Any) -> None:
    try:
        spec = RunSpec.from_json(text)
    except SpecError:
        return
    assert RunSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "[]",
        "3",
        "null",
        "[" * 10_000,
        '{"model":"smollm2-135m","labels":{"type":"FromRun","run":' * 300,
        '{"model":"\\ud800"}',
        '{"model":"tfidf","seed":NaN}',
        '{"model":"tfidf","recipe":{"learning_rate":1e999}}',
        '{"model":"tfidf","seed":1.5}',
        '{"model":"tfidf","task":"movie"}',
        '{"model":"tfidf","labels":3}',
        '{"model":"tfidf","loss":{}}',
        '{"model":"hf:a/b","start":{"type":"Continue","run":3}}',
        '{"model":"hf:a/b","labels":{"share":0.5,"type":"NoisyTruth"}}',
        '{"model":"hf:a/b","predict_halves":1}',
    ],
)
def test_json_of_something_else_is_refused(text: str) -> None:
    with pytest.raises(SpecError):
        RunSpec.from_json(text)


# Bad input


@pytest.mark.parametrize(
    "make, said",
    [
        (lambda: RunSpec(model="tfidf", sead=1), ["'sead'", "RunSpec", "did you mean 'seed'"]),
        (
            lambda: RunSpec.from_json('{"model":"tfidf","task":{"n_tset":4}}'),
            ["'n_tset'", "Task", "did you mean 'n_test'"],
        ),
        (
            lambda: RunSpec.from_json('{"model":"tfidf","labels":{"type":"Flop"}}'),
            [
                "RunSpec.labels",
                "'Flop'",
                "did you mean 'Flip'",
                "GroundTruth, NoisyTruth, FromRun, Hard, Centred, Flip, ModelErrors, CoinErrors, "
                "RaterErrors, WordErrors, LengthErrors, Relabelled, NextToken",
            ],
        ),
        (lambda: RunSpec(), ["RunSpec.model"]),
        (lambda: RunSpec(model="tfidf", task=3), ["RunSpec.task", "3", "Task"]),
        (lambda: RunSpec(model="hf:a/b", start="read"), ["RunSpec.start", "'read'", "Pretrained"]),
        (lambda: RunSpec(model="hf:a/b", loss="xent"), ["RunSpec.loss", "did you mean 'XentLoss'"]),
        (lambda: RunSpec(model="hf:a/b", loss=Lora()), ["RunSpec.loss", "Lora("]),
        (lambda: RunSpec(model="hf:a/b", half="studnt"), ["'studnt'", "did you mean 'student'"]),
        (lambda: RunSpec(model="hf:a/b", quantization="nf5"), ["'nf5'", "nf4, none"]),
        (lambda: NoisyTruth(share=0.5), ["NoisyTruth.share", "0.5"]),
        (lambda: NoisyTruth(share=0.0), ["NoisyTruth.share", "0"]),
        (lambda: RunSpec(model="hf:a/b", seed=True), ["RunSpec.seed", "True"]),
        (lambda: RunSpec(model="hf:a/b", seed=-1), ["RunSpec.seed", "-1", "0"]),
        (lambda: Task(n_train=3), ["Task.n_train", "3", "multiple of 2"]),
        (lambda: Task(name="amazon", n_train=400), ["'amazon'", "n_validation", "n_test"]),
        (lambda: Task(template="It was"), ["Task.template", "{text}", "'It was'"]),
        (lambda: Recipe(learning_rate=math.nan), ["Recipe.learning_rate", "nan"]),
        (lambda: Lora(blocks="most"), ["Lora.blocks", "'most'", "all", "integer"]),
        (lambda: Lora(blocks=0), ["Lora.blocks", "0", "1"]),
        (
            lambda: ConfidenceLoss(threshold="halve"),
            ["ConfidenceLoss.threshold", "'halve'", "did you mean 'half'"],
        ),
        (lambda: ConfidenceLoss(alpha_max=1.5), ["ConfidenceLoss.alpha_max", "1.5"]),
        (lambda: RunSpec(model="tfidf", task=Task(n_train=8)), ["16", "8"]),
        (lambda: RunSpec(model="smolm2-135m"), ["'smolm2-135m'", "did you mean 'smollm2-135m'"]),
        (lambda: RunSpec(model="smollm2-135m@31"), ["31", "1 to 30"]),
        (lambda: RunSpec(model="smollm2-135m@2.5"), ["2.5"]),
        (lambda: RunSpec(model="tfidf@3"), ["tfidf"]),
        (lambda: RunSpec(model="hf:"), ["'hf:'"]),
        (lambda: RunSpec(model="hf:a/b:main"), ["hf:a/b:main", "RunSpec.revision"]),
        (lambda: RunSpec(model="hf:a/b", revision="a b"), ["RunSpec.revision", "'a b'"]),
        (lambda: RunSpec(model="./model", revision=COMMIT), ["./model", COMMIT]),
        (lambda: RunSpec(model="smollm2-135m", revision=COMMIT), ["smollm2-135m", COMMIT]),
    ],
)
def test_nonsense_is_refused_by_name(make: Any, said: list[str]) -> None:
    with pytest.raises(SpecError) as error:
        make()
    assert [words for words in said if words not in str(error.value)] == [], str(error.value)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"model": "tfidf", "device": "cuda"}, "device"),
        ({"model": "tfidf", "recipe": Recipe(epochs=1)}, "recipe"),
        *(({"model": "tfidf", "loss": kind()}, "loss") for kind in LOSSES if kind is not XentLoss),
        ({"model": "tfidf", "method": "probe"}, "probe"),
        ({"model": "tfidf", "labels": NextToken()}, "reader"),
        ({"model": "hf:a/b", "method": "probe", "loss": ConfidenceLoss()}, "loss"),
        ({"model": "hf:a/b", "method": "probe", "recipe": Recipe(epochs=1)}, "recipe"),
        ({"model": "hf:a/b", "method": "probe", "lora": Lora(rank=8)}, "lora"),
        ({"model": "hf:a/b", "method": "probe", "labels": NextToken()}, "NextToken"),
        ({"model": "hf:a/b", "method": "zero_shot", "labels": FromRun(run=WEAK)}, "zero_shot"),
        ({"model": "hf:a/b", "labels": NextToken(), "loss": ConfidenceLoss()}, "loss"),
        ({"model": "hf:a/b", "labels": NextToken(), "predict_halves": True}, "predict_halves"),
        ({"model": "hf:a/b", "method": "zero_shot", "labels": NoisyTruth(share=0.1)}, "NoisyTruth"),
        ({"model": "hf:a/b", "method": "transfer", "labels": FromRun(run=WEAK)}, "FromRun"),
        ({"model": "hf:a/b", "labels": NextToken(), "start": Continue(run=READER)}, "start"),
    ],
)
def test_what_would_be_ignored_is_refused(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        RunSpec(**settings)


@pytest.mark.parametrize("kind", get_args(Taught))
@pytest.mark.parametrize(
    "teacher, settings, said",
    [
        (WEAK, {"task": Task(n_test=800)}, "of task"),
        (WEAK, {"seed": 1}, "seed 0.* 1"),
        (WEAK, {"half": "supervisor"}, "supervisor half"),
        (dataclasses.replace(WEAK, predict_halves=False), {}, "predict_halves"),
        (dataclasses.replace(WEAK, labels=NextToken(), predict_halves=False), {}, "predict_halves"),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(
    kind: Any, teacher: RunSpec, settings: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError, match=said):
        RunSpec(model="smollm2-135m", labels=taught(kind, teacher), **settings)


@pytest.mark.parametrize(
    "settings, said",
    [
        ({"model": "smollm2-135m@21"}, "same model"),
        ({"model": "hf:a/b@20"}, "name 'smollm2-135m'.*'hf:a/b'"),
        ({"quantization": "none"}, "quantization"),
        ({"precision": "fp32"}, "precision"),
        ({"device": "cuda"}, "device"),
        ({"lora": Lora(blocks=4, rank=8)}, "lora"),
        ({"half": "supervisor"}, "half"),
        ({"seed": 1}, "seed 0.* 1"),
        ({"task": Task(n_test=800)}, "of task"),
        ({"start": Continue(run=dataclasses.replace(READER, labels=GroundTruth()))}, "NextToken"),
        ({"start": Continue(run=RunSpec(model=READER.model, method="probe"))}, "probe"),
    ],
)
def test_a_run_whose_adapters_do_not_fit_is_no_start(settings: dict[str, Any], said: str) -> None:
    """What a run may change is its recipe, its labels and its loss."""
    fits = {"model": READER.model, "lora": READER.lora, "start": Continue(run=READER)}
    taught = RunSpec(
        **fits, recipe=Recipe(epochs=1), loss=ConfidenceLoss(), labels=FromRun(run=WEAK)
    )
    assert taught.parents() == [WEAK, READER]
    with pytest.raises(SpecError, match=said):
        RunSpec(**(fits | settings))


@pytest.mark.parametrize(
    "blocks, layer, ok",
    [(4, 16, False), (4, 17, True), (4, 20, True), (4, 21, False), ("all", 1, True), (30, 1, True)],
)
def test_a_probe_of_a_finetuned_run_reads_one_of_its_adapted_layers(
    blocks: Any, layer: int, ok: bool
) -> None:
    """Four adapted blocks of twenty are the layers 17 to 20; with all adapted every layer is."""
    run = RunSpec(model="smollm2-135m@20", labels=FromRun(run=WEAK), lora=Lora(blocks=blocks))
    settings = {"method": "probe", "lora": run.lora, "start": Continue(run=run)}
    if ok:
        assert RunSpec(model=f"smollm2-135m@{layer}", **settings).role == "baseline"
    else:
        with pytest.raises(SpecError, match=f"layer {layer} "):
            RunSpec(model=f"smollm2-135m@{layer}", **settings)


TRAINED = RunSpec(model="smollm2-135m@20", labels=FromRun(run=WEAK), lora=Lora(blocks=4))
ASKED = {"model": TRAINED.model, "method": "transfer", "lora": TRAINED.lora}


@pytest.mark.parametrize(
    "settings, said",
    [
        ({}, "trained on 'movie'"),
        ({"task": Task(n_test=800)}, "trained on 'movie'"),
        ({"model": "smollm2-135m@19"}, "same model"),
        ({"seed": 1}, "seed 0.* 1"),
        ({"lora": Lora(blocks=4, rank=8)}, "lora"),
        ({"device": "cuda"}, "device"),
        ({"recipe": Recipe(epochs=1)}, "recipe"),
        ({"predict_halves": True}, "predict_halves"),
        ({"start": Continue(run=READER)}, "classifier"),
        ({"start": Continue(run=dataclasses.replace(READER, method="probe", **{
            "labels": GroundTruth(), "lora": Lora()}))}, "probe"),
    ],
)  # fmt: skip
def test_a_run_is_asked_about_another_task_as_it_was_trained(
    settings: dict[str, Any], said: str
) -> None:
    task, start = Task(name="amazon", **SIZES), Continue(run=TRAINED)
    asked = RunSpec(**ASKED, task=task, start=start)
    assert (asked.role, asked.kind, asked.parents()) == ("transfer", "transfer", [TRAINED])
    fits = (
        {"task": task, "start": start} if settings and "task" not in settings else {"start": start}
    )
    with pytest.raises(SpecError, match=said):
        RunSpec(**(ASKED | fits | settings))


def test_a_probe_of_a_run_whose_depth_nobody_knows_is_refused() -> None:
    """Of `hf:a/b` only its own configuration knows which layers are adapted."""
    whole, named = (RunSpec(model=name, lora=Lora(blocks=4)) for name in ("hf:a/b", "hf:a/b@20"))
    settings: dict[str, Any] = {"method": "probe", "lora": Lora(blocks=4)}
    assert RunSpec(model="hf:a/b@18", start=Continue(run=named), **settings).depth == 18
    with pytest.raises(SpecError):
        RunSpec(model="hf:a/b@5", start=Continue(run=whole), **settings)


def test_nearest_says_the_name_meant_and_all_that_are_allowed() -> None:
    assert nearest("moovie", ["movie", "nyt"]) == "did you mean 'movie'? Allowed: movie, nyt."
    assert nearest("xyz", ["movie", "nyt"]) == "Allowed: movie, nyt."
