"""What the figures amount to: medians over repetitions, ratios between subjects, targets."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.cells import BARE, OURS, PROVIDER, Cell, Figures, Outcome

PACKAGES = (
    "ecs-async-executor",
    "apache-airflow-core",
    "apache-airflow-providers-amazon",
    "aiobotocore",
    "botocore",
    "boto3",
    "aiohttp",
    "anyio",
)


NOTES = {
    "server": "stub: a bare asyncio server in a process of its own, with records as large as AWS's, because the "
    "local ECS would be the bottleneck; local: the local ECS, which enforces AWS's default quotas",
    "launches_per_s": "from the first heartbeat to the answer to the last RunTask",
    "cpu": "of the whole measuring process: heartbeats, polling and the loop thread included",
    "adoption": "without a database; the provider's without rebuilding the workloads",
}


@dataclass(frozen=True)
class Target:
    """
    One target and what was measured.

    :param at_least: the value has to reach the limit; else it must not exceed it
    """

    name: str
    limit: float
    value: float
    unit: str
    at_least: bool = False

    @property
    def met(self) -> bool:
        """Tell if it is met."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


class Table:
    """Medians by cell."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        by_cell: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            if outcome.error is None:
                by_cell[replace(outcome.cell, repetition=0).to_json()].append(outcome)
        self.rows: list[tuple[Cell, Figures]] = [
            (same[0].cell, _medians([one.figures for one in same])) for same in by_cell.values()
        ]

    def of(self, scenario: str, subject: str, **conditions: Any) -> tuple[Cell, Figures] | None:
        """Return the largest cell with these properties."""
        found = [
            (cell, figures)
            for cell, figures in self.rows
            if cell.scenario == scenario
            and cell.subject == subject
            and cell.algorithm == conditions.get("algorithm", "HS512")
            and all(getattr(cell, name) == value for name, value in conditions.items())
        ]
        return max(found, key=lambda row: (row[0].size, row[0].running), default=None)


def _medians(figures: Sequence[Figures]) -> Figures:
    worst = {"heartbeat_max_s", "heartbeat_max_without_gc_s", "gc_max_s", "heartbeat_cpu_max_s"}
    return {
        name: (max if name in worst else statistics.median)(one[name] for one in figures if name in one)
        for name in figures[0]
    }


def targets(table: Table) -> list[Target]:
    """Compare what was measured with what is wanted; what was not measured is left out."""
    found: list[Target] = []

    def add(name: str, limit: float, value: float, unit: str = "", *, at_least: bool = False) -> None:
        found.append(Target(name, limit, value, unit, at_least))

    if mixed := table.of("mixed", OURS):
        cell, figures = mixed
        where = f" ({cell.size:,} launches + {cell.running:,} running)"
        add(f"heartbeat, main-thread CPU, max{where}", 5, figures["heartbeat_cpu_max_s"] * 1e3, "ms")
        add(f"heartbeat, wall p99, less GC{where}", 10, figures["heartbeat_p99_without_gc_s"] * 1e3, "ms")
        add(f"heartbeat, wall max, less GC{where}", 25, figures["heartbeat_max_without_gc_s"] * 1e3, "ms")
    ours, provider = table.of("burst", OURS), table.of("burst", PROVIDER)
    same = table.of("burst", BARE, size=ours[0].size) if ours else None
    if ours and provider:
        ratio = ours[1]["launches_per_s"] / provider[1]["launches_per_s"]
        add("launch rate, times the provider's", 50, ratio, "x", at_least=True)
        equal = table.of("burst", OURS, size=provider[0].size)
        if equal:
            ratio = equal[1]["cpu_per_finished_s"] / provider[1]["cpu_per_finished_s"]
            add("CPU per finished workload, of the provider's", 1 / 3, ratio, "x")
    if ours and same:
        ratio = ours[1]["launches_per_s"] / same[1]["launches_per_s"]
        add("launch rate, of bare aiobotocore's", 0.9, ratio, "x", at_least=True)
        ratio = ours[1]["cpu_per_finished_s"] / same[1]["cpu_per_launch_s"]
        add("CPU per finished workload, of one bare RunTask", 1.25, ratio, "x")
    ours, provider = table.of("steady", OURS), table.of("steady", PROVIDER)
    if ours and provider:
        ratio = ours[1]["cpu_per_polled_s"] / provider[1]["cpu_per_polled_s"]
        add("CPU per polled task, of the provider's", 0.1, ratio, "x")
        add("memory per running task", 1.5, ours[1]["memory_per_running_kb"], "KB")
    beside = [row for row in table.rows if row[0].scenario == "beside work" and row[0].subject == OURS]
    for cell, figures in beside:
        if cell.running:
            speed = figures["main_thread_speed"]
            add(f"main thread's speed beside 20/s + {cell.running:,} running", 0.9, speed, "x", at_least=True)
        else:
            rate = figures["launches_per_s"]
            add("launch rate beside a CPU-bound main thread", 60, rate, "/s", at_least=True)
    few = 2
    for cell, figures in table.rows:
        if cell.scenario != "quota" or cell.subject != OURS or "quota_used_settled" not in figures:
            continue
        by = f"{cell.schedulers} scheduler{'s' * (cell.schedulers > 1)}"
        add(f"quota used, {by}", 0.95, figures["quota_used_settled"], at_least=True)
        add(
            f"RunTask calls throttled, {by}",
            0.01 if cell.schedulers <= few else 0.02,
            figures["throttled_share"],
        )
        if cell.schedulers > few:
            add(f"Jain's index, {by}", 0.95, figures["jain"], at_least=True)
    return found


def headline(table: Table, command: str) -> str | None:
    """Say it in one line."""
    ours, provider = table.of("burst", OURS), table.of("burst", PROVIDER)
    if not ours or not provider:
        return None
    return (
        f"{PROVIDER}: {provider[1]['launches_per_s']:.1f} launches/s, longest heartbeat "
        f"{_seconds(provider[1]['heartbeat_max_s'])} ({provider[0].size:,} workloads); "
        f"{OURS}: {ours[1]['launches_per_s']:.0f} launches/s, longest heartbeat "
        f"{_seconds(ours[1]['heartbeat_max_s'])} ({ours[0].size:,} workloads); "
        f"{ours[0].latency * 1e3:.0f} ms from AWS, its quotas lifted: {command}"
    )


def _seconds(value: float) -> str:
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def machine() -> dict[str, Any]:
    """Say what this was measured on."""
    cpuinfo = Path("/proc/cpuinfo")
    models = [
        line.partition(":")[2].strip()
        for line in (cpuinfo.read_text().splitlines() if cpuinfo.exists() else ())
        if line.startswith("model name")
    ]
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "processor": models[0] if models else platform.processor(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }


def versions() -> dict[str, str]:
    """Say with what."""
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def write(
    path: Path,
    outcomes: Sequence[Outcome],
    *,
    shared: bool,
    load: Sequence[tuple[float, float, float]],
    command: str,
) -> None:
    """Write everything down."""
    table = Table(outcomes)
    data = {
        "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "machine_was_shared": shared,
        "load_average_before_and_after": load,
        "notes": NOTES,
        "headline": headline(table, command),
        "targets": [{**asdict(target), "met": target.met} for target in targets(table)],
        "outcomes": [outcome.to_dict() for outcome in outcomes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")


def read(path: Path) -> list[Outcome]:
    """Read the outcomes of a file that :func:`write` wrote."""
    data = json.loads(path.read_text())
    return [Outcome(Cell(**one["cell"]), one["figures"], one["error"]) for one in data["outcomes"]]
