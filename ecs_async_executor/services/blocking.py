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
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, TypeVar

T = TypeVar("T")

GIVEN_UP_AFTER: Final = 600.0
"""
Seconds after which a call without an end is made anew: what it waits for may have gone without a word. If the new
call does not end either, the next one is made after twice as long, so a day leaves 8 threads behind.
"""
KEPT_FOR: Final = 60.0
"""Seconds for which an answer that came when nobody waited is kept: what is slow would else never be answered."""


@dataclass(eq=False, slots=True)
class _Question(Generic[T]):
    """
    A call under way, or its late answer.

    :ivar patience: seconds after which it is made anew if it does not end
    """

    answer: Future[T]
    begun_at: float
    patience: float
    ended_at: float | None = None
    waiting: int = 0

    def is_good(self, now: float) -> bool:
        if self.ended_at is None:
            return now < self.begun_at + self.patience
        return now < self.ended_at + KEPT_FOR


_lock = threading.Lock()
_asked: dict[Hashable, _Question[Any]] = {}


async def call(key: Hashable, what: str, seconds: float, function: Callable[[], T]) -> T:
    """
    Return what a function returns that may block; or what the call returns that is under way for the same key.

    :param key: which question it is, in all threads of the process
    :param what: what is asked for, for people
    :param seconds: how long to wait at most
    :raises TimeoutError: if there is no answer by then; the thread waits on, and who asks next gets its answer
    """
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()

    def wake(_: Future[T]) -> None:
        with suppress(RuntimeError):  # the loop is closed: its caller waits no longer
            loop.call_soon_threadsafe(ended.set)

    question = _ask(key, function)
    question.answer.add_done_callback(wake)
    try:
        await asyncio.wait_for(ended.wait(), seconds)
    except asyncio.TimeoutError:
        if not question.answer.done():
            msg = f"no {what} within {seconds:g} s"
            raise TimeoutError(msg) from None
    finally:
        with _lock:
            question.waiting -= 1
    return question.answer.result()


def _ask(key: Hashable, function: Callable[[], T]) -> _Question[T]:
    now = time.monotonic()
    with _lock:
        question = _asked.get(key)
        if question is not None and question.is_good(now):
            question.waiting += 1
            if question.ended_at is not None:
                del _asked[key]
            return question
        patience = GIVEN_UP_AFTER
        if question is not None and question.ended_at is None:
            patience = max(patience, 2 * question.patience)
        question = _asked[key] = _Question(Future(), now, patience, waiting=1)
    threading.Thread(target=_run, args=(key, question, function), name="ecs-async-blocking", daemon=True).start()
    return question


def _run(key: Hashable, question: _Question[T], function: Callable[[], T]) -> None:
    answer: Callable[[], None]
    try:
        answer = partial(question.answer.set_result, function())
    except BaseException as error:  # noqa: BLE001 - the callers', whatever it is
        answer = partial(question.answer.set_exception, error)
    with _lock:
        question.ended_at = time.monotonic()
        latest = _asked.get(key)
        if latest is not None and latest is not question:
            latest.patience = 0.0  # there are answers again
        elif latest is not None and question.waiting:
            del _asked[key]
    answer()


def _after_fork_in_child() -> None:
    """Forget the threads, which are the parent's."""
    global _lock  # noqa: PLW0603 - another thread may have held it
    _lock = threading.Lock()
    _asked.clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
