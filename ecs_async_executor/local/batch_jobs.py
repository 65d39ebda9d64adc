"""
How the Batch API shows a job: a :class:`BatchJob` and its JSON, cached until something visible changes.

May import :mod:`life` and :mod:`place` only. A job is a row of attempts, each of which is a container group with a
life of its own, in the words of which it is told here what the job's status is. With ``realistic`` the record has
the members that a job on AWS has, otherwise those that clients decide by.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.place import Place

USER_INITIATED = "UserInitiated"


@dataclass(frozen=True, slots=True, eq=False)
class Attempt:
    """
    One container group of a job.

    :param log_stream: where CloudWatch would have its output
    """

    job: Job
    life: Life
    task_arn: str
    log_stream: str
    instance_arn: str | None

    def exit_code(self) -> int | None:
        """Give the main container's exit code, once its life is known to its end."""
        found = self.life.exits.get(self.job.main)
        return found.code if found is not None else None

    def reason(self) -> str:
        """Give the container's own reason, if it has one."""
        found = self.life.exits.get(self.job.main)
        return (found.reason or "") if found is not None else ""

    def placed(self, now: float) -> bool:
        """Return whether there is a task."""
        return self.life.provisioned_at is not None and self.life.provisioned_at <= now


@dataclass(slots=True, eq=False)
class BatchJob:
    """
    A job of Batch: the request's side of it, and its attempts.

    :param sequence: orders the jobs of a server by creation
    :param definition: ``name:revision``
    :param pending_at: SUBMITTED becomes PENDING
    :param runnable_at: PENDING becomes RUNNABLE
    :param visible_at: before that DescribeJobs leaves it out
    :param listed_at: before that ListJobs leaves it out
    :param memory: the MiB that each attempt may use, None for no limit
    :param container: what the definition and the request say of it, as DescribeJobs shows it
    :param final: there will be no further attempt, whatever happens
    :param limited_at: when a time limit of the queue cancels it
    """

    id: str
    arn: str
    name: str
    place: Place
    sequence: int
    queue_arn: str
    queue_name: str
    definition_arn: str
    definition: str
    created_at: float
    pending_at: float
    runnable_at: float
    visible_at: float
    listed_at: float
    container: dict[str, Any]
    parameters: Mapping[str, str]
    retry: Mapping[str, Any]
    timeout: Mapping[str, Any] | None
    tags: Mapping[str, str]
    platforms: list[str]
    propagate_tags: bool
    command: tuple[str, ...]
    memory: int | None
    environment: Mapping[str, str]
    attempts: list[Attempt] = field(default_factory=list)
    final: bool = False
    cancelled: bool = False
    terminated: bool = False
    limited_at: float | None = None
    realistic: bool = True
    _text: str = ""
    _valid: tuple[float, float, tuple[int, ...]] = (0.0, 0.0, ())

    def current(self, now: float) -> Attempt:
        """Give the attempt that the job's status is about; the next one may be known already."""
        return next((a for a in reversed(self.attempts) if a.life.created_at <= now), self.attempts[0])

    def status(self, now: float) -> str:
        """Name the state at a time."""
        attempt = self.current(now)
        life = attempt.life
        if life.stopped_at is not None and life.stopped_at <= now:
            return "FAILED" if _failed(attempt) else "SUCCEEDED"
        if life.started(now):
            return "RUNNING"
        if attempt.placed(now):
            return "STARTING"
        if now < self.pending_at:
            return "SUBMITTED"
        return "PENDING" if now < self.runnable_at else "RUNNABLE"

    def to_json(self, now: float) -> str:
        """Show it as DescribeJobs does at this time."""
        since, until, changes = self._valid
        seen = (len(self.attempts), *(a.life.changes for a in self.attempts), self.cancelled, self.terminated)
        if not (changes == seen and since <= now < until):
            self._text = json.dumps(self.record(now), separators=(",", ":"))
            self._valid = (now, self._next_change(now), seen)
        return self._text

    def summary(self, now: float) -> dict[str, Any]:
        """Show it as ListJobs does at this time."""
        record = self.record(now)
        container = {k: v for k, v in record["container"].items() if k in ("exitCode", "reason")}
        kept = (
            "jobArn",
            "jobId",
            "jobName",
            "createdAt",
            "status",
            "statusReason",
            "startedAt",
            "stoppedAt",
            "jobDefinition",
        )
        return {key: record[key] for key in kept if key in record} | (
            {"container": container} if container else {}
        )

    def record(self, now: float) -> dict[str, Any]:
        """Show it as a dictionary."""
        attempt, status = self.current(now), self.status(now)
        life = attempt.life
        record: dict[str, Any] = {
            "jobArn": self.arn,
            "jobName": self.name,
            "jobId": self.id,
            "jobQueue": self.queue_arn,
            "status": status,
            "attempts": [_ended(a) for a in self.attempts if a.life.stopped_at is not None and _is_over(a, now)],
            "createdAt": _milliseconds(self.created_at),
            "retryStrategy": {"attempts": 1, "evaluateOnExit": [], **self.retry},
            "jobDefinition": self.definition_arn,
            "container": self._container(attempt, status, now),
            "isCancelled": self.cancelled or (self.limited_at is not None and self.limited_at <= now),
            "isTerminated": self.terminated,
        }
        reason = life.waiting_reason if status == "RUNNABLE" else None
        if status in ("SUCCEEDED", "FAILED"):
            reason = life.stopped_reason
            if life.stopped_at is not None:
                record["stoppedAt"] = _milliseconds(life.stopped_at)
        if reason:
            record["statusReason"] = reason
        if life.started(now) and life.started_at is not None:
            record["startedAt"] = _milliseconds(life.started_at)
        if self.timeout:
            record["timeout"] = self.timeout
        if self.realistic:
            record |= {
                "dependsOn": [],
                "parameters": self.parameters,
                "tags": self.tags,
                "propagateTags": self.propagate_tags,
                "platformCapabilities": self.platforms,
                "eksAttempts": [],
            }
        return record

    def _container(self, attempt: Attempt, status: str, now: float) -> dict[str, Any]:
        container: dict[str, Any] = dict(self.container)
        if attempt.placed(now):
            container["taskArn"] = attempt.task_arn
            if attempt.instance_arn:
                container["containerInstanceArn"] = attempt.instance_arn
        if attempt.life.started(now):
            container["logStreamName"] = attempt.log_stream
        if status in ("SUCCEEDED", "FAILED"):
            container |= _outcome(attempt)
        return container

    def _next_change(self, now: float) -> float:
        moments = (self.pending_at, self.runnable_at, *(a.life.created_at for a in self.attempts))
        own = min((m for m in moments if m > now), default=math.inf)
        return min(own, *(a.life.next_change(now) for a in self.attempts))


def _failed(attempt: Attempt) -> bool:
    return attempt.exit_code() != 0 or attempt.life.stop_code in ENDED_FROM_OUTSIDE


ENDED_FROM_OUTSIDE = (USER_INITIATED, "TimedOut")
"""Stop codes of attempts that have failed whatever their exit code, and that nothing follows."""


def _is_over(attempt: Attempt, now: float) -> bool:
    """Return whether it is a past attempt of the job: it had a task, and that task has stopped."""
    stopped = attempt.life.stopped_at
    return stopped is not None and stopped <= now and attempt.placed(now)


def _outcome(attempt: Attempt) -> dict[str, Any]:
    code, reason = attempt.exit_code(), attempt.reason()
    return ({"exitCode": code} if code is not None else {}) | ({"reason": reason} if reason else {})


def _ended(attempt: Attempt) -> dict[str, Any]:
    life = attempt.life
    container: dict[str, Any] = {"taskArn": attempt.task_arn, "networkInterfaces": [], **_outcome(attempt)}
    if attempt.instance_arn:
        container["containerInstanceArn"] = attempt.instance_arn
    shown: dict[str, Any] = {"container": container, "statusReason": life.stopped_reason or ""}
    if life.started_at is not None:
        container["logStreamName"] = attempt.log_stream
        shown["startedAt"] = _milliseconds(life.started_at)
    if life.stopped_at is not None:
        shown["stoppedAt"] = _milliseconds(life.stopped_at)
    return shown


def _milliseconds(at: float) -> int:
    return round(at * 1000)
