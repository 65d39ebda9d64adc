"""What tries asked for, where each ran and how it ended, for people: the part of the report about rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.table import Table
from rich.text import Text

from ecs_async_executor.local.demo.report import coloured, ending

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ecs_async_executor.local.demo.cloud import Ran
    from ecs_async_executor.local.demo.report import Report
    from ecs_async_executor.local.demo.scenario import Expected, Where

ELSEWHERE = "container placed elsewhere"


def journeys(report: Report) -> Table:
    """Lay out each task instance that the rules steer, with what it asked for: a line for each container."""
    title = "Where the executor's rules have sent each try, and with what size"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    for heading in ("what was asked for", "try", "ran at", "size", "its end", "state"):
        table.add_column(heading, no_wrap=heading not in ("what was asked for", "its end"))
    for one in steered(report.scenario):
        tries = [read for read in report.tries if read.label == one.label]
        lines = [
            (
                str(read.number),
                ran.where.at,
                size(ran.where),
                _outcome(report, ran),
                coloured(read.state or "none"),
            )
            for read in tries
            for ran in report.of(read.label, read.number)
        ]
        asked = Text(one.label).append(f"\n{one.asked}", style="dim")
        table.add_row(asked, *("\n".join(cells) for cells in zip(*lines, strict=True)))
    return table


def steered(scenario: Sequence[Expected]) -> list[Expected]:
    """Return the task instances of a scenario that the executor's rules have a say in."""
    return [one for one in scenario if one.places]


def misplaced(report: Report) -> Iterator[str]:
    """Say which tries ran elsewhere than expected, or with another size, a sentence each."""
    for one in steered(report.scenario):
        for number, wanted in enumerate(one.places, 1):
            for ran in report.of(one.label, number):
                if ran.where != wanted:
                    found = f"{ran.where.at} with {size(ran.where)}"
                    yield f"{one.label} try {number} ran at {found}, not at {wanted.at} with {size(wanted)}"


def size(where: Where) -> str:
    """Return the size of a container as people write it."""
    memory = where.memory_mb
    return f"{where.vcpus:g} vCPU " + (f"{memory / 1024:g} GB" if memory >= 1024 else f"{memory} MB")  # noqa: PLR2004


def _outcome(report: Report, ran: Ran) -> str:
    """Say how a container ended, and what else the executor had to say of its placement."""
    told = {entry.event for entry in report.entries if (entry.label, entry.number) == (ran.label, ran.number)}
    elsewhere = any(event.endswith(ELSEWHERE) for event in told)
    return f"{ending(ran)}\nplaced elsewhere" if elsewhere else ending(ran)
