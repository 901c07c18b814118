"""A plugin of pytest: what tests counted, by `record_property(what, n)`, goes into `book/benchmarks.json`.

`make torture` uses it; the page on reliability shows what was counted.
"""

from __future__ import annotations

import collections
import json
import time

import pytest

from tests.benchmarks.common import RESULTS, keep


class Counts:
    """Each test's counts, summed over its cases, from the last time it ran: none where one failed."""

    def __init__(self, part: str) -> None:
        self.part = part
        self.counts: dict[tuple[str, str], int] = collections.Counter()
        self.seconds: dict[str, float] = collections.Counter()
        self.failed: set[str] = set()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        test = report.nodeid.partition("[")[0]
        self.seconds[test] += report.duration
        if report.failed:
            self.failed.add(test)
        elif report.when == "call":
            for what, n in report.user_properties:
                self.counts[test, what] += int(str(n))

    def pytest_sessionfinish(self) -> None:
        kept = json.loads(RESULTS.read_text(encoding="utf-8")).get(self.part, {}).get("rows", [])
        rows = [row for row in kept if row["test"] not in self.seconds]
        for (test, what), n in self.counts.items():
            if test not in self.failed:
                made = {"test": test, "seconds": round(self.seconds[test], 1)}
                made["date"] = time.strftime("%Y-%m-%d", time.gmtime())
                rows.append({"what": what, "n": n} | made)
        keep(self.part, {"rows": rows})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-counts", help="the part of benchmarks.json for what tests counted")


def pytest_configure(config: pytest.Config) -> None:
    if part := config.getoption("--keep-counts"):
        config.pluginmanager.register(Counts(part))
