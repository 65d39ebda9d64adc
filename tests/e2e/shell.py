"""A shell that runs the commands of a page, with ports that are free on this machine."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

from ecs_async_executor.local.demo.airflow_home import FOREIGN

PATIENCE = 180
"""Seconds that a block of commands may take, and that a test waits for what it leads to."""
MARK = "ECS_ASYNC_EXECUTOR_PAGE"
"""Environment variable by which what a shell has started can be told."""


def commands_of(page: str) -> list[str]:
    """Return the blocks that a reader types."""
    return re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


class Shell:
    """A shell that runs what a person types, one block after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._ports = {"8080": str(free_port()), "5055": str(free_port())}
        self._mark = secrets.token_hex(8)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        here = os.pathsep.join((str(Path(sys.executable).parent), kept.get("PATH", os.defpath)))
        local = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", MARK: self._mark}
        self._process = subprocess.Popen(
            ["bash", "-e"],  # noqa: S607 - as a person starts it
            cwd=folder,
            env={**kept, **local, "PATH": here, "COLUMNS": "200"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def here(self, text: str) -> str:
        """Return a text of the page with ports that are free on this machine."""
        for port, free in self._ports.items():
            text = text.replace(port, free)
        return text

    def type(self, block: str) -> str:
        """Run a block; return what it prints."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, self._process.kill)
        watchdog.start()
        printed = ""
        try:
            self._process.stdin.write(f"{self.here(block)}printf '\\ndone: {self._mark}\\n'\n")
            self._process.stdin.flush()
            for line in self._process.stdout:
                if line == f"done: {self._mark}\n":
                    return printed
                printed += line
        finally:
            watchdog.cancel()
            watchdog.join()
        pytest.fail(f"the shell ended with {self._process.wait()}:\n{printed}\n{self.logs()}")

    def logs(self) -> str:
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in self.folder.glob("*.log"))

    def left(self) -> list[psutil.Process]:
        """Return what the shell has started, and what that has started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                ours = process.environ().get(MARK) == self._mark and process.pid != self._process.pid
                if ours and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        for process in self.left():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.send_signal(signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
