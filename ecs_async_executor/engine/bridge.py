"""
The bridge between the scheduler's thread and the loop thread: inbox, outbox and the scheduler's calls.

May import ``core``, ``engine``, ``settings`` and structlog. It owns what outlives a loop thread: ledger, inbox and
outbox. Nothing here waits for AWS but :meth:`Bridge.check` and :meth:`Bridge.stop`, which are bounded.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import replace
from functools import partial

import structlog

from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.listening import EventQueue
from ecs_async_executor.core.messages import Command, Launch, PostMortem, Report, Stop
from ecs_async_executor.core.phases import InDoubt, Sending
from ecs_async_executor.core.silence import Heartbeats
from ecs_async_executor.engine.accounts import Reading as ReadingQuotas
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.intake import Check
from ecs_async_executor.engine.loop_thread import LoopThread, State
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.options import options_from, rules_from
from ecs_async_executor.engine.postmortems import Reading, unread
from ecs_async_executor.engine.rendering import Rendering, as_it_is, find_nothing, never, no_choices
from ecs_async_executor.engine.statistics import Statistics, shown
from ecs_async_executor.engine.status import Endpoint
from ecs_async_executor.settings import Tuning

log = structlog.get_logger(__name__)

REPORTS_PER_LOOK = 16
"""Reports that are applied between two looks at the clock."""
NOT_STOPPED_LOGGED = 100
"""Identifiers of at most so many containers in a line."""


class Bridge:
    """
    Run an engine on a thread of its own; talk to it through queues.

    All methods but those that say otherwise are for the scheduler's main thread, take microseconds, do no I/O and
    raise nothing. ``ledger`` is for the loop thread and for tests. ``meters`` are the loop thread's; only their
    ``samples`` may be taken by another.

    :param service: what is known of the service without asking it
    :param backend: makes the backend, on the loop thread, once per loop
    :param render: makes the request of a launch, on the loop thread (see ``blocks``); called with the launch, and
        with its choice if it has one; raises :class:`~ecs_async_executor.core.errors.Rejected` if this launch
        cannot become one
    :param choices: returns the placements that a launch may choose from; raises likewise
    :param blocks: returns whether the other two may block for a launch: they are then called in a worker thread
    :param lacks: returns whether something about a launch has to be looked up before the others are called
    :param look_up: looks it up, in a worker thread; raises nothing, and never leaves it open
    :param condense: makes a launch smaller, on the loop thread, as soon as it is taken in
    :param max_attempts: containers that may be tried for one launch, as long as none of them started
    :param stall_timeout: seconds of silence of the scheduler after which nothing is launched; None: no limit
    :param endpoint: where to show what the engine does; None: nowhere
    :param last_words: reads what failed containers printed last, on the loop thread
    :param account_quotas: reads what the account of a destination may use, on the loop thread; None: nothing does
    :param events: makes the queues of events, by the names of their destinations, on the loop thread
    :param destinations: the names of those that launches can go to besides home
    :param monotonic: the clock, in seconds
    """

    def __init__(
        self,
        *,
        service: Service,
        backend: Callable[[], Backend],
        render: Callable[..., LaunchSpec],
        choices: Callable[[Launch], Choices] = no_choices,
        blocks: Callable[[Launch], bool] = never,
        lacks: Callable[[Launch], bool] = never,
        look_up: Callable[[Launch], object] = find_nothing,
        condense: Callable[[Launch], Launch] = as_it_is,
        tuning: Tuning,
        max_attempts: int,
        stall_timeout: float | None = None,
        endpoint: Endpoint | None = None,
        last_words: Reading = unread,
        account_quotas: ReadingQuotas | None = None,
        events: Callable[[], Mapping[str, EventQueue]] = dict,
        destinations: Iterable[str] = (),
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._event = service.event
        self._rendering = partial(
            Rendering, render, choices=choices, blocks=blocks, lacks=lacks, look_up=look_up, condense=condense
        )
        self._endpoint = endpoint
        self._last_words = last_words
        self._account_quotas = account_quotas
        self._events = events
        self._options = options = options_from(service, tuning, stall_timeout, destinations)
        self._monotonic = monotonic
        self._heartbeats = Heartbeats(stall_timeout, monotonic())
        self._inbox: deque[Command | Check] = deque()
        self._dead: deque[PostMortem] = deque()
        self.meters = Meters()
        self._statistics = Statistics(launch_rate=options.launch_rate(""))
        self.ledger = Ledger(rules_from(service, tuning, max_attempts))
        self.loop_thread = LoopThread(
            f"ecs-async-executor {service.name}",
            make_backend=backend,
            make_engine=self._make_engine,
            not_connected=self._not_connected,
            event=service.event,
            monotonic=monotonic,
        )

    # --- starting and stopping -------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the loop thread; it connects to AWS on its own time."""
        if self.loop_thread.state is State.NEW:
            self._heartbeats.begin(self._monotonic())
            self.loop_thread.start()

    def check(self, timeout: float) -> None:
        """
        Have the backend make its harmless call, and wait for the answer.

        :param timeout: seconds to wait at most
        :raises BackendError: if the call failed; anything else that kept the client from being made
        :raises TimeoutError: if there is no answer within ``timeout``
        """
        answer: Future[None] = Future()
        self._inbox.append(Check(answer))
        self.loop_thread.wake()
        try:
            answer.result(timeout)
        except FutureTimeoutError:
            answer.cancel()
            msg = f"no answer within {timeout:g} s"
            raise TimeoutError(msg) from None

    def stop(self, timeout: float, *, stop_containers: bool, reason: str) -> bool:
        """
        Stop the engine: no new launches, requests in flight get their answer, and owed stops are sent.

        Waits at most ``timeout``. Containers that could not be stopped are logged.

        :param timeout: seconds
        :param stop_containers: also stop every container
        :param reason: the words for those stops
        :returns: True if all of that was done in time
        """
        runs_here = self.loop_thread.state not in (State.NEW, State.FORKED)
        done = self.loop_thread.stop(timeout, lambda engine: engine.drain(reason if stop_containers else None))
        if not done:
            phases = [tracked.phase for tracked in list(self.ledger.launches.values())]
            log.warning(
                self._event("bridge.stop_incomplete"),
                launching=sum(isinstance(phase, Sending | InDoubt) for phase in phases),
                stops_owed=len(self.ledger.stops),
                timeout=timeout,
            )
        if runs_here:
            self._log_not_stopped()
        return done

    def _log_not_stopped(self) -> None:
        handles = [handle.id for handle in self.ledger.stops.handles()]
        for command in list(self._inbox):
            tracked = self.ledger.latest(command.launch_id) if isinstance(command, Stop) else None
            if tracked is not None and tracked.handle is not None:
                handles.append(tracked.handle.id)
        if handles:
            log.warning(
                self._event("bridge.not_stopped"), containers=len(handles), handles=handles[:NOT_STOPPED_LOGGED]
            )

    # --- the scheduler's calls -------------------------------------------------------------------------------

    def submit(self, command: Command) -> None:
        """Put a command into the inbox; it is read after the next :meth:`heartbeat`, or a second later."""
        self._inbox.append(command)

    def examine(self, dead: PostMortem) -> None:
        """Have the last lines of a container read some time after the next :meth:`heartbeat`, if ever."""
        self._dead.append(dead)

    def drain(self, apply: Callable[[Report], None], budget: float = 0.002) -> int:
        """
        Apply waiting reports, for ``budget`` seconds at most.

        A report leaves the outbox only after it was applied, so that an exception at any statement, SystemExit
        included, loses none; ``apply`` must tolerate to see a report twice.

        :returns: how many were applied
        """
        outbox = self.ledger.outbox
        until = self._monotonic() + budget
        applied = 0
        while outbox:
            try:
                apply(outbox[0])
            except Exception:
                # A bug of the caller: it has had this report, and must get the others.
                log.exception(self._event("report.not_applied"), report=type(outbox[0]).__name__)
            outbox.popleft()
            applied += 1
            if applied % REPORTS_PER_LOOK == 0 and self._monotonic() >= until:
                break
        return applied

    def is_silent(self) -> bool:
        """Return whether the last heartbeat is so old that nothing is launched until the next."""
        return self._heartbeats.is_silent(self._monotonic())

    def unstarted(self) -> set[str]:
        """Return the ids of the launches that can still need a container. Takes no lock."""
        return self.ledger.unstarted()

    def heartbeat(self, *, may_launch: bool = True) -> None:
        """
        Say that the scheduler is alive, look after the loop thread, and wake it.

        :param may_launch: False: after a silence, it is not known yet what another scheduler has adopted meanwhile
        """
        if self.loop_thread.state is not State.RUNNING:
            return
        now = self._monotonic()
        if may_launch:
            self._heartbeats.heartbeat(now)
        self.loop_thread.look_after(now)
        if self._inbox or self._dead:
            self.loop_thread.wake()

    def statistics(self) -> Statistics:
        """Return the latest snapshot, at most a second old while the loop is well. Takes no lock."""
        latest = self._statistics
        runs = self.loop_thread.state is State.RUNNING
        lag = max(latest.loop_lag, self.loop_thread.unserved_for() - 1.0)
        dead = runs and not self.loop_thread.is_alive()
        return replace(
            latest,
            pending=latest.pending + len(self._inbox),
            outbox=len(self.ledger.outbox),
            restarts=self.loop_thread.restarts,
            loop_lag=lag if runs else latest.loop_lag,
            paused="the loop thread is dead" if dead else latest.paused,
        )

    def shown_launches(self) -> list[dict[str, object]]:
        """Return what the engine knows of every launch that has not ended, for people. Takes no lock."""
        now = self._monotonic()
        return [shown(tracked, now) for tracked in list(self.ledger.launches.values())]

    # --- on the loop thread ----------------------------------------------------------------------------------

    def _make_engine(self, backend: Backend) -> Engine:
        return Engine(
            backend=backend,
            ledger=self.ledger,
            inbox=self._inbox,
            rendering=self._rendering(),
            options=self._options,
            meters=self.meters,
            heartbeat_age=lambda: self._heartbeats.age(self._monotonic()),
            silences=lambda: self._heartbeats.silences,
            publish=self._publish,
            endpoint=self._endpoint,
            statistics=self.statistics,
            dead=self._dead,
            last_words=self._last_words,
            account_quotas=self._account_quotas,
            events=self._events(),
            random_source=random.Random(),  # noqa: S311 - jitter
            event=self._event,
        )

    def _publish(self, statistics: Statistics) -> None:
        self._statistics = statistics
        self.loop_thread.served()

    def _not_connected(self, error: Exception) -> None:
        """Show why there is no client, and answer the checks in the inbox with it."""
        self._publish(replace(self._statistics, paused=f"no AWS client: {error}"))
        while self._inbox and isinstance(check := self._inbox[0], Check):
            self._inbox.popleft()
            if check.answer.set_running_or_notify_cancel():
                check.answer.set_exception(error)
