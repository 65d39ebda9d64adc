"""What happened, beside what was expected, for people."""

from __future__ import annotations

import json
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from ecs_async_executor.local.demo.scenario import EXITED, LAST_WORDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from rich.console import RenderableType

    from ecs_async_executor.local.demo.airflow_home import Entry, Try
    from ecs_async_executor.local.demo.cloud import Ran
    from ecs_async_executor.local.demo.scenario import Expected

COLOURS = {"success": "green", "failed": "red"}
NOTES = (
    "queued: the time of day. wait: from then until the container ran. ran: until its task had stopped.",
    "code failed: Airflow's process reported the failure of the task's code, and ended in order.",
    "deferred, rescheduled: the task waited without a container, and went on in the next one.",
    "not started: no container came of it, and the executor launched another for the same try.",
)
ENTRY_LINES, LAST_LINES = 2, 5
"""How many lines are shown of an entry, which begins with the reason and a hint, and of last words."""


@dataclass(frozen=True, slots=True)
class Report:
    """
    Everything that happened.

    :param scenario: what was expected
    :param tries: as Airflow has them
    :param containers: as the service has them
    :param entries: the executor's in Airflow's event log
    :param last_words: what stands beside the log of each try, by task instance and try
    :param noun: what the service calls a container
    :param ours: the executor is ours: it has to write the entries of the scenario
    """

    scenario: Sequence[Expected]
    tries: Sequence[Try]
    containers: Sequence[Ran]
    entries: Sequence[Entry]
    last_words: Mapping[tuple[str, int], str]
    noun: str
    ours: bool

    def of(self, label: str, number: int) -> list[Ran]:
        """Return the containers of one try."""
        return [ran for ran in self.containers if (ran.label, ran.number) == (label, number)]

    def settled(self) -> bool:
        """Return whether Airflow is done with every task instance that does not last, and every other goes on."""
        last: dict[str, Try] = {}
        for read in self.tries:
            last[read.label] = read
        lasting = {one.label for one in self.scenario if one.lasts}
        return all(one.label in last and self._reached(one, last[one.label]) for one in self.scenario) and all(
            ran.stopped or ran.label in lasting for ran in self.containers
        )

    def states(self) -> object:
        """Return a value that changes whenever a task instance or a container does."""
        tries = [(read.label, read.number, read.state) for read in self.tries]
        return tries, [(ran.id, ran.status) for ran in self.containers]

    def told(self) -> bool:
        """Return whether the executor has also said all that it has to say of it."""
        return not self._missing_entries() and not self._missing_words()

    @staticmethod
    def _reached(one: Expected, read: Try) -> bool:
        return read.state == one.states[-1] if one.lasts else read.settled

    def surprises(self) -> list[str]:
        """Say what differs from the scenario, a sentence each."""
        tries: dict[str, list[Try]] = defaultdict(list)
        for read in self.tries:
            tries[read.label].append(read)
        found = [
            sentence for one in self.scenario for sentence in self._differences(one, tries.pop(one.label, []))
        ]
        found += [f"{label} was not expected at all" for label in tries]
        found += [
            f'{label} try {number}: Airflow\'s event log has no "{event if isinstance(event, str) else event[0]}"'
            for label, number, event in self._missing_entries()
        ]
        return found + [
            f"{label} try {number}: its log has no last words of its container"
            for label, number in self._missing_words()
        ]

    def _missing_words(self) -> list[tuple[str, int]]:
        """Return the tries whose container's last words are not beside their log."""
        if not self.ours:
            return []
        return [
            key
            for key, words in LAST_WORDS.items()
            if not self.last_words.get(key) or words not in self.last_words[key]
        ]

    def _missing_entries(self) -> list[tuple[str, int, str | tuple[str, ...]]]:
        """Return what the executor should have added to the event log: task instance, try and event."""
        if not self.ours:
            return []
        there = {(entry.label, entry.number, entry.event) for entry in self.entries}
        return [
            (one.label, number, event)
            for one in self.scenario
            for number, event in enumerate(one.events, 1)
            if not any((one.label, number) == (of, nth) and said.endswith(event) for of, nth, said in there)
        ]

    def _differences(self, expected: Expected, tries: Sequence[Try]) -> list[str]:
        found = []
        states = tuple(read.state or "no state" for read in tries)
        if states != expected.states:
            found.append(
                f"{expected.label} went {' → '.join(states) or 'nowhere'}, not {' → '.join(expected.states)}"
            )
        if expected.lasts:
            return found
        for number, (wanted, end) in enumerate(zip(expected.containers, expected.ends, strict=True), 1):
            containers = self.of(expected.label, number)
            if len(containers) != wanted:
                found.append(f"{expected.label} try {number} took {len(containers)} containers, not {wanted}")
            elif containers[0].end != end:
                found.append(f"{expected.label} try {number}: {containers[0].end or 'no end'}, not {end}")
        return found

    def table(self) -> RenderableType:
        """Lay it all out: a line per container, under the try of the task instance that ran in it."""
        title = f"Every task instance, and the {self.noun}s that it ran in"
        table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
        for heading in (
            "task instance",
            "try",
            self.noun.split()[-1],
            "how it ended",
            "queued",
            "wait",
            "ran",
            "state",
        ):
            right = heading in ("queued", "wait", "ran")
            table.add_column(heading, justify="right" if right else "left", no_wrap=True)
        for read in self.tries:
            containers = self.of(read.label, read.number)
            state = coloured(read.state or "none")
            if not containers:
                waited = _seconds(read.queued, read.started)
                table.add_row(read.label, str(read.number), "–", "–", _clock(read.queued), waited, "–", state)
            for before, ran in zip([None, *containers], containers, strict=False):
                first, last = before is None, ran is containers[-1]
                queued = ran.created
                # Airflow keeps only the last time that a try was queued, and knows nothing of a relaunch.
                if last and read.queued is not None and (before is None or read.queued > before.created):
                    queued = read.queued
                table.add_row(
                    read.label if first else "",
                    str(read.number) if first else "",
                    ran.short,
                    _ending_of(read, ran),
                    _clock(queued),
                    _seconds(queued, ran.started),
                    _seconds(ran.started, ran.stopped),
                    state if last else self._given_back(read, ran),
                )
        return Group(table, *(Padding(Text(note, style="dim"), (0, 0, 0, 1)) for note in NOTES), "")

    def _given_back(self, read: Try, ran: Ran) -> str:
        """Say why a try has gone on in another container."""
        if not ran.started:
            return "not started"
        if ran.exit_code:
            return "relaunched"
        return next((one.waits for one in self.scenario if one.label == read.label and one.waits), "relaunched")

    def event_log(self) -> RenderableType:
        """Lay out what the executor added to Airflow's event log."""
        return _section("What the executor added to Airflow's event log (Audit Log)", self._entries())

    def _entries(self) -> Iterator[tuple[str, str]]:
        for entry in self.entries:
            shown = "\n".join(entry.text.splitlines()[:ENTRY_LINES])
            yield f"{_clock(entry.at)}  {entry.label} try {entry.number}: {entry.event}", shown

    def said_last(self) -> RenderableType:
        """Lay out what failed containers have printed last, as the tab Logs has it."""
        return _section(
            "The last words of failed containers (Logs)",
            (
                (f"{label} try {number}", "\n".join(map(_readable, words.splitlines()[-LAST_LINES:])))
                for (label, number), words in self.last_words.items()
            ),
        )


def _section(title: str, texts: Iterable[tuple[str, str]]) -> RenderableType:
    """Lay out texts of any length, each under a line of its own."""
    parts: list[RenderableType] = [Text(title, style="italic")]
    for heading, text in texts:
        parts += [Text(heading), Padding(Text(text, style="dim", overflow="fold"), (0, 0, 0, 10))]
    return Group(*parts, "")


def _readable(line: str) -> str:
    """Return the message of a line that Airflow wrote as JSON; any other line as it is."""
    try:
        return str(json.loads(line)["event"])
    except (ValueError, KeyError, TypeError):
        return line


def ending(ran: Ran) -> str:
    """Say in a few words how a container ended, or what it does now."""
    if not ran.stopped:
        return ran.status
    if ran.exit_code is None:
        return ran.why
    return f"exit {ran.exit_code}" if ran.why == EXITED else f"exit {ran.exit_code}: {ran.why}"


def _ending_of(read: Try, ran: Ran) -> str:
    """Say the same of a container, and whether it has told Airflow of a failure."""
    reported = read.state == "failed" and ran.exit_code == 0 and ran.why == EXITED
    return f"{ending(ran)}: code failed" if reported else ending(ran)


def _clock(moment: datetime | None) -> str:
    return "–" if moment is None else f"{moment.astimezone():%H:%M:%S}"


def _seconds(since: datetime | None, until: datetime | None) -> str:
    return "–" if since is None or until is None else f"{(until - since).total_seconds():.0f} s"


def counted(number: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def coloured(state: str) -> str:
    """Return a state of Airflow's in its colour."""
    colour = COLOURS.get(state)
    return f"[{colour}]{state}[/]" if colour else state
