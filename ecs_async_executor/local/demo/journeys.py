"""What tries asked for, where each ran and how it ended, for people: the part of the report about rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from ecs_async_executor.local.demo.report import coloured, ending
from ecs_async_executor.local.demo.scenario import ELSEWHERE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecs_async_executor.local.demo.report import Report
    from ecs_async_executor.local.demo.scenario import Expected, Where


def journeys(report: Report) -> Table:
    """Lay out each task instance that the rules steer, with what it asked for: a line for each container."""
    title = "Where the executor's rules have sent each try, and with what size"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("what was asked for", "try", "ran at", "size", "how it ended", "state"):
        table.add_column(heading, no_wrap=heading != "what was asked for")
    for one in steered(report.scenario):
        lines = [line for number in range(1, len(one.states) + 1) for line in _lines(report, one.label, number)]
        asked = Text(one.label).append(f"\n{one.asked}", style="dim")
        table.add_row(asked, *("\n".join(cells) for cells in zip(*lines, strict=True)))
    return table


def steered(scenario: Sequence[Expected]) -> list[Expected]:
    """Return the task instances of a scenario that the executor's rules have a say in."""
    return [one for one in scenario if one.places]


def misplaced(report: Report) -> Iterator[str]:
    """Say which tries ran elsewhere than expected, or with another size, a sentence each."""
    for one in steered(report.scenario):
        containers = (ran for ran in report.containers if ran.label == one.label)
        for wanted, ran in zip(one.places, containers, strict=False):
            if ran.where != wanted:
                found = f"{ran.where.at} with {size(ran.where)}"
                yield f"{one.label} try {ran.number} ran at {found}, not at {wanted.at} with {size(wanted)}"


def size(where: Where) -> str:
    """Return the size of a container as people write it."""
    memory = where.memory_mb
    return f"{where.vcpus:g} vCPU " + (f"{memory / 1024:g} GB" if memory >= 1024 else f"{memory} MB")  # noqa: PLR2004


def _lines(report: Report, label: str, number: int) -> Iterator[tuple[str, ...]]:
    """Yield a line for each container of a try; the last says whether a full placement was left for it."""
    containers = report.of(label, number)
    told = {entry.event for entry in report.entries if (entry.label, entry.number) == (label, number)}
    states = [read.state or "none" for read in report.tries if (read.label, read.number) == (label, number)]
    for ran in containers:
        end, state = ending(ran), "not started"
        if ran is containers[-1]:
            state = coloured(states[0]) if states else "none"
            end += "\nplaced elsewhere" if any(event.endswith(ELSEWHERE) for event in told) else ""
        yield str(number), ran.where.at, size(ran.where), end, state
