"""The whole engine through real sockets: bursts, faults and restarts against the local ECS and Batch."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.messages import Adopt, AirflowState, Launched
from tests.contract.scheduler import Scheduler
from tests.contract.services import LOCAL, Elsewhere, Local, local

pytestmark = pytest.mark.slow


@pytest.fixture(params=LOCAL)
def service(request: pytest.FixtureRequest) -> Iterator[Local]:
    with local(request.param, latency=0.05) as service:
        yield service


def test_500_workloads_with_50_ms_latency_each_run_once(service: Local) -> None:
    scheduler = Scheduler(service)
    scheduler.heartbeat(*scheduler.launches(500))
    scheduler.run_until_finished(500)
    assert scheduler.stop()
    assert all(f.success for f in scheduler.outcomes())
    assert len({f.key for f in scheduler.outcomes()}) == 500
    assert service.containers() == 500


def test_lost_replies_resets_throttles_and_5xx_run_nothing_twice(service: Local) -> None:
    for operation, fault, options in (
        ("launch", "reset_after", {"probability": 0.1}),
        ("*", "reset_before", {"probability": 0.05}),
        ("*", "throttle", {"probability": 0.05}),
        ("launch", "error_after", {"probability": 0.05, "code": "ServerException", "status": 500}),
        ("*", "truncate", {"probability": 0.05}),
        ("*", "garbage", {"probability": 0.05}),
        ("launch", "empty", {"probability": 0.05}),
        ("*", "status", {"probability": 0.05, "status": 503}),
    ):
        # Without tokens each request that comes to nothing costs 20 s of answered searches, and faults strike
        # those too: not too many in a row.
        service.fault(operation, fault, count=None if service.facts.repeatable else 15, **options)
    scheduler = Scheduler(service)
    scheduler.heartbeat(*scheduler.launches(300))
    scheduler.run_until_finished(300, timeout=240)
    assert scheduler.stop()
    assert [f.reason for f in scheduler.outcomes() if not f.success] == []
    assert service.containers() == 300
    faults = service.server.faults.listing()
    assert {fault["kind"] for fault in faults} == {fault["kind"] for fault in faults if fault["struck"]}


def test_a_killed_schedulers_burst_is_adopted_and_each_runs_once(service: Local) -> None:
    """SIGKILL in mid-burst: what is in flight gets no answer, and no report reaches anybody."""
    successor = Scheduler(service, life="long")
    launches = successor.launches(200)
    burst = [
        sys.executable,
        "-m",
        "tests.contract.burst",
        service.name,
        *(launch.launch_id for launch in launches),
    ]
    scheduler = subprocess.Popen(burst)
    try:
        deadline = time.monotonic() + 60
        while service.containers() < 60:
            assert time.monotonic() < deadline
            assert scheduler.poll() is None
            time.sleep(0.005)
    finally:
        scheduler.send_signal(signal.SIGKILL)
        scheduler.wait()
    for launch in launches:
        successor.bridge.submit(Adopt(launch, AirflowState.QUEUED, None))
    while sum(isinstance(r, Launched) for r in successor.reports) < 200:
        assert time.monotonic() < deadline, successor.bridge.statistics()
        successor.heartbeat()
        time.sleep(0.02)
    assert successor.stop(containers=True)
    assert service.containers() == 200
    assert {r.key for r in successor.reports if isinstance(r, Launched)} == {la.launch_id for la in launches}


@pytest.mark.parametrize("service", LOCAL, indirect=True)
def test_containers_elsewhere_are_adopted_by_identifier_and_by_mark_while_home_is_down(
    service: Local,
) -> None:
    there = Elsewhere(service)
    first = Scheduler(there, life="long")
    launches = first.launches(20)
    first.heartbeat(*launches)
    deadline = time.monotonic() + 60
    while sum(isinstance(r, Launched) for r in first.reports) < 20:
        assert time.monotonic() < deadline, first.bridge.statistics()
        first.heartbeat()
        time.sleep(0.02)
    assert first.stop()
    handles = {r.launch_id: r.handle_id for r in first.reports if isinstance(r, Launched)}

    second = Scheduler(there, life="long")
    for number, launch in enumerate(launches):
        known = handles[launch.launch_id] if number % 2 else None
        second.bridge.submit(Adopt(launch, AirflowState.QUEUED, known))
    while second.bridge.statistics().active < 20:
        assert time.monotonic() < deadline, second.bridge.statistics()
        second.heartbeat()
        time.sleep(0.02)
    assert second.stop(containers=True)
    assert service.containers() == 20
    assert {r.handle_id for r in second.reports if isinstance(r, Launched)} <= set(handles.values())
    assert second.outcomes() == []


def test_expired_credentials_resume_by_themselves(service: Local) -> None:
    service.fail("launch", Kind.CREDENTIALS, times=3)
    scheduler = Scheduler(service)
    scheduler.heartbeat(*scheduler.launches(20))
    deadline = time.monotonic() + 60
    while "expired" not in (scheduler.bridge.statistics().paused or ""):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    scheduler.run_until_finished(20, timeout=60)
    assert scheduler.stop()
    assert all(f.success for f in scheduler.outcomes())


def test_a_test_whose_fault_never_strikes_does_not_pass() -> None:
    with pytest.raises(AssertionError, match=r"never struck: .*reset_after"), local() as service:
        service.fault("launch", "reset_after")
