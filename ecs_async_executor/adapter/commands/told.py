"""
Why a try has failed, as Airflow's event log tells it. Pure functions.

May import ``core``, ``last_ends`` and ``tries``.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from ecs_async_executor.adapter.last_ends import CONTAINER_FAILURE
from ecs_async_executor.adapter.tries import Entry, Try
from ecs_async_executor.core.backend import Observation
from ecs_async_executor.core.last_words import says_that_it_never_ran

FAILED: Final = frozenset({"failed", "up_for_retry"})
"""Airflow's states of a try that has failed."""
OUTPUT: Final = "container output"
"""The event log's name, after the service's, for what a dead container has printed last."""
MISMATCH: Final = "state mismatch"
"""Airflow's name for what its scheduler thinks of an executor's report that a try has failed."""
FOLLOWS: Final = "Airflow's own entry: it follows from the failure, see the reason above"
ABOVE: Final = "see reason and hint above"

_BY_AIRFLOW: Final = ("heartbeat timeout", "stuck in queued tries exceeded", "fail task")
"""Airflow's names for what its scheduler fails a try for, whatever the executor says."""
_REPORTED: Final = "host_name"
"""In the entries of Airflow 3.2 and later about what a container has reported; the scheduler's do not have it."""
_ITSELF: Final = (
    "The task itself failed: its code raised, or its process ended. Airflow's process in the container reported "
    "that to Airflow, and exited 0."
)
_UNKNOWN: Final = "The container exited 0, and Airflow has the try as failed. Airflow's database does not say why."


@dataclass(frozen=True, slots=True)
class Told:
    """
    Why a try has failed.

    :param reason: as a sentence for people
    :param hint: what it means, and what to do; empty if there is nothing to add
    :param entry: the entry that says so; None if several facts do together
    """

    reason: str
    hint: str = ""
    entry: Entry | None = None

    @property
    def text(self) -> str:
        """Reason and hint, as sentences."""
        return " ".join(
            one if one.endswith((".", "!", "?")) else f"{one}." for one in (self.reason, self.hint) if one
        )


def has_failed(of: Try | None) -> bool:
    """Return whether a try has failed, retries to come or not."""
    return of is not None and of.state in FAILED


def failure_in(service: str, launch_failure: str, entries: Sequence[Entry]) -> Told | None:
    """
    Return the latest failure that the event log tells of: the executor's entry, or else Airflow's own.

    :param launch_failure: the name of the entry about a launch without a container, after the service's
    """
    ours = {f"{service.lower()} {name}" for name in (CONTAINER_FAILURE, launch_failure)}
    for one in reversed(entries):
        if one.event in ours and one.text.strip():
            reason, *rest = one.text.strip().splitlines()
            return Told(reason, " ".join(rest), one)
    for one in reversed(entries):
        if one.event in _BY_AIRFLOW:
            return Told(f"Airflow failed it ({one.event}): {one.text}", entry=one)
    return None


def failure_of_task(of: Try, observation: Observation, entries: Sequence[Entry]) -> Told | None:
    """
    Return that a task failed by itself, of a try that failed and whose own container did all that it should.

    From Airflow 3.2 on, the event log has what the container reported; without that the cause stays open.
    """
    if (
        observation.exit_code != 0
        or observation.ending is not None
        or any(one.event == MISMATCH for one in entries)
    ):
        return None
    command = f"`{command_about(of, 'logs')}`"
    if any(one.event in FAILED and _REPORTED in one.text for one in entries):
        return Told(_ITSELF, f"{command} shows its traceback, and what the task printed before.")
    if any(_REPORTED in one.text for one in entries):
        return None  # this Airflow notes reports, and there was none of a failure
    return Told(_UNKNOWN, f"Mostly the task's own code failed, which {command} shows; a person can do that, too.")


def command_about(of: Try, name: str) -> str:
    """Return the command of a name about a try, as it is typed."""
    words = ["airflow", "ecs-async", name, of.dag_id, of.run_id, of.task_id]
    if of.map_index >= 0:
        words += ["--map-index", str(of.map_index)]
    if of.earlier:
        words += ["--try", str(of.number)]
    return shlex.join(words)


def never_ran(service: str, entries: Sequence[Entry]) -> bool:
    """Return whether the event log says that the container of a try never ran."""
    output = f"{service.lower()} {OUTPUT}"
    return any(one.event == output and says_that_it_never_ran(one.text) for one in entries)


def without_repetition(entry: Entry, told: Told | None) -> Entry:
    """Return an entry that only points to the reason if it says no more than that."""
    if told is None or told.entry is None:
        return entry
    if entry == told.entry:
        return Entry(entry.at, entry.event, ABOVE if told.hint else ABOVE.replace(" and hint", ""))
    if entry.event == MISMATCH and told.reason in entry.text:
        return Entry(entry.at, entry.event, FOLLOWS)
    if entry.event.endswith(f" {OUTPUT}"):
        lines = [line for line in entry.text.splitlines() if line not in {told.reason, told.hint}]
        return Entry(entry.at, entry.event, "\n".join(lines))
    return entry
