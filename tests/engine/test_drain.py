"""The engine's end: it launches nothing more, takes the answers in flight, and makes the stops it owes."""

from __future__ import annotations

import math
from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    TIMED_OUT,
    failing,
)
from tests.engine.harness import OPTIONS, Harness, first_scheduler_dies, make_launch

pytestmark = pytest.mark.anyio


async def test_nothing_is_launched_after_drain_and_what_is_in_flight_gets_its_answer() -> None:
    cloud = FakeCloud(latency=2.0, plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud, options=replace(OPTIONS, max_concurrent_launches=10))
    async with harness.running_until_drained():
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(1)
        sent = cloud.calls["launch"]
        harness.drain()
    assert cloud.calls["launch"] == sent == 10
    assert sum(len(harness.launched(f"w{n}")) for n in range(100)) == 10
    assert not any(c.stop_reasons for c in cloud.containers.values())


async def test_drain_with_a_reason_stops_every_container() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud)
    async with harness.running_until_drained():
        for n in range(200):
            harness.launch(f"w{n}")
        await anyio.sleep(3)
        harness.drain("terminated")
    assert len(cloud.containers) == 200
    assert all(c.stop_reasons == ["terminated"] for c in cloud.containers.values())


async def test_the_end_does_not_wait_for_a_container_that_is_gone() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud)
    async with harness.running_until_drained():
        for n in range(3):
            harness.launch(f"w{n}")
        await anyio.sleep(5)
        cloud.of("w0")[0].forgotten_until = math.inf
        began = anyio.current_time()
        harness.drain("terminated")
    assert anyio.current_time() - began < 2.0
    assert [bool(cloud.of(f"w{n}")[0].stop_reasons) for n in range(3)] == [False, True, True]
    assert harness.owes_stops()


async def test_the_end_waits_for_a_container_that_is_not_known_yet() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud)
    async with harness.running_until_drained():
        harness.launch("a")
        await harness.until_launched("a")
        cloud.of("a")[0].plan.hidden_for = 5.0
        cloud.of("a")[0].forgotten_until = anyio.current_time() + 5.0
        harness.drain("terminated")
    assert cloud.of("a")[0].stop_reasons == ["terminated"]


async def test_terminate_waits_for_what_is_being_looked_up_to_stop_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    _, known = await first_scheduler_dies(cloud)
    cloud.latency = 2.0
    second = Harness(cloud)
    async with second.running_until_drained():
        second.adopt(make_launch("a"), AirflowState.RUNNING, known)
        await anyio.sleep(0.5)
        second.drain("terminated")
    assert cloud.of("a")[0].stop_reasons == ["terminated"]


async def test_terminate_stops_what_a_request_without_an_answer_has_started() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6), fault=failing("launch:after", TIMED_OUT))
    async with Harness(cloud).running() as engine:
        engine.launch("a")
        await engine.until(lambda: cloud.calls["launch"] == 2)
        engine.drain("terminated")
        await engine.until(lambda: cloud.of("a")[0].stop_reasons)
    assert [c.stop_reasons for c in cloud.of("a")] == [["terminated"]]


async def test_what_is_revoked_while_ambiguous_is_stopped_although_the_scheduler_ends() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    cloud.fault = failing("launch:after", TIMED_OUT, until=0.5)
    async with Harness(cloud).running() as harness:
        launch = harness.launch("a")
        await anyio.sleep(0.1)
        assert len(cloud.of("a")) == 1
        harness.stop(launch)
        await anyio.sleep(0.01)
        harness.drain()
        await anyio.sleep(15)
    assert cloud.of("a")[0].stop_reasons
