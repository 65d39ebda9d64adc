"""
``python -m benchmarks.measure``: one cell in a process of its own, so no other cell affects its figures.

It reports progress as lines of JSON on stdout; logs go to stderr.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
import traceback
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO, Any

from benchmarks import bare, executors, interleaved, push
from benchmarks.cells import ALL_OURS, BARE, OURS, Cell, Figures
from benchmarks.database import Database, build
from benchmarks.driver import Progress, Run
from benchmarks.meters import Spinner, percentile
from benchmarks.servers import FARGATE, RAISED, Server
from benchmarks.simulation import sweeps

NOTHING = dict.fromkeys(FARGATE, (0.0, 0.0))
STORM_BEGINS, STORM_ENDS = 15.0, 30.0
"""Seconds from the first heartbeat."""


def burst(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Launch ``size`` workloads at once, beside ``running`` others, and wait for their ends."""
    if cell.subject == BARE:
        figures = bare.burst(server.url, executors.requests(cell), progress, cell.service)
        return figures | _launches(cell, server, figures.pop("t0"))
    arns = server.preload(cell.running) if cell.running else []
    run = Run(cell, progress)
    if arns:
        run.adopt(arns)
    run.queue(cell.size)
    run.heartbeats.forget()
    resident, polled = _memory(), server.polled()
    with run.heartbeats.collections.watched():
        clock, wall, cpu = time.time(), time.perf_counter(), time.process_time()
        busy = time.thread_time()
        run.beat_until(lambda: len(run.launched) >= cell.size)
        figures = {
            "wall_s": time.perf_counter() - wall,
            "cpu_per_launch_s": (time.process_time() - cpu) / cell.size,
            "main_cpu_per_launch_s": (time.thread_time() - busy) / cell.size,
            "launch_gc_s": sum(until - since for since, until, _ in run.heartbeats.collections.pauses),
        }
        figures |= _launches(cell, server, clock)
        if cell.duration is not None:
            run.beat_until(lambda: len(run.finished) >= cell.size)
            figures |= {
                "until_finished_s": time.perf_counter() - wall,
                "cpu_per_finished_s": (time.process_time() - cpu) / cell.size,
                "sweeps": (server.polled() - polled) / max(1, cell.size + cell.running),
            }
        if cell.failing:
            run.beat_for(cell.seconds)  # the last lines of those that failed are read meanwhile
        figures |= run.heartbeats.figures()
    figures["stop_max_s"] = max(figures["heartbeat_max_s"], figures["gc_max_s"])
    figures["stop_cpu_max_s"] = max(figures["heartbeat_cpu_max_s"], figures["gc_cpu_max_s"])
    figures["memory_growth_mb"] = (_memory() - resident) / 2**20
    run.end()
    return figures


def _launches(cell: Cell, server: Server, began: float) -> Figures:
    """Return the rates and waits of RunTask or SubmitJob, by the server's clock for every subject."""
    waits = [arrival - began for arrival in server.arrivals()]
    if len(waits) != cell.size:
        raise RuntimeError(f"the server saw {len(waits)} requests for {cell.size} workloads")
    return {
        # Until the last request had its answer.
        "launches_per_s": cell.size / (waits[-1] + (cell.latency if server.kind == "stub" else 0.0)),
        "queued_to_run_p50_s": percentile(waits, 0.5),
        "queued_to_run_p99_s": percentile(waits, 0.99),
        "queued_to_run_max_s": waits[-1],
    }


def steady(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Adopt ``running`` containers and poll them."""
    arns = server.preload(cell.running)
    if cell.subject == BARE:
        return bare.poll(cell, server.url, arns)
    run = Run(cell, progress)
    adopting, resolving = run.adopt(arns)
    figures: Figures = {"adopt_s": adopting, "adopted_and_resolved_s": resolving}
    gc.collect()
    run.heartbeats.forget()
    with run.heartbeats.collections.watched():
        polled, cpu, wall = server.polled(), time.process_time(), time.perf_counter()
        run.beat_for(cell.seconds)
        polled, cpu, wall = server.polled() - polled, time.process_time() - cpu, time.perf_counter() - wall
    figures |= {
        "polled": polled,
        "polled_per_s": polled / wall,
        "cpu_per_polled_s": cpu / max(1, polled),
        "cpu_share": cpu / wall,
        **run.heartbeats.figures(),
    }
    run.end()
    return figures


def memory(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Measure the memory that Python holds for ``running`` containers; by itself, as tracing slows everything."""
    arns = server.preload(cell.running)
    run = Run(cell, progress)
    run.adopt(arns[:1])  # for the imports and objects that are made once
    gc.collect()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        run.adopt(arns[1:])
        after = min(_traced() for _ in range(10))
    finally:
        tracemalloc.stop()
    run.end()
    return {"memory_per_running_kb": (after - before) / 1024 / (cell.running - 1)}


def _traced() -> int:
    """Return the traced memory after a second, in which replies in flight are dealt with."""
    time.sleep(1.0)
    gc.collect()
    traced, _ = tracemalloc.get_traced_memory()
    return traced


def beside_work(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Launch beside a main thread that computes between heartbeats; measure how slow both get."""
    arns = server.preload(cell.running) if cell.running else []
    alone = Spinner.speed(cell.seconds)
    run = Run(cell, progress)
    if arns:
        run.adopt(arns)
    run.queue(cell.size)
    run.heartbeats.forget()
    spinner = Spinner()
    with run.heartbeats.collections.watched():
        clock, wall, cpu = time.time(), time.perf_counter(), time.process_time()
        busy = time.thread_time()
        if cell.seconds and cell.running:
            run.beat_for(max(cell.seconds, cell.size / 20), spinner=spinner)
        else:
            run.beat_until(lambda: len(run.launched) >= cell.size, spinner=spinner)
        wall, busy, cpu = time.perf_counter() - wall, time.thread_time() - busy, time.process_time() - cpu
    launched = len(run.launched)
    figures = {
        "main_thread_speed": spinner.rounds / wall / alone,
        "main_thread_cpu_share": busy / wall,
        "other_cpu_share": (cpu - busy) / wall,
        "alone_rounds_per_s": alone,
        "launched": launched,
        **run.heartbeats.figures(),
    }
    waits = [arrival - clock for arrival in server.arrivals()]
    if waits:
        figures["launches_per_s"] = len(waits) / (waits[-1] + cell.latency)
        figures["queued_to_run_p99_s"] = percentile(waits, 0.99)
    run.end()
    return figures


def quota(cell: Cell, _: Server, progress: Progress) -> Figures:
    """Launch for ``seconds`` against a server that enforces AWS's quotas, with more queued than they allow."""
    run = Run(cell, progress)
    run.queue(cell.size)
    run.heartbeats.forget()
    clock = time.time()
    with run.heartbeats.collections.watched():
        run.beat_for(cell.seconds)
    figures = {"began": clock, "launched": len(run.launched), **run.heartbeats.figures()}
    if cell.subject in ALL_OURS:
        statistics = run.executor.statistics()
        figures |= {
            "launched": statistics.launches,
            "throttles": statistics.throttles,
            "api_calls": statistics.api_calls,
            "launch_rate_at_end": statistics.launch_rate,
        }
    run.end()
    return figures


def adoption(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Have the real scheduler adopt ``running`` task instances out of a real database."""
    build(Path(os.environ["AIRFLOW_HOME"]))
    arns = server.preload(cell.running)
    database = Database()
    database.orphan(arns)
    run = Run(cell, progress)
    spent: list[float] = []
    adopts = run.executor.try_adopt_task_instances

    def try_adopt(tis: Sequence[Any]) -> Any:
        statements, begun = database.statements, time.perf_counter()
        refused = adopts(tis)
        spent.extend((time.perf_counter() - begun, database.statements - statements))
        return refused

    run.executor.try_adopt_task_instances = try_adopt
    begun = time.perf_counter()
    database.adopt(run.executor)
    figures = {"adoption_s": time.perf_counter() - begun, "under_lock_s": spent[0], "statements": spent[1]}
    if cell.subject == OURS:
        if len(run.executor.running) != cell.running:
            raise RuntimeError(f"{len(run.executor.running)} of {cell.running} were adopted")
        while run.executor.statistics().active < cell.running:
            run.beat()
            time.sleep(executors.BUSY)
        figures["adopted_and_resolved_s"] = time.perf_counter() - begun
    run.end()
    return figures


def raised_quota(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Launch under a raised quota: raised from the start, or, if the cell has a note, after 30 seconds."""
    before = 30.0 if cell.note else 0.0
    server.set_quotas(**(FARGATE if before else RAISED))
    run = Run(cell, progress)
    run.queue(cell.size)
    run.heartbeats.forget()
    clock = time.time()
    if before:
        run.beat_for(before)
        server.set_quotas(**RAISED)
    changed = time.time()
    run.beat_for(cell.seconds)
    arrivals, refused = server.arrivals(), server.throttled("RunTask")
    figures = {
        "found_after_s": _first_at(0.9 * RAISED["FARGATE"][0], arrivals, changed),
        "rate_at_end": sum(arrival > time.time() - 5.0 for arrival in arrivals) / 5.0,
        "throttled_share": len(refused) / max(1, len(refused) + len(arrivals)),
        "launched": len(run.launched),
        "seconds": time.time() - clock,
        **run.heartbeats.figures(),
    }
    run.end()
    return figures


def _first_at(rate: float, arrivals: Sequence[float], since: float, window: float = 2.0) -> float:
    """Return the seconds until requests first came at this rate for a whole window."""
    number = int(rate * window)
    late = [arrival for arrival in arrivals if arrival >= since]
    for first, last in zip(late, late[number - 1 :], strict=False):
        if last - first <= window:
            return last - since
    raise RuntimeError(f"{rate:g}/s was never reached")


def storm(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Launch under AWS's quotas, with fifteen seconds in which every request is throttled."""
    server.set_quotas(**FARGATE)
    run = Run(cell, progress)
    run.queue(cell.size)
    run.heartbeats.forget()
    begun = time.time()
    run.beat_for(STORM_BEGINS)
    server.set_quotas(**NOTHING)
    storm_begun = time.time()
    run.beat_for(STORM_ENDS - STORM_BEGINS)
    storm_over = time.time()
    server.set_quotas(**FARGATE)
    run.beat_for(cell.seconds - STORM_ENDS)
    arrivals = server.arrivals()
    meanwhile = [
        when for what in ("RunTask", "DescribeTasks") for when in server.throttled(what) if when >= storm_begun
    ]
    figures = {
        "calls_per_s_in_storm": sum(when < storm_over for when in meanwhile) / (storm_over - storm_begun),
        "recovered_after_s": _first_at(0.9 * FARGATE["FARGATE"][0], arrivals, storm_over),
        "quota_used_settled": sum(when > time.time() - 15.0 for when in arrivals) / (15.0 * FARGATE["FARGATE"][0]),
        "launched": len(run.launched),
        "seconds": time.time() - begun,
        **run.heartbeats.figures(),
    }
    run.end()
    return figures


def simulated(cell: Cell, _: Server, __: Progress) -> Figures:
    """Run the engine alone, in virtual time."""
    return sweeps.simulate(cell)


def scaled(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Have a hundred thousand containers run."""
    from benchmarks import scale

    return scale.scale(cell, server, progress)


def _memory() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


SCENARIOS: dict[str, Callable[[Cell, Server, Progress], Figures]] = {
    "burst": burst,
    "mixed": burst,
    "launch": interleaved.launch,
    "steady": steady,
    "memory": memory,
    "beside work": beside_work,
    "quota": quota,
    "raised quota": raised_quota,
    "storm": storm,
    "adoption": adoption,
    "events": push.events,
    "simulation": simulated,
    "scale": scaled,
}


def _report(channel: IO[str], **message: Any) -> None:
    channel.write(json.dumps(message) + "\n")
    channel.flush()


def main() -> None:
    """Measure the cell that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cell", type=Cell.from_json)
    parser.add_argument("url")
    options = parser.parse_args()
    cell: Cell = options.cell
    # Airflow logs to stdout, which is our channel.
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    with tempfile.TemporaryDirectory(prefix="ecs-bench-airflow-") as home:
        executors.configure(cell, options.url, home)
        # Imports and Airflow's reading of its settings happen once, before the measurement.
        from airflow.executors.base_executor import BaseExecutor

        _ = BaseExecutor
        try:
            figures = SCENARIOS[cell.scenario](
                cell, Server(options.url, cell.server), lambda **done: _report(channel, progress=done)
            )
        except Exception as error:  # noqa: BLE001 - it goes into the table
            traceback.print_exc(file=sys.stderr)
            _report(channel, error=f"{type(error).__name__}: {error}")
        else:
            _report(channel, figures=figures)
        sys.stderr.flush()
        channel.flush()


if __name__ == "__main__":
    main()
