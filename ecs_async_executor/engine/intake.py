"""
The lane that takes commands out of the inbox and into the ledger.

May import ``core``, ``dispatcher``, ``rendering``, ``session``, ``wakeup``, anyio and structlog.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

import anyio
import anyio.lowlevel
import structlog
from anyio.abc import TaskGroup

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Adopt, Command, Finished, Launch
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.dispatcher import Dispatcher, internal_error
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.engine.session import Session
from ecs_async_executor.engine.wakeup import Wakeup

log = structlog.get_logger(__name__)

INTERVAL = 1.0
"""Seconds after which the inbox is read without a wake-up."""
COMMANDS_PER_YIELD = 256
"""After so many commands in a row the other lanes get their turn."""


@dataclass(frozen=True, slots=True)
class Check:
    """Command of the bridge's own: make the backend's harmless call and answer with its result."""

    answer: Future[None]


class Intake:
    """
    Reads the inbox.

    :param inbox: commands, appended by other threads
    :param tasks: where the answer to a :class:`Check` is waited for
    """

    def __init__(
        self,
        *,
        inbox: deque[Command | Check],
        ledger: Ledger,
        rendering: Rendering,
        session: Session,
        dispatcher: Dispatcher,
        tasks: TaskGroup,
        wakeup: Wakeup,
        event: Callable[[str], str],
    ) -> None:
        self._inbox = inbox
        self._ledger = ledger
        self._rendering = rendering
        self._session = session
        self._dispatcher = dispatcher
        self._tasks = tasks
        self._wakeup = wakeup
        self._event = event

    def wake(self) -> None:
        """Have the inbox read."""
        self._wakeup.set()

    def is_behind(self) -> bool:
        """Return whether commands wait in the inbox."""
        return bool(self._inbox)

    async def run(self) -> None:
        """Take commands in as they come."""
        inbox = self._inbox
        while True:
            taken = 0
            now = loop_time()  # once for many: each launch keeps it
            while inbox:
                # The command stays in the inbox until it is in the ledger: a thread that dies here loses nothing.
                self.take(inbox[0], now)
                inbox.popleft()
                taken += 1
                if taken % COMMANDS_PER_YIELD == 0:
                    self._dispatcher.wake_lanes()
                    await anyio.lowlevel.checkpoint()
                    now = loop_time()
            if taken:
                self._dispatcher.wake_lanes()
            await self._wakeup.wait_until(loop_time() + INTERVAL)

    def take(self, command: Command | Check, now: float) -> None:
        """
        Take one command in; a bug in it fails its launch and no other.

        :param now: seconds of the loop's clock
        """
        if isinstance(command, Check):
            self._tasks.start_soon(self._check, command)
            return
        try:
            self._ledger.command(self._condensed(command), now)
        except Exception as error:
            log.exception(self._event("engine.command_failed"), command=type(command).__name__)
            launch = command.launch if isinstance(command, Adopt) else command
            tracked = self._ledger.latest(launch.launch_id)
            reason = internal_error(error)
            if tracked is not None:
                self._ledger.abandon(tracked, reason, now)
            elif isinstance(launch, Launch):
                failed = Finished(launch.launch_id, launch.key, success=False, reason=reason, ending=Ending.LOST)
                self._ledger.outbox.append(failed)

    def _condensed(self, command: Command) -> Command:
        match command:
            case Launch():
                return self._rendering.condense(command)
            case Adopt(launch, state, handle_id):
                condensed = self._rendering.condense(launch)
                return command if condensed is launch else Adopt(condensed, state, handle_id)
        return command

    async def _check(self, check: Check) -> None:
        if not check.answer.set_running_or_notify_cancel():
            return  # the caller's time-out is over
        try:
            await self._session.check()
        except BackendError as error:
            check.answer.set_exception(error)
        else:
            check.answer.set_result(None)
