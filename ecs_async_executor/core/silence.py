"""
A scheduler that does not call the executor: when that counts as a silence, and how long its effects last. Pure.

May import the standard library only. ``now`` is in seconds of one monotonic clock. During a silence another
scheduler may adopt the launches of this one, so nothing is launched then; afterwards the launches in doubt are
looked after first.
"""

from __future__ import annotations

from collections.abc import Callable


class Heartbeats:
    """
    When the scheduler last called, and how often it called again after a silence.

    The scheduler's thread writes it, the loop's thread reads it.

    :param timeout: seconds without a heartbeat that make a silence; None: there is no silence
    """

    __slots__ = ("_last_at", "_timeout", "silences")

    def __init__(self, timeout: float | None, now: float) -> None:
        self._timeout = timeout
        self._last_at = now
        self.silences = 0

    def begin(self, now: float) -> None:
        """Count from now on: the time before is no silence."""
        self._last_at = now

    def heartbeat(self, now: float) -> None:
        """Note that the scheduler has called."""
        # Count the silence before ending it; otherwise the engine could miss it.
        self.silences += self.is_silent(now)
        self._last_at = now

    def age(self, now: float) -> float:
        """Return the seconds since the last heartbeat."""
        return now - self._last_at

    def is_silent(self, now: float) -> bool:
        """Return whether the last heartbeat is older than the timeout."""
        return self._timeout is not None and self.age(now) > self._timeout


class SilenceWatch:
    """
    Whether the scheduler is silent, or was and its launches have not been looked after since.

    :param timeout: seconds without a heartbeat that make a silence; None: there is no silence
    :param age: returns the seconds since the last heartbeat
    :param silences: returns how often the scheduler has called again after a silence
    """

    def __init__(self, timeout: float | None, age: Callable[[], float], silences: Callable[[], int]) -> None:
        self._timeout = timeout
        self._age = age
        self._silences = silences
        self._silences_noticed = 0
        self._holds = False

    def is_silent(self) -> bool:
        """Return whether the last heartbeat is older than the timeout."""
        return self._timeout is not None and self._age() > self._timeout

    def notices(self) -> bool:
        """Return whether there is a silence now, or was one since the last :meth:`looked_after`."""
        silent = self.is_silent()
        silences = self._silences()  # read after the age: a silence is counted before it ends
        if silent or silences != self._silences_noticed:
            self._silences_noticed = silences
            self._holds = True
        return self._holds

    def looked_after(self) -> None:
        """Note that the silence is over and the launches in doubt have been looked after."""
        self._holds = False
