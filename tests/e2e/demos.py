"""The demo as a process, with what it writes and what it leaves behind."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import threading
from pathlib import Path

import psutil
import pytest

LIMIT_SECONDS = 420.0
ON_BATCH = ("--executor", "batch")


class Demo:
    """A demo that runs in a folder of its own, so that what it leaves behind can be seen."""

    def __init__(self, folder: Path, *arguments: str, limit: float = LIMIT_SECONDS) -> None:
        self.folder = folder
        self.mark = secrets.token_hex(8)
        self.lines: list[str] = []
        self.process = subprocess.Popen(
            [sys.executable, "-m", "ecs_async_executor.local.demo", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={**os.environ, "TMPDIR": str(folder), "DEMO_TEST": self.mark},
        )
        self._watchdog = threading.Timer(limit, self.process.send_signal, [signal.SIGTERM])
        self._watchdog.start()

    def read_until(self, words: str) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line)
            if words in line:
                return
        pytest.fail(f"{words!r} never came:\n{self.output}")

    def finish(self) -> int:
        assert self.process.stdout is not None
        self.lines.extend(self.process.stdout)
        status = self.process.wait()
        self.close()
        return status

    def close(self) -> None:
        self._watchdog.cancel()
        self._watchdog.join()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    @property
    def output(self) -> str:
        return "".join(self.lines)

    def left_processes(self) -> list[str]:
        """Everything that the demo started inherits its environment or is given the folder's path."""
        left = []
        for process in psutil.process_iter():
            try:
                environment = process.environ()
                if process.status() == psutil.STATUS_ZOMBIE:
                    continue
            except psutil.Error:
                continue
            if environment.get("DEMO_TEST") == self.mark or str(self.folder) in environment.get(
                "AIRFLOW_HOME", ""
            ):
                left.append(" ".join(process.cmdline()))
        return left

    def left_files(self) -> list[Path]:
        return list(self.folder.iterdir())
