"""
What people read of a container that has failed and its last lines: an entry of the event log, and a file.

May import ``hints`` and ``messages``.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Final

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.hints import hint
from ecs_async_executor.core.messages import PostMortem

ENTRY_LINES: Final = 20
ENTRY_CHARACTERS: Final = 8000
"""An entry is shown in a list: the whole is in the file."""
_LINE_CHARACTERS: Final = 1000

_NEVER_RAN: Final = frozenset({Ending.IMAGE, Ending.START, Ending.CAPACITY})
_NO_OUTPUT: Final = "never ran, so that there is no output."


def ran(dead: PostMortem) -> bool:
    """Return whether a container can have printed something."""
    return dead.exit_code is not None or dead.ending not in _NEVER_RAN


def entry(dead: PostMortem, lines: Sequence[str], problem: str = "", readable: Callable[[str], str] = str) -> str:
    """
    Return the entry for Airflow's event log: the reason, a hint and the last lines.

    :param problem: why there are no lines, as a clause
    :param readable: makes a line readable, which can be JSON, and become several lines
    """
    above = _above(dead, lines, problem)
    room = ENTRY_CHARACTERS - len(above)
    shown: list[str] = []
    printed = (part for line in reversed(lines[-ENTRY_LINES:]) for part in reversed(readable(line).split("\n")))
    for line in printed:
        short = line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 3] + "..."
        room -= len(short) + 1
        if room < 0:
            break
        shown.append(short)
    return "\n".join([above, *reversed(shown)])


def says_that_it_never_ran(text: str) -> bool:
    """Return whether an entry tells of a container that never ran."""
    return text.endswith(_NO_OUTPUT)


def file(dead: PostMortem, lines: Sequence[str], problem: str = "") -> str:
    """
    Return the text of the file beside the task's log: the same, with all lines.

    The lines stay as they are: Airflow shows its own JSON as it shows a task's log.
    """
    return "\n".join([_above(dead, lines, problem), *lines, ""])


def besides(text: str, task_log: str) -> str:
    """Return the text of a file without the lines that the task's log has too, and with how many these were."""
    lines = text.split("\n")
    kept = unknown(lines, task_log)
    if left_out := len(lines) - len(kept):
        begin = next(index for index, line in enumerate(lines) if _record(line) is not None)
        several = "1 line" if left_out == 1 else f"{left_out} lines"
        kept.insert(begin, f"(without {several} that the task's own log has)")
    return "\n".join(kept)


def unknown(lines: Sequence[str], task_log: str) -> list[str]:
    """
    Return the lines of a container that the task's log does not have.

    Airflow in a container writes each line of a task's log to its standard output as well. What the task prints
    gets another time there, some microseconds later, so that Airflow does not take the two lines for the same.
    """
    known = Counter(record for line in task_log.split("\n") if (record := _record(line)) is not None)
    kept: list[str] = []
    for line in lines:
        record = _record(line) if known else None
        if record is not None and known[record]:
            known[record] -= 1
        else:
            kept.append(line)
    return kept


def _record(line: str) -> str | None:
    """Return what a line of Airflow's JSON says, whenever it was written; None for any other line."""
    if not line.startswith("{"):
        return None
    try:
        record: Any = json.loads(line)
    except ValueError:
        return None
    if "event" not in record or record.pop("timestamp", None) is None:
        return None
    return json.dumps(record, sort_keys=True)


def _above(dead: PostMortem, lines: Sequence[str], problem: str) -> str:
    told = [dead.reason, hint(dead.ending, dead.exit_code, dead.reason, lines), _about_lines(dead, lines, problem)]
    return "\n".join(one for one in told if one)


def _about_lines(dead: PostMortem, lines: Sequence[str], problem: str) -> str:
    container = f"Container {dead.handle_id}"
    if lines:
        return f"{container} printed last:"
    if not ran(dead):
        return f"{container} {_NO_OUTPUT}"
    if problem:
        return f"The output of container {dead.handle_id} cannot be shown: {problem}."
    return f"{container} has printed nothing that has arrived at its log."
