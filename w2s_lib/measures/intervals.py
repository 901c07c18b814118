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
theorem gives the interval in closed form; a smooth function of means has that of its first-order
expansion. Where rows come in groups (sentences of a review) the
group is the unit: rows are replaced by the groups' centred sums. `tests/benchmarks/coverage.py`
measures the coverage against known truths and beside the alternatives: 96-97% with 5 seeds, 96-98%
with 3.

Sources: Banerjee, S. K. (1960), "Approximate confidence interval for linear functions of means of k
populations when the population variances are not equal", Sankhya 22; Fieller, E. C. (1954), "Some
problems in interval estimation", Journal of the Royal Statistical Society B 16.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq
from scipy.special import stdtrit

LEVEL = 0.95
POWER = 0.80
NO_GAP = "no gap to recover"
HYPHEN = re.compile(r"(?<![\w)\]-])-(?=\.?\d|inf\b)")
"""Before a number, and nothing but its sign: not that of a range, a date or a name."""
ROWS_ONLY = "test rows only"
"""One seed says nothing of the variation over seeds, and the interval must admit it."""
Floats = npt.NDArray[np.float64]
Codes = npt.NDArray[np.int64]
Bounds = Callable[[float], tuple[float, float] | None]
"""The bounds at a level in (0, 1); None where there are none."""


def minus(text: str) -> str:
    """A text for a reader: the sign of its negative numbers is a minus sign, as charts write it.

    Files, JSON and ids keep the hyphen.
    """
    return HYPHEN.sub("\N{MINUS SIGN}", text)


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
    bounds: Bounds = field(default=lambda level: None, repr=False, compare=False)

    def at(self, level: float) -> Interval:
        """The same estimate with its interval at another level; infinite where there is none."""
        low, high = self.bounds(level) or (-math.inf, math.inf)
        return replace(self, low=low, high=high, level=level)

    def words(
        self, above: str, below: str, same: str, unclear: str, *, margin: float = 0.02
    ) -> str:
        """What the interval says of a difference, in words for each outcome.

        Args:
            above: where all of it lies above zero.
            below: where all of it lies below zero.
            same: where it lies nearer to zero than `margin`, on whichever side.
            unclear: otherwise.
            margin: the smallest difference worth having; the default is of accuracies.
        """
        if max(abs(self.low), abs(self.high)) < margin:
            return same
        return above if self.low > 0 else below if self.high < 0 else unclear

    def __format__(self, spec: str) -> str:
        """Applies a number format, such as `.2f` or `.1%`, to all three numbers.

        A value that rounds to zero is printed without a sign, but a bound with its own: on which
        side of zero it lies decides verdicts. The sign is that of `minus`.
        """
        if math.isnan(self.value):
            return self.note or "not available"
        sign, digits = (spec[:1], spec[1:]) if spec[:1] in ("+", "-", " ") else ("", spec or ".2f")
        plain = f"{sign}z{digits}" if digits.startswith(".") else spec  # z: -0.00 becomes 0.00

        def bound(end: float) -> str:
            zero = digits.startswith(".") and end and format(end, f"z{digits}") == format(0, digits)
            return format(end, f"+{digits}" if zero else plain)

        # no-break space: both bounds stay on one line
        text = f"{self.value:{plain}} [{bound(self.low)},\N{NO-BREAK SPACE}{bound(self.high)}]"
        return minus(text)

    def __str__(self) -> str:
        """Two decimals."""
        return format(self, ".2f")

    def with_note(self, note: str) -> Interval:
        """The same with one more note, if it says anything."""
        return replace(self, note="; ".join(filter(None, (self.note, note))))


@dataclass(frozen=True)
class Spread:
    """How much the means of k quantities vary, by seeds and by rows.

    Attributes:
        by_seed: (k, k), the mean squares over seeds divided by S n; zero from a single seed.
        by_row: (k, k), the same of rows, less what is left over.
        n_seeds: S.
        n_groups: rows, or groups of them.
    """

    by_seed: Floats
    by_row: Floats
    n_seeds: int
    n_groups: int

    def squared(self, quantile: float) -> Floats:
        """H, shape (k, k): q' H q is the squared half-width of the mean of q' x."""
        t_row = float(stdtrit(self.n_groups - 1, quantile))
        t_seed = float(stdtrit(self.n_seeds - 1, quantile)) if self.n_seeds > 1 else 0.0
        both: Floats = t_seed**2 * self.by_seed + t_row**2 * self.by_row
        return both

    def half_width(self, direction: Floats, quantile: float) -> float:
        """Of the mean of `direction` times the quantities."""
        return math.sqrt(max(float(direction @ self.squared(quantile) @ direction), 0.0))

    def detectable(self, direction: Floats) -> float:
        """The smallest true mean that is seen with some 80% power: see `Interval.detectable`."""
        return sum(self.half_width(direction, q) for q in ((1 + LEVEL) / 2, POWER))


def spread(x: Floats, group: Codes) -> Spread:
    """The variation of the means of x, shape (k, S seeds, n rows); `group`, (n,), holds codes 0..G-1.

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
    if s == 1:
        return Spread(np.zeros((k, k)), by_row @ by_row.T / ((g - 1) * g), s, g)
    rest = (unit - by_seed[:, :, None] - by_row[:, None, :]).reshape(k, -1)
    ms_seed = by_seed @ by_seed.T * g / (s - 1)
    ms_row, ms_rest = by_row @ by_row.T * s / (g - 1), rest @ rest.T / ((s - 1) * (g - 1))
    share, axes = np.linalg.eigh(ms_row - ms_rest)
    # A variance is never below 0, but its estimate can be: it is cut there.
    row = axes * np.maximum(share, 0.0) @ axes.T
    return Spread(ms_seed / (s * g), row / (s * g), s, g)


def mean_interval(x: Floats, group: Codes) -> Interval:
    """The mean of x, shape (S seeds, n rows), over fresh seeds and fresh rows.

    `detectable` = h(.975) + h(.80), where h(q) takes the t quantiles at q.
    """
    return smooth_interval(lambda mean: float(mean[0]), x[None], group)


def smooth_interval(value_of: Callable[[Floats], float], x: Floats, group: Codes) -> Interval:
    """A smooth function of k means, to first order (the delta method): nothing in it is held fixed.

    Args:
        value_of: (k,) means -> the value. Its gradient is taken numerically.
        x: (k, S seeds, n rows), all paired.
        group: (n,) codes.
    """
    means = x.mean(axis=(1, 2))
    value, step = value_of(means), 1e-5
    gradient = np.array(
        [(value_of(means + e) - value_of(means - e)) / (2 * step) for e in step * np.eye(len(x))]
    )
    of = spread(x, group)

    def bounds(level: float) -> tuple[float, float]:
        half = of.half_width(gradient, (1 + level) / 2)
        return value - half, value + half

    return _interval(value, bounds, x[0], of.detectable(gradient))


def ratio_interval(top: Floats, bottom: Floats, group: Codes) -> Interval:
    """mean(top) / mean(bottom), both of shape (S seeds, n rows) and paired, by Fieller's theorem.

    With the half-width matrix H, the interval is every r for which top - r bottom is not
    significantly away from 0: (N - r D)^2 <= H_NN - 2 r H_ND + r^2 H_DD, where N and D are the
    means. The value is NaN and the note `NO_GAP` where the lower bound of D is not above 0: the set
    of such r is then unbounded, and the ratio has no meaning.
    """
    n, d = float(top.mean()), float(bottom.mean())
    of = spread(np.stack([top, bottom]), group)

    def bounds(level: float) -> tuple[float, float] | None:
        half = of.squared((1 + level) / 2)
        a, b, c = d * d - half[1, 1], n * d - half[0, 1], n * n - half[0, 0]
        if d <= 0 or a <= 0:
            return None
        root = math.sqrt(max(b * b - a * c, 0.0))
        return float(min((b - root) / a, n / d)), float(max((b + root) / a, n / d))

    if bounds(LEVEL) is None:
        return replace(_interval(math.nan, bounds, top, math.nan), note=NO_GAP)
    line = np.array([1.0, -n / d])  # for small noise the ratio's error is that of N - r D, over D
    return _interval(n / d, bounds, top, of.detectable(line) / d)


def _interval(value: float, bounds: Bounds, x: Floats, detectable: float) -> Interval:
    low, high = bounds(LEVEL) or (math.nan, math.nan)
    n_seeds, n_items = x.shape
    found = Interval(value, low, high, n_seeds=n_seeds, n_items=n_items, bounds=bounds)
    return replace(found, note=ROWS_ONLY if n_seeds == 1 else "", detectable=detectable)


def smallest_level(interval: Interval, decides: Callable[[Interval], bool]) -> float:
    """The smallest alpha in (0, 1) at which the interval of level 1 - alpha decides something.

    Intervals shrink as alpha grows, so what decides at one alpha does at every larger one: this is
    a p-value.

    Args:
        interval: an estimate that knows its bounds at every level.
        decides: whether an interval decides.
    """
    edges = -14.0, math.log10(0.999)

    def undecided(log_alpha: float) -> float:
        return -1.0 if decides(interval.at(1 - 10**log_alpha)) else 1.0

    if undecided(edges[1]) > 0:
        return 1.0
    if undecided(edges[0]) < 0:
        return 10 ** edges[0]
    return float(10 ** brentq(undecided, *edges, xtol=1e-6))
