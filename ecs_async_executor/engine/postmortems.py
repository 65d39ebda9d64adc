"""
The lane that has the last lines of failed containers read: slowly, a few at a time, and never in anybody's way.

May import ``core``, ``meters``, ``wakeup``, anyio and structlog. Outcomes do not wait for it. Of too many failures
at once it drops the newest, and it drops all that waits when the engine ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.messages import LastWords, PostMortem, Report
from ecs_async_executor.core.metrics import LOG_READS_DROPPED
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.wakeup import IDLE, Wakeup

log = structlog.get_logger(__name__)

Read: TypeAlias = Callable[[PostMortem], Awaitable[str]]
"""Returns the entry for Airflow's event log."""


async def unread(_: PostMortem) -> str:
    """Read nothing."""
    return ""


WAITING_MAX = 100
CONCURRENCY = 2
INTERVAL = 0.5
"""Seconds from the start of one read to that of the next."""
TIMEOUT = 30.0
"""Seconds; :data:`Read` has limits of its own, and says what it has waited for."""


class PostMortems:
    """
    Has the last lines of containers read.

    :param waiting: appended by the scheduler's thread; it outlives this lane
    :param read: reads the lines of one container
    :param outbox: takes the reports
    :param tasks: where reads run
    :param event: makes the full name of a log event
    """

    def __init__(
        self,
        *,
        waiting: deque[PostMortem],
        read: Read,
        outbox: deque[Report],
        tasks: TaskGroup,
        wakeup: Wakeup,
        meters: Meters,
        event: Callable[[str], str],
    ) -> None:
        self._waiting = waiting
        self._read = read
        self._outbox = outbox
        self._tasks = tasks
        self._wakeup = wakeup
        self._meters = meters
        self._event = event
        self._in_flight = 0
        self._next_at = 0.0
        self._draining = False

    def wake(self) -> None:
        """Have what waits looked at."""
        self._wakeup.set()

    def drain(self) -> None:
        """Begin no more reads."""
        self._draining = True
        self._drop_beyond(0)

    async def run(self) -> None:
        """Begin reads, one after the other."""
        while True:
            self._drop_beyond(0 if self._draining else WAITING_MAX)
            now = anyio.current_time()
            if not self._waiting or self._in_flight >= CONCURRENCY:
                await self._wakeup.wait_until(now + IDLE)
            elif now < self._next_at:
                await self._wakeup.wait_until(self._next_at)
            else:
                self._next_at = now + INTERVAL
                self._in_flight += 1
                self._tasks.start_soon(self._examine, self._waiting.popleft())

    def _drop_beyond(self, number: int) -> None:
        while len(self._waiting) > number:
            self._waiting.pop()
            self._meters.count(LOG_READS_DROPPED)

    async def _examine(self, dead: PostMortem) -> None:
        ended = False
        try:
            with anyio.move_on_after(TIMEOUT) as limit:
                text = await self._read(dead)
                self._outbox.append(LastWords(dead.launch_id, dead.key, text))
            ended = True
            if limit.cancelled_caught:
                log.warning(self._event("last_words.hang"), handle=dead.handle_id, seconds=TIMEOUT)
        except Exception:
            # This runs beside the lanes: without this, a bug in one read would end them all.
            ended = True
            log.exception(self._event("last_words.failed"), handle=dead.handle_id)
        finally:
            if not ended:  # the engine has
                self._meters.count(LOG_READS_DROPPED)
            self._in_flight -= 1
            self.wake()
