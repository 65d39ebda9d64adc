"""Which container belongs to a launch where several carry its mark."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import (
    OPTIONS,
    RULES,
    STALL,
    Harness,
    first_scheduler_dies,
    first_scheduler_dies_after_a_deferral,
    make_launch,
    under_a_new_id,
)

pytestmark = pytest.mark.anyio


async def test_a_finished_container_of_this_queueing_counts_for_more_than_a_living_one_of_an_earlier() -> None:
    plans = {1: Plan(duration=20, lingers=100), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans.get(nth, Plan()))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await anyio.sleep(10)
        second_launch = make_launch("a", started_by="ti-1")
        first.submit(second_launch)
        await first.until_launched("a", times=2)
    await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(
            make_launch("a", started_by="ti-1").evolve(queued_at=second_launch.queued_at), AirflowState.QUEUED
        )
        finished = await second.until_finished("a")
    assert finished.exit_code == 1
    assert len(cloud.of("a")) == 2


@pytest.mark.parametrize("lingers", [0.0, 100.0])
async def test_a_container_that_is_over_but_still_stopping_weighs_no_more_than_one_that_is_over(
    lingers: float,
) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(duration=5, lingers=lingers) if nth == 1 else Plan(duration=5, exit_code=3)
    )
    resumed, _ = await first_scheduler_dies_after_a_deferral(cloud)
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(resumed), AirflowState.RUNNING)
        finished = await second.until_finished("a")
    assert (finished.exit_code, finished.handle_id) == (3, cloud.of("a")[1].handle.id)


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.RESTARTING])
@pytest.mark.parametrize("hidden_for", [30.0, 1e6])
async def test_a_listed_container_that_is_not_described_weighs_more_than_one_that_never_started(
    was: AirflowState, hidden_for: float
) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(starts=nth > 1, duration=1e6, hidden_for=0 if nth == 1 else hidden_for)
    )
    original, _ = await first_scheduler_dies(cloud, tokened=True, containers=2, after=5)
    known, runs = (container.handle.id for container in cloud.of("a"))
    async with Harness(cloud).running() as second:
        second.adopt(original, was, known)
        await anyio.sleep(RULES.missing_grace + 10)
        finished = second.finished("a")
    assert len(cloud.of("a")) == 2
    if hidden_for < RULES.missing_grace:
        assert not finished
        assert [launched.handle_id for launched in second.launched("a")] == [runs]
    else:
        assert "MISSING for" in str(finished[0].reason)
        assert (finished[0].handle_id, cloud.asked_to_stop) == (runs, {runs})


@pytest.mark.parametrize("hidden_for", [30.0, 100.0, 1e6])
async def test_a_listed_container_that_is_not_described_weighs_more_than_one_of_an_earlier_queueing_that_is_over(
    hidden_for: float,
) -> None:
    """A deferral; the container after it is listed, but not described for longer than the grace."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 1e6))
    resumed, _ = await first_scheduler_dies_after_a_deferral(cloud, after=5)
    old, runs = cloud.of("a")
    runs.forgotten_until = anyio.current_time() + hidden_for
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(resumed), AirflowState.RUNNING)
        await anyio.sleep(RULES.missing_grace + 10)
        finished = second.finished("a")
    assert not any(f.success for f in finished)
    assert not any(f.handle_id == old.handle.id for f in finished)
    if finished:
        assert cloud.asked_to_stop == {runs.handle.id}


async def test_what_a_person_stopped_is_not_launched_again_for_an_older_container_that_is_not_described() -> None:
    """Adopted while queued: the first container is an earlier queueing's, the second one a person has stopped."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5) if nth == 1 else Plan(start_after=1e5))
    again, _ = await first_scheduler_dies_after_a_deferral(cloud)
    old, new = cloud.of("a")
    old.forgotten_until = 1e9
    new.stop_by_hand()
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(again), AirflowState.QUEUED)
        await second.until(lambda: second.finished("a") or len(cloud.of("a")) > 2)
    assert len(cloud.of("a")) == 2
    assert [f.handle_id for f in second.finished("a")] == [new.handle.id]


async def test_a_launch_that_was_never_sent_does_not_fail_for_an_earlier_queueings_container() -> None:
    """After a silence what waits is looked for; an earlier queueing's container is listed, but not described."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5))
    await first_scheduler_dies(cloud, started_by="ti-1", over=True, after=20)
    [old] = cloud.of("a")
    old.forgotten_until = 1e9
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=STALL)).running() as engine:
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(1)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(5)
        engine.silent_since = None
        engine.silences += 1
        finished = await engine.until_finished("a")
    assert finished.success


async def test_a_stuck_launchs_container_that_the_service_never_knew_is_not_taken_for_the_next_launchs() -> None:
    """The ledger itself knows whose it is: it was named in the answer to the revoked launch's request."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=1e9) if nth == 1 else Plan())
    engine = Harness(cloud, rules=replace(RULES, missing_grace=1000.0))
    engine.options = replace(engine.options, stall_timeout=20.0)
    engine.new_loop()
    async with engine.running():
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await engine.until_launched("a")
        await anyio.sleep(600)
        engine.stop(first.launch_id)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(2)
        engine.silent_since = None
        engine.silences += 1
        finished = await engine.until_finished("a")
    assert finished.success
