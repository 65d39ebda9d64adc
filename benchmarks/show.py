"""Prints a run as tables."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

from rich.console import Console
from rich.table import Table as Grid

from benchmarks.cells import ALL_OURS, Cell, Figures
from benchmarks.results import Table, Target

Column = tuple[str, str, Callable[[float], str]]


def _ms(value: float) -> str:
    return f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.1f} s"


def _us(value: float) -> str:
    return f"{value * 1e6:,.0f} us"


def _percent(value: float) -> str:
    return f"{value:.1%}"


def _ratio(value: float) -> str:
    return f"{value:.2f}"


def _number(value: float) -> str:
    return f"{value:,.1f}" if value % 1 else f"{value:,.0f}"


_HEARTBEAT: tuple[Column, ...] = (
    ("heartbeat p50", "heartbeat_p50_s", _ms),
    ("p99", "heartbeat_p99_s", _ms),
    ("max", "heartbeat_max_s", _ms),
    ("max less GC", "heartbeat_max_without_gc_s", _ms),
    ("main CPU max", "heartbeat_cpu_max_s", _ms),
)
_BURST: tuple[Column, ...] = (
    ("launches/s", "launches_per_s", _number),
    ("queued to request p50", "queued_to_run_p50_s", _ms),
    ("p99", "queued_to_run_p99_s", _ms),
    *_HEARTBEAT,
    ("longest GC", "gc_max_s", _ms),
    ("its CPU", "gc_cpu_max_s", _ms),
    ("main CPU/launch", "main_cpu_per_launch_s", _us),
    ("CPU/launch", "cpu_per_launch_s", _us),
    ("CPU/finished", "cpu_per_finished_s", _us),
    ("sweeps", "sweeps", _number),
)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    "burst": _BURST,
    "mixed": _BURST,
    "launch": (
        ("CPU/launch", "cpu_per_launch_s", _us),
        ("bare RunTask", "bare_cpu_per_launch_s", _us),
        ("ratio", "cpu_of_bare", _ratio),
        ("p10", "cpu_of_bare_p10", _ratio),
        ("p90", "cpu_of_bare_p90", _ratio),
        ("main thread's", "main_cpu_per_launch_s", _us),
    ),
    "steady": (
        ("adoption", "adopt_s", _ms),
        ("until resolved", "adopted_and_resolved_s", _ms),
        ("CPU/polled", "cpu_per_polled_s", _us),
        ("polled/s", "polled_per_s", _number),
        *_HEARTBEAT,
        ("CPU", "cpu_share", _percent),
    ),
    "memory": (("KB per running container", "memory_per_running_kb", _number),),
    "beside work": (
        ("main thread's speed", "main_thread_speed", _percent),
        ("launches/s", "launches_per_s", _number),
        ("queued to request p99", "queued_to_run_p99_s", _ms),
        *_HEARTBEAT,
        ("CPU beside it", "other_cpu_share", _percent),
    ),
    "quota": (
        ("launched", "launched", _number),
        ("quota used", "quota_used", _percent),
        ("after 5 s", "quota_used_settled", _percent),
        ("throttled", "throttled_share", _percent),
        ("Jain", "jain", lambda value: f"{value:.3f}"),
        *_HEARTBEAT[:3],
    ),
    "adoption": (
        ("under the row locks", "under_lock_s", _ms),
        ("queries meanwhile", "statements", _number),
        ("whole adoption", "adoption_s", _ms),
        ("until resolved", "adopted_and_resolved_s", _ms),
    ),
    "raised quota": (
        ("launched", "launched", _number),
        ("180/s reached after", "found_after_s", _ms),
        ("rate at the end", "rate_at_end", _number),
        ("throttled", "throttled_share", _percent),
        *_HEARTBEAT[:3],
    ),
    "storm": (
        ("launched", "launched", _number),
        ("calls/s meanwhile", "calls_per_s_in_storm", _number),
        ("18/s again after", "recovered_after_s", _ms),
        ("quota used at the end", "quota_used_settled", _percent),
        *_HEARTBEAT[:3],
    ),
    "events": (
        ("end seen p50", "seen_p50_s", _ms),
        ("p99", "seen_p99_s", _ms),
        ("of long ones p50", "seen_long_p50_s", _ms),
        ("p99", "seen_long_p99_s", _ms),
        ("DescribeTasks/min", "DescribeTasks_per_minute", _number),
        ("ReceiveMessage/min", "ReceiveMessage_per_minute", _number),
        ("CPU", "cpu_share", _percent),
        ("polling again after", "polling_again_after_s", _ms),
        ("ends until then p99", "seen_meanwhile_p99_s", _ms),
        ("since then p99", "seen_then_p99_s", _ms),
    ),
    "scheduler": (
        ("run done after", "until_success_s", _ms),
        ("launches/s", "launches_per_s", _number),
        ("quota used", "quota_used", _percent),
        ("tasks started after p50", "due_to_start_p50_s", _ms),
        ("p99", "due_to_start_p99_s", _ms),
        ("queued to start p50", "queued_to_start_p50_s", _ms),
        ("p99", "queued_to_start_p99_s", _ms),
        ("loops", "loops", _number),
        ("longest", "loop_max_s", _ms),
        ("heartbeat max", "heartbeat_max_s", _ms),
        ("CPU", "cpu_s", _ms),
    ),
    "simulation": (
        ("between sweeps", "sweep_interval_s", _ms),
        ("CPU/sweep", "cpu_per_sweep_s", _ms),
        ("CPU/polled", "cpu_per_polled_s", _us),
        ("end seen p50", "detection_p50_s", _ms),
        ("p99", "detection_p99_s", _ms),
        ("adopted and resolved", "adopted_and_resolved_s", _ms),
    ),
    "scale": (
        ("adoption", "adopt_s", _ms),
        ("main CPU", "adopt_cpu_s", _ms),
        ("until resolved", "adopted_and_resolved_s", _ms),
        ("longest heartbeat meanwhile", "adoption_heartbeat_max_s", _ms),
        ("main CPU", "adoption_heartbeat_cpu_max_s", _ms),
        ("a sweep", "sweep_s", _ms),
        ("CPU/polled", "cpu_per_polled_s", _us),
        ("CPU", "cpu_share", _percent),
        ("p50 at 1 %", "few_heartbeat_p50_s", _ms),
        ("p99 at 1 %", "few_heartbeat_p99_s", _ms),
        ("max at 1 %", "few_heartbeat_max_s", _ms),
        *_HEARTBEAT[:4],
        ("KB each", "memory_per_running_kb", _number),
        ("resident KB each", "resident_per_running_kb", _number),
        ("KB each launched", "memory_per_launched_kb", _number),
    ),
}
_VERDICTS = {"met": "[green]met[/]", "missed": "[red]missed[/]", "undecided": "[yellow]undecided[/]"}
_TITLES = {
    "burst": "Launch burst: all queued at once, quotas lifted",
    "mixed": "Launch burst beside running containers",
    "launch": "A launch beside a bare request: blocks of both in turn, in one process",
    "steady": "Steady state: polling only, AWS's default read quota",
    "memory": "Memory that Python holds for a running container",
    "beside work": "A main thread that computes between heartbeats",
    "quota": "AWS's default quotas enforced: 20 RunTask/s",
    "raised quota": "A quota of 200 RunTask/s, of which the executor is not told",
    "storm": "Every request throttled for 15 s, AWS's default quotas before and after",
    "adoption": "Adoption by a real scheduler with a real database (SQLite)",
    "events": "Five ends a second, half of them of containers that have run for long",
    "scheduler": "A real scheduler on PostgreSQL, one mapped task; containers are played into the database",
    "simulation": "The engine alone in virtual time, AWS's default read quota",
    "scale": "A hundred thousand running on one scheduler",
}
_TITLES_ON_BATCH = {
    "burst": "Launch burst on Batch: all queued at once, quotas lifted; the local Batch",
    "quota": "AWS's quota of Batch enforced: 50 requests/s of all kinds, launches among them",
}


def tables(console: Console, table: Table) -> None:
    """Print one table for each scenario."""
    for service, (scenario, columns) in itertools.product(("ecs", "batch"), _COLUMNS.items()):
        rows = [row for row in table.rows if row.cell.scenario == scenario and row.cell.service == service]
        if not rows:
            continue
        rows.sort(key=lambda row: (row.cell.size + row.cell.running, row.cell.schedulers, row.cell.subject))
        shown = [column for column in columns if any(column[1] in row.figures for row in rows)]
        title = _TITLES_ON_BATCH.get(scenario, scenario) if service == "batch" else _TITLES[scenario]
        grid = Grid(title=title, title_justify="left")
        grid.add_column("")
        for heading, _, _ in shown:
            grid.add_column(heading, justify="right")
        for row in rows:
            written = (_cell(row.figures, key, write) for _, key, write in shown)
            grid.add_row(_name(row.cell), *written, style=_style(row.cell))
        console.print(grid)


def _name(cell: Cell) -> str:
    return cell.label.removeprefix(f"{cell.scenario} ").removeprefix("on Batch ")


def _style(cell: Cell) -> str | None:
    return "bold" if cell.subject in ALL_OURS else None


def _cell(figures: Figures, key: str, write: Callable[[float], str]) -> str:
    return write(figures[key]) if key in figures else ""


def targets(console: Console, found: Sequence[Target]) -> None:
    """Print one table with all targets."""
    if not found:
        return
    grid = Grid(title="Targets", title_justify="left")
    for title in ("", "wanted", "measured", "repetitions", ""):
        grid.add_column(title, justify="left" if not title else "right")
    for target in found:
        sign = ">=" if target.at_least else "<="
        grid.add_row(
            target.name,
            f"{sign} {target.limit:.3g} {target.unit}",
            f"{target.value:.3g} {target.unit}",
            f"{target.low:.3g} to {target.high:.3g}" if target.low != target.high else "one run",
            _VERDICTS[target.verdict],
        )
    console.print(grid)
