"""A launch's way from request to end, and requests that cannot be made."""

from __future__ import annotations

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import AirflowState, Finished, Launch, Launched
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    failing,
)
from tests.engine.harness import Harness, make_launch

pytestmark = pytest.mark.anyio


async def test_a_launch_is_reported_launched_then_finished() -> None:
    async with Harness(FakeCloud()).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
    first, last = harness.reports
    assert isinstance(first, Launched)
    assert isinstance(last, Finished)
    assert last.success
    assert last.handle_id == first.handle_id == harness.cloud.of("a")[0].handle.id
    assert harness.is_idle()


async def test_a_non_zero_exit_is_failed_once_and_never_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(exit_code=1))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        await anyio.sleep(300)
    assert [f.success for f in harness.finished("a")] == [False]
    assert finished.reason == "The container exited 1"
    assert len(cloud.of("a")) == 1


async def test_an_exit_code_decides_although_the_container_is_still_stopping() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5, lingers=60))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
        assert anyio.current_time() < 10


async def test_a_container_that_never_started_is_launched_again_under_the_next_token() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 2))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        finished = await harness.until_finished("a")
    assert finished.success
    assert [c.token for c in cloud.of("a")] == [f"{launch_id}-{n}" for n in (1, 2, 3)]


@pytest.mark.parametrize("adopted", [None, "by its mark", "by its identifier"])
async def test_a_container_that_a_person_stopped_before_it_started_is_not_launched_again(
    adopted: str | None,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=60))
    async with Harness(cloud).running() as harness:
        launch = make_launch("a")
        harness.submit(launch)
        await harness.until_launched("a")
        [container] = cloud.of("a")
        if adopted is None:
            container.stop_by_hand()
            await harness.until_finished("a")
    if adopted is not None:
        container.stop_by_hand()
        async with Harness(cloud).running() as harness:
            handle_id = container.handle.id if adopted == "by its identifier" else None
            harness.adopt(launch, AirflowState.QUEUED, handle_id)
            await harness.until_finished("a")
    [finished] = harness.finished("a")
    assert (finished.success, finished.reason) == (False, "It stopped")
    assert len(cloud.of("a")) == 1


async def test_containers_that_never_start_are_given_up_after_max_run_task_attempts() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=False))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert not finished.success
    assert "3 of 3" in str(finished.reason)
    assert len(cloud.of("a")) == 3


async def test_a_container_that_never_gets_out_of_provisioning_is_waited_for_until_it_is_revoked() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=float("inf") if nth == 1 else 1.0))
    async with Harness(cloud).running() as harness:
        stuck = harness.launch("a")
        await anyio.sleep(1800)
        assert not harness.finished()
        harness.stop(stuck)
        harness.launch("a")
        finished = await harness.until_finished("a")
    first, second = cloud.of("a")
    assert first.stop_reasons == ["revoked"]
    assert finished.success
    assert finished.handle_id == second.handle.id


async def test_a_host_lost_after_the_start_is_failed_not_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(exit_code=None))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        await anyio.sleep(300)
    assert (finished.success, finished.exit_code, finished.reason) == (False, None, "It stopped")
    assert len(cloud.of("a")) == 1


async def test_a_malformed_request_fails_at_once() -> None:
    invalid = BackendError(Kind.INVALID, "InvalidParameterException", "No such subnet")
    async with Harness(FakeCloud(fault=failing("launch", invalid))).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
        assert anyio.current_time() < 1
    assert "No such subnet" in str(finished.reason)


async def test_a_workload_that_cannot_be_rendered_fails_alone() -> None:
    def render(launch: Launch) -> LaunchSpec:
        if launch.label == "bad":
            raise Rejected("executor_config: 'cpu' has to be a string")
        if launch.label == "bug":
            raise ZeroDivisionError("secret")
        return harness.default_render(launch)

    harness = Harness(FakeCloud(), render=render)
    async with harness.running():
        for label in ("good", "bad", "bug", "fine"):
            harness.launch(label)
        await harness.until(lambda: len(harness.finished()) == 4)
    outcomes = {f.key: (f.success, f.reason) for f in harness.finished()}
    assert outcomes == {
        "good": (True, None),
        "fine": (True, None),
        "bad": (False, "executor_config: 'cpu' has to be a string"),
        "bug": (False, "The request could not be built: ZeroDivisionError"),
    }


async def test_a_rendering_that_is_no_request_fails_its_launch_alone() -> None:
    def render(launch: Launch) -> LaunchSpec:
        return harness.default_render(launch) if launch.label != "bad" else None  # type: ignore[return-value]

    harness = Harness(FakeCloud(), render=render)
    async with harness.running():
        for label in ("good", "bad", "fine"):
            harness.launch(label)
        await harness.until(lambda: len(harness.finished()) == 3)
        assert anyio.current_time() < 20
    assert {f.key for f in harness.finished() if not f.success} == {"bad"}
