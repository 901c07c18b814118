"""Verdicts worked out by hand, the claims of the book itself, and what is wrong in a file of claims."""

from __future__ import annotations

import ast
import json
import math
from pathlib import Path

import pytest
import yaml

from w2s_lib.measures.intervals import N_CLAIMS, NO_GAP, Interval
from w2s_lib.publishing import verdicts
from w2s_lib.publishing.chapters import Chapter
from w2s_lib.publishing.report import ReportError
from w2s_lib.publishing.verdicts import (
    FAILS,
    HOLDS,
    UNDECIDED,
    claims,
    margin,
    scorecard,
    untested,
    verdict,
)
from w2s_lib.runs.errors import SpecError

ROOT = Path(__file__).parents[2]
OWN = claims(ROOT / "book" / "claims.yaml")
GIVEN = {
    "id": "better",
    "claim": "A is better than B.",
    "source": {"key": "someone2020", "where": "section 1"},
    "chapter": "one",
    "frozen": "2026-11-22",
    "quantity": "a_minus_b",
    "holds": {"end": "low", "is": ">", "value": 0.0},
    "fails": {"end": "high", "is": "<", "value": 0.0},
}
BIB = "@article{someone2020,\n  author = {One, Some and Two, Any and Three, B.},\n  year   = {2020}\n}\n"


def write(folder: Path, *given: dict[str, object], **top: object) -> Path:
    """A file of claims as YAML reads it, and the references beside it."""
    path = folder / "book" / "claims.yaml"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps({"level": 0.95, "claims": list(given), **top}, indent=1).replace(
        '"2026-11-22"', "2026-11-22"
    )
    path.write_text(text)
    (path.parent / "references.bib").write_text(BIB)
    return path


def one(folder: Path, **changes: object) -> verdicts.Claim:
    return claims(write(folder, GIVEN | changes))[0]


def interval(low: float, high: float, more: float = 0.0) -> dict[str, float]:
    """An interval around its middle whose corrected bounds lie `more` further out."""
    return {
        "value": (low + high) / 2,
        "low": low,
        "high": high,
        "strict_low": low - more,
        "strict_high": high + more,
    }


@pytest.mark.parametrize(("number", "word", "corrected"), [
    (interval(0.01, 0.05), HOLDS, HOLDS),
    (interval(0.01, 0.05, more=0.02), HOLDS, UNDECIDED),
    (interval(-0.05, -0.01), FAILS, FAILS),
    (interval(-0.05, -0.01, more=0.02), FAILS, UNDECIDED),
    (interval(-0.01, 0.05, more=0.02), UNDECIDED, UNDECIDED),
    (interval(0.0, 0.05), UNDECIDED, UNDECIDED),  # > 0, and 0 is not
    (interval(-0.05, 0.0), UNDECIDED, UNDECIDED),
    (dict.fromkeys(("value", "low", "high", "strict_low", "strict_high")), UNDECIDED, UNDECIDED),  # a ratio without a range
    (interval(0.01, 0.05, more=math.inf), HOLDS, UNDECIDED),
])  # fmt: skip
def test_a_claim_that_something_is_higher(tmp_path, number, word, corrected):
    claim = one(tmp_path)
    assert (verdict(claim, number), verdict(claim, number, strict=True)) == (word, corrected)


@pytest.mark.parametrize(
    ("number", "word"),
    [
        (interval(-0.05, -0.01), HOLDS),
        (interval(0.01, 0.05), FAILS),
        (interval(-0.01, 0.05), UNDECIDED),
    ],
)
def test_a_claim_that_something_is_lower(tmp_path, number, word):
    assert verdict(one(tmp_path, holds=GIVEN["fails"], fails=GIVEN["holds"]), number) == word


NOTHING = dict.fromkeys(("value", "low", "high", "strict_low", "strict_high"))


@pytest.mark.parametrize(("number", "word", "corrected"), [
    (NOTHING, NO_GAP, NO_GAP),  # None is what a report makes of NaN
    (dict.fromkeys(NOTHING, math.nan), NO_GAP, NO_GAP),
    (interval(0.6, 0.9), HOLDS, HOLDS),
    (interval(0.6, 0.9, more=math.inf), HOLDS, NO_GAP),  # the gap is above 0 with 95% confidence, but not with more
    (interval(0.4, 0.9), UNDECIDED, UNDECIDED),
    (interval(0.5, 0.9), UNDECIDED, UNDECIDED),
    (interval(0.1, 0.5), FAILS, FAILS),  # <= here
])  # fmt: skip
def test_a_claim_about_pgr(tmp_path, number, word, corrected):
    claim = one(
        tmp_path,
        quantity="pgr_naive",
        holds={"end": "low", "is": ">", "value": 0.5},
        fails={"end": "high", "is": "<=", "value": 0.5},
    )
    assert (verdict(claim, number), verdict(claim, number, strict=True)) == (word, corrected)


def test_a_rule_on_the_value_is_the_same_after_correction(tmp_path):
    claim = one(
        tmp_path,
        quantity="pgr_end_point_error",
        holds={"end": "value", "is": "<=", "value": 0.001},
        fails={"end": "value", "is": ">", "value": 0.001},
    )
    for value, word in ((0.0, HOLDS), (0.001, HOLDS), (0.002, FAILS), (None, NO_GAP)):
        assert (
            verdict(claim, {"value": value})
            == verdict(claim, {"value": value}, strict=True)
            == word
        )
    assert margin(claim, {"value": 0.0}) is None


@pytest.mark.parametrize(("number", "message"), [
    ({"value": 0.1}, "'one' reported 'a_minus_b' without 'strict_low'"),
    ({"value": 0.1, "low": 0.0, "high": 0.2, "strict_low": 0.0}, "without 'strict_high'"),
    ({**interval(0.0, 0.2), "strict_low": None}, "with a bound that is no number"),
    ({**interval(0.0, 0.2), "value": "better"}, "as 'better', not a number"),
])  # fmt: skip
def test_what_a_rule_needs_must_have_been_reported(tmp_path, number, message):
    with pytest.raises(ReportError, match=message):
        verdict(one(tmp_path), number, strict=True)


def test_a_margin_is_turned_to_the_side_of_the_claim(tmp_path):
    """0.1 [0.05, 0.15] for "below 0.25": 0.15 [0.1, 0.2] beyond it. For "above 0.25": -0.15 [-0.2, -0.1]."""
    low, high = {"end": "high", "is": "<", "value": 0.25}, {"end": "low", "is": ">", "value": 0.25}
    below = margin(one(tmp_path, holds=low, fails=high), interval(0.05, 0.15))
    above = margin(one(tmp_path, holds=high, fails=low), interval(0.05, 0.15))
    assert (below.value, below.low, below.high) == pytest.approx((0.15, 0.1, 0.2))
    assert (above.value, above.low, above.high) == pytest.approx((-0.15, -0.2, -0.1))
    assert format(margin(one(tmp_path, quantity="pgr_naive"), NOTHING), ".2f") == NO_GAP
    assert format(margin(one(tmp_path), NOTHING), ".2f") == "not available"


@pytest.mark.parametrize(("changes", "message"), [
    ({"clam": "x"}, "claim 'better': unknown field 'clam': did you mean 'claim'"),
    ({"holds": {"end": "low", "is": "=>", "value": 0.0}}, "claim 'better', holds: unknown operator '=>': did you mean '>'"),
    ({"holds": {"end": "lwo", "is": ">", "value": 0.0}}, "holds: Rule.end is 'lwo': did you mean 'low'"),
    ({"fails": {"end": "low", "is": ">", "number": 0.0}}, "fails: unknown field 'number'"),
    ({"fails": {"end": "low", "is": ">"}}, "fails: there is no 'value'"),
    ({"fails": {"end": "low", "is": ">", "value": "0"}}, "fails: Rule.value must be a finite number, not '0'"),
    ({"holds": "low > 0"}, "holds must be a mapping, not 'low > 0'"),
    ({"source": {"key": 3, "where": "x"}}, "source: key must be"),
    ({"frozen": "before"}, "frozen must be a date, not 'before'"),
    ({"quantity": 7}, "Claim.quantity must be a str, not 7"),
])  # fmt: skip
def test_what_is_wrong_in_a_claim_is_named(tmp_path, changes, message):
    with pytest.raises(SpecError) as error:
        one(tmp_path, **changes)
    assert message in str(error.value) and str(error.value).startswith("claims.yaml: ")


def test_what_is_wrong_in_the_file_is_named(tmp_path):
    for given, top, message in (
        ([GIVEN, GIVEN], {}, "there are two claims 'better'"),
        (
            [{k: v for k, v in GIVEN.items() if k != "quantity"}],
            {},
            "claim 'better': there is no 'quantity'",
        ),
        (["better"], {}, "claim number 1 must be a mapping, not 'better'"),
        ([GIVEN], {"level": 0.9}, "level is 0.9, but intervals have 0.95"),
        ([GIVEN], {"untestd": []}, "unknown field 'untestd': did you mean 'untested'"),
    ):
        with pytest.raises(SpecError, match=message):
            claims(write(tmp_path, *given, **top))


def test_untested_claims_have_a_source_and_a_reason(tmp_path):
    given = {
        "claim": "It works on chess.",
        "source": {"key": "someone2020", "where": "section 2"},
        "reason": "No chess.",
    }
    path = write(tmp_path, untested=[given])
    assert untested(path).to_dict("records") == [
        {
            "claim": "It works on chess.",
            "source": "One et al. 2020, section 2",
            "reason": "No chess.",
        }
    ]
    with pytest.raises(
        SpecError, match=r"untested claim 1: unknown field 'reasn': did you mean 'reason'"
    ):
        untested(write(tmp_path, untested=[given | {"reasn": "x"}]))
    with pytest.raises(
        SpecError, match=r"references.bib has no 'someone2002': did you mean 'someone2020'"
    ):
        untested(
            write(tmp_path, untested=[given | {"source": {"key": "someone2002", "where": "x"}}])
        )


def executed(root: Path, **chapters: dict[str, object]) -> None:
    """Reports as a build leaves them."""
    folder = root / "_build" / "executed"
    folder.mkdir(parents=True, exist_ok=True)
    for chapter, said in chapters.items():
        (folder / f"{chapter}.report.json").write_text(json.dumps(said))


def test_the_scorecard_has_a_row_a_claim(tmp_path):
    mine = {
        "id": "equal",
        "source": {"key": None, "where": "the question is ours"},
        "quantity": "pgr_b",
    }
    write(tmp_path, GIVEN, GIVEN | mine)
    number = interval(0.01, 0.05, more=0.02)
    executed(
        tmp_path,
        one={
            "a_minus_b": {"text": "0.03 [0.01, 0.05]", "n_seeds": 5, **number},
            "a_minus_b_at_median": {"text": "0.01 [-0.01, 0.03]", **interval(-0.01, 0.03)},
            "pgr_b": {"text": NO_GAP, **NOTHING},
        },
    )
    card = scorecard(tmp_path)
    assert list(card["id"]) == ["better", "equal"] and list(card["chapter"]) == ["one", "one"]
    assert list(card["source"]) == ["One et al. 2020, section 1", "the question is ours"]
    assert list(card["measured"]) == ["0.03 [0.01, 0.05]", NO_GAP]
    assert list(card["verdict"]) == [HOLDS, NO_GAP] and list(card["corrected"]) == [
        UNDECIDED,
        NO_GAP,
    ]
    assert list(card["at_median"]) == ["0.01 [-0.01, 0.03]", ""] and list(
        card["rule_at_median"]
    ) == [UNDECIDED, ""]
    assert card["n_seeds"][0] == 5 and card["n_seeds"].isna()[1]
    assert card["frozen"][0] == "2026-11-22" and isinstance(card["margin"][0], Interval)


def test_a_claim_without_a_result_is_an_error_that_names_it(tmp_path):
    write(
        tmp_path,
        GIVEN,
        GIVEN | {"id": "other", "chapter": "two"},
        GIVEN | {"id": "third", "quantity": "c_minus_d"},
    )
    with pytest.raises(ReportError, match="run `make book` first"):
        scorecard(tmp_path)
    executed(tmp_path, one={"a_minus_b": {"text": "x", **interval(0.0, 0.1)}})
    with pytest.raises(ReportError) as error:
        scorecard(tmp_path)
    assert "other (chapter two has not been executed)" in str(error.value)
    assert "third (chapter one did not report 'c_minus_d')" in str(
        error.value
    ) and "better" not in str(error.value)


# The book's own claims


def test_the_books_level_is_corrected_for_as_many_claims_as_it_has():
    assert len(OWN) == N_CLAIMS
    assert yaml.safe_load((ROOT / "book" / "claims.yaml").read_text())["level"] == 0.95


@pytest.mark.parametrize("claim", OWN, ids=lambda claim: claim.id)
def test_a_claims_chapter_reports_its_quantity(claim):
    """Its name is given to `w2s.report`, or to the chapter's short form; or the text quotes it, which the build checks."""
    chapter = Chapter(claim.chapter, ROOT)
    assert chapter.source.is_file() and chapter.cells("specs")
    nodes = [
        node
        for cell in chapter.notebook().cells
        if cell.cell_type == "code"
        for node in ast.walk(ast.parse(cell.source))
    ]
    words = {node.value for node in nodes if isinstance(node, ast.Constant)} | {
        node.arg for node in nodes if isinstance(node, ast.keyword)
    }
    assert (
        claim.quantity in words or f"{{glue:text}}`{claim.quantity}`" in chapter.source.read_text()
    )


def test_holding_and_failing_exclude_each_other():
    """Whatever the interval, at most one of the two conditions is true."""
    for claim in OWN:
        for low, high in (
            (-1.0, -0.5),
            (-0.5, 0.5),
            (0.0, 0.0),
            (0.25, 0.25),
            (0.5, 0.5),
            (0.1, 0.9),
            (0.7, 0.9),
        ):
            at = {"value": (low + high) / 2, "low": low, "high": high}
            met = [
                verdicts.COMPARE[rule.is_](at[rule.end], rule.value)
                for rule in (claim.holds, claim.fails)
            ]
            assert met != [True, True], claim.id


def test_every_source_of_the_book_is_in_its_references():
    assert len(untested()) >= 5 and untested()["source"].str.startswith("Burns et al. ").all()
    known = verdicts._cited(ROOT / "book" / "references.bib")
    assert {claim.source.key for claim in OWN} - {None} <= known.keys()


def test_the_scorecard_page_has_words_for_every_quantity():
    cells = " ".join(cell.source for cell in Chapter("scorecard", ROOT).notebook().cells)
    assert [claim.quantity for claim in OWN if f'"{claim.quantity}"' not in cells] == []
