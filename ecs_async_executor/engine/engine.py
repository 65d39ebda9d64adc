"""
The engine: wires the lanes over one ledger and one backend, supervises them, and drains them.

May import ``core``, the other modules of ``engine`` but ``loop_thread`` and ``bridge``, anyio and structlog. It
runs on the loop thread and keeps nothing that has to survive the thread: the ledger belongs to the bridge.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping

import anyio
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.backend import Backend
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.events import Because, Demanded, LookInstead
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.listening import EventQueue, Hearing
from ecs_async_executor.core.messages import Command, PostMortem
from ecs_async_executor.core.phases import UNLOCATED, InDoubt, Released, Revoked
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.silence import SilenceWatch
from ecs_async_executor.engine.accounts import Accounts
from ecs_async_executor.engine.accounts import Reading as ReadingQuotas
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.dispatcher import Dispatcher
from ecs_async_executor.engine.intake import Check, Intake
from ecs_async_executor.engine.launching import Launching
from ecs_async_executor.engine.listening import Listening
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.options import Options
from ecs_async_executor.engine.pinging import Pinging
from ecs_async_executor.engine.polling import Polling, PollingLanes
from ecs_async_executor.engine.postmortems import PostMortems, Reading, unread
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.engine.searching import SearchLane
from ecs_async_executor.engine.statistics import Statistics
from ecs_async_executor.engine.status import Endpoint, Status
from ecs_async_executor.engine.status_server import StatusServer
from ecs_async_executor.engine.stopping import Stopping
from ecs_async_executor.engine.wakeup import IDLE, Wakeup, Wakeups

log = structlog.get_logger(__name__)

LANE_RESTART_DELAY = 1.0
DRAIN_INTERVAL = 0.1


class Engine:
    """
    The lanes over one ledger and one backend; :meth:`run` them once.

    :param inbox: commands, appended by other threads
    :param rendering: makes the requests of launches
    :param meters: what is counted and timed; they outlive this engine
    :param heartbeat_age: returns the seconds since the scheduler last called
    :param silences: returns how often the scheduler has called again after a silence
    :param publish: takes a snapshot each half second
    :param endpoint: where to show what the engine does; None: nowhere
    :param statistics: returns the latest snapshot, for that
    :param dead: containers whose last lines are to be read, appended by other threads
    :param last_words: reads the last lines of containers
    :param account_quotas: reads what the account of a destination may use, once; None: nothing is read
    :param events: the queues of events, by the names of their destinations
    :param wall: the wall clock
    :param random_source: all jitter
    :param event: makes the full name of a log event; see :meth:`~ecs_async_executor.core.backend.Service.event`
    """

    intake: Intake
    launching: Launching
    postmortems: PostMortems

    def __init__(
        self,
        *,
        backend: Backend,
        ledger: Ledger,
        inbox: deque[Command | Check],
        rendering: Rendering,
        options: Options,
        meters: Meters,
        heartbeat_age: Callable[[], float] = lambda: 0.0,
        silences: Callable[[], int] = lambda: 0,
        publish: Callable[[Statistics], None] = lambda _: None,
        endpoint: Endpoint | None = None,
        statistics: Callable[[], Statistics] = Statistics,
        dead: deque[PostMortem] | None = None,
        last_words: Reading = unread,
        account_quotas: ReadingQuotas | None = None,
        events: Mapping[str, EventQueue] | None = None,
        wall: Callable[[], float] = time.time,
        random_source: random.Random | None = None,
        event: Callable[[str], str] = "executor.{}".format,
    ) -> None:
        self._ledger = ledger
        self._inbox = inbox
        self._options = options
        self._publish = publish
        self._endpoint = endpoint
        self._statistics = statistics
        self._dead = deque() if dead is None else dead
        self._last_words = last_words
        self._account_quotas = account_quotas
        self._events = events or {}
        self._event = event
        self._wall = wall
        self._random = random_source or random.Random()  # noqa: S311 - jitter, not a secret
        self._rendering = rendering
        self._meters = meters
        self._silence = SilenceWatch(options.stall_timeout, heartbeat_age, silences)
        self._wakeups = Wakeups()
        self._dispatcher = Dispatcher(ledger, self._wakeups, event=event)
        self._backend = backend
        self._placements = Placements()
        self._quiet = Wakeup()
        self._draining = False
        self._stop_all: str | None = None

    # --- from the outside ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the inbox read. Call it on the loop."""
        self.intake.wake()
        self.postmortems.wake()

    def drain(self, stop_reason: str | None) -> None:
        """
        Launch nothing any more, and return from :meth:`run` once every request in flight has its answer.

        Before that, owed stops are sent, unless they are refused. Call it on the loop.

        :param stop_reason: also stop every container, with these words
        """
        self._draining = True
        self._stop_all = stop_reason
        self.intake.wake()
        self.launching.drain()
        self.postmortems.drain()
        self._quiet.set()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """
        Work until :meth:`drain` is called.

        :param started: called once the lanes can be woken
        """
        self._ledger.recover(loop_time())
        async with anyio.create_task_group() as tasks:
            pinging, lanes = self._wire(tasks)
            for name, lane in lanes:
                tasks.start_soon(self._supervise, name, lane, name=self._event(name))
            started()
            await self._drained()
            tasks.cancel_scope.cancel()
        pinging.ping()

    # --- inside ----------------------------------------------------------------------------------------------

    def _wire(self, tasks: TaskGroup) -> tuple[Pinging, list[tuple[str, Callable[[], Awaitable[None]]]]]:
        options, event = self._options, self._event
        ledger, dispatcher, wakeups = self._ledger, self._dispatcher, self._wakeups
        accounts = Accounts(self._account_quotas, (HOME, *options.destinations), event)
        destinations = Destinations(
            self._backend,
            options,
            self._meters,
            event=event,
            wall=self._wall,
            resumed=dispatcher.wake_lanes,
            accounts=accounts,
        )
        self.intake = Intake(
            inbox=self._inbox,
            ledger=ledger,
            rendering=self._rendering,
            session=destinations.home.session,
            dispatcher=dispatcher,
            tasks=tasks,
            wakeup=wakeups.intake,
            event=event,
        )
        self.launching = Launching(
            ledger=ledger,
            destinations=destinations,
            placements=self._placements,
            silence=self._silence,
            intake=self.intake,
            rendering=self._rendering,
            dispatcher=dispatcher,
            wall=self._wall,
            random_source=self._random,
            tasks=tasks,
            wakeup=wakeups.launching,
            answered=self._answered,
            meters=self._meters,
            event=event,
        )
        polling = PollingLanes(
            ledger=ledger,
            destinations=destinations,
            make=self._make_polling,
            listening=self._listening,
            supervise=self._supervise,
            tasks=tasks,
            event=event,
        )
        searching = SearchLane(
            ledger=ledger,
            destinations=destinations,
            rendering=self._rendering,
            dispatcher=dispatcher,
            tasks=tasks,
            wakeup=wakeups.searching,
            event=event,
        )
        stopping = Stopping(
            ledger=ledger,
            destinations=destinations,
            dispatcher=dispatcher,
            permission=options.stop_permission,
            random_source=self._random,
            tasks=tasks,
            wakeup=wakeups.stopping,
            answered=self._answered,
            event=event,
        )
        pinging = Pinging(
            ledger=ledger,
            destinations=destinations,
            placements=self._placements,
            silence=self._silence,
            launching=self.launching,
            rendering=self._rendering,
            meters=self._meters,
            publish=self._publish,
            event=self._event,
        )
        lanes: list[tuple[str, Callable[[], Awaitable[None]]]] = []
        if self._endpoint is not None:
            status = Status(
                endpoint=self._endpoint,
                ledger=ledger,
                destinations=destinations,
                placements=self._placements,
                statistics=self._statistics,
                wall=self._wall,
            )
            lanes.append(("status", StatusServer(self._endpoint, status, event).run))
        self.postmortems = PostMortems(
            waiting=self._dead,
            reading=self._last_words,
            outbox=ledger.outbox,
            wakeup=wakeups.postmortems,
            meters=self._meters,
            event=event,
        )
        return pinging, [
            *lanes,
            ("intake", self.intake.run),
            ("launching", self.launching.run),
            ("polling", polling.run),
            ("searching", searching.run),
            ("stopping", stopping.run),
            ("pinging", pinging.run),
            ("postmortems", self.postmortems.run),
            ("accounts", accounts.run),
        ]

    def _make_polling(self, destination: Destination) -> Polling:
        return Polling(
            ledger=self._ledger,
            destination=destination,
            placements=self._placements,
            dispatcher=self._dispatcher,
            poll_interval=self._options.poll_interval,
            wall=self._wall,
            random_source=self._random,
            meters=self._meters,
            event=self._event,
        )

    def _listening(self, destination: Destination) -> Callable[[], Awaitable[None]] | None:
        """Return what listens to the events of a destination, if it has a queue of them."""
        queue = self._events.get(destination.name)
        if queue is None:
            return None
        hearing = destination.hearing = Hearing(loop_time())
        return Listening(
            queue=queue,
            hearing=hearing,
            ledger=self._ledger,
            destination=destination,
            polling=self._make_polling(destination),
            meters=self._meters,
            event=self._event,
        ).run

    async def _supervise(self, name: str, lane: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await lane()
            except Exception:  # noqa: PERF203 - a lane ends once in a blue moon
                log.exception(self._event("engine.lane_failed"), lane=name)
                await anyio.sleep(LANE_RESTART_DELAY)
            else:
                return

    def _answered(self) -> None:
        if self._draining:
            self._quiet.set()

    async def _drained(self) -> None:
        while not self._draining or self._inbox:
            await self._quiet.wait_until(loop_time() + (DRAIN_INTERVAL if self._draining else IDLE))
        # Containers are stopped while requests are in flight: those to a destination that hangs can take long.
        self._revoke_all()
        while self.launching.in_flight or self._inbox:
            await self._quiet.wait_until(loop_time() + DRAIN_INTERVAL)
        self._revoke_all()
        now = loop_time()
        for tracked in list(self._ledger.unsettled.values()):
            if isinstance(tracked.phase, InDoubt) and isinstance(tracked.demand, Revoked):
                # Nothing is sent again from here on: search for it.
                self._dispatcher.dispatch(tracked, LookInstead(Because.DRAINING), now)
        # The caller bounds it. A refusal that a person may mend is not worth waiting for here.
        while self._ledger.stops.hopeful() or self._searches_for_what_to_stop():
            await self._quiet.wait_until(loop_time() + DRAIN_INTERVAL)

    def _revoke_all(self) -> None:
        """Have every container stopped, if that was asked for."""
        if self._stop_all is None:
            return
        now = loop_time()
        for tracked in list(self._ledger.launches.values()):
            # What is released in flight is another scheduler's.
            if not isinstance(tracked.demand, Revoked | Released):
                self._dispatcher.dispatch(tracked, Demanded(Revoked(self._stop_all, now)), now)

    def _searches_for_what_to_stop(self) -> bool:
        return any(
            isinstance(tracked.phase, UNLOCATED) and isinstance(tracked.demand, Revoked)
            for tracked in self._ledger.unsettled.values()
        )
