"""
A scheduler in a process of its own: Airflow decides at its import where metrics go.

``python -m tests.adapter.emitting`` runs one task that succeeds and one that fails, on ECS and on Batch, at the
endpoint that the environment names. It ends once the metrics of both executors have been sent.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import metrics
from ecs_async_executor.engine import pinging
from tests.adapter.scripted import make_workload, queue

TIME_LIMIT = 60.0


def run(executor: Any) -> None:
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
    while time.monotonic() < until:
        executor.heartbeat()
        time.sleep(0.02)
    executor.end()


def main() -> None:
    metrics.METRICS_INTERVAL = pinging.WINDOW = 0.5
    for executor in (AsyncEcsExecutor, AsyncBatchExecutor):
        run(executor())
    if sys.argv[1:] == ["otel"]:
        from opentelemetry.metrics import get_meter_provider

        provider: Any = get_meter_provider()
        provider.force_flush()


if __name__ == "__main__":
    main()
