"""
The bridge between the scheduler's thread and the loop thread.

May import ``engine`` and what is below it. It owns what has to outlive a loop thread - ledger, inbox, outbox -
and the thread itself: its start, wake-up, death, replacement and bounded stop. Nothing here waits for AWS, but
:meth:`Bridge.check` and :meth:`Bridge.stop`, which are bounded.
"""

from __future__ import annotations

import asyncio
import enum
import os
import random
import sys
import threading
import time
import traceback
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace

import anyio
import structlog

from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Command, Launch, Report, Stop
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.engine.engine import Check, Counters, Engine, Options, Statistics
from ecs_async_executor.settings import Tuning

log = structlog.get_logger(__name__)

STALL_SECONDS = 30.0
STALL_BEATS = 5
"""A loop is stalled when it did not serve its timer for so long, over so many calls of the scheduler's."""
RESTART_DELAYS = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)
HEALTHY_AFTER = 60.0
"""A loop thread that lived for so long ends a series of restarts."""
CLIENT_CLOSE_SECONDS = 2.0
"""What closing the client may add to a stop."""
NOT_STOPPED_LOGGED = 100
"""Identifiers of that many containers in a line."""


class State(enum.Enum):
    """What the bridge is doing."""

    NEW = "new"
    RUNNING = "running"
    STOPPING = "stopping"
    STOPPED = "stopped"
    FORKED = "forked"
    """This process is a fork's child: the loop belongs to the parent."""


class Bridge:
    """
    Run an engine on a thread of its own; talk to it through queues.

    All methods but those that say otherwise are for the scheduler's main thread, take microseconds, do no I/O and
    raise nothing.

    :param service: what is known of it without asking
    :param backend: makes the backend, on the loop thread, once per loop
    :param render: makes a request of a launch, on the loop thread (see ``render_in_thread``); raises
        :class:`~ecs_async_executor.core.errors.Rejected` if that cannot be done for this one
    :param max_attempts: containers that may be tried for one launch, as long as none of them started
    :param stall_timeout: seconds of silence of the scheduler after which nothing is launched; None: no limit
    :param render_in_thread: ``render`` runs user code, which may block: call it in a worker thread
    """

    def __init__(
        self,
        *,
        service: Service,
        backend: Callable[[], Backend],
        render: Callable[[Launch], LaunchSpec],
        tuning: Tuning,
        max_attempts: int,
        stall_timeout: float | None = None,
        render_in_thread: bool = False,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._name = service.name
        self._event = service.event
        self._make_backend = backend
        self._render = render
        self._options = options = _options(service, tuning, stall_timeout, render_in_thread=render_in_thread)
        self._monotonic = monotonic
        self._ledger = Ledger(
            Rules(
                service=service.name,
                repeatable=service.repeatable,
                absent_grace=service.absent_grace,
                max_attempts=max_attempts,
                missing_grace=tuning.missing_grace,
                permanent_error_grace=tuning.permanent_error_grace,
                capacity_timeout=tuning.capacity_timeout,
            )
        )
        self._inbox: deque[Command | Check] = deque()
        self._counters = Counters()
        self._state = State.NEW
        self._thread: threading.Thread | None = None
        self._loop: _Loop | None = None
        self._statistics = Statistics(launch_rate=options.launch_rate(""))
        self._published_at = self._beaten_at = monotonic()
        self._silences = 0
        self._beats_unserved = 0
        self._stall_reported = False
        self._restarts = 0
        self._series = 0
        self._restart_at: float | None = None
        self._started_at = 0.0
        _bridges.add(self)

    # --- starting and stopping -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop thread; it connects to AWS on its own time."""
        if self._state is not State.NEW:
            return
        self._state = State.RUNNING
        self._beaten_at = self._monotonic()
        self._start_thread()

    def _start_thread(self) -> None:
        loop = self._loop = _Loop()
        self._started_at = self._published_at = self._monotonic()
        self._beats_unserved = 0
        self._stall_reported = False
        self._restart_at = None
        self._thread = threading.Thread(
            target=self._work, args=(loop,), name=f"ecs-async-executor {self._name}", daemon=True
        )
        self._thread.start()

    def check(self, timeout: float) -> None:
        """
        Have the backend make its harmless call, and wait for the answer.

        :param timeout: seconds to wait at most
        :raises BackendError: if the call failed, or whatever kept the client from being made
        :raises TimeoutError: if there is no answer within ``timeout``
        """
        answer: Future[None] = Future()
        self._inbox.append(Check(answer))
        self._wake()
        try:
            answer.result(timeout)
        except FutureTimeoutError:
            answer.cancel()
            msg = f"no answer within {timeout:g} s"
            raise TimeoutError(msg) from None

    def stop(self, timeout: float, *, stop_containers: bool, reason: str) -> bool:
        """
        Stop the engine: no new launches, requests in flight get their answer, and stops that are owed are sent.

        Waits at most ``timeout``. What could not be stopped is logged.

        :param timeout: seconds
        :param stop_containers: also stop every container
        :param reason: words for those
        :returns: True if all of that was done in time
        """
        thread = self._thread
        if self._state in (State.NEW, State.FORKED) or thread is None:
            if self._state is State.NEW:
                self._state = State.STOPPED
            return True
        deadline = self._monotonic() + timeout
        if self._state is not State.STOPPED:
            self._state = State.STOPPING
            if self._loop is not None:
                self._loop.stopping = True
            self._tell(lambda engine: engine.drain(reason if stop_containers else None))
            thread.join(max(0.0, deadline - self._monotonic() - CLIENT_CLOSE_SECONDS))
        if thread.is_alive():
            self._tell(None)  # what has no answer yet gets none
            thread.join(max(0.0, deadline - self._monotonic()))
        self._state = State.STOPPED
        done = not thread.is_alive() and not self._loop_failed()
        if not done:
            log.warning(
                self._event("bridge.stop_incomplete"),
                launching=sum(r.spec is not None for r in list(self._ledger.records.values())),
                stops_owed=len(self._ledger.stops),
                timeout=timeout,
            )
        self._log_not_stopped()
        return done

    def _log_not_stopped(self) -> None:
        handles = [handle.id for handle in self._ledger.stops.handles()]
        for command in list(self._inbox):
            record = self._ledger.records.get(command.launch_id) if isinstance(command, Stop) else None
            if record is not None and record.handle is not None:
                handles.append(record.handle.id)
        if handles:
            log.warning(
                self._event("bridge.not_stopped"), containers=len(handles), handles=handles[:NOT_STOPPED_LOGGED]
            )

    def _loop_failed(self) -> bool:
        return self._loop is not None and self._loop.failed

    # --- the scheduler's calls -------------------------------------------------------------------------------

    def submit(self, command: Command) -> None:
        """Hand a command over; it is read at the next :meth:`beat` or when the loop looks by itself."""
        self._inbox.append(command)

    def drain(self, apply: Callable[[Report], None], budget: float = 0.002) -> int:
        """
        Apply waiting reports, for ``budget`` seconds at most.

        A report leaves the outbox only after it was applied, so that an exception - SystemExit included - at any
        statement loses none; ``apply`` must not mind to see one twice.

        :returns: how many were applied
        """
        outbox = self._ledger.outbox
        until = self._monotonic() + budget
        applied = 0
        while outbox:
            try:
                apply(outbox[0])
            except Exception:
                # A bug of the caller's: it has had this report, and must get the others.
                log.exception(self._event("report.not_applied"), report=type(outbox[0]).__name__)
            outbox.popleft()
            applied += 1
            if applied % 16 == 0 and self._monotonic() >= until:
                break
        return applied

    def is_silent(self) -> bool:
        """Tell if the scheduler has not called for so long that nothing is launched until :meth:`beat`."""
        limit = self._options.stall_timeout
        return limit is not None and self._monotonic() - self._beaten_at > limit

    def unstarted(self) -> set[str]:
        """Return the ids of the launches that can still need a container. Takes no lock."""
        records = list(self._ledger.records.values())
        return {record.launch.launch_id for record in records if not (record.seen_running or record.muted)}

    def beat(self, *, may_launch: bool = True) -> None:
        """
        Say that the scheduler is alive, look after the loop thread, and wake it.

        :param may_launch: False: after a silence, it is not known yet what another scheduler has adopted meanwhile
        """
        if self._state is not State.RUNNING:
            return
        now = self._monotonic()
        if may_launch:
            # In this order: the engine must not see the end of a silence and not that there was one.
            self._silences += self.is_silent()
            self._beaten_at = now
        thread = self._thread
        if thread is None or not thread.is_alive():
            self._replace_thread(now)
        elif now - self._published_at > STALL_SECONDS:
            self._beats_unserved += 1
            if self._beats_unserved >= STALL_BEATS and not self._stall_reported:
                self._stall_reported = True
                self._report_stall(thread, now - self._published_at)
        else:
            self._beats_unserved = 0
            self._stall_reported = False
        if self._inbox:
            self._wake()

    def _replace_thread(self, now: float) -> None:
        if self._restart_at is None:
            if now - self._started_at > HEALTHY_AFTER:
                self._series = 0
            delay = RESTART_DELAYS[min(self._series, len(RESTART_DELAYS) - 1)]
            self._restart_at = now + delay
            self._series += 1
            log.error(self._event("engine.died"), restart_in=delay, restarts=self._restarts)
        if now >= self._restart_at:
            self._restarts += 1
            self._start_thread()

    def _report_stall(self, thread: threading.Thread, seconds: float) -> None:
        # It is never replaced: it may wake up and go on with what it was doing.
        frame = sys._current_frames().get(thread.ident or 0)  # noqa: SLF001 - the only way to another thread's stack
        stack = "".join(traceback.format_stack(frame)) if frame else ""
        log.error(self._event("engine.stalled"), seconds=round(seconds, 1), stack=stack)

    def statistics(self) -> Statistics:
        """Return the latest snapshot, at most a second old while the loop is well. Takes no lock."""
        latest = self._statistics
        lag = max(latest.loop_lag, self._monotonic() - self._published_at - 1.0)
        dead = self._state is State.RUNNING and not (self._thread and self._thread.is_alive())
        return replace(
            latest,
            pending=latest.pending + len(self._inbox),
            outbox=len(self._ledger.outbox),
            restarts=self._restarts,
            loop_lag=lag if self._state is State.RUNNING else latest.loop_lag,
            paused="the loop thread is dead" if dead else latest.paused,
        )

    def records(self) -> list[dict[str, object]]:
        """Return what the engine knows of every launch that has not ended, for people. Takes no lock."""
        now = self._monotonic()
        return [
            {
                "launch_id": record.launch.launch_id,
                "workload": str(record.launch),
                "phase": record.phase.value,
                "attempt": record.attempt,
                "errors": record.errors,
                "handle_id": record.handle.id if record.handle else None,
                "waits_for": round(record.retry_at - now, 1) if record.retry_at > now else 0.0,
                "stop_reason": record.stop_reason,
            }
            for record in list(self._ledger.records.values())
        ]

    def _wake(self) -> None:
        loop = self._loop
        if loop is not None and not loop.wake_pending:
            loop.wake_pending = True
            self._tell(_Loop.intake(loop))

    def _tell(self, what: Callable[[Engine], None] | None) -> None:
        """Have something done on the loop; None cancels it. A loop that has ended needs telling nothing."""
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

    # --- the loop thread -------------------------------------------------------------------------------------

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
                    await self._run_engine(loop, backend)
                    return
            except Exception as error:
                if loop.engine is not None:
                    raise
                # No client, no engine: nothing fails, everything waits. Credentials may be on their way.
                log.error(self._event("client.unavailable"), reason=f"{type(error).__name__}: {error}")  # noqa: TRY400
                self._publish(replace(self._statistics, paused=f"no AWS client: {error}"))
                self._refuse_checks(error)
            delay = RESTART_DELAYS[min(attempt + 1, len(RESTART_DELAYS) - 1)]
            attempt += 1
            with anyio.move_on_after(delay):
                while not loop.stopping:
                    self._published_at = self._monotonic()
                    await anyio.sleep(0.25)
            if loop.stopping:
                return

    def _refuse_checks(self, error: Exception) -> None:
        while self._inbox and isinstance(check := self._inbox[0], Check):
            self._inbox.popleft()
            if check.answer.set_running_or_notify_cancel():
                check.answer.set_exception(error)

    async def _run_engine(self, loop: _Loop, backend: Backend) -> None:
        engine = Engine(
            backend=backend,
            ledger=self._ledger,
            inbox=self._inbox,
            render=self._render,
            options=self._options,
            counters=self._counters,
            beat_age=lambda: self._monotonic() - self._beaten_at,
            silences=lambda: self._silences,
            publish=self._publish,
            random_source=random.Random(),  # noqa: S311 - jitter
            event=self._event,
        )

        def started() -> None:
            loop.engine = engine
            for what in loop.early:
                what(engine)
            loop.early.clear()

        await engine.run(started)

    def _publish(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self._published_at = self._monotonic()

    # --- forks -----------------------------------------------------------------------------------------------

    def _forked(self) -> None:
        # The child keeps every reference: closing the loop here would close the parent's selector.
        if self._state is not State.NEW:
            self._state = State.FORKED


class _Loop:
    """What the two threads know of one loop. ``lock`` is held for a few instructions only."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.call_soon: Callable[..., object] | None = None
        self.untold: list[Callable[[Engine], None] | None] = []
        self.early: list[Callable[[Engine], None]] = []
        self.engine: Engine | None = None
        self.scope: anyio.CancelScope | None = None
        self.wake_pending = False
        self.stopping = False
        self.failed = False

    def intake(self) -> Callable[[Engine], None]:
        def wake(engine: Engine) -> None:
            self.wake_pending = False
            engine.wake()

        return wake

    def serve(self, what: Callable[[Engine], None] | None) -> None:
        """Do what was told; on the loop."""
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


_bridges: weakref.WeakSet[Bridge] = weakref.WeakSet()


def _options(service: Service, tuning: Tuning, stall_timeout: float | None, *, render_in_thread: bool) -> Options:
    def launch_rate(bucket: str) -> float:
        return tuning.launch_rate or service.rate_of(bucket)

    return Options(
        launch_rate=launch_rate,
        launch_burst=tuning.launch_burst,
        launch_rate_max=tuning.launch_rate_max,
        gently=tuning.launch_rate is None,
        max_concurrent_launches=tuning.max_concurrent_launches,
        max_concurrent_describes=tuning.max_concurrent_describes,
        describe_rate=tuning.describe_rate,
        describe_burst=max(1.0, tuning.describe_rate),
        poll_interval=tuning.poll_interval,
        change_rate=service.change_rate,
        change_burst=service.change_burst,
        stall_timeout=stall_timeout,
        render_in_thread=render_in_thread,
        stop_permission=service.stop_permission,
    )


def _after_fork_in_child() -> None:
    for bridge in list(_bridges):
        bridge._forked()  # noqa: SLF001 - this module's own


os.register_at_fork(after_in_child=_after_fork_in_child)
