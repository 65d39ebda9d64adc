"""Containers that the service does not know, for a while or for good."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import AirflowState, Launched
from ecs_async_executor.engine.statistics import shown
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    TIMED_OUT,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, launch_id, make_launch, under_a_new_id

pytestmark = pytest.mark.anyio


async def test_missing_for_seconds_after_run_task_is_waited_out() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=20))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert finished.success
    assert len(cloud.of("a")) == 1


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("adopted", [False, True])
async def test_what_runs_may_be_missing_for_two_minutes(adopted: bool, repeatable: bool) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    first = Harness(cloud, rules=rules)
    async with first.running():
        launch = make_launch("a", tokened=repeatable)
        first.submit(launch)
        await first.until_launched("a")
        await anyio.sleep(10)
    then = first
    if adopted:
        then = Harness(cloud, rules=rules)
    else:
        then.new_loop()
    async with then.running():
        [container] = cloud.of("a")
        if adopted:
            then.adopt(launch, AirflowState.RUNNING, container.handle.id)
        await anyio.sleep(600)
        container.plan.hidden_for = anyio.current_time() - container.created + 120.0
        await anyio.sleep(300)
        assert not then.finished("a")
        assert not container.stop_reasons


async def test_missing_for_ever_is_stopped_then_failed_but_not_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=1e9, duration=1e9))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        await anyio.sleep(5)
    assert not finished.success
    assert "MISSING for 60 s" in str(finished.reason)
    [container] = cloud.of("a")
    assert container.stop_reasons


@pytest.mark.parametrize("seen", [True, False])
async def test_missing_before_and_after_an_outage_is_not_missing_for_all_of_it(seen: bool) -> None:
    """The service does not know a container for some seconds before an outage, and for some after it."""
    begins = 20.0 if seen else 0.0

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        return TIMED_OUT if operation == "describe" and begins + 5 <= anyio.current_time() < 600 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(duration=1000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(0.04)
        [container] = cloud.of("a")
        await anyio.sleep(begins)
        container.forgotten_until = 605.0
        finished = await harness.until_finished("a")
    assert container.stop_reasons == []
    assert finished.success


async def test_listed_but_not_yet_described_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=30))
    original, _ = await first_scheduler_dies(cloud, started_by="ti-1")
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a", started_by="ti-1").evolve(queued_at=original.queued_at), AirflowState.QUEUED)
        await second.until_finished("a")
    assert len(cloud.of("a")) == 1


async def test_a_known_container_that_the_service_does_not_show_yet_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=40, hidden_for=20))
    original, known = await first_scheduler_dies(cloud, tokened=True)
    async with Harness(cloud).running() as second:
        adopted = original.evolve(launch_id=launch_id(), started_by="ti-1", tokened=False)
        second.adopt(adopted, AirflowState.QUEUED, known)
        finished = await second.until_finished("a")
    assert len(cloud.of("a")) == 1
    assert (finished.success, finished.handle_id) == (True, known)
    assert {r.handle_id for r in second.reports if isinstance(r, Launched)} == {known}


async def test_a_container_that_appears_just_before_the_patience_ends_gets_its_grace() -> None:
    """It is missing for 8 s, and its search had found nothing before: not "MISSING for 60 s"."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1, duration=1e5))
    original, _ = await first_scheduler_dies(cloud, started_by="ti-1", told=False, after=5)
    [runs] = cloud.of("a")
    began = anyio.current_time()
    cloud.unlisted = lambda container: anyio.current_time() <= began + 56
    runs.forgotten_until = began + 64
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(original), AirflowState.RUNNING)
        await anyio.sleep(90)
        assert not second.finished("a")


async def test_one_answer_that_came_late_and_names_no_container_fails_nothing() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5))
    original, known = await first_scheduler_dies(cloud, started_by="ti-1", after=10)
    adopted_at = anyio.current_time()
    asked_at: list[float] = []

    def no_answer_then_hidden(operation: str, cloud: FakeCloud) -> BackendError | None:
        waited = anyio.current_time() - adopted_at
        if operation == "describe":
            asked_at.append(waited)
            # What it is asked for first is not shown, once.
            cloud.containers[known].plan.hidden_for = 10_000.0 if len(asked_at) == 1 else 0.0
        return TIMED_OUT if operation == "search" and waited < 100 else None

    cloud.fault = no_answer_then_hidden
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(original), AirflowState.RUNNING)
        finished = await second.until_finished("a")
    assert asked_at[0] > RULES.missing_grace
    assert (finished.success, finished.handle_id) == (True, known)


@pytest.mark.parametrize("lasts", [120.0, 1e9])
async def test_a_container_that_ran_and_is_not_known_is_named_in_the_log_and_in_the_dump(lasts: float) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    async with Harness(cloud, rules=replace(RULES, lost_container_grace=200.0)).running() as engine:
        engine.launch("a")
        await engine.until_launched("a")
        await anyio.sleep(10)
        [container] = cloud.of("a")
        [tracked] = engine.ledger.launches.values()
        assert shown(tracked, anyio.current_time())["missing_for"] is None
        with capture_logs() as logs:
            container.plan.hidden_for = anyio.current_time() - container.created + lasts
            await anyio.sleep(100)
            missing_for = shown(tracked, anyio.current_time())["missing_for"]
            finished = await engine.until_finished("a")
    assert 90.0 < missing_for < 101.0  # type: ignore[operator]
    [line] = [line for line in logs if "missing" in line["event"]]
    assert (line["workload"], line["handle_id"], line["lost_after"]) == ("a", container.handle.id, 200.0)
    assert finished.success is (lasts < 200.0)
    assert finished.success or "MISSING for 200 s" in str(finished.reason)


async def test_a_new_container_that_is_not_known_for_a_moment_is_not_in_the_log() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=20))
    with capture_logs() as logs:
        async with Harness(cloud).running() as engine:
            engine.launch("a")
            await engine.until_finished("a")
    assert not [line for line in logs if "missing" in line["event"]]


@pytest.mark.parametrize("latency", [0.05, 3.0, 8.0])
async def test_a_grace_is_as_long_where_answers_take_their_time(latency: float) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=1e6, duration=1e6), latency=latency)
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_launched("a")
        began = anyio.current_time()
        await harness.until_finished("a")
        assert anyio.current_time() - began < RULES.missing_grace + 4 * latency + 5.0


@pytest.mark.parametrize("latency", [0.05, 3.0, 8.0])
async def test_a_search_that_finds_nothing_is_as_long_where_answers_take_their_time(latency: float) -> None:
    async with Harness(FakeCloud(latency=latency)).running() as harness:
        began = anyio.current_time()
        harness.adopt(make_launch("a"), AirflowState.RUNNING)
        await harness.until_finished("a")
        assert anyio.current_time() - began < RULES.missing_grace + 4 * latency + 15.0
