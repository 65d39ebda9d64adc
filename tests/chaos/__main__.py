"""``python -m tests.chaos``: every fault, schedulers killed meanwhile; none lost, none twice."""

from __future__ import annotations

import argparse
import random
import sys
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.live import Live
from rich.table import Table

from tests.chaos.cloud import CLOUDS
from tests.chaos.storm import Run, run

SHOWN = 20


def main() -> int:
    """Run, print the result, and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    add = parser.add_argument
    add("--workloads", type=int, default=10_000, help="default: %(default)s")
    add("--service", choices=sorted(CLOUDS), default="ecs", help="default: %(default)s")
    add("--seed", type=int, help="seed of every fault, life and kill (default: a random one)")
    add("--incarnations", type=int, help="number of schedulers; all but the last are killed or asked to end")
    add(
        "--parallelism",
        type=int,
        default=500,
        help="task instances queued or running at a time (default: %(default)s)",
    )
    add("--timeout", type=float, default=1800.0, metavar="SECONDS", help="default: %(default)s")
    add("--keep", type=Path, metavar="DIR", help="keep the database, the ledger and the logs in a new directory")
    options = parser.parse_args()
    seed = random.SystemRandom().randrange(10**6) if options.seed is None else options.seed
    console = Console()
    again = f"python -m tests.chaos --service {options.service} --workloads {options.workloads} --seed {seed}"
    console.print(f"seed {seed}; to repeat it: {again}", highlight=False)
    with Live(console=console, transient=True, refresh_per_second=2) as live:

        def progress(seconds: float, result: Run, states: dict[str, int]) -> None:
            live.update(f"{seconds:4.0f} s, {result.deaths.total()} schedulers ended, {states}")

        result = run(
            options.workloads,
            seed,
            directory=options.keep,
            timeout=options.timeout,
            incarnations=options.incarnations,
            parallelism=options.parallelism,
            service=options.service,
            progress=progress,
        )
    console.print(table(result))
    for problem in [*result.crashes, *result.left, *result.audit.problems][:SHOWN]:
        console.print(problem, style="red", markup=False, highlight=False, soft_wrap=True)
    if not result.finished:
        console.print("not all task instances ended in time", style="red")
    return 0 if result.kept else 1


def table(result: Run) -> Table:
    """Return a summary of a run."""
    seen = result.audit
    summary = Table(
        title=f"{result.workloads:,} workloads on {result.service}, seed {result.seed}", title_justify="left"
    )
    summary.add_column("")
    summary.add_column("", justify="right")
    summary.add_column("of which", overflow="fold")
    rows: list[tuple[str, object, str]] = [
        ("launches", seen.launches, f"{seen.revoked} revoked; the others have one outcome each"),
        ("containers", seen.containers, f"{seen.ran} launches ran; {seen.never_started} never started"),
        ("outcomes", seen.successes + seen.failures, _parts(seen.why)),
        ("in groups", seen.grouped, f"{seen.without_room} found no room"),
        ("abroad", seen.abroad, _abroad(result)),
        ("lost", len(seen.lost), ""),
        ("twice", len(seen.twice), ""),
        ("wrong", len(seen.wrong), "outcomes that no container bears out"),
        ("withdrawn", len(seen.withdrawn), "stopped although Airflow wanted them"),
        ("schedulers", result.deaths.total(), _parts(result.deaths)),
        ("loop threads replaced", result.loops_replaced, ""),
        ("adoptions", result.adopted, ""),
        (
            "client tokens",
            CLOUDS[result.service].behaviour(result.seed).get("failure_memory", "-"),
            "after failures",
        ),
        ("replays by token", seen.replays, f"and {result.errors['ConflictException']} conflicts"),
        ("throttles", result.errors["ThrottlingException"], ""),
        ("storms", result.storms.total(), f"{_parts(result.storms)}; {result.hosts_lost} hosts lost"),
        ("faults struck", result.struck.total(), _parts(result.struck)),
        ("calls", result.calls.total(), _parts(result.calls)),
        ("slowest heartbeat", f"{result.slowest_beat * 1000:.1f} ms", ""),
        ("seconds", f"{result.seconds:.0f}", ""),
    ]
    for name, number, parts in rows:
        bad = name in ("lost", "twice", "wrong", "withdrawn") and number
        shown = f"{number:,}" if isinstance(number, int) else str(number)
        summary.add_row(name, shown, parts, style="bold red" if bad else None)
    return summary


def _abroad(result: Run) -> str:
    delays = result.audit.delays
    return (
        f"{len(result.outages)} outages there; {delays.launches:,} launches at home then took "
        f"{delays.during:.1f} s, others {delays.otherwise:.1f} s (medians)"
    )


def _parts(counts: Counter[str]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.most_common() if count)


if __name__ == "__main__":
    sys.exit(main())
