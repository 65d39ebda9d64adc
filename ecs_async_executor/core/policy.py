"""
What to do about an error: error kind in, decision out. Pure.

May import :mod:`ecs_async_executor.core.errors` only. Delays are in seconds; randomness comes in as a number.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ecs_async_executor.core.errors import Kind


class Verdict(enum.Enum):
    """What happens to a launch whose request did not get a container."""

    AGAIN = "again"
    """Definitely not done: wait, then render afresh. Costs no attempt."""
    RESEND = "resend"
    """It may have been done: send the same request under the same token again."""
    GATE = "gate"
    """Nothing of this placement will pass for now: one probe at a time."""
    PAUSE = "pause"
    """Nothing at all will pass for now: the engine waits for credentials."""
    CLAIM = "claim"
    """The token has a container already: take it."""
    SEARCH = "search"
    """The token is used up, and only a search tells whether an earlier request under it made a container."""
    FAIL = "fail"
    """It can never pass: the workload fails with the service's words."""


RESEND_WINDOW = 3000.0
"""Seconds after which a token is not used again; a service remembers it for at least an hour."""
CREATED_MARGIN = 5.0
"""Seconds that the clocks of a scheduler, of its database and of the service may differ by."""


@dataclass(frozen=True, slots=True)
class Rules:
    """
    The limits of all decisions: the service's, those that users set, and five of our own.

    :param service: the service's name, for sentences that people read
    :param repeatable: see :class:`~ecs_async_executor.core.backend.Service`
    :param absent_grace: seconds for which a search has to have found nothing before a request that may have been
        carried out is made once more, where no token makes that harmless
    :param max_attempts: containers that may be tried for one launch, as long as none of them started
    :param missing_grace: seconds that the service may not know a new container
    :param permanent_error_grace: seconds that a :attr:`Kind.REFUSED` may be mended in
    :param capacity_timeout: seconds to wait for capacity, None for ever
    :param seen_missing_grace: seconds that it may not know one that was seen running; Airflow's own
        heartbeat timeout (300 s by default) covers the same case from the other side
    :param resend_window: seconds after the first send in which the token may be sent again; well inside the
        shortest time that a service remembers it for (AWS: one hour after the container stopped)
    :param predecessor_wait: seconds to wait for a revoked container of the same key to stop
    :param search_interval: seconds from one search to the next
    :param created_margin: seconds that clocks may differ by, when a container's age is compared with Airflow's
    """

    service: str
    repeatable: bool
    absent_grace: float
    max_attempts: int
    missing_grace: float
    permanent_error_grace: float
    capacity_timeout: float | None
    seen_missing_grace: float = 300.0
    resend_window: float = RESEND_WINDOW
    predecessor_wait: float = 120.0
    search_interval: float = 5.0
    created_margin: float = CREATED_MARGIN


def verdict(kind: Kind, *, maybe_sent: bool, claimable: bool = False, token_used: bool = False) -> Verdict:
    """
    Decide what a failed launch request means.

    :param maybe_sent: an earlier send of the same token had no definite answer. A refusal that is judged
        before the token is looked up (throttle, credentials, permissions, capacity) then says nothing
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
    Say how long one launch waits before it is tried again.

    A throttle needs little: the rate limit holds everybody back already. What is ambiguous grows to half a
    minute, so that an outage is not hammered.

    :param nth: how many times in a row this happened, from 1
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
    """Say how long to wait before the next container after ``attempt`` of them never started."""
    return min(60.0, 2.0 * 3.0 ** min(attempt - 1, 8)) * (0.5 + 0.5 * jitter)
