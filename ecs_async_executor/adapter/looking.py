"""
Looks at containers for many viewers: one look a container at a time, its answer kept for a moment.

Airflow's UI asks for the log of a running task every three seconds, once for each viewer. May import ``service``
and ``services``. A :class:`Looking` belongs to its loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final, TypeVar
from weakref import WeakKeyDictionary

import anyio

from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.services.details import Inspector
from ecs_async_executor.services.logs import LogReader

T = TypeVar("T")

AT_ONCE: Final = 4
"""Looks that a process takes at a time."""
_IDLE: Final = 30.0
"""Seconds that clients stay open after a look: most looks are followed by another."""
_OLD: Final = 300.0
"""Seconds after which clients are made anew: Airflow's connection may have changed."""


@dataclass(eq=False)
class _Clients:
    """Clients that are open, and how many looks use them."""

    stack: AsyncExitStack
    inspector: Inspector
    reader: LogReader
    old_at: float
    users: int = 0
    closes: asyncio.TimerHandle | None = None


class Looking:
    """What the looks of a loop share: their answers, their number at a time, and their clients."""

    def __init__(self) -> None:
        self._answers: dict[Hashable, asyncio.Task[Any]] = {}
        self._turn = anyio.Semaphore(AT_ONCE)
        self._clients: dict[ServiceAdapter, _Clients] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self._opening: WeakKeyDictionary[ServiceAdapter, asyncio.Lock] = WeakKeyDictionary()

    async def ask(self, question: Hashable, find: Callable[[], Awaitable[T]], kept_for: Callable[[T], float]) -> T:
        """
        Return the answer to a question that is there, or under way, or find it.

        :param find: finds the answer; whoever asks meanwhile gets it too
        :param kept_for: returns the seconds for which an answer is kept
        """
        task: asyncio.Task[T] | None = self._answers.get(question)
        if task is None:
            task = self._answers[question] = asyncio.create_task(self._find(question, find, kept_for))
        return await asyncio.shield(task)

    async def _find(
        self, question: Hashable, find: Callable[[], Awaitable[T]], kept_for: Callable[[T], float]
    ) -> T:
        seconds = 0.0
        try:
            answer = await find()
            seconds = kept_for(answer)
            return answer
        finally:
            asyncio.get_running_loop().call_later(seconds, self._answers.pop, question, None)

    @asynccontextmanager
    async def clients(self, adapter: ServiceAdapter) -> AsyncIterator[tuple[Inspector, LogReader]]:
        """
        Wait for a turn, and hold clients of a service open.

        :raises BackendError: if they cannot be made
        """
        async with self._turn:
            clients = await self._opened(adapter)
            clients.users += 1
            if clients.closes is not None:
                clients.closes.cancel()
            try:
                yield clients.inspector, clients.reader
            finally:
                clients.users -= 1
                if not clients.users:
                    clients.closes = asyncio.get_running_loop().call_later(_IDLE, self._close, adapter, clients)

    async def _opened(self, adapter: ServiceAdapter) -> _Clients:
        async with self._opening.setdefault(adapter, asyncio.Lock()):
            found, now = self._clients.get(adapter), asyncio.get_running_loop().time()
            if found is not None and now < found.old_at:
                return found
            stack = AsyncExitStack()
            try:
                inspector = await stack.enter_async_context(adapter.inspector())
                reader = await stack.enter_async_context(adapter.log_reader().open())
            except BaseException:
                await stack.aclose()
                raise
            clients = self._clients[adapter] = _Clients(stack, inspector, reader, now + _OLD)
            return clients

    def _close(self, adapter: ServiceAdapter, clients: _Clients) -> None:
        if self._clients.get(adapter) is clients:
            del self._clients[adapter]
        closing = asyncio.get_running_loop().create_task(clients.stack.aclose())
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)


_of_loops: WeakKeyDictionary[asyncio.AbstractEventLoop, Looking] = WeakKeyDictionary()


def of_running_loop() -> Looking:
    """Return what the looks of the running loop share."""
    return _of_loops.setdefault(asyncio.get_running_loop(), Looking())
