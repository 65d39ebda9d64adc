"""
Requests: the parts that ECS and Batch have in common, as pure functions.

Imports :mod:`ecs_async_executor.core.errors` only. No Airflow.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from ecs_async_executor.core.errors import BackendError, Kind, Rejected

EXECUTOR_MARK: Final = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
"""The variable that tells Airflow in a container of an executor; the provider's executors set the same."""
EXECUTOR_SETTING: Final = "AIRFLOW__CORE__EXECUTOR"
"""The variable with the executors that tasks can name, for Airflow in a container."""
OVERRIDES_LIMIT: Final = 8192
"""Characters of ``overrides`` that RunTask takes, JSON punctuation included. Batch runs its jobs through ECS."""
NO_SUCH_ID: Final = "a" * 32
"""The identifier of a task or job that cannot exist, for harmless requests."""

_UNCHANGEABLE: Final = frozenset({str, int, float, bool, type(None)})

# --- merging ------------------------------------------------------------------------------------------------


def merge(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return ``base`` updated by ``overrides``: dictionaries recursively, everything else replaced, lists too.

    The arguments stay unchanged, and the result shares nothing changeable with them.
    """
    result: dict[str, Any] = {}
    for key, value in base.items():
        if key not in overrides:
            result[key] = copied(value)
    for key, value in overrides.items():
        below = base.get(key)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            result[key] = merge(below, value)
        else:
            result[key] = copied(value)
    return result


def copied(value: Any) -> Any:
    """Return what ``copy.deepcopy`` does, several times as fast for the values that requests are made of."""
    kind = type(value)
    if kind is dict:
        return {key: copied(item) for key, item in value.items()}
    if kind is list:
        return [copied(item) for item in value]
    return value if kind in _UNCHANGEABLE else copy.deepcopy(value)


# --- one workload's request ---------------------------------------------------------------------------------


_EXCLUDES: Final = {
    "launchType": "capacityProviderStrategy",
    "capacityProviderStrategy": "launchType",
    "containerOverrides": "ecsPropertiesOverride",
    "ecsPropertiesOverride": "containerOverrides",
}
"""Parameters of which a request has one: a layer that has one replaces the other."""


class Layered(dict[str, Any]):
    """
    The parameters of one workload that more than its ``executor_config`` says: each layer changes those before it.

    :ivar layers: first to last, of a placement, the ``executor_config`` and the changes for a later try; the
        dictionary itself is what they make together, for hooks that read it
    """

    def __init__(self, *layers: Mapping[str, Any]) -> None:
        merged: dict[str, Any] = {}
        for one in layers:
            for key in one.keys() & _EXCLUDES.keys():
                merged.pop(_EXCLUDES[key], None)
            merged = merge(merged, one)
        super().__init__(merged)
        self.layers = layers


def layers_in(parameters: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """
    Return the layers of a workload's parameters; those that a hook has made anew are one.

    What a hook has changed in place is one more layer, on top of the others.
    """
    if not isinstance(parameters, Layered):
        return (parameters,)
    layers = parameters.layers
    made = Layered(*layers)
    if parameters == made:
        return layers
    return (*(_without_gone(one, parameters) for one in layers), _changes(made, parameters))


def _without_gone(layer: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return a layer without the keys that are not there any more."""
    found: dict[str, Any] = {}
    for key, value in layer.items():
        if key in after:
            deeper = isinstance(value, Mapping) and isinstance(after[key], Mapping)
            found[key] = _without_gone(value, after[key]) if deeper else value
    return found


def _changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return what makes one of the other, with what is gone left out."""
    found: dict[str, Any] = {}
    for key, value in after.items():
        was = before.get(key)
        if isinstance(value, Mapping) and isinstance(was, Mapping):
            if inner := _changes(was, value):
                found[key] = inner
        elif key not in before or was != value:
            found[key] = value
    return found


def checked_parameters(executor_config: Any, operation: str) -> Mapping[str, Any]:
    """
    Return an ``executor_config``, which has to be request parameters.

    :param operation: the operation that the parameters are for, for people
    :raises Rejected: if it is something else; the reason holds none of its values
    """
    if executor_config is None:
        return {}
    if not isinstance(executor_config, Mapping) or not all(isinstance(key, str) for key in executor_config):
        raise Rejected(
            f"executor_config must be a dictionary of {operation} parameters, not {type_name(executor_config)}"
        )
    return executor_config


def overlaid(
    layers: Sequence[Mapping[str, Any]],
    overlay: Callable[[Mapping[str, Any], Mapping[str, Any]], dict[str, Any]],
) -> dict[str, Any]:
    """
    Return the parameters of a workload's request.

    :param layers: the parameters that all workloads share, the changes of the workload's queue, and its own
    :param overlay: the service's way to merge
    :raises Rejected: if its own cannot be copied; the reason holds none of their values
    """
    base, queue, first, *more = layers
    request = overlay(base, queue) if queue else base
    try:
        made = overlay(request, first)
        for one in more:
            made = overlay(made, one)
    except Exception as error:  # noqa: BLE001 - the DAG author's own objects can raise anything
        raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None
    return made


def put_command(
    container: dict[str, Any], command: Collection[str], name: str, executors: str | None = None
) -> None:
    """
    Give a container's override its command and the mark of an executor.

    :param name: the container's, for people
    :param executors: the executors that tasks can name, unless the container has its own
    :raises Rejected: if its environment does not have the form that the API wants
    """
    environment = container.setdefault("environment", [])
    if not isinstance(environment, list):
        raise Rejected(f"environment of {name} must be a list of names and values, not {type_name(environment)}")
    container["command"] = list(command)
    if executors is not None and variable_in(environment, EXECUTOR_SETTING) is None:
        environment.append({"name": EXECUTOR_SETTING, "value": executors})
    environment.append(dict(EXECUTOR_MARK))


def variable_in(environment: Any, name: str) -> str | None:
    """Return the value of a variable in the API's list of names and values; None if it is not there."""
    pairs = environment if isinstance(environment, (list, tuple)) else ()
    found = [one.get("value") for one in pairs if isinstance(one, Mapping) and one.get("name") == name]
    return None if not found else str(found[-1])


def sealed(request: Mapping[str, Any], overrides: str, added: str = "") -> dict[str, Any]:
    """
    Return a copy of a finished request that shares nothing with it.

    :param overrides: the parameter with the command, which has to be JSON and short enough
    :param added: what the service puts into it before ECS counts
    :raises Rejected: if it is not
    """
    try:
        whole: dict[str, Any] = copied(dict(request))
        size = _size_of(whole.get(overrides, {}), added)
    except Exception as error:  # noqa: BLE001 - the DAG author's own objects can raise anything
        raise Rejected(f"{overrides} cannot be sent as JSON: {type(error).__name__}") from None
    if size > OVERRIDES_LIMIT:
        also = " and what the service adds" if added else ""
        raise Rejected(
            f"{overrides} has {size} characters, the command{also} included, and ECS takes at most "
            f"{OVERRIDES_LIMIT}: make the environment or other parts of executor_config smaller"
        )
    return whole


def _size_of(overrides: Any, added: str) -> int:
    """Return the characters of a request's overrides, as ECS counts them."""
    return len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False)) + len(added)


def room_for_command(overrides: Any, added: str, command: int) -> int:
    """
    Return how many characters a command can have as JSON.

    :param command: the characters of the one that is in the overrides
    """
    return OVERRIDES_LIMIT - (_size_of(overrides, added) - command)


def placement_name(parts: Mapping[str, Any]) -> str:
    """Return the name of a placement, for people too; parts that are None are left out."""
    return " ".join(
        f"{name}={value if isinstance(value, (str, int)) else json.dumps(value, separators=(',', ':'))}"
        for name, value in parts.items()
        if value is not None
    )


# --- tags ---------------------------------------------------------------------------------------------------

TAGS_LIMIT: Final = 50
_TAG_VALUE_LIMIT: Final = 256
_NO_TAG_CHARACTER = re.compile(r"[^\w +\-=.:/@]")
TAGGED_WITH: Final = ("dag_id", "run_id", "task_id", "map_index", "try_number")
"""The tags of ``container_tags``."""


def container_tags(fields: Mapping[str, object]) -> dict[str, str]:
    """
    Return the tags that say which task instance a container is for, in characters that AWS takes.

    :param fields: what names the task instance; None for each field that it lacks
    """
    return {name: _tag_value(str(fields[name])) for name in TAGGED_WITH if fields.get(name) is not None}


def _tag_value(words: str) -> str:
    # AWS refuses its own prefix, and with it the launch.
    value = f"_{words}" if words.lower().startswith("aws:") else words
    return _NO_TAG_CHARACTER.sub("_", value)[:_TAG_VALUE_LIMIT]


def tag_refusal(error: BackendError, tags: Any, permission: str) -> BackendError:
    """
    Return the refusal of a request, with the way out if it is about the tags of ``container_tags``.

    :param tags: the request's
    :param permission: what it takes to set tags
    """
    if error.kind is not Kind.REFUSED or permission not in error.message or not tags:
        return error
    names = tags if isinstance(tags, Mapping) else {tag["key"] for tag in tags}
    if TAGGED_WITH[0] not in names:
        return error  # the user's own
    words = f"{error.message.rstrip('.')}: allow {permission}, or set container_tags = False"
    return BackendError(error.kind, error.code, words, token_used=error.token_used)


def type_name(value: object) -> str:
    """Return the name of a value's type, for people."""
    return "nothing" if value is None else type(value).__name__


# --- stops --------------------------------------------------------------------------------------------------

_STOP_REASON_LIMIT: Final = 255
_SIGNATURE: Final = " (by ecs-async-executor)"
_UNSIGNED: Final = ("Airflow Executor received a SIGTERM", "The Airflow scheduler that started it ")
"""Reasons of the provider's executors, and of this one before it signed them."""


def stop_reason(reason: str) -> str:
    """Return the reason to send with a stop: signed, so that it can be told from a person's."""
    return reason[: _STOP_REASON_LIMIT - len(_SIGNATURE)] + _SIGNATURE


def persons_reason(reason: str) -> str:
    """Return the reason to send with a person's stop: no executor's, whatever the person writes."""
    reason = reason.replace(_SIGNATURE, "")[:_STOP_REASON_LIMIT]
    return f"Stopped by hand: {reason}"[:_STOP_REASON_LIMIT] if is_from_executor(reason) else reason


def is_from_executor(reason: str) -> bool:
    """Return whether an executor, of this scheduler or another, gave this reason for a stop."""
    return _SIGNATURE in reason or reason.startswith(_UNSIGNED)
