"""Processes that end when the demo does: each in a session of its own, with a log file, all marked."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import psutil

from ecs_async_executor.local.demo.interrupts import Interrupts

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

MARK = "ECS_ASYNC_EXECUTOR_DEMO"
"""Environment variable by which everything that the demo started can be told, orphans included."""

POLL_SECONDS = 0.05


class DiedError(Exception):
    """
    A process ended that should be running.

    :param name: which
    :param status: its exit status; negative for a signal
    """

    def __init__(self, name: str, status: int) -> None:
        self.name = name
        super().__init__(f"The {name} ended unexpectedly with status {status}")


@dataclass
class Processes:
    """
    Starts processes and ends them, with whatever they started themselves.

    :param logs: folder for one log file per process
    :param environment: of all processes; has to hold :data:`MARK`
    :param interrupts: asked whenever there is something to wait for
    """

    logs: Path
    environment: Mapping[str, str]
    interrupts: Interrupts
    _running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict, init=False)

    def start(
        self, name: str, *arguments: str, settings: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """
        Start a process; its output goes to ``<logs>/<name>.log``.

        :param settings: its environment besides that of all
        """
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                arguments,
                env={**self.environment, **(settings or {})},
                cwd=self.logs,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running[name] = process
        return process

    def run(
        self,
        name: str,
        *arguments: str,
        settings: Mapping[str, str] | None = None,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """
        Run a process to its end.

        :param settings: its environment besides that of all
        :param meanwhile: called again and again until then
        :raises DiedError: if it fails, or another process ends meanwhile
        """
        process = self.start(name, *arguments, settings=settings)
        while (status := process.poll()) is None:
            self.check(but=name)
            if meanwhile is not None:
                meanwhile()
            time.sleep(POLL_SECONDS)
        del self._running[name]
        if status:
            raise DiedError(name, status)

    def log(self, name: str) -> Path:
        """Return where the output of a process goes."""
        return self.logs / f"{name}.log"

    def check(self, *, but: str = "") -> None:
        """
        Look whether everything still runs and nobody wants it to end.

        :param but: a process that may end
        :raises DiedError: if something does not run
        :raises StoppedError: if somebody wants it to end
        """
        self.interrupts.check()
        for name, process in self._running.items():
            status = process.poll()
            if status is not None and name != but:
                raise DiedError(name, status)

    def stop(
        self,
        names: Sequence[str] | None = None,
        *,
        patience: float,
        meanwhile: Callable[[str], object] = lambda _still: None,
    ) -> None:
        """
        End processes: SIGTERM, and after ``patience`` seconds SIGKILL to their groups.

        A second signal from outside ends the patience.

        :param names: which; by default all, and then also everything else that bears the mark
        :param meanwhile: called again and again with the names of those that still run
        """
        stopping = {name: self._running[name] for name in (names or self._running) if name in self._running}
        for process in stopping.values():
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + patience
        while still := [name for name, process in stopping.items() if process.poll() is None]:
            if self.interrupts.insistent or time.monotonic() > deadline:
                break
            meanwhile(", ".join(still))
            time.sleep(POLL_SECONDS)
        for name, process in stopping.items():
            # Also when its leader is gone: others of the group may not be.
            _signal(process, signal.SIGKILL, group=True)
            process.wait()
            del self._running[name]
        if names is None:
            self._sweep()

    def _sweep(self) -> None:
        """Kill what is left, until nothing is: a process can start another one while it is being killed."""
        for _ in range(20):
            orphans = list(self.marked())
            if not orphans:
                return
            for orphan in orphans:
                with contextlib.suppress(psutil.NoSuchProcess):
                    orphan.kill()
            psutil.wait_procs(orphans, timeout=1)

    def marked(self) -> Iterator[psutil.Process]:
        """Find the processes on this machine that bear our mark, but for ourselves."""
        mark = self.environment[MARK]
        for process in psutil.process_iter():
            if process.pid == os.getpid():
                continue
            try:
                bears = process.environ().get(MARK) == mark and process.status() != psutil.STATUS_ZOMBIE
            except psutil.Error:
                continue
            if bears:
                yield process


def _signal(process: subprocess.Popen[bytes], number: signal.Signals, *, group: bool = False) -> None:
    try:
        if group:
            os.killpg(process.pid, number)
        else:
            process.send_signal(number)
    except ProcessLookupError:
        pass
