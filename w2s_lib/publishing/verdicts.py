"""Verdicts: the claims in `book/claims.yaml` and their rules, applied to what the chapters have reported.

A rule was written down before the runs that decide it. It is read from the 95% interval that a chapter reports, and once
more from the `strict` bounds, whose level is corrected for the number of claims (`intervals.N_CLAIMS`, Bonferroni).
Chapter: scorecard.
"""

from __future__ import annotations

import datetime
import math
import operator
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

import pandas as pd

from w2s_lib.measures.intervals import LEVEL, NO_GAP, Interval
from w2s_lib.publishing.report import ReportError, reports
from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.parts import Part

__all__ = ["claims", "scorecard", "untested", "verdict"]

ENDS = ("value", "low", "high")
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}
HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
P = TypeVar("P", bound=Part)


@dataclass(frozen=True, kw_only=True)
class Rule(Part):
    """A condition: an end of the interval, or its `value`, compared with a number."""

    end: str
    is_: str
    value: float

    def _validate(self) -> None:
        self._one_of("end", ENDS)
        require(self.is_ in COMPARE, f"unknown operator {self.is_!r}: {nearest(self.is_, COMPARE)}")


@dataclass(frozen=True, kw_only=True)
class Source(Part):
    """Who says so: a key of `book/references.bib`, or None where it is this book's own question; and where."""

    key: str | None
    where: str

    def _validate(self) -> None:
        require(
            self.key is None or isinstance(self.key, str),
            f"key must be one of references.bib or null, not {self.key!r}",
        )


@dataclass(frozen=True, kw_only=True)
class Claim(Part):
    """A claim, the quantity of a chapter that decides it, and its rule."""

    id: str
    claim: str
    source: Source
    chapter: str
    frozen: datetime.date
    quantity: str
    holds: Rule
    fails: Rule

    def _validate(self) -> None:
        require(
            isinstance(self.frozen, datetime.date), f"frozen must be a date, not {self.frozen!r}"
        )


@dataclass(frozen=True, kw_only=True)
class Untested(Part):
    """A claim that this book does not test, and why."""

    claim: str
    source: Source
    reason: str


PARTS: dict[str, type[Part]] = {"source": Source, "holds": Rule, "fails": Rule}


def claims(path: Path) -> list[Claim]:
    """The claims that `path` decides.

    Raises:
        SpecError: a field is unknown or missing, an operator or an end unknown, an id given twice, or the level is not the
            library's.
    """
    found: list[Claim] = []
    for number, given in enumerate(_load(path)["claims"], 1):
        name = (
            repr(given["id"]) if isinstance(given, dict) and "id" in given else f"number {number}"
        )
        claim = _part(Claim, given, f"{path.name}: claim {name}")
        require(
            claim.id not in [other.id for other in found],
            f"{path.name}: there are two claims {claim.id!r}",
        )
        found.append(claim)
    return found


def untested(path: Path | None = None) -> pd.DataFrame:
    """The claims that the book does not test: columns `claim`, `source` and `reason`.

    Args:
        path: a file of claims; by default the book's own.
    """
    path = path or _root() / "book" / "claims.yaml"
    names, rows = _cited(path.with_name("references.bib")), []
    for number, given in enumerate(_load(path)["untested"], 1):
        where = f"{path.name}: untested claim {number}"
        one = _part(Untested, given, where)
        rows.append(
            {"claim": one.claim, "source": _source(one.source, names, where), "reason": one.reason}
        )
    return pd.DataFrame(rows, columns=["claim", "source", "reason"])


def verdict(claim: Claim, reported: Mapping[str, Any], *, strict: bool = False) -> str:
    """What the claim's rule makes of a number: "holds", "fails", "undecided" or "no gap to recover".

    Args:
        claim: the claim; its rule is read in the order that the head of `claims.yaml` gives.
        reported: what the chapter reported under the claim's quantity: `value`, and `low`, `high`, `strict_low` and
            `strict_high` where it is an interval. None or NaN stands for no number.
        strict: read the corrected bounds in place of the 95% ones; a rule on `value` stays as it is.

    Raises:
        ReportError: what the rule needs was not reported.
    """
    names = {
        end: f"strict_{end}" if strict and end != "value" else end
        for end in (claim.holds.end, claim.fails.end)
    }
    if absent := [name for name in ("value", *names.values()) if name not in reported]:
        raise ReportError(
            f"claim {claim.id!r}: {claim.chapter!r} reported {claim.quantity!r} without {absent[0]!r}"
        )
    value, *ends = (_number(claim, reported[name]) for name in ("value", *names.values()))
    if not math.isnan(value) and any(map(math.isnan, ends)):
        raise ReportError(
            f"claim {claim.id!r}: {claim.chapter!r} reported {claim.quantity!r} with a bound that is no number"
        )
    if _is_pgr(claim) and not all(map(math.isfinite, [value, *ends])):
        return NO_GAP
    at = dict(zip(names, ends, strict=True))
    for word, rule in ((HOLDS, claim.holds), (FAILS, claim.fails)):
        if COMPARE[rule.is_](at[rule.end], rule.value):
            return word
    return UNDECIDED


def margin(claim: Claim, reported: Mapping[str, Any]) -> Interval | None:
    """How far the 95% interval lies beyond the number that the claim has to pass: above 0 is the side of the claim.

    So intervals of different claims can stand on one axis. None for a rule on `value`.
    """
    if claim.holds.end == "value":
        return None
    value, low, high = (_number(claim, reported.get(end)) - claim.holds.value for end in ENDS)
    if claim.holds.is_ in ("<", "<="):
        value, low, high = -value, -high, -low
    return Interval(value, low, high, note=NO_GAP if math.isnan(value) and _is_pgr(claim) else "")


def scorecard(root: Path | None = None) -> pd.DataFrame:
    """Every claim with what was measured and its verdict, a row a claim, in the order of `claims.yaml`.

    Args:
        root: a checkout with executed chapters; by default the library's own and the running build (see `report.reports`).

    Returns:
        Columns `id`, `claim`, `source`, `chapter`, `frozen`, `quantity`, `measured` (as the chapter shows it, with its 95%
        interval), `n_seeds`, `margin` (an `Interval`, see `margin`), `verdict`, `corrected` (the verdict by the strict
        bounds), `at_median` (what the chapter reported as `<quantity>_at_median`, or "") and `rule_at_median` (what the
        rule would make of that; no verdict).

    Raises:
        ReportError: a chapter was not executed, or did not report what decides its claim: each is named.
        SpecError: see `claims`; or a source that `references.bib` does not have.
    """
    said = reports(root / "_build" / "executed" if root else None)
    book = (root or _root()) / "book"
    found, names = claims(book / "claims.yaml"), _cited(book / "references.bib")
    gaps = [
        f"{claim.id} (chapter {claim.chapter} "
        + (
            f"did not report {claim.quantity!r})"
            if claim.chapter in said
            else "has not been executed)"
        )
        for claim in found
        if claim.quantity not in said.get(claim.chapter, {})
    ]
    if gaps:
        raise ReportError(f"claims without a result, after `make book`: {', '.join(gaps)}")
    rows = []
    for claim in found:
        number, even = (
            said[claim.chapter][claim.quantity],
            said[claim.chapter].get(f"{claim.quantity}_at_median"),
        )
        rows.append(
            {
                "id": claim.id,
                "claim": claim.claim,
                "source": _source(claim.source, names, claim.id),
                "chapter": claim.chapter,
                "frozen": claim.frozen.isoformat(),
                "quantity": claim.quantity,
                "measured": number["text"],
                "n_seeds": number.get("n_seeds"),
                "margin": margin(claim, number),
                "verdict": verdict(claim, number),
                "corrected": verdict(claim, number, strict=True),
                "at_median": even["text"] if even else "",
                "rule_at_median": verdict(claim, even) if even else "",
            }
        )
    return pd.DataFrame(rows).astype({"n_seeds": "Int64"})


def _load(path: Path) -> dict[str, Any]:
    import yaml

    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    known = ("level", "multiplicity", "claims", "untested")
    for name in given:
        require(name in known, f"{path.name}: unknown field {name!r}: {nearest(name, known)}")
    require(
        given.get("level") == LEVEL,
        f"{path.name}: level is {given.get('level')!r}, but intervals have {LEVEL}",
    )
    return {"claims": given.get("claims") or [], "untested": given.get("untested") or []}


def _part(kind: type[P], given: Any, where: str) -> P:
    """A part, and those within it, from what YAML holds; its field `is` is `is_` here."""
    require(isinstance(given, dict), f"{where} must be a mapping, not {given!r}")
    known = [field.name.rstrip("_") for field in fields(kind)]
    for name in given:
        require(name in known, f"{where}: unknown field {name!r}: {nearest(str(name), known)}")
    for name in known:
        require(name in given, f"{where}: there is no {name!r}")
    made = {
        name: _part(PARTS[name], value, f"{where}, {name}") if name in PARTS else value
        for name, value in given.items()
    }
    try:
        return kind(**{field.name: made[field.name.rstrip("_")] for field in fields(kind)})
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from None


def _is_pgr(claim: Claim) -> bool:
    return claim.quantity.startswith("pgr_")


def _number(claim: Claim, value: Any) -> float:
    if isinstance(value, (str, bool)):
        raise ReportError(
            f"claim {claim.id!r}: {claim.chapter!r} reported {claim.quantity!r} as {value!r}, not a number"
        )
    return math.nan if value is None else float(value)


def _root() -> Path:
    if (root := repository_root()) is None:
        raise ReportError(
            "there is no book around this library: its claims stand in a checkout of the repository"
        )
    return root


def _source(source: Source, names: Mapping[str, str], where: str) -> str:
    require(
        source.key is None or source.key in names,
        f"{where}: references.bib has no {source.key!r}: {nearest(str(source.key), names)}",
    )
    return source.where if source.key is None else f"{names[source.key]}, {source.where}"


def _cited(path: Path) -> dict[str, str]:
    """Each key of a BibTeX file with how the text cites it: "Burns et al. 2023"."""
    found = {}
    for key, body in re.findall(
        r"^@\w+\{([^,]+),(.*?)^\}", path.read_text(encoding="utf-8"), re.M | re.S
    ):
        given = {
            name: re.search(rf"^\s*{name}\s*=\s*\{{(.*?)\}},?\s*$", body, re.M | re.S)
            for name in ("author", "year")
        }
        author, year = (match[1] if match else "" for match in given.values())
        last = [name.split(",")[0].strip(" {}") for name in re.split(r"\s+and\s+", author)]
        found[key] = f"{last[0]} et al. {year}" if len(last) > 2 else f"{' and '.join(last)} {year}"
    return found
