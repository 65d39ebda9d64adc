"""
Pages as HTML: the templates, escaped, and the headers that keep foreign content out.

Imports Jinja2, ``addresses`` and the words of the commands.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from importlib.resources import files
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from ecs_async_executor.adapter.commands.output import duration
from ecs_async_executor.adapter.commands.words import moment, short_id
from ecs_async_executor.adapter.ui import addresses
from ecs_async_executor.services.readable import readable
from ecs_async_executor.services.redaction import without_tokens

HEADERS: Final[Mapping[str, str]] = {
    # Airflow shows the pages in a frame of its own origin. Nothing else may, and nothing foreign is loaded.
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
ASSETS: Final[Mapping[str, str]] = {
    "page.css": "text/css; charset=utf-8",
    "page.js": "text/javascript; charset=utf-8",
}
_LENGTH = 4000
"""Characters of one line of a container's output."""


def rendered(template: str, **values: Any) -> str:
    """Return a page."""
    return _environment().get_template(template).render(**values)


@cache
def asset(name: str) -> bytes:
    """Return a file that the pages load."""
    return (files(__package__ or "") / "static" / name).read_bytes()


@cache
def _environment() -> Environment:
    environment = Environment(
        autoescape=True,
        loader=PackageLoader(__package__ or "", "templates"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "moment": moment,
        "clock": _clock,
        "lasting": duration,
        "ago": _ago,
        "short_id": short_id,
        "printed": _printed,
    }
    environment.globals |= {"root": addresses.root, "of_try": addresses.of_try, "in_airflow": addresses.in_airflow}
    return environment


def _clock(at: datetime | float | None) -> str:
    """Return a moment in UTC, as Airflow's UI writes it."""
    return moment(at).replace("T", " ").removesuffix("Z")


def _ago(at: datetime | float | None) -> str:
    """Return how long ago a moment was."""
    if at is None:
        return ""
    return duration(time.time() - (at if isinstance(at, float) else at.timestamp()))


def _printed(line: str) -> str:
    """Return a line of a container's output for people, without JWTs; a traceback in it becomes several lines."""
    return "\n".join(part[:_LENGTH] for part in readable(without_tokens(line)).split("\n"))
