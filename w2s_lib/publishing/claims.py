"""The book's claims, decided from published records. A rule stands in `book/claims/<edition>.yaml`.

A claim names its chapter, arms (names of that chapter's `specs` cell), a measure and a margin;
`decisions` computes every quantity, applies the rules and corrects for their number. Scorecard,
index, README and chapters all ask here. Chapter: scorecard.
"""

import datetime
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from w2s_lib.experiments.results import Results
from w2s_lib.experiments.sweep import rules_beside, sweep
from w2s_lib.measures.claims import UNDECIDED, Rule, holm
from w2s_lib.measures.intervals import LEVEL, NO_GAP, Interval
from w2s_lib.models.pins import pin
from w2s_lib.publishing.chapters import Chapter, UsageError, from_yaml
from w2s_lib.publishing.prose import Work, works
from w2s_lib.publishing.tables import book_root, chapter_names, published
from w2s_lib.runs.errors import SpecError, nearest, require
from w2s_lib.runs.spec import RunSpec

DIFFERENCES = "difference contrast asymmetry transmitted_errors excess_agreement".split()
MEASURES = {"pgr": ".2f", "gain_by_misfit": "+.2f"} | dict.fromkeys(DIFFERENCES, "+.3f")
"""What a claim may be about: a method of `Results`, and the format of its answer."""


PENDING = "not yet run"
"""Said of a claim whose records are not all published: it counts among the others all the same."""


class Part(BaseModel):
    """What a file of claims consists of."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class Source(Part):
    """Who says so, and where: a key of `references.bib`, or None for this book's own question."""

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
    what: str
    """The quantity in words."""
    measure: str
    arms: dict[str, Any]
    """Argument of the measure -> an arm's name, or a list of names and numbers. `boards/movie/naive`
    is an arm in dictionaries of arms."""
    n_seeds: int = Field(ge=2)
    """How many published seeds the verdict rests on: the first ones of the chapter."""
    rule: Rule

    @field_validator("measure")
    @classmethod
    def _known(cls, measure: str) -> str:
        require(measure in MEASURES, f"unknown measure {measure!r}: {nearest(measure, MEASURES)}")
        return measure


class ClaimsFile(Part):
    """What a file of claims holds."""

    level: float = Field(ge=LEVEL, le=LEVEL)
    """The intervals have this one."""
    known: str
    """What was known when the rules were written."""
    correction: Literal["Holm", "Bonferroni"] = "Holm"
    """How a verdict allows for the number of claims: see `measures.claims`."""
    claims: list[Claim] = Field(default_factory=list)
    runs: dict[str, str] = Field(default_factory=dict)
    """`chapter.arm` -> the id of that run under the chapter's first seed: which run a name meant."""
    untested: list[Untested] = Field(default_factory=list)


@dataclass(frozen=True)
class Decision:
    """A claim, what was measured, what its rule says. `str` is the number as the book prints it."""

    claim: Claim
    measured: Interval
    outcome: str
    """What the rule makes of the 95% interval."""
    level: float
    """The smallest alpha at which the interval decides anything."""
    verdict: str = UNDECIDED
    """The outcome at the alpha that its edition's correction leaves for it, among all its claims."""
    strict: str = UNDECIDED
    """The outcome at 5% divided by the number of claims: all of these are right but for 5%."""

    def __str__(self) -> str:
        """The quantity with its interval."""
        return format(self.measured, MEASURES[self.claim.measure])


def editions() -> dict[str, ClaimsFile]:
    """The claims of each edition whose rules are frozen, by its name, in order.

    Raises:
        SpecError: see `claims`; or two editions have a claim of the same id.
    """
    found = {file.stem: claims(file) for file in rules_beside(book_root() / "book" / "results")}
    ids = [claim.id for one in found.values() for claim in one.claims]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    require(not twice, f"two editions have a claim of the same id: {', '.join(twice)}")
    return found


def claims(edition: str | Path = "second") -> ClaimsFile:
    """The claims of an edition: those that it decides, and those that it does not test.

    Args:
        edition: its name, or a file.

    Raises:
        SpecError: a field is unknown or missing, a rule, measure or arm makes no sense, an id is
            given twice, or the level is not the library's.
    """
    path = edition if isinstance(edition, Path) else book_root() / f"book/claims/{edition}.yaml"
    try:
        found = ClaimsFile.model_validate(from_yaml(path.read_bytes(), "it"))
    except (ValidationError, UsageError, SpecError) as error:
        raise SpecError(f"{path.name}: {error}") from error
    ids = [claim.id for claim in found.claims]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    require(not twice, f"{path.name}: there are two claims of the same id: {', '.join(twice)}")
    return found


def claim_of(name: str) -> Claim:
    """The claim of an id, of whichever edition. `SpecError` where there is none."""
    known = {one.id: one for edition in editions().values() for one in edition.claims}
    require(name in known, f"there is no claim {name!r}: {nearest(name, known)}")
    return known[name]


def decide(
    claim: str | Claim, runs: Results | None = None, arms: Mapping[str, Any] | None = None
) -> Decision:
    """A claim's quantity, computed from records, and what its rule alone makes of it.

    Args:
        claim: its id, or itself.
        runs: where its arms' records are; by default the published ones, under the chapter's own
            `seeds`.
        arms: name -> arm, such as a chapter's `globals()`; by default those of its `specs` cell
            with the parameters as they stand in it.

    Returns:
        Where not all of its seeds are published yet, the outcome is `PENDING`.

    Raises:
        SpecError: there is no such claim; the chapter has no arm of a name; `claims`.
    """
    claim = claim_of(claim) if isinstance(claim, str) else claim
    space = chapter_names(claim.chapter) if arms is None else arms
    where = f"claim {claim.id!r}: {claim.chapter!r}"
    given = {role: _named(names, space, where) for role, names in claim.arms.items()}
    if runs is None:
        runs = published(_specs(given.values()), space["seeds"][: claim.n_seeds])
        if (n_seeds := len({record.spec.seed for record in runs.all_records})) < claim.n_seeds:
            note = f"records of {n_seeds} of {claim.n_seeds} seeds"
            unknown = Interval(math.nan, math.nan, math.nan, note=note)
            return Decision(claim, unknown, PENDING, 1.0, PENDING, PENDING)
    measured: Interval = getattr(runs, claim.measure)(**given)
    return Decision(claim, measured, claim.rule.outcome(measured), claim.rule.level(measured))


@cache
def decisions(edition: str = "") -> dict[str, Decision]:
    """Every claim of an edition, or of all of them, by its id, with its verdict among its edition's.

    Raises:
        SpecError: there is no such edition; see `decide`.
    """
    known = editions()
    if not edition:
        return {name: one for each in known for name, one in decisions(each).items()}
    require(edition in known, f"there is no edition {edition!r}: {nearest(edition, known)}")
    found = {claim.id: decide(claim) for claim in known[edition].claims}
    evenly = (1 - LEVEL) / max(len(found), 1)
    alphas = dict.fromkeys(found, evenly)
    if known[edition].correction == "Holm":
        alphas = holm({name: one.level for name, one in found.items()})

    def read(one: Decision, alpha: float) -> str:
        if one.outcome in (PENDING, NO_GAP):
            return one.outcome
        return one.claim.rule.outcome(one.measured.at(1 - alpha)) if alpha else UNDECIDED

    return {
        name: replace(one, verdict=read(one, alphas[name]), strict=read(one, evenly))
        for name, one in found.items()
    }


def claimed_runs() -> dict[str, RunSpec]:
    """The run of each arm that a claim rests on, under its chapter's first seed: `chapter.arm` -> run.

    Raises:
        SpecError: see `claims`.
    """
    arms = (name.split(".") for edition in editions().values() for name in edition.runs)
    return {
        f"{chapter}.{arm}": pin(_named(arm, space, repr(chapter)).with_seed(space["seeds"][0]))
        for chapter, arm in arms
        for space in [chapter_names(chapter)]
    }


def retrained(claims: Iterable[str | Claim], *, workers: int | None = None) -> pd.DataFrame:
    """Claims decided from runs of this machine, all their seeds, beside what is published of them.

    The published store has to be hidden (`W2S_PUBLISHED=0`), or nothing is trained.

    Args:
        claims: their ids, or themselves.
        workers: see `sweep`.

    Returns:
        A row a claim: `id`, `published` and `again` (the quantity as the book prints it), `outcome`
        and `outcome_again` (what the rule makes of either 95% interval), `value` and `value_again`.

    Raises:
        SpecError: see `decide`; or a claim is not published yet.
    """
    rows = []
    for before in map(decide, claims):
        name = before.claim.id
        require(before.outcome != PENDING, f"claim {name!r} is {PENDING}")
        after = decide(before.claim, sweep(runs_of(before.claim), workers=workers))
        said: dict[str, Any] = {"id": name, "published": str(before), "again": str(after)}
        said |= {"outcome": before.outcome, "outcome_again": after.outcome}
        said |= {"value": before.measured.value, "value_again": after.measured.value}
        rows.append(said)
    return pd.DataFrame(rows)


def runs_of(claim: Claim) -> list[RunSpec]:
    """Every run that a claim rests on, but for teachers: each arm under each of its seeds, pinned."""
    space = chapter_names(claim.chapter)
    arms = dict.fromkeys(_specs(_named([*claim.arms.values()], space, repr(claim.chapter))))
    return [pin(arm.with_seed(seed)) for arm in arms for seed in space["seeds"][: claim.n_seeds]]


def scorecard() -> pd.DataFrame:
    """Every claim with what was measured and its verdict, a row a claim, in the order of its file.

    Returns:
        Columns `id`, `claim`, `source`, `chapter`, its `title`, `frozen`, `what` (the quantity in words),
        `measured` (as it is printed), `interval`, `expects`, `against`, `margin`, `n_seeds`,
        `level`, `outcome` (of the 95% interval alone), `verdict` and `strict`.

    Raises:
        SpecError: see `decide`; or a source that `references.bib` does not have.
    """
    known, rows = works(book_root() / "book" / "references.bib"), []
    for found in decisions().values():
        claim, interval = found.claim, found.measured
        said: dict[str, Any] = {"source": _source(claim.source, known), "measured": str(found)}
        said |= {"frozen": claim.frozen.isoformat(), "interval": interval}
        said |= {"title": Chapter(claim.chapter, book_root()).title}
        said |= {"n_seeds": interval.n_seeds}
        said |= {name: getattr(found, name) for name in ("level", "outcome", "verdict", "strict")}
        rows.append({**dict(claim), **dict(claim.rule), **said})
    return pd.DataFrame(rows).drop(columns=["measure", "arms", "rule"])


def untested() -> pd.DataFrame:
    """The claims that the book does not test: columns `claim`, `source` and `reason`."""
    known = works(book_root() / "book" / "references.bib")
    every = [one for edition in editions().values() for one in edition.untested]
    rows = [(one.claim, _source(one.source, known), one.reason) for one in every]
    return pd.DataFrame(rows, columns=["claim", "source", "reason"])


def _named(given: Any, space: Mapping[str, Any], where: str) -> Any:
    """Names as the arms of a chapter that they name, in lists too; numbers stay."""
    if isinstance(given, list):
        return [_named(one, space, where) for one in given]
    if not isinstance(given, str):
        return given
    found: Any = space
    for name in given.split("/"):
        hint = nearest(name, [known for known in found if not known.startswith("_")])
        require(name in found, f"{where} has no arm {given!r}: {hint}")
        found = found[name]
    return found


def _specs(arm: Any) -> Iterator[RunSpec]:
    """The specs in an arm, or in nested lists of arms."""
    if isinstance(arm, RunSpec):
        yield arm
    elif isinstance(arm, Iterable):
        for part in arm:
            yield from _specs(part)


def _source(source: Source, known: Mapping[str, Work]) -> str:
    if source.key is None:
        return source.where
    said = f"references.bib has no {source.key!r}: {nearest(source.key, known)}"
    require(source.key in known, said)
    return f"{known[source.key].words}, {source.where}"
