"""The runs of a sweep that several files look at: one of each kind, trained once a session."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import w2s_lib as w2s
from w2s_lib.experiments.sweep import sweep
from w2s_lib.runs.spec import Flip, RunSpec, Task


@pytest.fixture(scope="session")
def specs(small_task: Task, quick: dict[str, Any]) -> dict[str, RunSpec]:
    """One of each kind. The supervisor learns for half as long: it must be wrong somewhere."""
    task = small_task
    weak = w2s.supervisor(
        "smollm2-135m@2",
        task,
        lora=quick["lora"],
        recipe=dataclasses.replace(quick["recipe"], epochs=4),
    )
    return {
        "weak": weak,
        "top": w2s.ceiling("smollm2-135m@3", task, **quick),
        "naive": w2s.student("smollm2-135m@3", weak, **quick),
        "hard": w2s.student("smollm2-135m@3", w2s.Hard(run=weak), **quick),
        "confident": w2s.student(
            "smollm2-135m@3", weak, loss=w2s.ConfidenceLoss(alpha_max=0.75), **quick
        ),
        "centred": w2s.student("smollm2-135m@3", w2s.Centred(run=weak), **quick),
        "noisy": w2s.ceiling("smollm2-135m@3", task, noise=0.2, **quick),
        "flipped": w2s.student("smollm2-135m@3", Flip(run=weak), **quick),
        "tfidf": w2s.supervisor("tfidf", task),
        "taught by tfidf": w2s.student("smollm2-135m@3", w2s.supervisor("tfidf", task), **quick),
        "probe": w2s.probe("smollm2-135m@2", task),
        "zero_shot": w2s.zero_shot("smollm2-135m@2", task),
    }


@pytest.fixture(scope="session")
def swept(
    specs: dict[str, RunSpec], session_cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """All of them, some asked for twice and the supervisor last, by two processes."""
    folder = tmp_path_factory.mktemp("swept")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("W2S_CACHE", str(session_cache))
        patch.setenv("W2S_STORE", str(folder / "records"))
        frame = sweep(
            [*list(specs.values())[::-1], specs["naive"], specs["weak"]], workers=2, progress=False
        ).frame
    by_id = frame.set_index("run_id")["record"]
    records = {name: by_id[spec.run_id] for name, spec in specs.items()}
    return SimpleNamespace(frame=frame, store=folder / "records", records=records)


def left_in(folder: Path) -> list[str]:
    """All that lies in a folder, by name."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.fixture
def there(swept: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The finished sweep's store as the user's."""
    monkeypatch.setenv("W2S_STORE", str(swept.store))
    return Path(swept.store)
