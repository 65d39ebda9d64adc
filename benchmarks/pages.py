"""Tables of a run on the pages: between the marks ``<!-- NAME: ... -->`` and ``<!-- /NAME -->`` of a file."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.cells import ALL_OURS, OURS, PROVIDER
from benchmarks.results import Row, Table, Target, seconds, targets
from benchmarks.scenarios import DEFAULT_QUOTAS, MORE_QUEUED, RAISED_QUOTAS, SCHEDULERS

ROOT = Path(__file__).parent.parent
PERFORMANCE = "docs/performance.md"
Column = tuple[str, Callable[[Row], str]]


def _median(name: str, write: Callable[[float], str]) -> Callable[[Row], str]:
    return lambda row: write(row.figures[name])


def _range(name: str, write: Callable[[float], str]) -> Callable[[Row], str]:
    return lambda row: _between(write(min(row.each(name))), write(max(row.each(name))))


def _between(low: str, high: str) -> str:
    """Return a range; its unit once, if both ends have the same."""
    if low == high:
        return low
    number, _, unit = low.partition(" ")
    return f"{number} to {high}" if high.endswith(f" {unit}") or not unit else f"{low} to {high}"


def _whole(value: float) -> str:
    return f"{value:.0f}"


def _name(row: Row) -> str:
    name = f"`{row.cell.subject}`"
    return f"**{name}**" if row.cell.subject in ALL_OURS else name


_NAMES: tuple[Column, ...] = (("", lambda row: row.cell.note), ("executor", _name))
_SHORT: tuple[Column, ...] = (
    *_NAMES,
    ("run done after", _median("until_success_s", seconds)),
    ("tasks started per second", _median("launches_per_s", _whole)),
    ("longest heartbeat", _median("heartbeat_max_s", seconds)),
)
_LONG: tuple[Column, ...] = (
    *_NAMES,
    ("run done after", _range("until_success_s", seconds)),
    ("starts per second", _range("launches_per_s", _whole)),
    ("tasks started after, median and p99", lambda row: _both(row, "due_to_start")),
    ("queued to start, median and p99", lambda row: _both(row, "queued_to_start")),
    ("loops", _range("loops", _whole)),
    ("longest loop", _range("loop_max_s", seconds)),
    ("longest heartbeat", _range("heartbeat_max_s", seconds)),
    ("scheduler's CPU", _range("cpu_s", seconds)),
)
PAGES = (
    ("README.md", _SHORT, (DEFAULT_QUOTAS, RAISED_QUOTAS, MORE_QUEUED)),
    (PERFORMANCE, _LONG, tuple(SCHEDULERS)),
)


def _both(row: Row, name: str) -> str:
    return ", ".join(seconds(row.figures[f"{name}_{share}_s"]) for share in ("p50", "p99"))


def rewrite(table: Table) -> list[Path]:
    """Write what the table has of a whole scheduler onto the pages; return those that were written."""
    written = []
    for name, columns, notes in PAGES:
        rows = [
            row
            for note in notes
            for subject in (PROVIDER, OURS)
            for row in table.all("scheduler", subject, noted=True, note=note)
        ]
        if rows:
            path = ROOT / name
            _write(path, "scheduler", _markdown(columns, rows))
            written.append(path)
    found = [target for target in targets(table) if target.name.startswith("a scheduler, ")]
    if found:
        lines = [_target(target) for target in found]
        _write(ROOT / PERFORMANCE, "scheduler targets", _grid(["Target", "Wanted", "Measured", ""], lines))
    return written


def _target(target: Target) -> list[str]:
    values = _between(f"{target.low:.3g}", f"{target.high:.3g}")
    wanted = f"{'>=' if target.at_least else '<='} {target.limit:.3g}"
    return [target.name, *(f"{text} {target.unit}".strip() for text in (wanted, values)), target.verdict]


def _markdown(columns: Sequence[Column], rows: Sequence[Row]) -> str:
    return _grid([heading for heading, _ in columns], [[write(row) for _, write in columns] for row in rows])


def _grid(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))


def _write(path: Path, name: str, table: str) -> None:
    marks = re.compile(rf"(<!-- {name}:[^\n]*-->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
    new, found = marks.subn(lambda mark: f"{mark[1]}\n{table}\n{mark[2]}", path.read_text())
    if found != 1:
        raise ValueError(f"{path} has {found} places for the table {name!r}")
    path.write_text(new)
