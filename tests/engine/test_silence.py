"""A scheduler that was silent for so long that another has adopted its launches, and then goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import anyio
import msgspec
import pytest

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.lifecycle import Phase
from ecs_async_executor.core.messages import Launch, Release, Was
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.options import Options
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, RULES, Harness, launch_id, make_launch
from tests.engine.test_engine import NO_MEMORY, TIMED_OUT, failing, in_virtual_time

STALL = 20.0
LAUNCHES = 500


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


def adopted_without_its_identity(launch: Launch) -> Launch:
    return replace(launch, launch_id=launch_id())


@in_virtual_time
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
            peer.adopt(adopted_without_its_identity(launch), Was.QUEUED)
        await anyio.sleep(10)
        assert len(cloud.containers) < LAUNCHES, "nothing was left that both could launch"
        sleeper.release(*launches)  # as the database says
        sleeper.silence = 0.0
        await anyio.sleep(1500)
    assert {len(cloud.of(launch.label)) for launch in launches} == {1}
    assert not any(container.stop_reasons for container in cloud.containers.values())
    assert not sleeper.ledger.records
    assert sleeper.finished() == []


@in_virtual_time
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
        engine.engine.launching.wake()
        await anyio.sleep(60)
    assert cloud.calls["launch"] == 0
    assert not engine.ledger.records


@in_virtual_time
@pytest.mark.parametrize("phase", [Phase.SENDING, Phase.AMBIGUOUS, Phase.UNRESOLVED, Phase.ACTIVE])
async def test_what_is_released_says_nothing_more_and_its_container_runs_on(phase: Phase) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=30, duration=1e5), latency=2.0)
    if phase in (Phase.AMBIGUOUS, Phase.UNRESOLVED):
        cloud.fault = failing("launch:after", TIMED_OUT)
    rules = replace(RULES, repeatable=phase is not Phase.UNRESOLVED)
    async with Harness(cloud, rules=rules).running() as engine:
        launch = make_launch("a")
        engine.submit(launch)
        await engine.until(lambda: [record.phase for record in engine.ledger.records.values()] == [phase])
        await engine.until(lambda: cloud.of("a"))
        assert [record.phase for record in engine.ledger.records.values()] == [phase]
        engine.take()
        engine.reports.clear()
        engine.release(launch)
        await anyio.sleep(600)
    assert engine.take() == []
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_a_revoked_launch_is_stopped_although_it_is_released() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        launch = make_launch("a")
        engine.submit(launch)
        await anyio.sleep(0.5)
        engine.stop(launch.launch_id)
        engine.release(launch)
        await engine.until(lambda: not engine.ledger.records)
    assert [container.stop_reasons for container in cloud.of("a")] == [["revoked"]]


@in_virtual_time
async def test_what_is_released_in_flight_is_not_stopped_with_everything_else() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        released, other = make_launch("a"), make_launch("b")
        engine.submit(released, other)
        await engine.until(lambda: cloud.of("a") and cloud.of("b"))
        engine.release(released)
        await engine.until(lambda: engine.launched("b"))
        engine.engine.drain("terminated")
        await engine.until(lambda: cloud.of("b")[0].stop_reasons)
        await anyio.sleep(10)
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]


@in_virtual_time
async def test_what_is_released_in_flight_and_adopted_back_keeps_its_container() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e4, duration=1e5), latency=2.0)
    async with Harness(cloud).running() as engine:
        launch = make_launch("a", tokened=True)
        engine.submit(launch)
        await engine.until(lambda: cloud.of("a"))
        engine.release(launch)
        await engine.until(lambda: not engine.ledger.records)
        engine.adopt(launch, Was.QUEUED)
        await engine.until(lambda: engine.launched("a"))
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_a_silence_in_which_the_loop_did_nothing_either_is_noticed_when_it_is_over() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL))
    peer = Harness(cloud)
    async with sleeper.running(), peer.running():
        launch = make_launch("a", started_by="ti")
        peer.submit(adopted_without_its_identity(launch))
        await peer.until(lambda: peer.launched("a"))
        sleeper.inbox.append(launch)
        sleeper.silences += 1  # a process that was stopped: the scheduler's thread was the first to go on
        await sleeper.until(lambda: sleeper.finished("a"))
    assert len(cloud.of("a")) == 1


class Reticent(FakeCloud):
    """Says why a container stops once it has stopped."""

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        seen = await super().describe(scope, ids)
        return [msgspec.structs.replace(o, reason="") if o.seen is Seen.PENDING else o for o in seen]


@in_virtual_time
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
        peer.adopt(adopted_without_its_identity(again), Was.QUEUED)
        await peer.until(lambda: peer.launched("a"))
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


@in_virtual_time
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
        await engine.until(lambda: engine.launched("a"), timeout=1.0)
    assert cloud.calls["find"] == 0


class SlowToStop(FakeCloud):
    """Its containers run on for 100 s after they were told to stop."""

    async def stop(self, handle: Handle, reason: str) -> None:
        await super().stop(handle, reason)
        self.containers[handle.id].stopped = anyio.current_time() + 100.0


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
async def test_what_waits_for_the_container_before_does_so_after_a_silence_too(repeatable: bool) -> None:
    cloud = SlowToStop(plan=lambda label, nth: Plan(duration=1e5), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL), rules=rules).running() as engine:
        first = engine.launch("a", started_by="ti")
        await engine.until(lambda: engine.launched("a"))
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


@in_virtual_time
async def test_a_silence_is_noticed_although_a_hook_blocks_the_launching() -> None:
    released = anyio.Event()
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    peer = Harness(cloud)

    class Hook(Rendering):
        async def render(self, launch: Launch) -> LaunchSpec:
            await released.wait()
            return peer.default_render(launch)

    hook = Hook(peer.default_render)
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL), rendering=hook)
    async with sleeper.running(), peer.running():
        launch = make_launch("a", started_by="ti")
        sleeper.submit(launch)
        await anyio.sleep(1)
        sleeper.silence = STALL + 1
        await anyio.sleep(15)
        peer.adopt(adopted_without_its_identity(launch), Was.QUEUED)
        await peer.until(lambda: peer.launched("a"))
        sleeper.silence = 0.0
        await anyio.sleep(1)
        released.set()
        await sleeper.until(lambda: sleeper.finished("a"))
    assert len(cloud.of("a")) == 1


@in_virtual_time
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
