"""
Decisions about errors: an error kind in, a verdict out; and the limits that all decisions share. Pure.

May import :mod:`ecs_async_executor.core.errors` only. Delays are in seconds; randomness comes in as a number.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ecs_async_executor.core.errors import Kind


class Verdict(enum.Enum):
    """What becomes of a launch whose request brought no container."""

    AGAIN = "again"
    """Nothing was done: wait, then render again. Costs no attempt."""
    RESEND = "resend"
    """It may have been done: send the same request under the same client token again."""
    GATE = "gate"
    """The placement accepts no launch for now: one probe at a time finds out when it does."""
    PAUSE = "pause"
    """No call is accepted for now: the engine waits for credentials."""
    CLAIM = "claim"
    """The client token has a container already: take it."""
    SEARCH = "search"
    """The client token is used up; only a search tells whether an earlier send of it made a container."""
    FAIL = "fail"
    """The service will never accept it: the workload fails with the service's words."""


RESEND_WINDOW = 3000.0
"""Seconds after which a client token is not sent again; a service remembers one for an hour at least."""
CREATED_MARGIN = 5.0
"""Seconds that the clocks of a scheduler, of its database and of the service may differ by."""


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The limits of all decisions: the service's, those that users set, and four of our own.

    :param service: the service's name, for sentences that people read
    :param repeatable: see :class:`~ecs_async_executor.core.backend.Service`
    :param absent_grace: seconds for which a search has to find nothing before a request that may have been
        carried out is made again, where no client token makes that harmless
    :param max_attempts: containers that may be tried for one launch, as long as none of them started
    :param missing_grace: seconds for which the service may not know a new container
    :param lost_container_grace: seconds for which it may not know one that was seen running; by default
        shorter than Airflow's own heartbeat timeout (300 s), which covers the same case without a reason
    :param permanent_error_grace: seconds for which a :attr:`Kind.REFUSED` may last, as a person may be mending it
    :param capacity_timeout: seconds to wait for capacity, None for ever
    :param resend_window: seconds after the first send in which the client token may be sent again; well inside
        the shortest time for which a service remembers it (AWS: one hour after the container stopped)
    :param predecessor_wait: seconds to wait for a revoked container of the same key to stop
    :param search_interval: seconds from one search to the next
    :param created_margin: seconds that clocks may differ by, when a container's age is compared with Airflow's
    """

    service: str
    repeatable: bool
    absent_grace: float
    max_attempts: int
    missing_grace: float
    lost_container_grace: float
    permanent_error_grace: float
    capacity_timeout: float | None
    resend_window: float = RESEND_WINDOW
    predecessor_wait: float = 120.0
    search_interval: float = 5.0
    created_margin: float = CREATED_MARGIN


def verdict(kind: Kind, *, maybe_sent: bool, claimable: bool = False, token_used: bool = False) -> Verdict:
    """
    Return what a failed launch request means.

    :param maybe_sent: an earlier send of the same client token had no definite answer. A refusal that is judged
        before the client token is compared (throttle, credentials, permissions, capacity) then says nothing
        about that earlier send, and only the same request can find out.
    :param claimable: the error names a container
    :param token_used: see :class:`~ecs_async_executor.core.errors.BackendError`
    """
    if kind is Kind.CONFLICT and claimable:
        return Verdict.CLAIM
    if kind in (Kind.INVALID, Kind.NOT_FOUND):
        return Verdict.FAIL
    if token_used and maybe_sent:
        return Verdict.SEARCH
    if kind is Kind.CREDENTIALS:
        return Verdict.PAUSE
    if kind is Kind.AMBIGUOUS or maybe_sent:
        return Verdict.RESEND
    if kind in (Kind.CAPACITY, Kind.REFUSED):
        return Verdict.GATE
    return Verdict.AGAIN


def delay(kind: Kind, nth: int, jitter: float) -> float:
    """
    Return the seconds that one launch waits before its next request.

    A throttle needs little: the rate limit already slows every launch. After no answer the delay grows to half a
    minute, to spare a service with an outage.

    :param nth: errors in a row, from 1
    :param jitter: 0 to 1
    """
    if kind in (Kind.CAPACITY, Kind.REFUSED, Kind.CREDENTIALS):
        return 0.0  # the gate decides when
    base, cap = {
        Kind.THROTTLED: (0.5, 5.0),
        Kind.CONCURRENT: (1.0, 15.0),
        Kind.CONFLICT: (0.5, 1.0),  # the next number may have the container
    }.get(kind, (0.5, 30.0))
    span = min(cap, base * 2.0 ** min(nth - 1, 16))
    return span * (0.5 + 0.5 * jitter)


def relaunch_delay(attempt: int, jitter: float) -> float:
    """Return the seconds before the next container, after ``attempt`` of them never started."""
    return min(60.0, 2.0 * 3.0 ** min(attempt - 1, 8)) * (0.5 + 0.5 * jitter)
