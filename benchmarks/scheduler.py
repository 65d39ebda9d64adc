"""
End to end: a real scheduler on PostgreSQL runs a DAG of one task that is mapped many times.

Airflow's database says afterwards what users have seen; the scheduler's own metrics say what it did.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from benchmarks.cells import Cell, Figures, Series
from benchmarks.deployment import Airflow, Deployment, dag_of
from benchmarks.meters import percentile
from benchmarks.servers import FARGATE, RAISED, Server
from benchmarks.timers import Timers

START_TIMEOUT = 120.0
RUN_TIMEOUT = 400.0
LOOK = 0.2
"""Seconds between two looks at the run."""
LOOP = "scheduler.scheduler_loop_duration"
HEARTBEAT = "scheduler.executor_heartbeat_duration"
CRITICAL = "scheduler.critical_section_duration"
IDLE_LOOPS = 3
"""Loops of a scheduler that has started and waits for work."""


def measure(
    cell: Cell, server: Server, deployment: Deployment, on_progress: Callable[[dict[str, float]], None]
) -> tuple[Figures, Series]:
    """
    Run a DAG of ``size`` task instances to its success.

    :returns: the figures, and what they were in each second of the run
    """
    with deployment.copy() as airflow, Timers() as timers:
        settings = {
            **{f"AIRFLOW__{name}": value for name, value in cell.airflow.items()},
            **{f"AIRFLOW__ECS_ASYNC_EXECUTOR__{name.upper()}": value for name, value in cell.tuning.items()},
            **timers.environment,
            "AWS_ENDPOINT_URL": server.url,
        }
        process = psutil.Process(airflow.start_scheduler(cell.subject, settings))
        _until(airflow, lambda: len(timers.of(LOOP)) >= IDLE_LOOPS, START_TIMEOUT)
        server.play(airflow.dsn)
        server.set_quotas(**(FARGATE if cell.rate_limits else RAISED))
        dag = dag_of(cell.size)

        def is_over() -> bool:
            on_progress({"launched": len(server.arrivals())})
            return bool(airflow.rows("SELECT 1 FROM dag_run WHERE state IN ('success', 'failed')"))

        cpu = _cpu(process)
        begun = time.time()
        airflow.rows("UPDATE dag SET is_paused = false WHERE dag_id = :dag", dag=dag)
        _until(airflow, is_over, RUN_TIMEOUT)
        cpu = _cpu(process) - cpu
        figures, series = _figures(cell, server, airflow, begun)
        server.play(None)
        ended = begun + figures["until_success_s"]
        loops, heartbeats = (timers.of(name, begun, ended) for name in (LOOP, HEARTBEAT))
        figures |= {
            "loops": len(loops),
            "loop_p50_s": percentile(loops, 0.5),
            "loop_max_s": max(loops),
            "heartbeat_p50_s": percentile(heartbeats, 0.5),
            "heartbeat_max_s": max(heartbeats, default=0.0),
            "heartbeats_s": sum(heartbeats),
            "critical_section_s": sum(timers.of(CRITICAL, begun, ended)),
            "cpu_s": cpu,
            "cpu_share": cpu / (ended - begun),
        }
    return figures, series


def _until(airflow: Airflow, condition: Callable[[], Any], timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        airflow.check()
        if time.monotonic() > deadline:
            raise TimeoutError(f"not within {timeout:g} s: {airflow.said()}")
        time.sleep(LOOK)


def _cpu(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _figures(cell: Cell, server: Server, airflow: Airflow, begun: float) -> tuple[Figures, Series]:
    """Return what the database and the server say of the run."""
    state, over = airflow.rows("SELECT state, extract(epoch FROM end_date) FROM dag_run")[0]
    if state != "success":
        raise RuntimeError(f"the run ended as {state}: {airflow.said()}")
    tries = airflow.rows(
        "SELECT extract(epoch FROM queued_dttm), extract(epoch FROM start_date), state, try_number "
        "FROM task_instance"
    )
    if (ended := sum(state == "success" and number == 1 for _, _, state, number in tries)) != cell.size:
        raise RuntimeError(f"{ended} of {cell.size} succeeded at their first try: {airflow.said()}")
    if refused := server.refused():
        raise RuntimeError(f"{refused} containers were started for task instances that were not queued")
    arrivals = server.arrivals()
    if len(arrivals) != cell.size:
        raise RuntimeError(f"{len(arrivals)} containers were started for {cell.size} task instances")
    starts = [(float(started) - begun, float(started) - float(queued)) for queued, started, _, _ in tries]
    waits = [wait for _, wait in starts]
    after = [since for since, _ in starts]
    calls, throttled = server.calls("RunTask")
    rate, burst = (FARGATE if cell.rate_limits else RAISED)["FARGATE"]
    span = arrivals[-1] - arrivals[0]
    return {
        "until_success_s": float(over) - begun,
        "first_launch_s": arrivals[0] - begun,
        "launches_per_s": (cell.size - 1) / span,
        "quota_used": cell.size / (burst + rate * span),
        "throttled_share": throttled / max(1, calls),
        "queued_to_start_p50_s": percentile(waits, 0.5),
        "queued_to_start_p99_s": percentile(waits, 0.99),
        "due_to_start_p50_s": percentile(after, 0.5),
        "due_to_start_p99_s": percentile(after, 0.99),
    }, _by_second(starts)


def _by_second(starts: Sequence[tuple[float, float]]) -> Series:
    """Return how many started in each second of the run, and their median wait; None where nothing started."""
    waits: defaultdict[int, list[float]] = defaultdict(list)
    for since, wait in starts:
        waits[int(since)].append(wait)
    seconds = range(max(waits) + 1)
    return {
        "started": [len(waits[second]) if second in waits else 0 for second in seconds],
        "queued_to_start_s": [
            round(percentile(waits[second], 0.5), 3) if second in waits else None for second in seconds
        ],
    }
