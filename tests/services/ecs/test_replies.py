from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest

from ecs_async_executor.core.backend import Handle, Seen
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.services.ecs.replies import failure_error, observation
from ecs_async_executor.services.requests import stop_reason
from tests.services.ecs.samples import ARN, task

CREATED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)
STOPPED_USUALLY: dict[str, Any] = {
    "stopCode": "EssentialContainerExited",
    "stoppedReason": "Essential container in task exited",
}


SPOT: dict[str, Any] = {"stopCode": "SpotInterruption", "stoppedReason": "Your Spot Task was interrupted."}
OOM = "OutOfMemoryError: Container killed due to memory usage"
PULL = "CannotPullContainerError: pull image manifest has been retried 5 time(s): i/o timeout"
HOST: dict[str, Any] = {"stopCode": "InfrastructureHealth", "stoppedReason": "Host EC2 (instance i-0) terminated."}
ASG: dict[str, Any] = {"capacityProviderName": "asg"}
OBSERVATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    (
        "its containers stopped before the task",
        task("STOPPED", {"exitCode": 0}, executionStoppedAt=CREATED, stoppedAt=1.0, **STOPPED_USUALLY),
        {"stopped_at": CREATED.timestamp()},
    ),
    ("stopped before it had a container", task("STOPPED", stoppedAt=CREATED), {"stopped_at": CREATED.timestamp()}),
    ("still stops", task("DEACTIVATING", {"exitCode": 0}), {"stopped_at": None}),
    ("provisioning", task("PROVISIONING"), {"seen": Seen.PENDING, "started": False, "reason": ""}),
    ("pending", task("PENDING"), {"seen": Seen.PENDING, "started": False}),
    ("activating", task("ACTIVATING"), {"seen": Seen.PENDING, "started": False}),
    ("running", task(startedAt=CREATED), {"seen": Seen.RUNNING, "started": True, "exit_code": None, "reason": ""}),
    ("running without a start time", task("RUNNING"), {"seen": Seen.RUNNING, "started": True}),
    (
        "its container runs already",
        task("PENDING", {"lastStatus": "RUNNING"}),
        {"seen": Seen.PENDING, "started": True},
    ),
    (
        "exited while the task still runs",
        task("RUNNING", {"exitCode": 0}, startedAt=CREATED),
        {"seen": Seen.RUNNING, "exit_code": 0, "reason": ""},
    ),
    (
        "deprovisioning after success",
        task("DEPROVISIONING", {"exitCode": 0}),
        {"seen": Seen.RUNNING, "exit_code": 0},
    ),
    (
        "deprovisioning without a start",
        task("DEPROVISIONING", stopCode="TaskFailedToStart", stoppedReason=PULL),
        {"seen": Seen.PENDING, "started": False, "reason": ""},
    ),
    (
        "a sidecar does not decide",
        task("STOPPED", {"exitCode": 0}, startedAt=CREATED, **STOPPED_USUALLY),
        {"seen": Seen.STOPPED, "exit_code": 0, "reason": ""},
    ),
    (
        "failed",
        task("STOPPED", {"exitCode": 1}, **STOPPED_USUALLY),
        {"exit_code": 1, "reason": "ECS container exited 1"},
    ),
    (
        "out of memory",
        task("STOPPED", {"exitCode": 137, "reason": OOM}, **STOPPED_USUALLY),
        {"exit_code": 137, "reason": f"ECS container exited 137 ({OOM})"},
    ),
    (
        "spot",
        task("STOPPED", {"exitCode": 143}, **SPOT),
        {"reason": "ECS container exited 143: Your Spot Task was interrupted."},
    ),
    (
        "spot, and its process has ended in order",
        task("STOPPED", {"exitCode": 0}, **SPOT),
        {"exit_code": 0, "reason": "ECS container exited 0: Your Spot Task was interrupted."},
    ),
    (
        "stopped by a person, no words",
        task("STOPPED", {"exitCode": 143}, stopCode="UserInitiated"),
        {"reason": "ECS container exited 143: UserInitiated"},
    ),
    (
        "stopped by a person before it ran",
        task("STOPPED", stopCode="UserInitiated", stoppedReason="not wanted"),
        {
            "started": False,
            "by_hand": True,
            "reason": "ECS task stopped before its container ran: not wanted",
        },
    ),
    *(
        (
            f"stopped by something else before it ran: {reason}",
            task("STOPPED", stopCode=code, stoppedReason=reason),
            {"started": False, "by_hand": False},
        )
        for code, reason in (
            ("UserInitiated", stop_reason("revoked")),
            ("UserInitiated", stop_reason("x" * 300)),
            ("UserInitiated", "Airflow Executor received a SIGTERM"),
            ("UserInitiated", "Host EC2 (instance i-0) terminated."),
            ("TerminationNotice", "Host EC2 (instance i-0) terminated."),
            ("UserInitiated", "Container instance deregistration forced by user"),
            ("TaskFailedToStart", PULL),
            (None, "not wanted"),
        )
    ),
    (
        "host lost while it ran",
        task("STOPPED", startedAt=CREATED, **HOST),
        {
            "seen": Seen.STOPPED,
            "started": True,
            "exit_code": None,
            "reason": (
                "ECS task stopped without an exit code from its container: Host EC2 (instance i-0) terminated."
            ),
        },
    ),
    (
        "image cannot be pulled",
        task("STOPPED", {"reason": PULL}, stopCode="TaskFailedToStart", stoppedReason="Task failed to start"),
        {
            "started": False,
            "reason": f"ECS task stopped before its container ran: {PULL}; Task failed to start",
        },
    ),
    (
        "the same reason twice",
        task("STOPPED", {"reason": PULL}, stopCode="TaskFailedToStart", stoppedReason=f"{PULL} (again)"),
        {"reason": f"ECS task stopped before its container ran: {PULL} (again)"},
    ),
    (
        "no containers at all",
        task("STOPPED", stopCode="TaskFailedToStart") | {"containers": []},
        {"started": False, "reason": "ECS task stopped before its container ran: TaskFailedToStart"},
    ),
    (
        "no words at all",
        {"taskArn": ARN + "1", "lastStatus": "STOPPED"},
        {"started": False, "reason": "ECS task stopped before its container ran"},
    ),
    *(
        (
            f"no place: {reason}",
            task("STOPPED", stopCode="TaskFailedToStart", stoppedReason=reason, **ASG) | {"containers": []},
            {"unplaced": unplaced, "by_hand": False, "started": False},
        )
        for reason, unplaced in (
            ("RESOURCE:MEMORY", True),
            ("RESOURCE:ENI", True),
            ("AGENT", True),
            ("NO ACTIVE INSTANCES", True),
            ("EMPTY CAPACITY PROVIDER", True),
            ("ATTRIBUTE", False),
            (PULL, False),
        )
    ),
    (
        "a place is waited for",
        task("PROVISIONING", **ASG),
        {
            "seen": Seen.PENDING,
            "unplaced": True,
            "reason": "PROVISIONING: capacity provider asg has no container instance with room yet",
        },
    ),
    ("it has its place", task("PENDING", **ASG), {"unplaced": False, "reason": ""}),
    ("without capacity providers", task("PROVISIONING"), {"unplaced": False, "reason": ""}),
    *(
        (provider, task("PROVISIONING", capacityProviderName=provider), {"unplaced": False, "reason": ""})
        for provider in ("FARGATE", "FARGATE_SPOT")
    ),
    ("stopped by a person", task("STOPPED", stopCode="UserInitiated", stoppedReason="AGENT"), {"unplaced": False}),
    ("deleted", task("DELETED", {"exitCode": 3}), {"seen": Seen.STOPPED, "exit_code": 3}),
    ("unknown status before the start", task("PONDERING"), {"seen": Seen.PENDING, "status": "PONDERING"}),
    ("unknown status after the start", task("PONDERING", startedAt=CREATED), {"seen": Seen.RUNNING}),
    (
        "particulars",
        task(createdAt=CREATED, startedBy="mark", **SPOT),
        {
            "created_at": CREATED.timestamp(),
            "started_by": "mark",
            "stop_code": "SpotInterruption",
        },
    ),
    ("a time as a number", task(createdAt=12.5), {"created_at": 12.5}),
]


@pytest.mark.parametrize(
    ("record", "expected"), [case[1:] for case in OBSERVATIONS], ids=[c[0] for c in OBSERVATIONS]
)
def test_an_observation_says_what_the_record_means(record: dict[str, Any], expected: dict[str, Any]) -> None:
    seen = observation(record, "airflow", "scope")
    assert {name: getattr(seen, name) for name in expected} == expected
    assert seen.handle == Handle("scope", ARN + "1")


@pytest.mark.parametrize(
    ("failure", "code", "said"),
    [
        ({"reason": "RESOURCE:MEMORY"}, "RESOURCE:MEMORY", "RESOURCE:MEMORY"),
        ({"reason": "RESOURCE:MEMORY", "detail": "more"}, "RESOURCE:MEMORY", "RESOURCE:MEMORY: more"),
        ({"reason": "AGENT", "arn": ARN}, "AGENT", "AGENT"),
        ({"reason": "no room"}, "RunTaskFailure", "RunTaskFailure: no room"),
        ({"reason": "no room", "detail": "more"}, "RunTaskFailure", "RunTaskFailure: no room (more)"),
    ],
)
def test_a_run_task_failure_is_told_in_awss_words_once(failure: dict[str, Any], code: str, said: str) -> None:
    error = failure_error([failure])
    assert (error.code, str(error)) == (code, said)


def test_a_failure_without_a_reason_is_waited_for() -> None:
    error = failure_error([{}])
    assert (error.kind, str(error)) == (Kind.CAPACITY, "RunTaskFailure: no reason given")


@pytest.mark.parametrize(
    ("reasons", "kind", "code"),
    [
        (["ATTRIBUTE", "RESOURCE:MEMORY"], Kind.CAPACITY, "RESOURCE:MEMORY"),
        (["RESOURCE:CPU", "ATTRIBUTE"], Kind.CAPACITY, "RESOURCE:CPU"),
        (["LOCATION", "ODD", "AGENT"], Kind.CAPACITY, "AGENT"),
        (["ATTRIBUTE", "ODD"], Kind.REFUSED, "ODD"),
        (["ATTRIBUTE", "LOCATION"], Kind.INVALID, "ATTRIBUTE"),
        (["ATTRIBUTE", None], Kind.CAPACITY, "RunTaskFailure"),
    ],
)
def test_of_the_failures_of_several_instances_one_that_can_pass_decides(
    reasons: list[str | None], kind: Kind, code: str
) -> None:
    error = failure_error([{"reason": reason} if reason else {} for reason in reasons])
    assert (error.kind, error.code) == (kind, code)
