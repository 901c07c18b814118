"""Chromium, for tests of pages and notebooks.

Without it they are skipped, unless W2S_REQUIRE_BROWSER is set.
"""

import os
import shutil

import pytest

FLAGS = [
    "no-sandbox",
    "disable-gpu",
    "disable-quic",
    "no-first-run",
    "disable-background-networking",
]
FLAGS += ["disable-component-update", "disable-sync"]


@pytest.fixture(scope="session")
def need():
    """Skips where something is not there, or fails where it has to be."""

    def need(condition, reason):
        if not condition:
            (pytest.fail if os.environ.get("W2S_REQUIRE_BROWSER") else pytest.skip)(reason)

    return need


@pytest.fixture(scope="session")
def browser(need):
    path = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
    )
    need(path, "no Chromium on the path")
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=path, args=[f"--{flag}" for flag in FLAGS]
        )
        yield chromium
        chromium.close()
