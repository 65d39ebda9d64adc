"""
Bugs of the amazon provider's executor that are not ours: engine and backend against the local ECS.

docs/guarantees.md lists them all, with their tests: those about settings and requests are in tests/differential,
those about Airflow's side in tests/adapter.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from ecs_async_executor.core.messages import Adopt, AirflowState, Finished
from ecs_async_executor.local import Fault
from ecs_async_executor.services.ecs.replies import observation
from tests.contract.services import Local, local
from tests.contract.test_engine_over_services import Scheduler

pytestmark = pytest.mark.slow


@pytest.fixture
def service() -> Iterator[Local]:
    with local() as service:
        yield service


def outcome(service: Local, *, life: str = "quick", seconds: float = 60.0) -> Finished:
    scheduler = Scheduler(service, life=life)
    scheduler.heartbeat(*scheduler.launches(1))
    scheduler.run_until_finished(1, timeout=seconds)
    assert scheduler.stop()
    [finished] = scheduler.outcomes()
    return finished


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="throttle", operation="RunTask", count=3),
        Fault(
            kind="error",
            operation="RunTask",
            count=3,
            code="InvalidParameterException",
            message="Error retrieving subnets: Rate exceeded (ErrorCode: Throttling)",
        ),
        Fault(kind="error", operation="RunTask", count=3, code="ServerException", status=500),
        Fault(kind="reset_before", operation="RunTask", count=3),
        Fault.from_json({"known": "assume_role", "count": 1}),
        Fault.from_json({"known": "ec2_unavailable", "count": 3}),
        Fault.from_json({"known": "request_timeout", "operation": "RunTask", "count": 3}),
    ],
    ids=lambda fault: f"{fault.kind} {fault.code} {fault.message[:20]}",
)
def test_what_passes_by_itself_fails_no_workload(service: Local, fault: Fault) -> None:
    service.server.faults.add(fault)
    assert outcome(service).success
    assert service.containers() == 1


def test_missing_right_after_run_task_starts_no_second_container() -> None:
    with local(visible_after=2.0) as service:
        assert outcome(service).success
        assert service.containers() == 1


def test_a_host_lost_under_a_started_container_fails_at_once_with_the_reason(service: Local) -> None:
    began = time.monotonic()
    finished = outcome(service, life="host-lost")
    assert time.monotonic() - began < 20
    assert not finished.success
    assert "Host EC2 (instance i-0123) terminated." in (finished.reason or "")
    assert service.containers() == 1


def test_a_sidecars_exit_code_decides_nothing() -> None:
    task = {
        "taskArn": "arn:aws:ecs:us-east-1:123456789012:task/default/0123456789abcdef",
        "lastStatus": "STOPPED",
        "startedAt": 1_800_000_000.0,
        "stopCode": "EssentialContainerExited",
        "containers": [{"name": "logs", "exitCode": 137}, {"name": "main", "exitCode": 0}],
    }
    assert observation(task, "main", "default").exit_code == 0
    assert observation(task, "logs", "default").exit_code == 137


def test_a_container_that_failed_is_not_launched_again(service: Local) -> None:
    finished = outcome(service, life="fails")
    assert (finished.success, finished.exit_code) == (False, 3)
    assert service.containers() == 1


@pytest.mark.parametrize("kind", ["empty", "garbage", "truncate"])
def test_an_answer_without_sense_loses_nothing_and_starts_nothing_twice(service: Local, kind: str) -> None:
    service.server.faults.add(Fault(kind=kind, operation="RunTask", count=3))
    assert outcome(service).success
    assert service.containers() == 1


def test_an_adopted_launch_has_all_its_attempts(service: Local) -> None:
    scheduler = Scheduler(service, life="never-starts")
    [launch] = scheduler.launches(1)
    scheduler.bridge.submit(Adopt(launch, AirflowState.QUEUED, None))
    scheduler.run_until_finished(1)
    assert scheduler.stop()
    [finished] = scheduler.outcomes()
    assert "container 3 of 3" in (finished.reason or "")
    assert "CannotPullContainerError" in (finished.reason or "")
    assert service.containers() == 3
