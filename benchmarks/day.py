"""
A day in virtual time: ``python -m benchmarks.day`` launches a million workloads, and shows what grows meanwhile.

``tests/scale/day.py`` plays the day. After a small part of it, after half and at its end, all that was queued ends
and two hours pass. A collection that then holds more entries at the end than after half of the day has grown. One
that grew in the first half only is full: it is kept up to a number.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

import psutil

from benchmarks import results

FIRST = 10_000
"""Launches before the first rest, fewer than fill what is kept up to a number."""
PARTS = 3
SHOWN = 50
"""Collections that ever had so many entries are shown, but for those that never change."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run; return exit code 1 if a launch was lost or ran twice, or if something has grown."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.day", description=__doc__)
    add = parser.add_argument
    more = "half of fewer than 200,000 does not fill what is kept up to a number, which then counts as grown"
    add("--launches", type=int, default=1_000_000, help=f"default: %(default)s; {more}")
    add("--hours", type=float, default=24.0, help="virtual hours in which they are queued; default: %(default)s")
    add("--seed", type=int, default=1)
    add("--output", type=Path, metavar="FILE.json", help="results file; default: none")
    add("--shared", action="store_true", help="note in the results that others used the machine meanwhile")
    options = parser.parse_args(argv)
    screen = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # Airflow's log
    command = " ".join(["python", "-m", "benchmarks.day", *(sys.argv[1:] if argv is None else argv)])

    def keep(found: dict[str, Any]) -> None:
        if options.output is not None:
            about = {
                "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
                "command": command,
                "versions": results.versions(),
                "machine": results.machine(),
                "machine_was_shared": options.shared,
            }
            options.output.write_text(json.dumps({**about, **found}, indent=1) + "\n")

    with tempfile.TemporaryDirectory(prefix="ecs-bench-airflow-") as home:
        found = measure(options.launches, options.hours * 3600, options.seed, home, screen, keep)
    return 1 if found["lost"] or found["ran_twice"] or found["told_twice"] or found["grown"] else 0


def measure(
    launches: int, seconds: float, seed: int, home: str, screen: IO[str], keep: Callable[[dict[str, Any]], None]
) -> dict[str, Any]:
    """
    Live through a day; print each hour and, at the end, the collections; return all of it.

    :param keep: called with what is known after each hour
    """
    from tests.scale.settings import SETTINGS

    for name in [name for name in os.environ if name.startswith(("AWS_", "AIRFLOW"))]:
        del os.environ[name]
    os.environ.update(SETTINGS, AIRFLOW_HOME=home)
    from tests.engine.virtual_time import run
    from tests.scale.day import Day
    from tests.scale.sizes import Size, full, grown

    first = min(0.25, FIRST / launches)
    day = Day(launches=launches, seconds=seconds, parts=(first, 0.5 - first, 0.5), heartbeat=2.0, seed=seed)
    hours: list[dict[str, Any]] = []
    table: dict[str, list[int]] = {}
    idle: list[dict[str, Size]] = []
    begun = time.process_time()

    def look(day: Day, now: float, is_over: bool) -> None:  # noqa: FBT001 - the day calls it
        sizes = day.sizes()
        for name, size in sizes.items():
            row = table.setdefault(name, [])
            row += [0] * (len(hours) - len(row))
            row.append(size.items)
        hour = {
            "hour": round(now / 3600, 2),
            "all_over": is_over,
            "open": len(day.open),
            "rss_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
            "entries": sum(size.items for size in sizes.values()),
            "cpu_s": round(time.process_time() - begun, 1),
            **day.counts,
        }
        hours.append(hour)
        if is_over:
            idle.append(sizes)
        print(*(f"{name}={value}" for name, value in hour.items()), file=screen, flush=True)
        keep(told())

    def told() -> dict[str, Any]:
        whole_day = len(idle) == PARTS
        first, second = (grown(idle[0], idle[1]), grown(idle[1], idle[2])) if whole_day else ({}, {})
        whole = {name: row + [0] * (len(hours) - len(row)) for name, row in table.items()}
        changing = {name: row for name, row in whole.items() if max(row) >= SHOWN and max(row) != min(row)}
        return {
            "lost": day.lost,
            "ran_twice": day.cloud.ran_twice,
            "told_twice": day.told_twice,
            "grown": second if whole_day else None,
            "full": full(first.keys() - second.keys(), whole, [hour["queueings"] for hour in hours])
            if whole_day
            else None,
            "hours": hours,
            "collections": len(table),
            "entries_of_those_that_change": dict(sorted(changing.items(), key=lambda one: -max(one[1]))),
        }

    gc.collect()
    gc.freeze()  # what Airflow has loaded, as each executor does at its start
    run(day.run, seconds / 24, look)
    found = told()
    for name, row in found["entries_of_those_that_change"].items():
        print(name[-100:], *row, file=screen)
    verdict = ("lost", "ran_twice", "told_twice", "grown", "full")
    print({name: found[name] for name in verdict}, file=screen, flush=True)
    return found


if __name__ == "__main__":
    sys.exit(main())
