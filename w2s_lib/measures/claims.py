"""Rules applied to values: an interval in, an outcome out; and what many claims at once cost.

A rule was written down before the runs that decide it. Its one interval decides any outcome:

    no difference worth having   it lies inside the margin
    holds / fails                it lies on the claimed side of the number / on the other side
    undecided                    neither
    no gap to recover            it is a PGR, and there is no gap

At the smallest alpha at which a claim's interval of level 1 - alpha decides something
(`intervals.smallest_level`), the claim is decided falsely with at most that probability, whichever
outcome it is: all of them are read from one confidence set. So these alphas are p-values, and claims
that are all read at alpha / (their number) are all right but for a chance of alpha (Bonferroni).
The second edition's rules read them by Holm's (1979) method, which promises less than they say: its
proof is of tests that reject or do not. Here each claim has three answers, so each can be answered
falsely, also those that are read more loosely since others are decided. In simulation the chance
of a false verdict is above 20% at worst (`tests/measures/test_claims.py`). Chapter: scorecard.
"""

import math
from collections.abc import Mapping
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from w2s_lib.measures.intervals import LEVEL, NO_GAP, Interval, smallest_level

HOLDS, FAILS, UNDECIDED = "holds", "fails", "undecided"
NO_DIFFERENCE = "no difference worth having"


class Rule(BaseModel):
    """What is expected of a quantity, and how far from the number a difference is worth having."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    expects: Literal[">", "<"]
    against: float = 0.0
    margin: float = Field(gt=0)

    def outcome(self, interval: Interval) -> str:
        """What the rule makes of an interval."""
        if math.isnan(interval.value):
            return NO_GAP
        low, high = interval.low - self.against, interval.high - self.against
        if -self.margin < low and high < self.margin:
            return NO_DIFFERENCE
        if low <= 0 <= high:
            return UNDECIDED
        return HOLDS if (low > 0) == (self.expects == ">") else FAILS

    def level(self, interval: Interval) -> float:
        """The smallest alpha at which the interval of level 1 - alpha decides something; 1: none."""
        if self.outcome(interval) == NO_GAP:
            return 1.0
        return smallest_level(interval, lambda at: self.outcome(at) != UNDECIDED)


def holm(levels: Mapping[str, float]) -> dict[str, float]:
    """The alpha at which each claim may be read: Holm's step-down over `Rule.level` of them all.

    Args:
        levels: id -> smallest alpha that decides.

    Returns:
        id -> 0.05 / (claims that are left), from the smallest level up; 0 from the first one on
        that is not decided at its alpha: those stay undecided.

    Source: Holm 1979, "A simple sequentially rejective multiple test procedure", Scandinavian
    Journal of Statistics 6.
    """
    alphas, left = dict.fromkeys(levels, 0.0), len(levels)
    for name in sorted(levels, key=levels.__getitem__):
        if levels[name] > (1 - LEVEL) / left:
            break
        alphas[name] = (1 - LEVEL) / left
        left -= 1
    return alphas
