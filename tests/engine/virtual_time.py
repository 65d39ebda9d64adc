"""An asyncio loop whose clock jumps to the next timer: a virtual hour takes as long as its events do."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio

T = TypeVar("T")

EPOCH = 1_800_000_000.0
"""Wall-clock seconds when a virtual loop's clock shows 0."""


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The loop that ships, but for :meth:`time`."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0
        self._moment = 0
        self._observers: list[tuple[asyncio.Future[int], int]] = []

    def time(self) -> float:
        return self._now

    async def settled(self, seen: int = -1) -> int:
        """
        Wait until everything due by now has been done, before the clock moves on; return the moment's number.

        :param seen: the moment that the caller has looked at already: wait for the next one
        """
        observer = self.create_future()
        self._observers.append((observer, seen))
        moment: int = await observer
        return moment

    def _run_once(self) -> None:
        if not self._ready:  # type: ignore[attr-defined]
            self._drop_cancelled_timers()
        if not self._ready and not self._wake_observers() and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
            self._moment += 1
        super()._run_once()  # type: ignore[misc]

    def _drop_cancelled_timers(self) -> None:
        """Drop them before the clock jumps to one: the base class would then really sleep until the next."""
        timers = self._scheduled  # type: ignore[attr-defined]
        while timers and timers[0].cancelled():
            self._timer_cancelled_count -= 1  # type: ignore[attr-defined]
            heapq.heappop(timers)._scheduled = False

    def _wake_observers(self) -> bool:
        """Tell those that have not seen this moment yet; return whether there were any."""
        if not self._observers:
            return False
        due = [observer for observer, seen in self._observers if seen != self._moment and not observer.done()]
        self._observers = [
            (observer, seen) for observer, seen in self._observers if seen == self._moment and not observer.done()
        ]
        for observer in due:
            observer.set_result(self._moment)
        return bool(due)


def wall() -> float:
    """The wall clock that goes with the virtual one."""
    return EPOCH + anyio.current_time()


def run(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a coroutine function in virtual time."""
    return anyio.run(main, *args, backend_options={"loop_factory": VirtualTimeLoop})
