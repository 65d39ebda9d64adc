"""
Wake-ups: how one lane of the engine tells another that there is something to do.

May import anyio.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import anyio

from ecs_async_executor.engine.clock import loop_time

IDLE = 3600.0
"""Seconds that a lane sleeps when nothing is due. Bounded only so that a lost wake-up cannot last for ever."""


class Wakeup:
    """An event that many places set and one place waits for, with a deadline."""

    def __init__(self) -> None:
        self._event = anyio.Event()

    def set(self) -> None:
        """End the present wait, or the next one."""
        self._event.set()

    async def wait_until(self, deadline: float) -> None:
        """Wait until :meth:`set` is called, or until the loop's clock shows ``deadline``."""
        with anyio.CancelScope(deadline=min(deadline, loop_time() + IDLE)):
            await self._event.wait()
        if self._event.is_set():
            self._event = anyio.Event()


@dataclass(frozen=True, slots=True)
class Wakeups:
    """The wake-up of each lane that sleeps until it is told of something."""

    intake: Wakeup = field(default_factory=Wakeup)
    launching: Wakeup = field(default_factory=Wakeup)
    searching: Wakeup = field(default_factory=Wakeup)
    stopping: Wakeup = field(default_factory=Wakeup)
    postmortems: Wakeup = field(default_factory=Wakeup)
