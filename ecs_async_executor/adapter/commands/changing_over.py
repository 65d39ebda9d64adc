"""
Where ``[core] executor`` still names the amazon provider's executors: what to set instead.

May import Airflow and the service-free adapter. A task or a task instance in the database can name the provider's
executor by its class or its alias; an alias before the class of ours keeps that name.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

_PROVIDERS_MODULE = "airflow.providers.amazon.aws.executors."
OURS: Mapping[str, str] = MappingProxyType(
    {
        "AwsEcsExecutor": "ecs_async_executor.AsyncEcsExecutor",
        "AwsBatchExecutor": "ecs_async_executor.AsyncBatchExecutor",
    }
)
"""The class of ours that replaces each of the provider's, by name."""


@dataclass(frozen=True, slots=True)
class NewName:
    """An executor's name as Airflow would read it from the new setting."""

    alias: str | None
    module_path: str
    team_name: str | None


@dataclass(frozen=True, slots=True)
class Change:
    """
    What becomes of one of the provider's executors.

    :param setting: all of ``[core] executor``, as it has to be
    :param alias: what keeps answering to tasks that name the executor
    :param lost: other names that it has had, to which nothing answers any more
    """

    setting: str
    alias: str
    lost: frozenset[str]


def replacement_for(path: str) -> str | None:
    """Return the class of ours that replaces the provider's with this path; None if it is no such class."""
    return OURS.get(path.rpartition(".")[2]) if path.startswith(_PROVIDERS_MODULE) else None


def replacement_of(cls: type) -> str | None:
    """Return the class of ours that replaces one of the provider's, or a subclass of it; None for another one."""
    found = (replacement_for(f"{one.__module__}.{one.__name__}") for one in cls.__mro__)
    return next((one for one in found if one is not None), None)


def change(setting: str, ours: Collection[str], team: str | None) -> Change | None:
    """
    Return how to replace the provider's executor; None if the team, or everybody for None, has none of it.

    :param setting: ``[core] executor``
    :param ours: the classes of ours that are wanted; others of the provider's stay
    """
    groups, changes = [], list[Change]()
    for group in setting.split(";"):
        name, equals, entries = group.rpartition("=")
        if (name.strip() or None) != team:
            groups.append(group)
            continue
        new = []
        for entry in entries.split(","):
            alias, _, path = (part.strip() for part in entry.rpartition(":"))
            mine = replacement_for(path)
            if mine not in ours:
                new.append(entry)
                continue
            short = path.rpartition(".")[2]
            kept = alias or short
            changes.append(Change("", kept, frozenset({short, path}) - {kept}))
            new.append(f"{kept}:{mine}")
        groups.append(f"{name}{equals}{','.join(new)}")
    if not changes:
        return None
    lost = frozenset(one for each in changes for one in each.lost)
    return Change(";".join(groups), changes[0].alias, lost)


def change_of_all(setting: str) -> str | None:
    """Return ``[core] executor`` with ours instead of all of the provider's; None if it has none of them."""
    new = setting
    for group in setting.split(";"):
        changed = change(new, OURS.values(), group.rpartition("=")[0].strip() or None)
        new = new if changed is None else changed.setting
    return new if new != setting else None


def names_after(names: Iterable[Any], ours: Collection[str], team: str | None) -> list[Any]:
    """Return the names of the configured executors as they are after the change."""
    after = []
    for one in names:
        mine = replacement_for(one.module_path) if getattr(one, "team_name", None) == team else None
        if mine is not None and mine in ours:
            after.append(NewName(one.alias or one.module_path.rpartition(".")[2], mine, team))
        else:
            after.append(one)
    return after
