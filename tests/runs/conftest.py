"""A published store."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A published store of its own, in place of the repository's."""
    monkeypatch.setenv("W2S_PUBLISHED", str(tmp_path / "published"))
    return tmp_path / "published"
