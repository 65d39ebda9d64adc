"""35 minutes without capacity or answers: engine and cloud in virtual time, an executor, Airflow's patience."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta, timezone
from typing import Any

import anyio
import pytest

from ecs_async_executor.adapter import compat
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Command, Launch
from ecs_async_executor.engine.statistics import Statistics
from tests.adapter.metadata import Metadata, look_for_stuck
from tests.adapter.scripted import ScriptedBridge, ScriptedExecutor, queue
from tests.engine.cloud import FakeCloud
from tests.engine.harness import Harness
from tests.engine.virtual_time import VirtualTimeLoop

pytestmark = pytest.mark.slow

NUMBER = 8
RETRIES = 3
OUTAGE = 35 * 60.0
HEARTBEAT = 5.0
LOOK = 120.0
"""Airflow's default ``task_queued_timeout_check_interval``; what is queued for 600 s is stuck to it."""
NO_CAPACITY = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no room")
NO_ANSWER = BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout")


class VirtualBridge(ScriptedBridge):
    """Leads to a real engine, which lives in virtual time."""

    def lead_to(self, harness: Harness) -> None:
        self.harness = harness
        self.ledger = harness.ledger

    def submit(self, command: Command) -> None:
        super().submit(command)
        self.harness.submit(command)

    def statistics(self) -> Statistics:
        return self.harness.snapshots[-1]


class VirtualExecutor(ScriptedExecutor):
    """An executor over one."""

    bridge_type = VirtualBridge


class World:
    """A cloud without room, or one that answers nothing, until the outage is over, and what uses it."""

    def __init__(self, executor: Any, outage: BackendError) -> None:
        self.outage = outage
        self.loop = VirtualTimeLoop()
        self.cloud = FakeCloud(fault=self.fault)
        self.harness = Harness(self.cloud, render=self.render)
        self.executor = executor
        executor.scripted.lead_to(self.harness)
        ready = asyncio.Event()
        self.task = self.loop.create_task(self.harness.engine.run(ready.set))
        self.loop.run_until_complete(ready.wait())
        self.pass_time(1.0)

    def fault(self, operation: str, cloud: FakeCloud) -> BackendError | None:
        hit = operation == "launch" or self.outage is NO_ANSWER
        return self.outage if hit and anyio.current_time() < OUTAGE else None

    @staticmethod
    def render(launch: Launch) -> LaunchSpec:
        return LaunchSpec({"label": str(launch.key)}, "default", "main", "FARGATE", launch.started_by)

    def pass_time(self, seconds: float) -> None:
        async def main() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(main())

    def close(self) -> None:
        self.task.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.task)
        self.loop.close()


@pytest.fixture(params=[NO_CAPACITY, NO_ANSWER], ids=["no capacity", "no answer"])
def world(request: pytest.FixtureRequest, make_executor: Any) -> Iterator[World]:
    world = World(make_executor(VirtualExecutor), request.param)
    yield world
    world.close()


def test_an_outage_of_35_minutes_ends_with_every_task_instance_at_its_first_try(
    world: World, database: Metadata
) -> None:
    executor = world.executor
    database.orphan(*["queued"] * NUMBER)
    with database.session() as session:
        tis = database.tis(session)[:NUMBER]
        for ti in tis:
            ti.max_tries = RETRIES
        compat.load_for_adoption(tis)
        queue(executor, *compat.rebuild(tis).values())
    since = world.loop.time()
    looked_at, looks = since, 0
    ended: dict[Any, str] = {}
    while len(ended) < NUMBER:
        assert world.loop.time() < OUTAGE + 300.0, "they were to be launched within a probe's interval"
        executor.heartbeat()
        world.pass_time(HEARTBEAT)
        events = {key: str(state) for key, (state, _) in executor.get_event_buffer().items()}
        ended |= {key: state for key, state in events.items() if state not in ("queued", "running")}
        if world.loop.time() >= looked_at + LOOK and world.loop.time() < OUTAGE:
            looked_at = world.loop.time()
            looks += 1
            with database.session() as session:
                for ti in database.tis(session)[:NUMBER]:
                    ti.queued_dttm = datetime.now(tz=timezone.utc) - timedelta(seconds=looked_at - since)
            with database.session() as session:
                look_for_stuck(executor, session)

    assert looks >= 16
    assert world.loop.time() >= OUTAGE
    assert set(ended.values()) == {"success"}
    assert executor.running == set()
    with database.session() as session:
        assert [(ti.state, ti.try_number) for ti in database.tis(session)[:NUMBER]] == [("queued", 1)] * NUMBER
    assert len(world.cloud.containers) == NUMBER
    assert executor.scripted.stops == []
    if world.outage is NO_CAPACITY:
        # One probe at a time, not every launch for itself.
        assert world.cloud.calls["launch"] < OUTAGE / 10 + 10 * NUMBER
    else:
        assert world.cloud.calls["launch"] < NUMBER * OUTAGE / 15
