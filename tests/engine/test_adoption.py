"""What a scheduler adopts from a dead one: it follows, launches or fails it, by the state that Airflow gives."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    TIMED_OUT,
)
from tests.engine.harness import OPTIONS, Harness, first_scheduler_dies, launch_id, make_launch
from tests.engine.virtual_time import wall

pytestmark = pytest.mark.anyio


async def test_adopted_by_arn_is_followed_to_its_end() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    _, known = await first_scheduler_dies(cloud)
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a"), AirflowState.RUNNING, known)
        finished = await second.until_finished("a")
    assert finished.success
    assert len(cloud.of("a")) == 1


async def test_of_many_adopted_by_arn_none_is_searched_for() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=4000.0))
    first = Harness(cloud)
    names = [f"w{number}" for number in range(700)]
    async with first.running():
        for name in names:
            first.launch(name)
        await first.until(lambda: len(first.handles()) == len(names))
    # Slowly enough that the first are resolved while others still wait for their turn.
    second = Harness(cloud, options=replace(OPTIONS, describe_rate=2.0, describe_burst=1.0))
    async with second.running():
        for launch in first.launches():
            second.adopt(launch, AirflowState.RUNNING, first.handles()[launch.label])
        await second.until(lambda: len(second.handles()) == len(names))
    assert set(second.phases()) == {"running"}
    assert cloud.calls["search"] == 0


async def test_adopted_queued_and_never_launched_is_launched_by_us() -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("tokened", tokened=True), AirflowState.QUEUED)
        harness.adopt(make_launch("listed"), AirflowState.QUEUED)
        await harness.until(lambda: len(harness.finished()) == 2)
    assert all(f.success for f in harness.finished())
    assert len(cloud.containers) == 2


async def test_adopted_queued_found_by_its_mark_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    original, _ = await first_scheduler_dies(cloud, started_by="ti-1")
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a", started_by="ti-1").evolve(queued_at=original.queued_at), AirflowState.QUEUED)
        await second.until_finished("a")
    assert len(cloud.of("a")) == 1


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.RESTARTING])
@pytest.mark.parametrize("handle_id", ["container-77", None])
async def test_running_and_gone_is_failed_never_launched(was: AirflowState, handle_id: str | None) -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("a"), was, handle_id)
        finished = await harness.until_finished("a")
    assert not finished.success
    assert finished.reason
    assert cloud.calls["launch"] == 0


async def test_adoption_waits_out_a_service_that_does_not_answer() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600))
    _, known = await first_scheduler_dies(cloud)
    cloud.fault = lambda operation, cloud: TIMED_OUT if anyio.current_time() < 120 else None
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a"), AirflowState.RUNNING, known)
        second.adopt(make_launch("b", started_by="nobody"), AirflowState.QUEUED)
        await second.until(lambda: len(second.finished()) == 2)
    assert all(f.success for f in second.finished())
    assert len(cloud.of("a")) == len(cloud.of("b")) == 1


async def test_a_running_one_that_clocks_make_look_old_is_followed_all_the_same() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    original, known = await first_scheduler_dies(cloud, started_by="ti-1", after=5)
    async with Harness(cloud).running() as second:
        skewed = original.evolve(launch_id=launch_id(), queued_at=original.queued_at + 30)
        second.adopt(skewed, AirflowState.RUNNING, known)
        finished = await second.until_finished("a")
    assert (finished.success, finished.handle_id) == (True, known)


@pytest.mark.parametrize("how", ["adopted", "queued"])
async def test_an_identity_that_an_earlier_queueing_used_up_does_not_bring_its_outcome(how: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5, exit_code=0 if nth == 1 else 3))
    original, _ = await first_scheduler_dies(cloud, tokened=True, over=True, after=60)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        resumed = original.evolve(queued_at=wall())
        if how == "adopted":
            second.adopt(resumed, AirflowState.QUEUED)
        else:
            second.submit(resumed)
        await second.until_finished("a")
    old, new = cloud.of("a")
    assert [f.exit_code for f in second.finished("a")] == [3]
    assert [r.handle_id for r in second.launched("a")] == [new.handle.id]
    assert new.token == f"{original.launch_id}-2"
    assert not old.stop_reasons


async def test_a_used_up_identity_whose_queueing_was_launched_under_another_is_found_by_its_mark() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 100))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until_finished("a")
        await anyio.sleep(60)
        # The scheduler remembers what it used: a new launch id, the old mark.
        first.launch("a", started_by=original.started_by)
        await first.until_launched("a", times=2)
        queued_at = wall() - 1
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(original.evolve(queued_at=queued_at), AirflowState.QUEUED)
        await second.until_finished("a")
    assert len(cloud.of("a")) == 2
    assert second.finished("a")[0].handle_id == cloud.of("a")[1].handle.id


async def test_used_up_tokens_cost_no_attempt() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth in (3, 6)))
    original, _ = await first_scheduler_dies(cloud, tokened=True, over=True, after=60)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(original.evolve(queued_at=wall()), AirflowState.QUEUED)
        finished = await second.until_finished("a")
    assert finished.success
    assert [c.token.removeprefix(original.launch_id) for c in cloud.of("a")] == [f"-{n}" for n in range(1, 7)]
