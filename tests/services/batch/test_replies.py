from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_async_executor.core.backend import Handle, Seen
from ecs_async_executor.services.batch.replies import DECODERS, observation
from ecs_async_executor.services.requests import stop_reason
from tests.services.batch.samples import JOB, TI, job
from tests.services.samples import MARK


def attempt(
    exit_code: int | None = None, reason: str | None = None, *, started: bool = True, why: str = ""
) -> Any:
    made: dict[str, Any] = {"container": {"exitCode": exit_code, "reason": reason}, "statusReason": why}
    return made | ({"startedAt": 1_767_323_050_000, "stoppedAt": 1_767_323_060_000} if started else {})


def ecs_containers(side: int | None, airflow: int | None) -> Any:
    def ended(name: str, exit_code: int | None, *environment: Any) -> dict[str, Any]:
        made = {"name": name, "environment": [{"name": "A", "value": "1"}, *environment]}
        return made | ({"reason": PULL} if exit_code is None else {"exitCode": exit_code})

    return {
        "taskProperties": [{"containers": [ended("side", side), ended("main", airflow, MARK)], "taskArn": "arn"}]
    }


def attempt_of_several() -> Any:
    return {
        "startedAt": 1_767_323_050_000,
        "statusReason": "Essential container in task exited",
        "taskProperties": [{"containers": [{"name": "side", "exitCode": 0}, {"name": "main", "exitCode": 3}]}],
    }


USUAL = "Essential container in task exited"
OOM = "OutOfMemoryError: Container killed due to memory usage"
PULL = "CannotPullContainerError: Error response from daemon: manifest not found"
HOST = "Host EC2 (instance i-0123) terminated."
STUCK = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"
TIME_LIMIT = f"Canceled by JobStateTimeLimit action due to reason: {STUCK}"
OBSERVATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("submitted", job("SUBMITTED"), {"seen": Seen.PENDING, "started": False, "exit_code": None, "reason": ""}),
    ("pending", job("PENDING"), {"seen": Seen.PENDING, "started": False}),
    ("runnable", job("RUNNABLE"), {"seen": Seen.PENDING, "started": False, "reason": "", "queued": True}),
    (
        "runnable for ever",
        job("RUNNABLE", statusReason=STUCK),
        {"seen": Seen.PENDING, "started": False, "reason": STUCK, "queued": False},
    ),
    (
        "runnable, for want of instances",
        job("RUNNABLE", statusReason="CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - none"),
        {"seen": Seen.PENDING, "started": False, "queued": True},
    ),
    (
        "starting",
        job("STARTING", container={"image": "i"}),
        {"seen": Seen.PENDING, "started": False, "queued": False},
    ),
    ("a status to come", job("PONDERING"), {"seen": Seen.PENDING, "started": False}),
    (
        "running",
        job("RUNNING", startedAt=1_767_323_050_000),
        {"seen": Seen.RUNNING, "started": True, "exit_code": None, "reason": ""},
    ),
    (
        "succeeded",
        job("SUCCEEDED", statusReason=USUAL, container={"exitCode": 0}, attempts=[attempt(0)]),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 0, "reason": ""},
    ),
    ("when it stopped", job("FAILED", stoppedAt=1_767_323_060_250), {"stopped_at": 1_767_323_060.25}),
    ("succeeded, without details", job("SUCCEEDED"), {"seen": Seen.STOPPED, "started": True, "exit_code": 0}),
    (
        "failed",
        job("FAILED", statusReason=USUAL, container={"exitCode": 3}, attempts=[attempt(3, why=USUAL)]),
        {
            "seen": Seen.STOPPED,
            "started": True,
            "exit_code": 3,
            "reason": "Batch container exited 3",
        },
    ),
    (
        "Airflow's container of several failed",
        job(
            "FAILED",
            statusReason=USUAL,
            ecsProperties=ecs_containers(side=0, airflow=3),
            attempts=[attempt_of_several()],
        ),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 3, "reason": "Batch container exited 3"},
    ),
    (
        "another container of several failed",
        job(
            "FAILED",
            statusReason=USUAL,
            ecsProperties=ecs_containers(side=1, airflow=0),
            attempts=[attempt_of_several()],
        ),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 0, "reason": ""},
    ),
    (
        "Airflow's container of several failed, but was not essential",
        job("SUCCEEDED", ecsProperties=ecs_containers(side=0, airflow=4), attempts=[attempt_of_several()]),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 4, "reason": "Batch container exited 4"},
    ),
    (
        "several containers succeeded",
        job("SUCCEEDED", statusReason=USUAL, ecsProperties=ecs_containers(side=0, airflow=0)),
        {"seen": Seen.STOPPED, "exit_code": 0, "reason": ""},
    ),
    (
        "the image of one of several was not found",
        job(
            "FAILED",
            statusReason="Task failed to start",
            ecsProperties=ecs_containers(side=None, airflow=None),
            attempts=[{"statusReason": "Task failed to start", "taskProperties": []}],
        ),
        {"started": False, "exit_code": None, "reason": f"Batch job failed before its container ran: {PULL}"},
    ),
    (
        "out of memory",
        job(
            "FAILED", statusReason=USUAL, container={"exitCode": 137, "reason": OOM}, attempts=[attempt(137, OOM)]
        ),
        {"exit_code": 137, "reason": f"Batch container exited 137 ({OOM})"},
    ),
    (
        "took too long",
        job("FAILED", statusReason="Job attempt duration exceeded timeout", container={"exitCode": 143}),
        {
            "exit_code": 143,
            "started": True,
            "reason": "Batch container exited 143: Job attempt duration exceeded timeout",
        },
    ),
    (
        "image not found",
        job(
            "FAILED",
            statusReason="Task failed to start",
            container={"reason": PULL},
            attempts=[attempt(None, PULL, started=False, why="Task failed to start")],
        ),
        {
            "seen": Seen.STOPPED,
            "started": False,
            "exit_code": None,
            "reason": f"Batch job failed before its container ran: {PULL}",
        },
    ),
    (
        "not started, with a time of starting all the same",
        job(
            "FAILED",
            statusReason="Task failed to start",
            startedAt=1_767_323_050_000,
            attempts=[attempt(None, PULL, why="Task failed to start")],
        ),
        {"started": False, "exit_code": None},
    ),
    (
        "host lost",
        job("FAILED", statusReason=HOST, startedAt=1_767_323_050_000, attempts=[attempt(None, why=HOST)]),
        {
            "started": True,
            "exit_code": None,
            "reason": f"Batch job failed without an exit code from its container: {HOST}",
        },
    ),
    (
        "terminated by a person before it ran",
        job("FAILED", statusReason="not wanted", attempts=[], isTerminated=True, isCancelled=True),
        {
            "started": False,
            "exit_code": None,
            "by_hand": True,
            "reason": "Batch job failed before its container ran: not wanted",
        },
    ),
    (
        "cancelled by a person, or by what is configured for the queue",
        job("FAILED", statusReason=STUCK, isTerminated=False, isCancelled=True),
        {"started": False, "by_hand": True, "reason": f"Batch job failed before its container ran: {STUCK}"},
    ),
    *(
        (
            f"cancelled for a time limit of its queue, isCancelled {said}",
            job("FAILED", statusReason=TIME_LIMIT, attempts=[], isTerminated=False, isCancelled=said),
            {
                "started": False,
                "by_hand": True,
                "reason": f"Batch job failed before its container ran: {TIME_LIMIT}",
            },
        )
        for said in (True, False)
    ),
    (
        "host lost before it ran",
        job("FAILED", statusReason=HOST, attempts=[], isTerminated=False, isCancelled=False),
        {"started": False, "by_hand": False, "reason": f"Batch job failed before its container ran: {HOST}"},
    ),
    *(
        (
            f"terminated by an executor: {reason}",
            job("FAILED", statusReason=reason, isTerminated=True, isCancelled=True),
            {"started": False, "by_hand": False},
        )
        for reason in (stop_reason("revoked"), stop_reason("x" * 300), "Airflow Executor received a SIGTERM")
    ),
    (
        "a failed attempt, and Batch tries again",
        job("RUNNABLE", statusReason=USUAL, container={"exitCode": 1}, attempts=[attempt(1, why=USUAL)]),
        {"seen": Seen.PENDING, "started": True, "exit_code": None, "reason": ""},
    ),
    (
        "a failed attempt, and no room for the next",
        job("RUNNABLE", statusReason=STUCK, attempts=[attempt(1, why=USUAL)]),
        {"seen": Seen.PENDING, "started": True, "reason": STUCK},
    ),
    *(
        (
            f"a failed attempt, and the next one waits: {reason}",
            job("RUNNABLE", statusReason=reason, attempts=[attempt(1, why=USUAL)]),
            {"seen": Seen.PENDING, "reason": reason},
        )
        for reason in ("ACTION_REQUIRED - CE(s) are disabled", "UNDETERMINED - not known", "UNDETERMINED")
    ),
    *(
        (
            f"a failed attempt, whose end is shown: {reason}",
            job("RUNNABLE", statusReason=reason, attempts=[attempt(1, why=reason)]),
            {"seen": Seen.PENDING, "reason": ""},
        )
        for reason in (OOM, PULL, HOST)
    ),
    (
        "a lost host, and Batch runs it again",
        job("RUNNING", attempts=[attempt(None, why=HOST)]),
        {"seen": Seen.RUNNING, "started": True, "exit_code": None},
    ),
    (
        "the last of several attempts",
        job("FAILED", statusReason=USUAL, container={"exitCode": 9}, attempts=[attempt(1), attempt(9)]),
        {"exit_code": 9, "reason": "Batch container exited 9 after 2 attempts by Batch"},
    ),
    (
        "an attempt that ran, then one that did not",
        job(
            "FAILED",
            statusReason="Task failed to start",
            container={"reason": PULL},
            attempts=[attempt(1), attempt(None, PULL, started=False, why="Task failed to start")],
        ),
        {"started": True, "exit_code": None},
    ),
    ("the supervisor was done", job("FAILED", container={"exitCode": 0}), {"exit_code": 0, "reason": ""}),
    ("somebody else's job", job("RUNNING") | {"jobName": "x"}, {"started_by": None}),
    (
        "nulls",
        job("RUNNABLE", statusReason=None, container=None, attempts=None),
        {"seen": Seen.PENDING, "reason": ""},
    ),
]


@pytest.mark.parametrize(("record", "expected"), [o[1:] for o in OBSERVATIONS], ids=[o[0] for o in OBSERVATIONS])
@pytest.mark.parametrize("decoded", [False, True])
def test_an_observation_says_what_the_record_means(
    record: dict[str, Any], expected: dict[str, Any], decoded: bool
) -> None:
    if decoded:
        [record] = DECODERS["DescribeJobsResponse"](json.dumps({"jobs": [record]}).encode())["jobs"]
    seen = observation(record, "q")
    expected = {"handle": Handle("q", JOB), "status": record["status"], "started_by": TI} | expected
    assert {name: getattr(seen, name) for name in expected} == expected
    assert seen.created_at == 1_767_323_045.25


def test_only_what_is_used_of_a_reply_is_decoded() -> None:
    body = json.dumps({"jobs": [job("RUNNING", tags={"a": "b"}, container={"image": "i"})]}).encode()
    assert DECODERS["DescribeJobsResponse"](body)["jobs"] == [job("RUNNING", container={})]
