"""
The lane that listens: it receives events, and has the containers that they name described next.

May import ``core``, ``destinations``, ``meters``, ``polling``, ``wakeup``, anyio and structlog. One lane for each
destination with a queue of events. What an event says changes no launch: see ``core/listening.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import anyio
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import NO_ANSWER, BackendError, Kind
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.limiter import PollPacer
from ecs_async_executor.core.listening import (
    UNREADABLE_SECONDS,
    Early,
    EventQueue,
    Hearing,
    Hint,
    Message,
    left_for_others,
)
from ecs_async_executor.core.metrics import EVENTS_IGNORED, EVENTS_MISSED, EVENTS_RECEIVED
from ecs_async_executor.core.phases import Running, Tracked
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.polling import Polling
from ecs_async_executor.engine.wakeup import Wakeup

log = structlog.get_logger(__name__)

GATHER_SECONDS = 0.25
"""Events are gathered for so long, to describe many containers with one call."""
LONGEST_GATHER_SECONDS = 2.0
"""After a burst of events, which took more than its share of the read budget, the next ones wait no longer."""
HINT_SHARE = 0.2
"""The part of the read budget for these calls: no more than stretched sweeps leave unused of theirs."""
REST_SECONDS = 0.1
"""Between two requests to a queue without a backlog: messages gather, and another scheduler gets its turn."""
FULL = 10
"""A reply with so many messages, the most there can be, shows a backlog."""
RECEIVERS = 8
"""Requests to receive under way at once, at most, for a backlog."""
IDLE_SECONDS = 1.0
EARLY_LOOK_SECONDS = 0.5
"""Between two looks whether the answer to a launch has come whose event was faster."""
RETRY_SECONDS = 60.0
"""Between two tries of a queue that is gone or denied."""
NO_ANSWER_SECONDS = 5.0
"""Between two tries of one that gives no answer."""
MISSED_LOGGED_SECONDS = 600.0
REFUSALS_BORNE = 3
"""A queue that is just being deleted refuses once or twice; permissions that are missing refuse each time."""
LOOK_AGAIN_SECONDS = 1.0
"""From an answer that the service does not know a container to the next look at it."""
LOOKS_AGAIN = 6
"""What an event tells can reach descriptions late: so many further looks, 1, 2, 4, ... seconds apart."""


@dataclass(slots=True)
class _Due:
    """A container to be described, from a time on."""

    hint: Hint
    at: float
    looks: int = 0


class Listening:
    """
    Listens to the events of one destination.

    :param polling: describes containers
    :param event: makes the full name of a log event
    """

    def __init__(
        self,
        *,
        queue: EventQueue,
        hearing: Hearing,
        ledger: Ledger,
        destination: Destination,
        polling: Polling,
        meters: Meters,
        event: Callable[[str], str],
    ) -> None:
        self._queue = queue
        self._hearing = hearing
        self._ledger = ledger
        self._destination = destination
        self._polling = polling
        self._meters = meters
        self._event = event
        self._named = {"destination": destination.name} if destination.name else {}
        self._pacer = PollPacer(GATHER_SECONDS, share=HINT_SHARE)
        self._early = Early()
        self._due: dict[str, _Due] = {}
        self._wakeup = Wakeup()
        self._receivers = 0
        self._told_of_trouble = False
        self._refusals = 0
        self._told_of_refusals = False
        self._told_of_whole = False
        self._missed_told = hearing.missed
        self._was_trusted = True
        self._told_of_missed_at = -math.inf

    async def run(self) -> None:
        """Listen for ever; a queue that cannot be read is tried again every now and then."""
        try:
            await self._listen()
        except Exception:
            # A bug, after which this begins again. Nobody counts what is missed meanwhile.
            self._hearing.failed("listening has ended with an error, which is in the log, and begins again")
            raise

    async def _listen(self) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._describe_for_ever)
            while True:
                try:
                    async with self._queue.open():
                        await self._receive_for_ever(tasks)
                except BackendError as error:  # noqa: PERF203 - there is no client
                    await self._failed(error)

    # --- receiving -------------------------------------------------------------------------------------------

    async def _receive_for_ever(self, tasks: TaskGroup) -> None:
        while True:
            try:
                messages = await self._queue.receive()
            except BackendError as error:
                await self._failed(error)
                continue
            self._answered()
            if len(messages) >= FULL and self._receivers < RECEIVERS - 1 and not self._is_stuck:
                self._receivers += 1
                tasks.start_soon(self._receive_backlog)
            await self._take_in(messages)

    async def _receive_backlog(self) -> None:
        """Receive beside the first receiver, as long as there is a backlog."""
        try:
            while len(messages := await self._queue.receive()) >= FULL and not self._is_stuck:
                await self._take_in(messages)
            await self._take_in(messages)
        except BackendError:
            pass  # the first receiver says so
        finally:
            self._receivers -= 1

    async def _take_in(self, messages: Sequence[Message]) -> None:
        done: list[str] = []
        left: dict[str, float] = {}
        for message in messages:
            wait = self._understood(message, loop_time())
            if wait is None:
                done.append(message.receipt)
            else:
                left[message.receipt] = wait
        if self._due or self._early:
            self._wakeup.set()
        try:
            if done:
                await self._queue.delete(done)
                self._refusals = 0
            if left:
                await self._queue.leave(left)
        except BackendError as error:
            await self._not_deleted(error)
        if len(messages) < FULL:
            await anyio.sleep(REST_SECONDS)

    def _understood(self, message: Message, now: float) -> float | None:
        """Act on a message; return after how many seconds others may have it, None if it is of no more use."""
        hint = message.hint
        if hint is None:
            self._meters.count(EVENTS_IGNORED)
            return UNREADABLE_SECONDS
        self._hearing.came(now)
        if message.whole:
            self._tell_of_whole_events()
        if hint.is_useless:
            return None
        tracked = self._ledger.active.by_id(self._destination.name).get(hint.handle_id)
        if tracked is None and not self._hearing.was_ours(hint.handle_id):
            self._meters.count(EVENTS_IGNORED)
            self._early.add(hint, now)
            return left_for_others(message)
        self._meters.count(EVENTS_RECEIVED)
        self._hearing.heard(hint, now)
        if tracked is not None:
            self._is_due(hint, tracked, now)
        return None

    def _is_due(self, hint: Hint, tracked: Tracked, now: float) -> None:
        before = self._due.get(hint.handle_id)
        if _is_known(hint, tracked) or (before is not None and before.hint.is_final and not hint.is_final):
            return  # an event that is out of order takes nothing back
        self._due[hint.handle_id] = _Due(hint, now)

    # --- describing ------------------------------------------------------------------------------------------

    async def _describe_for_ever(self) -> None:
        while True:
            due_at = min((one.at for one in self._due.values()), default=math.inf)
            idle = EARLY_LOOK_SECONDS if self._early else IDLE_SECONDS
            await self._wakeup.wait_until(min(due_at, loop_time() + idle))
            begun = loop_time()
            calls = await self._describe(begun)
            self._keep_count()
            interval = self._pacer.interval(calls, self._destination.limiter.read_rate)
            await anyio.sleep_until(begun + min(interval, LONGEST_GATHER_SECONDS))

    async def _describe(self, now: float) -> int:
        """Describe what is due; return the number of calls."""
        by_id = self._ledger.active.by_id(self._destination.name)
        for hint in self._early.take(by_id, now):
            self._hearing.heard(hint, now)
            self._is_due(hint, by_id[hint.handle_id], now)
        while self._hearing.unknown:
            unknown = self._hearing.unknown.pop()
            self._due.setdefault(unknown, _Due(Hint(unknown, Seen.STOPPED), now + LOOK_AGAIN_SECONDS))
        launches: list[Tracked] = []
        for handle_id, due in list(self._due.items()):
            tracked = by_id.get(handle_id)
            if tracked is None or _is_known(due.hint, tracked):
                del self._due[handle_id]
            elif due.at <= now:
                launches.append(tracked)
                if due.looks >= LOOKS_AGAIN or not (due.hint.is_final or due.hint.runs):
                    del self._due[handle_id]
                else:
                    due.at = now + 2.0**due.looks
                    due.looks += 1
        if not launches:
            return 0
        return await self._polling.sweep(launches, self._destination.sweep_interval)

    def _keep_count(self) -> None:
        hearing = self._hearing
        hearing.advance(loop_time())
        self._meters.count(EVENTS_MISSED, hearing.missed - self._missed_told)
        self._missed_told = hearing.missed
        now = loop_time()
        ended = self._was_trusted and not hearing.is_trusted
        self._was_trusted = hearing.is_trusted
        if ended and hearing.trouble is None and now >= self._told_of_missed_at + MISSED_LOGGED_SECONDS:
            self._told_of_missed_at = now
            log.warning(self._event("events.missed"), missed=hearing.missed, **self._named)

    # --- saying so -------------------------------------------------------------------------------------------

    @property
    def _is_stuck(self) -> bool:
        """Whether no message leaves the queue, so that it fills with old ones."""
        return self._refusals >= REFUSALS_BORNE

    def _answered(self) -> None:
        if self._is_stuck:
            return
        self._hearing.answered(loop_time())
        if self._told_of_trouble:
            self._told_of_trouble = False
            log.info(self._event("events.available"), **self._named)

    async def _failed(self, error: BackendError) -> None:
        """Have sweeps do the work, say once why, and wait."""
        self._hearing.failed(str(error))
        if not self._told_of_trouble:
            self._told_of_trouble = True
            log.warning(self._event("events.unavailable"), code=error.code, reason=error.message, **self._named)
        passing = error.kind in NO_ANSWER or error.kind is Kind.THROTTLED
        await anyio.sleep(NO_ANSWER_SECONDS if passing else RETRY_SECONDS)

    async def _not_deleted(self, error: BackendError) -> None:
        """Say once that messages stay. They come again and again: have sweeps do the work, and ask rarely."""
        self._refusals += error.kind is Kind.REFUSED
        if not self._is_stuck:
            return
        self._hearing.failed(str(error))
        if not self._told_of_refusals:
            self._told_of_refusals = True
            log.warning(self._event("events.not_deleted"), code=error.code, reason=error.message, **self._named)
        await anyio.sleep(RETRY_SECONDS)

    def _tell_of_whole_events(self) -> None:
        if not self._told_of_whole:
            self._told_of_whole = True
            log.warning(
                self._event("events.untransformed"),
                reason="the rule passes whole events, with the commands of containers and their JWTs; give its "
                "target the InputTransformer of docs/push.md",
                **self._named,
            )


def _is_known(hint: Hint, tracked: Tracked) -> bool:
    """Return whether an event tells nothing new."""
    return hint.runs and isinstance(tracked.phase, Running) and tracked.phase.confirmed
