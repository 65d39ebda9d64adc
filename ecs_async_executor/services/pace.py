"""
How often this process reads CloudWatch Logs. Imports the standard library and anyio only.

GetLogEvents has a quota for each account and region that cannot be raised, and everybody in the account draws on
it. So all readers of a process share one pace per region.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from typing import Final

import anyio

_QUOTA: Final = 25.0
_QUOTAS: Final = {
    "ap-northeast-3": 10.0,
    "ap-southeast-3": 10.0,
    "ca-west-1": 10.0,
    "eu-central-1": 10.0,
    "eu-west-1": 10.0,
    "eu-west-3": 30.0,
    "il-central-1": 10.0,
    "us-west-2": 10.0,
}
"""GetLogEvents requests per second: Amazon CloudWatch Logs User Guide ("CloudWatch Logs quotas")."""
_SHARE: Final = 0.5
"""Of the quota: there are other processes, and other readers than ours."""
_BURST: Final = 5


class Pace:
    """
    Lets one request of a process pass after the other, from any thread and loop.

    :param rate: requests per second in the long run
    :param burst: how many requests may pass at once after a rest
    :param clock: seconds
    """

    def __init__(self, rate: float, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1.0 / rate
        self._burst = burst
        self._clock = clock
        self._due = 0.0
        self._lock = threading.Lock()

    def reserve(self) -> float:
        """Take the next turn, and return the seconds until it comes."""
        with self._lock:
            now = self._clock()
            # After a rest, `burst` turns are due at once.
            self._due = max(self._due, now - (self._burst - 1) * self._interval)
            wait = self._due - now
            self._due += self._interval
        return max(0.0, wait)

    async def turn(self) -> None:
        """Wait for the next turn."""
        if wait := self.reserve():
            await anyio.sleep(wait)


_paces: dict[str, Pace] = {}
_lock = threading.Lock()


def of_log_reads(region: str) -> Pace:
    """Return the pace that all readers of a region's CloudWatch Logs share in this process."""
    with _lock:
        if region not in _paces:
            _paces[region] = Pace(_QUOTAS.get(region, _QUOTA) * _SHARE, _BURST)
        return _paces[region]


def _after_fork_in_child() -> None:
    """Begin anew: another thread may have held a lock."""
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    _paces.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
