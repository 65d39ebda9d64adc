"""A key that Airflow queues again while its earlier launch is still under way."""

from __future__ import annotations

import anyio
import pytest

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, make_launch, under_a_new_id
from tests.engine.virtual_time import EPOCH, wall

pytestmark = pytest.mark.anyio


async def test_a_deferrals_resume_while_the_old_container_still_stops() -> None:
    plans = {1: Plan(duration=5, exit_code=0), 2: Plan(duration=30)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    # The old container's exit is not seen before the key is queued again.
    cloud.fault = failing("describe", TIMED_OUT, until=12)
    async with Harness(cloud).running() as harness:
        old = harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await harness.until_finished("a")
        await anyio.sleep(60)
    assert [f.launch_id for f in harness.finished("a")] == [new]
    assert [r.launch_id for r in harness.launched("a")] == [old, new]
    assert not any(c.stop_reasons for c in cloud.of("a"))
    assert harness.is_idle()


async def test_a_failure_is_held_while_another_container_of_the_key_lives() -> None:
    plans = {1: Plan(duration=60, exit_code=0), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await anyio.sleep(20)
        assert not harness.finished("a")
        finished = await harness.until_finished("a")
        assert anyio.current_time() >= 61
    assert finished.launch_id == new


async def test_a_failure_that_is_held_is_not_told_after_a_revoke() -> None:
    plans = {1: Plan(duration=60), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await anyio.sleep(20)
        assert new not in [launch.launch_id for launch in harness.launches()]
        harness.stop(new)
        await anyio.sleep(400)
    assert not harness.finished("a")


async def test_a_failure_that_is_held_is_not_told_once_its_key_is_queued_again() -> None:
    plans = {1: Plan(duration=60), 2: Plan(duration=2, exit_code=1), 3: Plan(duration=100)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        harness.launch("a")
        await anyio.sleep(20)
        third = harness.launch("a")
        await harness.until_idle()
    assert [(f.launch_id, f.success) for f in harness.finished("a")] == [(third, True)]


async def test_a_failure_is_held_for_a_bounded_time_although_nothing_can_be_read() -> None:
    plans = {1: Plan(duration=6000), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        harness.launch("a")
        await anyio.sleep(20)
        cloud.fault = failing("describe", TIMED_OUT)
        await harness.until_finished("a", timeout=330)


@pytest.mark.parametrize("was", ["sending", "in doubt", "starting"])
async def test_a_queueing_under_the_identity_of_a_revoked_launch_that_lingers_is_not_dropped(was: str) -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        unanswered = was == "in doubt" and asked == "launch" and anyio.current_time() < 60
        return TIMED_OUT if unanswered or (asked == "stop" and anyio.current_time() < 600) else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e6 if nth == 1 else 1, exit_code=3), fault=fault)
    cloud.latency = 100.0 if was == "sending" else 0.05
    async with Harness(cloud).running() as engine:
        first = make_launch("a", tokened=True)
        engine.submit(first)
        await anyio.sleep(10)
        assert engine.phases() == [was]
        cloud.latency = 0.05
        engine.stop(first.launch_id)
        await anyio.sleep(10)
        engine.submit(first.evolve(queued_at=wall()))
        await engine.until_finished("a")
        await anyio.sleep(1000)
        assert engine.is_idle()
    assert [f.exit_code for f in engine.finished("a")] == [3]
    assert len({c.token for c in cloud.of("a")}) == 2


@pytest.mark.parametrize("requeued_after", [0.0, RULES.predecessor_wait + 30.0])
async def test_a_revoked_launch_that_is_found_late_does_not_stop_the_container_of_the_next(
    requeued_after: float,
) -> None:
    listing_works_at = [1e9]

    def no_listing(operation: str, cloud: FakeCloud) -> BackendError | None:
        return TIMED_OUT if operation == "search" and anyio.current_time() < listing_works_at[0] else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=300), fault=no_listing)
    async with Harness(cloud).running() as engine:
        # Airflow assigns no identity: both queueings have the task instance's id for their mark.
        adopted = make_launch("a", started_by="ti-1")
        engine.adopt(adopted, AirflowState.QUEUED)
        await anyio.sleep(1)
        engine.stop(adopted.launch_id)
        await anyio.sleep(requeued_after)
        again = make_launch("a", started_by="ti-1")
        engine.submit(again)
        await engine.until_launched("a")
        listing_works_at[0] = anyio.current_time()
        finished = await engine.until_finished("a")
        await engine.until_idle()
    assert (finished.success, finished.launch_id) == (True, again.launch_id)
    [container] = cloud.of("a")
    assert container.stop_reasons == []


async def test_a_revoked_launch_that_is_found_late_stops_its_own_container_and_not_that_of_the_next() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600))
    original, _ = await first_scheduler_dies(cloud, started_by="ti-1", told=False)
    cloud.fault = lambda operation, cloud: TIMED_OUT if operation == "search" else None
    async with Harness(cloud).running() as second:
        adopted = under_a_new_id(original)
        second.adopt(adopted, AirflowState.QUEUED)
        await anyio.sleep(10)
        second.stop(adopted.launch_id)
        again = make_launch("a", started_by="ti-1")
        second.submit(again)
        await second.until_launched("a")
        cloud.fault = lambda operation, cloud: None
        finished = await second.until_finished("a")
    assert (finished.success, finished.launch_id) == (True, again.launch_id)
    old, new = cloud.of("a")
    assert (old.stop_reasons, new.stop_reasons) == (["revoked"], [])


@pytest.mark.parametrize("hidden_for", [0.0, 10.0])
async def test_a_revoked_search_does_not_stop_the_next_launchs_container_that_is_not_described_yet(
    hidden_for: float,
) -> None:
    """Its request has no answer, then is refused; it is looked for, revoked, and queued again."""

    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation == "launch" and cloud.calls["launch"] <= 2:
            return TIMED_OUT if cloud.calls["launch"] == 1 else INVALID
        if operation == "launch:after":  # the next launch's answers are lost, for a quarter of a minute
            return TIMED_OUT if anyio.current_time() < 140 else None
        return TIMED_OUT if operation == "search" and anyio.current_time() < 65 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(hidden_for=hidden_for, duration=300))
    async with Harness(cloud).running() as engine:
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await anyio.sleep(3)
        engine.stop(first.launch_id)
        again = make_launch("a", started_by="ti-1")
        engine.submit(again)
        finished = await engine.until_finished("a")
    [container] = cloud.of("a")
    assert container.stop_reasons == []
    assert (finished.success, finished.launch_id) == (True, again.launch_id)


async def test_an_identity_that_is_queued_again_while_its_adopted_container_has_ended_unseen_is_launched() -> None:
    def plan(label: str, nth: int) -> Plan:
        return Plan(duration=20) if nth == 1 else Plan(duration=40, exit_code=1)

    cloud = FakeCloud(plan=plan)
    launch, _ = await first_scheduler_dies(cloud, tokened=True, after=5)
    async with Harness(cloud).running() as second:
        second.adopt(launch, AirflowState.RUNNING)
        await anyio.sleep(3)
        cloud.fault = lambda operation, _: (
            TIMED_OUT if operation == "describe" and anyio.current_time() < 40 else None
        )
        await anyio.sleep(25)  # deferred, and due again; its end was not seen
        second.submit(launch.evolve(queued_at=EPOCH + anyio.current_time()))
        await second.until_finished("a")
        await anyio.sleep(600)
    assert [end.exit_code for end in second.finished("a")] == [1]
    assert len(cloud.of("a")) == 2
