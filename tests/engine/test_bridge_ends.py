"""The end of a bridge, at any moment: it is bounded, it can be repeated, and nothing is launched after it."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Service
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Adopt, AirflowState, Stop
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.services.batch import SERVICE as BATCH
from ecs_async_executor.services.ecs import SERVICE as ECS
from tests.engine.bridged import DEADLY, Scheduler, Unopenable, a_launch, die
from tests.engine.cloud import FakeCloud, Plan

QUICKLY = 3.0
"""Far less than the ten seconds that each end may take here."""


class HangsWhenClosed(FakeCloud):
    def open(self) -> AbstractAsyncContextManager[None]:
        @asynccontextmanager
        async def opened() -> AsyncIterator[None]:
            try:
                yield
            finally:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(8)

        return opened()


def slow_cloud() -> FakeCloud:
    return FakeCloud(latency=0.02, plan=lambda label, nth: Plan(start_after=0.05, duration=1000))


def seconds_of(what: Callable[[], bool]) -> tuple[bool, float]:
    began = time.monotonic()
    return what(), time.monotonic() - began


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


def test_stop_with_containers_stops_them(cloud: FakeCloud) -> None:
    cloud.plan = lambda label, nth: Plan(duration=1000)
    scheduler = Scheduler(cloud)
    scheduler.bridge.start()
    for n in range(30):
        scheduler.bridge.submit(a_launch(f"w{n}"))
    scheduler.until(lambda: len(scheduler.reports) == 30)
    assert scheduler.bridge.stop(10, stop_containers=True, reason="terminated")
    assert all(c.stop_reasons == ["terminated"] for c in cloud.containers.values())


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
    assert not [line for line in logs if line["event"] != service.event("work")]


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


def test_the_end_without_a_client_does_not_wait_for_one() -> None:
    scheduler = Scheduler(slow_cloud(), backend=Unopenable)
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(lambda: "cannot be opened" in (scheduler.bridge.statistics().paused or ""))
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))
    assert done
    assert seconds < QUICKLY


def test_the_end_right_after_the_start_leaves_no_container_running() -> None:
    for _ in range(20):
        scheduler = Scheduler(slow_cloud())
        scheduler.bridge.start()
        scheduler.bridge.submit(a_launch("a"))
        scheduler.heartbeat()
        done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))  # noqa: B023
        assert done
        assert seconds < QUICKLY
        assert all(container.stop_reasons == ["x"] for container in scheduler.cloud.containers.values())


@DEADLY
def test_the_end_of_a_dead_loop_says_that_it_is_not_done() -> None:
    scheduler = Scheduler(slow_cloud())
    scheduler.bridge.start()
    scheduler.bridge.submit(a_launch("a"))
    scheduler.until(lambda: scheduler.reports)
    thread = scheduler.bridge.loop_thread.thread
    assert thread is not None
    scheduler.bridge.loop_thread.tell(die)
    thread.join(5)
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(10, stop_containers=True, reason="x"))
    assert not done
    assert seconds < QUICKLY


@pytest.mark.parametrize("stop_containers", [True, False])
def test_the_end_of_a_stalled_loop_is_bounded_each_time_and_nothing_is_launched_when_it_wakes(
    stop_containers: bool,
) -> None:
    scheduler = Scheduler(slow_cloud())
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    woken, stalled = threading.Event(), threading.Event()
    thread = scheduler.bridge.loop_thread.thread
    assert thread is not None

    def stall(_: Engine) -> None:
        stalled.set()
        woken.wait(30)

    scheduler.bridge.loop_thread.tell(stall)
    assert stalled.wait(5)
    done, seconds = seconds_of(lambda: scheduler.bridge.stop(3, stop_containers=stop_containers, reason="x"))
    assert not done
    assert seconds < 4
    scheduler.bridge.submit(a_launch("late"))
    assert not scheduler.bridge.stop(1, stop_containers=stop_containers, reason="x")
    woken.set()
    thread.join(10)
    assert not thread.is_alive()
    assert not scheduler.cloud.containers


def test_the_end_does_not_wait_for_a_client_that_does_not_close() -> None:
    scheduler = Scheduler(slow_cloud(), backend=HangsWhenClosed)
    scheduler.bridge.start()
    scheduler.bridge.check(5)
    _, seconds = seconds_of(lambda: scheduler.bridge.stop(3, stop_containers=False, reason="x"))
    assert seconds < 4
