"""The bridge on real threads and real time: hand-over, death, stall, stop, fork."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec, Service
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Adopt, AirflowState, Finished, Launch, Report, Stop
from ecs_async_executor.engine import loop_thread
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.services.batch import SERVICE as BATCH
from ecs_async_executor.services.ecs import SERVICE as ECS
from ecs_async_executor.settings import Tuning
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import launch_id

TUNING = Tuning(poll_interval=0.05, launch_rate=900.0, launch_rate_max=1000.0, launch_burst=100)


def render(launch: Launch) -> LaunchSpec:
    return LaunchSpec({"label": launch.label}, "default", "main", "FARGATE", launch.started_by)


def a_launch(label: str) -> Launch:
    identity = launch_id()
    return Launch(identity, label, None, 0, identity, time.time(), label)


class Scheduler:
    """The scheduler's side of a bridge."""

    def __init__(self, cloud: FakeCloud, **options: Any) -> None:
        self.cloud = cloud
        self.reports: list[Report] = []
        options.setdefault("backend", lambda: cloud)
        options.setdefault("render", render)
        options.setdefault("service", ECS)
        self.bridge = Bridge(tuning=TUNING, max_attempts=3, **options)

    def heartbeat(self) -> None:
        self.bridge.drain(self.reports.append)
        self.bridge.heartbeat()

    def until(self, condition: Callable[[], Any], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.heartbeat()
            time.sleep(0.01)

    def works(self) -> bool:
        """The loop thread lives, and its engine has started."""
        return self.bridge.loop_thread.is_working()

    def outcomes(self) -> dict[Any, bool]:
        return {r.key: r.success for r in self.reports if isinstance(r, Finished)}


@pytest.fixture
def cloud() -> FakeCloud:
    return FakeCloud(latency=0.02, plan=lambda label, nth: Plan(start_after=0.05, duration=0.1))


@pytest.fixture
def scheduler(cloud: FakeCloud) -> Iterator[Scheduler]:
    scheduler = Scheduler(cloud)
    yield scheduler
    scheduler.bridge.stop(5, stop_containers=False, reason="")


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_thread, "RESTART_DELAYS", (0.0, 0.1))


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
    launch = replace(a_launch("a"), workload="secret")
    scheduler.bridge.submit(launch)
    scheduler.until(lambda: any(record["errors"] for record in scheduler.bridge.shown_launches()))
    (shown,) = scheduler.bridge.shown_launches()
    assert (shown["launch_id"], shown["workload"], shown["phase"]) == (launch.launch_id, "a", "waiting")
    assert "secret" not in str(shown)
    scheduler.bridge.stop(5, stop_containers=False, reason="")


def test_start_does_no_io_on_the_callers_thread(cloud: FakeCloud) -> None:
    made_on: list[str] = []

    def backend() -> FakeCloud:
        made_on.append(threading.current_thread().name)
        return cloud

    scheduler = Scheduler(cloud, backend=backend)
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert made_on == ["ecs-async-executor ECS"]


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


def test_a_dead_loop_thread_is_replaced_and_what_it_was_sending_runs_once(
    cloud: FakeCloud, quick_restarts: None
) -> None:
    cloud.latency = 0.3
    kills = 3

    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    for n in range(40):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    with capture_logs() as logs:
        for _ in range(kills):
            scheduler.until(scheduler.works)
            time.sleep(0.2)
            thread = scheduler.bridge.loop_thread.thread
            assert thread is not None
            scheduler.bridge.loop_thread.tell(_die)
            thread.join(5)
            assert not thread.is_alive()
        scheduler.until(lambda: len(scheduler.outcomes()) == 40)
    assert scheduler.bridge.statistics().restarts == kills
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert all(scheduler.outcomes().values())
    assert all(len(cloud.of(f"w{n}")) == 1 for n in range(40))
    assert sum(entry["event"] == "ecs_executor.engine.died" for entry in logs) == kills


def _die(_: Engine) -> None:
    raise SystemExit("the loop thread dies")


def test_a_stalled_loop_is_reported_with_its_stack_and_never_replaced(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_thread, "STALL_SECONDS", 0.7)
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    woken = threading.Event()
    scheduler.bridge.loop_thread.tell(lambda _: woken.wait(10))
    thread = scheduler.bridge.loop_thread.thread
    with capture_logs() as logs:
        deadline = time.monotonic() + 10
        while not logs and time.monotonic() < deadline:
            scheduler.heartbeat()
            time.sleep(0.05)
    assert [entry["event"] for entry in logs] == ["ecs_executor.engine.stalled"]
    assert "threading.py" in logs[0]["stack"]
    scheduler.until(lambda: scheduler.bridge.statistics().loop_lag > 0)
    woken.set()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    assert scheduler.bridge.loop_thread.thread is thread


def test_without_a_client_everything_waits_and_nothing_fails(cloud: FakeCloud, quick_restarts: None) -> None:
    class Unopenable(FakeCloud):
        def open(self) -> AbstractAsyncContextManager[None]:
            raise RuntimeError("cannot be opened")

    attempts = iter([Unopenable(), Unopenable()])
    scheduler = Scheduler(cloud, backend=lambda: next(attempts, cloud))
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    time.sleep(0.05)
    assert "cannot be opened" in (scheduler.bridge.statistics().paused or "")
    scheduler.until(scheduler.outcomes)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert scheduler.outcomes() == {"a": True}
    assert scheduler.bridge.statistics().restarts == 0


@pytest.mark.parametrize("service", [ECS, BATCH], ids=["ECS", "Batch"])
def test_without_a_backend_everything_waits_and_the_check_says_why(
    cloud: FakeCloud, service: Service, quick_restarts: None
) -> None:
    broken = threading.Event()
    broken.set()

    def backend() -> FakeCloud:
        if broken.is_set():
            raise RuntimeError("cannot be made")
        return cloud

    scheduler = Scheduler(cloud, service=service, backend=backend)
    scheduler.bridge.start()
    with pytest.raises(RuntimeError, match="cannot be made"):
        scheduler.bridge.check(5)
    scheduler.bridge.submit(a_launch("a"))
    scheduler.heartbeat()
    assert "cannot be made" in (scheduler.bridge.statistics().paused or "")
    broken.clear()
    scheduler.until(scheduler.outcomes)
    assert scheduler.outcomes() == {"a": True}
    assert scheduler.bridge.statistics().restarts == 0
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")


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


def test_stop_lets_requests_in_flight_finish_and_launches_nothing_more(scheduler: Scheduler) -> None:
    scheduler.cloud.latency = 0.5
    scheduler.bridge.start()
    for n in range(300):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    scheduler.heartbeat()
    time.sleep(0.35)
    assert scheduler.bridge.stop(5, stop_containers=False, reason="")
    launched = scheduler.cloud.calls["launch"]
    assert 0 < launched < 300
    assert sum(r.key is not None for r in scheduler.bridge.ledger.outbox) == launched
    time.sleep(0.3)
    assert scheduler.cloud.calls["launch"] == launched


def test_stop_is_bounded_when_aws_hangs(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    scheduler.cloud.latency = 1000.0
    scheduler.bridge.submit(a_launch("a"))
    scheduler.heartbeat()
    time.sleep(0.2)
    began = time.monotonic()
    done = scheduler.bridge.stop(3, stop_containers=False, reason="")
    assert time.monotonic() - began < 3.5
    assert done or scheduler.bridge.ledger.launches


@pytest.mark.parametrize(
    ("service", "permission"), [(ECS, "ecs:StopTask"), (BATCH, "batch:TerminateJob")], ids=["ECS", "Batch"]
)
def test_a_refused_stop_names_the_permission_that_it_takes(
    cloud: FakeCloud, service: Service, permission: str
) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "no")
    cloud.fault = lambda operation, _: denied if operation == "stop" else None
    scheduler = Scheduler(cloud, service=service)
    scheduler.bridge.start()
    launch = a_launch("a")
    scheduler.bridge.submit(launch)
    scheduler.until(lambda: scheduler.reports)
    with capture_logs() as logs:
        scheduler.bridge.submit(Stop(launch.launch_id, "revoked"))
        scheduler.until(lambda: logs)
    scheduler.bridge.stop(5, stop_containers=False, reason="")
    assert logs[0]["event"] == service.event("stop.refused")
    assert logs[0]["permission"] == permission


def test_stop_twice_and_without_start(cloud: FakeCloud) -> None:
    scheduler = Scheduler(cloud)
    assert scheduler.bridge.stop(1, stop_containers=True, reason="x")
    assert scheduler.bridge.stop(1, stop_containers=False, reason="x")
    scheduler.bridge.heartbeat()
    assert scheduler.bridge.drain(print) == 0
    started = Scheduler(cloud)
    started.bridge.start()
    assert started.bridge.stop(5, stop_containers=False, reason="")
    assert started.bridge.stop(5, stop_containers=True, reason="")


@pytest.mark.parametrize("service", [ECS, BATCH], ids=["ECS", "Batch"])
def test_what_was_revoked_just_before_the_end_is_stopped(cloud: FakeCloud, service: Service) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    scheduler = Scheduler(cloud, service=service)
    scheduler.bridge.start()
    launches = [a_launch(f"w{n}") for n in range(60)]  # more than may be stopped at once
    for launch in launches:
        scheduler.bridge.submit(launch)
    scheduler.until(lambda: len(scheduler.reports) == 60)
    for launch in launches:
        scheduler.bridge.submit(Stop(launch.launch_id, "revoked"))
    began = time.monotonic()
    with capture_logs() as logs:
        assert scheduler.bridge.stop(20, stop_containers=False, reason="")
    assert time.monotonic() - began < 10
    assert [c.stop_reasons for c in cloud.containers.values()] == [["revoked"]] * 60
    assert not logs


def test_what_is_adopted_just_before_the_termination_is_stopped(cloud: FakeCloud) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    first = Scheduler(cloud)
    first.bridge.start()
    launch = a_launch("a")
    first.bridge.submit(launch)
    first.until(lambda: first.reports)
    first.bridge.stop(5, stop_containers=False, reason="")
    second = Scheduler(cloud)
    second.bridge.start()
    second.bridge.check(5)
    second.bridge.submit(Adopt(launch, AirflowState.RUNNING, next(iter(cloud.containers))))
    assert second.bridge.stop(10, stop_containers=True, reason="terminated")
    assert [c.stop_reasons for c in cloud.containers.values()] == [["terminated"]]


@pytest.mark.parametrize("stop_containers", [False, True], ids=["end", "terminate"])
def test_the_end_does_not_wait_for_a_stop_that_is_refused_and_names_its_container(
    cloud: FakeCloud, *, stop_containers: bool
) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    denied = BackendError(Kind.REFUSED, "AccessDeniedException", "no")
    cloud.fault = lambda operation, _: denied if operation == "stop" else None
    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    launch = a_launch("a")
    scheduler.bridge.submit(launch)
    scheduler.until(lambda: scheduler.reports)
    scheduler.bridge.submit(Stop(launch.launch_id, "revoked"))
    began = time.monotonic()
    with capture_logs() as logs:
        assert scheduler.bridge.stop(20, stop_containers=stop_containers, reason="terminated")
    assert time.monotonic() - began < 5
    assert [entry["event"] for entry in logs] == ["ecs_executor.stop.refused", "ecs_executor.bridge.not_stopped"]
    assert logs[1]["handles"] == list(cloud.containers)


@pytest.mark.parametrize("hangs", ["AWS", "the loop"])
def test_the_end_is_bounded_while_stops_are_owed_and_names_their_containers(cloud: FakeCloud, hangs: str) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    launches = [a_launch("a"), a_launch("b")]
    for launch in launches:
        scheduler.bridge.submit(launch)
    scheduler.until(lambda: len(scheduler.reports) == 2)
    woken = threading.Event()
    if hangs == "AWS":
        cloud.latency = 1000.0
    else:
        scheduler.bridge.loop_thread.tell(lambda _: woken.wait(30))
    for launch in launches:
        scheduler.bridge.submit(Stop(launch.launch_id, "revoked"))
    began = time.monotonic()
    with capture_logs() as logs:
        scheduler.bridge.stop(3, stop_containers=False, reason="")
    assert time.monotonic() - began < 4
    woken.set()
    [told] = [entry for entry in logs if entry["event"] == "ecs_executor.bridge.not_stopped"]
    assert sorted(told["handles"]) == sorted(cloud.containers)


def test_stop_with_containers_stops_them(cloud: FakeCloud) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    for n in range(30):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    scheduler.until(lambda: len(scheduler.reports) == 30)
    assert scheduler.bridge.stop(10, stop_containers=True, reason="terminated")
    assert all(c.stop_reasons == ["terminated"] for c in cloud.containers.values())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forks_child_leaves_the_parents_loop_alone(scheduler: Scheduler) -> None:
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            scheduler.bridge.submit(a_launch("in the child"))
            scheduler.bridge.heartbeat()
            scheduler.bridge.drain(lambda report: None)
            code = 0 if scheduler.bridge.stop(5, stop_containers=True, reason="child") else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(scheduler.outcomes)
    assert set(scheduler.outcomes()) == {"a"}
