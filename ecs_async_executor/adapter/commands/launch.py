"""
``airflow ecs-async check --launch``: start one container, watch it, read its log, and stop it.

May import everything of this package.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter.commands import in_container
from ecs_async_executor.adapter.commands.course import Course, Limits
from ecs_async_executor.adapter.commands.example import default_queue, example_spec, example_workload
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.backend import Backend, Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services.logs import LogStream, NoLog
from ecs_async_executor.services.redaction import redacted

TIMEOUT = 300.0
"""Seconds that the container has by default."""
LOG_LINES = 20

_POLL = 1.0
_PAUSES = {
    Kind.THROTTLED: 2.0,
    Kind.CONCURRENT: 2.0,
    Kind.AMBIGUOUS: 2.0,
    Kind.UNSENT: 2.0,
    Kind.CAPACITY: 5.0,
}
"""Seconds to wait after an error that may pass, by its kind."""
_STOP_TIMEOUT = 20.0
_LOG_TIMEOUT = 15.0
"""Seconds to find the log and to read it; the latter has a limit of its own."""
_REASON = "airflow ecs-async check --launch is done with it"


def launch(adapter: ServiceAdapter, queue: str | None, config: Any, timeout: float | None) -> None:
    """
    Start one container as a task with this queue and ``executor_config`` would, and print what becomes of it.

    :param queue: Airflow's queue; None for its default
    :param timeout: seconds; then the container is stopped. None: :data:`TIMEOUT`
    :raises SystemExit: if a first task would not run; says why
    """
    queue = queue or default_queue()
    timeout = TIMEOUT if timeout is None else timeout
    launch_id = str(uuid.uuid4())
    key = TaskInstanceKey("ecs_async_check", "launch", f"check__{launch_id}", 1, -1)
    file, variable = adapter.beside_request(example_workload(key, queue)) or (None, None)
    spec = example_spec(
        adapter,
        Launch(launch_id, key, None, 0, launch_id, time.time()),
        _command(key, queue, variable),
        queue,
        config,
    )
    spec = replace(spec, handed_over=file)
    tuning = adapter.tuning
    limits = Limits(timeout, adapter.max_attempts, tuning.permanent_error_grace, tuning.capacity_timeout)
    trial = _Trial(adapter, spec, launch_id)
    _say(f"Launching a container: {spec.placement}.")
    try:
        asyncio.run(trial.run(timeout))
    except (KeyboardInterrupt, asyncio.CancelledError):
        sys.exit("Interrupted.")
    course = trial.course
    if lasted := course.durations():
        _say(f"It took: {lasted}.")
    good, words = course.verdict(limits)
    if good and not trial.stopped:
        good, words = False, f"{words} But it could not be stopped."
    if not good:
        sys.exit(words)
    _say(words)


def _command(key: TaskInstanceKey, queue: str, variable: str | None) -> list[str]:
    """
    Return a harmless command; it ends as a workload's does.

    :param variable: the variable that it expects to be set, None for none
    """
    expected = [variable] if variable else []
    return ["python", "-c", Path(in_container.__file__).read_text(), *expected, example_workload(key, queue)]


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def _cancel_on(*signals: signal.Signals) -> None:
    """Cancel this task on a signal: the default action would leave the container behind."""
    task = asyncio.current_task()
    if task is not None:
        for one in signals:
            asyncio.get_running_loop().add_signal_handler(one, task.cancel)


class _Trial:
    """
    One container, from its request to its end.

    :ivar stopped: nothing of it was left running, as far as can be known
    """

    def __init__(self, adapter: ServiceAdapter, spec: LaunchSpec, launch_id: str) -> None:
        self._adapter = adapter
        self._backend: Backend = adapter.make_backend(launches=True)
        self._spec = spec
        self._launch_id = launch_id
        self._number = 1
        self._in_doubt = False
        self._handle: Handle | None = None
        self._said: set[str] = set()
        self._begun = 0.0
        self.course = Course(adapter.service)
        self.stopped = False

    async def run(self, seconds: float) -> None:
        """Start the container, watch it for so long, read its log, and stop it whatever happens."""
        _cancel_on(signal.SIGTERM, signal.SIGHUP)  # as asyncio does on SIGINT
        try:
            async with self._backend.open():
                self._begun = time.monotonic()
                try:
                    with anyio.move_on_after(seconds):
                        await self._follow(await self._start())
                    self.course.ended_at = self._elapsed()
                    await self._show_log()
                finally:
                    await self._stop()
        except BackendError as error:
            self.course.refusal = error

    def _elapsed(self) -> float:
        return time.monotonic() - self._begun

    def _say_once(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            _say(f"{self._elapsed():8.1f} s  {text}")

    # --- the request

    async def _start(self) -> Observation:
        """Send the request until it is answered; what may pass is waited for."""
        while True:
            try:
                return await self._send()
            except BackendError as error:  # noqa: PERF203
                if error.kind not in _PAUSES:
                    raise
                self.course.refusal = error
                self._say_once(f"waits: {in_words(error)}")
                if self._in_doubt and not self._adapter.service.repeatable:
                    found = await self._search(self._adapter.service.absent_grace)
                    if found is not None:
                        return found
                await anyio.sleep(_PAUSES[error.kind])

    async def _send(self) -> Observation:
        doubtful, self._in_doubt = self._in_doubt, True
        try:
            observation = await self._backend.launch(self._spec, f"{self._launch_id}-{self._number}")
        except BackendError as error:
            # After no answer only an answer to the same client token shows what the first request did.
            self._in_doubt = doubtful or error.kind is Kind.AMBIGUOUS
            if not self._in_doubt:
                self._number += 1  # the service can remember a failure under its client token
            raise
        self._took(observation)
        return observation

    def _took(self, observation: Observation) -> None:
        self._in_doubt = False
        self._handle = observation.handle
        self.course.refusal = None
        _say(f"{self._elapsed():8.1f} s  accepted: {observation.handle.id}")

    async def _search(self, seconds: float) -> Observation | None:
        """Search for the container of a request without an answer, for so long."""
        mark = self._spec.own_mark or self._spec.started_by
        deadline = self._elapsed() + seconds
        while mark is not None and self._elapsed() < deadline:
            for handle in await self._backend.search(self._spec.scope, mark):
                found = Observation(handle, Seen.PENDING)
                self._took(found)
                return found
            await anyio.sleep(_POLL)
        self._in_doubt = False
        return None

    # --- the container

    async def _follow(self, observation: Observation) -> None:
        """Describe the container until its end, or until the service has not known it for too long."""
        handle, course = observation.handle, self.course
        known_at = self._elapsed()
        tuning = self._adapter.tuning
        while True:
            if observation.seen is not Seen.MISSING:
                known_at = self._elapsed()
                if observation.status and course.note(observation, known_at):
                    _say(f"{known_at:8.1f} s  {observation.status}")
                if observation.reason and not course.over:
                    self._say_once(f"waits: {redacted(observation.reason)}")
            elif self._elapsed() - known_at > tuning.missing_grace:
                course.last, course.lost = observation, True
            if course.over or course.lost:
                return
            await anyio.sleep(min(_POLL, tuning.poll_interval))
            try:
                described = await self._backend.describe(handle.scope, [handle.id])
            except BackendError as error:
                if error.kind not in _PAUSES:
                    raise
                self._say_once(f"no status: {in_words(error)}")
                continue
            observation = next(iter(described), observation)

    async def _show_log(self) -> None:
        last = self.course.last
        if last is None or not last.started:
            return
        try:
            with anyio.fail_after(_LOG_TIMEOUT):
                stream, lines = await self._tail(last.handle.id)
        except (NoLog, BackendError, TimeoutError) as error:
            words = str(error) if isinstance(error, NoLog) else in_words(error) or "no answer in time"
            _say(f"Its log cannot be read: {words.rstrip('.')}.")
            return
        _say(f"Its log ({stream}){':' if lines else ' is empty.'}")
        for line in lines:
            _say(f"  | {redacted(line)}")

    async def _tail(self, handle_id: str) -> tuple[LogStream, Sequence[str]]:
        """
        Return the last lines that Airflow's container has printed, and where they are.

        :raises NoLog: if they cannot be shown
        :raises BackendError: if the container cannot be described
        """
        containers = [one for one in await self._adapter.log_streams(handle_id) if one.runs_airflow]
        if not containers:
            raise NoLog("the service names no container with Airflow's command")
        stream = containers[-1].stream
        if stream is None:
            raise NoLog(containers[-1].no_stream)
        async with self._adapter.log_reader().open() as reader:
            return stream, await reader.tail(stream, LOG_LINES)

    # --- the end

    async def _stop(self) -> None:
        """Stop the container unless it has stopped; if its request had no answer, find it first."""
        why = "no answer"
        with anyio.CancelScope(shield=True), anyio.move_on_after(_STOP_TIMEOUT):
            try:
                if self._in_doubt:
                    await self._learn()
                last = self.course.last
                if self._handle is not None and (last is None or last.seen is not Seen.STOPPED):
                    await self._send_stop(self._handle)
                self.stopped = not self._in_doubt
            except BackendError as error:
                why = in_words(error)
        if not self.stopped:
            left = self._handle.id if self._handle is not None else f"the one marked {self._spec.started_by}"
            _say(f"The container may still run, because it could not be stopped ({why}). Stop it by hand: {left}.")

    async def _learn(self) -> None:
        if self._adapter.service.repeatable:
            try:
                await self._send()
            except BackendError as error:
                if error.kind is not Kind.AMBIGUOUS:
                    raise
                await self._send()  # no answer again: the same request once more is all that can be known
        else:
            await self._search(_STOP_TIMEOUT / 2)

    async def _send_stop(self, handle: Handle) -> None:
        for pause in (1.0, 2.0, 0.0):
            try:
                await self._backend.stop(handle, _REASON)
            except BackendError as error:
                if error.kind is not Kind.NOT_FOUND and (error.kind not in _PAUSES or not pause):
                    raise
                if error.kind in _PAUSES:
                    await anyio.sleep(pause)
                    continue
            if not self.course.over:
                _say("The container was told to stop.")
            return
