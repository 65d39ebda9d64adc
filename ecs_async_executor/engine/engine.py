"""
The loops: take commands in, launch, poll, look up, stop. All I/O goes through a ``Backend``.

May import the pure modules, ``backend``, anyio and structlog. The engine runs on the loop thread and keeps
nothing that has to survive it: the ledger belongs to the bridge. Every change of a record happens in
:meth:`~ecs_async_executor.core.ledger.Ledger.dispatch`, and never across an await.
"""

from __future__ import annotations

import math
import random
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread
import structlog

from ecs_async_executor.core import lifecycle
from ecs_async_executor.core.backend import Backend, Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.gates import Gate, Gates
from ecs_async_executor.core.ledger import Lane, Ledger, StopRequest
from ecs_async_executor.core.lifecycle import Phase, Record
from ecs_async_executor.core.limiter import Limiter, PollPacer
from ecs_async_executor.core.messages import Adopt, Command, Finished, Launch, Notice

log = structlog.get_logger(__name__)

T = TypeVar("T")

RENDERS_PER_YIELD = 16
"""Rendering takes some hundred microseconds each; so many in a row at most, then other tasks get their turn."""
STOP_CONCURRENCY = 8
FIND_CONCURRENCY = 256
"""Searches mostly wait for a listing that they share; how fast they may begin is the read budget's business."""
STOP_TRIES = 6
"""So many refusals (for its rights, or its form) end a stop whose container nothing is known of any more."""
STOP_DELAY_MAX = 60.0
APART_AGAIN_SECONDS = 60.0
GATE_FORGOTTEN_SECONDS = 60.0
YOUNG_SECONDS = 120.0
UNANSWERED_SECONDS = 60.0
"""After so long without an answer to any launch no more is taken from the scheduler, and nothing given back."""
PING_INTERVAL = 0.5
IDLE = 3600.0
"""Nothing is due: sleep until something is said. Bounded only so that a lost wake-up cannot last for ever."""
LANE_RESTART_DELAY = 1.0
SILENT = "the scheduler does not call the executor"
"""Why a scheduler's launches wait: it is no reason not to take more, as it calls with the next heartbeat."""
_WAITS_FOR = {
    Kind.REFUSED: "refuses it",
    Kind.CAPACITY: "has no capacity for it",
    Kind.AMBIGUOUS: "gives no answer",
}
_UNDECIDED = (Kind.AMBIGUOUS, Kind.THROTTLED, Kind.CONCURRENT)
"""Errors that do not tell if the credentials are good."""


@dataclass(frozen=True, slots=True)
class Check:
    """Command of the bridge's own: call :meth:`Backend.check` and say how it went."""

    answer: Future[None]


@dataclass(frozen=True, slots=True)
class Options:
    """
    How the engine works. Rates are calls per second, times seconds.

    :param launch_rate: rate to start with, by bucket
    :param change_rate: launches and stops together
    :param gently: begin below the launch rate: it is a guess, and others may start at the same time
    :param stall_timeout: launch nothing once the scheduler has been silent for so long; None: do not watch
    :param render_in_thread: rendering runs user code, which may block
    :param stop_permission: see :class:`~ecs_async_executor.core.backend.Service`
    """

    launch_rate: Callable[[str], float]
    launch_burst: float
    launch_rate_max: float
    max_concurrent_launches: int
    max_concurrent_describes: int
    describe_rate: float
    describe_burst: float
    poll_interval: float
    change_rate: float
    change_burst: float
    gently: bool = False
    stall_timeout: float | None = None
    render_in_thread: bool = False
    stop_permission: str = ""


@dataclass(frozen=True, slots=True)
class Statistics:
    """
    A snapshot of the engine. Counts are of launches, times in seconds, totals since ``start()``.

    :param pending: waiting for a container, those not yet taken in included
    :param launching: requests in flight
    :param ambiguous: of the pending ones, those whose request may have been carried out
    :param unresolved: adopted, being looked up
    :param active: have a container
    :param stopping: stop requests that are still owed
    :param oldest_pending_age: how long the oldest pending one has waited
    :param launch_rate: launches per second that the limits allow at present
    :param paused: why nothing can be launched at all, or None
    :param closed_gates: placements that wait for capacity or for a refusal to be mended
    :param api_latency_p50: of the latest calls; None before the first
    :param loop_lag: how late the loop served its latest timer
    :param outbox: reports that the executor has not taken yet
    """

    pending: int = 0
    launching: int = 0
    ambiguous: int = 0
    unresolved: int = 0
    active: int = 0
    stopping: int = 0
    oldest_pending_age: float = 0.0
    launch_rate: float = 0.0
    paused: str | None = None
    closed_gates: int = 0
    launches: int = 0
    throttles: int = 0
    api_calls: int = 0
    api_errors: int = 0
    api_latency_p50: float | None = None
    api_latency_p95: float | None = None
    loop_lag: float = 0.0
    restarts: int = 0
    outbox: int = 0


@dataclass(slots=True)
class Counters:
    """Totals that outlive the loop thread."""

    launches: int = 0
    api_calls: int = 0
    api_errors: int = 0
    throttles: int = 0


class Kick:
    """An event that is set from many places and waited for in one, with a deadline."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """Wake whoever waits, now or next."""
        self._event.set()

    async def wait_until(self, deadline: float) -> None:
        """Wait until kicked, or until the loop's clock shows ``deadline``."""
        with anyio.CancelScope(deadline=min(deadline, anyio.current_time() + IDLE)):
            await self._event.wait()
        if self._event.is_set():
            self._event = anyio.Event()


class Engine:
    """
    The loops over one ledger and one backend; :meth:`run` them once.

    :param inbox: commands, appended by other threads
    :param render: makes a request of a launch; raises :class:`~ecs_async_executor.core.errors.Rejected`
    :param beat_age: seconds since the scheduler last called
    :param silences: how often it has called again after longer than it may be silent for
    :param event: makes the whole name of a log event; see :meth:`~ecs_async_executor.core.backend.Service.event`
    """

    def __init__(
        self,
        *,
        backend: Backend,
        ledger: Ledger,
        inbox: deque[Command | Check],
        render: Callable[[Launch], LaunchSpec],
        options: Options,
        counters: Counters,
        beat_age: Callable[[], float] = lambda: 0.0,
        silences: Callable[[], int] = lambda: 0,
        publish: Callable[[Statistics], None] = lambda _: None,
        wall: Callable[[], float] = time.time,
        random_source: random.Random | None = None,
        event: Callable[[str], str] = "executor.{}".format,
    ) -> None:
        self._backend = backend
        self._ledger = ledger
        self._inbox = inbox
        self._render = render
        self._options = options
        self._counters = counters
        self._beat_age = beat_age
        self._silences = silences
        self._silences_seen = 0
        self._silent = False
        self._publish = publish
        self._wall = wall
        self._event = event
        self._random = random_source or random.Random()  # noqa: S311 - jitter, not a secret
        self._gates = Gates()
        self._closed_for: dict[str, tuple[Kind, float]] = {}
        self._swept_lanes_at = -math.inf
        self._gate_needed_at: dict[str, float] = {}
        self._gates_looked_at = -math.inf
        self._buckets: set[str] = set()
        self._credentials = Gate(5.0, 30.0)
        self._pacer = PollPacer(options.poll_interval)
        self._polled = 0
        self._latencies: deque[float] = deque(maxlen=256)
        self._sending = 0
        self._stopping = 0
        self._draining = False
        self._stop_all: str | None = None
        self._read_refusal_logged = -math.inf
        self._apart_at: defaultdict[str, float] = defaultdict(lambda: -math.inf)
        self._untaken: set[Handle] = set()
        self._lag = 0.0
        self._unanswered_since: float | None = None
        self._render_seconds = 0.0

    # --- from the outside ------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the inbox read. Call it on the loop."""
        self._intake.set()

    def drain(self, stop_reason: str | None) -> None:
        """
        Launch nothing any more, and return from :meth:`run` once what is in flight has its answer.

        Before that, owed stops are made, unless they are refused. Call it on the loop.

        :param stop_reason: also stop every container, with these words
        """
        self._draining = True
        self._stop_all = stop_reason
        for kick in (self._intake, self._launch_kick, self._quiet):
            kick.set()

    async def run(self, started: Callable[[], None] = lambda: None) -> None:
        """
        Work until :meth:`drain` is called.

        :param started: called once the loops can be woken
        """
        now = anyio.current_time()
        options = self._options
        self._limiter = Limiter(
            launch_rate=options.launch_rate,
            launch_burst=options.launch_burst,
            launch_rate_max=options.launch_rate_max,
            read_rate=options.describe_rate,
            read_burst=options.describe_burst,
            modify_rate=options.change_rate,
            modify_burst=options.change_burst,
            gently=options.gently,
            now=now,
        )
        self._intake, self._launch_kick, self._stop_kick = Kick(), Kick(), Kick()
        self._look_up_kick, self._quiet = Kick(), Kick()
        self._describes = anyio.CapacityLimiter(options.max_concurrent_describes)
        self._finds = anyio.CapacityLimiter(FIND_CONCURRENCY)
        self._render_thread = anyio.CapacityLimiter(1)
        self._ledger.recover(now)
        async with anyio.create_task_group() as self._tasks:
            for name, lane in (
                ("intake", self._take_commands),
                ("launch", self._launch),
                ("poll", self._poll),
                ("poll_young", self._poll_young),
                ("look_up", self._look_up),
                ("stop", self._stop),
                ("ping", self._ping),
            ):
                self._tasks.start_soon(self._supervise, name, lane, name=self._event(name))
            started()
            await self._drained()
            self._tasks.cancel_scope.cancel()
        self._publish(self._statistics())

    async def _drained(self) -> None:
        while not self._draining or self._sending or self._inbox:
            await self._quiet.wait_until(anyio.current_time() + (0.1 if self._draining else IDLE))
        now = anyio.current_time()
        for record in list(self._ledger.records.values()):
            if record.stop_reason is None and self._stop_all is not None:
                self._dispatch(record, lifecycle.StopWanted(self._stop_all), now)
            if record.phase is Phase.AMBIGUOUS and record.stop_reason is not None:
                self._dispatch(record, lifecycle.WindowOver(), now)  # nothing is sent any more: look for it
        # The caller bounds it. A refusal that somebody mends is not worth waiting for here.
        while self._ledger.stops.hopeful() or self._looks_for_what_to_stop():
            await self._quiet.wait_until(anyio.current_time() + 0.1)

    def _looks_for_what_to_stop(self) -> bool:
        return any(
            record.phase is Phase.UNRESOLVED and record.stop_reason is not None
            for record in self._ledger.unsettled.values()
        )

    async def _supervise(self, name: str, lane: Callable[[], Awaitable[None]]) -> None:
        while True:
            try:
                await lane()
            except Exception:  # noqa: PERF203 - a lane ends once in a blue moon
                log.exception(self._event("engine.lane_failed"), lane=name)
                await anyio.sleep(LANE_RESTART_DELAY)
            else:
                return

    # --- shared ----------------------------------------------------------------------------------------------

    def _dispatch(self, record: Record, event: lifecycle.Event, now: float) -> None:
        """Let an event happen, and wake whom it may concern."""
        self._apply(record, event, now)
        self._kick_all()

    def _apply(self, record: Record, event: lifecycle.Event, now: float) -> None:
        """Let an event happen; a bug in doing so fails this launch and no other."""
        try:
            self._ledger.dispatch(record, event, now)
        except Exception as error:
            log.exception(self._event("engine.event_failed"), workload=str(record.launch))
            self._ledger.abandon(record, f"Internal error of the executor: {type(error).__name__}", now)

    def _kick_all(self) -> None:
        # A lane that is woken for nothing costs as much as a launch's bookkeeping.
        if self._ledger.has_queued():
            self._launch_kick.set()
        if self._ledger.next_look_up() is not None:
            self._look_up_kick.set()
        if self._ledger.stops:
            self._stop_kick.set()

    async def _call(self, operation: Awaitable[T]) -> T:
        """
        Await one call of the backend's, and keep the books on it.

        :raises BackendError: as the backend does; for any other exception, one that says there was no answer
        """
        counters = self._counters
        counters.api_calls += 1
        start = anyio.current_time()
        try:
            result = await operation
        except BackendError as error:
            counters.api_errors += 1
            if error.kind is Kind.THROTTLED:
                counters.throttles += 1
            if error.kind is Kind.CREDENTIALS:
                self._pause(error)
            elif error.kind in _UNDECIDED:
                self._credentials.undecided(anyio.current_time())
            else:
                self._resume()  # whoever is told why not is known
            raise
        except Exception as error:
            counters.api_errors += 1
            self._credentials.undecided(anyio.current_time())
            log.exception(self._event("backend.unexpected_error"))
            raise BackendError(Kind.AMBIGUOUS, type(error).__name__, "unexpected error, see the log") from error
        else:
            self._resume()
            return result
        finally:
            self._latencies.append(anyio.current_time() - start)

    def _pause(self, error: BackendError) -> None:
        if self._credentials.is_open:
            log.error(self._event("credentials.paused"), code=error.code, reason=error.message)
        self._credentials.refused(anyio.current_time(), str(error))

    def _resume(self) -> None:
        paused = not self._credentials.is_open
        self._credentials.succeeded()
        if paused and self._credentials.is_open:
            log.info(self._event("credentials.resumed"))
            self._kick_all()

    def _may_call(self, now: float) -> bool:
        """Tell if credentials allow a call; while they are missing, the call that may go is the probe."""
        if not self._credentials.may_pass(now):
            return False
        self._credentials.probe_started(now)
        return True

    # --- commands --------------------------------------------------------------------------------------------

    async def _take_commands(self) -> None:
        inbox = self._inbox
        while True:
            taken = 0
            while inbox:
                # The command stays in the inbox until it is in the ledger: a thread that dies here loses nothing.
                self._take(inbox[0])
                inbox.popleft()
                taken += 1
                if taken % 256 == 0:
                    self._kick_all()
                    await anyio.lowlevel.checkpoint()
            if taken:
                self._kick_all()
            await self._intake.wait_until(anyio.current_time() + 1.0)

    def _take(self, command: Command | Check) -> None:
        if isinstance(command, Check):
            self._tasks.start_soon(self._check, command)
            return
        try:
            self._ledger.command(command, anyio.current_time())
        except Exception as error:
            log.exception(self._event("engine.command_failed"), command=type(command).__name__)
            launch = command.launch if isinstance(command, Adopt) else command
            record = self._ledger.records.get(launch.launch_id)
            reason = f"Internal error of the executor: {type(error).__name__}"
            if record is not None:
                self._ledger.abandon(record, reason, anyio.current_time())
            elif isinstance(launch, Launch):
                self._ledger.outbox.append(
                    Finished(launch.launch_id, launch.key, success=False, reason=reason, notable=True)
                )

    async def _check(self, check: Check) -> None:
        if not check.answer.set_running_or_notify_cancel():
            return  # nobody waits any more
        try:
            await self._call(self._backend.check())
        except BackendError as error:
            check.answer.set_exception(error)
        else:
            check.answer.set_result(None)

    # --- launching -------------------------------------------------------------------------------------------

    async def _launch(self) -> None:
        rendered = 0
        while not self._draining:
            now = anyio.current_time()
            self._ledger.advance(now)
            lane, wake_at = self._next_lane(now)
            if lane is None:
                await self._launch_kick.wait_until(wake_at)
                continue
            record = self._ledger.head(lane)
            assert record is not None
            self._ledger.pop(lane)
            try:
                await self._launch_one(record)
            except Exception as error:
                log.exception(self._event("launch.failed"), workload=str(record.launch))
                reason = f"Internal error of the executor: {type(error).__name__}"
                self._ledger.abandon(record, reason, anyio.current_time())
            rendered += 1
            if rendered % RENDERS_PER_YIELD == 0:
                await anyio.lowlevel.checkpoint()

    def _next_lane(self, now: float) -> tuple[Lane | None, float]:
        """Return the lane with the most urgent launch that may be sent now, or when to look again."""
        ledger = self._ledger
        wake_at = min(ledger.next_delayed() or math.inf, now + IDLE)
        if self._notes_silence():
            # Another scheduler may be adopting what this one still holds: it must not launch behind its back.
            if self._stalled():
                return None, now + 1.0
            if self._inbox:  # says what the other has adopted
                self._intake.set()
                return None, now + 1.0
            self._doubt(now)
            self._silent = False
        if not self._credentials.may_pass(now):
            return None, self._credentials.next_probe_at or wake_at
        if self._sending >= self._options.max_concurrent_launches:
            return None, wake_at  # a reply kicks
        self._look_after_closed_lanes(now)
        lanes = list(ledger.lanes.values())
        self._limiter.launches_waiting(sum(len(lane.heap) for lane in lanes))
        best: Lane | None = None
        for lane in lanes:
            if ledger.head(lane) is None:
                ledger.drop_lane(lane)
                continue
            if lane.placement is not None and lane.bucket is not None:
                gate = self._gates[lane.placement]
                if not gate.may_pass(now):
                    wake_at = min(wake_at, gate.next_probe_at or wake_at, now + 1.0)
                    continue
                ready_at = self._limiter.launch_ready_at(lane.bucket, now)
                if ready_at > now:
                    wake_at = min(wake_at, ready_at)
                    continue
            if best is None or lane.heap[0] < best.heap[0]:
                best = lane
        return best, wake_at

    def _doubt(self, now: float) -> None:
        """Look for what was held while the scheduler was silent, where no token makes sending it harmless."""
        repeatable = self._ledger.rules.repeatable
        for record in list(self._ledger.unsettled.values()):
            if not (repeatable and record.launch.tokened):
                self._apply(record, lifecycle.Doubted(), now)
        self._kick_all()

    def _notes_silence(self) -> bool:
        """Tell if the scheduler is silent, or was and what it held has not been looked after yet."""
        stalled = self._stalled()
        silences = self._silences()  # read after that: it is told of first
        if stalled or silences != self._silences_seen:
            self._silences_seen = silences
            self._silent = True
        return self._silent

    def _stalled(self) -> bool:
        return self._options.stall_timeout is not None and self._beat_age() > self._options.stall_timeout

    def _look_after_closed_lanes(self, now: float) -> None:
        """Tell those who wait at a closed gate why, and end the wait of those who waited for long enough."""
        if not len(self._gates) or now < self._swept_lanes_at + 1.0:
            return
        self._swept_lanes_at = now
        rules = self._ledger.rules
        for lane in list(self._ledger.lanes.values()):
            if lane.placement is None or (gate := self._gates[lane.placement]).closed_since is None:
                continue
            kind, since = self._closed_for.get(lane.placement, (Kind.CAPACITY, gate.closed_since))
            refused = kind is Kind.REFUSED
            limit = rules.permanent_error_grace if refused else rules.capacity_timeout
            about = _topic(gate.reason, refused=refused)
            for record in self._ledger.queued(lane):
                self._notice(record, gate.reason, about, kind)
                # Only answers count: what was not tried again since the last one can have been mended.
                if refused:
                    waited = gate.refused_at - max(since, record.waiting_since)
                else:
                    # What room there is now and then, others get: it counts for who has got none.
                    begun = max(gate.closed_since, record.waiting_since, record.short_until)
                    if gate.refused_at > begun:
                        record.short_for += gate.refused_at - begun
                        record.short_until = gate.refused_at
                    waited = record.short_for
                if lifecycle.is_window_over(record, now, rules):
                    self._dispatch(record, lifecycle.WindowOver(), now)  # whoever is before it may be so for hours
                elif limit is not None and waited >= limit:
                    what = "refused" if refused else "had no capacity for"
                    reason = f"{rules.service} {what} the container for {waited:.0f} s: {gate.reason}"
                    self._dispatch(record, lifecycle.GaveUp(reason), now)

    def _forget_gates(self, now: float) -> None:
        """Forget the closed gates at which nobody has waited for a minute: no probe would ever open them."""
        if not len(self._gates) or now < self._gates_looked_at + GATE_FORGOTTEN_SECONDS / 4.0:
            return
        self._gates_looked_at = now
        ledger = self._ledger
        needed = {record.placement for record in ledger.unsettled.values()}
        # Who has never been rendered is where others like it were, and has no placement of its own yet.
        needed |= {lane.placement for lane in ledger.lanes.values() if ledger.head(lane) is not None}
        for placement in self._gates:
            if placement in needed:
                self._gate_needed_at[placement] = now
            elif now >= self._gate_needed_at.setdefault(placement, now) + GATE_FORGOTTEN_SECONDS:
                self._gates.forget(placement)
                self._closed_for.pop(placement, None)
                log.info(self._event("gate.forgotten"), placement=placement)
        closed = set(self._gates)
        self._gate_needed_at = {name: at for name, at in self._gate_needed_at.items() if name in closed}

    def _notice(self, record: Record, reason: str, about: str, kind: Kind) -> None:
        if not lifecycle.is_to_be_told(record, about):
            return
        launch = record.launch
        service = self._ledger.rules.service
        text = f"The container waits: {service} {_WAITS_FOR[kind]}: {reason}"
        notice = Notice(launch.launch_id, launch.key, "container waits", text, unlaunched=True)
        self._ledger.outbox.append(notice)

    async def _launch_one(self, record: Record) -> None:
        now = anyio.current_time()
        if lifecycle.is_window_over(record, now, self._ledger.rules):
            self._dispatch(record, lifecycle.WindowOver(), now)
            return
        ticket = record.ticket
        spec = record.spec
        if spec is None or (spec.expires_at is not None and spec.expires_at < self._wall() + 60.0):
            try:
                spec = await self._rendered(record.launch)
            except Rejected as rejected:
                self._unrenderable(record, ticket, rejected.reason)
                return
            except Exception as error:
                log.exception(self._event("launch.render_failed"), workload=str(record.launch))
                reason = f"The request could not be built: {type(error).__name__}"
                self._unrenderable(record, ticket, reason)
                return
            now = anyio.current_time()
            if not _is_still_to_be_sent(record, ticket):
                return  # revoked or superseded while user code ran
            if record.spec is not None and record.spec.scope != spec.scope:
                # A token holds at one place: where the first request may have been carried out is looked.
                self._dispatch(record, lifecycle.WindowOver(), now)
                return
        self._ledger.learn_route(record, spec.placement, spec.bucket)
        self._buckets.add(spec.bucket)
        gate = self._gates[spec.placement]
        if (
            self._draining
            or self._notes_silence()
            or not gate.may_pass(now)
            or self._limiter.launch_ready_at(spec.bucket, now) > now
            or not self._may_call(now)
        ):
            self._ledger.requeue(record, now)
            return
        self._limiter.take_launch(spec.bucket, now)
        gate.probe_started(now)
        self._apply(record, lifecycle.Sending(spec), now)
        if record.phase is not Phase.SENDING:
            return  # a bug has ended it
        self._sending += 1
        self._tasks.start_soon(self._send, record, spec, gate, not gate.is_open)

    def _unrenderable(self, record: Record, ticket: int, reason: str) -> None:
        if _is_still_to_be_sent(record, ticket):  # user code may have taken its time, too
            self._dispatch(record, lifecycle.Unrenderable(reason), anyio.current_time())

    async def _rendered(self, launch: Launch) -> LaunchSpec:
        if not self._options.render_in_thread:
            return self._render(launch)
        async with self._render_thread:
            begun = anyio.current_time()
            try:
                return await anyio.to_thread.run_sync(self._render, launch, abandon_on_cancel=True)
            finally:
                # User code can be slower than any of the limits, and it is made one after the other.
                self._render_seconds += 0.1 * (anyio.current_time() - begun - self._render_seconds)

    async def _send(self, record: Record, spec: LaunchSpec, gate: Gate, probes: bool) -> None:  # noqa: FBT001
        try:
            observation = await self._call(self._backend.launch(spec, record.token))
        except BackendError as error:
            self._launch_refused(record, spec, gate, error, probes=probes)
        else:
            now = anyio.current_time()
            self._unanswered_since = None
            self._limiter.launch_succeeded(spec.bucket)
            if probes:
                gate.succeeded()
                log.info(self._event("gate.opened"), placement=spec.placement)
                self._closed_for.pop(spec.placement, None)
            self._counters.launches += 1
            self._dispatch(record, lifecycle.Replied(observation), now)
            if record.phase is Phase.DONE and record.handle is None:
                # A bug has ended it, and it was told to have failed: what runs must not.
                self._ledger.stops.add(StopRequest(record, observation.handle, "Internal error of the executor"))
                self._stop_kick.set()
        finally:
            self._sending -= 1
            if self._ledger.has_queued():
                self._launch_kick.set()
            if self._draining:
                self._quiet.set()

    def _launch_refused(
        self, record: Record, spec: LaunchSpec, gate: Gate, error: BackendError, *, probes: bool
    ) -> None:
        now = anyio.current_time()
        if error.kind is not Kind.AMBIGUOUS:
            self._unanswered_since = None
        elif self._unanswered_since is None:
            self._unanswered_since = now
        if error.kind in (Kind.CAPACITY, Kind.REFUSED):
            if gate.is_open:
                log.warning(
                    self._event("gate.closed"),
                    placement=spec.placement,
                    code=error.code,
                    reason=error.message,
                )
            # One that left before the gate closed says nothing about the probe that may be out.
            if probes or gate.is_open:
                known, _ = self._closed_for.get(spec.placement, (None, now))
                if gate.is_open or known is not error.kind:
                    self._closed_for[spec.placement] = (error.kind, now)
                gate.refused(now, str(error))
                record.probed += probes  # what is refused may be about this one: the next probe is another
            refused = error.kind is Kind.REFUSED
            self._notice(record, str(error), _topic(str(error), refused=refused), error.kind)
        else:
            if probes:
                gate.undecided(now)
            if error.kind is Kind.THROTTLED:
                self._limiter.launch_throttled(spec.bucket, now)
            if self._is_unanswered(now):
                self._notice(record, str(error), "no answer", Kind.AMBIGUOUS)
            log.debug(self._event("launch.no_container"), kind=error.kind.value, code=error.code)
        self._dispatch(record, lifecycle.Refused(error, self._random.random()), now)

    # --- polling ---------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        while True:
            started_at = anyio.current_time()
            self._polled = await self._sweep_all(self._ledger.active.values())
            await anyio.sleep_until(started_at + self._interval(self._polled))

    async def _poll_young(self) -> None:
        """
        Look more often at what has begun lately, where a whole sweep takes long.

        Most containers end young. They get as much of the read budget as whole sweeps.
        """
        while True:
            started_at = anyio.current_time()
            calls = 0
            if self._interval(self._polled) > 2.0 * self._options.poll_interval:
                calls = await self._sweep_all(self._ledger.active_since(started_at - YOUNG_SECONDS))
            await anyio.sleep_until(started_at + self._interval(calls))

    def _interval(self, calls: int) -> float:
        return self._pacer.interval(calls, self._limiter.read_rate)

    async def _sweep_all(self, records: Iterable[Record]) -> int:
        """Describe so many containers; return how many calls that took."""
        batches = list(self._batches(records))
        async with anyio.create_task_group() as sweep:
            for scope, batch in batches:
                await self._read_token()
                await self._describes.acquire_on_behalf_of(batch)
                sweep.start_soon(self._sweep, scope, batch)
        return len(batches)

    def _batches(self, records: Iterable[Record]) -> Iterable[tuple[str, _Group]]:
        by_scope: defaultdict[str, list[Record]] = defaultdict(list)
        for record in records:
            if record.handle is not None:
                by_scope[record.handle.scope].append(record)
        for scope, members in by_scope.items():
            for batch in self._in_batches(members):
                yield scope, _Group(batch)

    async def _read_token(self) -> None:
        while not self._limiter.take_read(now := anyio.current_time()):  # noqa: ASYNC110 - time is the event
            await anyio.sleep_until(self._limiter.read_ready_at(now))

    async def _sweep(self, scope: str, batch: _Group) -> None:
        try:
            by_id: defaultdict[str, list[Record]] = defaultdict(list)
            for record in batch.records:
                if record.handle is not None:
                    by_id[record.handle.id].append(record)
            observations = await self._described(scope, list(by_id))
            now, news = anyio.current_time(), False
            for observation in observations:
                for record in by_id.get(observation.handle.id, ()):
                    if (
                        record.phase is Phase.ACTIVE
                        and record.handle == observation.handle
                        and lifecycle.is_news(record, observation)
                    ):
                        news = True
                        self._apply(record, lifecycle.Observed(observation, self._random.random()), now)
            if news:
                self._kick_all()
        finally:
            self._describes.release_on_behalf_of(batch)

    async def _described(
        self, scope: str, ids: Sequence[str], refusal: list[str] | None = None
    ) -> Sequence[Observation]:
        """
        Describe containers; nothing comes back if the service gave no answer, and another sweep will ask.

        :param refusal: gets the service's words if it refuses to answer, or ours if an answer cannot be read
        """
        if not self._may_call(anyio.current_time()):
            return ()
        try:
            observations = await self._call(self._backend.describe(scope, ids))
        except BackendError as error:
            if error.kind is Kind.INVALID and (told := await self._described_apart(scope, ids)):
                return told
            self._read_refused(error, "describe", scope)
            if refusal is not None and error.kind in (Kind.REFUSED, Kind.INVALID):
                refusal.append(str(error))
            if error.kind is not Kind.INVALID:
                return ()
            return [_not_taken(handle) for one in ids if (handle := Handle(scope, one)) in self._untaken]
        self._limiter.read_succeeded()
        if refusal is not None and len(observations) < len(ids):
            refusal.append("the record of a container cannot be read")
        return observations

    async def _described_apart(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Describe containers of which one may have an identifier that the service does not take for one.

        That it is the identifier is believed only if another is answered; if none is, it is the call that is
        refused, and to try it in parts takes so many calls that it has to wait.
        """
        if len(ids) == 1 or anyio.current_time() < self._apart_at[scope]:
            return ()
        self._apart_at[scope] = math.inf  # one at a time
        told: list[Observation] = []
        untaken: list[str] = []
        try:
            await self._describe_halves(scope, ids, told, untaken)
        finally:
            self._apart_at[scope] = -math.inf if told else anyio.current_time() + APART_AGAIN_SECONDS
        if told:
            handles = [Handle(scope, one) for one in untaken]
            self._untaken.update(handles)  # it may be asked for alone the next time
            told += map(_not_taken, handles)
        return told

    async def _describe_halves(
        self, scope: str, ids: Sequence[str], told: list[Observation], untaken: list[str]
    ) -> None:
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            await self._read_token()
            try:
                told += await self._call(self._backend.describe(scope, half))
            except BackendError as error:
                if error.kind is not Kind.INVALID:
                    self._read_refused(error, "describe", scope)
                elif len(half) == 1:
                    untaken += half
                else:
                    await self._describe_halves(scope, half, told, untaken)

    def _read_refused(self, error: BackendError, operation: str, scope: str) -> None:
        now = anyio.current_time()
        if error.kind is Kind.THROTTLED:
            self._limiter.read_throttled(now)
        elif error.kind is not Kind.CREDENTIALS and now >= self._read_refusal_logged + 60.0:
            # Nothing is decided by it: containers run on, and their ends are seen once it answers again.
            self._read_refusal_logged = now
            log.warning(
                self._event("read.failed"),
                operation=operation,
                scope=scope,
                code=error.code,
                reason=error.message,
            )

    # --- looking up ------------------------------------------------------------------------------------------

    async def _look_up(self) -> None:
        while True:
            if due := self._ledger.due_look_ups(anyio.current_time()):
                # Not one batch after the other: a hook may take its time over one of them.
                self._tasks.start_soon(self._look_batch_up, due)
            del due  # there can be thousands, and the next wait can be long
            await self._look_up_kick.wait_until(self._ledger.next_look_up() or math.inf)

    async def _look_batch_up(self, due: Sequence[Record]) -> None:
        tickets = [record.ticket for record in due]
        try:
            await self._look_all_up(due)
        except Exception:
            log.exception(self._event("engine.lane_failed"), lane="look_up")
        finally:
            at = anyio.current_time() + self._ledger.rules.relook_after
            for record, ticket in zip(due, tickets, strict=True):
                if record.phase is Phase.UNRESOLVED and record.ticket == ticket:
                    self._ledger.look_up_again(record, at)
            self._look_up_kick.set()

    async def _look_all_up(self, due: Sequence[Record]) -> None:
        known: defaultdict[str, dict[str, list[Record]]] = defaultdict(dict)
        marked: list[Record] = []
        for record in due:
            if record.lookup is None:
                marked.append(record)
            else:
                known[self._backend.scope_of(record.lookup)].setdefault(record.lookup, []).append(record)
        async with anyio.create_task_group() as lookers:
            for scope, by_id in known.items():
                for ids in self._in_batches(list(by_id)):
                    await self._read_token()
                    lookers.start_soon(self._resolve_known, scope, {i: by_id[i] for i in ids})
            for record in marked:
                await self._read_token()
                lookers.start_soon(self._resolve_marked, record)

    def _in_batches(self, members: Sequence[T]) -> Iterable[Sequence[T]]:
        size = self._backend.describe_batch
        for start in range(0, len(members), size):
            yield members[start : start + size]

    async def _resolve_known(self, scope: str, by_id: dict[str, list[Record]]) -> None:
        refusal: list[str] = []
        async with self._describes:
            observations = {o.handle.id: o for o in await self._described(scope, list(by_id), refusal)}
        now = anyio.current_time()
        for handle_id, records in by_id.items():
            for record in records:
                if handle_id in observations:
                    self._resolved(record, lifecycle.Resolved(observations[handle_id]), now)
                else:
                    self._not_resolved(record, refusal, now, Handle(scope, handle_id))

    async def _resolve_marked(self, record: Record) -> None:
        """Find the container that carries a launch's mark."""
        sought, unknown = (record.sought, None) if record.sought is not None else await self._sought(record)
        if sought.mark is None:
            # The user's own mark: there is nothing to find it by.
            self._resolved(record, lifecycle.Resolved(None), anyio.current_time())
            return
        refusal: list[str] = []
        async with self._finds:
            found = await self._found(sought.scope, sought.mark, record.past, refusal)
        if found is None:
            self._not_resolved(record, refusal, anyio.current_time())
            return
        found = [o for o in found if not self._ledger.is_a_later_ones(record, o)]
        chosen = lifecycle.choose(record, found, self._ledger.rules)
        event: lifecycle.Resolved | lifecycle.LookUpRefused = lifecycle.Resolved(chosen)
        if chosen is None and unknown is not None:
            event = lifecycle.LookUpRefused(unknown, place_unknown=True)  # a guess that led nowhere proves nothing
        self._resolved(record, event, anyio.current_time())

    async def _sought(self, record: Record) -> tuple[lifecycle.Sought, str | None]:
        """
        Say where the container of another scheduler's launch is, as far as a request of ours tells.

        What cannot be launched any more may run all the same: then it is where containers are by default, perhaps.

        :returns: that, and why it is a guess if it is one
        """
        launch = record.launch
        try:
            spec = await self._rendered(launch)
        except Exception as error:  # noqa: BLE001 - user code can be involved
            reason = (
                error.reason
                if isinstance(error, Rejected)
                else f"The request could not be built: {type(error).__name__}"
            )
            if not record.place_unknown:
                record.place_unknown = True
                log.warning(self._event("look_up.place_unknown"), workload=str(launch), reason=reason)
            return lifecycle.Sought(self._backend.scope_of(None), launch.started_by), reason
        return lifecycle.Sought(spec.scope, spec.started_by), None

    async def _found(
        self, scope: str, mark: str, past: Sequence[str], refusal: list[str]
    ) -> Sequence[Observation] | None:
        """
        Describe every container that carries a mark; None if the service does not answer for each of them.

        :param past: identifiers of those that are known to be over
        """
        if not self._may_call(anyio.current_time()):
            return None
        try:
            listed = dict.fromkeys(await self._call(self._backend.find(scope, mark)))
            handles = [handle for handle in listed if handle.id not in past]
        except BackendError as error:
            self._read_refused(error, "find", scope)
            if error.kind in (Kind.REFUSED, Kind.INVALID, Kind.NOT_FOUND):
                refusal.append(str(error))
            return None
        found: list[Observation] = []
        for batch in self._in_batches(handles):
            await self._read_token()
            found += await self._described(scope, [handle.id for handle in batch], refusal)
        return found if len(found) >= len(handles) else None

    def _resolved(self, record: Record, event: lifecycle.Resolved | lifecycle.LookUpRefused, now: float) -> None:
        if record.phase is Phase.UNRESOLVED:
            self._dispatch(record, event, now)

    def _not_resolved(
        self, record: Record, refusal: Sequence[str], now: float, named: Handle | None = None
    ) -> None:
        if refusal:
            self._resolved(record, lifecycle.LookUpRefused(refusal[0], named=named), now)
        elif record.phase is Phase.UNRESOLVED:
            self._ledger.look_up_again(record, now + self._ledger.rules.relook_after)

    # --- stopping --------------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        while True:
            now = anyio.current_time()
            wake_at = self._next_stop_at(now)
            if wake_at > now:
                await self._stop_kick.wait_until(wake_at)
                continue
            self._limiter.take_stop(now)
            self._stopping += 1
            self._tasks.start_soon(self._send_stop, self._ledger.stops.take())

    def _next_stop_at(self, now: float) -> float:
        """Return when the next stop may be sent, as far as that is known; ``now`` if one may be."""
        due_at = self._ledger.stops.next_at()
        due = due_at is not None and due_at <= now
        self._limiter.stops_waiting(int(due))
        if due_at is None or not due:
            return math.inf if due_at is None else due_at
        if self._stopping >= STOP_CONCURRENCY:
            return math.inf  # a reply kicks
        if not self._credentials.may_pass(now):
            return self._credentials.next_probe_at or math.inf
        return self._limiter.stop_ready_at(now)

    async def _send_stop(self, request: StopRequest) -> None:
        try:
            if self._may_call(anyio.current_time()):
                await self._call(self._backend.stop(request.handle, request.reason))
                self._limiter.stop_succeeded()
                self._ledger.stops.done(request)
            else:
                self._stop_again(request, 1.0)
        except BackendError as error:
            self._stop_refused(request, error)
        finally:
            self._stopping -= 1
            self._stop_kick.set()
            if self._draining:
                self._quiet.set()

    def _stop_refused(self, request: StopRequest, error: BackendError) -> None:
        now = anyio.current_time()
        if error.kind is Kind.NOT_FOUND:
            self._dispatch(request.record, lifecycle.Gone(), now)
            if request.record.phase is not Phase.ACTIVE:
                self._ledger.stops.done(request)
                return
            # It was launched a moment ago, and is not known everywhere yet.
        if error.kind is Kind.THROTTLED:
            self._limiter.stop_throttled(now)
        else:
            request.tries += 1
        if error.kind in (Kind.REFUSED, Kind.INVALID):
            request.refusals += 1
            gives_up = request.refusals >= STOP_TRIES and request.record.phase is not Phase.ACTIVE
            if gives_up:
                self._log_stop(log.error, "gave_up", request, error)
                self._ledger.stops.done(request)
                return
            if request.refusals == 1:
                self._log_stop(log.warning, "refused", request, error)
        self._stop_again(request, min(STOP_DELAY_MAX, 0.5 * 2.0 ** min(request.tries, 10)))

    def _log_stop(
        self, write: Callable[..., object], what: str, request: StopRequest, error: BackendError
    ) -> None:
        needs = {"permission": self._options.stop_permission} if error.kind is Kind.REFUSED else {}
        write(
            self._event(f"stop.{what}"),
            workload=str(request.record.launch),
            handle=request.handle.id,
            code=error.code,
            reason=error.message,
            **needs,
        )

    def _stop_again(self, request: StopRequest, delay: float) -> None:
        request.not_before = anyio.current_time() + delay * (0.5 + 0.5 * self._random.random())
        self._ledger.stops.add(request)

    # --- looking at itself -----------------------------------------------------------------------------------

    async def _ping(self) -> None:
        while True:
            due = anyio.current_time() + PING_INTERVAL
            await anyio.sleep_until(due)
            self._lag = max(0.0, anyio.current_time() - due)
            if self._notes_silence():  # the launching lane may sleep, or wait for user code
                self._launch_kick.set()  # it ends there, or what is submitted hours later would be in doubt too
            self._forget_gates(anyio.current_time())
            self._publish(self._statistics())

    def _is_unanswered(self, now: float) -> bool:
        return self._unanswered_since is not None and now >= self._unanswered_since + UNANSWERED_SECONDS

    def _statistics(self) -> Statistics:
        now = oldest = anyio.current_time()
        waiting = ambiguous = launching = unresolved = 0
        for record in self._ledger.unsettled.values():
            phase = record.phase
            if phase is Phase.SENDING:
                launching += 1
            elif phase is Phase.UNRESOLVED:
                unresolved += 1
            else:
                if phase is Phase.WAITING:
                    waiting += 1
                else:
                    ambiguous += 1
                oldest = min(oldest, record.waiting_since)
        latencies = sorted(self._latencies)
        paused = None if self._credentials.is_open else f"AWS credentials: {self._credentials.reason}"
        if paused is None and self._is_unanswered(now) and (ambiguous or launching or unresolved):
            paused = "AWS does not answer"  # somebody is asking
        counters = self._counters
        return Statistics(
            pending=waiting + ambiguous,
            launching=launching,
            ambiguous=ambiguous,
            unresolved=unresolved,
            active=len(self._ledger.active),
            stopping=len(self._ledger.stops),
            oldest_pending_age=now - oldest,
            launch_rate=min(
                sum(self._limiter.launch_rate(bucket) for bucket in self._buckets or ("",)),
                1.0 / max(self._render_seconds, 1e-6),
            ),
            paused=paused or (SILENT if self._stalled() else None),
            closed_gates=len(self._gates),
            launches=counters.launches,
            throttles=counters.throttles,
            api_calls=counters.api_calls,
            api_errors=counters.api_errors,
            api_latency_p50=latencies[len(latencies) // 2] if latencies else None,
            api_latency_p95=latencies[int(len(latencies) * 0.95)] if latencies else None,
            loop_lag=self._lag,
            outbox=len(self._ledger.outbox),
        )


def _topic(reason: str, *, refused: bool) -> str:
    return lifecycle.topic("refused" if refused else "no capacity", reason)


def _is_still_to_be_sent(record: Record, ticket: int) -> bool:
    return record.ticket == ticket and record.phase in (Phase.WAITING, Phase.AMBIGUOUS)


def _not_taken(handle: Handle) -> Observation:
    return Observation(handle, Seen.MISSING, status="INVALID")


@dataclass(frozen=True, eq=False, slots=True)
class _Group:
    """Records that one call describes; also the borrower of that call's place."""

    records: Sequence[Record]
