"""Searches for a launch's container: slow, refused, unreadable, or with no known place to search."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, LaunchSpec, Paced, unpaced
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import AirflowState, Launch, Unfollowed
from ecs_async_executor.core.policy import Rules
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    INVALID,
    THROTTLED,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, make_launch, under_a_new_id
from tests.engine.virtual_time import wall

pytestmark = pytest.mark.anyio


async def test_many_searches_wait_for_a_slow_listing_together() -> None:
    cloud = FakeCloud(latency=5.0, plan=lambda label, nth: Plan(duration=600))
    first, second = Harness(cloud), Harness(cloud)
    originals = [make_launch(f"w{n}") for n in range(200)]
    async with first.running():
        first.submit(*originals)
        await first.until(lambda: len(first.handles()) == 200)
    async with second.running():
        for original in originals:
            second.adopt(original, AirflowState.RUNNING)
        await second.until(lambda: len(second.handles()) == 200, timeout=30)
    assert len(cloud.containers) == 200


async def test_more_containers_of_one_mark_than_one_request_describes() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1))
    async with Harness(cloud).running() as first:
        for _ in range(150):
            first.launch("a", started_by="ti-1")
            await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("b", started_by="ti-1"), AirflowState.QUEUED)
        await second.until_finished("b", timeout=60)
    assert second.finished("b")[0].success


@pytest.mark.parametrize("lag", [6.0, 15.0])
async def test_an_adopted_launch_without_its_token_is_found_although_the_listing_lags(lag: float) -> None:
    class Lagging(FakeCloud):
        async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
            found = await super().search(scope, started_by, paced)
            return [h for h in found if anyio.current_time() - self.containers[h.id].created > lag]

    cloud = Lagging(plan=lambda label, nth: Plan(duration=100))
    launch, _ = await first_scheduler_dies(cloud, started_by="ti", told=False)
    async with Harness(cloud).running() as second:
        second.adopt(under_a_new_id(launch), AirflowState.QUEUED)
        await second.until_launched("a")
        await anyio.sleep(30)
    assert len(cloud.of("a")) == 1


async def test_a_description_that_gets_no_answer_for_long_fails_no_look_up() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=2000))
    launch, _ = await first_scheduler_dies(cloud, started_by="ti")
    answers_at = anyio.current_time() + 1000
    cloud.fault = lambda asked, _: (
        (TIMED_OUT if cloud.calls[asked] % 2 else THROTTLED)
        if asked == "describe" and anyio.current_time() < answers_at
        else None
    )
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a", started_by="ti", queued_at=launch.queued_at), AirflowState.QUEUED)
        await second.until_launched("a")
    assert not second.finished()
    assert len(cloud.containers) == 1


async def test_a_look_up_that_is_refused_for_its_form_ends_with_the_services_words() -> None:
    cloud = FakeCloud(fault=failing("describe", INVALID))
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("queued"), AirflowState.QUEUED, "arn:of:another:region")
        harness.adopt(make_launch("running"), AirflowState.RUNNING, "arn:of:another:region:too")
        [end] = await harness.until(harness.finished, timeout=RULES.permanent_error_grace + 20)
        await anyio.sleep(600)
    assert (end.key, end.success) == ("queued", False)
    assert "Identifier is for another region" in (end.reason or "")
    assert len(harness.finished()) == 1
    assert not cloud.calls["stop"]


async def test_an_adopted_launch_that_may_not_be_looked_for_fails_with_the_services_words() -> None:
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:ListTasks")
    cloud = FakeCloud(fault=failing("search", denied))
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("queued"), AirflowState.QUEUED)
        revoked = make_launch("revoked")
        harness.adopt(revoked, AirflowState.QUEUED)
        await anyio.sleep(10)
        harness.stop(revoked.launch_id)
        await harness.until_idle(timeout=200)
    [finished] = harness.finished()
    assert finished.key == "queued"
    assert "ecs:ListTasks" in (finished.reason or "")


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("by", ["mark", "identifier"])
async def test_a_record_that_cannot_be_read_does_not_keep_a_launch_from_ending(by: str, repeatable: bool) -> None:
    class Cloud(FakeCloud):
        async def describe(self, scope: str, ids: Any) -> Any:
            return [o for o in await super().describe(scope, ids) if o.handle.id != "container-1"]

    cloud = Cloud(plan=lambda label, nth: Plan(duration=5), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    async with Harness(cloud, rules=rules).running() as first:
        first.launch("a", started_by="ti")
        await anyio.sleep(60)
    async with Harness(cloud, rules=rules).running() as second:
        handle_id = "container-1" if by == "identifier" else None
        second.adopt(make_launch("queued", started_by="ti"), AirflowState.QUEUED, handle_id)
        revoked = make_launch("revoked", started_by="ti")
        second.adopt(revoked, AirflowState.QUEUED, handle_id)
        second.stop(revoked.launch_id)
        [end] = await second.until(second.finished, timeout=rules.permanent_error_grace + 20)
        await second.until_idle(timeout=20)
    assert (end.key, end.success) == ("queued", False)
    assert "cannot be read" in (end.reason or "")
    assert len(cloud.containers) == 1


async def launched_elsewhere(cloud: FakeCloud, rules: Rules) -> Launch:
    """Have a scheduler that dies launch something where nothing is by default."""
    async with Harness(cloud, rules=rules).running() as first:
        first.render = lambda launch: replace(first.default_render(launch), scope="elsewhere")
        launch = make_launch("a", started_by="ti")
        first.submit(launch)
        await first.until(lambda: cloud.of("a"))
    return under_a_new_id(launch)


@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("was", [AirflowState.QUEUED, AirflowState.RUNNING])
async def test_what_cannot_be_rendered_for_a_while_is_neither_failed_nor_launched_by_a_search_elsewhere(
    was: AirflowState, repeatable: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    launch = await launched_elsewhere(cloud, rules)
    second = Harness(cloud, rules=rules)
    began = wall()

    def render(launch: Launch) -> LaunchSpec:
        if wall() < began + 100.0:
            raise Rejected("the list of teams does not answer")
        return replace(second.default_render(launch), scope="elsewhere")

    second.render = render
    async with second.running():
        second.adopt(launch, was)
        with capture_logs() as logs:
            await second.until_finished("a")
    assert [one.success for one in second.finished("a")] == [True]
    assert len(cloud.of("a")) == 1
    told = [line for line in logs if line["event"].endswith("search.place_unknown")]
    assert [(line["log_level"], line["reason"]) for line in told] == [
        ("warning", "the list of teams does not answer")
    ]


async def test_a_running_one_that_can_never_be_rendered_is_let_run_and_told_of_late_with_the_reason() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    launch = await launched_elsewhere(cloud, RULES)
    second = Harness(cloud)

    def render(launch: Launch) -> LaunchSpec:
        raise Rejected("no such team")

    second.render = render
    async with second.running():
        second.adopt(launch, AirflowState.RUNNING)
        await anyio.sleep(RULES.lost_container_grace - 10.0)
        assert not second.take()
        (unfollowed,) = await second.until(second.take, timeout=30.0)
        await anyio.sleep(60.0)
    assert isinstance(unfollowed, Unfollowed)
    assert "no such team" in unfollowed.reason
    assert not second.take()
    assert second.is_idle()
    assert not cloud.calls["stop"]


async def test_a_running_one_that_cannot_be_rendered_is_found_where_containers_are_by_default() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    launch, _ = await first_scheduler_dies(cloud, started_by="ti", told=False)
    second = Harness(cloud)

    def render(launch: Launch) -> LaunchSpec:
        raise Rejected("no such team")

    second.render = render
    async with second.running():
        second.adopt(under_a_new_id(launch), AirflowState.RUNNING)
        await second.until_finished("a")
    assert [one.success for one in second.finished("a")] == [True]


async def test_a_hook_that_hangs_over_one_look_up_holds_up_no_other() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=30))
    _, known = await first_scheduler_dies(cloud, "b")
    harness = Harness(cloud)
    released = anyio.Event()

    async def rendered(launch: Launch) -> LaunchSpec:
        await released.wait()
        return harness.default_render(launch)

    async with harness.running():
        harness.render_with(rendered)
        harness.adopt(make_launch("a", started_by="ti"), AirflowState.RUNNING)
        await anyio.sleep(3)
        harness.adopt(make_launch("b"), AirflowState.RUNNING, known)
        await harness.until_finished("b", timeout=600)
    assert harness.finished("b")[0].success
