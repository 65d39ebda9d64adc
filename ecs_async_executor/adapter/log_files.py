"""
Files beside a task's log, which Airflow shows in the same tab: written locally, or by Airflow's remote log IO.

May import ``compat``, ``core.last_words``, Airflow and structlog. Writing can take long: it happens in daemon
threads, which no end of a process waits for, and of too many texts at once the newest are dropped.
"""

from __future__ import annotations

import copy
import math
import os
import stat
import tempfile
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ecs_async_executor.adapter import compat
from ecs_async_executor.core import last_words

log = structlog.get_logger(__name__)

SUFFIX: Final = ".container.log"
"""Airflow's readers list a try's log by prefix."""
THREADS: Final = 2
WAITING_MAX: Final = 100
TASK_LOG_MAX: Final = 1_000_000
"""Bytes of the end of a task's log that are compared with what its container has printed last."""
LINES_INTERVAL: Final = 60.0
"""Seconds between two log lines about the same: a folder that cannot be written fails each file."""


class LogFiles:
    """
    Writes texts in threads of its own.

    :param event: makes the full name of a log event
    """

    def __init__(self, event: Callable[[str], str]) -> None:
        self._event = event
        self._waiting: deque[tuple[str, str]] = deque()
        self._threads = 0
        self._lock = threading.Lock()
        self._untold: Counter[str] = Counter()
        self._told_at: dict[str, float] = {}

    def write(self, log_path: str, text: str) -> None:
        """
        Have a text written beside a task's log, or dropped if too many wait.

        :param log_path: of the task's log, below Airflow's log folder
        """
        with self._lock:
            if too_many := len(self._waiting) >= WAITING_MAX:
                begin = False
            else:
                self._waiting.append((log_path + SUFFIX, text))
                begin = self._threads < THREADS
                self._threads += begin
        if too_many:
            self._tell("log_file.dropped", path=log_path)
        if begin:
            self._begin()

    def _begin(self) -> None:
        threading.Thread(target=self._work, name="ecs-async-log-files", daemon=True).start()

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._waiting:
                    self._threads -= 1
                    return
                path, text = self._waiting.popleft()
            try:
                write(path, text)
            except Exception as error:  # noqa: BLE001 - the event log has the last of the lines
                self._tell("log_file.failed", path=path, error=f"{type(error).__name__}: {error}")

    def _tell(self, event: str, **latest: str) -> None:
        """Log how many files something has happened to since the last line about it, and the latest of them."""
        now = time.monotonic()
        with self._lock:
            self._untold[event] += 1
            if now < self._told_at.get(event, -math.inf) + LINES_INTERVAL:
                return
            self._told_at[event] = now
            files = self._untold.pop(event)
        log.warning(self._event(event), files=files, **latest)


def write(path: str, text: str) -> None:
    """
    Append a text to a file of Airflow's task logs, where the configured log IO keeps them.

    :param path: below Airflow's log folder
    :raises ValueError: if it leads out of it
    :raises OSError: if it cannot be written
    """
    if ".." in Path(path).parts or Path(path).is_absolute():
        raise ValueError(f"{path} is not below the log folder")
    remote = compat.remote_logs()
    if remote is None:
        _append(path, text)
    elif _takes_files(remote):
        with tempfile.TemporaryDirectory(prefix="ecs-async-executor-") as folder:
            file = Path(folder, path)
            file.parent.mkdir(parents=True)
            file.write_text(text, encoding="utf-8")
            # From its own folder: an upload from Airflow's deletes the folder of the task's log there.
            uploading = copy.copy(remote)
            uploading.base_log_folder, uploading.delete_local_copy = Path(folder), False
            uploading.upload(path, None)


def _takes_files(remote: Any) -> bool:
    """Return whether a log IO uploads files: S3, GCS and WASB do, CloudWatch and search engines do not."""
    return all(hasattr(remote, name) for name in ("write", "base_log_folder", "delete_local_copy"))


def _append(path: str, text: str) -> None:
    from airflow.configuration import conf
    from airflow.utils.log.file_task_handler import FileTaskHandler

    folder = Path(conf.get("logging", "base_log_folder"))
    file = folder / path
    # Where containers share the folder, a task can put a link there, to a file that only the scheduler may write.
    if not file.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{path} is not below the log folder: a folder of it is a link")
    text = last_words.besides(text, end_of(path.removesuffix(SUFFIX)))
    folders, files = (
        int(conf.get("logging", f"file_task_handler_new_{what}_permissions", fallback=default), 8)
        for what, default in (("folder", "0o775"), ("file", "0o664"))
    )
    # A later try of the task, which may be another user's, writes there too.
    FileTaskHandler._prepare_log_folder(file.parent, folders)  # noqa: SLF001 - as Airflow prepares it
    new = not file.exists()
    with open(file, "a", encoding="utf-8", opener=_open_no_link) as opened:
        opened.write(text)
        if new:
            os.fchmod(opened.fileno(), files)


def end_of(log_path: str) -> str:
    """
    Return the end of a task's log; empty if it is not here, as where containers keep their logs elsewhere.

    :param log_path: below Airflow's log folder
    """
    from airflow.configuration import conf

    try:
        with open(Path(conf.get("logging", "base_log_folder"), log_path), "rb", opener=_open_no_link) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                return ""
            opened.seek(max(0, opened.seek(0, os.SEEK_END) - TASK_LOG_MAX))
            return opened.read(TASK_LOG_MAX).decode(errors="replace")
    except OSError:
        return ""


def _open_no_link(path: str, flags: int) -> int:
    """Open a file, but neither what a link leads to nor, for ever, a pipe that nobody reads."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
