"""A plugin of pytest: what tests counted, by `record_property(what, n)`, goes into `book/benchmarks.json`.

`make torture` uses it; the page on reliability shows what was counted.
"""

from __future__ import annotations

import time

import pytest

from tests.benchmarks.common import keep


class Counts:
    """Sums up each test's counts over its cases; keeps them when all tests have passed."""

    def __init__(self, part: str) -> None:
        self.part, self.started = part, time.monotonic()
        self.rows: dict[tuple[str, str], int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" and report.passed:
            test = report.nodeid.partition("[")[0]
            for what, n in report.user_properties:
                self.rows[test, what] = self.rows.get((test, what), 0) + int(str(n))

    def pytest_sessionfinish(self, exitstatus: int) -> None:
        if exitstatus == pytest.ExitCode.OK:
            rows = [{"what": what, "n": n, "test": test} for (test, what), n in self.rows.items()]
            keep(self.part, {"seconds": time.monotonic() - self.started, "rows": rows})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--keep-counts", help="the part of benchmarks.json for what tests counted")


def pytest_configure(config: pytest.Config) -> None:
    if part := config.getoption("--keep-counts"):
        config.pluginmanager.register(Counts(part))
