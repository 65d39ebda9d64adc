"""A picture of a run, for the README."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from benchmarks.cells import BARE, OURS, PROVIDER
from benchmarks.results import Table

_COLOURS = {PROVIDER: "#c2571a", OURS: "#1a6fc2", BARE: "#8a8a8a"}
_PANELS = (
    ("launches_per_s", "launches per second", 1.0, (PROVIDER, OURS, BARE)),
    ("heartbeat_max_s", "longest heartbeat, ms", 1e3, (PROVIDER, OURS)),
    ("queued_to_run_p99_s", "queued to RunTask, p99, s", 1.0, (PROVIDER, OURS, BARE)),
)


def draw(table: Table, path: Path) -> None:
    """
    Draw the launch burst: rate, longest heartbeat and wait over the number of workloads.

    :raises ModuleNotFoundError: if there is no matplotlib
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ecs-async-executor"  # equal figures make equal files
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(_PANELS), figsize=(12, 3.6), layout="constrained")
    for panel, (key, title, scale, subjects) in zip(panels, _PANELS, strict=True):
        _panel(panel, table, key, title, scale, subjects)
    panels[0].legend(frameon=False, fontsize=9)
    figure.suptitle("A burst of workloads; a stand-in for ECS without quotas, 50 ms away", fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None, facecolor="white")
    plt.close(figure)


def _panel(panel: Any, table: Table, key: str, title: str, scale: float, subjects: tuple[str, ...]) -> None:
    for subject in subjects:
        points = sorted(
            (row.cell.size, row.figures[key] * scale) for row in table.all("burst", subject) if key in row.figures
        )
        if points:
            sizes, values = zip(*points, strict=True)
            panel.plot(sizes, values, marker="o", label=subject, color=_COLOURS[subject])
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_title(title, fontsize=10)
    panel.set_xlabel("workloads queued at once", fontsize=9)
    panel.grid(visible=True, which="major", alpha=0.3)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
