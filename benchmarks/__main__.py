"""``python -m benchmarks``: measure, print the figures, write them to a results file."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone
from pathlib import Path
from threading import Lock

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from benchmarks import pages, plot, results, running, scenarios, show
from benchmarks.cells import Cell, Outcome
from benchmarks.deployment import Deployment

HERE = Path(__file__).parent
IMAGES = HERE.parent / "docs" / "images"


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    add = parser.add_argument
    add(
        "--smoke",
        action="store_true",
        help="check in two minutes that the suite works: small sizes, two at a time; the figures mean little",
    )
    add("--only", action="append", choices=scenarios.NAMES, help="run this scenario only; repeatable")
    add("--service", choices=scenarios.SERVICES, default="ecs", help="default: %(default)s")
    add("--size", action="append", type=int, metavar="N", help="run cells with N workloads only; repeatable")
    add("--name", default="local", help="name in the results file's name (default: %(default)s)")
    add(
        "--output",
        type=Path,
        metavar="FILE.json",
        help="results file (default: benchmarks/results/<date>-<name>.json)",
    )
    add("--resume", action="store_true", help="keep the figures in the results file and measure the missing ones")
    add("--plot", type=Path, metavar="FOLDER", help="folder for the pictures (default: docs/images)")
    add("--pages", action="store_true", help="write the tables of README.md and docs/performance.md of this run")
    add("--shared", action="store_true", help="note in the results that others used the machine meanwhile")
    add(
        "--show",
        type=Path,
        metavar="FILE.json",
        help="measure nothing: print this results file, and draw it with --plot",
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return exit code 1 if a measurement failed. A missed target is no failure."""
    options = parser().parse_args(argv)
    console = Console(width=None if sys.stdout.isatty() else 200)
    if options.show:
        outcomes = results.read(options.show)
    else:
        cells = [
            cell
            for cell in scenarios.plan(smoke=options.smoke, service=options.service)
            if cell.scenario in (options.only or scenarios.NAMES)
            and (options.size is None or cell.size in options.size)
        ]
        output = options.output
        if output is None and not options.smoke:
            today = datetime.now(tz=timezone.utc).date().isoformat()
            output = HERE / "results" / f"{today}-{options.name}.json"
        known = results.read(output) if options.resume and output is not None and output.exists() else []
        outcomes = [outcome for outcome in known if outcome.error is None]
        done = {outcome.cell.to_json() for outcome in outcomes}
        cells = [cell for cell in cells if cell.to_json() not in done]
        before = os.getloadavg()
        command = shlex.join(["python", "-m", "benchmarks", *(sys.argv[1:] if argv is None else argv)])

        def keep(outcome: Outcome) -> None:
            outcomes.append(outcome)
            if output is not None:
                load = [before, os.getloadavg()]
                results.write(output, outcomes, shared=options.shared, load=load, command=command)

        _measure(console, cells, keep, at_once=2 if options.smoke else 1)
        if output is not None:
            console.print(f"written: {output}")
    table = results.Table(outcomes)
    show.tables(console, table)
    if not options.smoke:
        show.targets(console, results.targets(table))
    drawing = options.plot or (
        IMAGES
        if options.service == "ecs" and not (options.smoke or options.show or options.only or options.size)
        else None
    )
    if drawing is not None:
        for path in plot.draw(table, drawing):
            console.print(f"drawn: {path}")
    if options.pages:
        for path in pages.rewrite(table):
            console.print(f"written: {path}")
    failed = [outcome for outcome in outcomes if outcome.error is not None]
    for outcome in failed:
        console.print(f"[red]failed[/] {outcome.cell.label}", highlight=False)
        console.print(outcome.error, markup=False, highlight=False)
    if line := results.headline(table):
        console.print(line, soft_wrap=True, highlight=False)
    return 1 if failed else 0


def _measure(console: Console, cells: Sequence[Cell], keep: Callable[[Outcome], None], at_once: int) -> None:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    sizes = [cell.size for cell in cells if cell.scenario == "scheduler"]
    with (
        Deployment(sizes) as deployment,
        Progress(*columns, console=console) as progress,
        ThreadPoolExecutor(at_once) as pool,
    ):
        whole = progress.add_task("all", total=len(cells))
        keeping = Lock()

        def measure(cell: Cell) -> None:
            bar = progress.add_task(cell.label, total=cell.size or None)

            def on_progress(done: dict[str, float]) -> None:
                progress.update(bar, completed=int(done.get("launched", 0)))

            outcome = running.run(cell, on_progress, deployment)
            with keeping:
                keep(outcome)
            progress.remove_task(bar)
            progress.advance(whole)
            mark = "[red]failed[/]" if outcome.error else "done"
            progress.console.print(f"{mark} {cell.label}", highlight=False)

        list(pool.map(measure, cells))


if __name__ == "__main__":
    sys.exit(main())
