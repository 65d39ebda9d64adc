"""What happened, beside what was expected, for people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.table import Table

from ecs_async_executor.local.demo.scenario import EXITED, SCENARIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ecs_async_executor.local.demo.airflow_home import Try
    from ecs_async_executor.local.demo.local_ecs import EcsTask
    from ecs_async_executor.local.demo.scenario import Expected

COLOURS = {"success": "green", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Report:
    """
    Everything that happened.

    :param tries: as Airflow has them
    :param tasks: as ECS has them
    """

    tries: Sequence[Try]
    tasks: Sequence[EcsTask]

    def of(self, label: str, number: int) -> list[EcsTask]:
        """Return the ECS tasks of one try."""
        return [task for task in self.tasks if (task.label, task.number) == (label, number)]

    def settled(self) -> bool:
        """Say whether Airflow is done with every task instance of the scenario, and every container ended."""
        last: dict[str, Try] = {}
        for read in self.tries:
            last[read.label] = read
        return all(one.label in last and last[one.label].settled for one in SCENARIO) and all(
            task.stopped for task in self.tasks
        )

    def surprises(self) -> list[str]:
        """Say what differs from the scenario, a sentence each."""
        tries: dict[str, list[Try]] = defaultdict(list)
        for read in self.tries:
            tries[read.label].append(read)
        found = [sentence for one in SCENARIO for sentence in self._differences(one, tries.pop(one.label, []))]
        return found + [f"{label} was not expected at all" for label in tries]

    def _differences(self, expected: Expected, tries: Sequence[Try]) -> list[str]:
        found = []
        states = tuple(read.state or "no state" for read in tries)
        if states != expected.states:
            found.append(
                f"{expected.label} went {' → '.join(states) or 'nowhere'}, not {' → '.join(expected.states)}"
            )
        for number, (containers, stop_code) in enumerate(
            zip(expected.containers, expected.stop_codes, strict=True), 1
        ):
            tasks = self.of(expected.label, number)
            if len(tasks) != containers:
                found.append(f"{expected.label} try {number} took {len(tasks)} containers, not {containers}")
            elif tasks[0].stop_code != stop_code:
                found.append(
                    f"{expected.label} try {number}: {tasks[0].stop_code or 'no stop code'}, not {stop_code}"
                )
        return found

    def table(self) -> Table:
        """Lay it all out: a line per ECS task, under the try of the task instance that ran in it."""
        table = Table(title="Every task instance, and the ECS tasks that it ran in", title_justify="left")
        for heading in ("task instance", "try", "ECS task", "why it stopped"):
            table.add_column(heading, overflow="fold")
        for heading in ("exit", "queued", "started", "ended"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for read in self.tries:
            tasks = self.of(read.label, read.number)
            state = read.state or "none"
            if not tasks:
                table.add_row(
                    read.label, str(read.number), "–", "–", "–",
                    _clock(read.queued), _clock(read.started), _clock(read.ended), _coloured(state),
                )  # fmt: skip
            for task in tasks:
                last = task is tasks[-1]
                table.add_row(
                    read.label if task is tasks[0] else "",
                    str(read.number) if task is tasks[0] else "",
                    task.short,
                    _why(task),
                    "–" if task.exit_code is None else str(task.exit_code),
                    # Airflow keeps only the last time that a try was queued.
                    _clock(read.queued if last else task.created),
                    _clock(task.started),
                    _clock(task.stopped),
                    _coloured(state) if last else "gave way",
                )
        return table


def _why(task: EcsTask) -> str:
    if not task.stop_code:
        return task.status
    return "exited" if task.stop_code == EXITED else f"{task.stop_code}: {task.stopped_reason}"


def _clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone():%H:%M:%S}"


def _coloured(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state
