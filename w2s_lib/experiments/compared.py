"""Several experiments or differences at once, each a table and a figure: what `Results` makes of arms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

from w2s_lib.figures.table import Shown, Table, table
from w2s_lib.measures.intervals import Interval
from w2s_lib.measures.metrics import WRITTEN


@dataclass(frozen=True, repr=False)
class Comparison(Shown):
    """Differences between arms by label, each with its interval and its seeds' own values."""

    intervals: dict[str, Interval]
    seeds: dict[str, list[float]]
    metric: str = "accuracy"

    def __getitem__(self, label: str) -> Interval:
        """The interval of one comparison."""
        return self.intervals[label]

    @property
    def frame(self) -> pd.DataFrame:
        """A row a comparison: `difference` (an `Interval`), `detectable`, `seeds`, `note`."""
        rows = [(label, x, x.detectable, x.n_seeds, x.note) for label, x in self.intervals.items()]
        columns = ["comparison", "difference", "detectable", "seeds", "note"]
        return pd.DataFrame(rows, columns=columns)

    def plot(self, *, title: str = "", **options: Any) -> Any:
        """A row a comparison, a line at no difference. Options: `figures.rows.accuracy_dots`."""
        from w2s_lib.figures.rows import accuracy_dots  # loads altair

        options.setdefault("x_title", f"difference in test {WRITTEN[self.metric]}")
        usual = {"references": {"no difference": 0.0}, "number": "+.3f", "seeds": self.seeds}
        return accuracy_dots(self.intervals, title=title, **usual | options)

    def _table(self) -> Table:
        rows = self.frame
        return table(
            rows if rows["note"].any() else rows.drop(columns="note"),
            formats={"difference": "+.3f", "detectable": ".3f"},
        )


@dataclass(frozen=True, repr=False)
class Cells(Shown):
    """Supervisor, student, ceiling, the student's gain and PGR, an `Interval` each, by label."""

    intervals: dict[str, dict[str, Interval]]
    seeds: dict[str, list[float]]
    metric: str = "accuracy"

    def __getitem__(self, label: str) -> dict[str, Interval]:
        """The intervals of one experiment, by name."""
        return self.intervals[label]

    @property
    def frame(self) -> pd.DataFrame:
        """A row an experiment: `weak`, `student`, `ceiling`, `gain`, `pgr` and `seeds`."""
        rows = [
            {"cell": label, **cell, "seeds": cell["gain"].n_seeds}
            for label, cell in self.intervals.items()
        ]
        return pd.DataFrame(rows)

    def plot(self, *, title: str = "", **options: Any) -> Any:
        """A ruler an experiment. Options: `figures.rows.pgr_ruler`."""
        from w2s_lib.figures.rows import pgr_ruler  # loads altair

        options.setdefault("x_title", f"test {WRITTEN[self.metric]}")
        return pgr_ruler(self.intervals, title=title, **{"seeds": self.seeds} | options)

    def _table(self) -> Table:
        places = dict.fromkeys(("weak", "student", "ceiling"), ".3f")
        rows = self.frame.rename(columns={"pgr": "PGR"})
        return table(rows, formats=places | {"gain": "+.3f", "PGR": ".2f"})
