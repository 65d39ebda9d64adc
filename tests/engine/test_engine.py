"""The engine in virtual time: one launch's way, limits, refusals, stops, adoption, shutdown."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import wraps
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import Finished, Launch, Launched, Was
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import OPTIONS, RULES, Harness, make_launch
from tests.engine.virtual_time import run


def in_virtual_time(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    @wraps(test)
    def wrapper(*args: Any, **kwargs: Any) -> None:
        async def main() -> None:
            await test(*args, **kwargs)

        run(main)

    return wrapper


def failing(
    operation: str, error: BackendError, *, until: float = float("inf"), times: int | None = None
) -> Callable[[str, FakeCloud], BackendError | None]:
    """A fault of one operation, until a time or for a number of times."""
    left = [times]

    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        if asked != operation or anyio.current_time() >= until or left[0] == 0:
            return None
        if left[0] is not None:
            left[0] -= 1
        return error

    return fault


THROTTLED = BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded")
TIMED_OUT = BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout")
NO_MEMORY = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no container instance met all of its requirements")
EXPIRED = BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "The security token is expired")
DENIED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:RunTask")


# --- one launch's way ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_launch_is_reported_launched_then_finished() -> None:
    async with Harness(FakeCloud()).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    first, last = harness.reports
    assert isinstance(first, Launched)
    assert isinstance(last, Finished)
    assert last.success
    assert last.handle_id == first.handle_id == harness.cloud.of("a")[0].handle.id
    assert not harness.ledger.records


@in_virtual_time
async def test_a_non_zero_exit_is_failed_once_and_never_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(exit_code=1))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
        await anyio.sleep(300)
    assert [f.success for f in harness.finished("a")] == [False]
    assert harness.finished("a")[0].reason == "The container exited 1"
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_an_exit_code_decides_although_the_container_is_still_stopping() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5, lingers=60))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
        assert anyio.current_time() < 10


@in_virtual_time
async def test_a_container_that_never_started_is_launched_again_under_the_next_token() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 2))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    assert harness.finished("a")[0].success
    assert [c.token for c in cloud.of("a")] == [f"{launch_id}-{n}" for n in (1, 2, 3)]


@in_virtual_time
@pytest.mark.parametrize("adopted", [None, "by its mark", "by its identifier"])
async def test_a_container_that_a_person_stopped_before_it_started_is_not_launched_again(
    adopted: str | None,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=60))
    async with Harness(cloud).running() as harness:
        launch = make_launch("a")
        harness.submit(launch)
        await harness.until(lambda: harness.launched("a"))
        [container] = cloud.of("a")
        if adopted is None:
            container.stop_by_hand()
            await harness.until(lambda: harness.finished("a"))
    if adopted is not None:
        container.stop_by_hand()
        async with Harness(cloud).running() as harness:
            handle_id = container.handle.id if adopted == "by its identifier" else None
            harness.adopt(launch, Was.QUEUED, handle_id)
            await harness.until(lambda: harness.finished("a"))
    [finished] = harness.finished("a")
    assert (finished.success, finished.reason, finished.notable) == (False, "It stopped", True)
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_containers_that_never_start_are_given_up_after_max_run_task_attempts() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=False))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
    assert not finished.success
    assert "3 of 3" in finished.reason
    assert len(cloud.of("a")) == 3


@in_virtual_time
async def test_a_host_lost_after_the_start_is_failed_not_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(exit_code=None))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
        await anyio.sleep(300)
    assert (finished.success, finished.exit_code, finished.reason) == (False, None, "It stopped")
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_missing_for_seconds_after_run_task_is_waited_out() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=20))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    assert harness.finished("a")[0].success
    assert len(cloud.of("a")) == 1


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("adopted", [False, True])
async def test_what_runs_may_be_missing_for_two_minutes(adopted: bool, repeatable: bool) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3000), repeatable=repeatable)
    rules = replace(RULES, repeatable=repeatable)
    first = Harness(cloud, rules=rules)
    async with first.running():
        launch = make_launch("a", tokened=repeatable)
        first.submit(launch)
        await first.until(lambda: first.launched("a"))
        await anyio.sleep(10)
    then = first
    if adopted:
        then = Harness(cloud, rules=rules)
    else:
        then.new_loop()
    async with then.running():
        [container] = cloud.of("a")
        if adopted:
            then.adopt(launch, Was.RUNNING, container.handle.id)
        await anyio.sleep(600)
        container.plan.hidden_for = anyio.current_time() - container.created + 120.0
        await anyio.sleep(300)
        assert not then.finished("a")
        assert not container.stop_reasons


@in_virtual_time
async def test_missing_for_ever_is_stopped_then_failed_but_not_relaunched() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=1e9, duration=1e9))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
        await anyio.sleep(5)
    assert not finished.success
    assert "MISSING for 60 s" in finished.reason
    [container] = cloud.of("a")
    assert container.stop_reasons


@in_virtual_time
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


# --- exactly once -------------------------------------------------------------------------------------------


@in_virtual_time
@pytest.mark.parametrize("operation", ["launch", "launch:after"])
async def test_a_lost_reply_is_asked_for_again_under_the_same_token_and_bytes(operation: str) -> None:
    cloud = FakeCloud(fault=failing(operation, TIMED_OUT, times=3))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    assert len(cloud.of("a")) == 1
    assert harness.rendered == ["a"]
    assert len(harness.launched("a")) == 1


@in_virtual_time
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
        await harness.until(lambda: harness.finished("a"))
    assert harness.rendered == ["a"], "a fresh rendering would be another request under a used token"
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_a_conflict_leads_to_the_container_that_exists() -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        # Another scheduler that adopts the launch repeats its tokens, with a JWT of its own.
        successor = Harness(cloud)
        async with successor.running():
            successor.adopt(
                replace(make_launch("a"), launch_id=launch_id, tokened=True, route="other"), Was.QUEUED
            )
            successor.rendered.append("make the JWT differ")
            await successor.until(lambda: successor.finished("a"))
    assert successor.finished("a")[0].success
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_no_answer_for_longer_than_the_token_is_safe_is_resolved_by_listing() -> None:
    cloud = FakeCloud(fault=failing("launch:after", TIMED_OUT), plan=lambda label, nth: Plan(duration=4000))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    assert harness.finished("a")[0].success
    assert cloud.calls["find"] >= 1
    assert max(cloud.call_times["launch"]) < RULES.resend_window + 60
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_an_unknown_outcome_is_failed_as_such() -> None:
    cloud = FakeCloud(fault=failing("launch", TIMED_OUT))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
    assert not finished.success
    assert "unknown whether ECS started the container" in finished.reason


# --- refusals -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_throttles_cost_no_attempt_and_fail_nothing() -> None:
    cloud = FakeCloud(fault=failing("launch", THROTTLED, until=60))
    async with Harness(cloud).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 50)
    assert all(f.success for f in harness.finished())
    assert cloud.calls["launch"] < 600, "the rate follows the throttles"


@in_virtual_time
async def test_a_capacity_outage_is_probed_one_at_a_time_and_fails_nothing() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=2100))
    async with Harness(cloud).running() as harness:
        for n in range(300):
            harness.launch(f"w{n}")
        await anyio.sleep(2000)
        assert cloud.calls["launch"] < 64 + 2000 / 5
        assert not harness.finished()
        [notice] = harness.notices("w250")
        assert "no container instance met all of its requirements" in notice.text
        await harness.until(lambda: len(harness.finished()) == 300)
    assert all(f.success for f in harness.finished())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(300))


@in_virtual_time
async def test_a_capacity_outage_of_one_placement_does_not_hold_up_another() -> None:
    class Cloud(FakeCloud):
        async def launch(self, spec: LaunchSpec, token: str) -> Any:
            if spec.placement == "gpu":
                self.calls["gpu"] += 1
                raise NO_MEMORY
            return await super().launch(spec, token)

    cloud = Cloud()
    async with Harness(cloud).running() as harness:
        for n in range(200):
            harness.launch(f"gpu{n}", route="gpu", priority=100)
            harness.launch(f"cpu{n}", route="cpu")
        await harness.until(lambda: len(harness.finished()) == 200)
        assert anyio.current_time() < 30
    assert {f.key for f in harness.finished()} == {f"cpu{n}" for n in range(200)}
    assert cloud.calls["gpu"] < 80


@in_virtual_time
@pytest.mark.parametrize("repeatable", [True, False])
@pytest.mark.parametrize("error", [NO_MEMORY, DENIED], ids=["capacity", "refused"])
async def test_a_closed_gate_is_forgotten_once_nobody_waits_there(error: BackendError, repeatable: bool) -> None:
    cloud = FakeCloud(fault=failing("launch", error), repeatable=repeatable)
    rules = replace(RULES, capacity_timeout=900.0, permanent_error_grace=900.0, repeatable=repeatable)
    async with Harness(cloud, rules=rules).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}", route=f"definition:{n}")
        await harness.until(lambda: cloud.calls["launch"] >= 50)
        await anyio.sleep(890)
        assert harness.snapshots[-1].closed_gates == 50
        # One probe at a time at each of them, less and less often.
        assert cloud.calls["launch"] < 50 * 25
        await harness.until(lambda: len(harness.finished()) == 50)
        assert harness.snapshots[-1].closed_gates == 50
        await harness.until(lambda: not harness.snapshots[-1].closed_gates, timeout=200)
        cloud.fault = lambda operation, cloud: None
        harness.launch("w0 again", route="definition:0")
        await harness.until(lambda: harness.launched("w0 again"), timeout=1)


@in_virtual_time
async def test_capacity_timeout_fails_with_the_services_words() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY))
    async with Harness(cloud, rules=replace(RULES, capacity_timeout=300)).running() as harness:
        harness.launch("a")
        harness.launch("b")
        await harness.until(lambda: len(harness.finished()) == 2)
        assert 300 <= anyio.current_time() < 420
    for finished in harness.finished():
        assert "no container instance met all of its requirements" in (finished.reason or "")


@in_virtual_time
async def test_iam_denied_for_30_seconds_with_1000_queued_fails_none() -> None:
    cloud = FakeCloud(fault=failing("launch", DENIED, until=30))
    async with Harness(cloud).running() as harness:
        for n in range(1000):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 1000)
    assert all(f.success for f in harness.finished())


@in_virtual_time
async def test_access_denied_for_good_fails_with_the_services_words_after_the_grace() -> None:
    cloud = FakeCloud(fault=failing("launch", DENIED))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
        assert 120 <= anyio.current_time() < 200
        # And one that comes later is tried again before it is failed: somebody may have mended it.
        before = cloud.calls["launch"]
        harness.launch("b")
        await harness.until(lambda: harness.finished("b"))
        assert cloud.calls["launch"] > before
    assert "not authorized to perform: ecs:RunTask" in finished.reason


@in_virtual_time
async def test_a_malformed_request_fails_at_once() -> None:
    invalid = BackendError(Kind.INVALID, "InvalidParameterException", "No such subnet")
    async with Harness(FakeCloud(fault=failing("launch", invalid))).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
        assert anyio.current_time() < 1
    assert "No such subnet" in finished.reason


@in_virtual_time
async def test_expired_credentials_pause_everything_and_fail_nothing() -> None:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        return EXPIRED if 2 <= anyio.current_time() < 600 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(duration=30))
    async with Harness(cloud).running() as harness:
        harness.launch("before")
        await anyio.sleep(5)
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(500)
        assert sum(cloud.calls.values()) < 120, "one probe at a time"
        assert "The security token is expired" in (harness.snapshots[-1].paused or "")
        await harness.until(lambda: len(harness.finished()) == 101)
    assert all(f.success for f in harness.finished())


# --- limits and order ---------------------------------------------------------------------------------------


@in_virtual_time
async def test_never_more_requests_in_flight_than_allowed() -> None:
    cloud = FakeCloud(latency=3.0)
    options = replace(OPTIONS, max_concurrent_launches=7, max_concurrent_describes=3)
    async with Harness(cloud, options=options).running() as harness:
        for n in range(500):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 500)
    assert cloud.peak["launch"] == 7
    assert cloud.peak["describe"] <= 3


@in_virtual_time
async def test_launches_keep_to_the_rate() -> None:
    cloud = FakeCloud()
    options = replace(OPTIONS, launch_rate=lambda bucket: 20.0, launch_rate_max=20.0, launch_burst=10)
    async with Harness(cloud, options=options).running() as harness:
        for n in range(400):
            harness.launch(f"w{n}")
        await anyio.sleep(10.05)
        assert 195 <= cloud.calls["launch"] <= 211


@in_virtual_time
async def test_the_most_urgent_goes_first_and_among_equals_the_oldest() -> None:
    cloud = FakeCloud()
    options = replace(OPTIONS, launch_rate=lambda bucket: 10.0, launch_rate_max=10.0, launch_burst=1)
    async with Harness(cloud, options=options).running() as harness:
        for n in range(10):
            harness.launch(f"low{n}", priority=1)
        await anyio.sleep(0.25)
        for n in range(10):
            harness.launch(f"high{n}", priority=5)
        await harness.until(lambda: len(harness.finished()) == 20)
    order = [c.label for c in cloud.containers.values()]
    late = order.index("high0")
    assert late <= 5
    assert order[late : late + 10] == [f"high{n}" for n in range(10)]
    assert [label for label in order if label.startswith("low")] == [f"low{n}" for n in range(10)]


@in_virtual_time
async def test_describes_go_in_batches_of_100() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as harness:
        for n in range(950):
            harness.launch(f"w{n}")
        await harness.until(lambda: cloud.calls["launch"] == 950)
        await anyio.sleep(2)
        before = cloud.calls["describe"]
        await anyio.sleep(20)
        assert (cloud.calls["describe"] - before) / 20 == pytest.approx(10, rel=0.2)


@in_virtual_time
async def test_a_silent_scheduler_launches_nothing() -> None:
    cloud = FakeCloud()
    async with Harness(cloud, options=replace(OPTIONS, stall_timeout=20.0)).running() as harness:
        harness.silence = 25.0
        harness.launch("a")
        await anyio.sleep(60)
        assert cloud.calls["launch"] == 0
        assert harness.snapshots[-1].paused
        harness.silence = 0.0
        await harness.until(lambda: harness.finished("a"))


# --- stops --------------------------------------------------------------------------------------------------


@in_virtual_time
async def test_revoked_while_queued_is_dropped() -> None:
    cloud = FakeCloud(fault=failing("launch", NO_MEMORY, until=30))
    async with Harness(cloud).running() as harness:
        harness.launch("first")
        await anyio.sleep(1)
        launch_id = harness.launch("a")
        await anyio.sleep(1)
        harness.stop(launch_id)
        await harness.until(lambda: harness.finished("first"))
    assert not cloud.of("a")
    assert not harness.finished("a")


@in_virtual_time
async def test_revoked_while_sending_the_replys_container_is_stopped() -> None:
    cloud = FakeCloud(latency=2.0, plan=lambda label, nth: Plan(duration=600))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(1.5)
        assert cloud.of("a")
        harness.stop(launch_id)
        await harness.until(lambda: not harness.ledger.records)
    assert cloud.of("a")[0].stop_reasons == ["revoked"]
    assert not harness.finished("a")
    assert not harness.launched("a")


@in_virtual_time
async def test_revoked_while_ambiguous_the_container_is_learnt_then_stopped() -> None:
    cloud = FakeCloud(
        fault=failing("launch:after", TIMED_OUT, until=60), plan=lambda label, nth: Plan(duration=6000)
    )
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await anyio.sleep(10)
        harness.stop(launch_id)
        await harness.until(lambda: not harness.ledger.records, timeout=200)
    assert [bool(c.stop_reasons) for c in cloud.of("a")] == [True]
    assert not harness.reports


@in_virtual_time
async def test_revoked_while_running_is_stopped_and_silent() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    async with Harness(cloud).running() as harness:
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        harness.stop(launch_id, "stuck in queued")
        await harness.until(lambda: not harness.ledger.records, timeout=60)
    assert cloud.of("a")[0].stop_reasons == ["stuck in queued"]
    assert not harness.finished("a")


@in_virtual_time
async def test_a_launch_after_a_revoke_waits_for_the_old_container_to_stop() -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(start_after=20 if nth == 1 else 1, duration=600 if nth == 1 else 5)
    )
    fault_until = 40.0
    cloud.fault = failing("stop", THROTTLED, until=fault_until)
    async with Harness(cloud).running() as harness:
        old = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        harness.stop(old)
        harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
    first, second = cloud.of("a")
    assert first.stopped is not None
    assert second.created >= first.stopped >= fault_until
    assert [f.success for f in harness.finished("a")] == [True]


@in_virtual_time
async def test_stops_do_not_queue_behind_a_backlog_of_launches() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    options = replace(OPTIONS, launch_rate=lambda bucket: 20.0, launch_rate_max=20.0, launch_burst=10)
    async with Harness(cloud, options=options).running() as harness:
        launch_id = harness.launch("a")
        await harness.until(lambda: harness.launched("a"))
        for n in range(2000):
            harness.launch(f"w{n}")
        await anyio.sleep(1)
        harness.stop(launch_id)
        asked = anyio.current_time()
        await harness.until(lambda: cloud.calls["stop"])
        assert anyio.current_time() - asked < 1


@in_virtual_time
async def test_a_container_that_never_gets_out_of_provisioning_is_waited_for_until_it_is_revoked() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=float("inf") if nth == 1 else 1.0))
    async with Harness(cloud).running() as harness:
        stuck = harness.launch("a")
        await anyio.sleep(1800)
        assert not harness.finished()
        harness.stop(stuck)
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
    first, second = cloud.of("a")
    assert first.stop_reasons == ["revoked"]
    assert finished.success
    assert finished.handle_id == second.handle.id


@pytest.mark.parametrize("error", [THROTTLED, DENIED, TIMED_OUT], ids=lambda error: error.code)
@in_virtual_time
async def test_launches_go_on_while_nothing_can_be_described_and_a_refusal_is_logged(error: BackendError) -> None:
    cloud = FakeCloud(fault=failing("describe", error, until=600))
    with capture_logs() as logs:
        async with Harness(cloud).running() as harness:
            for n in range(50):
                harness.launch(f"w{n}")
            await anyio.sleep(60)
            assert cloud.calls["launch"] == 50
            assert not harness.finished()
            await harness.until(lambda: len(harness.finished()) == 50)
    assert all(finished.success for finished in harness.finished())
    told = [line["reason"] for line in logs if line["event"] == "cloud_executor.read.failed"]
    assert error is THROTTLED or error.message in told[0]
    assert len(told) <= 11, "once a minute is enough"


# --- the same key again -------------------------------------------------------------------------------------


@in_virtual_time
async def test_a_deferrals_resume_while_the_old_container_still_stops() -> None:
    plans = {1: Plan(duration=5, exit_code=0), 2: Plan(duration=30)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    # The old container's exit is not seen before the key is queued again.
    cloud.fault = failing("describe", TIMED_OUT, until=12)
    async with Harness(cloud).running() as harness:
        old = harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await harness.until(lambda: harness.finished("a"))
        await anyio.sleep(60)
    assert [f.launch_id for f in harness.finished("a")] == [new]
    assert [r.launch_id for r in harness.launched("a")] == [old, new]
    assert not any(c.stop_reasons for c in cloud.of("a"))
    assert not harness.ledger.records


@in_virtual_time
async def test_a_failure_is_held_while_another_container_of_the_key_lives() -> None:
    plans = {1: Plan(duration=60, exit_code=0), 2: Plan(duration=2, exit_code=1)}
    cloud = FakeCloud(plan=lambda label, nth: plans[nth])
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
        new = harness.launch("a")
        await anyio.sleep(20)
        assert not harness.finished("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
        assert anyio.current_time() >= 61
    assert finished.launch_id == new


# --- adoption -----------------------------------------------------------------------------------------------


@in_virtual_time
async def test_of_many_adopted_by_arn_none_is_searched_for() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=4000.0))
    first = Harness(cloud)
    names = [f"w{number}" for number in range(700)]
    async with first.running():
        for name in names:
            first.launch(name)
        await first.until(lambda: len(first.ledger.active) == len(names))
    records = list(first.ledger.active.values())
    # Slowly enough that the first are resolved while others still wait for their turn.
    second = Harness(cloud, options=replace(OPTIONS, describe_rate=2.0, describe_burst=1.0))
    async with second.running():
        for record in records:
            assert record.handle is not None
            second.adopt(record.launch, Was.RUNNING, record.handle.id)
        await second.until(lambda: len(second.ledger.active) == len(names))
    assert not second.ledger.unsettled
    assert cloud.calls["find"] == 0


@in_virtual_time
async def test_adopted_by_arn_is_followed_to_its_end() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        first.launch("a")
        [launched] = await first.until(lambda: first.launched("a"))
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a"), Was.RUNNING, launched.handle_id)
        await second.until(lambda: second.finished("a"))
    assert second.finished("a")[0].success
    assert len(cloud.of("a")) == 1


@in_virtual_time
async def test_adopted_queued_and_never_launched_is_launched_by_us() -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("tokened", tokened=True), Was.QUEUED)
        harness.adopt(make_launch("listed"), Was.QUEUED)
        await harness.until(lambda: len(harness.finished()) == 2)
    assert all(f.success for f in harness.finished())
    assert len(cloud.containers) == 2


@in_virtual_time
async def test_adopted_queued_found_by_its_mark_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        await first.until(lambda: first.launched("a"))
    async with Harness(cloud).running() as second:
        second.adopt(replace(make_launch("a", started_by="ti-1"), queued_at=original.queued_at), Was.QUEUED)
        await second.until(lambda: second.finished("a"))
    assert len(cloud.of("a")) == 1


@in_virtual_time
@pytest.mark.parametrize("by", ["arn", "mark"])
async def test_a_previous_queueings_container_is_not_mistaken_for_this_ones(by: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=3, exit_code=0 if nth > 1 else 7))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        [old] = await first.until(lambda: first.launched("a"))
        await anyio.sleep(60)
    async with Harness(cloud).running() as second:
        resumed = make_launch("a", started_by="ti-1")
        second.adopt(resumed, Was.QUEUED, old.handle_id if by == "arn" else None)
        await second.until(lambda: second.finished("a"))
    assert second.finished("a")[0].success
    assert old.handle_id not in [r.handle_id for r in second.launched("a")]
    assert len(cloud.of("a")) == 2


@in_virtual_time
@pytest.mark.parametrize("was", [Was.RUNNING, Was.RESTARTING])
@pytest.mark.parametrize("handle_id", ["container-77", None])
async def test_running_and_gone_is_failed_never_launched(was: Was, handle_id: str | None) -> None:
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        harness.adopt(make_launch("a"), was, handle_id)
        [finished] = await harness.until(lambda: harness.finished("a"))
    assert not finished.success
    assert finished.reason
    assert cloud.calls["launch"] == 0


@in_virtual_time
async def test_adoption_waits_out_a_service_that_does_not_answer() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600))
    async with Harness(cloud).running() as first:
        first.launch("a")
        [launched] = await first.until(lambda: first.launched("a"))
    cloud.fault = lambda operation, cloud: TIMED_OUT if anyio.current_time() < 120 else None
    async with Harness(cloud).running() as second:
        second.adopt(make_launch("a"), Was.RUNNING, launched.handle_id)
        second.adopt(make_launch("b", started_by="nobody"), Was.QUEUED)
        await second.until(lambda: len(second.finished()) == 2)
    assert all(f.success for f in second.finished())
    assert len(cloud.of("a")) == len(cloud.of("b")) == 1


# --- shutdown and the loop thread's death -------------------------------------------------------------------


@in_virtual_time
async def test_nothing_is_launched_after_drain_and_what_is_in_flight_gets_its_answer() -> None:
    cloud = FakeCloud(latency=2.0, plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud, options=replace(OPTIONS, max_concurrent_launches=10))
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(harness.engine.run)
        await anyio.sleep(0.1)
        for n in range(100):
            harness.launch(f"w{n}")
        await anyio.sleep(1)
        sent = cloud.calls["launch"]
        harness.engine.drain(None)
    assert cloud.calls["launch"] == sent == 10
    assert sum(len(harness.launched(f"w{n}")) for n in range(100)) == 10
    assert not any(c.stop_reasons for c in cloud.containers.values())


@in_virtual_time
async def test_drain_with_a_reason_stops_every_container() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=6000))
    harness = Harness(cloud)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(harness.engine.run)
        await anyio.sleep(0.1)
        for n in range(200):
            harness.launch(f"w{n}")
        await anyio.sleep(3)
        harness.engine.drain("terminated")
    assert len(cloud.containers) == 200
    assert all(c.stop_reasons == ["terminated"] for c in cloud.containers.values())


@in_virtual_time
async def test_a_dead_loop_is_replaced_over_the_same_ledger_and_nothing_runs_twice() -> None:
    cloud = FakeCloud(latency=1.0, plan=lambda label, nth: Plan(duration=30))
    harness = Harness(cloud)
    for death in range(6):
        async with harness.running():
            for n in range(20):
                harness.launch(f"w{death}-{n}")
            await anyio.sleep(0.4 + death * 0.3)
        harness.new_loop()
    async with harness.running():
        await harness.until(lambda: len(harness.finished()) == 120)
    assert all(f.success for f in harness.finished())
    assert all(len(cloud.of(f"w{d}-{n}")) == 1 for d in range(6) for n in range(20))


@in_virtual_time
async def test_everybody_at_a_gate_is_told_when_it_is_closed_for_something_else() -> None:
    no_cpu = BackendError(Kind.CAPACITY, "RESOURCE:CPU", "no container instance met all of its requirements")

    def fault(operation: str, _: FakeCloud) -> BackendError | None:
        errors = ((60.0, DENIED), (200.0, NO_MEMORY), (400.0, no_cpu), (600.0, NO_MEMORY))
        now = anyio.current_time()
        return next((error for until, error in errors if now < until), None) if operation == "launch" else None

    cloud = FakeCloud(fault=fault)
    async with Harness(cloud).running() as harness:
        for n in range(3):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 3, timeout=900.0)
        told = [[one.text for one in harness.notices(f"w{n}")] for n in range(3)]
    for texts in told:
        assert "refuses it: AccessDeniedException" in texts[0]
        assert [text.split(": ")[2] for text in texts[1:]] == ["RESOURCE:MEMORY", "RESOURCE:CPU"]


@in_virtual_time
async def test_one_bad_observation_spoils_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    from ecs_async_executor.core import lifecycle

    real = lifecycle.step

    def step(record: Any, event: Any, now: float, rules: Any) -> Any:
        if isinstance(event, lifecycle.Observed) and record.launch.label == "w7":
            raise KeyError("unparsable")
        return real(record, event, now, rules)

    monkeypatch.setattr(lifecycle, "step", step)
    cloud = FakeCloud()
    async with Harness(cloud).running() as harness:
        for n in range(100):
            harness.launch(f"w{n}")
        await harness.until(lambda: len(harness.finished()) == 100)
    failed = [f for f in harness.finished() if not f.success]
    assert [(f.key, f.reason) for f in failed] == [("w7", "Internal error of the executor: KeyError")]


@in_virtual_time
async def test_what_the_second_container_waits_for_is_told_as_well() -> None:
    outages = [(0.0, 60.0), (90.0, 3000.0)]

    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        now = anyio.current_time()
        return NO_MEMORY if operation == "launch" and any(a <= now < b for a, b in outages) else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=30, starts=nth > 1), fault=fault)
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        [finished] = await harness.until(lambda: harness.finished("a"))
    assert finished.success
    assert [type(r).__name__ for r in harness.reports] == ["Notice", "Launched", "Notice", "Launched", "Finished"]
    assert all(notice.unlaunched for notice in harness.notices("a"))
