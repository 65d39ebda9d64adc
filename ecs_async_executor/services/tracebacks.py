"""
Tracebacks in Airflow's JSON, as Python prints them. Pure functions; imports nothing of ours.

Airflow logs an exception as structlog's ``ExceptionDictTransformer`` makes it: a list with the exception that was
raised, then that which it was raised from or while handling, and so on. Local variables, which can be in it, are
never shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeGuard

_TITLE: Final = "Traceback (most recent call last):"
_CAUSE: Final = "The above exception was the direct cause of the following exception:"
_CONTEXT: Final = "During handling of the above exception, another exception occurred:"


def traceback_in(value: object) -> list[str] | None:
    """Return the lines of a traceback, or None if a value of Airflow's JSON is none."""
    if isinstance(value, str):
        return value.splitlines() if value.startswith(_TITLE) else None
    if not _is_traceback(value):
        return None
    return list(_chain(value))


def _is_traceback(value: object) -> TypeGuard[list[dict[str, Any]]]:
    return isinstance(value, list) and bool(value) and all(map(_is_exception, value))


def _is_exception(value: Any) -> bool:
    return isinstance(value, dict) and "exc_type" in value and "exc_value" in value


def _chain(exceptions: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Yield the lines of a chain, which begins with its last exception, in Python's order."""
    for number, one in reversed(list(enumerate(exceptions))):
        yield from _exception(one)
        if number:
            yield ""
            yield _CAUSE if one.get("is_cause") else _CONTEXT
            yield ""


def _exception(one: Mapping[str, Any]) -> Iterator[str]:
    frames = [frame for frame in _listed(one.get("frames")) if isinstance(frame, dict)]
    if frames:
        yield _TITLE
        yield from map(_frame, frames)
    message = str(one["exc_value"])
    if isinstance(wrong := one.get("syntax_error"), dict):
        yield f'  File "{wrong.get("filename")}", line {wrong.get("lineno")}'
        yield f"    {str(wrong.get('line') or '').strip()}"
        message = str(wrong.get("msg") or message)
    yield from (f"{one['exc_type']}: {message}" if message else str(one["exc_type"])).splitlines()
    for note in _listed(one.get("exc_notes")):
        yield from str(note).splitlines()
    for number, part in enumerate(_listed(one.get("exceptions")), 1):
        if _is_traceback(part):
            yield f"  +---------------- {number} ----------------"
            yield from (f"  | {line}" for line in _chain(part))


def _frame(frame: Mapping[str, Any]) -> str:
    if not frame.get("filename"):
        return f"  [{frame.get('name')}]"  # so structlog says how many it has left out
    return f'  File "{frame["filename"]}", line {frame.get("lineno")}, in {frame.get("name")}'


def _listed(value: Any) -> Iterable[Any]:
    return value if isinstance(value, list) else ()
