"""Revoked launches: the engine reports nothing of them and stops their containers, whatever was under way."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import AirflowState, Launch
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    NO_MEMORY,
    THROTTLED,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, make_launch, under_a_new_id

pytestmark = pytest.mark.anyio


async def test_revoked_while_queued_is_dropped() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=30))
    async with Harness(cloud).running() as harness:
        harness.launch("first")
        await anyio.sleep(1)
        launch_id = harness.launch("a")
        await anyio.sleep(1)
        harness.stop(launch_id)
        await harness.until_finished("first")
    assert not cloud.of("a")
    assert not harness.finished("a")


async def test_revoked_while_sending_the_replys_container_is_stopped() -> None:
    cloud = FakeCloud(latency=2.0, plan=lambda label, nth: Plan(duration=600))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(1.5)
        assert cloud.of("a")
        harness.stop(launch_id)
        await harness.until_idle()
    assert cloud.of("a")[0].stop_reasons == ["revoked"]
    assert not harness.finished("a")
    assert not harness.launched("a")


async def test_revoked_while_ambiguous_the_container_is_learnt_then_stopped() -> None:
    cloud = FakeCloud(
        fault=failing("launch:after", TIMED_OUT, until=60), plan=lambda label, nth: Plan(duration=6000)
    )
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(10)
        harness.stop(launch_id)
        await harness.until_idle(timeout=200)
    assert [bool(c.stop_reasons) for c in cloud.of("a")] == [True]
    assert not harness.reports


async def test_revoked_while_running_is_stopped_and_silent() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        harness.stop(launch_id, "stuck in queued")
        await harness.until_idle(timeout=60)
    assert cloud.of("a")[0].stop_reasons == ["stuck in queued"]
    assert not harness.finished("a")


@pytest.mark.parametrize("meanwhile", ["before it is sent", "while it is sent"])
async def test_a_revoke_stops_what_an_adopted_launchs_first_scheduler_started(meanwhile: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    launch, _ = await first_scheduler_dies(cloud, tokened=True, told=False)
    cloud.fault = failing("launch", THROTTLED)
    async with Harness(cloud).running() as second:
        second.adopt(launch, AirflowState.QUEUED)
        if meanwhile == "while it is sent":
            cloud.latency = 4.0
            cloud.unlisted = lambda container: True
            await second.until(lambda: second.phases() == ["sending"])
            cloud.unlisted = lambda container: False
        second.stop(launch.launch_id)
        await second.until(lambda: cloud.of("a")[0].stop_reasons and second.is_idle())
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]
    assert not second.finished()


async def test_a_revoke_while_a_tokens_container_is_asked_for_its_age_stops_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    original, _ = await first_scheduler_dies(cloud, tokened=True)
    cloud.fault = failing("describe", TIMED_OUT, until=anyio.current_time() + 30)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(original, AirflowState.QUEUED)
        await anyio.sleep(5)
        second.stop(original.launch_id)
        await second.until_idle(timeout=120)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]
    assert not second.reports


@pytest.mark.parametrize("error", [Rejected("no such setting"), RuntimeError("hook")])
async def test_what_is_revoked_while_a_hook_runs_that_then_fails_is_still_looked_for_and_stopped(
    error: Exception,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    dead, heir = Harness(cloud), Harness(cloud)
    hook, hooks = anyio.Lock(), [error]
    fails = anyio.Event()

    async def rendered(launch: Launch) -> LaunchSpec:
        async with hook:  # one at a time, as there is one thread for it
            if hooks and heir.phases() == ["in doubt"]:
                await fails.wait()
                raise hooks.pop()
            return heir.default_render(launch)

    async with dead.running(), heir.running():
        heir.render_with(rendered)
        launch = make_launch("a", tokened=True)
        dead.submit(launch)
        await dead.until_launched("a")
        cloud.unlisted = lambda container: True
        heir.adopt(launch, AirflowState.QUEUED)
        await heir.until(lambda: hook.statistics().locked and heir.phases() == ["in doubt"])
        cloud.unlisted = lambda container: False
        heir.stop(launch.launch_id)
        await heir.until(lambda: hook.statistics().tasks_waiting)
        fails.set()
        await heir.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60.0)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]


async def test_a_revoked_ones_container_that_airflow_names_is_stopped_though_its_record_cannot_be_read() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    original, known = await first_scheduler_dies(cloud, started_by="ti-1", after=5)
    cloud.unreadable = lambda container: True
    async with Harness(cloud).running() as second:
        adopted = under_a_new_id(original)
        second.adopt(adopted, AirflowState.RUNNING, known)
        await anyio.sleep(10)
        second.stop(adopted.launch_id)
        await second.until(lambda: second.is_idle() and not second.owes_stops())
    assert cloud.containers[known].stop_reasons == ["revoked"]
    assert not second.finished("a")


async def test_a_launch_after_a_revoke_waits_for_the_old_container_to_stop() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(start_after=20 if nth == 1 else 1, duration=600 if nth == 1 else 5)
    )
    fault_until = 40.0
    cloud.fault = failing("stop", THROTTLED, until=fault_until)
    async with Harness(cloud).running() as harness:
        old = harness.launch("a")
        await harness.until_launched("a")
        harness.stop(old)
        harness.launch("a")
        await harness.until_finished("a")
    first, second = cloud.of("a")
    assert first.stopped is not None
    assert second.created >= first.stopped >= fault_until
    assert [f.success for f in harness.finished("a")] == [True]


async def test_a_launch_waits_for_every_revoked_container_of_its_key() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=0, duration=6000))
    rules = replace(RULES, predecessor_wait=30.0)
    async with Harness(cloud, rules=rules).running() as harness:
        cloud.fault = failing("stop", TIMED_OUT, until=50)
        first = harness.launch("a")
        await harness.until_launched("a", times=1)
        harness.stop(first)
        second = harness.launch("a")
        await harness.until_launched("a", times=2)  # the wait is bounded
        harness.stop(second)
        harness.launch("a")
        cloud.of("a")[0].stopped = anyio.current_time()  # the first ends
        await anyio.sleep(5)
        assert len(cloud.of("a")) == 2
        await harness.until_launched("a", times=3)
        assert cloud.of("a")[1].stopped is not None


async def test_a_launch_that_is_revoked_over_and_over_waits_for_its_predecessor_only_once() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(start_after=1e6 if nth == 1 else 1), fault=failing("stop", TIMED_OUT)
    )
    async with Harness(cloud).running() as engine:
        again = engine.launch("a")
        await engine.until_launched("a")
        for _ in range(7):
            engine.stop(again)
            await anyio.sleep(2)
            again = engine.launch("a")
            with anyio.move_on_after(30):
                await engine.until(lambda: len(cloud.of("a")) > 1)
                break
        assert len(cloud.of("a")) == 2
        await engine.until_finished("a")
    assert [f.launch_id for f in engine.finished("a")] == [again]
