"""Adopted launches for which Airflow names a container that is not theirs, or not their only one."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import AirflowState, Launch
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import (
    RULES,
    Harness,
    first_scheduler_dies,
    first_scheduler_dies_after_a_deferral,
    launch_id,
    make_launch,
    under_a_new_id,
)

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("by", ["arn", "mark"])
async def test_a_previous_queueings_container_is_not_mistaken_for_this_ones(by: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3, exit_code=0 if nth > 1 else 7))
    _, known = await first_scheduler_dies(cloud, started_by="ti-1", after=60)
    async with Harness(cloud).running() as second:
        resumed = make_launch("a", started_by="ti-1")
        second.adopt(resumed, AirflowState.QUEUED, known if by == "arn" else None)
        finished = await second.until_finished("a")
    assert finished.success
    assert known not in [r.handle_id for r in second.launched("a")]
    assert len(cloud.of("a")) == 2


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.RESTARTING])
async def test_a_running_ones_identifier_of_an_earlier_queueing_does_not_bring_that_ones_outcome(
    was: AirflowState,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 60, exit_code=0 if nth == 1 else 3))
    resumed, old = await first_scheduler_dies_after_a_deferral(cloud, after=5)
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(resumed), was, old)
        finished = await second.until_finished("a")
    assert (finished.exit_code, finished.handle_id) == (3, cloud.of("a")[1].handle.id)


@pytest.mark.parametrize("was", [AirflowState.QUEUED, AirflowState.RUNNING])
@pytest.mark.parametrize("mark", ["assigned", "ti-1"])
async def test_the_container_after_one_that_never_started_is_found_though_airflow_knows_the_first(
    was: AirflowState, mark: str
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, duration=60))
    # Airflow's identity of the launch is overwritten with the first container's identifier.
    fields = {"tokened": True} if mark == "assigned" else {"started_by": mark}
    after = 5 if was is AirflowState.RUNNING else 0
    original, known = await first_scheduler_dies(cloud, containers=2, after=after, **fields)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        adopted = original.evolve(launch_id=launch_id(), started_by="ti-1", tokened=False)
        second.adopt(adopted, was, known)
        finished = await second.until_finished("a")
    assert len(cloud.of("a")) == 2
    assert finished.success
    assert finished.handle_id == cloud.of("a")[1].handle.id


async def test_a_first_container_that_is_not_shown_for_a_moment_does_not_hide_the_second() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, duration=60, hidden_for=40 if nth == 1 else 0))
    original, known = await first_scheduler_dies(cloud, started_by="ti-1")
    # Its end is seen by another scheduler, which launches the second and dies before Airflow hears of that.
    spec = Harness(cloud).default_render(original)
    await cloud.launch(spec, f"{original.launch_id}-2")
    await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(original), AirflowState.RUNNING, known)
        finished = await second.until_finished("a")
    assert (finished.success, finished.handle_id) == (True, cloud.of("a")[1].handle.id)


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.RESTARTING])
@pytest.mark.parametrize("hidden_for", [0.0, 1e6])
async def test_a_running_ones_known_container_that_is_forgotten_does_not_hide_the_one_that_runs(
    was: AirflowState, hidden_for: float
) -> None:
    """A deferral of more than an hour: the service has forgotten the first container, Airflow knows only that."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 1000))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        old = await first.until_launched("a")
        await first.until_finished("a")
        await anyio.sleep(7200)
        cloud.containers[old.handle_id].forgotten_until = anyio.current_time() + hidden_for
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until_launched("a", times=2)
        await anyio.sleep(5)
    if hidden_for:
        cloud.unlisted = lambda container: container.handle.id == old.handle_id
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(resumed), was, old.handle_id)
        finished = await second.until_finished("a")
        await anyio.sleep(5)
    assert (finished.success, finished.handle_id) == (True, cloud.of("a")[1].handle.id)


@pytest.mark.parametrize("named", [True, False])
async def test_a_running_one_is_not_the_older_container_that_has_never_started(named: bool) -> None:
    """The stop of a revoked queueing's container died with its scheduler; the next one's is over by now."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e6) if nth == 1 else Plan(duration=5))
    await first_scheduler_dies(cloud, started_by="ti-1")
    await anyio.sleep(60)
    again = make_launch("a", started_by="ti-1")
    async with Harness(cloud).running() as second:
        second.submit(again)
        await second.until_launched("a")
    await anyio.sleep(10)
    old, new = cloud.of("a")
    async with Harness(cloud).running() as third:
        adopted = under_a_new_id(again)
        third.adopt(adopted, AirflowState.RUNNING, old.handle.id if named else None)
        finished = await third.until_finished("a", timeout=300)
    assert (finished.success, finished.handle_id) == (True, new.handle.id)


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.QUEUED])
async def test_a_mark_of_the_users_own_that_a_known_container_carries_leads_to_nobody_elses(
    was: AirflowState,
) -> None:
    """The known container never started, what says where another would be fails, and "team" is on everything."""

    def render(launch: Launch) -> LaunchSpec:
        return LaunchSpec({"label": launch.label}, "default", "main", "FARGATE", None)

    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=label != "a", duration=1000))
    rules = replace(RULES, max_attempts=1)
    async with Harness(cloud, rules=rules, render=render).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        known = await first.until_launched("a")
        first.launch("b")
        await first.until_launched("b")
        await anyio.sleep(5)
    for container in cloud.containers.values():
        container.started_by = "team"

    def fails(launch: Launch) -> LaunchSpec:
        raise Rejected("the hook has failed")

    async with Harness(cloud, rules=rules, render=fails).running() as second:
        second.adopt(under_a_new_id(original), was, known.handle_id)
        await anyio.sleep(30)
        for launch in second.launches():
            second.stop(launch.launch_id)
        await anyio.sleep(30)
    assert cloud.of("b")[0].stop_reasons == []
    assert not any(one.handle_id == cloud.of("b")[0].handle.id for one in second.launched("a"))


@pytest.mark.parametrize("marked", [False, True])
async def test_adopted_launches_share_no_token_after_the_users_own_mark_was_taken_out_of_the_configuration(
    marked: bool,
) -> None:
    """A startedBy "team" was configured until the scheduler was restarted; the first containers never started."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, start_after=5, duration=100))
    originals = []
    async with Harness(cloud).running() as first:
        for label in "ab":
            originals.append(make_launch(label).evolve(started_by=f"ti-{label}"))
            first.submit(originals[-1])
            await first.until_launched(label)
    for container in cloud.containers.values():
        if marked:
            container.started_by = "team"
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        for original in originals:
            known = cloud.of(original.label)[0].handle.id
            second.adopt(under_a_new_id(original), AirflowState.QUEUED, known)
        await second.until(lambda: second.finished("a") and second.finished("b"))
    assert [len(cloud.of(label)) for label in "ab"] == [2, 2]
    for label in "ab":
        assert [f.handle_id for f in second.finished(label)] == [cloud.of(label)[1].handle.id]
