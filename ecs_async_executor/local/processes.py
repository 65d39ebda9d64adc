"""
The first process of a container: started, asked to end, killed with all that it started, and reaped.

Knows no service. :mod:`runners` decides when.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import psutil

from ecs_async_executor.local.life import Container

KILL_ROUNDS = 200
"""How often to search a session for survivors, a millisecond apart: forks can win the first rounds."""


class Process:
    """
    The first process of a container; only :meth:`reap` reaps it, so no signal can hit another process.

    :param environment: its variables, besides the container's own
    :param log: the file that it appends its output to
    :raises OSError: if the command cannot be started
    :raises ValueError: likewise
    """

    def __init__(self, container: Container, environment: Mapping[str, str], log: Path) -> None:
        if not container.command:
            raise ValueError("no command specified")
        self.container = container
        self.gone = False
        self.out_of_memory = False
        with log.open("ab", buffering=0) as output:  # several processes append to it
            self._popen = subprocess.Popen(
                list(container.command),
                env={**environment, **container.environment},
                cwd=container.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid = self._popen.pid

    def wait_for_exit(self) -> None:
        """Wait until it has exited, and leave it to :meth:`reap`."""
        if hasattr(os, "waitid"):
            os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOWAIT)
        else:
            self._popen.wait()

    def terminate(self) -> None:
        """Send SIGTERM to it, not to what it has started."""
        if not self.gone:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """Kill the whole session: a supervisor may have put its children into groups of their own."""
        for _ in range(KILL_ROUNDS):
            members = () if self.gone else session_members(self.pid)
            if not members:
                return
            for pid in members:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.001)

    def reap(self) -> int:
        """Return its exit code, as a shell gives it."""
        self.gone = True
        code = self._popen.wait()
        return 128 - code if code < 0 else code


def session_members(session: int) -> list[int]:
    """Return the living processes of a session, without zombies."""
    members = []
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            if os.getsid(pid) == session and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                members.append(pid)
    return members


def start_error(container: Container, error: Exception) -> str:
    """Say in the words of a container runtime why the process of a container could not be started."""
    program = container.command[0] if container.command else ""
    if isinstance(error, FileNotFoundError) and error.filename == program:
        why = f'exec: "{program}": executable file not found in $PATH: unknown'
    elif isinstance(error, PermissionError):
        why = f'exec: "{program}": permission denied: unknown'
    else:
        why = str(error)
    return (
        "CannotStartContainerError: Error response from daemon: failed to create task for container: "
        f"failed to create shim task: OCI runtime create failed: runc create failed: {why}"
    )
