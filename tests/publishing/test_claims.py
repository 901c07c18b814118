"""The book's claims, computed from its published records; and what is wrong in a file of claims."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

import w2s_lib as w2s
from w2s_lib.measures.claims import FAILS, HOLDS, UNDECIDED
from w2s_lib.measures.intervals import N_CLAIMS
from w2s_lib.publishing.claims import Claim, claims, decide, scorecard, untested
from w2s_lib.runs.errors import SpecError, StoreError

ROOT = Path(__file__).parents[2]
OWN = claims().claims
GIVEN = {
    "id": "better",
    "claim": "A is better than B.",
    "source": {"key": "burns2023weak", "where": "section 1"},
    "chapter": "pgr",
    "frozen": OWN[0].frozen,
    "quantity": "a_minus_b",
    "what": "A minus B",
    "measure": "difference",
    "arms": {"a": "base", "b": "itself"},
    "holds": {"end": "low", "is": ">", "value": 0.0},
    "fails": {"end": "high", "is": "<", "value": 0.0},
}


def write(folder: Path, *given: dict[str, object], **top: object) -> Path:
    path = folder / "first.yaml"
    path.write_text(yaml.safe_dump({"level": 0.95, "claims": list(given), **top}))
    return path


def test_the_books_verdicts():
    """A row a claim. What the first edition found: 9 hold, 4 fail, 9 are open."""
    card = scorecard()
    assert list(card["id"]) == [claim.id for claim in OWN] and len(card) == N_CLAIMS
    counts = card["verdict"].value_counts()
    assert dict(counts) == {HOLDS: 9, FAILS: 4, UNDECIDED: 9}
    row = card.set_index("id").loc["inverse-scaling-beyond-accuracy"]
    assert row["measured"] == "-0.286 [-0.353,\xa0-0.220]" and row["n_seeds"] == 5
    assert row["verdict"] == row["corrected"] == row["rule_at_median"] == HOLDS
    assert row["margin"].value == pytest.approx(0.286, abs=5e-4)
    assert row["source"].startswith("the test is ours")
    assert card["source"][0] == "Burns et al. 2023, section 4.2, NLP tasks"


def test_a_claim_is_decided_from_other_runs_and_arms():
    """The student against itself: no difference, so a claim that one is better is undecided."""
    published = decide("more-than-self-distillation")
    assert published.verdict == HOLDS and str(published) == "+0.052 [+0.008,\xa0+0.097]"
    weak = w2s.supervisor("smollm2-135m@2", w2s.default_task("movie"))
    runs = w2s.sweep([weak], seeds=[0, 1], progress=False)
    found = decide("more-than-self-distillation", runs, {"base": weak, "itself": weak})
    assert found.measured.value == 0 and found.measured.n_seeds == 2 and found.verdict == UNDECIDED


def test_what_cannot_be_decided_is_named():
    with pytest.raises(SpecError, match=r"pgr-positiv.*pgr-positive"):
        decide("pgr-positiv")
    with pytest.raises(SpecError, match=r"better.*'bas'.*'base'"):
        decide(Claim(**GIVEN | {"arms": {"a": "bas", "b": "itself"}}))
    other = w2s.ceiling("smollm2-135m@2", w2s.default_task("movie", n_train=16))
    with pytest.raises(StoreError, match=r"better.*7, 8, 9"):
        decide(Claim(**GIVEN), arms={"base": other, "itself": other, "seeds": [7, 8, 9]})


@pytest.mark.parametrize(("changes", "words"), [
    ({"clam": "x"}, "clam"),
    ({"holds": {"end": "low", "is": "=>", "value": 0.0}}, "=>"),
    ({"measure": "diference"}, "diference.*did you mean 'difference'"),
    ({"source": {"key": 3, "where": "x"}}, "source.key"),
    ({"frozen": "before"}, "frozen"),
])  # fmt: skip
def test_what_is_wrong_in_a_claim_is_named(tmp_path, changes, words):
    with pytest.raises(SpecError, match=f"(?s)first.yaml.*{words}"):
        claims(write(tmp_path, GIVEN | changes))


def test_what_is_wrong_in_the_file_is_named(tmp_path):
    for given, top, words in (
        ([GIVEN, GIVEN], {}, "better"),
        ([{k: v for k, v in GIVEN.items() if k != "quantity"}], {}, "quantity"),
        ([GIVEN], {"level": 0.9}, r"level.*0\.95"),
        ([GIVEN], {"untestd": []}, "untestd"),
    ):
        with pytest.raises(SpecError, match=f"(?s){words}"):
            claims(write(tmp_path, *given, **top))


def test_holding_and_failing_exclude_each_other():
    """Whatever the interval, at most one of the two conditions is true."""
    ends = (-1.0, -0.5, 0.0, 0.1, 0.25, 0.5, 0.7, 0.9)
    for low, high in [(low, high) for low in ends for high in ends if low <= high]:
        found = w2s.Interval((low + high) / 2, low, high)
        for claim in OWN:
            assert not (claim.holds.met(found) and claim.fails.met(found)), claim.id


def test_untested_claims_have_a_source_and_a_reason():
    rows = untested()
    assert len(rows) >= 5 and rows["source"].str.startswith("Burns et al. 2023, ").all()
    assert (rows["reason"].str.len() > 20).all()
