"""The timers that Airflow sends as statsd metrics, received on a UDP port of this machine."""

from __future__ import annotations

import socket
import threading
import time
from collections import defaultdict
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

PREFIX = "airflow"
BUFFER = 4 << 20
"""Bytes that wait while this process does something else."""


class Timers:
    """Receives metrics while it is open and keeps the timers."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(0.2)
        self._seen: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
        self._open = True
        self._thread = threading.Thread(target=self._receive, name="timers", daemon=True)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that make Airflow send its metrics here."""
        host, port = self._socket.getsockname()
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": host,
            "AIRFLOW__METRICS__STATSD_PORT": str(port),
            "AIRFLOW__METRICS__STATSD_PREFIX": PREFIX,
        }

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        self._thread.join()
        self._socket.close()

    def of(self, name: str, since: float = 0.0, until: float = float("inf")) -> list[float]:
        """Return the seconds that a timer has measured; only what ended between two moments (``time.time()``)."""
        return [seconds for when, seconds in list(self._seen[name]) if since <= when <= until]

    def _receive(self) -> None:
        while self._open:
            try:
                data = self._socket.recv(1 << 16)
            except TimeoutError:
                continue
            now = time.time()
            for line in data.decode(errors="replace").splitlines():
                name, _, measured = line.partition(":")
                value, _, kind = measured.partition("|")
                if kind.startswith("ms"):
                    self._seen[name.removeprefix(f"{PREFIX}.")].append((now, float(value) / 1e3))
