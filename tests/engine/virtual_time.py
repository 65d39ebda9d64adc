"""An asyncio loop whose clock jumps to the next timer: a virtual hour takes as long as its events do."""

from __future__ import annotations

import asyncio
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

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


def wall() -> float:
    """The wall clock that goes with the virtual one."""
    return EPOCH + anyio.current_time()


def run(main: Callable[..., Awaitable[T]], *args: Any) -> T:
    """Run a coroutine function in virtual time."""
    return anyio.run(main, *args, backend_options={"loop_factory": VirtualTimeLoop})
