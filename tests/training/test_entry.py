"""The open slot: a function becomes a run, knows only what a student may know, and is refused in one sentence."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import w2s_lib as w2s
from w2s_lib.runs.errors import SpecError, TrainingError
from w2s_lib.runs.method import Method
from w2s_lib.runs.record import P_STEP
from w2s_lib.runs.spec import RunSpec
from w2s_lib.training.baselines import frozen_states
from w2s_lib.training.entry import called

OUTSIDE = 3
N, M, WIDTH = 40, 30, 4


@w2s.method
def regression(states, labels, unlabeled, seed):
    """Least squares on the labels' side of one half."""
    import numpy as np

    def centred(x):
        return x - states.mean(axis=0)

    weights, *_ = np.linalg.lstsq(centred(states), labels - 0.5, rcond=None)  # a comment stays
    return (centred(unlabeled) @ weights + 0.5).clip(0, 1)


@w2s.method
def yes_words(texts, labels, unlabeled, seed, *, last=False):
    """The share of a text's words that stood in texts with a yes; of pairs, of the last or first one."""

    def words(text):
        return (text if isinstance(text, str) else text[-1 if last else 0]).lower().split()

    known = {
        word
        for text, label in zip(texts, labels, strict=True)
        if label > 0.5
        for word in words(text)
    }
    return [len(known & {*words(text)}) / len({*words(text)}) for text in unlabeled]


@w2s.method
def surer(texts, labels, unlabeled, seed):
    """Labels that are further from one half, the longer their texts are."""
    longest = max(map(len, texts))
    return [0.5 + (y - 0.5) * len(text) / longest for text, y in zip(texts, labels, strict=True)]


def given(**changes: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    arrays = {"given": (N, WIDTH), "labels": (N,), "unlabeled": (M, WIDTH)}
    made = {name: rng.random(shape, dtype=np.float32) for name, shape in arrays.items()}
    return made | {"seed": np.array(7)} | changes


def of(body: str) -> Method:
    return Method(source=f"def own(states, labels, unlabeled, seed):\n    {body}")


def test_a_function_is_its_source() -> None:
    assert regression.name == "regression"
    assert regression.source.startswith("def regression(states, labels, unlabeled, seed):\n    ")
    assert "a comment stays" in regression.source and "@" not in regression.source.splitlines()[0]
    assert Method.from_json(regression.to_json()) == regression
    weak = w2s.supervisor("smollm2-135m@4", "movie")
    spec = w2s.entry(regression, "smollm2-135m@29", weak)
    assert (spec.kind, spec.role, spec.teacher) == ("method", "student", weak)
    assert RunSpec.from_json(spec.to_json()) == spec
    other = w2s.entry(of("return labels"), "smollm2-135m@29", weak)
    assert other.run_id != spec.run_id != w2s.probe("smollm2-135m@29", teacher=weak).run_id


def test_what_it_may_not_use_is_named() -> None:
    inside = 4

    def closed(states, labels, unlabeled, seed):
        return np.full(len(unlabeled), inside)

    def reaching(states, labels, unlabeled, seed):
        return np.full(len(unlabeled), OUTSIDE)

    def short(states, labels, unlabeled):
        return labels

    def preset(states, labels, unlabeled, seed=OUTSIDE):
        return labels

    for function, said in (
        (closed, "'closed' uses inside, np, which"),
        (reaching, "'reaching' uses OUTSIDE, np, which"),
        (short, r"'short' takes \(states, labels, unlabeled\)"),
        (preset, "'preset' takes .*seed=OUTSIDE"),
        (len, "no function whose source"),
        (lambda states, labels, unlabeled, seed: labels, "no function"),
    ):
        with pytest.raises(SpecError, match=said):
            w2s.method(function)
    with pytest.raises(SpecError, match="own.*os"):
        of("return os.environ")
    with pytest.raises(SpecError, match="@w2s.method"):
        w2s.entry(len, "smollm2-135m@29", w2s.supervisor("tfidf", "movie"))  # type: ignore[arg-type]


def test_settings_stand_after_a_star_and_in_the_id() -> None:
    weak = w2s.supervisor("smollm2-135m@4", "movie")
    constant = Method(
        source="def constant(states, labels, unlabeled, seed, *, p=0.5, word='a'):\n"
        "    return [p] * len(unlabeled)"
    )
    changed = constant.set(word="b", p=0.25)
    assert str(changed) == "constant(p=0.25, word='b')" and str(constant) == "constant"
    assert constant.set(p=0.25).set(word="b") == changed == Method.from_json(changed.to_json())
    assert (called(constant, given()) == 0.5).all() and (called(changed, given()) == 0.25).all()
    assert constant.set(p=0.5) == constant == changed.set(word="a", p=0.5)  # the same run, once
    ids = {w2s.entry(one, "smollm2-135m@29", weak).run_id for one in (constant, changed)}
    assert len(ids) == 2
    with pytest.raises(SpecError, match="'constant' has no setting 'word2'.*'word'"):
        constant.set(word2="b")
    with pytest.raises(SpecError, match="settings with a default"):
        Method(source="def own(states, labels, unlabeled, seed, *, p):\n    return labels")
    with pytest.raises(SpecError, match="'own'.*written out"):
        Method(source="def own(states, labels, unlabeled, seed, *, p=1 / 3):\n    return labels")


def test_it_answers_as_when_it_is_called_here() -> None:
    arrays = given()
    p = called(regression, arrays)
    assert p.dtype == np.float32 and p.shape == (M,)
    here = regression(arrays["given"], arrays["labels"], arrays["unlabeled"], 7)
    assert np.abs(p - here).max() <= P_STEP
    drawn = of("import numpy as np; return np.random.default_rng(seed).random(len(unlabeled))")
    assert (called(drawn, given()) == called(drawn, given())).all()
    assert (called(drawn, given()) != called(drawn, given(seed=np.array(8)))).any()


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("return labels", rf"shape \({N},\), not \({M},\)"),
        ("return unlabeled", rf"shape \({M}, {WIDTH}\)"),
        ("return [float('nan')] * len(unlabeled)", f"nan and the like for {M} of {M}"),
        ("return [0.5] * (len(unlabeled) - 1) + [1.5]", "1.5 and the like for 1 of"),
        ("return 1 / 0", "failed: ZeroDivisionError"),
        ("import nothing_of_that_name", "failed: ModuleNotFoundError"),
        ("return open('nothing')", "failed: FileNotFoundError"),
        ("import os; os._exit(3)", "ended with 3"),
    ],
)
def test_a_wrong_answer_is_refused(body: str, said: str) -> None:
    with pytest.raises(TrainingError, match=f"method 'own'.*{said}"):
        called(of(body), given())


def test_a_slow_one_is_stopped() -> None:
    with pytest.raises(TrainingError, match="'own' was stopped: it may compute for 1 seconds"):
        called(of("while True: pass"), given(), seconds=1)


def test_a_run_of_it_knows_states_and_weak_labels_alone(tiny_models: Path) -> None:
    """Its record holds what it answers to them; where that fails there is no record."""
    task = w2s.default_task("amazon", n_train=64, n_validation=20, n_test=40)
    weak = w2s.supervisor("tfidf", task)
    spec = w2s.entry(regression, f"{tiny_models / 'llama'}@2", weak, quantization="none")
    runs = w2s.sweep([spec], workers=1, progress=False)
    table = w2s.load_table(task)
    parts, (one,) = w2s.splits(table, 0), runs.records(spec)
    states, _ = frozen_states(one.spec, table)
    labels = w2s.training_labels(one.spec, table, parts.student, half=parts.student)
    rows = one.predictions.index.to_numpy()
    assert set(one.predictions["split"]) == {"test", "validation"}
    here = regression(states[parts.student], labels, states[rows], 0)
    assert np.abs(one.predictions["p"] - here).max() <= P_STEP
    assert runs.frame["method"].tolist() == ["regression"] and one.spec.method == regression
    broken = w2s.entry(of("return 1 / 0"), f"{tiny_models / 'llama'}@2", weak, quantization="none")
    with pytest.raises(TrainingError, match="'own' failed: ZeroDivisionError"):
        w2s.sweep([broken], workers=1, progress=False)
    assert not (Path(os.environ["W2S_STORE"]) / f"{w2s.pin(broken).run_id}.parquet").exists()


def test_a_method_may_take_texts() -> None:
    task = w2s.default_task("amazon", n_train=64, n_validation=20, n_test=40)
    weak = w2s.supervisor("tfidf", task)
    spec, table = w2s.entry(yes_words, "texts", weak), w2s.load_table(task)
    (one,) = w2s.sweep([spec], workers=1, progress=False).records(spec)
    parts, rows = w2s.splits(table, 0), one.predictions.index
    labels = w2s.training_labels(one.spec, table, parts.student, half=parts.student)
    texts = table.frame["text"]
    here = yes_words([*texts[parts.student]], labels, [*texts[rows]], 0)
    assert np.abs(one.predictions["p"] - here).max() <= P_STEP and len({*here}) > 10
    assert (one.spec.kind, one.spec.role, one.spec.model) == ("text_method", "student", "texts")


def test_of_comparisons_it_takes_pairs() -> None:
    task = w2s.default_task("movie-preference", n_train=64, n_validation=20, n_test=40)
    methods = [yes_words, yes_words.set(last=True)]
    arms = [w2s.entry(one, "texts", w2s.supervisor("tfidf", task)) for one in methods]
    runs = w2s.sweep(arms, workers=1, progress=False)
    (first,), (last,) = map(runs.records, arms)
    assert (first.predictions["p"] != last.predictions["p"]).any()


def test_a_method_may_make_labels(tiny_models: Path) -> None:
    """A student is finetuned on what a function makes of its teacher's labels."""
    task = w2s.default_task("amazon", n_train=64, n_validation=20, n_test=40)
    weak, model = w2s.supervisor("tfidf", task), f"{tiny_models / 'llama'}@2"
    same = Method(source="def same(states, labels, unlabeled, seed):\n    return labels")
    inverted = Method(source="def other(states, labels, unlabeled, seed):\n    return 1 - labels")
    arms = {
        name: w2s.student("tfidf", labels)
        for name, labels in (("naive", weak), ("surer", w2s.Relabelled(run=weak, method=surer)))
    }
    for name, labels in (
        ("probe", weak),
        ("same", w2s.Relabelled(run=weak, method=same)),
        ("inverted", w2s.Relabelled(run=weak, method=inverted)),
    ):
        arms[name] = w2s.probe(model, teacher=labels, quantization="none")
        arms[f"{name}, trained"] = w2s.student(model, labels, quantization="none")
    runs = w2s.sweep([*arms.values()], workers=1, progress=False)
    p = {name: runs.records(arm)[0].predictions["p"] for name, arm in arms.items()}
    assert (p["same"] == p["probe"]).all()
    assert np.abs(p["inverted"] + p["probe"] - 1).max() < 0.01
    assert (p["surer"] != p["naive"]).any()
    assert (p["same, trained"] == p["probe, trained"]).all()
    assert (p["inverted, trained"] != p["probe, trained"]).any()
    (made,) = runs.records(arms["surer"])
    assert "Relabelled(method=surer)" in runs.frame["labels"].tolist()
    assert RunSpec.from_json(made.spec.to_json()) == made.spec


def test_what_does_not_fit_texts_or_labels_is_refused() -> None:
    weak = w2s.supervisor("tfidf", "movie")
    with pytest.raises(SpecError, match="'texts'.*'smollm2-135m@29'"):
        w2s.entry(yes_words, "smollm2-135m@29", weak)
    with pytest.raises(SpecError, match="'texts' is no language model"):
        w2s.entry(regression, "texts", weak)
    with pytest.raises(SpecError, match="'texts' is no language model"):
        w2s.supervisor("texts", "movie")
    with pytest.raises(SpecError, match="device does not apply"):
        w2s.entry(yes_words, "texts", weak, device="cpu")
    with pytest.raises(SpecError, match="'tfidf' has no states"):
        w2s.student("tfidf", w2s.Relabelled(run=weak, method=regression))
    short = w2s.Relabelled(
        run=w2s.supervisor("tfidf", w2s.default_task("amazon", n_train=64)), method=yes_words
    )
    with pytest.raises(TrainingError, match="'yes_words' gave an array of shape"):
        w2s.sweep([w2s.student("tfidf", short)], workers=1, progress=False)


def test_it_sees_no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_hidden")
    seen = "import os; return [float('HF_TOKEN' in os.environ)] * len(unlabeled)"
    assert (called(of(seen), given()) == 0).all()


@pytest.mark.parametrize("method", [w2s.surest_labels, w2s.stopped_early, w2s.self_training])
def test_published_methods_learn_from_weak_labels(method: Method) -> None:
    """Labels of three quarters right, of a line that the states show: each is better than its labels."""
    rng = np.random.default_rng(0)
    truth, n = rng.normal(size=WIDTH * 4), 1500
    states, unlabeled = rng.normal(size=(2, n, WIDTH * 4)).astype(np.float32)
    odds = states @ truth + rng.normal(0, 1.2 * np.linalg.norm(truth), n)
    labels = (1 / (1 + np.exp(-odds))).astype(np.float32)
    taught = ((labels > 0.5) == (states @ truth > 0)).mean()
    p = called(method, given(given=states, labels=labels, unlabeled=unlabeled))
    assert 0.6 < taught < 0.8 < ((p > np.median(p)) == (unlabeled @ truth > 0)).mean()
    assert len(method.source.splitlines()) <= 20
