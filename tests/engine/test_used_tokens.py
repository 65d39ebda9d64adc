"""Client tokens that are used up by an answer without a container, whatever the service remembers of it."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import AirflowState, Launch
from ecs_async_executor.local.behaviour import CHOICES
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import NO_MEMORY, TIMED_OUT, failing
from tests.engine.harness import QUOTA, STALL, Harness, make_launch

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("memory", CHOICES["failure_memory"])]
OUTAGE = 15.0
PROBE_INTERVAL = 20.0
"""Seconds to the third probe of a gate, the first after such an outage."""
LABELS = [f"w{n}" for n in range(6)]
MOMENTS = [0.01, 0.04, 0.06, 0.5, 4.99, 5.03, 5.06, 8.0, 15.1, 15.13, 15.16, 25.0, 35.15, 35.18, 35.24, 36.0]
"""Seconds of a scheduler's life: before, within and after its requests, in the outage and after it."""


def same_request(launch: Launch) -> LaunchSpec:
    """Render as with a JWT that is not made anew."""
    return LaunchSpec({"label": launch.label}, "default", "main", "FARGATE", launch.started_by)


@pytest.mark.parametrize("reminted", [True, False], ids=["another JWT", "the same JWT"])
async def test_all_launch_within_a_probe_interval_of_capacitys_return(memory: str, reminted: bool) -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=OUTAGE), failure_memory=memory)
    async with Harness(cloud, options=QUOTA, render=None if reminted else same_request).running() as harness:
        for label in LABELS:
            harness.launch(label)
        await harness.until(lambda: all(cloud.of(label) for label in LABELS), timeout=OUTAGE + PROBE_INTERVAL + 1)
        await harness.until(lambda: len(harness.finished()) == len(LABELS), timeout=30)
    assert all(finished.success for finished in harness.finished())
    assert [len(cloud.of(label)) for label in LABELS] == [1] * len(LABELS)


@pytest.mark.parametrize("silent", ["launch", "launch:after"])
async def test_requests_without_an_answer_in_such_an_outage_start_nothing_twice(memory: str, silent: str) -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        if operation == silent and now % 3 < 1:
            return TIMED_OUT
        return NO_MEMORY if operation == "launch" and now < OUTAGE else None

    cloud = FakeCloud(fault=fault, failure_memory=memory)
    async with Harness(cloud).running() as harness:
        for label in LABELS:
            harness.launch(label, tokened=True)
        await harness.until(lambda: len(harness.finished()) == len(LABELS), timeout=200)
    assert all(finished.success for finished in harness.finished())
    assert [len(cloud.of(label)) for label in LABELS] == [1] * len(LABELS)


@pytest.mark.parametrize("died", MOMENTS)
async def test_a_scheduler_that_is_killed_at_any_point_leaves_nothing_to_start_twice(
    memory: str, died: float
) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(duration=300.0),
        fault=failing("launch", NO_MEMORY, until=OUTAGE),
        failure_memory=memory,
    )
    async with Harness(cloud).running() as first:
        launches = [make_launch(label, tokened=True) for label in LABELS]
        first.submit(*launches)
        await anyio.sleep(died)
    async with Harness(cloud).running() as second:
        for launch in launches:
            second.adopt(launch, AirflowState.QUEUED)
        # Until the search has found nothing, and then, in the outage, until the first probe that gets a container.
        await second.until(lambda: all(cloud.of(label) for label in LABELS), timeout=PROBE_INTERVAL + 20)
        await second.until(lambda: len(second.finished()) == len(LABELS), timeout=400)
    assert all(finished.success for finished in second.finished())
    assert [len(cloud.of(label)) for label in LABELS] == [1] * len(LABELS)


async def test_an_adopter_passes_over_the_numbers_of_a_long_outage(memory: str) -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=1810.0), failure_memory=memory)
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await anyio.sleep(1800.0)
    assert cloud.calls["launch"] > 30
    async with Harness(cloud).running() as second:
        second.adopt(launch, AirflowState.QUEUED)
        await second.until(lambda: cloud.of("a"), timeout=60)


async def test_an_adopter_is_not_led_back_to_a_container_that_never_started(memory: str) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(starts=nth > 1, duration=300.0),
        fault=failing("launch", NO_MEMORY, times=1),
        failure_memory=memory,
    )
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await first.until_launched("a")
    async with Harness(cloud).running() as second:
        second.adopt(launch, AirflowState.QUEUED)
        finished = await second.until_finished("a")
    assert finished.success
    assert len(cloud.of("a")) == 2


@pytest.mark.parametrize("doubtful", [False, True], ids=["waiting", "in doubt"])
async def test_a_scheduler_that_stalled_finds_what_its_adopter_has_launched(memory: str, doubtful: bool) -> None:
    """Nobody tells it that another has adopted, and the numbers of their client tokens need not agree."""

    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        if operation != "launch" or now > 14:
            return None
        return TIMED_OUT if doubtful and now > 4 else NO_MEMORY

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=300.0), fault=fault, failure_memory=memory)
    options = replace(QUOTA, stall_timeout=STALL)
    async with Harness(cloud, options=options).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await anyio.sleep(12)
        first.silent_since = anyio.current_time() - STALL
        await anyio.sleep(STALL)
        async with Harness(cloud).running() as second:
            second.adopt(launch, AirflowState.QUEUED)
            await second.until_launched("a")
            first.silences, first.silent_since = 1, None
            await anyio.sleep(100)
            await first.until_launched("a")
    assert len(cloud.of("a")) == 1
