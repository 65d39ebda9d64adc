"""Pictures of a run, for the README and the documentation."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.cells import BARE, OURS, PROVIDER
from benchmarks.results import Row, Table

_COLOURS = {PROVIDER: "#c2571a", OURS: "#1a6fc2", BARE: "#8a8a8a"}
WINDOW = 3
"""Seconds of a run that a rate is averaged over."""
_PANELS = (
    ("launches_per_s", "launches per second", 1.0, (PROVIDER, OURS, BARE)),
    ("heartbeat_max_s", "longest heartbeat, ms", 1e3, (PROVIDER, OURS)),
    ("queued_to_run_p99_s", "queued to RunTask, p99, s", 1.0, (PROVIDER, OURS, BARE)),
)


def draw(table: Table, folder: Path) -> list[Path]:
    """
    Draw the launch burst over the number of workloads, and the time until an end is seen over that of containers.

    :returns: the files; only scenarios in the table are drawn
    :raises ModuleNotFoundError: if there is no matplotlib
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ecs-async-executor"  # equal figures make equal files
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    drawn = []
    if table.all("burst", OURS):
        drawn.append(_save(_bursts(plt, table), folder / "benchmark.svg", plt))
    if table.all("simulation", OURS):
        drawn.append(_save(_detection(plt, table), folder / "detection.svg", plt))
    if rows := table.all("scheduler", OURS, noted=True):
        drawn.append(_save(_schedulers(plt, table, rows), folder / "scheduler.svg", plt))
    return drawn


def _save(figure: Any, path: Path, plt: Any) -> Path:
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return path


def _bursts(plt: Any, table: Table) -> Any:
    figure, panels = plt.subplots(1, len(_PANELS), figsize=(12, 3.6), layout="constrained")
    for panel, (key, title, scale, subjects) in zip(panels, _PANELS, strict=True):
        _panel(panel, table, key, title, scale, subjects)
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle("A burst of workloads; a stand-in for ECS without quotas, 50 ms away", fontsize=11)
    return figure


def _detection(plt: Any, table: Table) -> Any:
    figure, panel = plt.subplots(figsize=(5.5, 3.6), layout="constrained")
    rows = sorted(table.all("simulation", OURS), key=lambda row: row.cell.running)
    running = [row.cell.running for row in rows]
    for name, label, style in (("detection_p99_s", "p99", "--"), ("detection_p50_s", "median", "-")):
        seconds = [row.figures[name] for row in rows]
        panel.plot(running, seconds, style, marker="o", label=label, color=_COLOURS[OURS])
    panel.legend(frameon=False, fontsize=9)
    _axes(panel, "seconds from a container's exit to its report", "containers running")
    return figure


def _schedulers(plt: Any, table: Table, rows: Sequence[Row]) -> Any:
    figure, panels = plt.subplots(
        2, len(rows), figsize=(3.4 * len(rows), 5.6), layout="constrained", sharex=True, squeeze=False
    )
    for panel in panels[1][1:]:
        panel.sharey(panels[1][0])
    for panel in panels[1]:
        panel.set_yscale("log")
    for column, ours in zip(panels.T, rows, strict=True):
        provider = table.of("scheduler", PROVIDER, noted=True, size=ours.cell.size, note=ours.cell.note)
        for row in (provider, ours):
            if row is not None:
                _second_by_second(column, row)
        column[0].set_title(ours.cell.note.replace(", ", "\n"), fontsize=10)
        column[0].set_ylim(bottom=0)
        column[1].set_xlabel("seconds since the run was due", fontsize=9)
        for panel in column:
            panel.grid(visible=True, which="major", alpha=0.3)
            for side in ("top", "right"):
                panel.spines[side].set_visible(False)
    panels[0][0].set_ylabel(f"tasks started per second, mean of {WINDOW} s", fontsize=9)
    panels[1][0].set_ylabel("queued to start, s", fontsize=9)
    panels[0][0].legend(frameon=False, fontsize=9)
    size = rows[0].cell.size
    figure.suptitle(
        f"{size:,} mapped tasks of a DAG; a real scheduler, a stand-in for ECS 50 ms away", fontsize=11
    )
    return figure


def _second_by_second(column: Sequence[Any], row: Row) -> None:
    started, waits = [number or 0.0 for number in row.series["started"]], row.series["queued_to_start_s"]
    colour = _COLOURS[row.cell.subject]
    rates = [statistics.mean(started[max(0, second + 1 - WINDOW) : second + 1]) for second in range(len(started))]
    column[0].plot(rates, label=row.cell.subject, color=colour)
    waited = [(second, wait) for second, wait in enumerate(waits) if wait is not None]
    column[1].plot(*zip(*waited, strict=True), ".", markersize=5, color=colour)


def _panel(panel: Any, table: Table, key: str, title: str, scale: float, subjects: tuple[str, ...]) -> None:
    for subject in subjects:
        points = sorted(
            (row.cell.size, row.figures[key] * scale) for row in table.all("burst", subject) if key in row.figures
        )
        if points:
            sizes, values = zip(*points, strict=True)
            panel.plot(sizes, values, marker="o", label=subject, color=_COLOURS[subject])
    _axes(panel, title, "workloads queued at once")


def _axes(panel: Any, title: str, below: str) -> None:
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(title, fontsize=10)
    panel.set_xlabel(below, fontsize=9)
    panel.grid(visible=True, which="major", alpha=0.3)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
