"""
How the commands word times, places and refusals, and how they ask for confirmation.

May import ``core``, ``services.errors``, ``services.redaction`` and the service-free adapter.
"""

from __future__ import annotations

import sys
from datetime import datetime, timezone

from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.errors import is_denied
from ecs_async_executor.services.redaction import printable

HERE = "home"
"""The destination that the executor's own section configures, in a column beside others."""


def moment(at: datetime | float | None) -> str:
    """Return a moment in UTC, to the second; empty if there is none."""
    if at is None:
        return ""
    if isinstance(at, float):
        at = datetime.fromtimestamp(at, tz=timezone.utc)
    elif at.tzinfo is None:
        at = at.replace(tzinfo=timezone.utc)
    return at.astimezone(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


def short_id(handle_id: str) -> str:
    """Return the part of a container's identifier that names it in its place."""
    return handle_id.rpartition("/")[2]


def refusal(error: BaseException, permission: str) -> str:
    """Return an error in words; with the permission that may be missing, if AWS refuses for want of one."""
    words = in_words(error).rstrip(".")
    if isinstance(error, BackendError) and is_denied(error):
        return f"{words}. Allow {permission} to whoever runs this command."
    return f"{words}."


def warn(text: str) -> None:
    """Print a line beside the result, on stderr."""
    sys.stderr.write(f"{printable(text)}\n")
    sys.stderr.flush()


def confirmed(question: str, *, yes: bool) -> bool:
    """
    Return whether the person agrees.

    :param yes: they have, beforehand
    :raises SystemExit: if there is no terminal to ask on
    """
    if yes:
        return True
    if not sys.stdin.isatty():
        sys.exit(f"{question} There is no terminal to ask on: say --yes.")
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in {"y", "yes"}
