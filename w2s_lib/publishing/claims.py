"""The book's claims, decided from published records. A rule stands in `book/claims/<edition>.yaml`.

A claim names its chapter, arms (names of that chapter's `specs` cell) and a measure; `decide` computes the
quantity and applies the rule. Scorecard, index, README and chapters all ask here. Chapter: scorecard.
"""

from __future__ import annotations

import datetime
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from w2s_lib.experiments.results import Arm, Results, Snapshot
from w2s_lib.measures.claims import Rule, margin, verdict
from w2s_lib.measures.intervals import LEVEL, Interval
from w2s_lib.measures.metrics import pgr
from w2s_lib.publishing.chapters import Chapter, planned_names
from w2s_lib.runs.errors import SpecError, StoreError, nearest, require
from w2s_lib.runs.folders import repository_root
from w2s_lib.runs.record import Record
from w2s_lib.runs.spec import RunSpec
from w2s_lib.runs.store import read

Names = str | list[str]


def _contrast(runs: Results, *, plus: list[Arm], minus: list[Arm]) -> Interval:
    return runs.contrast([*((1, arm) for arm in plus), *((-1, arm) for arm in minus)])


def _agreement_difference(runs: Results, *, a: Arm, b: Arm, supervisor: Arm) -> Interval:
    return runs.agreement_difference(a, b, supervisor).overall


def _error_agreement_difference(runs: Results, *, a: Arm, b: Arm, supervisor: Arm) -> Interval:
    return runs.agreement_difference(a, b, supervisor).supervisor_wrong


def _excess_agreement_difference(
    runs: Results,
    *,
    large: Arm,
    large_ceilings: list[Arm],
    small: Arm,
    small_ceilings: list[Arm],
    supervisor: Arm,
) -> Interval:
    return runs.excess_agreement_difference(
        (large, large_ceilings), (small, small_ceilings), supervisor=supervisor
    )


def _pgr_end_point_error(runs: Results, *, cells: list[tuple[Arm, Arm]]) -> Interval:
    """Over cells of a supervisor and a ceiling: the largest deviation of PGR from 0 and 1 at its ends."""
    off = 0.0
    for weak, top in cells:
        low, high = runs.accuracy(weak).value, runs.accuracy(top).value
        for at, end in ((low, 0), (high, 1)) if high > low else ():
            off = max(off, abs(pgr(weak=low, student=at, ceiling=high) - end))
    return Interval(off, off, off, strict_low=off, strict_high=off)


MEASURES: dict[str, tuple[Callable[..., Interval], str]] = {
    "pgr": (
        lambda runs, *, weak, student, ceiling: runs.pgr(
            weak=weak, student=student, ceiling=ceiling
        ),
        ".2f",
    ),
    "difference": (lambda runs, *, a, b: runs.difference(a, b), "+.3f"),
    "contrast": (_contrast, "+.3f"),
    "agreement_difference": (_agreement_difference, "+.3f"),
    "error_agreement_difference": (_error_agreement_difference, "+.3f"),
    "excess_agreement_difference": (_excess_agreement_difference, "+.3f"),
    "pgr_end_point_error": (_pgr_end_point_error, ".1g"),
}
"""What a claim may be about: how it is computed from the arms that it names, and how it is printed."""


class Part(BaseModel):
    """What a file of claims consists of."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Source(Part):
    """Who says so: a key of `book/references.bib`, or None where it is this book's own question; and where."""

    key: str | None
    where: str


class Untested(Part):
    """A claim that this book does not test, and why."""

    claim: str
    source: Source
    reason: str


class Claim(Part):
    """A claim, how its quantity is computed from a chapter's arms, and its rule."""

    id: str
    claim: str
    source: Source
    chapter: str
    frozen: datetime.date
    quantity: str
    what: str
    measure: str
    arms: dict[str, Names]
    holds: Rule
    fails: Rule

    @model_validator(mode="after")
    def _known(self) -> Claim:
        require(
            self.measure in MEASURES,
            lambda: f"unknown measure {self.measure!r}: {nearest(self.measure, MEASURES)}",
        )
        wanted = [*inspect.signature(MEASURES[self.measure][0]).parameters][1:]
        require(
            set(self.arms) == set(wanted),
            f"{self.measure} is of {', '.join(wanted)}, not of {', '.join(self.arms)}",
        )
        return self


class ClaimsFile(Part):
    """What a file of claims holds."""

    level: float
    multiplicity: str = ""
    claims: list[Claim] = Field(default_factory=list)
    untested: list[Untested] = Field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """A claim, what was measured, and what its rule says. `str` is the number as the book prints it."""

    claim: Claim
    measured: Interval
    at_median: Interval
    """The same with every model's threshold at its own median. No verdict rests on it."""

    def __str__(self) -> str:
        """The quantity with its interval."""
        return self.text()

    def text(self, interval: Interval | None = None) -> str:
        """An interval, by default what was measured, as this claim's numbers are printed."""
        shown = self.measured if interval is None else interval
        fmt = MEASURES[self.claim.measure][1]
        return format(shown.value, fmt) if self.claim.holds.end == "value" else format(shown, fmt)

    @property
    def verdict(self) -> str:
        """By the 95% interval: "holds", "fails", "undecided" or "no gap to recover"."""
        return self._apply(self.measured)

    @property
    def corrected(self) -> str:
        """The same by the bounds that are corrected for the number of claims."""
        return self._apply(self.measured, strict=True)

    @property
    def rule_at_median(self) -> str:
        """What the rule would say of `at_median`; it is no verdict."""
        return self._apply(self.at_median)

    @property
    def margin(self) -> Interval | None:
        """How far the interval lies on the claim's side: see `measures.claims.margin`."""
        return margin(self.measured, self.claim.holds)

    def _apply(self, interval: Interval, *, strict: bool = False) -> str:
        rule = self.claim
        ratio = rule.measure.startswith("pgr")
        return verdict(interval, holds=rule.holds, fails=rule.fails, ratio=ratio, strict=strict)


def claims_file(path: Path) -> ClaimsFile:
    """Reads a file of claims.

    Raises:
        SpecError: a field is unknown or missing, a rule, measure or arm makes no sense, an id is given twice, or
            the level is not the library's.
    """
    import yaml

    try:
        found = ClaimsFile.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (ValidationError, yaml.YAMLError, SpecError) as error:
        raise SpecError(f"{path.name}: {error}") from error
    ids = [claim.id for claim in found.claims]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    require(not twice, f"{path.name}: there are two claims of the same id: {', '.join(twice)}")
    require(
        found.level == LEVEL, f"{path.name}: level is {found.level}, but the intervals have {LEVEL}"
    )
    return found


def claims(edition: str = "first", root: Path | None = None) -> list[Claim]:
    """The claims that an edition of the book decides, in the order of its file. Raises: `claims_file`."""
    return claims_file((root or _root()) / "book" / "claims" / f"{edition}.yaml").claims


def decide(
    claim: str | Claim,
    runs: Results | None = None,
    arms: Mapping[str, Any] | None = None,
    *,
    edition: str = "first",
    root: Path | None = None,
) -> Decision:
    """A claim's quantity, computed from records, and its verdict.

    Args:
        claim: its id, or itself.
        runs: where its arms' records are; by default the published ones, under the chapter's own `seeds`.
        arms: name -> arm, such as a chapter's `globals()`; by default those of its `specs` cell with the
            parameters as they stand in it.
        edition: which file of claims.
        root: the checkout; by default that around the library.

    Raises:
        SpecError: there is no such claim; the chapter has no arm of a name; `claims_file`.
        StoreError: a record is not published.
    """
    if isinstance(claim, str):
        known = {one.id: one for one in claims(edition, root)}
        require(claim in known, f"there is no claim {claim!r}: {nearest(claim, known)}")
        claim = known[claim]
    root = root or _root()
    space = _names(root, claim.chapter) if arms is None else arms
    given = {role: _named(names, space, claim) for role, names in claim.arms.items()}
    if runs is None:
        runs = Results(_published(root, claim, given.values(), space["seeds"]))
    measure = MEASURES[claim.measure][0]
    return Decision(claim, *(measure(runs.with_threshold(t), **given) for t in ("half", "median")))


def scorecard(edition: str = "first", root: Path | None = None) -> pd.DataFrame:
    """Every claim with what was measured and its verdict, a row a claim, in the order of its file.

    Returns:
        Columns `id`, `claim`, `source`, `chapter`, `frozen`, `quantity`, `what` (the quantity in words), `measured`
        and `at_median` (as they are printed), `n_seeds`, `margin` (an `Interval`), `verdict`, `corrected` and
        `rule_at_median`. Of a claim about a value, not an interval, `margin` and the medians' columns are empty.

    Raises:
        SpecError, StoreError: see `decide`; or a source that `references.bib` does not have.
    """
    root = root or _root()
    cited, rows = _cited(root), []
    for claim in claims(edition, root):
        found = decide(claim, root=root)
        exact = claim.holds.end == "value"
        rows.append(
            {
                **dict(claim),
                "source": _source(claim.source, cited),
                "frozen": claim.frozen.isoformat(),
                "measured": str(found),
                "at_median": "" if exact else found.text(found.at_median),
                "n_seeds": found.measured.n_seeds,
                "margin": found.margin,
                "verdict": found.verdict,
                "corrected": found.corrected,
                "rule_at_median": "" if exact else found.rule_at_median,
            }
        )
    return pd.DataFrame(rows).drop(columns=["measure", "arms", "holds", "fails"])


def untested(edition: str = "first", root: Path | None = None) -> pd.DataFrame:
    """The claims that the book does not test: columns `claim`, `source` and `reason`."""
    root = root or _root()
    found, cited = claims_file(root / "book" / "claims" / f"{edition}.yaml"), _cited(root)
    rows = [(one.claim, _source(one.source, cited), one.reason) for one in found.untested]
    return pd.DataFrame(rows, columns=["claim", "source", "reason"])


@cache
def _names(root: Path, chapter: str) -> dict[str, Any]:
    return planned_names(Chapter(chapter, root), {})


@cache
def _record(path: Path) -> Record:
    return read(path)


def _named(names: Names, space: Mapping[str, Any], claim: Claim) -> Any:
    if isinstance(names, list):
        return [_named(name, space, claim) for name in names]
    require(
        names in space,
        lambda: (
            f"claim {claim.id!r}: the specs cell of {claim.chapter!r} has no {names!r}: "
            f"{nearest(names, [name for name in space if not name.startswith('_')])}"
        ),
    )
    return space[names]


def _specs(arm: Any) -> Iterator[RunSpec]:
    if isinstance(arm, RunSpec):
        yield arm
    elif isinstance(arm, Snapshot):
        yield arm.spec
    else:
        for part in arm:
            yield from _specs(part)


def _published(root: Path, claim: Claim, arms: Iterable[Any], seeds: Iterable[int]) -> list[Record]:
    ids = {spec.with_seed(seed).run_id for spec in _specs(arms) for seed in seeds}
    paths = [root / "book" / "results" / f"{run_id}.parquet" for run_id in sorted(ids)]
    if absent := [path.stem for path in paths if not path.is_file()]:
        raise StoreError(
            f"claim {claim.id!r}: {len(absent)} of {len(paths)} runs are not published, the first is {absent[0]}"
        )
    return [_record(path) for path in paths]


def _root() -> Path:
    if (root := repository_root()) is None:
        raise StoreError("there is no book around this library: claims stand in a checkout of it")
    return root


def _source(source: Source, cited: Mapping[str, str]) -> str:
    if source.key is None:
        return source.where
    require(
        source.key in cited,
        lambda: f"references.bib has no {source.key!r}: {nearest(str(source.key), cited)}",
    )
    return f"{cited[source.key]}, {source.where}"


def _cited(root: Path) -> dict[str, str]:
    """Each key of `references.bib` with how a text cites it: "Burns et al. 2023"."""
    from pybtex.database import parse_file

    found = {}
    for key, entry in parse_file(str(root / "book" / "references.bib")).entries.items():
        last = [" ".join(author.last_names).strip("{}") for author in entry.persons["author"]]
        who = f"{last[0]} et al." if len(last) > 2 else " and ".join(last)
        found[key] = f"{who} {entry.fields.get('year', '')}"
    return found
