"""The bridge on a real thread: commands go in, reports come out, and the scheduler never waits."""

from __future__ import annotations

import time

import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Adopt, AirflowState, Finished, Launch, Report
from tests.engine.bridged import Scheduler, a_launch, render
from tests.engine.cloud import FakeCloud


def test_commands_go_in_and_reports_come_out(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    for n in range(200):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    scheduler.until(lambda: len(scheduler.outcomes()) == 200)
    assert all(scheduler.outcomes().values())


def test_people_can_see_what_every_launch_waits_for_but_not_what_it_runs(cloud: FakeCloud) -> None:
    refusal = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no room")
    cloud.fault = lambda operation, _: refusal if operation == "launch" else None
    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    launch = a_launch("a").evolve(workload="secret")
    scheduler.bridge.submit(launch)
    scheduler.until(lambda: any(record["errors"] for record in scheduler.bridge.shown_launches()))
    (shown,) = scheduler.bridge.shown_launches()
    assert (shown["launch_id"], shown["workload"], shown["phase"]) == (launch.launch_id, "a", "waiting")
    assert "secret" not in str(shown)
    scheduler.bridge.stop(5, stop_containers=False, reason="")


@pytest.mark.parametrize("adopted", [False, True])
def test_a_launch_waits_in_the_form_that_takes_the_least(cloud: FakeCloud, *, adopted: bool) -> None:
    cloud.fault = lambda operation, _: BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no room")
    rendered: list[object] = []

    def noting(launch: Launch) -> LaunchSpec:
        rendered.append(launch.workload)
        return render(launch)

    scheduler = Scheduler(cloud, render=noting, condense=lambda launch: launch.evolve(workload="small"))
    scheduler.bridge.start()
    launch = a_launch("a").evolve(workload="large", tokened=True)
    scheduler.bridge.submit(Adopt(launch, AirflowState.QUEUED, None) if adopted else launch)
    scheduler.until(lambda: rendered)
    tracked = scheduler.bridge.ledger.latest(launch.launch_id)
    assert tracked is not None
    assert (tracked.launch, set(rendered)) == (launch.evolve(workload="small"), {"small"})
    scheduler.bridge.stop(5, stop_containers=False, reason="")


def test_a_report_is_not_lost_to_a_system_exit_while_it_is_applied(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(lambda: scheduler.bridge.statistics().outbox)
    seen: list[Report] = []

    def interrupted(report: Report) -> None:
        seen.append(report)
        raise SystemExit

    with pytest.raises(SystemExit):
        scheduler.bridge.drain(interrupted)
    scheduler.until(scheduler.outcomes)
    assert scheduler.reports[0] is seen[0]


def test_a_report_that_cannot_be_applied_does_not_hold_up_the_others(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    for n in range(3):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    deadline = time.monotonic() + 20
    seen: list[Report] = []

    def buggy(report: Report) -> None:
        seen.append(report)
        raise KeyError(report.launch_id)

    with capture_logs() as logs:
        while len(seen) < 6 and time.monotonic() < deadline:
            scheduler.bridge.drain(buggy)
            scheduler.bridge.heartbeat()
            time.sleep(0.01)
    assert len(seen) == 6
    assert {entry["event"] for entry in logs} >= {"ecs_executor.report.not_applied"}


def test_100000_waiting_reports_take_a_bounded_time_each_heartbeat(scheduler: Scheduler) -> None:
    outbox = scheduler.bridge.ledger.outbox
    outbox.extend(Finished(str(n), n, success=True) for n in range(100_000))
    applied: list[Report] = []

    def slow(report: Report) -> None:
        applied.append(report)
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass

    first = scheduler.bridge.drain(slow, budget=0.002)
    assert 0 < first <= 16
    while outbox:
        scheduler.bridge.drain(applied.append)
    assert [r.key for r in applied] == list(range(100_000))


def test_after_a_silence_nothing_is_launched_before_the_scheduler_says_so(cloud: FakeCloud) -> None:
    now = [0.0]
    scheduler = Scheduler(cloud, stall_timeout=20.0, monotonic=lambda: now[0])
    bridge = scheduler.bridge
    bridge.start()
    bridge.check(5)
    bridge.heartbeat()
    now[0] = 20.0
    assert not bridge.is_silent()
    now[0] = 20.1
    assert bridge.is_silent()
    launch = a_launch("a")
    bridge.submit(launch)
    bridge.heartbeat(may_launch=False)
    deadline = time.monotonic() + 20
    while bridge.unstarted() != {launch.launch_id}:
        assert time.monotonic() < deadline, "it was not taken in"
        time.sleep(0.01)
    time.sleep(0.2)
    assert bridge.is_silent()
    assert cloud.calls["launch"] == 0
    bridge.heartbeat()
    assert not bridge.is_silent()
    scheduler.until(lambda: cloud.calls["search"])  # another may have launched it
    bridge.stop(5, stop_containers=False, reason="")


def test_check_raises_what_the_backend_says(scheduler: Scheduler) -> None:
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "no")
    scheduler.cloud.fault = lambda operation, cloud: denied if operation == "check" else None
    scheduler.bridge.start()
    with pytest.raises(BackendError, match="AccessDenied"):
        scheduler.bridge.check(5)


def test_check_waits_no_longer_than_its_timeout(scheduler: Scheduler) -> None:
    scheduler.cloud.latency = 3.0
    scheduler.bridge.start()
    began = time.monotonic()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.2 s"):
        scheduler.bridge.check(0.2)
    assert time.monotonic() - began < 2
    scheduler.cloud.latency = 0.01
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
