"""At a service without client tokens, only a search shows what became of a request without an answer."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import AirflowState, Launch
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.faults import (
    EXPIRED,
    TIMED_OUT,
    failing,
)
from tests.engine.harness import RULES, Harness, first_scheduler_dies, make_launch
from tests.engine.virtual_time import EPOCH

pytestmark = pytest.mark.anyio
WITHOUT_TOKENS = replace(RULES, repeatable=False)


async def test_a_request_whose_reply_was_lost_is_found_and_not_sent_again() -> None:
    cloud = FakeCloud(repeatable=False, fault=failing("launch:after", TIMED_OUT, times=1))
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        await engine.until_finished("a")
        await anyio.sleep(600)
    assert [f.success for f in engine.finished("a")] == [True]
    assert cloud.calls["launch"] == 1


async def test_a_container_that_is_listed_but_never_described_is_stopped_and_no_second_one_made() -> None:
    cloud = FakeCloud(
        repeatable=False,
        fault=failing("launch:after", TIMED_OUT, times=1),
        plan=lambda label, nth: Plan(hidden_for=1e6, duration=1e6),
    )
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        finished = await engine.until_finished("a")
        await anyio.sleep(1)
    [container] = cloud.of("a")
    assert "MISSING for 60 s" in str(finished.reason)
    assert cloud.asked_to_stop == {container.handle.id}


async def test_a_request_that_was_not_carried_out_is_sent_again_once_nothing_was_found_for_long_enough() -> None:
    cloud = FakeCloud(repeatable=False, fault=failing("launch", TIMED_OUT, times=1))
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        await engine.until_finished("a")
    first, second = cloud.call_times["launch"]
    assert WITHOUT_TOKENS.absent_grace <= second - first < 2 * WITHOUT_TOKENS.absent_grace
    assert [f.success for f in engine.finished("a")] == [True]


@pytest.mark.parametrize("second", ["another place and mark", "nothing"])
async def test_it_is_looked_for_where_the_request_was_for_whatever_is_rendered_now(second: str) -> None:
    def render(launch: Launch) -> LaunchSpec:
        if second == "nothing" and len(harness.rendered) > 1:
            raise Rejected("the hook has failed")
        turn = len(harness.rendered)
        return LaunchSpec({"label": launch.label}, f"queue-{turn}", "main", "bucket", f"mark-{turn}")

    cloud = FakeCloud(repeatable=False, fault=failing("launch:after", TIMED_OUT, times=1))
    harness = Harness(cloud, rules=WITHOUT_TOKENS, render=render)
    async with harness.running():
        harness.launch("a")
        await harness.until_finished("a")
    assert [f.success for f in harness.finished("a")] == [True]
    assert [c.handle.scope for c in cloud.of("a")] == ["queue-1"]


@pytest.mark.parametrize("error", [TIMED_OUT, EXPIRED])
async def test_a_search_without_an_answer_does_not_count_as_one_that_found_nothing(error: BackendError) -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        lost = asked == "launch:after" and cloud.calls["launch"] == 1
        return TIMED_OUT if lost else error if asked == "search" and anyio.current_time() < 300 else None

    cloud = FakeCloud(repeatable=False, fault=fault)
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        await engine.until_finished("a")
    assert cloud.calls["launch"] == 1
    assert anyio.current_time() > 300


@pytest.mark.parametrize("carried_out", [True, False])
async def test_a_loop_thread_that_dies_in_mid_request_leaves_one_container(carried_out: bool) -> None:
    cloud = FakeCloud(repeatable=False, latency=2.0)
    harness = Harness(cloud, rules=WITHOUT_TOKENS)
    async with harness.running():
        harness.launch("a")
        await anyio.sleep(1.5 if carried_out else 0.5)
    harness.new_loop()
    async with harness.running():
        await harness.until_finished("a")
    assert [c.exit_code for c in harness.finished("a")] == [0]
    assert len(cloud.of("a")) == 1
    assert cloud.calls["launch"] == 2 - carried_out


@pytest.mark.parametrize("launched", [True, False])
async def test_an_adopted_launch_is_looked_for_although_airflow_assigned_its_identity(launched: bool) -> None:
    cloud = FakeCloud(repeatable=False, plan=lambda label, nth: Plan(duration=100))
    launch = make_launch("a", tokened=True)
    if launched:
        launch, _ = await first_scheduler_dies(cloud, tokened=True, told=False, rules=WITHOUT_TOKENS)
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as second:
        second.adopt(launch, AirflowState.QUEUED)
        await second.until_finished("a")
    assert len(cloud.of("a")) == 1


async def test_a_container_that_never_started_is_not_found_in_place_of_the_next() -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        return TIMED_OUT if asked == "launch" and cloud.calls["launch"] in (2, 4) else None

    cloud = FakeCloud(repeatable=False, plan=lambda label, nth: Plan(starts=False), fault=fault)
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        await engine.until_finished("a")
    assert len(cloud.of("a")) == WITHOUT_TOKENS.max_attempts
    (end,) = engine.finished("a")
    assert "container 3 of 3" in (end.reason or "")


async def test_a_launch_that_is_revoked_while_it_is_searched_for_is_stopped_when_found() -> None:
    cloud = FakeCloud(
        repeatable=False,
        plan=lambda label, nth: Plan(duration=1e6),
        fault=failing("launch:after", TIMED_OUT, times=1),
    )
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        launched = engine.launch("a")
        await anyio.sleep(0.06)
        engine.stop(launched)
        await engine.until_idle()
    assert [bool(c.stop_reasons) for c in cloud.of("a")] == [True]
    assert not engine.finished("a")


def with_a_mark_of_its_own(launch: Launch) -> LaunchSpec:
    mark = launch.started_by
    return LaunchSpec(
        {"label": launch.label}, "here", "main", "bucket", mark, own_mark=f"{mark}-{launch.launch_id}"
    )


async def test_a_clock_that_is_ahead_does_not_hide_what_a_request_of_our_own_has_started() -> None:
    cloud = FakeCloud(repeatable=False, fault=failing("launch:after", TIMED_OUT, times=1))
    async with Harness(cloud, rules=WITHOUT_TOKENS, render=with_a_mark_of_its_own).running() as engine:
        engine.launch("a", queued_at=EPOCH + 3600)
        await engine.until_finished("a")
    assert [f.success for f in engine.finished("a")] == [True]
    assert len(cloud.of("a")) == 1


async def test_what_is_revoked_while_it_is_searched_for_does_not_stop_the_next_launch_of_its_workload() -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        lost = asked == "launch" and cloud.calls["launch"] == 1
        return TIMED_OUT if lost or (asked == "search" and anyio.current_time() < 300) else None

    cloud = FakeCloud(repeatable=False, plan=lambda label, nth: Plan(duration=600), fault=fault)
    async with Harness(cloud, rules=WITHOUT_TOKENS, render=with_a_mark_of_its_own).running() as engine:
        first = engine.launch("a", started_by="ti")
        await anyio.sleep(10)
        engine.stop(first)
        await anyio.sleep(10)
        engine.launch("a", started_by="ti")
        await engine.until_finished("a")
        await anyio.sleep(60)
        assert engine.is_idle()
    assert [f.success for f in engine.finished("a")] == [True]
    assert [c.stop_reasons for c in cloud.of("a")] == [[]]


class LateCloud(FakeCloud):
    """Carries the first request out when it is told to, long after the client has given it up."""

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        if not self.call_times["launch"]:
            self.first = spec, client_token
            self.call_times["launch"].append(anyio.current_time())
            raise TIMED_OUT
        return await super().launch(spec, client_token)

    async def carry_out(self) -> None:
        await super().launch(*self.first)


@pytest.mark.parametrize("marked", [True, False])
async def test_a_revoked_launch_stops_what_has_its_own_mark_though_it_was_made_after_the_next_queueing(
    marked: bool,
) -> None:
    cloud = LateCloud(repeatable=False, plan=lambda label, nth: Plan(duration=300))
    render = with_a_mark_of_its_own if marked else None
    async with Harness(cloud, rules=WITHOUT_TOKENS, render=render).running() as engine:
        first = engine.launch("a", started_by="ti")
        await anyio.sleep(1)
        engine.stop(first)
        again = engine.launch("a", started_by="ti")
        await anyio.sleep(RULES.created_margin + 5)
        await cloud.carry_out()
        finished = await engine.until_finished("a")
    assert (finished.success, finished.launch_id) == (True, again)
    late, next_ = cloud.of("a")
    # Without such a mark it could be the next launch's, which must not be stopped.
    assert (late.stop_reasons, next_.stop_reasons) == (["revoked"] if marked else [], [])


@pytest.mark.parametrize("kind", [Kind.REFUSED, Kind.INVALID, Kind.NOT_FOUND])
async def test_a_search_that_is_refused_for_ever_ends(kind: Kind) -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        return {"launch": TIMED_OUT, "search": BackendError(kind, "ClientException", "no such place")}.get(asked)

    cloud = FakeCloud(repeatable=False, fault=fault)
    async with Harness(cloud, rules=WITHOUT_TOKENS).running() as engine:
        engine.launch("a")
        await engine.until_finished("a")
    (end,) = engine.finished("a")
    assert "no such place" in (end.reason or "")
    assert cloud.calls["launch"] == 1
