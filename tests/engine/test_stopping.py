"""Stops of containers: refused, unanswered, too early, or in flight when the loop thread dies."""

from __future__ import annotations

import math
from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.errors import BackendError, Kind
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    NO_SUCH,
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


@pytest.mark.parametrize("described", [True, False], ids=["no stop finds it", "no request finds it"])
async def test_a_stop_that_does_not_find_what_ran_for_a_moment_is_made_all_the_same(described: bool) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        await anyio.sleep(30)
        [container] = cloud.of("a")
        if described:
            cloud.fault = failing("stop", NO_SUCH, times=3)
        else:
            container.forgotten_until = anyio.current_time() + 20
        harness.stop(launch_id)
        await harness.until_idle(timeout=60)
    assert container.stop_reasons == ["revoked"]


async def test_not_found_before_and_after_an_outage_does_not_count_for_all_of_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        await anyio.sleep(30)
        [container] = cloud.of("a")
        container.forgotten_until = anyio.current_time() + 620
        harness.stop(launch_id)
        await harness.until(lambda: cloud.calls["stop"] == 2)
        back_at = anyio.current_time() + 600
        cloud.fault = lambda operation, _: TIMED_OUT if anyio.current_time() < back_at else None
        await harness.until_idle(timeout=800)
    assert container.stop_reasons == ["revoked"]


@pytest.mark.parametrize("described", [True, False])
async def test_a_container_that_is_gone_occupies_its_launch_for_the_grace_and_no_longer(described: bool) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        await anyio.sleep(30)
        cloud.of("a")[0].forgotten_until = math.inf
        if not described:
            cloud.fault = failing("describe", TIMED_OUT)
        began = anyio.current_time()
        harness.stop(launch_id)
        await harness.until_idle(timeout=300)
        took = anyio.current_time() - began
        await harness.until(lambda: not harness.owes_stops(), timeout=20)
    assert RULES.missing_grace <= took <= RULES.missing_grace + 10.0
    assert harness.finished("a") == []
    assert cloud.calls["stop"] <= 20


async def test_the_next_launch_of_a_key_waits_for_a_container_that_is_gone_as_for_one_that_stops() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=10))
    patient = replace(RULES, missing_grace=600.0)
    async with Harness(cloud, rules=patient).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        await anyio.sleep(5)
        cloud.of("a")[0].forgotten_until = math.inf
        began = anyio.current_time()
        harness.stop(launch_id)
        harness.launch("a")
        await harness.until_launched("a", times=2)
        assert anyio.current_time() - began == pytest.approx(patient.predecessor_wait, abs=5.0)
        assert (await harness.until_finished("a")).success


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


async def test_1000_stops_without_the_permission_are_one_line_with_their_number() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launches = [harness.launch(f"w{number}") for number in range(1000)]
        await harness.until(lambda: len(harness.handles()) == 1000)
        cloud.fault = failing("stop", STOP_DENIED, until=anyio.current_time() + 50.0)
        with capture_logs() as logs:
            for launch_id in launches:
                harness.stop(launch_id)
            await harness.until_idle(timeout=600)
    [told] = [entry for entry in logs if entry["event"].startswith("cloud_executor.stop.")]
    assert (told["event"], told["owed"]) == ("cloud_executor.stop.refused", 1000)


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
