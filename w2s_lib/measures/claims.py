"""Rules applied to values: an interval in, a verdict out.

A rule was written down before the runs that decide it. It is read from the 95% interval, and once
more from the `strict` bounds, whose level is corrected for the number of claims
(`intervals.N_CLAIMS`, Bonferroni). Chapter: scorecard.
"""

from __future__ import annotations

import math
import operator
from dataclasses import replace
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from w2s_lib.measures.intervals import NO_GAP, Interval

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
COMPARE = {">": operator.gt, ">=": operator.ge, "<": operator.lt, "<=": operator.le}


class Rule(BaseModel):
    """A condition: an end of the interval, or its `value`, compared with a number."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    end: Literal["value", "low", "high"]
    comparison: Literal[">", ">=", "<", "<="] = Field(alias="is")
    value: float

    def met(self, interval: Interval) -> bool:
        """Whether the condition is true; NaN never meets it."""
        return bool(COMPARE[self.comparison](getattr(interval, self.end), self.value))


def verdict(
    interval: Interval, *, holds: Rule, fails: Rule, ratio: bool, strict: bool = False
) -> str:
    """What a rule makes of an interval: "holds", "fails", "undecided" or "no gap to recover".

    Args:
        interval: what was measured.
        holds: the condition under which the claim holds.
        fails: the condition under which it fails.
        ratio: whether it is a PGR, of which there is none without a gap.
        strict: read the corrected bounds in place of the 95% ones; a rule on `value` stays as it
            is.
    """
    if strict:
        interval = replace(interval, low=interval.strict_low, high=interval.strict_high)
    ends = [interval.value, *(getattr(interval, rule.end) for rule in (holds, fails))]
    if ratio and not all(map(math.isfinite, ends)):
        return NO_GAP
    for word, rule in ((HOLDS, holds), (FAILS, fails)):
        if rule.met(interval):
            return word
    return UNDECIDED


def margin(interval: Interval, holds: Rule) -> Interval | None:
    """How far an interval lies beyond the number that a claim has to pass.

    Above 0 is the claim's side, so intervals of different claims can stand on one axis. None for a
    rule on `value`.
    """
    if holds.end == "value":
        return None
    value, low, high = (end - holds.value for end in (interval.value, interval.low, interval.high))
    if holds.comparison in ("<", "<="):
        value, low, high = -value, -high, -low
    return Interval(value, low, high, note=interval.note if math.isnan(value) else "")
