"""Intervals that know where the noise comes from: seeds and test rows, crossed.

A measured accuracy varies for two reasons. With other *seeds* (other halves, another initial head,
another order) the model would be another one; with other *test rows* it would meet easier or harder
texts. All runs of a task share one test set, so the two are crossed: every run of every arm answers
the same rows. With correctness x[s, i] of seed s on row i (S seeds, n rows), the mean squares of a
two-way layout without replication separate them:

    E[MS_seed] = n v_seed + v_rest,   E[MS_row] = S v_row + v_rest,   E[MS_rest] = v_rest
    Var[mean]  = v_seed / S + v_row / n + v_rest / (S n) = E[MS_seed + (MS_row - MS_rest)] / (S n)

The first term has few degrees of freedom (S - 1), the second many, so each is widened by its own t
quantile before they are added (Banerjee 1960): h^2 = (t_{S-1}^2 MS_seed + t_{n-1}^2 (MS_row -
MS_rest)) / (S n), interval = mean +- h. One t quantile with Satterthwaite's degrees of freedom
covers too little with 3 seeds. For a ratio the mean squares become matrices, and Fieller's (1954)
theorem gives the interval in closed form. Where rows come in groups (sentences of a review) the
group is the unit: rows are replaced by the groups' centred sums. `tests/benchmarks/coverage.py`
measures the coverage against known truths and beside the alternatives: 96-97% with 5 seeds, 96-98%
with 3.

Sources: Banerjee, S. K. (1960), "Approximate confidence interval for linear functions of means of k
populations when the population variances are not equal", Sankhya 22; Fieller, E. C. (1954), "Some
problems in interval estimation", Journal of the Royal Statistical Society B 16.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

LEVEL = 0.95
N_CLAIMS = 22
"""Claims in `book/claims/first.yaml`: `strict` bounds are at 1 - 0.05 / n (Bonferroni)."""
POWER = 0.80
STRICT = 1 - (1 - LEVEL) / N_CLAIMS / 2
NO_GAP = "no gap to recover"
ROWS_ONLY = "test rows only"
"""One seed says nothing of the variation over seeds, and the interval must admit it."""
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval: `format(x, ".2f")` is `0.41 [0.33, 0.49]`, or its note."""

    value: float
    low: float
    high: float
    level: float = LEVEL
    n_seeds: int = 1
    n_items: int = 0
    """Test rows."""
    note: str = ""
    detectable: float = math.nan
    """The smallest true difference that data like these show with some 80% power (70% from 3
    seeds). Of a ratio: its distance from a value named in advance, to first order."""
    strict_low: float = math.nan
    """The bounds at a level corrected for `N_CLAIMS` claims; infinite where a ratio has none."""
    strict_high: float = math.nan

    def __format__(self, spec: str) -> str:
        """Applies a number format, such as `.2f` or `.1%`, to all three numbers.

        A value that rounds to zero is printed without a sign, but a bound with its own: on which
        side of zero it lies decides verdicts.
        """
        if math.isnan(self.value):
            return self.note or "not available"
        sign, digits = (spec[:1], spec[1:]) if spec[:1] in ("+", "-", " ") else ("", spec or ".2f")
        plain = f"{sign}z{digits}" if digits.startswith(".") else spec  # z: -0.00 becomes 0.00

        def bound(end: float) -> str:
            zero = digits.startswith(".") and end and format(end, f"z{digits}") == format(0, digits)
            return format(end, f"+{digits}" if zero else plain)

        # no-break space: both bounds stay on one line
        return f"{self.value:{plain}} [{bound(self.low)},\N{NO-BREAK SPACE}{bound(self.high)}]"

    def __str__(self) -> str:
        """Two decimals."""
        return format(self, ".2f")

    def with_note(self, note: str) -> Interval:
        """The same with one more note, if it says anything."""
        return replace(self, note="; ".join(filter(None, (self.note, note))))


def mean_interval(x: Floats, group: Codes) -> Interval:
    """The mean of x, shape (S seeds, n rows), over fresh seeds and fresh rows.

    `group`, shape (n,), holds codes 0..G-1. `detectable` = h(.975) + h(.80), where h(q) takes the t
    quantiles at q.
    """
    value = float(x.mean())
    half, power, strict = (
        math.sqrt(squared_half_widths(x[None], group, q)[0, 0])
        for q in ((1 + LEVEL) / 2, POWER, STRICT)
    )
    return Interval(
        value,
        value - half,
        value + half,
        **_counts(x),
        detectable=half + power,
        strict_low=value - strict,
        strict_high=value + strict,
    )


def ratio_interval(top: Floats, bottom: Floats, group: Codes) -> Interval:
    """mean(top) / mean(bottom), both of shape (S seeds, n rows) and paired, by Fieller's theorem.

    With the half-width matrix H, the interval is every r for which top - r bottom is not
    significantly away from 0: (N - r D)^2 <= H_NN - 2 r H_ND + r^2 H_DD, where N and D are the
    means. The value is NaN and the note `NO_GAP` where the lower bound of D is not above 0: the set
    of such r is then unbounded, and the ratio has no meaning.
    """
    n, d = float(top.mean()), float(bottom.mean())
    counts = _counts(top)
    half, power, wide = (
        squared_half_widths(np.stack([top, bottom]), group, q)
        for q in ((1 + LEVEL) / 2, POWER, STRICT)
    )
    bounds = _fieller(n, d, half)
    if bounds is None:
        return Interval(math.nan, math.nan, math.nan, **{**counts, "note": NO_GAP})
    strict = _fieller(n, d, wide) or (-math.inf, math.inf)
    line = np.array([1.0, -n / d])  # for small noise the ratio's error is that of N - r D, over D
    detectable = sum(math.sqrt(max(line @ h @ line, 0.0)) for h in (half, power)) / d
    return Interval(
        n / d, *bounds, **counts, detectable=detectable, strict_low=strict[0], strict_high=strict[1]
    )


def _fieller(n: float, d: float, half: Floats) -> tuple[float, float] | None:
    a, b, c = d * d - half[1, 1], n * d - half[0, 1], n * n - half[0, 0]
    if d <= 0 or a <= 0:
        return None
    root = math.sqrt(max(b * b - a * c, 0.0))
    return float(min((b - root) / a, n / d)), float(max((b + root) / a, n / d))


def squared_half_widths(x: Floats, group: Codes, quantile: float) -> Floats:
    """H, shape (k, k), of x, shape (k, S, n): q' H q is the squared half-width of mean(q' x).

    Raises:
        ValueError: fewer than two rows or groups.
    """
    n, n_groups = x.shape[2], int(group.max()) + 1
    unit = x - x.mean(axis=(1, 2), keepdims=True)
    if n_groups < n:
        order = np.argsort(group, kind="stable")
        starts = np.searchsorted(group[order], np.arange(n_groups))
        unit = np.add.reduceat(unit[:, :, order], starts, axis=2) * (n_groups / n)
    k, s, g = unit.shape
    if g < 2:
        raise ValueError("an interval needs at least two test rows or groups")
    by_seed, by_row = unit.mean(axis=2), unit.mean(axis=1)
    t_row = float(stdtrit(g - 1, quantile))
    if s == 1:
        only_rows: Floats = t_row**2 * (by_row @ by_row.T) / ((g - 1) * g)
        return only_rows
    rest = (unit - by_seed[:, :, None] - by_row[:, None, :]).reshape(k, -1)
    ms_seed = by_seed @ by_seed.T * g / (s - 1)
    ms_row, ms_rest = by_row @ by_row.T * s / (g - 1), rest @ rest.T / ((s - 1) * (g - 1))
    share, axes = np.linalg.eigh(ms_row - ms_rest)
    # A variance is never below 0, but its estimate can be: it is cut there.
    row = axes * np.maximum(share, 0.0) @ axes.T
    t_seed = float(stdtrit(s - 1, quantile))
    both: Floats = (t_seed**2 * ms_seed + t_row**2 * row) / (s * g)
    return both


def _counts(x: Floats) -> dict[str, Any]:
    n_seeds, n_items = x.shape
    note = ROWS_ONLY if n_seeds == 1 else ""
    return {"n_seeds": n_seeds, "n_items": n_items, "note": note}
