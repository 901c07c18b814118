"""Any profile: its values are parameters of a chapter, or one sentence says what is wrong."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests.publishing.conftest import FILES
from w2s_lib.publishing.chapters import Chapter, UsageError, resolve

names = st.sampled_from(["seeds", "n", "workers", "variants", "banner", "seed"])
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates()
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names | scalars, inner, max_size=3),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def chapter(tmp_path_factory: pytest.TempPathFactory) -> Chapter:
    root = tmp_path_factory.mktemp("root")
    (root / "book").mkdir()
    (root / "book" / "one.md").write_text(FILES["one.md"])
    return Chapter("one", root)


def parameters(chapter: Chapter, content: bytes) -> dict[str, Any]:
    (profile := chapter.root / "mine.yaml").write_bytes(content)
    (job,) = resolve([chapter], profile=str(profile), overrides={})
    return job.parameters


@given(values | st.dictionaries(names, values))
def test_any_profile_sets_parameters_or_is_refused(chapter: Chapter, given: Any) -> None:
    with contextlib.suppress(UsageError):
        found = parameters(chapter, yaml.safe_dump(given).encode())
        assert found.keys() <= given.keys() & {"seeds", "n"} if given else not found
        assert isinstance(found.get("seeds", []), list)


@given(st.binary(max_size=50) | st.text(max_size=50).map(str.encode))
def test_any_other_file_is_refused_or_says_nothing(chapter: Chapter, content: bytes) -> None:
    with contextlib.suppress(UsageError):
        assert parameters(chapter, content) == {}


@pytest.mark.parametrize(
    "content",
    [
        b"seeds: 2001-99-99",
        b"seeds: 0x_",
        b"seeds: !!int many",
        b"seeds: !!bool many",
        b"seeds: !!timestamp many",
        b"seeds: \xff",
        b"seeds: " + b"[" * 5000,
    ],
    ids=["date", "number", "int", "bool", "timestamp", "no UTF-8", "deep"],
)
def test_what_is_no_yaml_is_refused_by_name(content: bytes, chapter: Chapter) -> None:
    """The loader raises errors of half a dozen types."""
    with pytest.raises(UsageError, match="mine.yaml is not YAML"):
        parameters(chapter, content)
