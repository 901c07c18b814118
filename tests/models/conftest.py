"""The small task's table."""

from __future__ import annotations

import pytest

from w2s_lib.runs.spec import Task
from w2s_lib.tasks.table import TaskTable, load_table


@pytest.fixture(scope="module")
def table(small_task: Task) -> TaskTable:
    return load_table(small_task)
