"""
The names of executors, launches and placements, for people and for AWS.

May import ``core``, ``settings`` and ``services.requests``.
"""

from __future__ import annotations

import re
from collections.abc import Container, Iterable, Mapping
from typing import Protocol, TypeVar

from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services.requests import TAGGED_WITH, container_tags
from ecs_async_executor.settings import Tuning


class Configured(Protocol):
    """A configured executor, of whatever package."""

    @property
    def names(self) -> Container[str]:
        """What a task can call it."""
        ...

    @property
    def team(self) -> str | None:
        """The team whose executor it is; None if every team can use it."""
        ...


class ExecutorName(Protocol):
    """An executor's name, as Airflow reads ``[core] executor``."""

    @property
    def alias(self) -> str | None:
        """What stands before the colon; of Airflow's own executors the name."""
        ...

    @property
    def module_path(self) -> str:
        """The path of the class."""
        ...


_PART = re.compile(r"(?:^| )([\w.-]+)=((?:\{.*?\}|\[.*?\]|\S)+?)(?= [\w.-]+=|$)")
_NAME_IN_ARN = re.compile(r"^arn:[^/]*/")
_Configured = TypeVar("_Configured", bound=Configured)


def executor_for(executors: Iterable[_Configured], wanted: str | None, team: str | None) -> _Configured | None:
    """
    Return the executor that the scheduler takes for a task instance; None if none fits.

    :param executors: all that are configured, in Airflow's order
    :param wanted: the executor that the task names; None: the default one
    :param team: the team of its DAG
    """
    if wanted is None:
        by_team: dict[str | None, _Configured] = {}
        for one in executors:
            by_team.setdefault(one.team, one)
        return by_team.get(team) or by_team.get(None)
    return next((one for one in executors if wanted in one.names and one.team in {None, team}), None)


def setting_for_containers(configured: Iterable[ExecutorName], team: str | None) -> str | None:
    """
    Return ``[core] executor`` as containers need it; None if no task has a reason to name an executor.

    Airflow in a container refuses a DAG of which any task names an executor that is not configured there. It
    imports none of them. A team's are listed as everybody's: then a container need not know of teams.

    :param configured: as Airflow's own configuration has them
    :param team: whose containers they are
    """
    own_first = sorted(configured, key=lambda one: getattr(one, "team_name", None) != team)
    usable = [one for one in own_first if getattr(one, "team_name", None) in {None, team}]
    # One module cannot be listed twice.
    found = {one.module_path: one for one in reversed(usable)}
    if len(found) == 1 and not any(_has_alias(one) for one in found.values()):
        return None
    return ",".join(f"{one.alias}:{path}" if _has_alias(one) else path for path, one in reversed(found.items()))


def _has_alias(name: ExecutorName) -> bool:
    """Return whether an executor has a name besides its path and its class."""
    return name.alias not in {None, name.module_path.rpartition(".")[2]}


def class_name(cls: type) -> str:
    """Return the full name of an executor's class; for ours the one that people configure."""
    if cls.__module__.partition(".")[0] == "ecs_async_executor":
        return f"ecs_async_executor.{cls.__name__}"
    return f"{cls.__module__}.{cls.__qualname__}"


def placement_names(placements: Iterable[str]) -> Mapping[str, str]:
    """
    Return a short name of each of these placements: where, on what, and of which definition.

    Structured values, such as the network, are shown only where nothing else tells placements of this list apart;
    a value of theirs is then shown whole.
    """
    parts = {placement: dict(_PART.findall(placement)) for placement in placements}
    short = {placement: _short(placement, of) for placement, of in parts.items()}
    alike: dict[str, list[Mapping[str, str]]] = {}
    for placement, name in short.items():
        alike.setdefault(name, []).append(parts[placement])
    return {
        placement: " ".join((name, *_apart(parts[placement], alike[name]))) for placement, name in short.items()
    }


def _apart(parts: Mapping[str, str], alike: Iterable[Mapping[str, str]]) -> list[str]:
    """Return what tells a placement apart from those with the same short name."""
    return [f"{key}={value}" for key, value in parts.items() if any(one.get(key) != value for one in alike)]


def _short(placement: str, parts: Mapping[str, str]) -> str:
    """Return a placement's name without its structured values, and without what comes before a name in an ARN."""
    plain = {key: value for key, value in parts.items() if not value.startswith(("{", "["))}
    return " ".join(f"{key}={_NAME_IN_ARN.sub('', value)}" for key, value in plain.items()) or placement


def fields_of(launch: Launch) -> Mapping[str, object]:
    """Return the fields that name a launch's task instance; None for each of a callback's."""
    # The key is the task instance's id on some versions of Airflow; an adopted workload has no task instance.
    ti = getattr(launch.workload, "ti", None)
    return {name: getattr(ti, name, getattr(launch.key, name, None)) for name in TAGGED_WITH}


def tags_of(tuning: Tuning, launch: Launch) -> Mapping[str, str]:
    """Return the tags for a launch's container: none if ``container_tags`` is off, and none for a callback."""
    return container_tags(fields_of(launch)) if tuning.container_tags else {}
