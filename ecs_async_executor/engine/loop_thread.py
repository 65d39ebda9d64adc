"""
The thread of the engine's loop: its start, death, replacement, stall and bounded stop, and forks of the process.

May import ``core.backend``, ``engine``, anyio and structlog. Only a dead thread is replaced. A stalled one is
reported: it may wake up and go on with its work, so a second one beside it could do the same work twice.
"""

from __future__ import annotations

import asyncio
import enum
import os
import threading
import weakref
from collections.abc import Callable

import anyio
import structlog

from ecs_async_executor.core.backend import Backend
from ecs_async_executor.engine.daemons import DaemonThreads
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.stacks import stack_of

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
STALL_HEARTBEATS = 5
"""A loop is stalled when it has not served its timer for so long, over so many heartbeats of the scheduler."""
RESTART_DELAYS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY_AFTER = 60.0
"""A loop thread that has lived for so long ends a series of restarts."""
CLIENT_CLOSE_SECONDS = 2.0
"""The part of a stop's time that is kept for closing the client."""


class State(enum.Enum):
    """What the thread is to do."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FORKED = "forked"
    """This process is the child of a fork: the loop belongs to the parent."""


class LoopThread:
    """
    Run an engine on a loop on a thread of its own.

    The methods are for the scheduler's main thread; they do no I/O, and only :meth:`stop` waits.

    :param name: the thread's name
    :param make_backend: makes the backend, on the loop thread, once per attempt to connect
    :param make_engine: makes the engine over an open backend, on the loop thread
    :param not_connected: called on the loop thread when there is no backend, with the reason
    :param event: makes the full name of a log event
    :param monotonic: seconds of the clock that all ``now`` are from
    """

    def __init__(
        self,
        name: str,
        *,
        make_backend: Callable[[], Backend],
        make_engine: Callable[[Backend], Engine],
        not_connected: Callable[[Exception], None],
        event: Callable[[str], str],
        monotonic: Callable[[], float],
    ) -> None:
        self._name = name
        self._make_backend = make_backend
        self._make_engine = make_engine
        self._not_connected = not_connected
        self._event = event
        self._monotonic = monotonic
        self.state = State.NEW
        self.thread: threading.Thread | None = None
        self.restarts = 0
        self._loop: _Loop | None = None
        self._served_at = monotonic()
        self._heartbeats_unserved = 0
        self._stall_reported = False
        self._series = 0
        self._restart_at: float | None = None
        self._started_at = 0.0
        _threads.add(self)

    def start(self) -> None:
        """Start the thread, once."""
        if self.state is not State.NEW:
            return
        self.state = State.RUNNING
        self._start()

    def stop(self, timeout: float, drain: Callable[[Engine], None]) -> bool:
        """
        Drain the engine and end the thread; wait at most ``timeout``.

        :param timeout: seconds
        :param drain: called with the engine, on the loop thread
        :returns: True if the engine was drained in time, or there is none in this process
        """
        thread = self.thread
        if self.state in (State.NEW, State.FORKED) or thread is None:
            if self.state is State.NEW:
                self.state = State.STOPPED
            return True
        deadline = self._monotonic() + timeout
        if self.state is not State.STOPPED:
            self.state = State.STOPPING
            if self._loop is not None:
                self._loop.stopping = True
            self.tell(drain)
            thread.join(max(0.0, deadline - self._monotonic() - CLIENT_CLOSE_SECONDS))
        if thread.is_alive():
            self.tell(None)  # what has no answer yet gets none
            thread.join(max(0.0, deadline - self._monotonic()))
        self.state = State.STOPPED
        failed = self._loop is not None and self._loop.failed
        return not thread.is_alive() and not failed

    def look_after(self, now: float) -> None:
        """Replace a dead thread, and report a stalled one. Call it once a heartbeat."""
        thread = self.thread
        if thread is None or not thread.is_alive():
            self._replace(now)
        elif now - self._served_at > STALL_SECONDS:
            self._heartbeats_unserved += 1
            if self._heartbeats_unserved >= STALL_HEARTBEATS and not self._stall_reported:
                self._stall_reported = True
                self._report_stall(thread, now - self._served_at)
        else:
            self._heartbeats_unserved = 0
            self._stall_reported = False

    def wake(self) -> None:
        """Have the engine read its inbox, unless it is about to."""
        loop = self._loop
        if loop is not None and not loop.wake_pending:
            loop.wake_pending = True
            self.tell(loop.read_inbox)

    def tell(self, what: Callable[[Engine], object] | None) -> None:
        """Have something done with the engine, on the loop; None cancels the loop. A closed loop ignores it."""
        loop = self._loop
        if loop is None:
            return
        with loop.lock:
            if loop.call_soon is None:
                loop.untold.append(what)
                return
            try:
                loop.call_soon(loop.serve, what)
            except RuntimeError:
                loop.wake_pending = False  # closed

    def served(self) -> None:
        """Note that the loop serves its timers. Called on the loop thread."""
        self._served_at = self._monotonic()

    def unserved_for(self) -> float:
        """Return the seconds since the loop last served a timer."""
        return self._monotonic() - self._served_at

    def is_alive(self) -> bool:
        """Return whether the thread runs."""
        return self.thread is not None and self.thread.is_alive()

    def is_working(self) -> bool:
        """Return whether the thread runs and its engine has started."""
        return self.is_alive() and self._loop is not None and self._loop.engine is not None

    # --- death and stall -------------------------------------------------------------------------------------

    def _start(self) -> None:
        loop = self._loop = _Loop()
        self._started_at = self._served_at = self._monotonic()
        self._heartbeats_unserved = 0
        self._stall_reported = False
        self._restart_at = None
        self.thread = threading.Thread(target=self._work, args=(loop,), name=self._name, daemon=True)
        self.thread.start()

    def _replace(self, now: float) -> None:
        if self._restart_at is None:
            if now - self._started_at > HEALTHY_AFTER:
                self._series = 0
            delay = RESTART_DELAYS[min(self._series, len(RESTART_DELAYS) - 1)]
            self._restart_at = now + delay
            self._series += 1
            log.error(self._event("engine.died"), restart_in=delay, restarts=self.restarts)
        if now >= self._restart_at:
            self.restarts += 1
            self._start()

    def _report_stall(self, thread: threading.Thread, seconds: float) -> None:
        log.error(self._event("engine.stalled"), seconds=round(seconds, 1), stack=stack_of(thread.ident))

    def forked(self) -> None:
        """Leave the loop to the parent. The child keeps every reference: to close it would close the parent's."""
        if self.state is not State.NEW:
            self.state = State.FORKED

    # --- on the loop thread ----------------------------------------------------------------------------------

    def _work(self, loop: _Loop) -> None:
        try:
            anyio.run(self._main, loop, backend="asyncio")
        except BaseException:
            loop.failed = True
            log.exception(self._event("engine.crashed"))
        finally:
            with loop.lock:
                loop.call_soon = _closed

    async def _main(self, loop: _Loop) -> None:
        asyncio.get_running_loop().set_default_executor(DaemonThreads())
        with anyio.CancelScope() as scope:
            loop.scope = scope
            with loop.lock:
                loop.call_soon = asyncio.get_running_loop().call_soon_threadsafe
                untold, loop.untold = loop.untold, []
            for what in untold:
                loop.serve(what)
            await self._serve(loop)

    async def _serve(self, loop: _Loop) -> None:
        attempt = 0
        while True:
            try:
                backend = self._make_backend()
                async with backend.open():
                    await self._make_engine_and_run(loop, backend)
                    return
            except Exception as error:
                if loop.engine is not None:
                    raise
                # No client, no engine: nothing fails, everything waits. Credentials may be on their way.
                log.error(self._event("client.unavailable"), reason=f"{type(error).__name__}: {error}")  # noqa: TRY400
                self._not_connected(error)
            delay = RESTART_DELAYS[min(attempt + 1, len(RESTART_DELAYS) - 1)]
            attempt += 1
            with anyio.move_on_after(delay):
                while not loop.stopping:
                    self.served()
                    await anyio.sleep(0.25)
            if loop.stopping:
                return

    async def _make_engine_and_run(self, loop: _Loop, backend: Backend) -> None:
        engine = self._make_engine(backend)

        def started() -> None:
            loop.engine = engine
            for what in loop.early:
                what(engine)
            loop.early.clear()

        await engine.run(started)


class _Loop:
    """What the two threads know of one loop. ``lock`` is held for a few instructions only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.call_soon: Callable[..., object] | None = None
        self.untold: list[Callable[[Engine], object] | None] = []
        self.early: list[Callable[[Engine], object]] = []
        self.engine: Engine | None = None
        self.scope: anyio.CancelScope | None = None
        self.wake_pending = False
        self.stopping = False
        self.failed = False

    def read_inbox(self, engine: Engine) -> None:
        """Have the inbox read; on the loop."""
        self.wake_pending = False
        engine.wake()

    def serve(self, what: Callable[[Engine], object] | None) -> None:
        """Do what :meth:`LoopThread.tell` was told; on the loop."""
        if what is None:
            self.stopping = True
            if self.scope is not None:
                self.scope.cancel()
        elif self.engine is not None:
            what(self.engine)
        else:
            self.early.append(what)


def _closed(*_: object) -> None:
    raise RuntimeError


_threads: weakref.WeakSet[LoopThread] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for thread in list(_threads):
        thread.forked()


os.register_at_fork(after_in_child=_after_fork_in_child)
