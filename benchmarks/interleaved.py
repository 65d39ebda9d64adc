"""What a launch costs, next to a bare request: blocks of both take turns in one process."""

from __future__ import annotations

import gc
import statistics
import time
from dataclasses import replace

from benchmarks import bare, executors
from benchmarks.cells import Cell, Figures
from benchmarks.driver import Progress, Run
from benchmarks.meters import percentile
from benchmarks.servers import Server

WARM_UP = 2
"""Blocks of each that do not count: they open connections and import what is imported late."""


def launch(cell: Cell, server: Server, progress: Progress) -> Figures:
    """
    Launch blocks of workloads by our executor, and the same requests by a bare client, in turn.

    Of ours all that a launch takes counts, from the queueing on the scheduler's thread to the event that says that
    it runs. The ends of the containers are waited for between the blocks and count for neither.
    """
    ours: list[float] = []
    others: list[float] = []
    beats: list[float] = []
    run = Run(cell, progress)
    block = replace(cell, blocks=0)
    with bare.Blocks(server.url, cell.service) as client:
        for number in range(WARM_UP + cell.blocks):
            for mine in (True, False) if number % 2 else (False, True):
                if mine:
                    cpu, beat = _launched(run)
                    ours.append(cpu)
                    beats.append(beat)
                else:
                    requests = executors.requests(block)
                    gc.collect()
                    others.append(client.launch(requests))
            progress(launched=number)
    run.end()
    ours, others, beats = ours[WARM_UP:], others[WARM_UP:], beats[WARM_UP:]
    ratios = [mine / other for mine, other in zip(ours, others, strict=True)]
    return {
        "cpu_of_bare": statistics.median(ratios),
        "cpu_of_bare_p10": percentile(ratios, 0.1),
        "cpu_of_bare_p90": percentile(ratios, 0.9),
        "cpu_per_launch_s": statistics.median(ours) / cell.size,
        "bare_cpu_per_launch_s": statistics.median(others) / cell.size,
        "main_cpu_per_launch_s": statistics.median(beats) / cell.size,
    }


def _launched(run: Run) -> tuple[float, float]:
    """Launch one block; return the CPU seconds of the process, and of the scheduler's thread."""
    run.forget()
    run.make(run.cell.size)
    gc.collect()
    cpu, beat = time.process_time(), time.thread_time()
    run.hand_over()
    run.beat_until(lambda: len(run.launched) >= run.cell.size)
    cpu, beat = time.process_time() - cpu, time.thread_time() - beat
    _finish(run)
    return cpu, beat


def _finish(run: Run) -> None:
    while len(run.finished) < run.cell.size:
        run.beat()
        time.sleep(executors.BUSY)
