"""
A scheduler in a process of its own: Airflow decides at its import where metrics go.

``python -m tests.adapter.emitting`` runs one task that succeeds and one that fails, on ECS and on Batch, at the
endpoint that the environment names. It ends once the metrics of both executors have been sent.
"""

from __future__ import annotations

import sys
import time
from typing import Any
from unittest import mock

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import metrics
from ecs_async_executor.core.metrics import Metric
from ecs_async_executor.engine import pinging
from tests.adapter.scripted import make_workload, queue

TIME_LIMIT = 60.0
TIMED = {"launch.duration", "start.duration", "detection.duration", "api.launch.duration", "api.describe.duration"}
"""Durations that a window has; the machine can be so busy that it is told late."""


def run(executor: Any, sent: set[str]) -> None:
    sent.clear()
    executor.start()
    queue(executor, make_workload("good"), make_workload("bad"))
    deadline = time.monotonic() + TIME_LIMIT
    over = 0
    while over < 2:
        assert time.monotonic() < deadline, "it did not end"
        executor.heartbeat()
        over += sum(str(state) != "running" for state, _ in executor.get_event_buffer().values())
        time.sleep(0.02)
    # What has been counted by now is due, and so are the durations of this window.
    until = time.monotonic() + 1.5
    while time.monotonic() < until or not sent >= TIMED:
        assert time.monotonic() < deadline, f"not sent: {TIMED - sent}"
        executor.heartbeat()
        time.sleep(0.02)
    executor.end()


def main() -> None:
    metrics.METRICS_INTERVAL = pinging.WINDOW = 0.5
    sent: set[str] = set()
    send = metrics.Metrics._send

    def noted(self: metrics.Metrics, metric: Metric, value: float) -> None:
        sent.add(metric.name)
        send(self, metric, value)

    with mock.patch.object(metrics.Metrics, "_send", noted):
        for executor in (AsyncEcsExecutor, AsyncBatchExecutor):
            run(executor(), sent)
    if sys.argv[1:] == ["otel"]:
        from opentelemetry.metrics import get_meter_provider

        provider: Any = get_meter_provider()
        provider.force_flush()


if __name__ == "__main__":
    main()
