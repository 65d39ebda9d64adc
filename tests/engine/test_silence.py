"""A scheduler that did not call for so long that another has adopted its launches, and then goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import msgspec
import pytest

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import AirflowState, Launch
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.options import Options
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    NO_MEMORY,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import OPTIONS, RULES, STALL, Harness, make_launch, under_a_new_id

pytestmark = pytest.mark.anyio
LAUNCHES = 500


async def test_a_silent_scheduler_launches_nothing() -> None:
    cloud = FakeCloud()
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0)).running() as harness:
        harness.silence = 25.0
        harness.launch("a")
        await anyio.sleep(60)
        assert cloud.calls["launch"] == 0
        assert harness.snapshots[-1].paused
        harness.silence = 0.0
        await harness.until_finished("a")


async def test_a_scheduler_that_fell_silent_while_a_request_was_built_does_not_send_it() -> None:
    def render(launch: Launch) -> LaunchSpec:
        harness.silence = 25.0
        return harness.default_render(launch)

    cloud = FakeCloud()
    harness = Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0), render=render)
    async with harness.running():
        harness.launch("a")
        await anyio.sleep(60)
        assert cloud.calls["launch"] == 0
        harness.render = harness.default_render
        harness.silence = 0.0
        await harness.until_finished("a")


def at_a_rate_of(rate: float) -> Options:
    return replace(
        OPTIONS,
        launch_rate=lambda bucket: rate,
        launch_rate_max=rate,
        launch_burst=10,
        describe_rate=20.0,
        describe_burst=20,
        stall_timeout=STALL,
    )


@pytest.mark.parametrize("why", ["backlog", "capacity"])
@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_the_adopter_has_not_launched_yet_is_left_to_it(why: str, repeatable: bool) -> None:
    def no_capacity(operation: str, _: FakeCloud) -> BackendError | None:
        return NO_MEMORY if operation == "launch" and 0.5 < anyio.current_time() < 600 else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3600), repeatable=repeatable)
    if why == "capacity":
        cloud.fault = no_capacity
    rules = replace(RULES, repeatable=repeatable)
    sleeper = Harness(cloud, options=at_a_rate_of(5.0), rules=rules)
    peer = Harness(cloud, options=at_a_rate_of(8.0), rules=rules)
    launches = [make_launch(f"w{n}", started_by=f"ti-{n}") for n in range(LAUNCHES)]
    async with sleeper.running(), peer.running():
        sleeper.submit(*launches)
        await anyio.sleep(5)
        sleeper.silence = STALL + 1
        await anyio.sleep(10)
        for launch in launches:
            peer.adopt(under_a_new_id(launch), AirflowState.QUEUED)
        await anyio.sleep(10)
        assert len(cloud.containers) < LAUNCHES, "nothing was left that both could launch"
        sleeper.release(*launches)  # as the database says
        sleeper.silence = 0.0
        await anyio.sleep(1500)
    assert {len(cloud.of(launch.label)) for launch in launches} == {1}
    assert not any(container.stop_reasons for container in cloud.containers.values())
    assert sleeper.is_idle()
    assert sleeper.finished() == []


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("tokened", [True, False])
@pytest.mark.parametrize("adopted", [True, False])
async def test_who_wakes_up_does_not_launch_what_another_has_adopted_and_launched(
    adopted: bool, tokened: bool, repeatable: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0), rules=rules)
    peer = Harness(cloud, rules=rules)
    async with sleeper.running(), peer.running():
        sleeper.silence = 30.0
        launch = make_launch("a", started_by="ti", tokened=tokened)
        if tokened:
            launch = launch.evolve(started_by=launch.launch_id)
        sleeper.submit(launch)
        await anyio.sleep(5)
        if adopted:
            peer.rendered.append("make the JWT differ")
            peer.adopt(launch if tokened else under_a_new_id(launch), AirflowState.QUEUED)
            await peer.until_launched("a")
        sleeper.silence = 0.0
        await sleeper.until_finished("a")
    assert len(cloud.containers) == 1


async def test_a_silence_in_which_the_loop_did_nothing_either_is_noticed_when_it_is_over() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL))
    peer = Harness(cloud)
    async with sleeper.running(), peer.running():
        launch = make_launch("a", started_by="ti")
        peer.submit(under_a_new_id(launch))
        await peer.until_launched("a")
        sleeper.inbox.append(launch)
        sleeper.silences += 1  # a process that was stopped: the scheduler's thread was the first to go on
        await sleeper.until_finished("a")
    assert len(cloud.of("a")) == 1


class Reticent(FakeCloud):
    """Says why a container stops once it has stopped."""

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        seen = await super().describe(scope, ids)
        return [msgspec.structs.replace(o, reason="") if o.seen is Seen.PENDING else o for o in seen]


@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_silence_is_noticed_although_all_that_is_held_waits_for_the_container_before(
    repeatable: bool,
) -> None:
    def plan(label: str, nth: int) -> Plan:
        return Plan(start_after=1e6, lingers=110) if nth == 1 else Plan(duration=1e5)

    cloud = Reticent(plan=plan, repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL), rules=rules)
    peer = Harness(cloud, rules=rules)
    async with sleeper.running(), peer.running():
        first = sleeper.launch("a", started_by="ti")
        await sleeper.until(lambda: cloud.containers)
        await anyio.sleep(600)
        sleeper.stop(first)
        again = make_launch("a", started_by="ti")
        sleeper.submit(again)  # waits for the container before, which still stops
        await anyio.sleep(5)
        sleeper.silence = STALL + 1
        await anyio.sleep(15)
        peer.adopt(under_a_new_id(again), AirflowState.QUEUED)
        await peer.until_launched("a")
        await anyio.sleep(10)
        sleeper.silence = 0.0
        await anyio.sleep(300)
        assert sum(container.alive(anyio.current_time()) for container in cloud.of("a")) == 1


def test_a_silence_that_ends_as_the_engine_looks_is_noticed() -> None:
    age, silences = STALL + 1, 0

    def ends() -> int:
        nonlocal age, silences
        known = silences
        age, silences = 0.0, 1
        return known

    watch = SilenceWatch(STALL, lambda: age, ends)
    assert watch.notices()


async def test_what_comes_long_after_a_silence_is_launched_without_a_search() -> None:
    cloud = FakeCloud(repeatable=False)
    rules = replace(RULES, repeatable=False)
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL), rules=rules).running() as engine:
        engine.silence = STALL + 1
        await anyio.sleep(30)
        engine.silence = 0.0
        engine.silences += 1
        await anyio.sleep(600)
        engine.launch("a")
        await engine.until_launched("a", timeout=1.0)
    assert cloud.calls["search"] == 0


class SlowToStop(FakeCloud):
    """Its containers run on for 100 s after they were told to stop."""

    async def stop(self, handle: Handle, reason: str) -> None:
        await super().stop(handle, reason)
        self.containers[handle.id].stopped = anyio.current_time() + 100.0


@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_waits_for_the_container_before_does_so_after_a_silence_too(repeatable: bool) -> None:
    cloud = SlowToStop(plan=lambda label, nth: Plan(duration=1e5), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL), rules=rules).running() as engine:
        first = engine.launch("a", started_by="ti")
        await engine.until_launched("a")
        await anyio.sleep(60)
        engine.stop(first)
        engine.launch("a", started_by="ti")
        engine.silence = STALL + 1
        await anyio.sleep(30)
        engine.silence = 0.0
        engine.silences += 1
        await engine.until(lambda: len(cloud.of("a")) == 2, timeout=300.0)
    before, after = cloud.of("a")
    assert before.stopped is not None
    assert after.created >= before.stopped


@pytest.mark.parametrize("dies", [False, True])
async def test_what_waits_for_a_revoked_container_after_a_silence_does_so_although_the_loop_dies(
    dies: bool,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e4, lingers=60))
    cloud.fault = lambda operation, cloud: TIMED_OUT if operation == "stop" else None
    engine = Harness(cloud)
    engine.options = replace(engine.options, stall_timeout=20.0)
    engine.new_loop()
    async with engine.running():
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await engine.until_launched("a")
        await anyio.sleep(20)
        engine.stop(first.launch_id)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(2)
        engine.silent_since = None
        engine.silences += 1
        await anyio.sleep(3)
        if not dies:
            await engine.until(lambda: len(cloud.of("a")) == 2)
    if dies:
        engine.new_loop()
        async with engine.running():
            await engine.until(lambda: len(cloud.of("a")) == 2)
    assert cloud.of("a")[1].created >= 20 + RULES.predecessor_wait


async def test_a_silence_is_noticed_although_a_hook_blocks_the_launching() -> None:
    released = anyio.Event()
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL))
    peer = Harness(cloud)

    async def rendered(launch: Launch) -> LaunchSpec:
        await released.wait()
        return sleeper.default_render(launch)

    async with sleeper.running(), peer.running():
        sleeper.render_with(rendered)
        launch = make_launch("a", started_by="ti")
        sleeper.submit(launch)
        await anyio.sleep(1)
        sleeper.silence = STALL + 1
        await anyio.sleep(15)
        peer.adopt(under_a_new_id(launch), AirflowState.QUEUED)
        await peer.until_launched("a")
        sleeper.silence = 0.0
        await anyio.sleep(1)
        released.set()
        await sleeper.until_finished("a")
    assert len(cloud.of("a")) == 1


async def test_a_gate_stays_closed_during_a_silence_for_those_that_were_never_sent() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY))
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL)).running() as engine:
        first = engine.launch("first", priority=9)
        await engine.until(lambda: engine.snapshots and engine.snapshots[-1].closed_gates)
        for n in range(100):
            engine.launch(f"w{n}", tokened=True)
        await anyio.sleep(2)
        engine.stop(first)
        engine.silence = STALL + 1
        sent = cloud.calls["launch"]
        await anyio.sleep(100)
        engine.silence = 0.0
        engine.silences += 1
        await anyio.sleep(3)
    assert cloud.calls["launch"] - sent <= 2
