"""The same DAGs with two executors: what went differently, and what is known of that."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ecs_async_executor.local.demo.report import counted
from ecs_async_executor.local.demo.scenario import HOST_LOST, KILLED, LAST_WORDS, SCENARIO

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ecs_async_executor.local.demo.report import Report

KNOWN_PREFIX = "Known behaviour of the provider: "
UNKNOWN = "Earlier runs have not shown this."
RELAUNCHED = (
    "it launches a container that did not end well again, twice at most, also after its task has begun. Airflow "
    "refuses the second and the third: the task instance is running already."
)
KNOWN = {
    "ecs": {
        KILLED.label: RELAUNCHED,
        HOST_LOST.label: (
            "an ECS task that has stopped without an exit code counts as running until ECS forgets it, after an "
            "hour or more. The executor causes no retry before that."
        ),
    },
    "batch": {KILLED.label: RELAUNCHED, HOST_LOST.label: RELAUNCHED},
}
"""What earlier runs have shown of the provider's executors, by service and task instance."""


def comparison(ours: Report, theirs: Report, service: str, names: tuple[str, str]) -> RenderableType:
    """
    Lay out which task instances went differently with the second executor.

    :param names: of both executors
    """
    table = Table(
        title=f"What went differently with {names[1]}",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )
    table.add_column("task instance", no_wrap=True)
    table.add_column("executor", no_wrap=True)
    table.add_column("what became of it")
    alike = 0
    for one in SCENARIO:
        courses = course(ours, one.label), course(theirs, one.label)
        if courses[0] == courses[1]:
            alike += 1
            continue
        told = KNOWN[service].get(one.label)
        table.add_row(one.label, names[0], courses[0])
        note = f"{KNOWN_PREFIX}{told}" if told else UNKNOWN
        table.add_row("", names[1], Text(courses[1]).append(f"\n{note}", style="dim"))
    notes = [f"{alike} of {len(SCENARIO)} task instances went alike."]
    reasons = [
        sum(any(entry.label == label for entry in report.entries) for label, _ in LAST_WORDS)
        for report in (ours, theirs)
    ]
    notes.append(
        f"Of {len(LAST_WORDS)} tries that ended without a word from Airflow's process, the Audit Log says why: "
        f"{reasons[0]} with {names[0]}, {reasons[1]} with {names[1]}."
    )
    return Group(table, *(Padding(Text(note), (0, 0, 0, 1)) for note in notes), "")


def course(report: Report, label: str) -> str:
    """Say what became of a task instance: the state of each try, and its number of containers."""
    tries = [read for read in report.tries if read.label == label]
    told = (f"{read.state}, {counted(len(report.of(label, read.number)), 'container')}" for read in tries)
    return "; then ".join(told) or "not run"
