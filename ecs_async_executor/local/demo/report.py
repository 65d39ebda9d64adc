"""What happened, beside what was expected, for people."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from ecs_async_executor.local.demo.scenario import EVENTS, SCENARIO

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from ecs_async_executor.local.demo.airflow_home import Entry, Try
    from ecs_async_executor.local.demo.cloud import Ran
    from ecs_async_executor.local.demo.scenario import Expected

COLOURS = {"success": "green", "failed": "red"}


@dataclass(frozen=True, slots=True)
class Report:
    """
    Everything that happened.

    :param tries: as Airflow has them
    :param containers: as the service has them
    :param entries: the executor's in Airflow's event log
    :param noun: what the service calls a container
    :param ours: the executor is ours: it has to write the entries of the scenario
    """

    tries: Sequence[Try]
    containers: Sequence[Ran]
    entries: Sequence[Entry]
    noun: str
    ours: bool

    def of(self, label: str, number: int) -> list[Ran]:
        """Return the containers of one try."""
        return [ran for ran in self.containers if (ran.label, ran.number) == (label, number)]

    def settled(self) -> bool:
        """Say whether Airflow is done with every task instance of the scenario, and every container ended."""
        last: dict[str, Try] = {}
        for read in self.tries:
            last[read.label] = read
        return all(one.label in last and last[one.label].settled for one in SCENARIO) and all(
            ran.stopped for ran in self.containers
        )

    def surprises(self) -> list[str]:
        """Say what differs from the scenario, a sentence each."""
        tries: dict[str, list[Try]] = defaultdict(list)
        for read in self.tries:
            tries[read.label].append(read)
        found = [sentence for one in SCENARIO for sentence in self._differences(one, tries.pop(one.label, []))]
        found += [f"{label} was not expected at all" for label in tries]
        return found + (self._missing_entries() if self.ours else [])

    def _missing_entries(self) -> list[str]:
        return [
            f'{label} try {number}: Airflow\'s event log has no "{event}"'
            for (label, number), event in EVENTS.items()
            if not any(
                (entry.label, entry.number) == (label, number) and entry.event.endswith(event)
                for entry in self.entries
            )
        ]

    def _differences(self, expected: Expected, tries: Sequence[Try]) -> list[str]:
        found = []
        states = tuple(read.state or "no state" for read in tries)
        if states != expected.states:
            found.append(
                f"{expected.label} went {' → '.join(states) or 'nowhere'}, not {' → '.join(expected.states)}"
            )
        for number, (wanted, end) in enumerate(zip(expected.containers, expected.ends, strict=True), 1):
            containers = self.of(expected.label, number)
            if len(containers) != wanted:
                found.append(f"{expected.label} try {number} took {len(containers)} containers, not {wanted}")
            elif containers[0].end != end:
                found.append(f"{expected.label} try {number}: {containers[0].end or 'no end'}, not {end}")
        return found

    def table(self) -> Table:
        """Lay it all out: a line per container, under the try of the task instance that ran in it."""
        table = Table(title=f"Every task instance, and the {self.noun}s that it ran in", title_justify="left")
        for heading in ("task instance", "try", self.noun, "why it stopped"):
            table.add_column(heading, overflow="fold")
        for heading in ("exit", "queued", "started", "ended"):
            table.add_column(heading, justify="right", no_wrap=True)
        table.add_column("state", no_wrap=True)
        for read in self.tries:
            containers = self.of(read.label, read.number)
            state = read.state or "none"
            if not containers:
                table.add_row(
                    read.label, str(read.number), "–", "–", "–",
                    _clock(read.queued), _clock(read.started), _clock(read.ended), _coloured(state),
                )  # fmt: skip
            for ran in containers:
                last = ran is containers[-1]
                table.add_row(
                    read.label if ran is containers[0] else "",
                    str(read.number) if ran is containers[0] else "",
                    ran.short,
                    ran.why or ran.status,
                    "–" if ran.exit_code is None else str(ran.exit_code),
                    # Airflow keeps only the last time that a try was queued.
                    _clock(read.queued if last else ran.created),
                    _clock(ran.started),
                    _clock(ran.stopped),
                    _coloured(state) if last else "gave way",
                )
        return table

    def event_log(self) -> Table:
        """Lay out what the executor added to Airflow's event log."""
        table = Table(title="What the executor added to Airflow's event log (Audit Log)", title_justify="left")
        table.add_column("at", justify="right", no_wrap=True)
        for heading in ("task instance", "try", "event", "what it says"):
            table.add_column(heading, overflow="fold")
        for entry in self.entries:
            table.add_row(_clock(entry.at), entry.label, str(entry.number), entry.event, escape(entry.text))
        return table


def _clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone():%H:%M:%S}"


def _coloured(state: str) -> str:
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state
