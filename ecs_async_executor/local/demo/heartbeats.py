"""
How long the heartbeats of a scheduler's executor take, from Airflow's own metric.

The scheduler sends it as StatsD does: a datagram for each heartbeat, to a socket that is read in a thread.
"""

from __future__ import annotations

import socket
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import TracebackType

    from typing_extensions import Self

METRIC = "scheduler.executor_heartbeat_duration"
_WAKE_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Beat:
    """
    One heartbeat of an executor: the scheduler does nothing else meanwhile.

    :param ended: seconds since the epoch
    """

    ended: float
    seconds: float

    @property
    def began(self) -> float:
        """Seconds since the epoch."""
        return self.ended - self.seconds


class Heartbeats:
    """Context manager that receives the heartbeats of one scheduler while it is open."""

    def __init__(self) -> None:
        self._beats: list[Beat] = []
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self._socket.settimeout(_WAKE_SECONDS)
        self._thread = threading.Thread(target=self._receive, name="heartbeats", daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._thread.join()
        self._socket.close()

    @property
    def settings(self) -> dict[str, str]:
        """The part of the environment by which Airflow sends this metric, and no other, here."""
        return {
            "AIRFLOW__METRICS__STATSD_ON": "True",
            "AIRFLOW__METRICS__STATSD_HOST": "127.0.0.1",
            "AIRFLOW__METRICS__STATSD_PORT": str(self._socket.getsockname()[1]),
            "AIRFLOW__METRICS__METRICS_ALLOW_LIST": METRIC,
        }

    def between(self, since: float, until: float) -> list[Beat]:
        """Return the heartbeats that took place, in part at least, between two moments."""
        return [beat for beat in list(self._beats) if beat.ended >= since and beat.began <= until]

    def _receive(self) -> None:
        while not self._closing.is_set():
            try:
                datagram = self._socket.recv(65536)
            except TimeoutError:
                continue
            now = time.time()
            self._beats += [Beat(now, seconds) for seconds in durations(datagram.decode(errors="replace"))]


def durations(datagram: str) -> list[float]:
    """Return the seconds of the heartbeats in a datagram, such as ``airflow.<metric>:3.25|ms``."""
    lines = (line.partition(":") for line in datagram.splitlines())
    return [float(value.partition("|")[0]) / 1000 for name, _, value in lines if name.endswith(METRIC)]
