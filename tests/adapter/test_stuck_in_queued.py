"""A lack of capacity that outlasts Airflow's patience with what is queued: its own code, on a real database."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import text

from ecs_async_executor.adapter import compat
from ecs_async_executor.core.messages import HeldUp, Launch
from tests.adapter.metadata import Metadata, look_for_stuck
from tests.adapter.scripted import launched, notice, queue, succeeded

pytestmark = pytest.mark.slow

PATIENCE = timedelta(seconds=600)
"""Airflow's default ``task_queued_timeout``; after that it gives a task instance two more chances."""


class Outage:
    """Queued task instances of a database, in the hands of an executor; time goes by as told."""

    def __init__(self, executor: Any, database: Metadata, number: int) -> None:
        self.executor = executor
        self.database = database
        self.number = number
        self.retries = 3
        database.orphan(*["queued"] * number)
        with database.session() as session:
            tis = database.tis(session)[:number]
            for ti in tis:
                ti.max_tries = self.retries
            compat.load_for_adoption(tis)
            queue(executor, *compat.rebuild(tis).values())
        executor.heartbeat()

    @property
    def launches(self) -> list[Launch]:
        found: list[Launch] = self.executor.scripted.launches
        return sorted(found, key=lambda launch: launch.priority)

    def wait(self, times: int) -> None:
        """Let Airflow's patience end so many times."""
        for _ in range(times):
            with self.database.session() as session:
                for ti in self.database.tis(session)[: self.number]:
                    ti.queued_dttm = datetime.now(tz=timezone.utc) - PATIENCE - timedelta(seconds=1)
            with self.database.session() as session:
                look_for_stuck(self.executor, session)
            self.executor.heartbeat()

    def states(self) -> list[tuple[str | None, int]]:
        with self.database.session() as session:
            return [(ti.state, ti.try_number) for ti in self.database.tis(session)[: self.number]]

    def stuck(self) -> int:
        with self.database.session() as session:
            found = session.execute(text("SELECT count(*) FROM log WHERE event LIKE 'stuck in queued%'"))
            return int(found.scalar_one())


def test_35_minutes_without_capacity_cost_no_try(executor: Any, database: Metadata) -> None:
    outage = Outage(executor, database, 4)
    executor.scripted.report(*(notice(launch, "RESOURCE:MEMORY") for launch in outage.launches))
    executor.heartbeat()

    outage.wait(times=4)

    assert outage.states() == [("queued", 1)] * 4
    assert outage.stuck() == 0
    assert executor.scripted.stops == []
    assert len(executor.running) == 4
    # Then there is room, and all of it goes on under the same try.
    for launch in outage.launches:
        executor.scripted.report(launched(launch), succeeded(launch))
    executor.heartbeat()
    assert [str(state) for state, _ in executor.get_event_buffer().values()] == ["success"] * 4


def test_what_is_queued_for_too_long_for_no_reason_that_is_known_is_revoked(
    executor: Any, database: Metadata
) -> None:
    outage = Outage(executor, database, 1)
    outage.wait(times=1)
    assert outage.states() == [("scheduled", 1)]
    assert [stop.launch_id for stop in executor.scripted.stops] == [outage.launches[0].launch_id]


def test_after_an_outage_a_container_has_as_much_time_to_start_as_any_other(
    executor: Any, database: Metadata
) -> None:
    outage = Outage(executor, database, 1)
    executor.scripted.report(notice(outage.launches[0], "RESOURCE:MEMORY"), launched(outage.launches[0]))
    executor.heartbeat()
    outage.wait(times=1)
    assert outage.states() == [("queued", 1)]
    assert executor.scripted.stops == []


def test_what_waits_for_capacity_for_its_second_container_is_not_given_back_either(
    executor: Any, database: Metadata
) -> None:
    outage = Outage(executor, database, 1)
    launch = outage.launches[0]
    executor.scripted.report(launched(launch), notice(launch, "RESOURCE:MEMORY"))
    executor.heartbeat()
    outage.wait(times=4)
    assert outage.states() == [("queued", 1)]
    assert executor.scripted.stops == []


@pytest.mark.parametrize("how", ["its container does not start", "the loop hangs"])
def test_what_waited_for_capacity_is_revoked_when_that_is_no_longer_why(
    make_executor: Callable[..., Any], database: Metadata, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "0.1")
    executor = make_executor()
    executor.scripted.say(launch_rate=1000.0)
    outage = Outage(executor, database, 1)
    executor.scripted.report(notice(outage.launches[0], "RESOURCE:MEMORY"))
    if how == "the loop hangs":
        executor.scripted.say(loop_lag=100.0)
    else:
        executor.scripted.report(launched(outage.launches[0]))
    executor.heartbeat()
    time.sleep(0.11)
    outage.wait(times=1)
    assert outage.states() == [("scheduled", 1)]
    assert len(executor.scripted.stops) == 1


def test_what_waits_for_a_place_at_a_capacity_provider_is_not_given_back_until_it_has_one(
    make_executor: Callable[..., Any], database: Metadata, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__SCHEDULER__TASK_QUEUED_TIMEOUT", "0.1")
    executor = make_executor()
    executor.scripted.say(launch_rate=1000.0)
    outage = Outage(executor, database, 1)
    launch = outage.launches[0]
    executor.scripted.report(launched(launch), HeldUp(launch.launch_id, launch.key))
    executor.heartbeat()
    time.sleep(0.11)
    outage.wait(times=4)
    assert outage.states() == [("queued", 1)]
    assert executor.scripted.stops == []
    executor.scripted.report(HeldUp(launch.launch_id, launch.key, over=True))
    executor.heartbeat()
    time.sleep(0.11)
    outage.wait(times=1)
    assert outage.states() == [("scheduled", 1)]
    assert len(executor.scripted.stops) == 1
