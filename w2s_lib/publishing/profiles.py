"""Parameter files: what a profile sets, checked against what the chapters take."""

from __future__ import annotations

from pathlib import Path

from w2s_lib.publishing.chapters import Chapter, Job, Parameters, UsageError, from_yaml, notebooks
from w2s_lib.runs.errors import nearest

BESIDE = ("workers", "variants", "banner")
"""What a profile may set that is no chapter's parameter.

`variants`: a list of further settings, each a set of runs of
its own, that `plan` and `run` take as well; the pages show the profile without them. `banner`:
Markdown that stands under
the title of every page made with the profile."""


def load_profile(root: Path, profile: str) -> Parameters:
    """The parameters in `book/profiles/<profile>.yaml`, or in a file of that path.

    Raises:
        UsageError: no such profile, or one that sets what no chapter takes.
    """
    folder = root / "book" / "profiles"
    path = Path(profile) if profile.endswith(".yaml") else folder / f"{profile}.yaml"
    if not path.is_file():
        known = sorted(other.stem for other in folder.glob("*.yaml"))
        raise UsageError(f"Unknown profile {profile!r}: {nearest(profile, known)}")
    values = from_yaml(path.read_text(encoding="utf-8"), path.name) or {}
    variants = values.get("variants", []) if isinstance(values, dict) else None
    if not isinstance(variants, list) or not all(isinstance(each, dict) for each in variants):
        raise UsageError(f"{path.name} must set names; `variants` is a list of such settings")
    taken = {name for page in notebooks(root) for name in page.defaults()}
    set_by = [*(name for name in values if name not in BESIDE), *(n for v in variants for n in v)]
    for name in set_by:
        if name not in taken:
            allowed = nearest(str(name), sorted(taken | {*BESIDE}))
            raise UsageError(f"{path.name} sets {name!r}, which no chapter takes: {allowed}")
    found: Parameters = values
    return found


def resolve(
    pages: list[Chapter], *, profile: str, overrides: Parameters, variant: Parameters | None = None
) -> list[Job]:
    """The jobs whose parameters are the profile's values, then a variant's, then the overrides.

    A profile may name what only some chapters take; an override that no chapter takes is an error.
    """
    defaults = {chapter: chapter.defaults() for chapter in pages}
    known = {name for own in defaults.values() for name in own}
    for name in overrides.keys() - known:
        allowed = sorted(known | {"chapters", "engine", "profile", "workers"})
        raise UsageError(f"Unknown parameter {name!r}: {nearest(name, allowed)}")
    jobs = []
    values = load_profile(pages[0].root, profile) if pages else {}
    values = values | (variant or {}) | overrides
    for chapter, own in defaults.items():
        taken = {name: values[name] for name in own if name in values}
        for name, value in taken.items():
            if isinstance(own[name], list) and not isinstance(value, list):
                taken[name] = [value]
        # What equals the chapter's own default is not injected, so the page shows no cell that
        # changes nothing.
        given = {name: value for name, value in taken.items() if value != own[name]}
        jobs.append(Job(chapter, given, banner=values.get("banner", "")))
    return jobs
