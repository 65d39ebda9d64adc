"""
Whose memory exceeds its limit: a watch over sessions of processes.

Knows neither services nor runners. The kernel's own limits do not fit here: address space (``RLIMIT_AS``) is not
memory, and a cgroup needs rights that a test has not.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass

import psutil

INTERVAL_SECONDS = 0.1
"""The time between two looks; what is allocated and given back in between is not noticed."""


@dataclass(frozen=True, slots=True)
class _Limit:
    bytes: int
    exceeded: Callable[[], None]


class MemoryWatch:
    """
    Looks at the memory of sessions, in a thread that lives while there is a session to watch. Thread-safe.

    Pages that several processes share are counted once, as in a container.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._limits: dict[int, _Limit] = {}
        self._thread: threading.Thread | None = None
        self._ending = threading.Event()

    def watch(self, session: int, limit: int, exceeded: Callable[[], None]) -> None:
        """
        Call ``exceeded`` whenever the processes of a session are seen with more memory than that.

        :param session: the id of its first process
        :param limit: in bytes
        :param exceeded: is called in the thread of the watch
        """
        with self._lock:
            self._limits[session] = _Limit(limit, exceeded)
            if self._thread is None:
                self._ending.clear()
                self._thread = threading.Thread(target=self._run, name="memory-watch", daemon=True)
                self._thread.start()

    def forget(self, session: int) -> None:
        """Watch a session no longer; without effect if it is not watched."""
        with self._lock:
            self._limits.pop(session, None)
            if not self._limits:
                self._ending.set()

    def _run(self) -> None:
        while True:
            with self._lock:
                if not self._limits:
                    self._thread = None
                    return
                limits = dict(self._limits)
                self._ending.clear()
            members = _members(limits)
            for session, limit in limits.items():
                if _exceeds(members[session], limit.bytes):
                    limit.exceeded()
            self._ending.wait(INTERVAL_SECONDS)


def _members(sessions: Collection[int]) -> dict[int, list[psutil.Process]]:
    """Return the processes of each session."""
    found: dict[int, list[psutil.Process]] = {session: [] for session in sessions}
    for pid in psutil.pids():
        with contextlib.suppress(ProcessLookupError, PermissionError, psutil.Error):
            session = os.getsid(pid)
            if session in found:
                found[session].append(psutil.Process(pid))
    return found


def _exceeds(processes: list[psutil.Process], limit: int) -> bool:
    """Return whether processes have more bytes than that in memory, those that they share counted once."""
    if sum(_read(process, lambda p: p.memory_info().rss) for process in processes) <= limit:
        return False
    # Costs twenty times as much, and is never more.
    return sum(_read(process, _own) for process in processes) > limit


def _own(process: psutil.Process) -> int:
    full = process.memory_full_info()
    own: int = getattr(full, "pss", None) or full.uss
    return own


def _read(process: psutil.Process, what: Callable[[psutil.Process], int]) -> int:
    with contextlib.suppress(psutil.Error):
        return what(process)
    return 0
