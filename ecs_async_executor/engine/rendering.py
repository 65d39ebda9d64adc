"""
Rendering: a launch becomes a request, in a worker thread where user code or a database takes part in it.

May import ``core`` and anyio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import anyio
import anyio.to_thread

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.engine.clock import loop_time

T = TypeVar("T")

SHARE_OF_LATEST = 0.1
"""Weight of the latest rendering in the average of their durations."""
HANGS_SECONDS = 60.0
"""User code that has not returned for so long hangs, as far as people are told; nothing launches meanwhile."""


@dataclass(eq=False, slots=True)
class UserCode:
    """
    One call of user code.

    :param thread: the identifier of the worker thread; None before the call begins
    """

    launch: Launch
    since: float
    thread: int | None = None


def no_choices(_: Launch) -> Choices:
    """Return that a launch has no choice."""
    return NO_CHOICES


def never(_: Launch) -> bool:
    """Return False: no code of users takes part in the requests of launches, and nothing has to be looked up."""
    return False


def find_nothing(_: Launch) -> None:
    """Look nothing up."""


def as_it_is(launch: Launch) -> Launch:
    """Return a launch unchanged."""
    return launch


class Rendering:
    """
    Make the requests of launches.

    :param render: makes the request of a launch; called with the launch, and with its choice if it has one; raises
        :class:`~ecs_async_executor.core.errors.Rejected`
    :param choices: returns the placements that a launch may choose from; raises likewise
    :param blocks: returns whether the other two may block for a launch: they are then called in a worker thread,
        one at a time
    :param lacks: returns whether something about a launch has to be looked up before the others are called
    :param look_up: looks it up, for so long as a database takes; raises nothing, and never leaves it open
    :param condense: makes the same launch of fewer objects; it waits in that form
    """

    def __init__(
        self,
        render: Callable[..., LaunchSpec],
        *,
        choices: Callable[[Launch], Choices] = no_choices,
        blocks: Callable[[Launch], bool] = never,
        lacks: Callable[[Launch], bool] = never,
        look_up: Callable[[Launch], object] = find_nothing,
        condense: Callable[[Launch], Launch] = as_it_is,
    ) -> None:
        self.condense = condense
        self._render = render
        self._choices = choices
        self._blocks = blocks
        self._lacks = lacks
        self._look_up = look_up
        self._one_question = anyio.CapacityLimiter(1)
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._seconds = 0.0
        self._user_code: UserCode | None = None

    def hanging(self, now: float) -> UserCode | None:
        """Return the call of user code that has not returned for too long, or None."""
        call = self._user_code
        return call if call is not None and now >= call.since + HANGS_SECONDS else None

    @property
    def rate(self) -> float:
        """Renderings per second that the worker thread has time for; user code can be slower than any limit."""
        return 1.0 / max(self._seconds, 1e-6)

    def lacks(self, launch: Launch) -> bool:
        """Return whether :meth:`look_up` has to come before a launch's request: else that waits for it."""
        return self._lacks(launch)

    async def look_up(self, launch: Launch) -> None:
        """Look up what a launch's request needs; one waits for another, but no hook for any."""
        async with self._one_question:
            if self._lacks(launch):
                await anyio.to_thread.run_sync(self._look_up, launch, abandon_on_cancel=True)

    async def choices(self, launch: Launch) -> Choices:
        """
        Return the placements that a launch may choose from.

        :raises Rejected: if the launch asks for what there is not
        """
        if self._lacks(launch):
            await self.look_up(launch)
        if not self._blocks(launch):
            return self._choices(launch)
        return await self._in_thread(launch, self._choices, launch)

    async def render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        """
        Make the request of a launch.

        :param choice: one of :meth:`choices`; None if there are none
        :raises Rejected: if the launch cannot become a request; user code can raise anything else
        """
        if self._lacks(launch):
            await self.look_up(launch)
        arguments = (launch,) if choice is None else (launch, choice)
        if not self._blocks(launch):
            self._seconds -= SHARE_OF_LATEST * self._seconds  # it took the worker thread no time
            return self._render(*arguments)
        return await self._in_thread(launch, self._render, *arguments)

    async def _in_thread(self, launch: Launch, function: Callable[..., T], *arguments: object) -> T:
        async with self._one_at_a_time:
            call = self._user_code = UserCode(launch, loop_time())
            try:
                return await anyio.to_thread.run_sync(
                    self._call, call, function, arguments, abandon_on_cancel=True
                )
            finally:
                self._user_code = None
                self._seconds += SHARE_OF_LATEST * (loop_time() - call.since - self._seconds)

    @staticmethod
    def _call(call: UserCode, function: Callable[..., T], arguments: tuple[object, ...]) -> T:
        call.thread = threading.get_ident()
        return function(*arguments)
