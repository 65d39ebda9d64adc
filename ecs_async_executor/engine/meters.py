"""
What the engine counts and times, for the metrics.

May import ``core.metrics``. Only the loop's thread writes here, and a :class:`Meters` outlives that thread. Counts
are totals. Durations are samples: the scheduler's thread sends each on its own, so their number is bounded.
"""

from __future__ import annotations

import random
from collections import Counter, deque

from ecs_async_executor.core.metrics import (
    CALL_DURATION,
    CALLS,
    COUNTERS,
    ENGINE_RESTARTS,
    FAILURES,
    LAUNCHES,
    THROTTLES,
    Metric,
    Operation,
    Result,
)

SAMPLES_PER_WINDOW = 8
"""Of each timer. Each is a system call of the scheduler's thread, in which the loop's thread may take over."""
SAMPLES_KEPT = 1024
"""For a scheduler that does not take them; the oldest give way."""

_DERIVED = (LAUNCHES, THROTTLES)
_ELSEWHERE = (ENGINE_RESTARTS, *FAILURES.values())
"""Counted by the bridge and by the adapter."""


class Meters:
    """
    Totals, and samples of durations.

    Up to :data:`SAMPLES_PER_WINDOW` durations of a window are all kept. Of more, each has the same chance.

    :ivar chosen: launches that the service has accepted, by the placement that they have chosen
    :ivar samples: of the windows that are over, as metric and seconds; other threads take them from the left
    """

    def __init__(self, random_source: random.Random | None = None) -> None:
        self.chosen: Counter[str] = Counter()
        self.samples: deque[tuple[Metric, float]] = deque(maxlen=SAMPLES_KEPT)
        self._random = random_source or random.Random()  # noqa: S311 - a choice of samples, no secret
        self._counts = {metric: 0 for metric in COUNTERS if metric not in (*_DERIVED, *_ELSEWHERE)}
        self._windows: dict[Metric, tuple[int, list[float]]] = {}

    # --- what is counted -------------------------------------------------------------------------------------

    def count(self, metric: Metric, times: int = 1) -> None:
        """Add to a counter."""
        self._counts[metric] += times

    def called(self, operation: Operation, result: Result, seconds: float) -> None:
        """Note that a call to the service has ended."""
        self._counts[CALLS[operation, result]] += 1
        self.time(CALL_DURATION[operation], seconds)

    def counts(self) -> dict[str, int]:
        """Return the totals, by the names of the metrics."""
        counts = {metric.name: total for metric, total in self._counts.items()}
        counts[LAUNCHES.name] = self.launches
        counts[THROTTLES.name] = self.throttles
        return counts

    @property
    def launches(self) -> int:
        """Launches that the service has accepted."""
        return self._counts[CALLS[Operation.LAUNCH, Result.OK]]

    @property
    def api_calls(self) -> int:
        """Calls of all kinds."""
        return sum(self._total(result) for result in Result)

    @property
    def api_errors(self) -> int:
        """Calls of all kinds that were refused, or got no answer."""
        return self._total(Result.ERROR) + self.throttles

    @property
    def throttles(self) -> int:
        """Calls of all kinds that were refused for their rate."""
        return self._total(Result.THROTTLED)

    def _total(self, result: Result) -> int:
        return sum(self._counts[CALLS[operation, result]] for operation in Operation)

    # --- what is timed ---------------------------------------------------------------------------------------

    def time(self, metric: Metric, seconds: float) -> None:
        """Note a duration."""
        seen, kept = self._windows.get(metric, (0, None))
        if kept is None:
            kept = []
        if len(kept) < SAMPLES_PER_WINDOW:
            kept.append(seconds)
        elif (place := int(self._random.random() * (seen + 1))) < SAMPLES_PER_WINDOW:
            kept[place] = seconds
        self._windows[metric] = (seen + 1, kept)

    def end_window(self) -> None:
        """Hand over the samples of this window, and begin the next."""
        windows, self._windows = self._windows, {}
        for metric, (_, kept) in windows.items():
            self.samples.extend((metric, seconds) for seconds in kept)
