"""
Calls that block and may never return, bounded: each runs in a daemon thread, and its caller stops waiting.

A thread that waits for a process, for STS or for a secrets backend cannot be interrupted. What is asked again
meanwhile waits for the thread that asks already, so that questions without an answer do not pile up. No end of a
process waits for a daemon thread. Imports the standard library only.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, Final, TypeVar

T = TypeVar("T")

GIVEN_UP_AFTER: Final = 600.0
"""Seconds after which a call without an end is made anew: what it waits for may have gone without a word."""

_lock = threading.Lock()
_running: dict[Hashable, tuple[Future[Any], float]] = {}


async def call(key: Hashable, what: str, seconds: float, function: Callable[[], T]) -> T:
    """
    Return what a function returns that may block; or what the call returns that is under way for the same key.

    :param key: which question it is, in all threads of the process
    :param what: what is asked for, for people
    :param seconds: how long to wait at most
    :raises TimeoutError: if there is no answer by then; the thread waits on
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: its caller waits no longer
            loop.call_soon_threadsafe(ended.set)

    future = _begun(key, function)
    future.add_done_callback(wake)
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except asyncio.TimeoutError:
        msg = f"no {what} within {seconds:g} s"
        raise TimeoutError(msg) from None
    return future.result()


def _begun(key: Hashable, function: Callable[[], T]) -> Future[T]:
    now = time.monotonic()
    with _lock:
        future, begun_at = _running.get(key, (None, 0.0))
        if future is not None and now < begun_at + GIVEN_UP_AFTER:
            return future
        future = Future()
        _running[key] = (future, now)
    threading.Thread(target=_run, args=(key, future, function), name="ecs-async-blocking", daemon=True).start()
    return future


def _run(key: Hashable, future: Future[T], function: Callable[[], T]) -> None:
    answer: Callable[[], None]
    try:
        answer = partial(future.set_result, function())
    except BaseException as error:  # noqa: BLE001 - the callers', whatever it is
        answer = partial(future.set_exception, error)
    with _lock:
        if _running.get(key, (None, 0.0))[0] is future:
            del _running[key]
    answer()


def _after_fork_in_child() -> None:
    """Forget the threads, which are the parent's."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _running.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
