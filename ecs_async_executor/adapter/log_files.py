"""
Files beside a task's log, which Airflow shows in the same tab: written locally, or by Airflow's remote log IO.

May import ``compat``, Airflow and structlog. Writing can take long: it happens in daemon threads, which no end of
a process waits for, and of too many texts at once the newest are dropped.
"""

from __future__ import annotations

import copy
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import structlog

from ecs_async_executor.adapter import compat

log = structlog.get_logger(__name__)

SUFFIX: Final = ".container.log"
"""Airflow's readers list a try's log by prefix."""
THREADS: Final = 2
WAITING_MAX: Final = 100


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

    def write(self, log_path: str, text: str) -> None:
        """
        Have a text written beside a task's log, or dropped if too many wait.

        :param log_path: of the task's log, below Airflow's log folder
        """
        with self._lock:
            if len(self._waiting) >= WAITING_MAX:
                log.warning(self._event("log_file.dropped"), path=log_path)
                return
            self._waiting.append((log_path + SUFFIX, text))
            if self._threads >= THREADS:
                return
            self._threads += 1
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
                log.warning(self._event("log_file.failed"), path=path, error=f"{type(error).__name__}: {error}")


def write(path: str, text: str) -> None:
    """
    Append a text to a file of Airflow's task logs, where the configured log IO keeps them.

    :param path: below Airflow's log folder
    :raises ValueError: if it leads out of it
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

    file = Path(conf.get("logging", "base_log_folder"), path)
    folders, files = (
        int(conf.get("logging", f"file_task_handler_new_{what}_permissions", fallback=default), 8)
        for what, default in (("folder", "0o775"), ("file", "0o664"))
    )
    # A later try of the task, which may be another user's, writes there too.
    FileTaskHandler._prepare_log_folder(file.parent, folders)  # noqa: SLF001 - as Airflow prepares it
    new = not file.exists()
    with file.open("a", encoding="utf-8") as opened:
        opened.write(text)
    if new:
        file.chmod(files)
