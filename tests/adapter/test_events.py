"""What the executor's events do to task instances: the scheduler's own code on a real database."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from ecs_async_executor.adapter import compat
from ecs_async_executor.core.messages import Launch, Report
from tests.adapter.metadata import Metadata, process_events
from tests.adapter.scripted import failed, launched, queue, succeeded

pytestmark = pytest.mark.slow

END = [succeeded, failed]
SCHEDULER = 1
"""The scheduler whose executor it is."""


class Scheduler:
    """One task instance of a database in the hands of a scheduler and its executor."""

    def __init__(self, executor: Any, database: Metadata) -> None:
        self.executor = executor
        self.database = database
        database.orphan("queued", queued_by_job_id=SCHEDULER)

    def launch(self) -> Launch:
        with self.database.session() as session:
            tis = self.database.tis(session)[:1]
            tis[0].queued_by_job_id = SCHEDULER
            compat.load_for_adoption(tis)
            queue(self.executor, *compat.rebuild(tis).values())
        self.executor.heartbeat()
        launch: Launch = self.executor.scripted.launches[-1]
        return launch

    def set(self, state: str) -> None:
        with self.database.session() as session:
            self.database.tis(session)[0].state = state

    def hear(self, *reports: Report) -> str | None:
        """Let the executor hear of it, and the scheduler of that; return the task instance's state."""
        self.executor.scripted.report(*reports)
        self.executor.heartbeat()
        with self.database.session() as session:
            process_events(self.executor, session, SCHEDULER)
        with self.database.session() as session:
            state: str | None = self.database.tis(session)[0].state
        return state


@pytest.fixture
def scheduler(executor: Any, database: Metadata) -> Scheduler:
    return Scheduler(executor, database)


@pytest.mark.parametrize("end", END)
def test_an_end_that_is_seen_after_the_sensor_was_scheduled_again_fails_nothing(
    scheduler: Scheduler, end: Callable[[Launch], Report]
) -> None:
    first = scheduler.launch()
    assert scheduler.hear(launched(first)) == "queued"
    # In reschedule mode the container says that it is to be asked again, and goes on to stop for a minute.
    scheduler.set("scheduled")
    assert scheduler.hear(end(first)) == "scheduled"
    # The same try goes on, in a container of its own.
    scheduler.set("queued")
    second = scheduler.launch()
    assert second.key == first.key
    assert second.launch_id != first.launch_id
    scheduler.set("running")
    assert scheduler.hear(launched(second), end(first)) == "running"


@pytest.mark.parametrize("state", ["queued", "running"])
def test_an_end_that_the_task_instance_knows_nothing_of_fails_it(scheduler: Scheduler, state: str) -> None:
    launch = scheduler.launch()
    scheduler.set(state)
    assert scheduler.hear(failed(launch)) == "failed"


@pytest.mark.parametrize("state", ["up_for_reschedule", "deferred", "success", "up_for_retry"])
def test_an_end_that_the_task_instance_has_announced_changes_nothing(scheduler: Scheduler, state: str) -> None:
    launch = scheduler.launch()
    scheduler.set(state)
    assert scheduler.hear(succeeded(launch)) == state


def test_an_end_that_was_told_once_does_not_count_as_having_the_task_instance_any_longer(
    scheduler: Scheduler,
) -> None:
    launch = scheduler.launch()
    scheduler.set("scheduled")
    scheduler.hear(succeeded(launch))
    assert scheduler.hear() == "scheduled"
    with scheduler.database.session() as session:
        assert not scheduler.executor.has_task(scheduler.database.tis(session)[0])
