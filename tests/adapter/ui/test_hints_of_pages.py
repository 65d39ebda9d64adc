"""What the tab says of a container that exited 0 although its task has failed."""

from __future__ import annotations

from uuid import uuid4

import pytest

from ecs_async_executor.adapter.tries import Try
from ecs_async_executor.adapter.ui.containers import Look
from ecs_async_executor.adapter.ui.task_page import TaskPage
from ecs_async_executor.adapter.ui.tries_of_task import Task
from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.services.details import Details


@pytest.mark.parametrize(
    ("ending", "words"),
    [
        (None, "The container did its work, and the task in it failed."),
        (Ending.OOM, "The container needed more memory than it had."),
        (Ending.SPOT, "AWS took the spot capacity back"),
    ],
)
def test_the_hint_is_about_what_befell_the_container(ending: Ending | None, words: str) -> None:
    seen = Observation(Handle("c", "arn"), Seen.STOPPED, exit_code=0, started=True, ending=ending)
    one = Try(uuid4(), "dag", "run", "task", -1, 1, "up_for_retry", None, None, None, None, None, None)
    look = Look(details=Details(seen, "eu-west-1"))
    page = TaskPage(Task("dag", "run", "task"), 1, [1], one, None, "arn", None, look)
    assert (page.hint or "").startswith(words)
