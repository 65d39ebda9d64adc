"""Starts the servers, each in a process of its own, and asks them for their figures."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.cells import Cell

START_TIMEOUT = 60.0
THROTTLED = ("ThrottlingException", "TooManyRequestsException")
"""The codes of ECS and of Batch."""
FARGATE = {"FARGATE": (20.0, 20.0), "modify": (40.0, 100.0), "read": (20.0, 100.0)}
"""AWS's default quotas: calls per second, and in a burst."""
RAISED = {"FARGATE": (200.0, 200.0), "modify": (400.0, 400.0), "read": (20.0, 100.0)}
_DEFINITION = {
    "family": "benchmark",
    "containerDefinitions": [{"name": "airflow", "image": "airflow"}],
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["EC2", "FARGATE"],
    "cpu": "256",
    "memory": "512",
}


@dataclass(frozen=True)
class Server:
    """A server that answers at ``url``."""

    url: str
    kind: str

    def ask(self, path: str, data: Any = None) -> Any:
        """Make a request to the server's control path."""
        request = urllib.request.Request(  # noqa: S310 - our own address
            f"{self.url}/_local/{path}",
            data=None if data is None else json.dumps(data).encode(),
            method="GET" if data is None else "POST",
        )
        with urllib.request.urlopen(request, timeout=60) as reply:  # noqa: S310
            return json.load(reply)

    def preload(self, number: int) -> list[str]:
        """
        Have the server run this number of tasks without a request for them.

        :returns: their ARNs
        """
        assert self.kind == "stub"
        arns: list[str] = self.ask("preload", {"number": number})["arns"]
        return arns

    def arrivals(self) -> list[float]:
        """Return the times at which RunTask requests came (stub) or containers were accepted (local ECS)."""
        if self.kind == "stub":
            return sorted(self.ask("arrivals")["arrivals"])
        return sorted(entry["created_at"] for entry in self.ask("ledger")["entries"])

    def set_quotas(self, **rates: tuple[float, float]) -> None:
        """Enforce rates from now on: calls per second and burst, by bucket; other buckets have no limit."""
        assert self.kind == "stub"
        self.ask("quotas", rates)

    def play(self, dsn: str | None) -> None:
        """Play the containers of the workloads that come from now on in a database; None: no more."""
        assert self.kind == "stub"
        self.ask("play", {"dsn": dsn})

    def refused(self) -> int:
        """Return the number of played containers that Airflow would not have let run."""
        return len(self.ask("played")["refused"])

    def throttled(self, operation: str) -> list[float]:
        """Return the times at which requests of an operation were throttled."""
        assert self.kind == "stub"
        return [when for when, what in self.ask("throttled")["throttled"] if what == operation]

    def polled(self) -> int:
        """Return the number of tasks or jobs that DescribeTasks and DescribeJobs asked for."""
        if self.kind == "stub":
            return int(self.ask("figures")["items"])
        operations = self.ask("statistics")["operations"]
        return sum(int(operations.get(name, {}).get("items", 0)) for name in ("DescribeTasks", "DescribeJobs"))

    def calls(self, operation: str) -> tuple[int, int]:
        """Return the number of an operation's requests, and of those that were throttled."""
        if self.kind == "stub":
            calls = int(self.ask("figures")["calls"].get(operation, 0))
            return calls, len(self.throttled(operation))
        seen = self.ask("statistics")["operations"].get(operation, {"calls": 0, "errors": {}})
        return int(seen["calls"]), sum(int(seen["errors"].get(code, 0)) for code in THROTTLED)


@contextmanager
def serving(cell: Cell) -> Iterator[Server]:
    """Run the server that a cell needs while this is open."""
    with tempfile.TemporaryDirectory(prefix="ecs-bench-") as folder:
        port_file = Path(folder, "port")
        process = subprocess.Popen(  # noqa: S603
            [sys.executable, *_command(cell, Path(folder)), "--port-file", str(port_file)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        try:
            yield Server(f"http://127.0.0.1:{_port(process, port_file)}", cell.server)
        finally:
            process.terminate()
            process.communicate(timeout=30)


def _command(cell: Cell, folder: Path) -> list[str]:
    latency = ["--latency", str(cell.latency)]
    if cell.server == "stub":
        ends = [] if cell.duration is None else ["--duration", str(cell.duration)]
        if cell.scenario == "events":
            return ["-m", "benchmarks.eventful", *latency, *ends]
        return ["-m", "benchmarks.stub", *latency, *ends, "--failing", str(cell.failing)]
    script, definition = folder / "script.json", folder / "definition.json"
    script.write_text(json.dumps([{"duration": cell.duration}]))
    definition.write_text(json.dumps(_DEFINITION))
    limits = ["--rate-limits"] if cell.rate_limits else []
    return [
        *("-m", "ecs_async_executor.local", "--runner", "scripted", "--script", str(script), *latency, *limits),
        *("--task-definition", str(definition), "--region", "us-east-1"),
    ]


def _port(process: subprocess.Popen[bytes], port_file: Path) -> int:
    deadline = time.monotonic() + START_TIMEOUT
    while not port_file.exists():
        if process.poll() is not None:
            _, said = process.communicate()
            raise RuntimeError(f"the server ended: {said.decode(errors='replace')[-1000:]}")
        if time.monotonic() > deadline:
            raise TimeoutError("the server does not start")
        time.sleep(0.02)
    return int(port_file.read_text())
