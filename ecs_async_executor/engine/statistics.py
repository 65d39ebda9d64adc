"""
What the engine shows of itself: a snapshot for metrics and people, and the totals in it.

May import the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass

SILENT = "the scheduler does not call the executor"
"""The :attr:`Statistics.paused` of a silence. The next heartbeat ends it, so it is no reason to take less."""


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    A snapshot of the engine. Counts are of launches, times in seconds, totals since ``start()``.

    :param pending: waiting for a container, those in the inbox included
    :param launching: requests in flight
    :param ambiguous: of the pending ones, those whose request may have been carried out
    :param unresolved: searched for: it is not known yet whether they have a container
    :param active: have a container
    :param stopping: stop requests that are still owed
    :param oldest_pending_age: how long the oldest pending launch has waited
    :param launch_rate: launches per second that the limits allow at present
    :param paused: why nothing can be launched at all, or None
    :param closed_gates: placements that wait for capacity or for a refusal to be mended
    :param api_latency_p50: of the latest calls; None before the first
    :param loop_lag: how late the loop served its latest timer
    :param outbox: reports that the executor has not taken yet
    """

    pending: int = 0
    launching: int = 0
    ambiguous: int = 0
    unresolved: int = 0
    active: int = 0
    stopping: int = 0
    oldest_pending_age: float = 0.0
    launch_rate: float = 0.0
    paused: str | None = None
    closed_gates: int = 0
    launches: int = 0
    throttles: int = 0
    api_calls: int = 0
    api_errors: int = 0
    api_latency_p50: float | None = None
    api_latency_p95: float | None = None
    loop_lag: float = 0.0
    restarts: int = 0
    outbox: int = 0


@dataclass(slots=True)
class Counters:
    """Totals that outlive the loop thread."""

    launches: int = 0
    api_calls: int = 0
    api_errors: int = 0
    throttles: int = 0
