"""
The lane that stops containers. Stops never queue behind launches, nor behind those of another destination.

May import ``core``, ``destinations``, ``dispatcher``, ``wakeup``, anyio and structlog.
"""

from __future__ import annotations

import math
import random
from collections import defaultdict
from collections.abc import Callable

import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.containers import has_been_seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.events import StopTargetMissing
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.stops import StopRequest
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.dispatcher import Dispatcher
from ecs_async_executor.engine.wakeup import Wakeup

log = structlog.get_logger(__name__)

CONCURRENCY = 8
TRIES = 6
"""Refusals (of the right to stop, or of the form) after which a stop is given up, if its launch has ended."""
DELAY_MAX = 60.0
NOT_FOUND_DELAY_MAX = 10.0
"""The most that one answer counts of the time for which a container is not found; shorter than the grace."""
PAUSED_DELAY = 1.0
REFUSAL_LOGGED_SECONDS = 60.0


class Stopping:
    """
    Sends the stop requests that are owed.

    :param permission: what stopping a container takes, for people
    :param random_source: the jitter of repeated requests
    :param tasks: where each request runs
    :param answered: called after each request
    """

    def __init__(
        self,
        *,
        ledger: Ledger,
        destinations: Destinations,
        dispatcher: Dispatcher,
        permission: str,
        random_source: random.Random,
        tasks: TaskGroup,
        wakeup: Wakeup,
        answered: Callable[[], None],
        event: Callable[[str], str],
    ) -> None:
        self._ledger = ledger
        self._destinations = destinations
        self._dispatcher = dispatcher
        self._permission = permission
        self._random = random_source
        self._tasks = tasks
        self._wakeup = wakeup
        self._answered = answered
        self._event = event
        self._refusal_logged_at: defaultdict[str, float] = defaultdict(lambda: -math.inf)

    def wake(self) -> None:
        """Have the stops that are due sent."""
        self._wakeup.set()

    async def run(self) -> None:
        """Send stops as they become due."""
        while True:
            now, wake_at = loop_time(), math.inf
            for name in self._ledger.stops.destinations:
                destination = self._destinations[name]
                at = self.next_at(destination, now)
                if at <= now:
                    destination.limiter.take_stop(now)
                    destination.stopping += 1
                    self._tasks.start_soon(self._send, self._ledger.stops.take(name), destination)
                wake_at = min(wake_at, at)
            if wake_at > now:
                await self._wakeup.wait_until(wake_at)

    def next_at(self, destination: Destination, now: float) -> float:
        """Return when the next stop may be sent there, as far as that is known; ``now`` if one may be sent."""
        due_at = self._ledger.stops.next_at(destination.name)
        due = due_at is not None and due_at <= now
        destination.limiter.stops_waiting(int(due))
        if due_at is None or not due:
            return math.inf if due_at is None else due_at
        if destination.stopping >= CONCURRENCY:
            return math.inf  # a reply wakes
        if not destination.session.may_call(now):
            return destination.session.next_probe_at or math.inf
        return destination.limiter.stop_ready_at(now)

    async def _send(self, request: StopRequest, destination: Destination) -> None:
        try:
            if destination.session.begins_call(loop_time()):
                await destination.session.stop(request.handle, request.reason)
                destination.limiter.stop_succeeded()
                self._ledger.stops.done(request)
            else:
                self._again(request, PAUSED_DELAY)
        except BackendError as error:
            self._refused(request, destination, error)
        except Exception:
            # This runs beside the lanes: without this, a bug in one answer would end them all.
            log.exception(self._event("stop.failed"), workload=str(request.tracked), handle=request.handle.id)
            self._again(request, DELAY_MAX)
        finally:
            destination.stopping -= 1
            self.wake()
            self._answered()

    def _refused(self, request: StopRequest, destination: Destination, error: BackendError) -> None:
        now = loop_time()
        request.gone = error.kind is Kind.NOT_FOUND and has_been_seen(request.tracked.phase)
        if error.kind is Kind.NOT_FOUND:
            pause = min(request.delay, NOT_FOUND_DELAY_MAX)
            self._dispatcher.dispatch(request.tracked, StopTargetMissing(pause), now)
            if request.tracked.handle is None:
                self._ledger.stops.done(request)
                return
            # The service may not know it everywhere yet, or not for a moment.
        if error.kind is Kind.THROTTLED:
            destination.limiter.stop_throttled(now)
        else:
            request.tries += 1
        if error.kind in (Kind.REFUSED, Kind.INVALID):
            request.refusals += 1
            if request.refusals >= TRIES and request.tracked.handle is None:
                self._log(log.error, "gave_up", request, error)
                self._ledger.stops.done(request)
                return
            # Of a thousand that lack the same permission one says so, and how many stops are owed.
            if request.refusals == 1 and now >= self._refusal_logged_at[error.code] + REFUSAL_LOGGED_SECONDS:
                self._refusal_logged_at[error.code] = now
                self._log(log.warning, "refused", request, error)
        most = NOT_FOUND_DELAY_MAX if error.kind is Kind.NOT_FOUND else DELAY_MAX
        self._again(request, min(most, 0.5 * 2.0 ** min(request.tries, 10)))

    def _again(self, request: StopRequest, delay: float) -> None:
        request.delay = delay * (0.5 + 0.5 * self._random.random())
        request.not_before = loop_time() + request.delay
        self._ledger.stops.add(request)

    def _log(self, write: Callable[..., object], what: str, request: StopRequest, error: BackendError) -> None:
        needs = {"permission": self._permission} if error.kind is Kind.REFUSED else {}
        write(
            self._event(f"stop.{what}"),
            workload=str(request.tracked),
            handle=request.handle.id,
            code=error.code,
            reason=error.message,
            owed=len(self._ledger.stops),
            **needs,
        )
