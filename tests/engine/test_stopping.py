"""Stops of containers: refused, unanswered, too early, or in flight when the loop thread dies."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.errors import BackendError, Kind
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    STOP_DENIED,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import OPTIONS, RULES, Harness

pytestmark = pytest.mark.anyio


async def test_a_container_that_the_service_does_not_know_yet_is_stopped_all_the_same() -> None:
    class Cloud(FakeCloud):
        async def stop(self, handle: Handle, reason: str) -> None:
            if anyio.current_time() < self.containers[handle.id].created + 3:
                raise BackendError(Kind.NOT_FOUND, "InvalidParameterException", "The task was not found.")
            await super().stop(handle, reason)

    cloud = Cloud(latency=1.0, plan=lambda label, nth: Plan(hidden_for=3, duration=6000))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(0.8)
        harness.stop(launch_id)
        await harness.until_idle(timeout=60)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("no", [STOP_DENIED, INVALID], ids=["refused", "invalid"])
@pytest.mark.parametrize("seconds", [30.0, 119.0, 900.0])
async def test_a_stop_that_is_refused_for_a_while_is_made_all_the_same(
    seconds: float, no: BackendError, repeatable: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6), repeatable=repeatable)
    options = replace(OPTIONS, stop_permission="cloud:Stop")
    harness = Harness(cloud, options=options, rules=replace(RULES, repeatable=repeatable))
    async with harness.running():
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        mended_at = anyio.current_time() + seconds
        cloud.fault = failing("stop", no, until=mended_at)
        with capture_logs() as logs:
            harness.stop(launch_id)
            await harness.until_idle(timeout=seconds + 100)
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]
    assert cloud.call_times["stop"][-1] <= mended_at + 60.0
    assert cloud.calls["stop"] <= 9 + seconds / 30
    [told] = [entry for entry in logs if entry["event"].startswith("cloud_executor.stop.")]
    assert (told["event"], told["reason"], told["handle"]) == (
        "cloud_executor.stop.refused",
        no.message,
        cloud.of("a")[0].handle.id,
    )
    assert told.get("permission") == ("cloud:Stop" if no is STOP_DENIED else None)


async def test_a_stop_that_is_refused_after_an_outage_is_made_all_the_same() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        back_at = anyio.current_time() + 120
        refused_once = failing("stop", STOP_DENIED, times=1)

        def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
            if operation == "stop" and anyio.current_time() < back_at:
                return TIMED_OUT
            return refused_once(operation, cloud)

        cloud.fault = fault
        harness.stop(launch_id)
        await harness.until_idle(timeout=300)
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]


async def test_a_refused_stop_of_a_container_that_nothing_is_known_of_any_more_is_given_up() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(hidden_for=1e6, duration=1e6), fault=failing("stop", STOP_DENIED)
    )
    async with Harness(cloud).running() as harness:
        with capture_logs() as logs:
            harness.launch("a")
            await harness.until_finished("a")
            await harness.until(lambda: not harness.owes_stops(), timeout=300)
    told = [entry["event"] for entry in logs if entry["log_level"] != "info"]
    assert told == ["cloud_executor.stop.refused", "cloud_executor.stop.gave_up"]


async def test_a_stop_that_was_in_flight_when_the_loop_thread_died_is_sent_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=62, duration=1e9))
    cloud.fault = failing("stop", TIMED_OUT, until=70)
    harness = Harness(cloud)
    async with harness.running():
        harness.launch("a")
        await harness.until_finished("a")
        cloud.latency = 100.0
        await harness.until(lambda: cloud.in_flight["stop"])
        assert harness.is_idle()
    cloud.latency = 0.05
    harness.new_loop()
    async with harness.running():
        await harness.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60)
        await harness.until(lambda: not harness.owes_stops(), timeout=60)
