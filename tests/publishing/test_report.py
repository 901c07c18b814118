import importlib
import json
import math
from dataclasses import dataclass

import numpy as np
import pytest

from w2s_lib.measures.intervals import Interval as Measured
from w2s_lib.publishing.report import ReportError, report, reported, reports, say

module = importlib.import_module(
    "w2s_lib.publishing.report"
)  # the package's own `report` is the function


@dataclass
class Interval:
    value: float
    low: float
    high: float

    def __format__(self, fmt: str) -> str:
        return f"{self.value:{fmt}} [{self.low:{fmt}}, {self.high:{fmt}}]"


@pytest.fixture(autouse=True)
def nothing_reported(monkeypatch):
    monkeypatch.setattr(module, "reported", {})
    monkeypatch.delenv("W2S_REPORT", raising=False)


def said(name):
    return module.reported[name]["text"]


@pytest.mark.parametrize(
    ("value", "fmt", "text"),
    [
        (0.5, ".2f", "0.50"),
        (np.float32(0.8123), ".2f", "0.81"),
        (np.int64(1234), ",", "1,234"),
        (np.array(0.25), ".0%", "25%"),
        ("seven", "", "seven"),
        (Interval(0.412, 0.33, 0.49), ".2f", "0.41 [0.33, 0.49]"),
    ],
)
def test_renders_exactly_the_formatted_value(value, fmt, text):
    report("x", value, fmt)
    assert said("x") == text


def test_several_at_once():
    say(".2f", weak=0.625, ceiling=Interval(0.8, 0.7, 0.9))
    assert (said("weak"), said("ceiling")) == ("0.62", "0.80 [0.70, 0.90]")
    with pytest.raises(ReportError, match="weak"):
        say("", weak=1)


def test_interval_is_readable_as_data(tmp_path, monkeypatch):
    monkeypatch.setenv("W2S_REPORT", str(tmp_path / "report.json"))
    report("pgr", Interval(0.4, 0.3, 0.5), ".1f")
    report("n", 5)
    assert json.loads((tmp_path / "report.json").read_text()) == {
        "pgr": {"text": "0.4 [0.3, 0.5]", "value": 0.4, "low": 0.3, "high": 0.5},
        "n": {"text": "5", "value": 5},
    }


@pytest.mark.parametrize(
    "value", [float("nan"), np.float32("nan"), Interval(0.4, float("nan"), 0.5)]
)
def test_nan_is_never_shown(value):
    with pytest.raises(ReportError, match="NaN"):
        report("x", value, ".2f")
    report("x", value, ".2f", text="no gap to recover")
    assert said("x") == "no gap to recover"
    assert None in module.reported["x"].values()


def test_an_interval_may_have_words_of_its_own_for_nan():
    class Noted(Interval):
        def __format__(self, fmt: str) -> str:
            return "no gap to recover"

    report("x", Noted(float("nan"), float("nan"), float("nan")), ".2f")
    assert said("x") == "no gap to recover"


@pytest.mark.parametrize(
    ("name", "value", "fmt", "message"),
    [
        ("x", [0.1], "", "list"),
        ("x", None, "", "NoneType"),
        ("x", np.zeros(2), "", "ndarray"),
        ("x", 0.1, ".2q", "cannot write"),
        ("x", "  ", "", "nothing"),
        ("an x", 0.1, "", "no name"),
        ("page::x", 0.1, "", "no name"),
    ],
)
def test_what_cannot_be_shown_is_refused(name, value, fmt, message):
    with pytest.raises(ReportError, match=message):
        report(name, value, fmt)


def test_a_name_has_one_meaning():
    report("x", 0.501, ".1f")
    report("x", 0.502, ".1f")  # the page says the same
    with pytest.raises(ReportError, match="'0.7' here, but was '0.5' before"):
        report("x", 0.7, ".1f")


def test_the_module_dict_is_the_public_one():
    assert isinstance(reported, dict)


def test_reports_are_read_back_as_data(tmp_path, monkeypatch):
    """By chapter and name, from the folder that is given, or else from that of `W2S_REPORT`."""
    monkeypatch.setenv("W2S_REPORT", str(tmp_path / "one.report.json"))
    report(
        "pgr",
        Measured(
            0.4, 0.3, 0.5, n_seeds=5, n_items=2000, strict_low=-math.inf, strict_high=math.inf
        ),
        ".1f",
    )
    report(
        "gap",
        Measured(math.nan, math.nan, math.nan, n_seeds=5, n_items=2000, note="no gap to recover"),
    )
    (tmp_path / "two.report.json").write_text('{"n": {"text": "5", "value": 5}}')
    (tmp_path / "one.jsonl").write_text("")
    found = reports()
    assert found == reports(tmp_path) and list(found) == ["one", "two"]
    assert found["two"]["n"] == {"text": "5", "value": 5}
    bounds = {"strict_low": -math.inf, "strict_high": math.inf}
    assert found["one"]["pgr"] == {
        "text": "0.4 [0.3,\xa00.5]",
        "value": 0.4,
        "low": 0.3,
        "high": 0.5,
        "n_seeds": 5,
        "n_items": 2000,
        **bounds,
    }
    nothing = dict.fromkeys(("value", "low", "high", "strict_low", "strict_high"))
    assert found["one"]["gap"] == {
        "text": "no gap to recover",
        "n_seeds": 5,
        "n_items": 2000,
        **nothing,
    }


def test_without_reports_the_error_says_what_to_do(tmp_path, monkeypatch):
    for folder in (tmp_path, tmp_path / "absent"):
        with pytest.raises(ReportError, match="run `make book` first"):
            reports(folder)
    monkeypatch.setenv("W2S_REPORT", str(tmp_path / "own.report.json"))
    with pytest.raises(ReportError, match="no chapter has reported anything"):
        reports()
