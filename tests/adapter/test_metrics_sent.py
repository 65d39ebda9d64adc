"""The metrics as they arrive: a StatsD socket and an OpenTelemetry collector, with Airflow's own clients."""

from __future__ import annotations

import gzip
import importlib
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ecs_async_executor.adapter.compat import AIRFLOW_VERSION
from ecs_async_executor.core.metrics import METRICS, Measure
from tests.adapter.emitting import TIMED

pytest.importorskip("moto", reason="needs the extra 'local'")

if TYPE_CHECKING:
    from ecs_async_executor.local import LocalEcs

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
PREFIXES = ("ecs_executor", "batch_executor")
SCRIPT: list[dict[str, Any]] = [
    {"command": '"task_id":"bad"', "exit_code": 3, "duration": 1.0},
    {"duration": 1.0},
]
COUNTED = {"launches": 2, "api.launch.ok": 2, "failures.exit_code": 1, "failures.oom": 0, "engine_restarts": 0}


def emit(local_ecs: Callable[..., LocalEcs], *arguments: str, **metrics: object) -> None:
    """Let a scheduler in a process of its own do its work with these options of ``[metrics]``."""
    local_ecs(script=SCRIPT)
    options = {f"AIRFLOW__METRICS__{name.upper()}": str(value) for name, value in metrics.items()}
    subprocess.run(
        [sys.executable, "-m", "tests.adapter.emitting", *arguments],
        cwd=ROOT,
        env={**os.environ, **options, "PYTHONPATH": str(ROOT)},
        check=True,
        timeout=180,
    )


@contextmanager
def statsd_server() -> Iterator[tuple[int, list[str]]]:
    """Listen as a StatsD server does."""
    packets: list[str] = []
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        ended = threading.Event()

        def listen() -> None:
            while not (ended.is_set() and not select.select([server], [], [], 0.1)[0]):
                if select.select([server], [], [], 0.1)[0]:
                    packets.append(server.recv(65536).decode())

        thread = threading.Thread(target=listen)
        thread.start()
        try:
            yield server.getsockname()[1], packets
        finally:
            ended.set()
            thread.join()


def test_a_statsd_server_gets_every_metric_by_its_name(local_ecs: Callable[..., LocalEcs]) -> None:
    pytest.importorskip("statsd")
    with statsd_server() as (port, packets):
        emit(local_ecs, statsd_on=True, statsd_host="127.0.0.1", statsd_port=port, statsd_prefix="airflow")
    lines = [line for packet in packets for line in packet.splitlines()]
    kinds = {Measure.GAUGE: "g", Measure.COUNTER: "c", Measure.TIMER: "ms"}
    for prefix in PREFIXES:
        values: dict[tuple[str, str], list[float]] = {}
        for line in lines:
            if match := re.fullmatch(rf"airflow\.{prefix}\.([a-z_.]+):([-\d.]+)\|(\w+)", line):
                values.setdefault((match[1], match[3]), []).append(float(match[2]))
        known = {(one.name, kinds[one.measure]) for one in METRICS}
        assert values.keys() <= known
        assert {one for one in known if one[1] != "ms"} <= values.keys()
        assert {(name, "ms") for name in TIMED} <= values.keys()
        assert {name: sum(values[name, "c"]) for name in COUNTED} == COUNTED
        assert max(values["active", "g"]) == 2
        assert len(values["launch.duration", "ms"]) == 2
        assert all(one > 0.0 for one in values["start.duration", "ms"])


class _Collector(BaseHTTPRequestHandler):
    received: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def collector() -> Iterator[tuple[int, list[bytes]]]:
    """Take OTLP as an OpenTelemetry collector does."""
    received: list[bytes] = []
    handler = type("Collector", (_Collector,), {"received": received})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_address[1], received
        finally:
            server.shutdown()
            thread.join()


def metrics_in(body: bytes) -> Iterator[Any]:
    protocol = importlib.import_module("opentelemetry.proto.collector.metrics.v1.metrics_service_pb2")
    request = protocol.ExportMetricsServiceRequest.FromString(body)
    for resource in request.resource_metrics:
        for scope in resource.scope_metrics:
            yield from scope.metrics


def test_an_opentelemetry_collector_gets_every_metric_by_its_name(local_ecs: Callable[..., LocalEcs]) -> None:
    pytest.importorskip("opentelemetry.exporter.otlp.proto.http")
    with collector() as (port, received):
        emit(
            local_ecs,
            "otel",
            otel_on=True,
            otel_host="127.0.0.1",
            otel_port=port,
            otel_interval_milliseconds=500,
        )
    # From 3.3 on Airflow sends a timing as a histogram, before as a gauge of the last value.
    timer = "exponential_histogram" if AIRFLOW_VERSION >= (3, 3) else "gauge"
    kinds = {Measure.GAUGE: "gauge", Measure.COUNTER: "sum", Measure.TIMER: timer}
    latest: dict[tuple[str, str], Any] = {}
    for body in received:
        for metric in metrics_in(body):
            kind = metric.WhichOneof("data")
            latest[metric.name, kind] = getattr(metric, kind).data_points[-1]
    for prefix in PREFIXES:
        start = f"airflow.{prefix}."
        known = {(start + one.name, kinds[one.measure]) for one in METRICS}
        assert {one for one in latest if one[0].startswith(start)} <= known
        assert {(start + one.name, kinds[one.measure]) for one in METRICS if one.measure is not Measure.TIMER} <= (
            latest.keys()
        )
        assert {(start + name, timer) for name in TIMED} <= latest.keys()
        assert {name: latest[start + name, "sum"].as_int for name in COUNTED} == COUNTED
        if timer != "gauge":
            assert latest[start + "launch.duration", timer].count == 2
