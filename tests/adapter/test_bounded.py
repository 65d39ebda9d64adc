"""Coroutines for threads that wait."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from ecs_async_executor.adapter import bounded
from ecs_async_executor.adapter.bounded import run_bounded


@pytest.fixture(autouse=True)
def threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    made: list[bounded._LoopThread] = []

    class Noted(bounded._LoopThread):
        def __init__(self) -> None:
            super().__init__()
            made.append(self)

    monkeypatch.setattr(bounded, "_LoopThread", Noted)
    monkeypatch.setattr(bounded, "_thread", None)
    monkeypatch.setattr(bounded, "SYNCHRONOUS_SECONDS", 0.1)
    yield
    for one in made:
        one.loop.call_soon_threadsafe(one.loop.stop)
        one.thread.join(5)


async def name() -> str:
    return threading.current_thread().name


def test_the_result_comes_back_from_one_thread_for_all() -> None:
    before = set(threading.enumerate())
    with ThreadPoolExecutor(10) as threads:
        found = set(threads.map(lambda _: run_bounded(name, 60.0), range(30)))
    assert found == {"ecs-async-look"}
    assert len(set(threading.enumerate()) - before) <= 1


def test_an_error_comes_back() -> None:
    async def fails() -> None:
        raise LookupError("nothing there")

    with pytest.raises(LookupError, match="nothing there"):
        run_bounded(fails, 60.0)


def test_what_takes_too_long_is_cancelled() -> None:
    cancelled = threading.Event()

    async def never() -> None:
        try:
            await asyncio.sleep(3600)
        finally:
            cancelled.set()

    with pytest.raises(TimeoutError, match=r"^no answer within 0\.05 s$"):
        run_bounded(never, 0.05)
    assert cancelled.wait(60)


def test_a_loop_that_is_held_up_costs_its_callers_their_time_and_no_thread(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    go = threading.Event()

    async def blocks() -> None:
        go.wait(600)

    before = set(threading.enumerate())
    try:
        for work in (blocks, name, name):
            with pytest.raises(TimeoutError):
                run_bounded(work, 0.05)
        assert len(set(threading.enumerate()) - before) == 1
        monkeypatch.setattr(bounded, "GIVEN_UP_AFTER", 0.0)
        assert run_bounded(name, 60.0) == "ecs-async-look"  # in another thread, after ten minutes
        assert len(set(threading.enumerate()) - before) == 2
    finally:
        go.set()


def test_a_loop_that_was_only_busy_is_kept() -> None:
    async def blocks() -> None:
        time.sleep(0.4)  # noqa: ASYNC251 - that is what it is about

    with pytest.raises(TimeoutError):
        run_bounded(blocks, 0.05)
    with pytest.raises(TimeoutError):
        run_bounded(name, 0.05)
    thread = bounded._thread
    assert thread is not None
    assert run_bounded(name, 60.0) == "ecs-async-look"
    assert thread.stuck_since is None
    assert bounded._thread is thread


def test_calls_that_block_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    go = threading.Event()
    monkeypatch.setattr(bounded, "MOST_THREADS", 2)

    async def look_up() -> Any:
        return await asyncio.to_thread(go.wait, 20)

    before = set(threading.enumerate())
    try:
        for _ in range(2):
            with pytest.raises(TimeoutError):
                run_bounded(look_up, 0.05)
        for _ in range(3):
            with pytest.raises(OSError, match="2 calls before this one have not returned"):
                run_bounded(look_up, 60.0)
        assert len(set(threading.enumerate()) - before) == 3
    finally:
        go.set()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forks_child_has_a_thread_of_its_own() -> None:
    assert run_bounded(name, 60.0) == "ecs-async-look"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            code = 0 if run_bounded(name, 60.0) == "ecs-async-look" else 2
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
