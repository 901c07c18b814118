"""The small task's table, and a run of it on the real model's first blocks."""

from __future__ import annotations

from typing import Any

import pytest

from w2s_lib.runs.spec import RunSpec, Task
from w2s_lib.tasks.table import TaskTable, load_table


@pytest.fixture(scope="module")
def table(small_task: Task) -> TaskTable:
    return load_table(small_task)


@pytest.fixture
def spec(small_task: Task, quick: dict[str, Any]) -> RunSpec:
    return RunSpec(model="smollm2-135m@3", task=small_task, **quick)
