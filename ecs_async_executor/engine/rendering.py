"""
Rendering: a launch becomes a request, in a worker thread where user code takes part in it.

May import ``core`` and anyio.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import anyio
import anyio.to_thread

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Launch

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


class Rendering:
    """
    Make the requests of launches.

    :param render: makes the request of one launch; raises :class:`~ecs_async_executor.core.errors.Rejected`
    :param in_thread: ``render`` runs user code, which may block: call it in a worker thread, one at a time
    """

    def __init__(self, render: Callable[[Launch], LaunchSpec], *, in_thread: bool = False) -> None:
        self._render = render
        self._in_thread = in_thread
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

    async def render(self, launch: Launch) -> LaunchSpec:
        """
        Make the request of a launch.

        :raises Rejected: if the launch cannot become a request; user code can raise anything else
        """
        if not self._in_thread:
            return self._render(launch)
        async with self._one_at_a_time:
            call = self._user_code = UserCode(launch, anyio.current_time())
            try:
                return await anyio.to_thread.run_sync(self._call, call, abandon_on_cancel=True)
            finally:
                self._user_code = None
                self._seconds += SHARE_OF_LATEST * (anyio.current_time() - call.since - self._seconds)

    def _call(self, call: UserCode) -> LaunchSpec:
        call.thread = threading.get_ident()
        return self._render(call.launch)
