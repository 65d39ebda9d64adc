"""
A hundred thousand running containers on one scheduler: adoption, memory, sweeps and heartbeats.

A hundredth of them is adopted first, as something to compare heartbeats with, then the rest in one call, as a
scheduler adopts. Cells that measure memory adopt them in portions instead: task instances as Airflow loads them
take more than the executor keeps of them, and leave gaps in the memory when they go.
"""

from __future__ import annotations

import gc
import time
import tracemalloc
from collections.abc import Callable, Sequence

import psutil

from benchmarks import executors
from benchmarks.cells import Cell, Figures
from benchmarks.driver import Progress, Run
from benchmarks.meters import Heartbeats
from benchmarks.scenarios import RESIDENT, TRACED
from benchmarks.servers import Server

FEW = 0.01
"""Share of the containers with which heartbeats are compared."""
FEW_SECONDS = 30.0
BEFORE = 0.1
"""Share of the containers that run before memory is measured."""
PORTION = 500
PAUSE = 0.1
"""Seconds between two heartbeats, as of a busy scheduler."""
SETTLING = 5.0
"""Seconds until replies in flight, and what an adoption has queued, are dealt with."""
TIMEOUT = 1500.0


def scale(cell: Cell, server: Server, progress: Progress) -> Figures:
    """Adopt ``running`` containers, poll them, and measure what that costs; with ``size``, launch them instead."""
    run = Run(cell, progress)
    try:
        if cell.size:
            return _launched(run, cell, progress)
        arns = server.preload(cell.running)
        _adopt(run, arns[:1], progress)  # for the imports and objects that are made once
        if cell.note in (RESIDENT, TRACED):
            return _memory(run, cell, arns, progress)
        return _times(run, cell, server, arns, progress)
    finally:
        run.end()


def _times(run: Run, cell: Cell, server: Server, arns: Sequence[str], progress: Progress) -> Figures:
    few = max(2, int(cell.running * FEW))
    _adopt(run, arns[1:few], progress)
    _settle(run)
    figures = {f"few_{name}": value for name, value in _heartbeats(run, min(FEW_SECONDS, cell.seconds)).items()}
    run.heartbeats.forget()
    with run.heartbeats.collections.watched():
        figures |= _adopt(run, arns[few:], progress)
        figures |= {
            f"adoption_{name}": run.heartbeats.figures()[name]
            for name in ("heartbeat_max_s", "heartbeat_cpu_max_s", "gc_max_s", "gc_total_s")
        }
    _settle(run)
    polled, wall, cpu = server.polled(), time.perf_counter(), time.process_time()
    figures |= _heartbeats(run, cell.seconds)
    cpu, wall, polled = time.process_time() - cpu, time.perf_counter() - wall, server.polled() - polled
    return figures | {
        "polled_per_s": polled / wall,
        "sweep_s": cell.running / (polled / wall),
        "cpu_per_polled_s": cpu / max(1, polled),
        "cpu_share": cpu / wall,
    }


def _memory(run: Run, cell: Cell, arns: Sequence[str], progress: Progress) -> Figures:
    before = int(cell.running * BEFORE)
    _in_portions(run, arns[1:before], progress)
    _settle(run)
    measure: Callable[[], float] = _resident
    if cell.note == TRACED:
        tracemalloc.start()
        measure = _traced
    begun = measure()
    _in_portions(run, arns[before:], progress)
    _settle(run)
    each = (measure() - begun) / (cell.running - before) / 1024
    tracemalloc.stop()
    return {"memory_per_running_kb" if cell.note == TRACED else "resident_per_running_kb": each}


def _launched(run: Run, cell: Cell, progress: Progress) -> Figures:
    """
    Launch containers that run on; measure what Python holds for each of the second half.

    What connections hold has its own figure: the last replies to launches and reads, up to a quarter of a
    megabyte on each, however many containers there are.
    """
    half = cell.size // 2
    held = []
    for number in (half, cell.size - half):
        run.queue(number)
        deadline = time.monotonic() + TIMEOUT
        while len(run.launched) < number:
            run.beat()
            progress(launched=len(run.launched))
            if time.monotonic() > deadline:
                raise TimeoutError(f"{len(run.launched)} of {number} were launched")
            time.sleep(PAUSE)
        _until_all_run(run, progress)
        run.expected.clear()
        run.launched.clear()
        _settle(run)
        if not tracemalloc.is_tracing():
            tracemalloc.start()
        held.append(_traced_by_owner())
    tracemalloc.stop()
    (before, connections_before), (after, connections_after) = held
    return {
        "memory_per_launched_kb": (after - before) / (cell.size - half) / 1024,
        "connections_kb": (connections_after - connections_before) / 1024,
    }


def _traced_by_owner() -> tuple[float, float]:
    """Return the traced bytes without those of connections, and those of connections."""
    sizes = {True: 0.0, False: 0.0}
    for statistic in tracemalloc.take_snapshot().statistics("filename"):
        file = statistic.traceback[0].filename
        sizes[file.endswith("selector_events.py") or "/aiohttp/" in file] += statistic.size
    return sizes[False], sizes[True]


def _in_portions(run: Run, arns: Sequence[str], progress: Progress) -> None:
    for start in range(0, len(arns), PORTION):
        executors.adopt(run.cell.subject, run.executor, executors.orphans(arns[start : start + PORTION]))
        run.beat()
    _until_all_run(run, progress)


def _adopt(run: Run, arns: Sequence[str], progress: Progress) -> Figures:
    """Adopt containers at once; return the seconds in the call, and until all are known to run."""
    tis = executors.orphans(arns)
    begun, cpu = time.perf_counter(), time.thread_time()
    seconds = executors.adopt(run.cell.subject, run.executor, tis)
    cpu = time.thread_time() - cpu
    tis.clear()
    _until_all_run(run, progress)
    return {"adopt_s": seconds, "adopt_cpu_s": cpu, "adopted_and_resolved_s": time.perf_counter() - begun}


def _until_all_run(run: Run, progress: Progress) -> None:
    deadline = time.monotonic() + TIMEOUT
    while (active := run.executor.statistics().active) < len(run.executor.running):
        run.beat()
        progress(launched=active)
        if time.monotonic() > deadline:
            msg = f"{active} of {len(run.executor.running)} containers are known to run"
            raise TimeoutError(msg)
        time.sleep(PAUSE)


def _settle(run: Run) -> None:
    """Let everything be dealt with, the events of an adoption among it, and collect what is garbage."""
    until = time.monotonic() + SETTLING
    while run.beat() or time.monotonic() < until:
        time.sleep(PAUSE)
    gc.collect()


def _heartbeats(run: Run, seconds: float) -> Figures:
    """Make heartbeats; return their times."""
    heartbeats: Heartbeats = run.heartbeats
    heartbeats.forget()
    with heartbeats.collections.watched():
        run.beat_for(seconds)
        return heartbeats.figures()


def _resident() -> float:
    return float(psutil.Process().memory_info().rss)


def _traced() -> float:
    traced, _ = tracemalloc.get_traced_memory()
    return float(traced)
