from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ecs_async_executor.services.lazily import Lazily
from tests.services.fakes import until


class Door:
    """Opens when it is let to, and counts."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.error: Exception | None = None
        self.tries = 0
        self.is_open = False

    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        self.tries += 1
        await self.go.wait()
        if self.error is not None:
            raise self.error
        self.is_open = True
        try:
            yield "room"
        finally:
            self.is_open = False


def use(work: Callable[[Door, Lazily[str]], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        door = Door()
        lazily = Lazily(door.open)
        try:
            await work(door, lazily)
        finally:
            await lazily.close()
        assert not door.is_open

    asyncio.run(run())


def test_it_is_opened_once_for_all_who_call() -> None:
    async def work(door: Door, lazily: Lazily[str]) -> None:
        assert door.tries == 0
        callers = [asyncio.create_task(lazily.opened()) for _ in range(5)]
        await until(lambda: door.tries)
        door.go.set()
        assert await asyncio.gather(*callers, lazily.opened()) == ["room"] * 6
        assert await lazily.opened() == "room"
        assert door.tries == 1
        assert door.is_open

    use(work)


def test_who_waits_shares_an_error_and_the_next_call_tries_again() -> None:
    async def work(door: Door, lazily: Lazily[str]) -> None:
        door.error = OSError("no key")
        callers = [asyncio.create_task(lazily.opened()) for _ in range(5)]
        await until(lambda: door.tries)
        door.go.set()
        assert await asyncio.gather(*callers, return_exceptions=True) == [door.error] * 5
        assert door.tries == 1
        with pytest.raises(OSError, match="no key"):
            await lazily.opened()
        assert door.tries == 2
        door.error = None
        assert await lazily.opened() == "room"

    use(work)


def test_a_caller_that_is_cancelled_takes_nobody_along() -> None:
    async def work(door: Door, lazily: Lazily[str]) -> None:
        first, second = (asyncio.create_task(lazily.opened()) for _ in range(2))
        await until(lambda: door.tries)
        first.cancel()
        door.go.set()
        assert await second == "room"
        assert first.cancelled()
        assert door.tries == 1

    use(work)


def test_it_is_closed_while_it_opens() -> None:
    async def work(door: Door, lazily: Lazily[str]) -> None:
        caller = asyncio.create_task(lazily.opened())
        await until(lambda: door.tries)
        await lazily.close()
        assert caller.cancelled() or (await asyncio.gather(caller, return_exceptions=True))

    use(work)
