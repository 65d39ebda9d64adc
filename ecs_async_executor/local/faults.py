"""
Faults: what goes wrong between a client and a service, by programme.

A fault applies to requests of some operations, so often, in some window; :class:`Faults` holds them and
says which apply to a request. What they do is up to the server. As JSON (``POST /_local/faults``)::

    {"kind": "throttle", "operation": "RunTask", "count": 3}
    {"kind": "reset_after", "operation": "RunTask", "probability": 0.05}
    {"kind": "stuck", "operation": "SubmitJob", "seconds": 20}
    {"kind": "interrupted", "contains": ["FARGATE_SPOT", "my_task"], "seconds": 5, "count": 1}
    {"kind": "error", "operation": "*Task*", "code": "ServerException", "status": 500, "lasting": 10}
    {"kind": "status", "region": "eu-west-1", "status": 503, "lasting": 60}
    {"known": "assume_role", "lasting": 30}

The last stands for members that :mod:`known_faults` has under this name; what is given besides replaces them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from fnmatch import fnmatchcase
from random import Random
from typing import Any

from ecs_async_executor.local.jsonable import from_json
from ecs_async_executor.local.known_faults import KNOWN
from ecs_async_executor.local.place import Place

KINDS = {
    "throttle": "refuse: ThrottlingException (Batch: 429 TooManyRequestsException), nothing done",
    "expired_token": "refuse: ExpiredTokenException, nothing done",
    "error": "refuse with code, message and status, nothing done",
    "error_after": "do the work, then answer with code, message and status all the same",
    "status": "answer with this HTTP status and a page of HTML, as a load balancer does; nothing done",
    "reset_before": "reset the connection, nothing done",
    "reset_after": "do the work, then reset the connection",
    "close_before": "close the connection in order, nothing done",
    "close_after": "do the work, then close the connection in order without an answer",
    "hang": "nothing done, and no answer for that many seconds",
    "hang_after": "do the work, and give no answer for that many seconds",
    "failures": "RunTask: nothing done, answer with failures[]",
    "missing": "DescribeTasks, DescribeJobs: answer that nothing of what was asked for is there",
    "empty": "do nothing, answer without content: no tasks, no failures, no jobs",
    "stuck": "RunTask, SubmitJob: what is accepted waits that many seconds (Batch: RUNNABLE, with the reason)",
    "unplaced": "RunTask, SubmitJob: what is accepted finds no place for that many seconds, and then ends: "
    "TaskFailedToStart with the reason, or cancelled by the time limit of the job queue",
    "interrupted": "RunTask, SubmitJob: what is accepted is interrupted as Spot does, that many seconds after its "
    "start: SIGTERM and then SIGKILL; a job on EC2 loses its host",
    "hidden": "RunTask, SubmitJob: what is accepted is neither described nor listed for that many seconds",
    "unlisted": "RunTask, SubmitJob: what is accepted is not listed for that many seconds",
    "unknown_status": "answer with a status that no client has heard of, in every task or job",
    "odd_record": "answer with a first task or job whose members are of the wrong types",
    "truncate": "do the work, and break the connection off in the middle of the answer",
    "garbage": "do the work, and answer 200 with what is not JSON",
    "latency": "answer after that many seconds more",
    "event_lost": "an event of a task or job never arrives",
    "event_doubled": "an event arrives twice",
    "event_late": "an event arrives that many seconds later",
    "event_forged": "beside an event, a false one arrives, and messages that are none",
}
"""The kinds of faults, and what they do."""


EVENT_KINDS = frozenset(kind for kind in KINDS if kind.startswith("event_"))
EVENT_OPERATIONS = {"aws.ecs": "TaskStateChange", "aws.batch": "JobStateChange"}
"""In place of an operation, for what goes wrong with events; by their source."""
ACCEPTING = ("RunTask", "SubmitJob")
NO_CAPACITY = (
    "CAPACITY:INSUFFICIENT_INSTANCE_CAPACITY - Service cannot fulfill the capacity requested for instance type "
    "[m5.large]"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """
    One thing that goes wrong.

    :param kind: one of :data:`KINDS`
    :param operation: a pattern with ``*``, or several of them; of events TaskStateChange or JobStateChange
    :param contains: only requests with this text in the body (a startedBy, a word of a command), or with all of
        these
    :param region: only requests to this Region
    :param account: only requests to this account
    :param probability: how often it strikes, drawn from the seed
    :param skip: the first so many requests that it would strike pass
    :param count: it strikes that often at most, None for always
    :param after: it begins that many seconds after it was added
    :param lasting: and ends that many seconds later, None for never
    :param code: with ``error``
    :param message: with ``error``
    :param status: with ``error`` and ``status``
    :param failures: with ``failures``
    :param reason: with ``stuck``, what Batch says of the job, with ``unplaced`` also why a task failed to start;
        None for a want of capacity
    :param seconds: with ``hang``, ``latency``, ``stuck``, ``unplaced``, ``interrupted``, ``hidden`` and
        ``unlisted``
    """

    kind: str
    operation: str | tuple[str, ...] = "*"
    contains: str | tuple[str, ...] = ()
    region: str | None = None
    account: str | None = None
    probability: float = 1.0
    skip: int = 0
    count: int | None = None
    after: float = 0.0
    lasting: float | None = None
    code: str = "ServerException"
    message: str = "Service Unavailable. Please try again later."
    status: int = 400
    failures: tuple[Mapping[str, Any], ...] = ()
    reason: str | None = None
    seconds: float = 3600.0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            msg = f"unknown kind of fault: {self.kind!r}; known: {', '.join(KINDS)}"
            raise ValueError(msg)

    @classmethod
    def from_json(cls, data: object) -> Fault:
        """
        Make a fault of a JSON object.

        :raises ValueError: if a member or the name of a known fault is unknown, or a member of the wrong type
        """
        if isinstance(data, Mapping) and "known" in data:
            name = data["known"]
            if name not in KNOWN:
                msg = f"unknown fault: {name!r}; known: {', '.join(KNOWN)}"
                raise ValueError(msg)
            data = {**KNOWN[name], **{key: value for key, value in data.items() if key != "known"}}
        return from_json(cls, data)

    def concerns(self, operation: str, body: bytes, place: Place) -> bool:
        """Return whether it is about a request."""
        patterns = (self.operation,) if isinstance(self.operation, str) else self.operation
        texts = (self.contains,) if isinstance(self.contains, str) else self.contains
        return (
            (self.kind in EVENT_KINDS) == (operation in EVENT_OPERATIONS.values())
            and any(fnmatchcase(operation, p) for p in patterns)
            and all(text.encode() in body for text in texts)
            and self.region in (None, place.region)
            and self.account in (None, place.account)
        )


@dataclass(slots=True)
class _Armed:
    fault: Fault
    since: float
    seen: int = 0
    struck: int = 0


@dataclass(slots=True)
class Faults:
    """
    The faults in force. Safe to use from any thread.

    :param seed: of what is drawn
    """

    seed: int = 0
    clock: Callable[[], float] = time.monotonic
    _armed: dict[int, _Armed] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _number: int = 0
    _random: Random = field(init=False)

    def __post_init__(self) -> None:
        self._random = Random(self.seed)  # noqa: S311

    def add(self, fault: Fault) -> int:
        """Put a fault in force; give the number to remove it by."""
        with self._lock:
            self._number += 1
            self._armed[self._number] = _Armed(fault, self.clock())
            return self._number

    def remove(self, number: int) -> None:
        """
        Lift a fault.

        :raises KeyError: if there is none of this number
        """
        with self._lock:
            del self._armed[number]

    def clear(self) -> None:
        """Lift every fault."""
        with self._lock:
            self._armed.clear()

    def struck(self, number: int) -> int:
        """
        Tell how often a fault has struck.

        :raises KeyError: if there is none of this number
        """
        with self._lock:
            return self._armed[number].struck

    def listing(self) -> list[dict[str, Any]]:
        """Describe the faults in force."""
        with self._lock:
            return [
                {"id": number, "struck": armed.struck}
                | {f.name: getattr(armed.fault, f.name) for f in fields(Fault)}
                for number, armed in self._armed.items()
            ]

    def strike(self, operation: str, body: bytes, place: Place) -> list[Fault]:
        """Choose what goes wrong with a request: any latencies, and at most one other fault."""
        if not self._armed:
            return []
        with self._lock:
            now = self.clock()
            chosen: list[Fault] = []
            settled = False
            for armed in self._armed.values():
                fault = armed.fault
                late = fault.kind == "latency"
                if (settled and not late) or not fault.concerns(operation, body, place):
                    continue
                begin = armed.since + fault.after
                if now < begin or (fault.lasting is not None and now >= begin + fault.lasting):
                    continue
                if fault.count is not None and armed.struck >= fault.count:
                    continue
                if fault.probability < 1.0 and self._random.random() >= fault.probability:
                    continue
                armed.seen += 1
                if armed.seen <= fault.skip:
                    continue
                armed.struck += 1
                chosen.append(fault)
                settled = settled or not late
            return chosen

    def known(self, name: str, **how: Any) -> int:
        """
        Put a fault of :mod:`known_faults` in force; ``how`` replaces its members.

        :raises ValueError: if there is none of this name
        """
        return self.add(Fault.from_json({"known": name, **how}))

    def throttle(self, operation: str = "*", **how: Any) -> int:
        """Refuse requests for their rate; ``how`` as in :class:`Fault`, here and below."""
        return self.add(Fault(kind="throttle", operation=operation, **how))

    def error(self, operation: str, code: str, message: str, status: int = 400, **how: Any) -> int:
        """Refuse requests with an error reply."""
        return self.add(Fault(kind="error", operation=operation, code=code, message=message, status=status, **how))

    def reset_before(self, operation: str = "*", **how: Any) -> int:
        """Reset the connection before the work is done."""
        return self.add(Fault(kind="reset_before", operation=operation, **how))

    def reset_after(self, operation: str = "*", **how: Any) -> int:
        """Reset the connection when the work was done."""
        return self.add(Fault(kind="reset_after", operation=operation, **how))

    def hang(self, operation: str = "*", *, seconds: float = 3600.0, **how: Any) -> int:
        """Give no answer for so long."""
        return self.add(Fault(kind="hang", operation=operation, seconds=seconds, **how))

    def latency(self, operation: str, seconds: float, **how: Any) -> int:
        """Answer later."""
        return self.add(Fault(kind="latency", operation=operation, seconds=seconds, **how))

    def no_capacity(
        self, failures: Sequence[Mapping[str, Any]] = ({"reason": "RESOURCE:MEMORY"},), **how: Any
    ) -> int:
        """Answer RunTask with failures."""
        return self.add(Fault(kind="failures", operation="RunTask", failures=tuple(failures), **how))

    def missing(self, **how: Any) -> int:
        """Answer DescribeTasks and DescribeJobs as if nothing were there."""
        return self.add(Fault(kind="missing", operation=("DescribeTasks", "DescribeJobs"), **how))

    def stuck(self, seconds: float, reason: str | None = None, **how: Any) -> int:
        """Let what is accepted wait for so long before it gets a place."""
        return self.add(Fault(kind="stuck", operation=ACCEPTING, seconds=seconds, reason=reason, **how))

    def unplaced(self, seconds: float, reason: str | None = None, **how: Any) -> int:
        """Let what is accepted find no place, and end after so long."""
        return self.add(Fault(kind="unplaced", seconds=seconds, reason=reason, **{"operation": ACCEPTING, **how}))

    def interrupted(self, seconds: float, **how: Any) -> int:
        """Interrupt what is accepted so many seconds after its start."""
        return self.add(Fault(kind="interrupted", seconds=seconds, **{"operation": ACCEPTING, **how}))

    def hidden(self, seconds: float, **how: Any) -> int:
        """Neither describe nor list what is accepted, for so long."""
        return self.add(Fault(kind="hidden", operation=ACCEPTING, seconds=seconds, **how))

    def unlisted(self, seconds: float, **how: Any) -> int:
        """Do not list what is accepted, for so long."""
        return self.add(Fault(kind="unlisted", operation=ACCEPTING, seconds=seconds, **how))
