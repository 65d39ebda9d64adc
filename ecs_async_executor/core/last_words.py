"""
What people read of a container that has failed and its last lines: an entry of the event log, and a file.

May import ``hints`` and ``messages``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.hints import hint
from ecs_async_executor.core.messages import PostMortem

ENTRY_LINES: Final = 20
ENTRY_CHARACTERS: Final = 8000
"""An entry is shown in a list: the whole is in the file."""
_LINE_CHARACTERS: Final = 1000

_NEVER_RAN: Final = frozenset({Ending.IMAGE, Ending.START, Ending.CAPACITY})


def ran(dead: PostMortem) -> bool:
    """Return whether a container can have printed something."""
    return dead.exit_code is not None or dead.ending not in _NEVER_RAN


def entry(dead: PostMortem, lines: Sequence[str], problem: str = "") -> str:
    """
    Return the entry for Airflow's event log: the reason, a hint and the last lines.

    :param problem: why there are no lines, as a clause
    """
    above = _above(dead, lines, problem)
    room = ENTRY_CHARACTERS - len(above)
    shown: list[str] = []
    for line in reversed(lines[-ENTRY_LINES:]):
        short = line if len(line) <= _LINE_CHARACTERS else line[: _LINE_CHARACTERS - 3] + "..."
        room -= len(short) + 1
        if room < 0:
            break
        shown.append(short)
    return "\n".join([above, *reversed(shown)])


def file(dead: PostMortem, lines: Sequence[str], problem: str = "") -> str:
    """Return the text of the file beside the task's log: the same, with all lines."""
    return "\n".join([_above(dead, lines, problem), *lines, ""])


def _above(dead: PostMortem, lines: Sequence[str], problem: str) -> str:
    told = [dead.reason, hint(dead.ending, dead.exit_code, dead.reason, lines), _about_lines(dead, lines, problem)]
    return "\n".join(one for one in told if one)


def _about_lines(dead: PostMortem, lines: Sequence[str], problem: str) -> str:
    container = f"Container {dead.handle_id}"
    if lines:
        return f"{container} printed last:"
    if not ran(dead):
        return f"{container} never ran, so that there is no output."
    if problem:
        return f"The output of container {dead.handle_id} cannot be shown: {problem}."
    return f"{container} has printed nothing that has arrived at its log."
