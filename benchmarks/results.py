"""Results: medians over repetitions, ratios between subjects, targets, and the results file."""

from __future__ import annotations

import json
import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

from benchmarks.cells import BARE, OURS, OURS_ON_BATCH, PROVIDER, PROVIDER_ON_BATCH, Cell, Figures, Outcome, Series

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
    "burst on Batch": "the local Batch, whose own CPU (a process of its own on the same cores) bounds high rates",
    "launches_per_s": "from the first heartbeat to the answer to the last RunTask or SubmitJob",
    "launch": "CPU of the whole process, from the queueing to the event that the container runs, in one process "
    "with a bare client that sends the same requests",
    "stop": "the longest heartbeat or collection; on a machine with other work longer than its CPU",
    "cpu": "of the whole measuring process: heartbeats, polling and the loop thread included",
    "steady, adoption time": "without a database; the provider's without rebuilding the workloads",
    "adoption": "by the real scheduler, with SQLite, which has no row locks: the time is that of the executor's "
    "part of the transaction; a database server adds a round trip for each query",
    "events": "seconds from the exit of a container to the executor's event buffer, with ten heartbeats a second; "
    "an event takes 0.2 to 1.0 s to its queue, as AWS publishes no figure for it",
    "scheduler": "a real scheduler, PostgreSQL and the stub, on the same cores; containers start at once and are "
    "played into the database; due: the DAG is unpaused; loops and heartbeats: Airflow's own metrics",
    "simulation": "virtual time, no HTTP: the engine's own CPU, and when it would see an end",
}


@dataclass(frozen=True)
class Target:
    """
    One target with the measured median of the repetitions, and their range.

    :param at_least: the value has to reach the limit; else it must not exceed it
    """

    name: str
    limit: float
    value: float
    low: float
    high: float
    unit: str
    at_least: bool = False

    @property
    def verdict(self) -> str:
        """Whether the target is met; a target that only some repetitions meet is undecided."""
        met = [value >= self.limit if self.at_least else value <= self.limit for value in (self.low, self.high)]
        return "met" if all(met) else "undecided" if any(met) else "missed"


@dataclass(frozen=True)
class Row:
    """A cell's figures: each repetition's, and their medians; for maxima, the maximum. Series: the first one's."""

    cell: Cell
    repetitions: Sequence[Figures]
    figures: Figures
    series: Series

    def each(self, name: str) -> list[float]:
        """Return this figure of each repetition."""
        return [one[name] for one in self.repetitions]

    def over(self, other: Row, name: str, of_other: str | None = None) -> list[float]:
        """Return the ratios to another row's figure, repetition by repetition, as those ran next to each other."""
        below = other.each(of_other or name)
        if len(below) != len(self.repetitions):
            below = [statistics.median(below)] * len(self.repetitions)
        return [value / divisor for value, divisor in zip(self.each(name), below, strict=True)]


class Table:
    """The rows of a run, one for each cell."""

    def __init__(self, outcomes: Sequence[Outcome]) -> None:
        by_cell: defaultdict[str, list[Outcome]] = defaultdict(list)
        for outcome in outcomes:
            if outcome.error is None:
                by_cell[replace(outcome.cell, repetition=0).to_json()].append(outcome)
        self.rows = [
            Row(
                same[0].cell,
                [one.figures for one in same],
                _medians([one.figures for one in same]),
                same[0].series,
            )
            for same in by_cell.values()
        ]

    def all(self, scenario: str, subject: str, *, noted: bool = False, **conditions: Any) -> list[Row]:
        """Return the rows with these properties; ``noted``: those of cells with a note."""
        return [
            row
            for row in self.rows
            if row.cell.scenario == scenario
            and row.cell.subject == subject
            and row.cell.algorithm == conditions.get("algorithm", "HS512")
            and row.cell.service == conditions.get("service", "ecs")
            and bool(row.cell.note) == noted
            and all(getattr(row.cell, name) == value for name, value in conditions.items())
        ]

    def of(self, scenario: str, subject: str, *, noted: bool = False, **conditions: Any) -> Row | None:
        """Return the row with these properties and the largest size."""
        found = self.all(scenario, subject, noted=noted, **conditions)
        return max(found, key=lambda row: (row.cell.size, row.cell.running), default=None)


def _medians(figures: Sequence[Figures]) -> Figures:
    worst = {
        *("heartbeat_max_s", "heartbeat_max_without_gc_s", "heartbeat_cpu_max_s", "loop_max_s"),
        *("gc_max_s", "gc_cpu_max_s", "full_gc_cpu_max_s", "stop_max_s", "stop_cpu_max_s"),
    }
    return {
        name: (max if name in worst else statistics.median)(one[name] for one in figures if name in one)
        for name in figures[0]
    }


def targets(table: Table) -> list[Target]:
    """Return the targets of the scenarios in the table, with their measured values."""
    found: list[Target] = []

    def add(
        name: str,
        limit: float,
        values: Sequence[float],
        unit: str = "",
        *,
        scale: float = 1,
        at_least: bool = False,
    ) -> None:
        scaled = [value * scale for value in values]
        found.append(Target(name, limit, statistics.median(scaled), min(scaled), max(scaled), unit, at_least))

    if mixed := table.of("mixed", OURS, size=1000):
        where = f" ({mixed.cell.size:,} launches + {mixed.cell.running:,} running)"
        add(f"heartbeat, main CPU, max{where}", 5, mixed.each("heartbeat_cpu_max_s"), "ms", scale=1e3)
        add(f"heartbeat, p99 less GC{where}", 10, mixed.each("heartbeat_p99_without_gc_s"), "ms", scale=1e3)
        add(f"heartbeat, max less GC{where}", 25, mixed.each("heartbeat_max_without_gc_s"), "ms", scale=1e3)
    if (mixed := table.of("mixed", OURS, size=3000)) and "stop_max_s" in mixed.figures:
        where = f" ({mixed.cell.size:,} launches + {mixed.cell.running:,} running)"
        add(f"longest stop of the scheduler's thread{where}", 25, mixed.each("stop_max_s"), "ms", scale=1e3)
        add(f"its CPU{where}", 25, mixed.each("stop_cpu_max_s"), "ms", scale=1e3)
        add(f"main CPU per launch{where}", 100, mixed.each("main_cpu_per_launch_s"), "us", scale=1e6)
    if launch := table.of("launch", OURS):
        add("CPU of a launch, of a bare RunTask in the same process", 1.0, launch.each("cpu_of_bare"), "x")
    provider = table.of("burst", PROVIDER)
    for ours in table.all("burst", OURS):
        size, bare = ours.cell.size, table.of("burst", BARE, size=ours.cell.size)
        if provider and size >= provider.cell.size:
            ratio = ours.over(provider, "launches_per_s")
            add(f"launch rate, times the provider's ({size:,})", 50, ratio, "x", at_least=True)
        if provider and size == provider.cell.size:
            ratio = ours.over(provider, "cpu_per_finished_s")
            add(f"CPU per finished workload, of the provider's ({size:,})", 1 / 3, ratio, "x")
        if bare:
            ratio = ours.over(bare, "launches_per_s")
            add(f"launch rate, of bare aiobotocore's ({size:,})", 0.9, ratio, "x", at_least=True)
            ratio = ours.over(bare, "cpu_per_finished_s", "cpu_per_launch_s")
            add(f"CPU per finished workload, of one bare RunTask ({size:,})", 1.25, ratio, "x")
    for ours in table.all("steady", OURS, noted=True):
        running = ours.cell.running
        if polling := table.of("steady", PROVIDER, running=running):
            ratio = ours.over(polling, "cpu_per_polled_s")
            add(f"CPU per polled task, of the provider's ({running:,})", 0.1, ratio, "x")
    if memory := table.of("memory", OURS):
        add("memory per running task", 1.5, memory.each("memory_per_running_kb"), "KB")
    for row in table.all("scale", OURS, noted=True):
        for name, figure in (("running", "memory_per_running_kb"), ("launched", "memory_per_launched_kb")):
            if figure in row.figures:
                add(f"memory per {name} task ({row.cell.running or row.cell.size:,})", 1.2, row.each(figure), "KB")
    for row in table.all("beside work", OURS):
        if running := row.cell.running:
            name = f"main thread's speed beside 20/s + {running:,} running"
            add(name, 0.9, row.each("main_thread_speed"), "x", at_least=True)
        else:
            rates = row.each("launches_per_s")
            add("launch rate beside a CPU-bound main thread", 60, rates, "/s", at_least=True)
    for row in table.all("quota", OURS):
        _quota_targets(row, add)
    for noted, name, limit in ((False, "from the start", 30), (True, "mid-run", 60)):
        for row in table.all("raised quota", OURS, noted=noted):
            add(f"a raised quota (200/s) found, {name}", limit, row.each("found_after_s"), "s")
    if pushed := table.of("events", OURS, noted=True, note="events"):
        where = f"({pushed.cell.running:,} running)"
        add(f"end seen with events, median {where}", 1, pushed.each("seen_p50_s"), "s")
        add(f"end seen with events, p99 {where}", 5, pushed.each("seen_p99_s"), "s")
        for polled in table.all("events", OURS, noted=True, note="polling every second"):
            ratio = pushed.over(polled, "DescribeTasks_per_minute")
            add(f"DescribeTasks with events, of polling every second {where}", 1 / 20, ratio, "x")
    for ours in table.all("scheduler", OURS, noted=True):
        name = f"a scheduler, {ours.cell.note}"
        if ours.cell.rate_limits:
            add(f"{name}: quota used", 0.95, ours.each("quota_used"), at_least=True)
        elif provider := table.of("scheduler", PROVIDER, noted=True, size=ours.cell.size, note=ours.cell.note):
            ratio = ours.over(provider, "launches_per_s")
            add(f"{name}: launch rate, times the provider's", 10, ratio, "x", at_least=True)
    most, tenth = (table.of("simulation", OURS, running=running) for running in (100_000, 10_000))
    if most and tenth:
        ratio = most.over(tenth, "cpu_per_polled_s")
        add("CPU of a sweep per container, 100,000 to 10,000 running (simulation)", 1.25, ratio, "x")
    return found


def _quota_targets(row: Row, add: Callable[..., None]) -> None:
    if "quota_used_settled" not in row.figures:
        return
    number = row.cell.schedulers
    few = 2
    by = f"{number} scheduler{'s' * (number > 1)}"
    add(f"quota used, {by}", 0.95, row.each("quota_used_settled"), at_least=True)
    add(f"RunTask calls throttled, {by}", 0.01 if number <= few else 0.02, row.each("throttled_share"))
    if number > few:
        add(f"Jain's index, {by}", 0.95, row.each("jain"), at_least=True)


def headline(table: Table) -> str | None:
    """Return the result in one line, for the largest burst of the provider's executor; None if there is none."""
    for service, where, providers_name, our_name in (
        ("ecs", "a stand-in for ECS", PROVIDER, OURS),
        ("batch", "the local Batch", PROVIDER_ON_BATCH, OURS_ON_BATCH),
    ):
        provider = table.of("burst", providers_name, service=service)
        ours = table.of("burst", our_name, size=provider.cell.size, service=service) if provider else None
        if ours and provider:
            return _headline(where, provider, ours)
    return None


def _headline(where: str, provider: Row, ours: Row) -> str:
    return (
        f"{provider.cell.size:,} workloads at once, {where} without quotas "
        f"{ours.cell.latency * 1e3:.0f} ms away: "
        + "; ".join(
            f"{row.cell.subject} {row.figures['launches_per_s']:.3g} launches/s, longest heartbeat "
            f"{seconds(row.figures['heartbeat_max_s'])}"
            for row in (provider, ours)
        )
    )


def seconds(value: float) -> str:
    """Return a duration as people write it."""
    return f"{value:.1f} s" if value >= 1 else f"{value * 1e3:.0f} ms"


def machine() -> dict[str, Any]:
    """Return the facts about this machine."""
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
    """Return the versions of the packages that matter."""
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
    """Write a results file."""
    table = Table(outcomes)
    data = {
        "made": datetime.now(tz=timezone.utc).isoformat(timespec="seconds"),
        "command": command,
        "versions": versions(),
        "machine": machine(),
        "machine_was_shared": shared,
        "load_average_before_and_after": load,
        "notes": NOTES,
        "headline": headline(table),
        "targets": [{**asdict(target), "verdict": target.verdict} for target in targets(table)],
        "outcomes": [outcome.to_dict() for outcome in outcomes],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data, indent=1) + "\n")


def read(path: Path) -> list[Outcome]:
    """Return the outcomes of a file that :func:`write` wrote."""
    data = json.loads(path.read_text())
    return [
        Outcome(Cell(**one["cell"]), one["figures"], one["error"], one.get("series", {}))
        for one in data["outcomes"]
    ]
