"""
What the engine shows of itself: a snapshot for metrics and people.

May import ``core``.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.phases import InDoubt, Patience, Revoked, Sending, Tracked, Waiting

SILENT = "the scheduler does not call the executor"
"""The :attr:`Statistics.paused` of a silence. The next heartbeat ends it, so it is no reason to take less."""


@dataclass(frozen=True, slots=True)
class AtDestination:
    """
    The part of a snapshot that is about one destination. Counts are of launches.

    :param name: "" is home
    :param down: why nothing can be launched there, or None
    :param throttled: AWS allows less than half of the launches per second that the rate began with
    :param launch_rate: launches per second that the rates allow at present
    :param pending: waiting for a container
    :param launching: requests in flight
    :param active: have a container
    """

    name: str
    down: str | None
    throttled: bool
    launch_rate: float
    pending: int
    launching: int
    active: int

    @property
    def trouble(self) -> str | None:
        """Why launches there get on badly, or None."""
        if self.down is None and self.throttled:
            return f"throttled to {self.launch_rate:.1f} launches per second"
        return self.down


@dataclass(frozen=True, slots=True)
class Events:
    """
    The part of a snapshot that is about the events of one destination.

    :param name: "" is home
    :param trouble: why none can be received, or None
    :param sweep_interval: seconds from one sweep over all its containers to the next
    :param missed: ends that came without an event, in all
    :param trusted: whether sweeps may be rarer for them
    """

    name: str
    trouble: str | None
    sweep_interval: float
    missed: int
    trusted: bool


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    A snapshot of the engine. Counts are of launches, times in seconds, totals since ``start()``.

    :param pending: waiting for a container, those in the inbox included
    :param launching: requests in flight
    :param in_doubt: of the pending ones, those whose request may have been carried out
    :param searching: it is not known yet whether they have a container
    :param active: have a container
    :param stopping: stop requests that are still owed
    :param oldest_pending_age: how long the oldest pending launch has waited
    :param launch_rate: launches per second that the limits allow at present
    :param paused: why nothing can be launched at all, wherever to, or None
    :param closed_gates: placements that wait for capacity or for a refusal to be mended
    :param capacity_wait: for how long a placement has had no capacity: the longest
    :param refused_wait: for how long the launches of a placement have been refused: the longest
    :param api_latency_p50: of the latest calls; None before the first
    :param loop_lag: how late the loop served its latest timer
    :param hook_hangs: how long user code has not returned, once that is more than a minute; else 0
    :param outbox: reports that the executor has not taken yet
    :param destinations: those in use, if there is more than home
    :param events: of the destinations in use that have a queue of them
    :param stranded: the ids of the launches without a container that wait for a destination in trouble
    :param chosen: of the launches, those that have chosen a placement, by its name
    :param counts: the totals of the engine's metrics, by their names (``core/metrics.py``)
    """

    pending: int = 0
    launching: int = 0
    in_doubt: int = 0
    searching: int = 0
    active: int = 0
    stopping: int = 0
    oldest_pending_age: float = 0.0
    launch_rate: float = 0.0
    paused: str | None = None
    closed_gates: int = 0
    capacity_wait: float = 0.0
    refused_wait: float = 0.0
    launches: int = 0
    throttles: int = 0
    api_calls: int = 0
    api_errors: int = 0
    api_latency_p50: float | None = None
    api_latency_p95: float | None = None
    loop_lag: float = 0.0
    restarts: int = 0
    hook_hangs: float = 0.0
    outbox: int = 0
    destinations: tuple[AtDestination, ...] = ()
    events: tuple[Events, ...] = ()
    stranded: AbstractSet[str] = frozenset()
    chosen: Mapping[str, int] = field(default_factory=dict)
    counts: Mapping[str, int] = field(default_factory=dict)


def percentiles(durations: Collection[float]) -> tuple[float | None, float | None]:
    """Return median and 95th percentile, None if there is nothing."""
    latest = sorted(durations)
    if not latest:
        return None, None
    return latest[len(latest) // 2], latest[int(len(latest) * 0.95)]


@dataclass(slots=True)
class Backlog:
    """
    The launches without a container, by what they wait for.

    :param since: when the oldest of those that wait or are in doubt first wanted a container; now if none is
    """

    since: float
    waiting: int = 0
    in_doubt: int = 0
    sending: int = 0
    searched_for: int = 0


def backlog_of(unsettled: Iterable[Tracked], now: float) -> Backlog:
    """Count the launches without a container."""
    backlog = Backlog(since=now)
    for tracked in unsettled:
        phase = tracked.phase
        if isinstance(phase, Sending):
            backlog.sending += 1
        elif isinstance(phase, Waiting | InDoubt):
            if isinstance(phase, InDoubt) and phase.doubt.ours:
                backlog.in_doubt += 1
            else:
                backlog.waiting += 1
            backlog.since = min(backlog.since, tracked.since)
        else:
            backlog.searched_for += 1
    return backlog


PHASE_NAMES = {
    "Waiting": "waiting",
    "InDoubt": "in doubt",
    "Sending": "sending",
    "Checking": "checking",
    "Searching": "searching",
    "Starting": "starting",
    "Running": "running",
    "Ended": "ended",
}


def shown(tracked: Tracked, now: float) -> dict[str, object]:
    """Return what the engine knows of a launch, for people: no command, no secret."""
    phase, demand, handle = tracked.phase, tracked.demand, tracked.handle
    patience: Patience | None = getattr(phase, "patience", None)
    not_before: float = getattr(phase, "not_before", now)
    missing: Grace = getattr(phase, "missing", NOT_YET)
    return {
        "launch_id": tracked.launch.launch_id,
        "workload": str(tracked),
        "phase": PHASE_NAMES[type(phase).__name__],
        "attempt": tracked.attempt,
        "errors": patience.errors if patience is not None else 0,
        "handle_id": handle.id if handle else None,
        "missing_for": round(missing.counted, 1) if missing.last_at is not None else None,
        "waits_for": round(max(0.0, not_before - now), 1),
        "stop_reason": demand.reason if isinstance(demand, Revoked) else None,
    }
