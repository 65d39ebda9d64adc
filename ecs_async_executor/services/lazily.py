"""
Things that are opened by the first call that needs them, and again if that failed.

Imports the standard library and anyio only. Callers share an attempt and its error, so that many callers of a
place that does not answer wait no longer than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Final, Generic, TypeVar

import anyio

T = TypeVar("T")

_CLOSING: Final = 1.0
"""Seconds that an attempt to open has to take note of its end."""


class Lazily(Generic[T]):
    """
    Something that is opened once it is needed; it belongs to the running loop.

    :param open_it: returns what opens and closes it
    """

    def __init__(self, open_it: Callable[[], AbstractAsyncContextManager[T]]) -> None:
        self._open_it = open_it
        self._stack = AsyncExitStack()
        self._opening: asyncio.Task[T] | None = None

    async def opened(self) -> T:
        """Return it, open; raises what opening it raises."""
        if self._opening is None:
            self._opening = asyncio.create_task(self._open(), name="open what is needed")
            self._opening.add_done_callback(self._note)
        return await asyncio.shield(self._opening)

    async def _open(self) -> T:
        return await self._stack.enter_async_context(self._open_it())

    def _note(self, opening: asyncio.Task[T]) -> None:
        if opening.cancelled() or opening.exception() is not None:
            self._opening = None  # the next call tries again

    async def close(self) -> None:
        """Close it, if it is open."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
            with anyio.move_on_after(_CLOSING, shield=True):
                await asyncio.wait([self._opening])
        await self._stack.aclose()
