"""Requests without an answer, or that the scheduler before may have sent: one container for each launch."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Rejected
from ecs_async_executor.core.messages import AirflowState, Launch
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    NO_MEMORY,
    THROTTLED,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, make_launch
from tests.engine.virtual_time import wall

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("operation", ["launch", "launch:after"])
async def test_a_lost_reply_is_asked_for_again_under_the_same_token_and_bytes(operation: str) -> None:
    cloud = FakeCloud(fault=failing(operation, TIMED_OUT, times=3))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
    assert len(cloud.of("a")) == 1
    assert harness.rendered == ["a"]
    assert len(harness.launched("a")) == 1


async def test_a_throttled_resend_does_not_forget_that_the_first_may_have_been_done() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation == "launch:after" and len(cloud.call_times["launch"]) == 1:
            return TIMED_OUT
        if operation == "launch" and len(cloud.call_times["launch"]) in (2, 3):
            return THROTTLED
        return None

    cloud = FakeCloud(fault=fault)
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_finished("a")
    assert harness.rendered == ["a"], "a fresh rendering would be another request under a used token"
    assert len(cloud.of("a")) == 1


async def test_a_conflict_leads_to_the_container_that_exists() -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until_launched("a")
        # Another scheduler that adopts the launch repeats its tokens, with a JWT of its own.
        successor = Harness(cloud)
        async with successor.running():
            successor.adopt(
                make_launch("a").evolve(launch_id=launch_id, tokened=True, route="other"), AirflowState.QUEUED
            )
            successor.rendered.append("make the JWT differ")
            finished = await successor.until_finished("a")
    assert finished.success
    assert len(cloud.of("a")) == 1


async def test_no_answer_for_longer_than_the_token_is_safe_is_resolved_by_listing() -> None:
    cloud = FakeCloud(fault=failing("launch:after", TIMED_OUT), plan=lambda label, nth: Plan(duration=4000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert finished.success
    assert cloud.calls["search"] >= 1
    assert max(cloud.call_times["launch"]) < RULES.resend_window + 60
    assert len(cloud.of("a")) == 1


async def test_an_unknown_outcome_is_failed_as_such() -> None:
    cloud = FakeCloud(fault=failing("launch", TIMED_OUT))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        finished = await harness.until_finished("a")
    assert not finished.success
    assert "unknown whether ECS started the container" in str(finished.reason)


async def test_a_request_that_can_no_longer_be_built_but_may_have_been_sent_is_looked_up() -> None:
    def render(launch: Launch) -> LaunchSpec:
        if len(harness.rendered) > 1:
            raise Rejected("no token")
        return replace(harness.default_render(launch), expires_at=wall() + 70)

    cloud = FakeCloud(fault=failing("launch:after", TIMED_OUT), plan=lambda label, nth: Plan(duration=300))
    harness = Harness(cloud, render=render)
    async with harness.running():
        harness.launch("a")
        await harness.until_finished("a")
    assert [f.success for f in harness.finished("a")] == [True]
    assert len(cloud.of("a")) == 1


async def test_a_request_without_an_answer_is_not_made_at_another_place_once_its_token_of_airflows_is_old() -> (
    None
):
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000))
    cloud.fault = failing("launch:after", TIMED_OUT, until=550)
    rendered = 0

    def render(launch: Launch) -> LaunchSpec:
        nonlocal rendered
        rendered += 1
        return LaunchSpec(
            {"label": launch.label, "jwt": rendered},
            f"cluster{rendered}",
            "main",
            "FARGATE",
            launch.started_by,
            expires_at=wall() + 600,
        )

    async with Harness(cloud, render=render).running() as harness:
        harness.launch("a")
        await harness.until_finished("a", timeout=8000)
    assert [f.success for f in harness.finished("a")] == [True]
    assert len(cloud.of("a")) == 1


async def test_what_was_perhaps_launched_is_looked_for_in_time_although_nothing_else_can_be_launched() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        # The first request is carried out, its answer lost; from then on there is no room for hours.
        if operation == "launch:after":
            return TIMED_OUT
        return NO_MEMORY if operation == "launch" and cloud.containers else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60), fault=fault)
    async with Harness(cloud).running() as engine:
        engine.launch("a")
        await engine.until(lambda: cloud.containers)
        for n in range(20):
            engine.launch(f"urgent{n}", priority=1)
        finished = await engine.until_finished("a")
    assert finished.success
    assert anyio.current_time() < RULES.resend_window + 60.0
    assert len(cloud.containers) == 1


async def test_an_adopted_launch_that_has_waited_for_longer_than_tokens_live_is_looked_for_first() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    launch, _ = await first_scheduler_dies(cloud, tokened=True, told=False)
    cloud.fault = lambda operation, _: NO_MEMORY if operation == "launch" else None
    async with Harness(cloud).running() as second:
        second.adopt(launch, AirflowState.QUEUED)
        await second.until_launched("a")
        assert anyio.current_time() < RULES.resend_window + 60
    assert len(cloud.of("a")) == 1
    assert cloud.calls["search"] >= 1


@pytest.mark.parametrize("trouble", ["no capacity", "unrenderable", "refused"])
@pytest.mark.parametrize("launched", [True, False])
async def test_what_keeps_an_adopted_launch_from_being_repeated_does_not_decide_it(
    trouble: str, launched: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=30))
    launch = make_launch("a", tokened=True)
    if launched:
        launch, _ = await first_scheduler_dies(cloud, tokened=True, told=False)
    errors = {"no capacity": NO_MEMORY, "refused": INVALID}
    if trouble in errors:
        cloud.fault = failing("launch", errors[trouble])
    second = Harness(cloud, rules=replace(RULES, capacity_timeout=20.0))
    if trouble == "unrenderable":

        def render(launch: Launch) -> LaunchSpec:
            raise Rejected("no such container")

        second.render = render
    async with second.running():
        second.adopt(launch, AirflowState.QUEUED)
        await second.until_finished("a")
    assert [f.success for f in second.finished("a")] == [launched]
    assert len(cloud.of("a")) == launched
