"""
The executor that a command is about.

May import everything of this package.
"""

from __future__ import annotations

import difflib
import re
import sys
from typing import TYPE_CHECKING

from airflow.configuration import conf

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.batch import AsyncBatchExecutor
from ecs_async_executor.adapter.commands.changing_over import change_of_all, replacement_of
from ecs_async_executor.adapter.ecs import AsyncEcsExecutor
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.core.errors import ConfigurationError

if TYPE_CHECKING:
    import argparse

_EXECUTORS: dict[str, type[AsyncExecutor]] = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}


def executor_of(args: argparse.Namespace) -> AsyncExecutor:
    """
    Make the executor that the arguments name, with settings that ``start()`` would accept.

    :raises SystemExit: if the settings cannot be used; names every problem
    """
    executor = _class(args.service)(team_name=args.team)
    try:
        _ = executor.adapter.tuning, executor.adapter.rules, executor.adapter.max_attempts
    except ConfigurationError as error:
        sys.exit(str(error))
    return executor


def executors_or_exit() -> list[AsyncExecutor]:
    """
    Make every configured executor of ours, of all teams.

    :raises SystemExit: if there is none, or if a configured executor cannot be imported
    """
    try:
        found = compat.our_executors(AsyncExecutor)
    except Exception as error:  # noqa: BLE001 - Airflow raises several, and a user's module can raise anything
        sys.exit(wrong_executor(conf.get("core", "executor", fallback=""), error))
    if not found:
        sys.exit(none_of_ours(conf.get("core", "executor", fallback="")))
    return [executor for _, executor in found]


def _class(service: str | None) -> type[AsyncExecutor]:
    """
    Return the configured class, which can be a user's subclass with hooks of its own.

    If there is none, return ours: the one that replaces the provider's if that is configured.

    :raises SystemExit: if a configured executor cannot be imported: no scheduler would start either
    """
    wanted = (_EXECUTORS[service],) if service else tuple(_EXECUTORS.values())
    try:
        configured = compat.configured_executors()
    except Exception as error:  # noqa: BLE001 - Airflow raises several, and a user's module can raise anything
        sys.exit(wrong_executor(conf.get("core", "executor", fallback=""), error))
    for one in configured:
        if issubclass(one, wanted):
            return one
    by_name = {class_name(one): one for one in wanted}
    replacing = (by_name.get(replacement_of(one) or "") for one in configured)
    return next((one for one in replacing if one is not None), wanted[0])


def none_of_ours(configured: str) -> str:
    """Return a line about a setting that names no executor of ours, with what to set."""
    line = f"[core] executor = {configured!r} names no executor of this package"
    if (setting := change_of_all(configured)) is not None:
        return f"{line}, but the provider's: to change over, set it to {setting!r}."
    return f"{line}: they are {' and '.join(map(class_name, _EXECUTORS.values()))}."


def wrong_executor(configured: str, error: Exception) -> str:
    """Return a line about the setting that names the executors, with the class of ours that it may mean."""
    said = " ".join(str(error).split())
    ours = {cls.__name__: f"ecs_async_executor.{cls.__name__}" for cls in _EXECUTORS.values()}
    for word in re.findall(r"[\w.]+", configured):
        meant = difflib.get_close_matches(word.rpartition(".")[2], ours, 1, cutoff=0.8)
        if meant and word != ours[meant[0]]:
            said += f"; did you mean {ours[meant[0]]}?"
            break
    return f"[core] executor = {configured!r} cannot be used: {said}"
