"""
The runner without processes: jobs follow rules, at the cost of a few numbers each.

Knows no service. It writes down all moments of a job when the job starts, so ten thousand running jobs need no
timer. A script is a list of rules; the first that matches a job decides. As JSON::

    [{"command": "flaky", "attempt": 1, "starts": false, "stopped_reason": "ResourceInitializationError: ..."},
     {"definition": "slow", "pending": [20, 40], "duration": 600},
     {"launch": [3, 7], "duration": 1, "exit_code": 137, "container_reason": "OutOfMemoryError: ..."},
     {"duration": [0.5, 2.0]}]
"""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from ecs_async_executor.local.jsonable import from_json
from ecs_async_executor.local.life import Exit, Job, Life, NotFetched
from ecs_async_executor.local.runners import EXITED, NOT_STARTED, TIMED_OUT

Seconds: TypeAlias = float | tuple[float, float]
"""A duration, or the bounds of a random one."""

UNPROVISIONED = ("PROVISIONING", "RUNNABLE")
UNSTARTED = ("PENDING", "STARTING")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    The life of the jobs that match; a rule without conditions matches every job.

    :param command: a regular expression found in the main container's command, words joined by spaces
    :param started_by: a regular expression found in the client's mark (ECS: startedBy, Batch: the job's name or a
        part of it)
    :param definition: a regular expression found in ``family:revision``
    :param launch: numbers of the jobs of this server, counted from 1
    :param attempt: numbers among the jobs with the same mark (without a mark: the same command), counted from 1
    :param probability: share of the matching jobs that the rule applies to, drawn with the seed
    :param provisioning: seconds in PROVISIONING (Batch: RUNNABLE)
    :param pending: seconds in PENDING (Batch: STARTING)
    :param starts: False: the job never starts, and stops as TaskFailedToStart at the moment of its start
    :param stuck: ``PROVISIONING`` (Batch: ``RUNNABLE``) or ``PENDING`` (``STARTING``): the status in which the job
        stays until it is stopped
    :param waiting_reason: the reason that Batch gives while the job is RUNNABLE
    :param duration: seconds from start to the main container's exit, None: until it is stopped
    :param exit_code: exit code of the main container
    :param container_reason: the main container's reason
    :param stop_code: the stop code; None for the usual one
    :param stopped_reason: the reason of the stop, as a sentence; None for the usual one
    :param stopping: seconds from the main container's exit to the end of the last container
    :param deprovisioning: seconds from there to STOPPED
    :param stop_delay: seconds that the main container takes to obey a stop
    :param stop_exit_code: the main container's exit code after a stop
    """

    command: str | None = None
    started_by: str | None = None
    definition: str | None = None
    launch: tuple[int, ...] | None = None
    attempt: tuple[int, ...] | None = None
    probability: float = 1.0
    provisioning: Seconds = 0.0
    pending: Seconds = 0.0
    starts: bool = True
    stuck: str | None = None
    waiting_reason: str | None = None
    duration: Seconds | None = 0.0
    exit_code: int | None = 0
    container_reason: str | None = None
    stop_code: str | None = None
    stopped_reason: str | None = None
    stopping: Seconds = 0.0
    deprovisioning: Seconds = 0.0
    stop_delay: Seconds = 0.0
    stop_exit_code: int | None = 143

    def __post_init__(self) -> None:
        for name in ("command", "started_by", "definition"):
            pattern = getattr(self, name)
            try:
                re.compile(pattern or "")
            except re.error as error:
                msg = f"{name} is no regular expression: {pattern!r}: {error}"
                raise ValueError(msg) from error
        if self.stuck not in (None, *UNPROVISIONED, *UNSTARTED):
            msg = f"stuck must be {' or '.join((*UNPROVISIONED, *UNSTARTED))}, not {self.stuck!r}"
            raise ValueError(msg)

    @classmethod
    def from_json(cls, data: object) -> Rule:
        """
        Return a rule made of a JSON object; a pair of seconds stands for bounds.

        :raises ValueError: if a member is unknown or of the wrong type, or an expression is malformed
        """
        return from_json(cls, data)

    def matches(self, job: Job, random: Random) -> bool:
        """Return whether this rule applies to a job."""
        return (
            (self.launch is None or job.number in self.launch)
            and (self.attempt is None or job.attempt in self.attempt)
            and (self.started_by is None or re.search(self.started_by, job.started_by) is not None)
            and (self.definition is None or re.search(self.definition, job.definition) is not None)
            and (self.command is None or re.search(self.command, " ".join(job.command)) is not None)
            and (self.probability >= 1.0 or random.random() < self.probability)
        )


DEFAULT = Rule()


class ScriptedRunner:
    """
    Runs jobs as rules say.

    :param rules: the first that matches a job decides; a job without a matching rule exits 0 at once
    :param seed: random numbers depend only on this and on the job's number
    """

    def __init__(self, rules: Iterable[Rule | Mapping[str, Any]] = (), *, seed: int = 0) -> None:
        self.seed = seed
        self.script(rules)
        self._rules: dict[str, Rule] = {}

    def script(self, rules: Iterable[Rule | Mapping[str, Any]]) -> None:
        """Replace the rules, for jobs that start from now on."""
        self.rules: Sequence[Rule] = tuple(r if isinstance(r, Rule) else Rule.from_json(r) for r in rules)

    def open(self, lock: threading.RLock, clock: Callable[[], float], changed: Callable[[Job], None]) -> None:
        """Do nothing: a runner without threads needs none of this."""

    def start(self, job: Job, life: Life, at: float) -> None:
        """Write down the moments of a whole life."""
        random = Random(f"{self.seed}:{job.number}")  # noqa: S311
        rule = next((r for r in self.rules if r.matches(job, random)), DEFAULT)
        self._rules[job.id] = rule
        life.touch()
        life.waiting_reason = rule.waiting_reason or life.waiting_reason
        if rule.stuck in UNPROVISIONED:
            return
        life.provisioned_at = at + _draw(rule.provisioning, random)
        if rule.stuck in UNSTARTED:
            return
        started = life.provisioned_at + _draw(rule.pending, random)
        stopping, deprovisioning = _draw(rule.stopping, random), _draw(rule.deprovisioning, random)
        try:
            started += sum(one.fetch().seconds for one in job.containers if one.fetch is not None)
        except NotFetched as error:
            life.stop_code, life.stopped_reason = NOT_STARTED, error.reason
            life.stopping_at = life.ended_at = started + error.seconds
            life.stopped_at = life.ended_at + deprovisioning
            return
        if not rule.starts:
            life.exits = {job.main: Exit(started, None, rule.container_reason)}
            life.stop_code = rule.stop_code or NOT_STARTED
            life.stopped_reason = rule.stopped_reason or "Task failed to start"
            life.stopping_at = life.ended_at = started
            life.stopped_at = started + deprovisioning
            return
        life.started_at = started
        deadline = started + job.time_limit if job.time_limit is not None else math.inf
        exited = started + _draw(rule.duration, random) if rule.duration is not None else math.inf
        if deadline < exited:
            life.stop_code, life.stopped_reason = TIMED_OUT
            self.stop(job, life, deadline)
        if math.isinf(exited) or deadline < exited:
            return
        life.exits = {job.main: Exit(exited, rule.exit_code, rule.container_reason)}
        life.stop_code = rule.stop_code or EXITED[0]
        life.stopped_reason = rule.stopped_reason or EXITED[1]
        _finish(job, life, exited, exited + stopping, exited + stopping + deprovisioning, rule.exit_code)

    def stop(self, job: Job, life: Life, at: float) -> None:
        """End the main container as its rule says, unless it exits by itself before."""
        rule = self._rules.get(job.id, DEFAULT)
        random = Random(f"{self.seed}:{job.number}:stop")  # noqa: S311
        lag = _draw(rule.deprovisioning, random)
        if not life.started(at):
            life.end(at, life.stop_code or NOT_STARTED, life.stopped_reason or "", lag)
            return
        natural = life.exits.get(job.main)
        exited = at + _draw(rule.stop_delay, random)
        if natural is None or natural.at > exited:
            natural = Exit(exited, rule.stop_exit_code)
        life.exits = {job.main: natural}
        ended = max(at, natural.at)
        _finish(job, life, at, ended, ended + lag, rule.stop_exit_code)
        life.touch()

    def lose(self, job: Job, life: Life, at: float) -> None:  # noqa: ARG002
        """Cut a life short, unless it ends by itself before."""
        if life.ended_at is not None and life.ended_at <= at:
            return
        life.end(at, life.stop_code or NOT_STARTED, life.stopped_reason or "")

    def forget(self, job: Job) -> None:
        """Drop the data of a job that has ended."""
        self._rules.pop(job.id, None)

    def close(self, timeout: float) -> None:
        """Do nothing: there are no processes to end."""


def _finish(job: Job, life: Life, stopping: float, ended: float, stopped: float, sidecar_code: int | None) -> None:
    for container in job.containers:
        if container.name != job.main:
            life.exits[container.name] = Exit(ended, 0 if sidecar_code is not None else None)
    life.stopping_at, life.ended_at, life.stopped_at = stopping, ended, stopped


def _draw(seconds: Seconds, random: Random) -> float:
    return random.uniform(*seconds) if isinstance(seconds, tuple) else float(seconds)
