"""Launches that another scheduler has adopted: this one reports nothing of them and stops nothing of theirs."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.messages import AirflowState, Release
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    TIMED_OUT,
    failing,
)
from tests.engine.harness import OPTIONS, RULES, STALL, Harness, make_launch

pytestmark = pytest.mark.anyio


async def test_what_is_released_as_the_scheduler_calls_again_is_not_launched_before_that_is_read() -> None:
    cloud = FakeCloud()
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL)).running() as engine:
        engine.silence = STALL + 1
        first = make_launch("a", tokened=True)
        engine.submit(first)
        await anyio.sleep(1)
        # The lanes' order is chance: nobody but the launching one is told.
        engine.inbox.append(Release(first.launch_id))
        engine.silence = 0.0
        engine.wake_launching()
        await anyio.sleep(60)
    assert cloud.calls["launch"] == 0
    assert engine.is_idle()


@pytest.mark.parametrize("phase", ["sending", "in doubt", "searching", "starting"])
async def test_what_is_released_says_nothing_more_and_its_container_runs_on(phase: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=30, duration=1e5), latency=2.0)
    if phase in ("in doubt", "searching"):
        cloud.fault = failing("launch:after", TIMED_OUT)
    rules = replace(RULES, repeatable=phase != "searching")
    async with Harness(cloud, rules=rules).running() as engine:
        launch = make_launch("a")
        engine.submit(launch)
        await engine.until(lambda: engine.phases() == [phase])
        await engine.until(lambda: cloud.of("a"))
        assert engine.phases() == [phase]
        engine.take()
        engine.reports.clear()
        engine.release(launch)
        await anyio.sleep(600)
    assert engine.take() == []
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]
    assert len(cloud.of("a")) == 1


async def test_a_revoked_launch_is_stopped_although_it_is_released() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        launch = make_launch("a")
        engine.submit(launch)
        await anyio.sleep(0.5)
        engine.stop(launch.launch_id)
        engine.release(launch)
        await engine.until_idle()
    assert [container.stop_reasons for container in cloud.of("a")] == [["revoked"]]


async def test_what_is_released_in_flight_is_not_stopped_with_everything_else() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        released, other = make_launch("a"), make_launch("b")
        engine.submit(released, other)
        await engine.until(lambda: cloud.of("a") and cloud.of("b"))
        engine.release(released)
        await engine.until_launched("b")
        engine.drain("terminated")
        await engine.until(lambda: cloud.of("b")[0].stop_reasons)
        await anyio.sleep(10)
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]


@pytest.mark.parametrize("what", ["conflict", "terminated first"])
async def test_what_is_released_in_flight_is_not_stopped_whatever_the_answer_is(what: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    launch = make_launch("a", tokened=True)
    async with Harness(cloud).running() as engine, Harness(cloud).running() as adopter:
        adopter.rendered.append("make the JWT differ")
        if what == "conflict":
            adopter.adopt(launch, AirflowState.QUEUED)
            await anyio.sleep(0.1)
            engine.submit(launch)
            await anyio.sleep(0.5)
            engine.release(launch)
            await adopter.until_launched("a")
            await anyio.sleep(10)
            engine.drain("terminated")
        else:
            engine.submit(launch)
            await engine.until(lambda: cloud.of("a"))
            engine.release(launch)
            await anyio.sleep(0.1)
            engine.drain("terminated")
        await anyio.sleep(20)
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]


async def test_what_is_released_in_flight_and_adopted_back_keeps_its_container() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e4, duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        launch = make_launch("a", tokened=True)
        engine.submit(launch)
        await engine.until(lambda: cloud.of("a"))
        engine.release(launch)
        await engine.until_idle()
        engine.adopt(launch, AirflowState.QUEUED)
        await engine.until_launched("a")
    assert len(cloud.of("a")) == 1


@pytest.mark.parametrize("frozen", [False, True])
async def test_what_is_released_in_flight_and_adopted_back_at_once_is_not_launched_under_other_tokens(
    frozen: bool,
) -> None:
    """A process is frozen with a request in flight; a peer adopts, launches and dies; this one adopts it back."""
    hang = [frozen]

    class Hanging(FakeCloud):
        async def launch(self, spec: LaunchSpec, token: str) -> Observation:
            if hang[0]:
                hang[0] = False
                await anyio.sleep(30)
                raise TIMED_OUT
            return await super().launch(spec, token)

    cloud = Hanging(plan=lambda label, nth: Plan(start_after=100, duration=300))
    launch = make_launch("a", tokened=True)
    async with Harness(cloud).running() as engine:
        engine.submit(launch)
        await anyio.sleep(1)
        async with Harness(cloud).running() as peer:
            peer.adopt(launch, AirflowState.QUEUED)
            await peer.until_launched("a")
        engine.release(launch)
        engine.adopt(launch, AirflowState.QUEUED)
        await engine.until_launched("a")
        await anyio.sleep(100)
    assert len(cloud.of("a")) == 1


async def test_a_launch_that_is_released_while_many_are_searched_for_holds_up_no_other() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=3.0)
    launches = [make_launch(f"w{number}") for number in range(300)]
    async with Harness(cloud).running() as first:
        first.submit(*launches)
        await first.until(lambda: len(first.handles()) == len(launches))
    heir = Harness(cloud, options=replace(OPTIONS, describe_rate=20.0, describe_burst=10))
    searches = cloud.calls["search"]
    with capture_logs() as logs:
        async with heir.running():
            for launch in launches:
                heir.adopt(launch, AirflowState.RUNNING)
            await anyio.sleep(1)
            heir.release(launches[100])
            await heir.until(lambda: len(heir.handles()) == len(launches) - 1)
    assert not [line for line in logs if line["event"].endswith("lane_failed")]
    assert cloud.calls["search"] - searches <= len(launches)
