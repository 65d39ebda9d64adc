"""Runs cells: each with a server and one or more measuring processes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from statistics import mean
from typing import IO, Any

from benchmarks import scheduler
from benchmarks.cells import Cell, Figures, Outcome
from benchmarks.deployment import Deployment
from benchmarks.servers import Server, serving

TIMEOUT = 450.0
TIMEOUTS = {"scale": 3600.0}
"""Seconds that a cell may take, where it may take longer."""
FARGATE_RATE = 20.0
"""AWS's default for RunTask on Fargate, per second; the local ECS enforces it."""
FARGATE_BURST = 20.0
BATCH_RATE = 50.0
"""AWS's quota of Batch for all requests together, per second; the local Batch enforces it."""
BATCH_BURST = 50.0
SETTLED = 5.0
"""Seconds after which the first burst is over and only the quota counts."""

OnProgress = Callable[[dict[str, float]], None]


def run(cell: Cell, on_progress: OnProgress, deployment: Deployment) -> Outcome:
    """Measure a cell; a failure becomes the outcome's error."""
    try:
        with serving(cell) as server:
            if cell.scenario == "scheduler":
                figures, series = scheduler.measure(cell, server, deployment, on_progress)
                return Outcome(cell, figures, series=series)
            processes = [_Process(cell, server.url, on_progress) for _ in range(cell.schedulers)]
            parts = [process.result() for process in processes]
            figures = _combined(cell, server, parts) if cell.scenario == "quota" else parts[0]
    except Exception as error:  # noqa: BLE001 - the other cells can still be measured
        return Outcome(cell, {}, f"{type(error).__name__}: {error}")
    return Outcome(cell, figures)


class _Process:
    """A measuring process."""

    def __init__(self, cell: Cell, url: str, on_progress: OnProgress) -> None:
        self._timeout = TIMEOUTS.get(cell.scenario, TIMEOUT)
        self._log: IO[str] = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115 - closed in result()
        self._process = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "benchmarks.measure", cell.to_json(), url],
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )
        self._messages: dict[str, Any] = {}
        self._on_progress = on_progress
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            message = json.loads(line)
            if "progress" in message:
                self._on_progress(message["progress"])
            else:
                self._messages |= message

    def result(self) -> Figures:
        """
        Wait for the process and return its figures.

        :raises RuntimeError: if it has none
        """
        try:
            self._process.wait(self._timeout)
            self._reader.join()
        finally:
            self._process.kill()
            self._log.seek(0)
            said = self._log.read()
            self._log.close()
        if "figures" not in self._messages:
            raise RuntimeError(f"{self._messages.get('error', 'no figures')}\n{said[-2000:]}")
        figures: Figures = self._messages["figures"]
        return figures


def _combined(cell: Cell, server: Server, parts: list[Figures]) -> Figures:
    """Combine the figures of several schedulers on one quota."""
    arrivals = server.arrivals()
    begins = [part.pop("began") for part in parts]
    launched = [part["launched"] for part in parts]
    first, last = max(begins) + SETTLED, min(begins) + cell.seconds
    batch = cell.service == "batch"
    calls, throttled = server.calls("SubmitJob" if batch else "RunTask")
    rate, burst = (BATCH_RATE, BATCH_BURST) if batch else (FARGATE_RATE, FARGATE_BURST)
    figures = {name: mean(part[name] for part in parts) for name in parts[0]}
    figures |= {
        "launched": sum(launched),
        "accepted": len(arrivals),
        "quota_used": sum(arrival <= last for arrival in arrivals) / (rate * (last - min(begins)) + burst),
        "throttled_share": throttled / max(1, calls),
        "jain": sum(launched) ** 2 / (len(launched) * sum(n * n for n in launched)) if any(launched) else 0.0,
        "heartbeat_max_s": max(part["heartbeat_max_s"] for part in parts),
    }
    if last > first:
        sustained = sum(first <= arrival <= last for arrival in arrivals)
        figures["quota_used_settled"] = sustained / (rate * (last - first))
    return figures
