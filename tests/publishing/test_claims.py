"""The book's claims: frozen rules, the runs that they mean, and what is wrong in a file of claims."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pandas as pd
import pytest
import yaml

import w2s_lib as w2s
from tests.benchmarks import pilot
from w2s_lib.measures.claims import FAILS, HOLDS, NO_DIFFERENCE, UNDECIDED
from w2s_lib.measures.intervals import NO_GAP
from w2s_lib.publishing import claims as module
from w2s_lib.publishing.claims import (
    PENDING,
    Claim,
    claimed_runs,
    claims,
    decide,
    decisions,
    editions,
    retrained,
    scorecard,
    untested,
)
from w2s_lib.runs.errors import SpecError

ROOT = Path(__file__).parents[2]
FROZEN = {
    "second": "ad5e6add05745d8ed25de52736d783dd8d648582a9b887efef90f2500a11e17d",
    "beyond": "9287437353578d8edaf066b7fb9ba5368d0bb7392bc69f67af4d9f21281f7288",
    "leaderboard": "a9b66401135aba03a8d69d73faa230936fe6ba51cac789939c52eed364f1a50c",
}
"""SHA-256 of each edition's rules as they were committed before its first published run."""
OWN = [claim for edition in FROZEN for claim in claims(edition).claims]
GIVEN = {
    "id": "better",
    "claim": "A is better than B.",
    "source": {"key": "burns2023weak", "where": "section 1"},
    "chapter": "pgr",
    "frozen": OWN[0].frozen,
    "what": "A minus B",
    "measure": "difference",
    "arms": {"a": "naive", "b": "itself"},
    "n_seeds": 2,
    "rule": {"expects": ">", "margin": 0.02},
}


def write(folder: Path, *given: dict[str, object], **top: object) -> Path:
    path = folder / "rules.yaml"
    path.write_text(yaml.safe_dump({"level": 0.95, "known": "", "claims": list(given), **top}))
    return path


def test_the_rules_are_those_that_were_frozen() -> None:
    """And every published record was made under them, says `verify` (`test_audit.py`)."""
    files = {name: ROOT / "book" / "claims" / f"{name}.yaml" for name in editions()}
    found = {name: hashlib.sha256(file.read_bytes()).hexdigest() for name, file in files.items()}
    assert found == FROZEN


def test_arms_are_the_runs_that_the_rules_mean() -> None:
    """Under the first seed, by the ids that were frozen with the rules."""
    frozen = {name: run for edition in FROZEN for name, run in claims(edition).runs.items()}
    named = {
        f"{claim.chapter}.{name}"
        for claim in OWN
        for arm in claim.arms.values()
        for name in (arm if isinstance(arm, list) else [arm])
        for name in ([name[1]] if isinstance(name, list) else [name])
    }
    assert named == frozen.keys()
    assert {name: run.run_id for name, run in claimed_runs().items()} == frozen


def test_recipes_of_the_leaderboard_are_those_that_its_pilot_found_best() -> None:
    """By mean accuracy over ten seeds, of which none is published; and the claims are about the one that led."""
    lines = pd.read_csv(ROOT / "book/claims/leaderboard-pilot.csv", keep_default_na=False)
    tried = lines.groupby(["method", "recipe"])["accuracy"].agg(["mean", "nunique", "size"])
    assert set(tried["size"]) == {10} and lines["seed"].min() >= 900
    names = w2s.chapter_names("leaderboard")
    for method, own in names["recipes"].items():
        assert tried["mean"][method].idxmax() == pilot.words(own)
    *ahead, forecast = claims("leaderboard").claims
    those = [
        arm.rpartition("/")[2] for arm in forecast.arms["students"]
    ]  # who came later leads no rule
    led, _ = tried["mean"].loc[those].idxmax()
    assert {one.arms["a"].rpartition("/")[2] for one in ahead} == {led}


def test_the_books_verdicts() -> None:
    """A row a claim; a claim that waits for records is never decided."""
    card = scorecard()
    assert list(card["id"]) == [claim.id for claim in OWN]
    outcomes = {HOLDS, FAILS, NO_DIFFERENCE, UNDECIDED, NO_GAP, PENDING}
    assert set(card["verdict"]) <= outcomes and set(card["outcome"]) <= outcomes
    waits = card["outcome"] == PENDING
    assert (waits == (card["verdict"] == PENDING)).all() and (card["level"][waits] == 1).all()
    assert (card["n_seeds"][~waits] == [c.n_seeds for c in OWN if not waits[OWN.index(c)]]).all()
    assert card["source"][0] == "Burns et al. 2023, section 4.2, NLP tasks"


def test_a_verdict_is_its_outcome_at_a_stricter_level() -> None:
    """What is decided among all claims is decided by itself too, and in no other direction."""
    for one in decisions().values():
        assert one.verdict in (one.outcome, UNDECIDED, HOLDS, FAILS)
        assert {one.verdict, one.outcome} != {HOLDS, FAILS}
        assert one.strict in (one.verdict, UNDECIDED, HOLDS, FAILS)
        assert {one.verdict, one.strict} != {HOLDS, FAILS}


def test_a_claim_is_decided_from_other_runs_and_arms() -> None:
    """The student against itself: no difference at all, so none worth having."""
    weak = w2s.supervisor("tfidf", w2s.default_task("movie"))
    runs = w2s.sweep([weak], seeds=[0, 1], workers=1, progress=False)
    found = decide(Claim(**GIVEN), runs, {"naive": weak, "itself": weak})
    assert found.measured.value == 0 and found.measured.n_seeds == 2
    assert found.outcome == NO_DIFFERENCE


def test_a_claim_is_decided_anew_from_runs_of_this_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half the accuracy of a supervisor that trains in a second; other kinds of CPU round otherwise."""
    arms = {"terms": [[1, "unrelated"], [-0.5, "unrelated"]]}
    claim = Claim(**GIVEN | {"measure": "contrast", "arms": arms})
    monkeypatch.setenv("W2S_STORE", str(tmp_path / "records"))
    monkeypatch.setenv("W2S_PUBLISHED", "0")
    (row,) = retrained([claim], workers=1).to_dict("records")
    assert len(list((tmp_path / "records").glob("*.parquet"))) == claim.n_seeds
    assert row["value_again"] == pytest.approx(row["value"], abs=0.01) and row["value"] > 0.25
    assert row["outcome"] == row["outcome_again"] == HOLDS and row["id"] == "better"


def test_what_cannot_be_decided_is_named() -> None:
    with pytest.raises(SpecError, match=r"confidence-help.*confidence-helps"):
        decide("confidence-help")
    with pytest.raises(SpecError, match=r"'seconds'.*'second'"):
        decisions("seconds")
    with pytest.raises(SpecError, match=r"better.*'naiv'.*'naive'"):
        decide(Claim(**GIVEN | {"arms": {"a": "naiv", "b": "itself"}}))
    other = w2s.ceiling("smollm2-135m@2", w2s.default_task("movie", n_train=16))
    found = decide(Claim(**GIVEN), arms={"naive": other, "itself": other, "seeds": [7, 8, 9]})
    assert found.outcome == PENDING and "0 of 2" in str(found)


@pytest.mark.parametrize(("changes", "words"), [
    ({"clam": "x"}, "clam"),
    ({"rule": {"expects": "=", "margin": 0.02}}, "expects"),
    ({"rule": {"expects": ">", "margin": 0.0}}, "margin"),
    ({"measure": "diference"}, "diference.*did you mean 'difference'"),
    ({"source": {"key": 3, "where": "x"}}, "source.key"),
    ({"n_seeds": 1}, "n_seeds"),
])  # fmt: skip
def test_what_is_wrong_in_a_claim_is_named(tmp_path, changes, words):
    with pytest.raises(SpecError, match=f"(?s)rules.yaml.*{words}"):
        claims(write(tmp_path, GIVEN | changes))


def test_what_is_wrong_in_the_file_is_named(tmp_path):
    for given, top, words in (
        ([GIVEN, GIVEN], {}, "better"),
        ([{k: v for k, v in GIVEN.items() if k != "what"}], {}, "what"),
        ([GIVEN], {"level": 0.9}, r"level.*0\.95"),
        ([GIVEN], {"untestd": []}, "untestd"),
    ):
        with pytest.raises(SpecError, match=f"(?s){words}"):
            claims(write(tmp_path, *given, **top))


def test_untested_claims_have_a_source_and_a_reason():
    rows = untested()
    assert len(rows) >= 5 and rows["source"].str.startswith("Burns et al. 2023, ").all()
    assert (rows["reason"].str.len() > 20).all() and module.MEASURES


def test_a_tag_in_a_file_of_claims_makes_no_object(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("level: !!python/object/apply:os.abort []\n")
    with pytest.raises(SpecError, match="rules.yaml.*os.abort"):
        claims(path)
