"""
How a command ends that something outside of it ends: Ctrl-C, a closed pipe, Airflow's database.

May import SQLAlchemy, and ``reports``.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from ecs_async_executor.adapter.reports import in_words

if TYPE_CHECKING:
    import argparse

INTERRUPTED = 130
"""The exit code after Ctrl-C, as shells have it."""


def command(function: Callable[[argparse.Namespace], None]) -> Callable[[argparse.Namespace], None]:
    """
    Make a command end without a traceback after Ctrl-C, and where its output or the database is gone.

    :raises SystemExit: 130 after Ctrl-C, 1 otherwise
    """

    @wraps(function)
    def bounded(args: argparse.Namespace) -> None:
        try:
            function(args)
            sys.stdout.flush()
        except KeyboardInterrupt:
            sys.exit(INTERRUPTED)
        except BrokenPipeError:
            _drop_output()
            sys.exit(1)
        except SQLAlchemyError as error:
            # SQLAlchemy's own words repeat the statement, and with it a page of columns.
            cause = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
            sys.exit(f"Airflow's database cannot be read: {in_words(cause)} (`airflow db check` tries it alone)")

    return bounded


def _drop_output() -> None:
    """Let nothing fail that Python itself still flushes."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, sys.stdout.fileno())
    finally:
        os.close(nowhere)
