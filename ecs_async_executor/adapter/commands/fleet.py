"""
The configured executors of this package, and whose task instance is whose.

May import everything of this package.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands.configured import none_of_ours, wrong_executor
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import executor_for
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.tries import Try

if TYPE_CHECKING:
    import argparse


@dataclass(frozen=True, slots=True, eq=False)
class Member:
    """
    A configured executor.

    :param names: what a task can call it
    :param executor: an instance that is not started; None if it is none of this package
    """

    names: tuple[str, ...]
    team: str | None
    executor: AsyncExecutor | None

    @property
    def adapter(self) -> ServiceAdapter:
        """The service adapter of an executor of this package."""
        assert self.executor is not None
        return self.executor.adapter

    @property
    def service(self) -> str:
        """The name of the service of an executor of this package."""
        return self.adapter.service.name

    def __str__(self) -> str:
        """Name it for people."""
        return self.names[0] if self.team is None else f"{self.names[0]} of team {self.team}"


class Fleet:
    """
    All configured executors, in Airflow's order.

    :param members: a team's default comes first
    :param wanted: whether a command is about one of ours
    """

    def __init__(self, members: Sequence[Member], wanted: Sequence[Member]) -> None:
        self._members = members
        self.wanted = wanted
        """Those of ours that the command is about."""

    def of(self, tried: Try, teams: Mapping[str, str | None]) -> Member | None:
        """
        Return the executor of a task instance, by the scheduler's rule; None if none fits.

        :param teams: see :func:`~ecs_async_executor.adapter.compat.teams_of`
        """
        return executor_for(self._members, tried.executor, teams.get(tried.dag_id))

    def names(self) -> set[str]:
        """Return every name that a task can call one of the wanted executors."""
        return {name for one in self.wanted for name in one.names}

    def for_service(self, service: str) -> Iterable[Member]:
        """Return the wanted executors for a service."""
        return [one for one in self.wanted if one.service == service]


def fleet(args: argparse.Namespace) -> Fleet:
    """
    Return the configured executors; ``--service`` and ``--team`` say which of ours the command is about.

    :raises SystemExit: if none of them is
    """
    setting = conf.get("core", "executor", fallback="")
    try:
        names = compat.executor_names()
        ours_by_name = dict(compat.our_executors(AsyncExecutor))
    except Exception as error:  # noqa: BLE001 - Airflow raises several, and a user's module can raise anything
        sys.exit(wrong_executor(setting, error))
    members = [_member(name, ours_by_name.get(name)) for name in names]
    ours = [one for one in members if one.executor is not None]
    if not ours:
        sys.exit(f"{none_of_ours(setting)} This command needs the scheduler's configuration.")
    wanted = [
        one
        for one in ours
        if args.service in {None, one.service.lower()} and (args.team is None or one.team == args.team)
    ]
    if not wanted:
        asked = [f"--{name} {value}" for name, value in (("service", args.service), ("team", args.team)) if value]
        has = ", ".join(f"{one} ({one.service})" for one in ours)
        sys.exit(f"[core] executor has none for {' '.join(asked)}; it has {has}.")
    return Fleet(members, wanted)


def _member(name: Any, ours: AsyncExecutor | None) -> Member:
    short = name.module_path.rpartition(".")[2]
    return Member((name.alias or short, name.module_path, short), getattr(name, "team_name", None), ours)
