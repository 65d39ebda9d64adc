"""
What has been sent of late from one bucket, and what of it was refused for its rate. Pure.

May import the standard library only. Every ``now`` is in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

RECENT_SECONDS = 600
"""What is longer ago does not count for the figures of people."""
USED_SECONDS = 10
"""The seconds over which the present use is a mean."""
_WEIGHT = 0.1
"""Of the latest refusal in the mean of how much was sent when calls were refused."""


@dataclass(frozen=True, slots=True)
class Used:
    """
    The figures of one bucket.

    :param used: calls per second, in the last :data:`USED_SECONDS`
    :param calls: calls in the last :data:`RECENT_SECONDS`
    :param refused: of those, refused for their rate
    :param refused_since: when the present series of refusals began; a series ends with
        :data:`RECENT_SECONDS` without one; None: there is none
    :param refused_at: when the latest call was refused
    :param sent_when_refused: how many calls went in the second before a call that was refused, as a mean of late
    """

    used: float = 0.0
    calls: int = 0
    refused: int = 0
    refused_since: float | None = None
    refused_at: float | None = None
    sent_when_refused: float | None = None


class Usage:
    """Counts the calls of one bucket, second by second."""

    __slots__ = ("_refused_at", "_refused_since", "_seconds", "_sent_when_refused")

    def __init__(self) -> None:
        self._seconds: deque[list[int]] = deque()  # second, calls, refused; none that is not recent
        self._refused_since: float | None = None
        self._refused_at: float | None = None
        self._sent_when_refused: float | None = None

    def sent(self, now: float) -> float:
        """Note a call; return about how many went in the second that ends with it."""
        current = self._second(now)
        current[1] += 1
        before = self._seconds[-2] if len(self._seconds) > 1 else current
        if before[0] != current[0] - 1:
            return current[1]
        return current[1] + before[1] * (1.0 - now % 1.0)

    def refused(self, now: float, sent: float) -> None:
        """
        Note that a call was refused for its rate.

        :param sent: what :meth:`sent` returned for it
        """
        self._second(now)[2] += 1
        if self._refused_at is None or now > self._refused_at + RECENT_SECONDS:
            self._refused_since, self._sent_when_refused = now, None
        self._refused_at = now
        mean = self._sent_when_refused
        self._sent_when_refused = sent if mean is None else mean + _WEIGHT * (sent - mean)

    def figures(self, now: float) -> Used:
        """Return the figures of the last seconds and minutes."""
        second = int(now)
        self._forget(second)
        late = self._seconds
        refused = sum(one[2] for one in late)
        # The present second has not ended: it does not count.
        used = sum(one[1] for one in late if second - USED_SECONDS <= one[0] < second) / USED_SECONDS
        return Used(
            used=used,
            calls=sum(one[1] for one in late),
            refused=refused,
            refused_since=self._refused_since if refused else None,
            refused_at=self._refused_at if refused else None,
            sent_when_refused=self._sent_when_refused if refused else None,
        )

    def _second(self, now: float) -> list[int]:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] < second:
            self._forget(second)
            self._seconds.append([second, 0, 0])
        return self._seconds[-1]

    def _forget(self, second: int) -> None:
        while self._seconds and self._seconds[0][0] <= second - RECENT_SECONDS:
            self._seconds.popleft()
