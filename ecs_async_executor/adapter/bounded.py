"""
Coroutines for threads that wait: all on one loop, in one daemon thread of the process, each with a deadline.

Airflow's api-server asks on a thread for each view of a page. A thread of ours for each would be one more that
stays behind while AWS, the network or a secrets backend does not answer. May import ``engine.daemons``.
"""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, Final, TypeVar

from ecs_async_executor.engine.daemons import DaemonThreads

T = TypeVar("T")

SYNCHRONOUS_SECONDS: Final = 1.0
"""How much longer than the deadline a caller waits for a loop that is busy."""
GIVEN_UP_AFTER: Final = 600.0
"""Seconds after which a loop that does not run anything is left behind for another."""
MOST_THREADS: Final = 16
"""The most calls that may block at once: to look up names, to read files."""


class _FewThreads(DaemonThreads):
    """Daemon threads, but no more of them than some: calls that hang must not pile up."""

    def __init__(self) -> None:
        super().__init__()
        self._free = threading.BoundedSemaphore(MOST_THREADS)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if not self._free.acquire(blocking=False):
            refused: Future[T] = Future()
            refused.set_exception(OSError(f"{MOST_THREADS} calls before this one have not returned"))
            return refused
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._free.release())
        return future


class _LoopThread:
    """A loop in a daemon thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self.stuck_since: float | None = None
        self.loop.set_default_executor(_FewThreads())
        self.thread = threading.Thread(target=self._run, name="ecs-async-look", daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()

    def note(self, *, runs: bool) -> None:
        """Note whether what was handed to the loop has begun."""
        if runs:
            self.stuck_since = None
        elif self.stuck_since is None:
            self.stuck_since = time.monotonic()

    def is_given_up(self) -> bool:
        return self.stuck_since is not None and time.monotonic() > self.stuck_since + GIVEN_UP_AFTER


_lock = threading.Lock()
_thread: _LoopThread | None = None


def run_bounded(work: Callable[[], Coroutine[Any, Any, T]], timeout: float) -> T:
    """
    Run a coroutine function on the loop that waiting threads share.

    :param timeout: seconds
    :raises TimeoutError: if it takes longer
    """
    thread = _running()
    begun = threading.Event()

    async def bounded() -> T:
        begun.set()
        return await asyncio.wait_for(work(), timeout)

    future = asyncio.run_coroutine_threadsafe(bounded(), thread.loop)
    try:
        return future.result(timeout + SYNCHRONOUS_SECONDS)
    except (FutureTimeoutError, asyncio.TimeoutError):
        raise TimeoutError(f"no answer within {timeout:g} s") from None
    finally:
        future.cancel()  # of a caller that was interrupted; otherwise it is done
        thread.note(runs=begun.is_set())


def _running() -> _LoopThread:
    global _thread  # noqa: PLW0603 - one for the process
    with _lock:
        if _thread is None or _thread.is_given_up():
            _thread = _LoopThread()
        return _thread


def _after_fork_in_child() -> None:
    """Forget the thread, which is the parent's."""
    global _lock, _thread  # noqa: PLW0603 - another thread may have held the lock
    _lock = threading.Lock()
    _thread = None


os.register_at_fork(after_in_child=_after_fork_in_child)
