"""
Airflow's log lines, which are JSON in a container's output, as people read them.

May import ``redaction`` and ``tracebacks``.
"""

from __future__ import annotations

import json
from typing import Any

from ecs_async_executor.services.redaction import printable
from ecs_async_executor.services.tracebacks import traceback_in

_OWN = frozenset({"timestamp", "level", "event", "logger", "filename", "lineno", "loc"})
_OF_TASK = frozenset({"ti_id", "dag_id", "run_id", "task_id", "map_index", "try_number"})
"""What Airflow 3.2 and later repeat in each line of a task."""


def readable(line: str) -> str:
    """
    Return a line of Airflow's JSON as ``time level event key=value``; any other line as it is.

    A traceback in it follows in lines of its own, as Python prints it. Control characters are left out.
    """
    return printable(_readable(line))


def _readable(line: str) -> str:
    if not line.startswith("{"):
        return line
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError):
        return line
    if not isinstance(record, dict) or "event" not in record:
        return line
    time = str(record.get("timestamp") or "").partition(".")[0].removesuffix("Z")
    words = [time, str(record.get("level") or "").upper(), str(record["event"])]
    without = _OWN | _OF_TASK if "ti_id" in record else _OWN
    below: list[str] = []
    for name, value in record.items():
        if name in without:
            continue
        if (traceback := traceback_in(value)) is None:
            words.append(f"{name}={_short(value)}")
        else:
            below += traceback
    return "\n".join([" ".join(word for word in words if word), *below])


def _short(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
