"""Placements that have no room or refuse: one probe at a time, and no other launch is delayed or failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import AirflowState, HeldUp
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    DENIED,
    EXPIRED,
    NO_MEMORY,
    failing,
)
from tests.engine.harness import OPTIONS, QUOTA, RULES, Harness, make_launch

pytestmark = pytest.mark.anyio


async def test_a_capacity_outage_is_probed_one_at_a_time_and_fails_nothing() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=2100))
    async with Harness(cloud).running() as harness:
        for n in range(300):
            harness.launch(f"w{n}")
        await anyio.sleep(2000)
        assert cloud.calls["launch"] < 64 + 2000 / 5
        assert not harness.finished()
        [notice] = harness.notices("w250")
        assert "no container instance met all of its requirements" in notice.text
        await harness.until(lambda: len(harness.finished()) == 300)
    assert all(f.success for f in harness.finished())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(300))


async def test_a_capacity_outage_of_one_placement_does_not_hold_up_another() -> None:
    class Cloud(FakeCloud):
        async def launch(self, spec: LaunchSpec, client_token: str) -> Any:
            if spec.placement == "gpu":
                self.calls["gpu"] += 1
                raise NO_MEMORY
            return await super().launch(spec, client_token)

    cloud = Cloud()
    async with Harness(cloud).running() as harness:
        for n in range(200):
            harness.launch(f"gpu{n}", route="gpu", priority=100)
            harness.launch(f"cpu{n}", route="cpu")
        await harness.until(lambda: len(harness.finished()) == 200)
        assert anyio.current_time() < 30
    assert {f.key for f in harness.finished()} == {f"cpu{n}" for n in range(200)}
    assert cloud.calls["gpu"] < 80


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("error", [NO_MEMORY, DENIED], ids=["capacity", "refused"])
async def test_a_closed_gate_is_forgotten_once_nobody_waits_there(error: BackendError, repeatable: bool) -> None:
    cloud = FakeCloud(fault=failing("launch", error), repeatable=repeatable)
    rules = replace(RULES, capacity_timeout=900.0, permanent_error_grace=900.0, repeatable=repeatable)
    async with Harness(cloud, rules=rules).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}", route=f"definition:{n}")
        await harness.until(lambda: cloud.calls["launch"] >= 50)
        await anyio.sleep(890)
        assert harness.snapshots[-1].closed_gates == 50
        # One probe at a time at each of them, less and less often.
        assert cloud.calls["launch"] < 50 * 25
        await harness.until(lambda: len(harness.finished()) == 50)
        assert harness.snapshots[-1].closed_gates == 50
        await harness.until(lambda: not harness.snapshots[-1].closed_gates, timeout=200)
        cloud.fault = lambda operation, cloud: None
        harness.launch("w0 again", route="definition:0")
        await harness.until(lambda: harness.launched("w0 again"), timeout=1)


async def test_capacity_timeout_fails_with_the_services_words() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY))
    async with Harness(cloud, rules=replace(RULES, capacity_timeout=300)).running() as harness:
        harness.launch("a")
        harness.launch("b")
        await harness.until(lambda: len(harness.finished()) == 2)
        assert 300 <= anyio.current_time() < 420
    for finished in harness.finished():
        assert "no container instance met all of its requirements" in (finished.reason or "")


async def test_iam_denied_for_30_seconds_with_1000_queued_fails_none() -> None:
    cloud = FakeCloud(fault=failing("launch", DENIED, until=30))
    async with Harness(cloud).running() as harness:
        for n in range(1000):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 1000)
    assert all(f.success for f in harness.finished())


async def test_access_denied_for_good_fails_with_the_services_words_after_the_grace() -> None:
    cloud = FakeCloud(fault=failing("launch", DENIED))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        assert 120 <= anyio.current_time() < 200
        # And one that comes later is tried again before it is failed: somebody may have mended it.
        before = cloud.calls["launch"]
        harness.launch("b")
        await harness.until_finished("b")
        assert cloud.calls["launch"] > before
    assert "not authorized to perform: ecs:RunTask" in str(finished.reason)


async def test_everybody_at_a_gate_is_told_when_it_is_closed_for_something_else() -> None:
    no_cpu = BackendError(Kind.CAPACITY, "RESOURCE:CPU", "no container instance met all of its requirements")

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        errors = ((60.0, DENIED), (200.0, NO_MEMORY), (400.0, no_cpu), (600.0, NO_MEMORY))
        now = anyio.current_time()
        return next((error for until, error in errors if now < until), None) if operation == "launch" else None

    cloud = FakeCloud(fault=fault)
    async with Harness(cloud).running() as harness:
        for n in range(3):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 3, timeout=900.0)
        told = [[one.text for one in harness.notices(f"w{n}")] for n in range(3)]
    for texts in told:
        assert "refuses it: AccessDeniedException" in texts[0]
        assert [text.split(": ")[2] for text in texts[1:]] == ["RESOURCE:MEMORY", "RESOURCE:CPU"]


async def test_what_the_second_container_waits_for_is_told_as_well() -> None:
    outages = [(0.0, 60.0), (90.0, 3000.0)]

    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        return NO_MEMORY if operation == "launch" and any(a <= now < b for a, b in outages) else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=30, starts=nth > 1), fault=fault)
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert finished.success
    assert [type(r).__name__ for r in harness.reports] == ["Notice", "Launched", "Notice", "Launched", "Finished"]
    assert all(notice.unlaunched for notice in harness.notices("a"))


async def test_a_refusal_that_was_mended_into_a_lack_of_capacity_fails_nothing() -> None:
    cloud = FakeCloud()
    cloud.fault = lambda operation, _: (
        None
        if operation != "launch" or anyio.current_time() > 600
        else (DENIED if anyio.current_time() < 30 else NO_MEMORY)
    )
    async with Harness(cloud).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 20)
    assert all(f.success for f in harness.finished())


async def test_a_lack_of_capacity_that_turned_into_a_refusal_fails_after_the_grace_of_the_refusal() -> None:
    cloud = FakeCloud()
    cloud.fault = lambda operation, _: (
        None if operation != "launch" else (NO_MEMORY if anyio.current_time() < 600 else DENIED)
    )
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a", timeout=1000)
        assert anyio.current_time() > 720
    assert "not authorized" in str(finished.reason)


@pytest.mark.parametrize("pause", ["credentials", "silence"])
async def test_a_refusal_that_could_not_be_tried_again_meanwhile_fails_nothing(pause: str) -> None:
    """Refused once, then nothing can be asked for ten minutes, in which somebody mends it."""

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        if operation == "launch" and now < 3:
            return DENIED
        return EXPIRED if pause == "credentials" and 3 <= now < 600 else None

    cloud = FakeCloud(fault=fault)
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0)).running() as harness:
        for n in range(200):
            harness.launch(f"w{n}", tokened=True)
        await anyio.sleep(3)
        if pause == "silence":
            harness.silence = 600.0
            await anyio.sleep(600)
            harness.silence = 0.0
            harness.silences += 1
        await harness.until(lambda: len(harness.finished()) == 200)
    assert Counter(f.reason for f in harness.finished() if not f.success) == {}


class Selective(FakeCloud):
    """Refuses the launches of some workloads, and of no other."""

    def __init__(self, bad: Any, error: BackendError, **more: Any) -> None:
        super().__init__(**more)
        self.bad, self.error = bad, error

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        if self.bad(spec.request["label"]):
            self.calls["bad"] += 1
            await anyio.sleep(self.latency)
            raise self.error
        return await super().launch(spec, client_token)


async def test_a_refusal_that_is_about_one_workload_fails_no_other() -> None:
    cloud = Selective(lambda label: label == "bad", DENIED)
    async with Harness(cloud, options=QUOTA).running() as harness:
        harness.launch("bad")
        for n in range(100):
            harness.launch(f"good{n}")
        await harness.until(lambda: len(harness.finished()) == 101)
    assert {f.key: f.reason for f in harness.finished() if not f.success}.keys() == {"bad"}


async def test_one_without_room_does_not_hold_up_the_others_of_its_placement_for_ever() -> None:
    cloud = Selective(lambda label: label == "bad", NO_MEMORY)
    async with Harness(cloud, options=QUOTA).running() as harness:
        harness.launch("bad")
        for n in range(100):
            harness.launch(f"good{n}")
        await harness.until(lambda: len(harness.finished()) == 100, timeout=3600)
    assert cloud.calls["bad"] < 100


async def test_capacity_timeout_ends_the_wait_although_some_capacity_comes_now_and_then() -> None:
    """One container gets room every minute."""
    free = [0.0]

    class Cloud(FakeCloud):
        async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
            if anyio.current_time() < free[0]:
                await anyio.sleep(self.latency)
                raise NO_MEMORY
            free[0] = anyio.current_time() + 60
            return await super().launch(spec, client_token)

    async with Harness(Cloud(), rules=replace(RULES, capacity_timeout=300.0), options=QUOTA).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}", priority=-n)
        await anyio.sleep(1000)
        assert harness.without_container() == []


async def test_200_wait_12_minutes_for_the_hosts_of_a_group_in_one_container_each_and_none_is_stopped() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=725.0, unplaced=720.0))
    async with Harness(cloud, options=QUOTA).running() as harness:
        for n in range(200):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 200, timeout=900)
    assert all(finished.success for finished in harness.finished())
    assert len(cloud.containers) == 200
    assert not cloud.asked_to_stop
    held = [(report.key, report.over) for report in harness.reports if isinstance(report, HeldUp)]
    assert sorted(held) == sorted((f"w{n}", over) for n in range(200) for over in (False, True))


@pytest.mark.parametrize("times", [1, 5])
async def test_a_container_that_found_no_place_closes_the_gate_and_costs_no_attempt(times: int) -> None:
    """The service gives up looking for room after half an hour, more often than a launch has attempts."""

    def plan(label: str, nth: int) -> Plan:
        return Plan(start_after=1800.0, unplaced=1800.0, starts=False) if nth <= times else Plan()

    cloud = FakeCloud(plan=plan)
    async with Harness(cloud, options=QUOTA).running() as harness:
        for n in range(20):
            harness.launch(f"w{n}")
        await anyio.sleep(1802.5)
        assert harness.snapshots[-1].closed_gates == 1
        assert len(cloud.containers) == 20, "nothing is sent before the gate's first probe"
        await harness.until(lambda: len(harness.finished()) == 20, timeout=20000)
    assert all(finished.success for finished in harness.finished())
    assert len(cloud.containers) == 20 * (times + 1)
    assert not cloud.asked_to_stop


@pytest.mark.parametrize("repeatable", [True, False])
async def test_adopted_containers_without_a_place_close_the_gate_at_the_next_request(
    repeatable: bool,
) -> None:
    """The adopter does not know where their requests went until it has made one anew."""
    plan = Plan(start_after=1800.0, unplaced=1800.0, starts=False)
    cloud = FakeCloud(plan=lambda label, nth: plan if nth == 1 else Plan(), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    launches = [make_launch(f"w{n}", tokened=repeatable) for n in range(20)]
    async with Harness(cloud, rules=rules).running() as first:
        first.submit(*launches)
        await first.until(lambda: len(cloud.containers) == 20)
    async with Harness(cloud, rules=rules, options=QUOTA).running() as second:
        for launch in launches:
            second.adopt(launch, AirflowState.QUEUED, cloud.of(launch.label)[0].handle.id)
        await second.until(lambda: second.snapshots and second.snapshots[-1].closed_gates, timeout=2000)
        assert len(cloud.containers) == 20, "nothing is sent before the gate's first probe"
        await second.until(lambda: len(cloud.containers) == 21, timeout=60)
        assert anyio.current_time() > 1805.0
        await second.until(lambda: len(second.finished()) == 20, timeout=20000)
    assert all(finished.success for finished in second.finished())
    assert len(cloud.containers) == 40
    assert not cloud.asked_to_stop


async def test_capacity_timeout_stops_what_waits_for_a_place_and_fails_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1800.0, unplaced=1800.0, starts=False))
    async with Harness(cloud, rules=replace(RULES, capacity_timeout=2400.0)).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        assert 2400 <= anyio.current_time() < 2450
    assert not finished.success
    assert "PROVISIONING" in (finished.reason or "")
    assert len(cloud.of("a")) == 2
    assert len(cloud.asked_to_stop) == 1
