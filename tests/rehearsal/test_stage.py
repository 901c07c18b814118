"""A sample of `make rehearsal`: every task, and a few runs of a profile for a GPU under real names."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rehearsal.stage import OVERRIDES, Stage, stage
from tests.rehearsal.stock import commit_of
from w2s_lib.tasks.catalogue import HUB_TASKS

MODELS = ("HuggingFaceTB/SmolLM2-135M", "HuggingFaceTB/SmolLM2-1.7B")
RUNGS = (f"hf:{MODELS[0]}@10", f"hf:{MODELS[1]}@24")


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("stage"), models=MODELS) as there:
        yield there


def test_every_task_is_loaded_from_parquet_and_by_its_commit(there: Stage) -> None:
    there.hub.asked.clear()
    assert there.load_tasks() == list(HUB_TASKS)
    for task in HUB_TASKS.values():
        of_task = [r for r in there.hub.asked if task.hub in r.path]
        assert any(r.origin == "storage" and ".parquet?" in r.path for r in of_task)
        assert not task.pinned or all(task.revision in r.path for r in of_task), task.name


def test_runs_of_a_profile_are_trained(there: Stage) -> None:
    """Supervisor, student and ceiling, of two models; their files are asked for by commit."""
    settings = (
        "PROFILE=gpu-small",
        "CHAPTERS=bootstrapping",
        f"RUNGS={','.join(RUNGS)}",
        *OVERRIDES,
    )
    there.hub.asked.clear()
    there.told("-m", "w2s_lib", "run", *settings)
    assert len(there.records) == 3
    stored = [r.path for r in there.hub.asked if r.origin == "storage"]
    weights = [f"/models/{name}/model.safetensors?commit={commit_of(name)}" for name in MODELS]
    assert sorted(stored) == sorted(weights)
