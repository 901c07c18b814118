"""Toys: what Vega computes is what the library's functions, or a simulation, say."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import altair as alt
import numpy as np
import pytest
import torch

import w2s_lib as w2s
from tests.figures.test_plots import svg, texts
from w2s_lib.figures.planes import CONCEPT, HIDDEN, N_TEXTS
from w2s_lib.publishing.chapters import Chapter

ROOT = Path(__file__).parents[2]
CELL = {"weak": 0.801, "student": 0.828, "ceiling": 0.868}
CELL = {role: w2s.Interval(value, value, value) for role, value in CELL.items()}
SHARES = {"both right": 0.737, "spoiled": 0.064, "corrected": 0.091, "repeated": 0.108}


def chain_cells():
    """Of the bootstrapping chapter: its function of errors, and the chart's cell."""
    cells = [cell.source for cell in Chapter("bootstrapping", ROOT).notebook().cells]
    body = ast.parse(next(source for source in cells if "def errors(" in source)).body
    (function,) = [node for node in body if isinstance(node, ast.FunctionDef)]
    return ast.unparse(function), next(source for source in cells if "binding_range" in source)


def chain():
    """The chart of the bootstrapping chapter, where a step repairs half and spoils a tenth."""
    *first, last = ast.parse(chain_cells()[1]).body
    names = {"alt": alt, "repairs": 0.5, "spoils": 0.1, "before": 0.2}
    exec(compile(ast.Module(first, []), "bootstrapping", "exec"), names)
    return eval(compile(ast.Expression(last.value), "bootstrapping", "eval"), names)


GRID = [
    {"features": k, "texts": n, "noise": noise, "gain": k / 100 - noise, "misfit": noise + 1 / n}
    for k in (10, 20, 30)
    for n in (4, 8)
    for noise in (0.0, 0.4, 0.8)
]
TOYS = {
    "misfit": lambda: w2s.misfit_explorer(GRID, start={"features": 20, "texts": 8, "noise": 0.4}),
    "noise": lambda: w2s.noise_explorer(CELL),
    "reward": lambda: w2s.reward_explorer(reward_a=2.0, reward_b=1.0, soft_label=0.9),
    "agreement": lambda: w2s.agreement_explorer(SHARES),
    "probe": lambda: w2s.probe_explorer(accuracy=0.84),
    "chain": chain,
}


def said(chart, **sliders):
    """The numbers in what a screen reader is told; percentages as shares."""
    drawing = svg(chart, **sliders)
    parts = re.findall(r" said_[^>]*>(.*?)</g>", drawing)
    found = re.findall(r"(-?[\d.]+)(%?)", " ".join(text for part in parts for text in texts(part)))
    return [float(number) / (100 if percent else 1) for number, percent in found]


@pytest.mark.parametrize("name", TOYS)
def test_fits_a_phone_and_has_words_and_sliders(name):
    chart = TOYS[name]()
    spec = chart.to_dict()
    assert spec["description"] and said(chart)
    assert {p["bind"]["input"] for p in spec["params"]} == {"range"}
    for p in spec["params"]:
        assert p["bind"]["min"] <= p["value"] <= p["bind"]["max"]
    assert float(re.search(r'<svg[^>]* width="([\d.]+)"', svg(chart))[1]) <= 345


class TestNoise:
    def simulated(self, wrong, patterned, n):
        """Students of n random texts: one step of gradient descent, then endless new texts."""
        rng, z, blur = np.random.default_rng(1), 1.117, HIDDEN / N_TEXTS
        shift = np.sqrt((z**2 + np.sqrt(z**4 + 4 * z**2 * blur)) / 2)

        def draw(size):
            y = rng.choice([-1, 1], size)
            x = rng.normal(size=(size, 2 + HIDDEN))
            x[:, 0] += shift * y
            return x, y

        new, truth = draw(4000)
        found = []
        for _ in range(200):
            x, y = draw(n)
            label, by_pattern = y.copy(), np.argsort(x[:, 1] * y)
            n_patterned = round(n * wrong * patterned)
            chance = rng.permutation(by_pattern[n_patterned:])[: round(n * wrong) - n_patterned]
            label[np.append(by_pattern[:n_patterned], chance)] *= -1
            score = new @ (label @ x / n)
            found.append(w2s.accuracy(1 / (1 + np.exp(-score)), truth > 0))
        return np.mean(found)

    @pytest.mark.parametrize(
        ("wrong", "patterned", "n"),
        [(0.2, 0, 320), (0.2, 1, 320), (0.2, 0.5, 320), (0.4, 0.25, 320), (0.3, 0, 64), (0, 0, 64)],
    )
    def test_the_page_says_what_a_simulation_finds(self, wrong, patterned, n):
        labels, student = said(TOYS["noise"](), wrong=wrong, patterned=patterned, texts=n)
        assert labels == pytest.approx(1 - wrong, abs=0.0006 + 0.5 / n)
        assert student == pytest.approx(self.simulated(wrong, patterned, n), abs=0.015)

    def test_starts_at_the_published_record_with_errors_at_random(self):
        """True labels of all texts give the published ceiling."""
        drawing = svg(TOYS["noise"]())
        assert {"80.0%", "86.8%"} <= set(texts(drawing)) and "our student" in drawing
        assert said(TOYS["noise"](), wrong=0)[1] == 0.868

    def test_starts_as_near_as_it_reaches(self):
        """A supervisor and a ceiling below chance: half of the labels wrong, and hardly a concept to learn."""
        low = w2s.Interval(0.4, 0.4, 0.4)
        chart = w2s.noise_explorer(CELL | {"weak": low, "ceiling": low})
        assert {p["name"]: p["value"] for p in chart.to_dict()["params"]}["wrong"] == 0.5
        assert said(chart, wrong=0)[1] == 0.51


@pytest.mark.parametrize("row", [GRID[0], GRID[-1], GRID[10]])
def test_the_sliders_choose_the_students_row(row):
    """Vega's minus sign is none that `said` reads."""
    at = {name: row[name] for name in ("features", "texts", "noise")}
    wanted = [abs(row["gain"]), row["misfit"]]
    assert said(TOYS["misfit"](), **at) == pytest.approx(wanted, abs=0.0006)


@pytest.mark.parametrize("reward_a, reward_b, label", [(2, 1, 0.9), (-3, 3, 0.95), (0.5, 1.5, 0.4)])
def test_rewards_are_the_librarys_loss(reward_a, reward_b, label):
    logits = torch.tensor([[reward_b, reward_a]], dtype=torch.float32)
    p, loss = said(TOYS["reward"](), reward_a=reward_a, reward_b=reward_b, soft_label=label)
    assert p == pytest.approx(torch.softmax(logits, dim=1)[0, 1].item(), abs=0.0051)
    assert loss == pytest.approx(w2s.xent_loss(logits, torch.tensor([label])).item(), abs=0.00051)


class TestAgreement:
    @pytest.mark.parametrize(
        "sliders", [{}, {"shared": 0}, {"shared": 1}, {"supervisor": 0.4, "student": 0.5}]
    )
    def test_is_the_librarys(self, sliders):
        chart = TOYS["agreement"]()
        at = {p["name"]: p["value"] for p in chart.to_dict()["params"]} | sliders
        cases = [
            re.fullmatch(r"([a-z ]+) ([\d.]+)%", text) for text in texts(svg(chart, **sliders))
        ]
        found = dict(case.groups() for case in cases if case)
        right = {"both right": (1, 1), "spoiled": (1, 0), "corrected": (0, 1), "repeated": (0, 0)}
        rows = [right[name] for name in right for _ in range(round(10 * float(found[name])))]
        teacher, student = np.array(rows).T
        assert teacher.mean() == pytest.approx(at["supervisor"], abs=0.002)
        assert student.mean() == pytest.approx(at["student"], abs=0.002)
        measured = w2s.agreement(student, teacher, np.ones_like(student))
        agreement, repeated = said(chart, **sliders)
        assert agreement == pytest.approx(measured.overall, abs=0.002)
        assert repeated == pytest.approx(measured.supervisor_wrong, abs=0.006)

    def test_accuracies_bound_agreement(self):
        """.80 and .83: at least .63, where no error is shared, and at most .97."""
        drawn = [svg(TOYS["agreement"](), shared=end) for end in (0, 1)]
        assert [said(TOYS["agreement"](), shared=end)[0] for end in (0, 1)] == [0.63, 0.97]
        assert all("agreement can be 63% to 97%" in drawing for drawing in drawn)

    def test_refuses_what_is_no_square(self):
        with pytest.raises(ValueError, match="no square"):
            w2s.agreement_explorer(SHARES | {"repeated": 0.2})

    def test_starts_as_near_as_it_reaches(self):
        """A supervisor that is never right, a student that always is."""
        chart = w2s.agreement_explorer(dict.fromkeys(SHARES, 0.0) | {"corrected": 1.0})
        at = {p["name"]: p["value"] for p in chart.to_dict()["params"]}
        assert at == {"supervisor": 0.4, "student": 0.99, "shared": 0}
        assert said(chart) == pytest.approx([0.39, 0], abs=1e-9)


class TestProbe:
    @pytest.mark.parametrize("sliders", [{}, {"direction": 50}, {"direction": 85, "salience": 0.4}])
    def test_counts_as_the_library_does(self, sliders):
        spec = TOYS["probe"]().to_dict()
        at = {p["name"]: p["value"] for p in spec["params"]} | sliders
        rows = next(v for v in spec["datasets"].values() if "across" in v[0])
        y, along, across = (
            np.array([row[k] for row in rows]) for k in ("truth", "along", "across")
        )
        turn = np.deg2rad(at["direction"] - CONCEPT)
        read = (along + at["salience"] * y) * np.cos(turn) + across * np.sin(turn)
        shown = said(TOYS["probe"](), **sliders)
        assert shown == [pytest.approx(w2s.accuracy(1 / (1 + np.exp(-read)), y > 0), abs=0.0051)]

    def test_the_best_direction_reads_what_was_published_and_the_first_one_little(self):
        by_direction = {d: said(TOYS["probe"](), direction=d)[0] for d in (0, 40, 50, 60, 180)}
        assert max(by_direction, key=by_direction.get) == CONCEPT
        assert by_direction[CONCEPT] == pytest.approx(0.84, abs=0.006)
        assert 0.5 < said(TOYS["probe"]())[0] < 0.6

    def test_starts_as_near_as_it_reaches(self):
        """A probe that is worse than chance: the classes lie on each other."""
        chart = w2s.probe_explorer(accuracy=0.4)
        assert {p["name"]: p["value"] for p in chart.to_dict()["params"]}["salience"] == 0


@pytest.mark.parametrize("jump, step", [((0.5, 0.1), (0.5, 0.1)), ((0.45, 0), (0.3, 0.08))])
def test_the_chain_is_the_chapters_function(jump, step):
    names = {}
    exec(chain_cells()[0], names)
    sliders = dict(zip(("jump_repairs", "jump_spoils"), jump, strict=True))
    sliders |= dict(zip(("step_repairs", "step_spoils"), step, strict=True))
    by_hand = [names["errors"](1, *jump, 0.2), names["errors"](2, *step, 0.2)]
    assert said(chain(), **sliders) == pytest.approx(by_hand, abs=0.0006)
