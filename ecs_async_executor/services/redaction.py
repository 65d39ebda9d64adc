"""
Redaction: what people may be shown of a service's words, and what the AWS libraries may log of our calls.

The pattern for JWTs stands here and nowhere else. Imports nothing but the standard library.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_JWT = re.compile(r"eyJ[\w-]{4,}(\.[\w-]+(?:\.[\w-]*)?)?")
"""
Header and payload, with or without a signature: a text that was cut off can end before it.

Without a word boundary in front, because an escape can precede a JWT: ``%22eyJ...``, ``\\neyJ...``. What only
begins like one matches too, without the group: else each ``eyJ`` of a long word would be tried to the word's end.
"""
_ESCAPE = re.compile(
    r"\x1b(?:\](?:[^\x07\x1b]*(?:\x07|\x1b\\))?|[PX^_](?:[^\x1b]*\x1b\\)?|\[[0-?]*[ -/]*[@-~]?|[ -/]*[0-~])"
)
"""A terminal's commands: titles and links, strings, colours and moves, and the short ones."""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
"""Control characters but tab and line feed."""
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
"""PostgreSQL takes no NUL, and UTF-8 has no half of a surrogate pair: one of either fails a whole transaction."""
_LENGTH_LIMIT: Final = 500


def without_tokens(text: str) -> str:
    """Return a text without JWTs, otherwise unchanged: what a container prints can show Airflow's."""
    return _JWT.sub(lambda found: "***" if found[1] else found[0], text)


def storable(text: str) -> str:
    """Return a text that every database and file takes: a program can print anything."""
    return _UNSTORABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def printable(text: str) -> str:
    """
    Return a text without control characters, and without the commands to a terminal that begin with one.

    A container, or the reason of a stop, could otherwise clear a person's screen, or write over what it says.
    """
    return _CONTROL.sub("", _ESCAPE.sub("", text))


def redacted(text: str, limit: int = _LENGTH_LIMIT) -> str:
    """
    Return a text in one line, without JWTs and control characters, safe to show.

    A service's words can echo a command.

    :param limit: the most characters of the result; an ellipsis shows that it was cut
    """
    words = " ".join(_ESCAPE.sub("", storable(text)).split())
    text = without_tokens(printable(words))
    return text if len(text) <= limit else text[: limit - 3] + "..."


# --- the log of the AWS libraries ---------------------------------------------------------------------------

_in_our_call: ContextVar[bool] = ContextVar("ecs_async_executor_in_our_call", default=False)
_LOGGERS_THAT_SHOW_REQUESTS: Final = (
    "aiobotocore.client",
    "aiobotocore.endpoint",
    "aiobotocore.hooks",
    "aiobotocore.httpsession",
    "aiobotocore.parsers",
    "aiobotocore.regions",
    "aiobotocore.retryhandler",
    "botocore.auth",
    "botocore.awsrequest",
    "botocore.client",
    "botocore.endpoint",
    "botocore.hooks",
    "botocore.httpsession",
    "botocore.parsers",
    "botocore.regions",
    "botocore.retries.standard",
    "botocore.retryhandler",
)


@contextmanager
def unlogged() -> Iterator[None]:
    """Keep this asyncio task's requests and replies out of the AWS libraries' debug log while this is open."""
    before = _in_our_call.set(True)
    try:
        yield
    finally:
        _in_our_call.reset(before)


def install_log_filter() -> None:
    """Make :func:`unlogged` work; calling this again changes nothing."""
    # On each logger itself: a logger's filter does not see the records of the loggers below it.
    for name in _LOGGERS_THAT_SHOW_REQUESTS:
        logging.getLogger(name).addFilter(_conceal)


def _conceal(record: logging.LogRecord) -> bool:
    """Cut the request or reply out of a debug record of our calls: it holds commands and JWTs."""
    if record.levelno <= logging.DEBUG and _in_our_call.get() and record.args:
        record.msg = str(record.msg).partition("%")[0].rstrip(" :\n") + " (not shown)"
        record.args = None
    return True
