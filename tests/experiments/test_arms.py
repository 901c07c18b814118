"""The arms of an experiment: half, labels, role; what does not apply is refused."""

from __future__ import annotations

import re
from typing import Any, get_args

import pytest

import w2s_lib as w2s
from tests.conftest import taught
from w2s_lib.runs.errors import SpecError
from w2s_lib.runs.losses import ConfidenceLoss, ProductLoss
from w2s_lib.runs.settings import GroundTruth, NextToken, NoisyTruth, Pretrained
from w2s_lib.runs.spec import Continue, Flip, FromRun, Hard, Lora, Recipe, Task, Taught, XentLoss

WEAK = w2s.supervisor("smollm2-135m@4", "movie")
COMMIT = "0123456789" * 4
READ = w2s.generative("smollm2-135m", "movie")


@pytest.mark.parametrize(
    "spec, role, half, method, depth",
    [
        (WEAK, "supervisor", "supervisor", "finetune", 4),
        (w2s.supervisor("tfidf", "movie"), "supervisor", "supervisor", "finetune", None),
        (w2s.ceiling("smollm2-135m", "movie"), "ceiling", "student", "finetune", 30),
        (w2s.ceiling(f"hf:a/b:{COMMIT}@6", "movie"), "ceiling", "student", "finetune", 6),
        (w2s.ceiling(f"hf:a/b:{COMMIT}", "movie"), "ceiling", "student", "finetune", None),
        (w2s.ceiling("tfidf", "movie"), "baseline", "student", "finetune", None),
        (w2s.student("smollm2-135m@14", WEAK), "student", "student", "finetune", 14),
        (w2s.probe("smollm2-135m@20", "movie"), "baseline", "student", "probe", 20),
        (w2s.zero_shot("smollm2-135m", "movie"), "baseline", "student", "zero_shot", 30),
        (READ, "generative", "student", "finetune", 30),
        (
            w2s.generative("smollm2-135m@4", "movie", half="supervisor"),
            "generative",
            "supervisor",
            "finetune",
            4,
        ),
        (w2s.ceiling("smollm2-135m", "movie", start=READ), "ceiling", "student", "finetune", 30),
        (w2s.probe("smollm2-135m@25", "movie", start=READ), "baseline", "student", "probe", 25),
        (
            w2s.supervisor("smollm2-135m@4", "movie-preference"),
            "supervisor",
            "supervisor",
            "finetune",
            4,
        ),
    ],
)
def test_roles_and_halves(
    spec: w2s.RunSpec, role: str, half: str, method: str, depth: int | None
) -> None:
    assert (spec.role, spec.half, spec.method, spec.depth) == (role, half, method, depth)


def test_a_student_learns_from_its_teacher_on_the_other_half() -> None:
    weak = w2s.supervisor("smollm2-135m@4", "amazon", seed=3)
    student = w2s.student("smollm2-135m", weak)
    assert student.labels == FromRun(run=weak) and student.loss == XentLoss()
    assert (student.seed, student.task) == (3, weak.task)
    for kind in get_args(Taught):
        assert w2s.student("smollm2-135m", taught(kind, weak)).labels == taught(kind, weak)
    assert w2s.student("smollm2-135m", weak, loss=ConfidenceLoss()).loss == ConfidenceLoss()


def test_a_chain_alternates_halves() -> None:
    steps = w2s.chain(["smollm2-135m@4", "smollm2-135m@14", "smollm2-135m"], "movie", seed=2)
    assert [step.half for step in steps] == ["supervisor", "student", "supervisor"]
    assert [step.role for step in steps] == ["supervisor", "student", "student"]
    assert [type(step.labels) for step in steps] == [GroundTruth, FromRun, FromRun]
    assert list(steps[-1].lineage()) == steps and {step.seed for step in steps} == {2}


def test_only_those_that_teach_predict_the_halves() -> None:
    """A supervisor, and all but the last rung of a chain; TF-IDF as any other. What is said wins."""
    assert WEAK.predict_halves and w2s.supervisor("tfidf", "movie").predict_halves
    for spec in (
        w2s.ceiling("smollm2-135m", "movie"),
        w2s.ceiling("tfidf", "movie"),
        w2s.student("smollm2-135m", WEAK),
        w2s.student("tfidf", WEAK),
        w2s.probe("smollm2-135m@20", "movie"),
        w2s.zero_shot("smollm2-135m", "movie"),
    ):
        assert not spec.predict_halves
    for model in ("smollm2-135m@4", "tfidf"):
        steps = w2s.chain([model] * 4, "movie")
        assert [step.predict_halves for step in steps] == [True, True, True, False]
        assert w2s.chain([model] * 2, "movie", predict_halves=True)[-1].predict_halves
        assert not w2s.supervisor(model, "movie", predict_halves=False).predict_halves


def test_a_ceiling_with_noise_is_a_ceiling() -> None:
    noisy = w2s.ceiling("smollm2-135m", "movie", noise=0.2)
    assert noisy.labels == NoisyTruth(share=0.2) and noisy.role == "ceiling"
    assert w2s.ceiling("smollm2-135m", "movie").labels == GroundTruth()
    with pytest.raises(SpecError, match="0.5"):
        w2s.ceiling("smollm2-135m", "movie", noise=0.5)


def test_a_transfer_is_its_run_asked_about_another_task() -> None:
    top = w2s.ceiling("smollm2-135m@14", "movie", lora=Lora(blocks=4), device="cuda", seed=3)
    asked = w2s.transfer(top, "amazon")
    assert asked.parents() == [top] and asked.task == w2s.default_task("amazon")
    for name in ("model", "seed", "lora", "quantization", "precision", "device"):
        assert getattr(asked, name) == getattr(top, name)
    assert (asked.role, asked.labels, asked.recipe) == ("transfer", GroundTruth(), Recipe())
    naive = w2s.student("smollm2-135m", WEAK)
    assert list(w2s.transfer(naive, "nyt").lineage())[:2] == [WEAK, naive]
    for run, said in ((top, "movie"), (READ, "classifier"), (w2s.probe(top.model, "nyt"), "probe")):
        with pytest.raises(SpecError, match=said):
            w2s.transfer(run, "movie")


def test_a_run_to_start_from_may_be_given_as_it_is() -> None:
    """As a run or wrapped; the reader has no labels, and its corpus is in its labels."""
    for start in (READ, Continue(run=READ)):
        taught = w2s.student("smollm2-135m", WEAK, start=start, loss=ProductLoss())
        assert (
            taught.start == Continue(run=READ)
            and taught.labels == FromRun(run=WEAK)
            and taught.loss == ProductLoss()
        )
    assert w2s.student("smollm2-135m", WEAK).start == Pretrained()
    assert READ.labels == NextToken()
    assert w2s.generative("smollm2-135m", "movie", corpus="nyt").labels == NextToken(corpus="nyt")
    half = w2s.generative("smollm2-135m@4", "movie", half="supervisor", seed=3)
    assert w2s.supervisor("smollm2-135m@4", "movie", start=half, seed=3).parents() == [half]


def test_a_probe_learns_from_a_teacher_or_from_ground_truth() -> None:
    assert w2s.probe("smollm2-135m@20", "movie").labels == GroundTruth()
    taught = w2s.probe("smollm2-135m@20", teacher=WEAK.with_seed(2))
    assert taught.labels == FromRun(run=WEAK.with_seed(2))
    assert (taught.seed, taught.half, taught.task) == (2, "student", WEAK.task)
    top = w2s.ceiling("smollm2-135m", "movie")
    assert w2s.probe("smollm2-135m@25", teacher=WEAK, start=top).parents() == [WEAK, top]
    assert w2s.probe("smollm2-135m@20", teacher=Hard(run=WEAK)).labels == Hard(run=WEAK)


def test_settings_reach_the_spec() -> None:
    given: dict[str, Any] = {
        "recipe": Recipe(epochs=1),
        "lora": Lora(blocks="all"),
        "quantization": "none",
        "precision": "fp32",
        "device": "cuda",
        "seed": 4,
        "predict_halves": True,
    }
    for spec in (
        w2s.supervisor("smollm2-135m@4", "movie", **given),
        *w2s.chain(["smollm2-135m@4"] * 2, "movie", **given),
    ):
        assert {name: getattr(spec, name) for name in given} == given


def test_a_student_inherits_device_precision_and_quantization() -> None:
    """LoRA and recipe are its own. What is given wins; TF-IDF has none to give, and takes none."""
    machine = {"quantization": "none", "precision": "fp32", "device": "cuda"}
    weak = w2s.supervisor("smollm2-135m@4", "movie", recipe=Recipe(epochs=9), **machine)
    for spec in (
        w2s.student("smollm2-135m", weak),
        w2s.student("smollm2-135m", Flip(run=weak)),
        w2s.probe("smollm2-135m@20", teacher=weak),
    ):
        assert {name: getattr(spec, name) for name in machine} == machine
        assert (spec.recipe, spec.lora) == (Recipe(), Lora())
    assert w2s.student("smollm2-135m", weak, device="cpu").device == "cpu"
    assert w2s.student("tfidf", weak).device == "cpu"
    assert w2s.student("smollm2-135m", w2s.supervisor("tfidf", "movie")).quantization == "nf4"


def test_what_continues_a_run_has_its_adapters() -> None:
    wide: dict[str, Any] = {"lora": Lora(blocks="all"), "device": "cuda"}
    read = w2s.generative("smollm2-135m", "movie", **wide)
    for spec in (
        w2s.ceiling("smollm2-135m", "movie", start=read),
        w2s.student("smollm2-135m", WEAK, start=read),
        w2s.probe("smollm2-135m@3", "movie", start=read),
    ):
        assert (spec.lora, spec.device) == (read.lora, "cuda")


@pytest.mark.parametrize(
    "name, value",
    [
        ("device", "cuda"),
        ("device", "cpu"),
        ("quantization", "nf4"),
        ("precision", "fp32"),
        ("recipe", Recipe()),
        ("lora", Lora()),
        ("start", READ),
    ],
)
def test_only_the_seed_and_predict_halves_apply_to_tfidf(name: str, value: Any) -> None:
    assert w2s.supervisor("tfidf", "movie", seed=3).seed == 3
    for arm in (w2s.supervisor, w2s.ceiling):
        with pytest.raises(SpecError, match=name):
            arm("tfidf", "movie", **{name: value})
    with pytest.raises(SpecError, match=name):
        w2s.student("tfidf", WEAK, **{name: value})


@pytest.mark.parametrize(
    "arm, names",
    [
        (w2s.generative, ["start", "predict_halves"]),
        (w2s.probe, ["recipe"]),
        (w2s.zero_shot, ["recipe", "lora", "start"]),
    ],
)
def test_what_does_not_apply_is_refused(arm: Any, names: list[str]) -> None:
    given = {"recipe": Recipe(), "lora": Lora(), "start": READ, "predict_halves": True}
    for name in names:
        with pytest.raises(SpecError, match=f"{name} does not apply"):
            arm("smollm2-135m", "movie", **{name: given[name]})


def test_describing_a_run_asks_no_hub_and_reads_nothing() -> None:
    """A branch, a folder and a file that are nowhere: they are found when the run is pinned."""
    branch = w2s.supervisor("hf:nobody/nothing:step3000@6", "movie")
    assert (branch.model, branch.revision) == ("hf:nobody/nothing@6", "step3000")
    folder = w2s.supervisor("./no/such/model@2", "movie")
    student = w2s.student("smollm2-135m", branch)
    assert not any(spec.pinned for spec in (branch, folder, student))


def test_a_name_of_a_task_stands_for_sizes_that_fit_it() -> None:
    assert w2s.supervisor("tfidf", "movie").task == Task()
    assert w2s.supervisor("tfidf", "amazon").task == w2s.default_task("amazon")


@pytest.mark.parametrize(
    "make, message",
    [
        (
            lambda: w2s.supervisor("smollm2-135m@4", "movies"),
            "unknown task 'movies': did you mean 'movie'?",
        ),
        (
            lambda: w2s.supervisor("smollm2-135m@4", "imdb"),
            "Allowed: movie, amazon, nyt, tweets, movie-preference, boolq, ",
        ),
        (
            lambda: w2s.supervisor("smollm2-135@4", "movie"),
            "unknown model 'smollm2-135': did you mean 'smollm2-135m'?",
        ),
        (lambda: w2s.supervisor("smollm2-135m@0", "movie"), "depth 0"),
        (
            lambda: w2s.ceiling("smollm2-135m@31", "movie"),
            "depth 31 of 'smollm2-135m': must be 1 to 30",
        ),
        (
            lambda: w2s.ceiling("smollm2-135m", "movie", recipee=Recipe()),
            "unknown setting 'recipee': did you mean 'recipe'?",
        ),
        (lambda: w2s.ceiling("smollm2-135m", "movie", seed=-1), "RunSpec.seed is -1"),
        (lambda: w2s.student("smollm2-135m", WEAK, loss="xent"), "did you mean 'XentLoss'?"),
        (lambda: w2s.student("smollm2-135m", WEAK, seed=1), "a run of seed 0, not 1"),
        (lambda: w2s.student("smollm2-135m", WEAK, hard=True), "unknown setting 'hard'"),
        (lambda: w2s.student("smollm2-135m", "smollm2-135m@4"), "teacher"),
        (lambda: w2s.student("tfidf", WEAK, loss=ConfidenceLoss()), "tfidf"),
        (
            lambda: w2s.student("smollm2-135m", WEAK, start=WEAK),
            "the adapters come from a run of half",
        ),
        (
            lambda: w2s.student("smollm2-135m", WEAK, start="read"),
            "RunSpec.start is 'read': did you mean 'Pretrained'?",
        ),
        (
            lambda: w2s.student("smollm2-135m", WEAK, predict_half=True),
            "unknown setting 'predict_half': did you mean 'predict_halves'?",
        ),
        (lambda: w2s.student("smollm2-135m", READ), "gives no labels: it predicts no half"),
        (lambda: w2s.generative("tfidf", "movie"), "reader"),
        (lambda: w2s.probe("smollm2-135m@20"), "a probe needs a task, or a teacher that has one"),
        (lambda: w2s.probe("smollm2-135m@19", "movie", start=READ), "layer 19 "),
        (lambda: w2s.chain(["smollm2-135m"], "movie"), "a chain needs at least two models"),
        (
            lambda: w2s.default_task("movie", n_trian=4),
            "unknown field 'n_trian' of Task: did you mean 'n_train'?",
        ),
    ],
)
def test_bad_input_is_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message)):
        make()


def test_an_unknown_name_of_the_library() -> None:
    with pytest.raises(
        AttributeError, match="w2s_lib has no 'superviser': did you mean 'supervisor'"
    ):
        _ = w2s.superviser
