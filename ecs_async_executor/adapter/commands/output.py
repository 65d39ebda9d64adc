"""
How commands print.

May import Airflow, rich and ``services.redaction``.
"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any

from airflow.cli.simple_table import AirflowConsole
from rich.markup import escape

from ecs_async_executor.services.redaction import printable


@contextmanager
def quiet() -> Iterator[None]:
    """Let libraries and hooks print nothing: the command itself says what is wrong."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        # Airflow's structlog writes to the standard output, and no level of the standard library's stops it.
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def say(text: str) -> None:
    """Print a line at once, without control characters."""
    say_raw(printable(text))


def say_raw(text: str) -> None:
    """Print a line at once, as it is."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def show(rows: Iterable[Mapping[str, Any]], output: str, console: Any = None) -> None:
    """
    Print rows as Airflow's commands do, but take no cell for rich's markup or for a terminal's command.

    :param output: table, json, yaml or plain
    """
    cells: dict[str, Any] = {"table": lambda value: escape(printable(str(value))), "plain": _plain}
    cell = cells.get(output, lambda value: value)
    data = [{name: cell(value) for name, value in row.items()} for row in rows]
    (console or AirflowConsole()).print_as(data=data, output=output)


def _plain(value: Any) -> str | None:
    return None if value is None else printable(str(value))


def duration(seconds: float) -> str:
    """Return a duration in the largest unit that says enough of it."""
    for unit, length in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
