"""
The lane that has the last lines of failed containers read: slowly, a few at a time, and never in anybody's way.

May import ``core``, ``meters``, ``wakeup``, anyio and structlog. Outcomes do not wait for it. Of too many failures
at once it drops the newest, and it drops all that waits when the engine ends.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TypeAlias

import anyio
import structlog

from ecs_async_executor.core.messages import LastWords, PostMortem, Report
from ecs_async_executor.core.metrics import LOG_READS_DROPPED
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.wakeup import IDLE, Wakeup

log = structlog.get_logger(__name__)

Read: TypeAlias = Callable[[PostMortem], Awaitable[str]]
"""Returns the entry for Airflow's event log."""
Reading: TypeAlias = Callable[[], AbstractAsyncContextManager[Read]]
"""Holds open what reads need; to enter it makes no request and cannot fail."""

WAITING_MAX = 100
CONCURRENCY = 2
INTERVAL = 0.5
"""Seconds from the start of one read to that of the next."""
TIMEOUT = 30.0
"""Seconds; :data:`Read` has limits of its own, and says what it has waited for."""
LINGER = 20.0
"""Seconds without a read after which clients are closed: they cost more than a read."""


@asynccontextmanager
async def unread() -> AsyncIterator[Read]:
    """Read nothing."""

    async def read(_: PostMortem) -> str:
        return ""

    yield read


class PostMortems:
    """
    Has the last lines of containers read.

    :param waiting: appended by the scheduler's thread; it outlives this lane
    :param reading: reads the lines of containers
    :param outbox: takes the reports
    :param event: makes the full name of a log event
    """

    def __init__(
        self,
        *,
        waiting: deque[PostMortem],
        reading: Reading,
        outbox: deque[Report],
        wakeup: Wakeup,
        meters: Meters,
        event: Callable[[str], str],
    ) -> None:
        self._waiting = waiting
        self._reading = reading
        self._outbox = outbox
        self._wakeup = wakeup
        self._meters = meters
        self._event = event
        self._in_flight = 0
        self._next_at = 0.0
        self._most = WAITING_MAX

    def wake(self) -> None:
        """Have what waits looked at."""
        self._wakeup.set()

    def drain(self) -> None:
        """Begin no more reads."""
        self._most = 0
        self._drop_surplus()

    async def run(self) -> None:
        """Read in bursts, as containers fail."""
        while True:
            self._drop_surplus()
            if self._waiting:
                async with self._reading() as read:
                    await self._burst(read)
            else:
                await self._wakeup.wait_until(loop_time() + IDLE)

    async def _burst(self, read: Read) -> None:
        """Begin one read after the other, until nothing has been read for a while."""
        quiet_at = 0.0
        async with anyio.create_task_group() as reads:
            while True:
                self._drop_surplus()
                now = loop_time()
                if self._waiting or self._in_flight:
                    quiet_at = now + LINGER
                elif now >= quiet_at:
                    return
                if not self._waiting or self._in_flight >= CONCURRENCY:
                    await self._wakeup.wait_until(quiet_at)
                elif now < self._next_at:
                    await self._wakeup.wait_until(self._next_at)
                else:
                    self._next_at = now + INTERVAL
                    self._in_flight += 1
                    reads.start_soon(self._examine, read, self._waiting.popleft())

    def _drop_surplus(self) -> None:
        while len(self._waiting) > self._most:
            self._waiting.pop()
            self._meters.count(LOG_READS_DROPPED)

    async def _examine(self, read: Read, dead: PostMortem) -> None:
        done = False
        try:
            with anyio.move_on_after(TIMEOUT) as limit:
                text = await read(dead)
                self._outbox.append(LastWords(dead.launch_id, dead.key, text))
            done = True
            if limit.cancelled_caught:
                log.warning(self._event("last_words.hang"), handle=dead.handle_id, seconds=TIMEOUT)
        except Exception:
            # Without this, a bug in one read would end the others.
            done = True
            log.exception(self._event("last_words.failed"), handle=dead.handle_id)
        finally:
            if not done:  # the engine ends
                self._meters.count(LOG_READS_DROPPED)
            self._in_flight -= 1
            self.wake()
