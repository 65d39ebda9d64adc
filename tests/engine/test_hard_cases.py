"""Races and refusals that once ended wrongly, each named after what has to hold."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core import lifecycle
from ecs_async_executor.core.backend import Handle, LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Launch, Launched, Stop, Unfollowed, Was
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.engine.rendering import Rendering
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, RULES, Harness, launch_id, make_launch
from tests.engine.test_engine import DENIED, EXPIRED, NO_MEMORY, THROTTLED, TIMED_OUT, failing, in_virtual_time
from tests.engine.virtual_time import wall

if sys.version_info < (3, 11):
    from exceptiongroup import BaseExceptionGroup

INVALID = BackendError(Kind.INVALID, "InvalidParameterException", "Identifier is for another region")
NOT_ALLOWED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:StopTask")


# --- whose container is it ----------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize("how", ["adopted", "queued"])
async def test_an_identity_that_an_earlier_queueing_used_up_does_not_bring_its_outcome(how: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5, exit_code=0 if nth == 1 else 3))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(60)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        resumed = replace(original, queued_at=wall())
        if how == "adopted":
            second.adopt(resumed, Was.QUEUED)
        else:
            second.submit(resumed)
        await second.until(lambda: second.finished("a"))
    old, new = cloud.of("a")
    assert [f.exit_code for f in second.finished("a")] == [3]
    assert [r.handle_id for r in second.launched("a")] == [new.handle.id]
    assert new.token == f"{original.launch_id}-2"
    assert not old.stop_reasons


@in_virtual_time
async def test_a_used_up_identity_whose_queueing_was_launched_under_another_is_found_by_its_mark() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 100))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(60)
        # The scheduler remembers what it used: a new launch id, the old mark.
        first.launch("a", started_by=original.started_by)
        await first.until(lambda: len(first.launched("a")) == 2)
        queued_at = wall() - 1
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(replace(original, queued_at=queued_at), Was.QUEUED)
        await second.until(lambda: second.finished("a"))
    assert len(cloud.of("a")) == 2
    assert second.finished("a")[0].handle_id == cloud.of("a")[1].handle.id


@in_virtual_time
async def test_used_up_tokens_cost_no_attempt() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth in (3, 6)))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(60)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(replace(original, queued_at=wall()), Was.QUEUED)
        await second.until(lambda: second.finished("a"))
    assert second.finished("a")[0].success
    assert [c.token.removeprefix(original.launch_id) for c in cloud.of("a")] == [f"-{n}" for n in range(1, 7)]


@in_virtual_time
async def test_a_revoke_while_a_tokens_container_is_asked_for_its_age_stops_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until(lambda: first.launched("a"))
    cloud.fault = failing("describe", TIMED_OUT, until=anyio.current_time() + 30)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        second.adopt(original, Was.QUEUED)
        await anyio.sleep(5)
        second.stop(original.launch_id)
        await second.until(lambda: not second.ledger.records, timeout=120)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]
    assert not second.reports


@in_virtual_time
async def test_a_finished_container_of_this_queueing_counts_for_more_than_a_living_one_of_an_earlier() -> None:
    plans = {1: Plan(duration=20, lingers=100), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans.get(nth, Plan()))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await anyio.sleep(10)
        second_launch = make_launch("a", started_by="ti-1")
        first.submit(second_launch)
        await first.until(lambda: len(first.launched("a")) == 2)
    await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(replace(make_launch("a", started_by="ti-1"), queued_at=second_launch.queued_at), Was.QUEUED)
        [finished] = await second.until(lambda: second.finished("a"))
    assert finished.exit_code == 1
    assert len(cloud.of("a")) == 2


@in_virtual_time
async def test_more_containers_of_one_mark_than_one_request_describes() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1))
    async with Harness(cloud).running() as first:
        for _ in range(150):
            first.launch("a", started_by="ti-1")
            await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("b", started_by="ti-1"), Was.QUEUED)
        await second.until(lambda: second.finished("b"), timeout=60)
    assert second.finished("b")[0].success


@in_virtual_time
async def test_listed_but_not_yet_described_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=30))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        await first.until(lambda: first.launched("a"))
    async with Harness(cloud).running() as second:
        second.adopt(replace(make_launch("a", started_by="ti-1"), queued_at=original.queued_at), Was.QUEUED)
        await second.until(lambda: second.finished("a"))
    assert len(cloud.of("a")) == 1


# --- what may have been sent --------------------------------------------------------------------------------


@in_virtual_time
async def test_a_request_that_can_no_longer_be_built_but_may_have_been_sent_is_looked_up() -> None:
    def render(launch: Launch) -> LaunchSpec:
        if len(harness.rendered) > 1:
            raise Rejected("no token")
        return replace(harness.default_render(launch), expires_at=wall() + 70)

    cloud = FakeCloud(fault=failing("launch:after", TIMED_OUT), plan=lambda label, nth: Plan(duration=300))
    harness = Harness(cloud, render=render)
    async with harness.running():
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    assert [f.success for f in harness.finished("a")] == [True]
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_a_scheduler_that_fell_silent_while_a_request_was_built_does_not_send_it() -> None:
    def render(launch: Launch) -> LaunchSpec:
        harness.silence = 25.0
        return harness.default_render(launch)

    cloud = FakeCloud()
    harness = Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0), render=render)
    async with harness.running():
        harness.launch("a")
        await anyio.sleep(60)
        assert cloud.calls["launch"] == 0
        harness.render = harness.default_render
        harness.silence = 0.0
        await harness.until(lambda: harness.finished("a"))


# --- stops --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_container_that_the_service_does_not_know_yet_is_stopped_all_the_same() -> None:
    class Cloud(FakeCloud):
        async def stop(self, handle: Handle, reason: str) -> None:
            if anyio.current_time() < self.containers[handle.id].created + 3:
                raise BackendError(Kind.NOT_FOUND, "InvalidParameterException", "The task was not found.")
            await super().stop(handle, reason)

    cloud = Cloud(latency=1.0, plan=lambda label, nth: Plan(hidden_for=3, duration=6000))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(0.8)
        harness.stop(launch_id)
        await harness.until(lambda: not harness.ledger.records, timeout=60)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("no", [NOT_ALLOWED, INVALID], ids=["refused", "invalid"])
@pytest.mark.parametrize("seconds", [30.0, 119.0, 900.0])
async def test_a_stop_that_is_refused_for_a_while_is_made_all_the_same(
    seconds: float, no: BackendError, repeatable: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6), repeatable=repeatable)
    options = replace(OPTIONS, stop_permission="cloud:Stop")
    harness = Harness(cloud, options=options, rules=replace(RULES, repeatable=repeatable))
    async with harness.running():
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        mended_at = anyio.current_time() + seconds
        cloud.fault = failing("stop", no, until=mended_at)
        with capture_logs() as logs:
            harness.stop(launch_id)
            await harness.until(lambda: not harness.ledger.records, timeout=seconds + 100)
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]
    assert cloud.call_times["stop"][-1] <= mended_at + 60.0
    assert cloud.calls["stop"] <= 9 + seconds / 30
    [told] = [entry for entry in logs if entry["event"].startswith("cloud_executor.stop.")]
    assert (told["event"], told["reason"], told["handle"]) == (
        "cloud_executor.stop.refused",
        no.message,
        cloud.of("a")[0].handle.id,
    )
    assert told.get("permission") == ("cloud:Stop" if no is NOT_ALLOWED else None)


@in_virtual_time
async def test_a_stop_that_is_refused_after_an_outage_is_made_all_the_same() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        back_at = anyio.current_time() + 120
        refused_once = failing("stop", NOT_ALLOWED, times=1)

        def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
            if operation == "stop" and anyio.current_time() < back_at:
                return TIMED_OUT
            return refused_once(operation, cloud)

        cloud.fault = fault
        harness.stop(launch_id)
        await harness.until(lambda: not harness.ledger.records, timeout=300)
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]


@in_virtual_time
async def test_a_refused_stop_of_a_container_that_nothing_is_known_of_any_more_is_given_up() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(hidden_for=1e6, duration=1e6), fault=failing("stop", NOT_ALLOWED)
    )
    async with Harness(cloud).running() as harness:
        with capture_logs() as logs:
            harness.launch("a")
            await harness.until(lambda: harness.finished("a"))
            await harness.until(lambda: not harness.ledger.stops, timeout=300)
    assert [entry["event"] for entry in logs] == ["cloud_executor.stop.refused", "cloud_executor.stop.gave_up"]


@in_virtual_time
async def test_a_stop_that_was_in_flight_when_the_loop_thread_died_is_sent_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=62, duration=1e9))
    cloud.fault = failing("stop", TIMED_OUT, until=70)
    harness = Harness(cloud)
    async with harness.running():
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
        cloud.latency = 100.0
        await harness.until(lambda: cloud.in_flight["stop"])
        assert not harness.ledger.records
    cloud.latency = 0.05
    harness.new_loop()
    async with harness.running():
        await harness.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60)
        await harness.until(lambda: not harness.ledger.stops, timeout=60)


@in_virtual_time
async def test_a_launch_waits_for_every_revoked_container_of_its_key() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=0, duration=6000))
    rules = replace(RULES, predecessor_wait=30.0)
    async with Harness(cloud, rules=rules).running() as harness:
        cloud.fault = failing("stop", TIMED_OUT, until=50)
        first = harness.launch("a")
        await harness.until(lambda: len(harness.launched("a")) == 1)
        harness.stop(first)
        second = harness.launch("a")
        await harness.until(lambda: len(harness.launched("a")) == 2)  # the wait is bounded
        harness.stop(second)
        harness.launch("a")
        cloud.of("a")[0].stopped = anyio.current_time()  # the first ends
        await anyio.sleep(5)
        assert len(cloud.of("a")) == 2
        await harness.until(lambda: len(harness.launched("a")) == 3)
        assert cloud.of("a")[1].stopped is not None


@in_virtual_time
async def test_a_launch_that_is_revoked_over_and_over_waits_for_its_predecessor_only_once() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(start_after=1e6 if nth == 1 else 1), fault=failing("stop", TIMED_OUT)
    )
    async with Harness(cloud).running() as engine:
        again = engine.launch("a")
        await engine.until(lambda: engine.launched("a"))
        for _ in range(7):
            engine.stop(again)
            await anyio.sleep(2)
            again = engine.launch("a")
            with anyio.move_on_after(30):
                await engine.until(lambda: len(cloud.of("a")) > 1)
                break
        assert len(cloud.of("a")) == 2
        await engine.until(lambda: engine.finished("a"))
    assert [f.launch_id for f in engine.finished("a")] == [again]


@in_virtual_time
@pytest.mark.parametrize("was", ["sending", "ambiguous", "active"])
async def test_a_queueing_under_the_identity_of_a_revoked_launch_that_lingers_is_not_dropped(was: str) -> None:
    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        unanswered = was == "ambiguous" and asked == "launch" and anyio.current_time() < 60
        return TIMED_OUT if unanswered or (asked == "stop" and anyio.current_time() < 600) else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e6 if nth == 1 else 1, exit_code=3), fault=fault)
    cloud.latency = 100.0 if was == "sending" else 0.05
    async with Harness(cloud).running() as engine:
        first = make_launch("a", tokened=True)
        engine.submit(first)
        await anyio.sleep(10)
        assert [r.phase.value for r in engine.ledger.records.values()] == [was]
        cloud.latency = 0.05
        engine.stop(first.launch_id)
        await anyio.sleep(10)
        engine.submit(replace(first, queued_at=wall()))
        await engine.until(lambda: engine.finished("a"))
        await anyio.sleep(1000)
        assert not engine.ledger.records
    assert [f.exit_code for f in engine.finished("a")] == [3]
    assert len({c.token for c in cloud.of("a")}) == 2


@in_virtual_time
async def test_a_failure_that_is_held_is_not_told_after_a_revoke() -> None:
    plans = {1: Plan(duration=60), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await anyio.sleep(20)
        assert new not in harness.ledger.records
        harness.stop(new)
        await anyio.sleep(400)
    assert not harness.finished("a")


@in_virtual_time
async def test_a_failure_that_is_held_is_not_told_once_its_key_is_queued_again() -> None:
    plans = {1: Plan(duration=60), 2: Plan(duration=2, exit_code=1), 3: Plan(duration=100)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        harness.launch("a")
        await anyio.sleep(20)
        third = harness.launch("a")
        await harness.until(lambda: not harness.ledger.records)
    assert [(f.launch_id, f.success) for f in harness.finished("a")] == [(third, True)]


@in_virtual_time
async def test_a_failure_is_held_for_a_bounded_time_although_nothing_can_be_read() -> None:
    plans = {1: Plan(duration=6000), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        harness.launch("a")
        await anyio.sleep(20)
        cloud.fault = failing("describe", TIMED_OUT)
        await harness.until(lambda: harness.finished("a"), timeout=330)


@in_virtual_time
async def test_terminate_waits_for_what_is_being_looked_up_to_stop_it() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud).running() as first:
        first.launch("a")
        [launched] = await first.until(lambda: first.launched("a"))
    cloud.latency = 2.0
    second = Harness(cloud)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(second.engine.run)
        await anyio.sleep(0.1)
        second.adopt(make_launch("a"), Was.RUNNING, launched.handle_id)
        await anyio.sleep(0.5)
        second.engine.drain("terminated")
    assert cloud.of("a")[0].stop_reasons == ["terminated"]


# --- refusals -----------------------------------------------------------------------------------------------


INVALID_REQUEST = BackendError(Kind.INVALID, "InvalidParameterException", "no such subnet")


@in_virtual_time
@pytest.mark.parametrize("meanwhile", ["before it is sent", "while it is sent"])
async def test_a_revoke_stops_what_an_adopted_launchs_first_scheduler_started(meanwhile: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await first.until(lambda: cloud.of("a"))
    cloud.fault = failing("launch", THROTTLED)
    async with Harness(cloud).running() as second:
        second.adopt(launch, Was.QUEUED)
        if meanwhile == "while it is sent":
            cloud.latency = 4.0
            await anyio.sleep(1.0)
            assert [r.phase.value for r in second.ledger.records.values()] == ["sending"]
        second.stop(launch.launch_id)
        await second.until(lambda: cloud.of("a")[0].stop_reasons and not second.ledger.records)
    assert [c.stop_reasons for c in cloud.of("a")] == [["revoked"]]
    assert not second.finished()


@in_virtual_time
@pytest.mark.parametrize("trouble", ["no capacity", "unrenderable", "refused"])
@pytest.mark.parametrize("launched", [True, False])
async def test_what_keeps_an_adopted_launch_from_being_repeated_does_not_decide_it(
    trouble: str, launched: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=30))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        if launched:
            first.submit(launch)
            await first.until(lambda: cloud.of("a"))
    errors = {"no capacity": NO_MEMORY, "refused": INVALID_REQUEST}
    if trouble in errors:
        cloud.fault = failing("launch", errors[trouble])
    second = Harness(cloud, rules=replace(RULES, capacity_timeout=20.0))
    if trouble == "unrenderable":

        def render(launch: Launch) -> LaunchSpec:
            raise Rejected("no such container")

        second.render = render
    async with second.running():
        second.adopt(launch, Was.QUEUED)
        await second.until(lambda: second.finished("a"))
    assert [f.success for f in second.finished("a")] == [launched]
    assert len(cloud.of("a")) == launched


async def launched_elsewhere(cloud: FakeCloud, rules: Rules) -> Launch:
    """Have a scheduler that dies launch something where nothing is by default."""
    async with Harness(cloud, rules=rules).running() as first:
        first.render = lambda launch: replace(first.default_render(launch), scope="elsewhere")
        launch = make_launch("a", started_by="ti")
        first.submit(launch)
        await first.until(lambda: cloud.of("a"))
    return replace(launch, launch_id=launch_id())


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("was", [Was.QUEUED, Was.RUNNING])
async def test_what_cannot_be_rendered_for_a_while_is_neither_failed_nor_launched_by_a_search_elsewhere(
    was: Was, repeatable: bool
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
            await second.until(lambda: second.finished("a"))
    assert [one.success for one in second.finished("a")] == [True]
    assert len(cloud.of("a")) == 1
    told = [line for line in logs if line["event"].endswith("search.place_unknown")]
    assert [(line["log_level"], line["reason"]) for line in told] == [
        ("warning", "the list of teams does not answer")
    ]


@in_virtual_time
async def test_a_running_one_that_can_never_be_rendered_is_let_run_and_told_of_late_with_the_reason() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    launch = await launched_elsewhere(cloud, RULES)
    second = Harness(cloud)

    def render(launch: Launch) -> LaunchSpec:
        raise Rejected("no such team")

    second.render = render
    async with second.running():
        second.adopt(launch, Was.RUNNING)
        await anyio.sleep(RULES.seen_missing_grace - 10.0)
        assert not second.take()
        (unfollowed,) = await second.until(second.take, timeout=30.0)
        await anyio.sleep(60.0)
    assert isinstance(unfollowed, Unfollowed)
    assert "no such team" in unfollowed.reason
    assert not second.take()
    assert not second.ledger.records
    assert not cloud.calls["stop"]


@in_virtual_time
async def test_a_running_one_that_cannot_be_rendered_is_found_where_containers_are_by_default() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", started_by="ti")
        first.submit(launch)
        await first.until(lambda: cloud.of("a"))
    second = Harness(cloud)

    def render(launch: Launch) -> LaunchSpec:
        raise Rejected("no such team")

    second.render = render
    async with second.running():
        second.adopt(replace(launch, launch_id=launch_id()), Was.RUNNING)
        await second.until(lambda: second.finished("a"))
    assert [one.success for one in second.finished("a")] == [True]


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("tokened", [True, False])
@pytest.mark.parametrize("adopted", [True, False])
async def test_who_wakes_up_does_not_launch_what_another_has_adopted_and_launched(
    adopted: bool, tokened: bool, repeatable: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    sleeper = Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0), rules=rules)
    peer = Harness(cloud, rules=rules)
    async with sleeper.running(), peer.running():
        sleeper.silence = 30.0
        launch = make_launch("a", started_by="ti", tokened=tokened)
        if tokened:
            launch = replace(launch, started_by=launch.launch_id)
        sleeper.submit(launch)
        await anyio.sleep(5)
        if adopted:
            peer.rendered.append("make the JWT differ")
            peer.adopt(launch if tokened else replace(launch, launch_id=launch_id()), Was.QUEUED)
            await peer.until(lambda: peer.launched("a"))
        sleeper.silence = 0.0
        await sleeper.until(lambda: sleeper.finished("a"))
    assert len(cloud.containers) == 1


@in_virtual_time
async def test_terminate_stops_what_a_request_without_an_answer_has_started() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6), fault=failing("launch:after", TIMED_OUT))
    async with Harness(cloud).running() as engine:
        engine.launch("a")
        await engine.until(lambda: cloud.calls["launch"] == 2)
        engine.engine.drain("terminated")
        await engine.until(lambda: cloud.of("a")[0].stop_reasons)
    assert [c.stop_reasons for c in cloud.of("a")] == [["terminated"]]


@in_virtual_time
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


@in_virtual_time
async def test_a_lack_of_capacity_that_turned_into_a_refusal_fails_after_the_grace_of_the_refusal() -> None:
    cloud = FakeCloud()
    cloud.fault = lambda operation, _: (
        None if operation != "launch" else (NO_MEMORY if anyio.current_time() < 600 else DENIED)
    )
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"), timeout=1000)
        assert anyio.current_time() > 720
    assert "not authorized" in finished.reason


@in_virtual_time
async def test_a_refusal_of_another_kind_shows_that_the_credentials_are_good_again() -> None:
    cloud = FakeCloud()
    cloud.fault = lambda operation, _: (
        None if operation != "launch" else (EXPIRED if anyio.current_time() < 20 else NO_MEMORY)
    )
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        assert harness.snapshots[-1].paused
        await anyio.sleep(60)
        assert not harness.snapshots[-1].paused
        assert harness.snapshots[-1].closed_gates == 1


@in_virtual_time
async def test_one_identifier_that_the_service_does_not_take_spoils_no_other() -> None:
    class Cloud(FakeCloud):
        async def describe(self, scope: str, ids: Any) -> Any:
            if "arn:of:another:world" in ids:
                self.calls["describe"] += 1
                raise INVALID
            return await super().describe(scope, ids)

    cloud = Cloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        for n in range(60):
            first.launch(f"w{n}")
        await first.until(lambda: all(first.launched(f"w{n}") for n in range(60)))
        known = {r.key: r.handle_id for r in first.reports if isinstance(r, Launched)}
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("odd"), Was.RUNNING, "arn:of:another:world")
        for n in range(60):
            second.adopt(make_launch(f"w{n}"), Was.RUNNING, known[f"w{n}"])
        await second.until(lambda: len(second.finished()) == 61)
        assert anyio.current_time() < 200
    assert {f.key for f in second.finished() if not f.success} == {"odd"}
    assert cloud.calls["describe"] < 3000


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("running", [1, 20, 250])
async def test_a_refusal_to_describe_that_is_about_no_container_fails_none(running: int, repeatable: bool) -> None:
    odd = BackendError(Kind.INVALID, "ClientException", "The proxy does not take this")
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000), repeatable=repeatable)
    async with Harness(cloud, rules=replace(RULES, repeatable=repeatable)).running() as harness:
        for n in range(running):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(cloud.containers) == running)
        await anyio.sleep(30)
        calls = cloud.calls["describe"]
        with capture_logs() as logs:
            cloud.fault = failing("describe", odd, until=anyio.current_time() + 1200)
            await anyio.sleep(1200)
        # A sweep each second as ever, and each minute one batch is tried in parts.
        batches = -(-running // cloud.describe_batch)
        assert cloud.calls["describe"] - calls < 1210 * batches + 21 * 2 * min(running, cloud.describe_batch)
        assert not harness.finished()
        assert not any(c.stop_reasons for c in cloud.containers.values())
        assert {(entry["event"], entry["reason"]) for entry in logs} == {
            ("cloud_executor.read.failed", "The proxy does not take this")
        }
        await harness.until(lambda: len(harness.finished()) == running, timeout=2000)
    assert all(end.success for end in harness.finished())


@in_virtual_time
async def test_a_look_up_that_is_refused_for_its_form_ends_with_the_services_words() -> None:
    cloud = FakeCloud(fault=failing("describe", INVALID))
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("queued"), Was.QUEUED, "arn:of:another:region")
        harness.adopt(make_launch("running"), Was.RUNNING, "arn:of:another:region:too")
        [end] = await harness.until(harness.finished, timeout=RULES.permanent_error_grace + 20)
        await anyio.sleep(600)
    assert (end.key, end.success) == ("queued", False)
    assert "Identifier is for another region" in (end.reason or "")
    assert len(harness.finished()) == 1
    assert not cloud.calls["stop"]


@in_virtual_time
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
        second.adopt(make_launch("queued", started_by="ti"), Was.QUEUED, handle_id)
        revoked = make_launch("revoked", started_by="ti")
        second.adopt(revoked, Was.QUEUED, handle_id)
        second.stop(revoked.launch_id)
        [end] = await second.until(second.finished, timeout=rules.permanent_error_grace + 20)
        await second.until(lambda: not second.ledger.records, timeout=20)
    assert (end.key, end.success) == ("queued", False)
    assert "cannot be read" in (end.reason or "")
    assert len(cloud.containers) == 1


@in_virtual_time
async def test_a_description_that_gets_no_answer_for_long_fails_no_look_up() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=2000))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", started_by="ti")
        first.submit(launch)
        await first.until(lambda: first.launched("a"))
    answers_at = anyio.current_time() + 1000
    cloud.fault = lambda asked, _: (
        (TIMED_OUT if cloud.calls[asked] % 2 else THROTTLED)
        if asked == "describe" and anyio.current_time() < answers_at
        else None
    )
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a", started_by="ti", queued_at=launch.queued_at), Was.QUEUED)
        await second.until(lambda: second.launched("a"))
    assert not second.finished()
    assert len(cloud.containers) == 1


@in_virtual_time
async def test_an_adopted_launch_that_may_not_be_looked_for_fails_with_the_services_words() -> None:
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:ListTasks")
    cloud = FakeCloud(fault=failing("find", denied))
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("queued"), Was.QUEUED)
        revoked = make_launch("revoked")
        harness.adopt(revoked, Was.QUEUED)
        await anyio.sleep(10)
        harness.stop(revoked.launch_id)
        await harness.until(lambda: not harness.ledger.records, timeout=200)
    [finished] = harness.finished()
    assert finished.key == "queued"
    assert "ecs:ListTasks" in (finished.reason or "")


@in_virtual_time
async def test_revoked_and_requeued_over_and_over_during_an_outage_leaves_nothing_behind() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY))
    async with Harness(cloud).running() as harness:
        harness.launch("urgent", priority=1)
        ids = {n: harness.launch(f"w{n}") for n in range(200)}
        for _ in range(20):
            await anyio.sleep(600)
            for n, launch_id in list(ids.items()):
                harness.stop(launch_id)
                ids[n] = harness.launch(f"w{n}")
        await anyio.sleep(10)
        assert sum(len(lane.heap) for lane in harness.ledger.lanes.values()) <= 250
        assert len(harness.ledger.records) == 201


# --- bugs and deaths ----------------------------------------------------------------------------------------


@in_virtual_time
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


@in_virtual_time
async def test_a_look_up_that_a_bug_interrupts_is_made_again() -> None:
    class Cloud(FakeCloud):
        bugs = 1

        def scope_of(self, handle_id: str | None) -> str:
            if self.bugs:
                self.bugs -= 1
                raise ZeroDivisionError
            return super().scope_of(handle_id)

    cloud = Cloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("a"), Was.RUNNING, "container-77")
        await harness.until(lambda: harness.finished("a"), timeout=300)


@in_virtual_time
async def test_a_command_that_a_bug_interrupts_has_one_outcome(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Ledger._carry_out
    bugs = [1]

    def carry_out(self: Ledger, *args: Any) -> None:
        if bugs:
            bugs.pop()
            raise MemoryError
        real(self, *args)

    monkeypatch.setattr(Ledger, "_carry_out", carry_out)
    cloud = FakeCloud()
    harness = Harness(cloud)
    async with harness.running():
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    harness.new_loop()
    async with harness.running():
        await anyio.sleep(60)
    assert len(harness.finished("a")) == 1
    assert not cloud.of("a")
    assert not harness.ledger.records


class Death(BaseException):
    """The loop thread dies at this statement."""


@pytest.mark.parametrize("method", ["_carry_out", "_emit", "_forget", "_enqueue"])
@pytest.mark.parametrize("when", ["before", "after"])
@in_virtual_time
async def test_a_death_at_any_call_of_the_ledgers_loses_and_doubles_nothing(
    method: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every call in turn is the last one that the thread makes."""
    for nth in range(1, 40):
        with monkeypatch.context() as patch:
            if not await dies_at(method, nth, when, patch):
                assert nth > 2
                return
    pytest.fail("it never got through")


async def dies_at(method: str, nth: int, when: str, patch: pytest.MonkeyPatch) -> bool:
    real = getattr(Ledger, method)
    calls = 0

    def dying(self: Ledger, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls != nth:
            return real(self, *args)
        if when == "after":
            real(self, *args)
        raise Death

    patch.setattr(Ledger, method, dying)
    cloud = FakeCloud(plan=lambda label, n: Plan(starts=n > 1, exit_code=1 if label == "bad" else 0))
    harness = Harness(cloud)
    good, bad, revoked = launches = [make_launch(label) for label in ("good", "bad", "revoked")]
    died = False

    async def live() -> None:
        nonlocal died
        try:
            async with harness.running():
                await harness.until(lambda: not harness.inbox)
                await anyio.sleep(0.5)
                harness.submit(Stop(revoked.launch_id, "revoked"))
                await harness.until(lambda: not harness.ledger.records and not harness.inbox)
        except BaseExceptionGroup as deaths:
            died = deaths.split(Death)[1] is None
            if not died:
                raise
            harness.new_loop()

    harness.inbox.extend(launches)
    await live()
    if died:
        await live()
    # Told again, perhaps, but the same.
    assert {(f.launch_id, f.success) for f in harness.finished()} == {
        (good.launch_id, True),
        (bad.launch_id, False),
    }, (method, nth)
    assert len(cloud.of("good")) == len(cloud.of("bad")) == 2
    assert not harness.ledger.active
    assert not harness.ledger.stops
    return died


@in_virtual_time
async def test_a_container_whose_reply_could_not_be_taken_in_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = lifecycle.step

    def step(record: Any, event: Any, now: float, rules: Any) -> Any:
        if isinstance(event, lifecycle.Replied):
            raise KeyError("unparsable")
        return real(record, event, now, rules)

    monkeypatch.setattr(lifecycle, "step", step)
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
        await harness.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60)


@in_virtual_time
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
        [finished] = await engine.until(lambda: engine.finished("a"))
    assert finished.success
    assert anyio.current_time() < RULES.resend_window + 60.0
    assert len(cloud.containers) == 1


@in_virtual_time
async def test_requests_for_one_place_that_draw_from_different_rates_keep_the_loop_from_nothing() -> None:
    rates = {"slow": 0.5, "fast": 100.0}

    def render(launch: Launch) -> LaunchSpec:
        bucket = "slow" if launch.label.startswith("slow") else "fast"
        return LaunchSpec({"label": launch.label}, "default", "main", bucket, launch.started_by)

    options = replace(OPTIONS, launch_rate=rates.__getitem__, launch_rate_max=100.0, launch_burst=1)
    cloud = FakeCloud()
    async with Harness(cloud, options=options, render=render).running() as engine:
        for n in range(3):
            engine.launch(f"fast{n}")
            engine.launch(f"slow{n}")
        await engine.until(lambda: len(engine.finished()) == 6)
    assert len(engine.rendered) < 30


@in_virtual_time
async def test_an_adopted_launch_that_has_waited_for_longer_than_tokens_live_is_looked_for_first() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await first.until(lambda: cloud.containers)
    cloud.fault = lambda operation, _: NO_MEMORY if operation == "launch" else None
    async with Harness(cloud).running() as second:
        second.adopt(launch, Was.QUEUED)
        await second.until(lambda: second.launched("a"))
        assert anyio.current_time() < RULES.resend_window + 60
    assert len(cloud.of("a")) == 1
    assert cloud.calls["find"] >= 1


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
async def test_a_superseded_launch_that_was_in_flight_when_the_loop_died_is_not_sent_again(
    repeatable: bool,
) -> None:
    cloud = FakeCloud(latency=2.0, repeatable=repeatable)
    harness = Harness(cloud, rules=replace(RULES, repeatable=repeatable))
    async with harness.running():
        harness.launch("first", key="k")
        await anyio.sleep(0.5)
        harness.launch("second", key="k")
        await anyio.sleep(0.2)
    harness.new_loop()
    async with harness.running():
        await harness.until(lambda: harness.finished("k"))
        await anyio.sleep(100)
    assert cloud.of("first") == []
    assert len(cloud.of("second")) == 1
    assert not harness.ledger.records


@in_virtual_time
@pytest.mark.parametrize("lag", [6.0, 15.0])
async def test_an_adopted_launch_without_its_token_is_found_although_the_listing_lags(lag: float) -> None:
    class Lagging(FakeCloud):
        async def find(self, scope: str, started_by: str) -> Sequence[Handle]:
            found = await super().find(scope, started_by)
            return [h for h in found if anyio.current_time() - self.containers[h.id].created > lag]

    cloud = Lagging(plan=lambda label, nth: Plan(duration=100))
    async with Harness(cloud).running() as first:
        launch = make_launch("a", started_by="ti")
        first.submit(launch)
        await first.until(lambda: cloud.containers)
    async with Harness(cloud).running() as second:
        second.adopt(replace(launch, launch_id=launch_id()), Was.QUEUED)
        await second.until(lambda: second.launched("a"))
        await anyio.sleep(30)
    assert len(cloud.of("a")) == 1


@in_virtual_time
@pytest.mark.parametrize("error", [Rejected("no such setting"), RuntimeError("hook")])
async def test_what_is_revoked_while_a_hook_runs_that_then_fails_is_still_looked_for_and_stopped(
    error: Exception,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    dead = Harness(cloud)
    hook, hooks = anyio.Lock(), [error]
    fails = anyio.Event()

    class Hook(Rendering):
        async def render(self, launch: Launch) -> LaunchSpec:
            async with hook:  # one at a time, as there is one thread for it
                if hooks:
                    await fails.wait()
                    raise hooks.pop()
                return dead.default_render(launch)

    heir = Harness(cloud, rendering=Hook(dead.default_render))
    async with dead.running(), heir.running():
        launch = make_launch("a", tokened=True)
        dead.submit(launch)
        await dead.until(lambda: dead.launched("a"))
        heir.adopt(launch, Was.QUEUED)
        await heir.until(lambda: hook.statistics().locked)
        heir.stop(launch.launch_id)
        await heir.until(lambda: hook.statistics().tasks_waiting)
        fails.set()
        await heir.until(lambda: cloud.of("a")[0].stop_reasons, timeout=60.0)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]
