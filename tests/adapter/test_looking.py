"""What the looks of a process share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ecs_async_executor.adapter import looking
from ecs_async_executor.adapter.looking import Looking
from ecs_async_executor.core.errors import BackendError, Kind
from tests.services.fakes import until


class Service:
    """Counts the clients that are open."""

    def __init__(self) -> None:
        self.opened = 0
        self.open = 0
        self.problem: Exception | None = None

    @asynccontextmanager
    async def inspector(self) -> AsyncIterator[Any]:
        if self.problem is not None:
            raise self.problem
        self.opened += 1
        self.open += 1
        try:
            yield f"inspector {self.opened}"
        finally:
            self.open -= 1

    def log_reader(self) -> Any:
        return Reader()


class Reader:
    @asynccontextmanager
    async def open(self) -> AsyncIterator[str]:
        yield "reader"


def hold(shared: Looking, service: Any) -> Any:
    return shared.clients(service)


async def use(shared: Looking, service: Service) -> Any:
    async with hold(shared, service) as (inspector, reader):
        assert reader == "reader"
        return inspector


def test_looks_one_after_the_other_share_clients_that_then_close(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_IDLE", 0.05)

    async def run() -> None:
        service, other, shared = Service(), Service(), Looking()
        assert [await use(shared, service) for _ in range(3)] == ["inspector 1"] * 3
        assert await use(shared, other) == "inspector 1"
        await until(lambda: not service.open and not other.open)
        assert await use(shared, service) == "inspector 2"
        await until(lambda: not service.open)

    asyncio.run(run())


def test_clients_in_use_stay_open_and_old_ones_are_made_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looking, "_IDLE", 0.0)
    monkeypatch.setattr(looking, "_OLD", 0.0)

    async def run() -> None:
        service, shared = Service(), Looking()
        async with hold(shared, service) as (first, _):
            assert await use(shared, service) == "inspector 2"
            await until(lambda: service.open == 1)
            assert str(first) == "inspector 1"
        await until(lambda: not service.open)

    asyncio.run(run())


def test_clients_that_cannot_be_made_are_tried_again() -> None:
    async def run() -> None:
        service, shared = Service(), Looking()
        service.problem = BackendError(Kind.REFUSED, "ConfigurationError", "no amazon provider")
        with pytest.raises(BackendError):
            await use(shared, service)
        service.problem = None
        assert await use(shared, service) == "inspector 1"

    asyncio.run(run())


def test_a_look_that_is_given_up_holds_up_no_other() -> None:
    async def run() -> None:
        service, shared = Service(), Looking()

        async def hang() -> None:
            async with hold(shared, service):
                await asyncio.sleep(3600)

        for _ in range(2 * looking.AT_ONCE):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(hang(), 0.01)
        assert await use(shared, service) == "inspector 1"

    asyncio.run(run())


def test_an_answer_is_shared_while_it_is_found_and_for_a_while() -> None:
    async def run() -> None:
        shared, found = Looking(), 0
        go = asyncio.Event()

        async def find() -> int:
            nonlocal found
            found += 1
            await go.wait()
            return found

        def ask(question: str) -> Any:
            return shared.ask(question, find, lambda _: 0.05)

        viewers = [asyncio.create_task(ask("a")) for _ in range(5)]
        impatient = asyncio.create_task(ask("a"))
        await until(lambda: found)
        impatient.cancel()  # it was one of many: the others still get their answer
        go.set()
        assert await asyncio.gather(*viewers) == [1] * 5
        assert await ask("a") == 1
        assert await ask("b") == 2
        await until(lambda: not shared._answers)
        assert await ask("a") == 3

    asyncio.run(run())


def test_an_error_is_not_kept() -> None:
    async def run() -> None:
        shared = Looking()

        async def fails() -> int:
            raise LookupError

        async def answers() -> int:
            return 1

        with pytest.raises(LookupError):
            await shared.ask("a", fails, lambda _: 60.0)
        await until(lambda: not shared._answers)
        assert await shared.ask("a", answers, lambda _: 0.0) == 1

    asyncio.run(run())
