"""
Runners run containers: the ``Runner`` protocol, and the runner that starts real processes.

Knows no service. A runner gets jobs that have a place, and writes their moments into their
:class:`~ecs_async_executor.local.life.Life`, always under the lock that it was opened with.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from typing import Protocol

from ecs_async_executor.local.life import Container, Exit, Job, Life, NotFetched
from ecs_async_executor.local.memory import MemoryWatch
from ecs_async_executor.local.processes import Process, start_error

EXITED = ("EssentialContainerExited", "Essential container in task exited")
NOT_STARTED = "TaskFailedToStart"
TIMED_OUT = ("TimedOut", "Job attempt duration exceeded timeout")
OUT_OF_MEMORY = "OutOfMemoryError: Container killed due to memory usage"
INHERITED = ("PATH", "HOME", "USER", "LANG", "LC_ALL", "TMPDIR", "TZ", "PYTHONPATH", "VIRTUAL_ENV")
"""Variables of the server that a process gets by default, in place of those that an image sets."""


class Runner(Protocol):
    """Runs jobs. Methods are called with the lock held and never block."""

    def open(self, lock: threading.RLock, clock: Callable[[], float], changed: Callable[[Job], None]) -> None:
        """Keep the lock that guards every ``Life``, the clock, and the function to call after changing a life."""
        ...

    def start(self, job: Job, life: Life, at: float) -> None:
        """Run a job from this time on, which may be in the future; its place is taken from now on."""
        ...

    def stop(self, job: Job, life: Life, at: float) -> None:
        """Ask a job to end; ``life`` already says why."""
        ...

    def lose(self, job: Job, life: Life, at: float) -> None:
        """End a job with its host at this time, now or later, without exit codes; ``life`` already says why."""
        ...

    def forget(self, job: Job) -> None:
        """Drop the data of a job that has ended."""
        ...

    def close(self, timeout: float) -> None:
        """End all jobs within this many seconds. Called without the lock."""
        ...


class SubprocessRunner:
    """
    Runs each container as a process in a session of its own, and writes its output to a file.

    A stop sends SIGTERM to the container's first process, and SIGKILL to all its processes after the container's
    stop timeout. When the first process exits, the processes that it left behind are killed, as in a real
    container. In a job with several containers, one without a command (a sidecar whose image brings its own) idles
    until the job ends. A process that starts a session of its own escapes.

    A container whose processes together take more memory than its limit is killed. There are no images; those that
    are said to be missing fail to be pulled, and their job never starts.

    :param log_dir: the folder of the files ``<job id>.log``; None for a temporary one while the runner is open
    :param start_delay: seconds from placement to start
    :param stop_lag: seconds from the end of the last process to STOPPED
    :param stop_timeout: seconds between SIGTERM and SIGKILL if the container sets none (AWS: 30)
    :param environment: variables for every process; the container's own win
    :param inherit_environment: give processes the whole environment of this process
    :param missing_images: patterns with ``*`` of the names of images that cannot be pulled
    """

    def __init__(
        self,
        *,
        log_dir: str | os.PathLike[str] | None = None,
        start_delay: float = 0.0,
        stop_lag: float = 0.0,
        stop_timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
        inherit_environment: bool = False,
        missing_images: Sequence[str] = (),
    ) -> None:
        self._given_log_dir = Path(log_dir) if log_dir is not None else None
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self.start_delay = start_delay
        self.stop_lag = stop_lag
        self.stop_timeout = stop_timeout
        inherited = {k: v for k, v in os.environ.items() if inherit_environment or k in INHERITED}
        self.environment = {**inherited, **(environment or {})}
        self.missing_images = tuple(missing_images)
        self.memory = MemoryWatch()
        self._groups: dict[str, _Group] = {}
        self._closed = False

    def open(self, lock: threading.RLock, clock: Callable[[], float], changed: Callable[[Job], None]) -> None:
        """Keep the lock that guards every ``Life``, the clock, and the function to call after changing a life."""
        self.lock = lock
        self.clock = clock
        self.changed = changed
        self._closed = False
        if self._given_log_dir is not None:
            self._given_log_dir.mkdir(parents=True, exist_ok=True)
        else:
            self._temporary = tempfile.TemporaryDirectory(prefix="local-ecs-", ignore_cleanup_errors=True)

    @property
    def log_dir(self) -> Path:
        """The folder of the processes' output."""
        if self._given_log_dir is not None:
            return self._given_log_dir
        if self._temporary is None:
            msg = "the runner is not open"
            raise RuntimeError(msg)
        return Path(self._temporary.name)

    def log_path(self, job_id: str) -> Path:
        """Return the path of the file with a job's output."""
        return self.log_dir / f"{job_id}.log"

    def pids(self, job_id: str) -> list[int]:
        """Return the living first processes of a job's containers."""
        with self.lock:
            group = self._groups.get(job_id)
            return [p.pid for p in group.processes.values() if not p.gone] if group else []

    def start(self, job: Job, life: Life, at: float) -> None:
        """Run a job from this time on."""
        life.provisioned_at = at
        life.touch()
        if self._closed:
            life.end(at, NOT_STARTED, "The server is shutting down.")
            return
        group = self._groups[job.id] = _Group(self, job, life, max(0.0, at - self.clock()) + self.start_delay)
        group.thread.start()

    def stop(self, job: Job, life: Life, at: float) -> None:  # noqa: ARG002
        """Send SIGTERM, and SIGKILL after the stop timeout."""
        group = self._groups.get(job.id)
        if group is not None:
            group.stop(at)

    def lose(self, job: Job, life: Life, at: float) -> None:  # noqa: ARG002
        """Kill all processes of a job and record no exit codes."""
        group = self._groups.get(job.id)
        if group is not None:
            group.lose(at)

    def close(self, timeout: float) -> None:
        """End every process: SIGTERM, then SIGKILL once the time is up; all are reaped on return."""
        deadline = time.monotonic() + timeout
        with self.lock:
            self._closed = True
            groups = list(self._groups.values())
            for group in groups:
                group.life.stop_code = group.life.stop_code or "UserInitiated"
                group.life.stopped_reason = group.life.stopped_reason or "The server is shutting down."
                group.stop(self.clock())
        for group in groups:
            group.thread.join(max(0.0, deadline - time.monotonic()))
        with self.lock:
            for group in groups:
                group.kill()
        for group in groups:
            group.thread.join()
        if self._temporary is not None:
            self._temporary.cleanup()

    def forget(self, job: Job) -> None:
        """Drop the data of a job that has ended."""
        self._groups.pop(job.id, None)


class _Group:
    """The processes of one job; every method but :meth:`_run` and :meth:`_wait` is called under the lock."""

    def __init__(self, runner: SubprocessRunner, job: Job, life: Life, delay: float) -> None:
        self.runner = runner
        self.job = job
        self.life = life
        self.delay = delay
        self.processes: dict[str, Process] = {}
        self.cancelled = threading.Event()
        self.lost = False
        self.stopping = False
        self.timers: list[threading.Timer] = []
        self.thread = threading.Thread(target=self._run, name=f"job-{job.id[:8]}", daemon=True)

    def stop(self, at: float) -> None:
        if self.life.stopping_at is None:
            self.life.stopping_at = at
            self.life.touch()
        self.cancelled.set()
        running = [p for p in self.processes.values() if not p.gone]
        for process in running:
            process.terminate()
        if running and not self.stopping:
            self.stopping = True
            self._after(max(map(self._stop_timeout, running)), self._out_of_patience)

    def _stop_timeout(self, process: Process) -> float:
        own = process.container.stop_timeout
        return self.runner.stop_timeout if own is None else own

    def _out_of_patience(self) -> None:
        with self.runner.lock:
            self.kill()

    def lose(self, at: float) -> None:
        delay = at - self.runner.clock()
        if delay <= 0:
            self._vanish()
        else:
            self._after(delay, self._vanish)

    def _vanish(self) -> None:
        with self.runner.lock:
            if self.life.ended_at is not None:
                return
            self.lost = True
            self.life.stopping_at = self.life.stopping_at or self.runner.clock()
            self.life.touch()
            self.kill()

    def kill(self) -> None:
        self.cancelled.set()
        for process in self.processes.values():
            process.kill()

    def _run(self) -> None:
        """Start the containers, wait for all of them, and write down how the job ended."""
        self.cancelled.wait(self.delay)
        try:
            variables = self._fetched()
        except NotFetched as error:
            self.cancelled.wait(error.seconds)
            variables = None
            with self.runner.lock:
                if not self.cancelled.is_set():
                    self.life.stop_code, self.life.stopped_reason = NOT_STARTED, error.reason
        with self.runner.lock:
            if variables is not None and not self.cancelled.is_set():
                self._start_all(variables)
            waiters = [
                threading.Thread(target=self._wait, args=(process,), daemon=True)
                for process in self.processes.values()
            ]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join()
        with self.runner.lock:
            self._finish()

    def _fetched(self) -> dict[str, dict[str, str]]:
        """
        Read the variables of each container that are read before its start.

        :raises NotFetched: if they cannot be read
        """
        found = {}
        for container in self.job.containers:
            if container.fetch is not None:
                fetched = container.fetch()
                self.cancelled.wait(fetched.seconds)
                found[container.name] = dict(fetched.variables)
        return found

    def _start_all(self, variables: Mapping[str, Mapping[str, str]]) -> None:
        for container in self.job.containers:
            if any(fnmatchcase(container.image, pattern) for pattern in self.runner.missing_images):
                self._fail(container, _pull_error(container.image))
                return
        idle = all(not c.command for c in self.job.containers)
        for container in self.job.containers:
            if not container.command and not idle:
                continue
            try:
                environment = {**self.runner.environment, **variables.get(container.name, {})}
                process = Process(container, environment, self.runner.log_path(self.job.id))
            except (OSError, ValueError) as error:
                self._fail(container, start_error(container, error))
                return
            self.processes[container.name] = process
            if container.memory is not None:
                self.runner.memory.watch(
                    process.pid, container.memory << 20, partial(self._out_of_memory, process)
                )
        self.life.started_at = self.runner.clock()
        self.life.touch()
        if self.job.time_limit is not None:
            self._after(self.job.time_limit, self._out_of_time)

    def _fail(self, container: Container, reason: str) -> None:
        """Write down that a container could not start, and with it the job."""
        now = self.runner.clock()
        self.life.exits[container.name] = Exit(now, None, reason)
        self.life.stop_code = NOT_STARTED
        self.life.stopped_reason = reason if not container.essential else "Task failed to start"
        self.life.stopping_at = now
        self.kill()

    def _out_of_memory(self, process: Process) -> None:
        with self.runner.lock:
            process.out_of_memory = True
            process.kill()

    def _out_of_time(self) -> None:
        with self.runner.lock:
            if self.life.stop_code is None:
                self.life.stop_code, self.life.stopped_reason = TIMED_OUT
                self.stop(self.runner.clock())

    def _after(self, seconds: float, what: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, what)
        timer.daemon = True
        self.timers.append(timer)
        timer.start()

    def _wait(self, process: Process) -> None:
        process.wait_for_exit()
        with self.runner.lock:
            self.runner.memory.forget(process.pid)
            process.kill()
            code = process.reap()
            now = self.runner.clock()
            if not self.lost and self.life.stop_code != NOT_STARTED:
                killed = process.out_of_memory and code == 128 + signal.SIGKILL
                self.life.exits[process.container.name] = Exit(now, code, OUT_OF_MEMORY if killed else None)
            if process.container.essential:
                if self.life.stop_code is None:
                    self.life.stop_code, self.life.stopped_reason = EXITED
                self.stop(now)
            self.life.touch()

    def _finish(self) -> None:
        for timer in self.timers:
            timer.cancel()
        now = self.runner.clock()
        life = self.life
        if life.stop_code is None:
            life.stop_code, life.stopped_reason = EXITED
        if not self.lost and life.started_at is not None:
            for container in self.job.containers:
                life.exits.setdefault(container.name, Exit(now, 128 + signal.SIGTERM))
        life.doomed_at = life.doomed_at or now
        life.stopping_at = life.stopping_at or now
        life.ended_at = now
        life.stopped_at = now + self.runner.stop_lag
        life.touch()
        self.runner.changed(self.job)


def _pull_error(image: str) -> str:
    return (
        "CannotPullContainerError: pull image manifest has been retried 1 time(s): "
        f"failed to resolve ref {image}: {image}: not found"
    )
