"""``python -m benchmarks.simulation``: schedulers against AWS's rate buckets, over the share of noise."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import mean
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.simulation.rates import RULES, SHARES, cases

RESULTS = Path(__file__).parents[1] / "results"
IMAGES = Path(__file__).parents[2] / "docs" / "images"
COLOURS = {"loss-driven": "#8a8a8a", "background learnt": "#1a6fc2"}

Row = dict[str, Any]


def main(argv: Sequence[str] | None = None) -> int:
    """Simulate, print the tables, draw the picture, and write the results file."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.simulation", description=__doc__)
    add = parser.add_argument
    add("--seeds", type=int, default=12, metavar="N", help="runs of each line (default: %(default)s)")
    add("--first-seed", type=int, default=1, metavar="N", help="default: %(default)s")
    add("--only", metavar="TEXT", default="", help="lines of tables whose name begins so")
    add("--output", type=Path, metavar="FILE.json", help="default: benchmarks/results/<date>-rates.json")
    add("--plot", type=Path, metavar="FOLDER", default=IMAGES, help="default: docs/images")
    options = parser.parse_args(argv)
    seeds = range(options.first_seed, options.first_seed + options.seeds)
    console = Console(width=None if sys.stdout.isatty() else 160)
    rows: list[Row] = []
    for case in cases():
        if not case.group.startswith(options.only):
            continue
        console.print(f"{case.group}: {case.label}", style="dim")
        for rule in RULES:
            runs = [case.run(rule, seed) for seed in seeds]
            figures = {name: [round(run[name], 4) for run in runs] for name in runs[0]}
            rows.append({"group": case.group, "line": case.label, "rule": rule, "figures": figures})
    show(rows, console)
    today = datetime.now(timezone.utc).date()
    output = options.output or RESULTS / f"{today}-rates.json"
    about = {"python": platform.python_version(), "seeds": [*seeds], "date": str(today)}
    output.write_text(json.dumps({**about, "rows": rows}, indent=1) + "\n")
    console.print(f"Written: {output}")
    if not options.only:
        console.print(f"Drawn: {draw(rows, options.plot)}")
    return 0


def show(rows: Sequence[Row], console: Console) -> None:
    """Print one table for each group: the mean of each figure, and its range."""
    for group in dict.fromkeys(row["group"] for row in rows):
        lines = [row for row in rows if row["group"] == group]
        names = list(dict.fromkeys(name for row in lines for name in row["figures"]))
        table = Table("", "rule", *names, title=group)
        for row in lines:
            cells = (_cell(row["figures"].get(name)) for name in names)
            table.add_row(row["line"], row["rule"], *cells)
        console.print(table)


def _cell(figures: Sequence[float] | None) -> str:
    return f"{mean(figures):.3f} ({min(figures):.3f} to {max(figures):.3f})" if figures else ""


def draw(rows: Sequence[Row], folder: Path) -> Path:
    """
    Draw the share of a quota that a scheduler gets, over the share of noise.

    :raises ModuleNotFoundError: if there is no matplotlib
    """
    import matplotlib as mpl

    mpl.use("Agg")
    mpl.rcParams["svg.hashsalt"] = "ecs-async-executor"  # equal figures make equal files
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
    for panel, per_second in zip(panels, (20, 200), strict=True):
        for rule, colour in COLOURS.items():
            found = {
                row["line"]: row["figures"]["after 3 min"]
                for row in rows
                if row["group"] == f"noise, {per_second}/s" and row["rule"] == rule
            }
            runs = [found[f"{share:.1%}"] for share in SHARES]
            places = range(len(SHARES))
            panel.plot(places, [mean(run) for run in runs], marker="o", color=colour, label=rule)
            panel.fill_between(
                places, [min(run) for run in runs], [max(run) for run in runs], color=colour, alpha=0.2, lw=0
            )
        panel.axhline(0.9, color="black", lw=0.8, ls=":")
        panel.set_xticks(range(len(SHARES)), [f"{share:.1%}".replace(".0%", "%") for share in SHARES])
        panel.set_title(f"a quota of {per_second}/s", fontsize=10)
        panel.set_xlabel("calls refused whatever the rate")
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_ylim(0.0, 1.3)
    panels[0].set_ylabel("used, of what is to be had")
    panels[0].legend(frameon=False, fontsize=9)
    path = folder / "rates.svg"
    figure.savefig(path, metadata={"Date": None}, facecolor="white")
    plt.close(figure)
    return path


if __name__ == "__main__":
    sys.exit(main())
