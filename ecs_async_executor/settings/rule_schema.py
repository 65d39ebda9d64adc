"""
What rules look like, for editors (JSON Schema) and for readers (tables of their keys).

May import :mod:`.rule_keys`, :mod:`.values` and :mod:`.aws`. Both are made of the keys' declarations, and
``nox -s readme`` writes them. The schema has the form of draft 7, which the usual editors know best.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from ecs_async_executor.settings.aws import AwsSettings, BatchSettings, EcsSettings
from ecs_async_executor.settings.rule_keys import (
    OTHER_NAMES,
    PLACEMENT_NAME,
    DestinationKeys,
    Keys,
    PlacementKeys,
    QueueKeys,
    RetryKeys,
    SizeKeys,
    attribute,
)
from ecs_async_executor.settings.values import CONTAINER_FORMS, JOB_NAME, LAUNCH_TYPES

SCHEMA_FILES: Final = {"ECS": "rules-ecs.schema.json", "Batch": "rules-batch.schema.json"}
"""By the service; they are in this folder, and in the package."""

_TEXT: Final = {"type": ["string", "number"]}
_OBJECT: Final = {"type": "object"}
_LIST: Final = {"type": "array"}
_FLAG: Final = {"type": "boolean"}
_TAGS: Final = {"type": ["object", "array"]}
PARAMETERS: Final[Mapping[str, Mapping[str, Mapping[str, Any]]]] = {
    "ECS": {
        "capacityProviderStrategy": _LIST,
        "cluster": _TEXT,
        "count": {"const": 1},
        "enableECSManagedTags": _FLAG,
        "enableExecuteCommand": _FLAG,
        "group": _TEXT,
        "launchType": {"enum": list(LAUNCH_TYPES)},
        "networkConfiguration": _OBJECT,
        "overrides": _OBJECT,
        "placementConstraints": _LIST,
        "placementStrategy": _LIST,
        "platformVersion": _TEXT,
        "propagateTags": {"enum": ["TASK_DEFINITION", "SERVICE", "NONE"]},
        "referenceId": _TEXT,
        "startedBy": {"type": ["string", "number", "null"]},
        "tags": _TAGS,
        "taskDefinition": _TEXT,
        "volumeConfigurations": _LIST,
    },
    "Batch": {
        "consumableResourcePropertiesOverride": _OBJECT,
        "containerOverrides": _OBJECT,
        "dependsOn": _LIST,
        "ecsPropertiesOverride": _OBJECT,
        "jobDefinition": _TEXT,
        "jobName": {"type": ["string", "number"], "pattern": f"^{JOB_NAME.pattern}$"},
        "jobQueue": _TEXT,
        "parameters": _OBJECT,
        "propagateTags": _FLAG,
        "retryStrategy": _OBJECT,
        "schedulingPriorityOverride": {"type": "integer"},
        "shareIdentifier": _TEXT,
        "tags": _TAGS,
        "timeout": _OBJECT,
    },
}
"""
The parameters of RunTask and SubmitJob that a rule can set.

The SDK's description of the services would have them all, but here is no SDK, and what an editor accepts must not
depend on the version that is installed.
"""
_SECTIONS: Final[Mapping[str, type[AwsSettings]]] = {"ECS": EcsSettings, "Batch": BatchSettings}
_EXCLUSIVE: Final = {"ECS": ("launchType", "capacityProviderStrategy"), "Batch": CONTAINER_FORMS}
_OPERATIONS: Final = {"ECS": "RunTask", "Batch": "SubmitJob"}

# --- JSON Schema --------------------------------------------------------------------------------------------


def rules_schema(service: str) -> dict[str, Any]:
    """
    Return the JSON Schema of a file of rules.

    :param service: ECS or Batch
    """
    placement = {"$ref": "#/definitions/placement"}
    names = {"type": "string", "pattern": f"^{PLACEMENT_NAME}$"}
    built_in = list(_SECTIONS[service].built_in_placements)
    defined = {"type": "object", "propertyNames": names, "additionalProperties": placement}
    one_defined = {**defined, "minProperties": 1, "maxProperties": 1}
    item = {"anyOf": [{"$ref": "#/definitions/placement_name"}, one_defined]}
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": f"Rules of Async{service.capitalize()}Executor",
        "type": "object",
        "additionalProperties": False,
        "minProperties": 1,
        "properties": {
            "queues": {
                "description": f"By Airflow's queue: {_OPERATIONS[service]} parameters, sizes, and where they go.",
                "type": "object",
                "propertyNames": {"minLength": 1},
                "additionalProperties": {"$ref": "#/definitions/queue"},
            },
            "placements": {
                "description": "A list: where all launches go, best first. An object: only defines placements.",
                "anyOf": [{"type": "array", "items": item, "uniqueItems": True}, defined],
            },
            "placement_patience": _of_key(QueueKeys, "placement_patience"),
            "retries": {
                "description": "What the next try of a task gets, by the end of the last one.",
                "allOf": [{"$ref": "#/definitions/retries"}],
            },
        },
        "definitions": {
            "placement_name": {"anyOf": [{"enum": built_in}, names]} if built_in else names,
            "queue": _rule(QueueKeys, service),
            "placement": _rule(PlacementKeys, service),
            "retry": {**_rule(RetryKeys, service), "required": ["when"], "minProperties": 2},
            "retries": {"type": "array", "items": {"$ref": "#/definitions/retry"}},
        },
    }


def schema_text(service: str) -> str:
    """Return the file that has the schema."""
    return json.dumps(rules_schema(service), indent=2, ensure_ascii=False) + "\n"


def _rule(model: type[Keys], service: str) -> dict[str, Any]:
    """Return the schema of one rule; parameters are also accepted as ``snake_case``."""
    parameters = PARAMETERS[service]
    own = {name: _of_key(model, name) for name in model.model_fields if _has(model, name, service)}
    if model is RetryKeys:
        own |= {other: own[name] for other, name in OTHER_NAMES.items()}
        parameters = {name: one for name, one in parameters.items() if name != _SECTIONS[service].place_parameter}
    snake = "|".join(one for name in parameters if (one := _snake(name)) != name)
    return {
        "type": "object",
        "properties": {**own, **{name: dict(one) for name, one in parameters.items()}},
        "patternProperties": {f"^({snake})$": {}},
        "additionalProperties": False,
        "not": {"required": list(_EXCLUSIVE[service])},
    }


def _of_key(model: type[Keys], name: str) -> dict[str, Any]:
    schema = attribute(model, name, "schema")
    if "$ref" in schema:
        schema = {"allOf": [schema]}  # beside a reference, draft 7 reads nothing else
    described = {"description": model.model_fields[name].description}
    return {**described, **schema, "examples": [attribute(model, name, "example")]}


def _has(model: type[Keys], name: str, service: str) -> bool:
    return attribute(model, name, "only") in {"", service}


def _snake(name: str) -> str:
    return re.sub(r"(?<=[a-z])[A-Z]+", lambda found: f"_{found[0].lower()}", name).replace(
        "ecsmanaged", "ecs_managed"
    )


# --- tables -------------------------------------------------------------------------------------------------


_OWN_OF_QUEUES: Final = ("placements", "placement_patience", "retries")
_OWN_OF_RETRIES: Final = ("when", "memory", "cpu", "up_to", "placements")
_TABLES: Final[Mapping[str, tuple[type[Keys], Iterable[str]]]] = {
    "size": (SizeKeys, SizeKeys.model_fields),
    "destination": (DestinationKeys, DestinationKeys.model_fields),
    "queue": (QueueKeys, _OWN_OF_QUEUES),
    "retry": (RetryKeys, _OWN_OF_RETRIES),
}


def keys_table(kind: str) -> str:
    """
    Return keys as a Markdown table.

    :param kind: size, destination, queue or retry
    """
    model, names = _TABLES[kind]
    lines = ["| Key | Takes | What it is | Example |", "| --- | --- | --- | --- |"]
    for name in names:
        only = attribute(model, name, "only")
        if only == "neither":
            continue
        words = f"{model.model_fields[name].description}{f' {only} only.' if only else ''}"
        example = attribute(model, name, "example")
        shown = example if isinstance(example, str) else json.dumps(example)
        lines.append(f"| `{name}` | {attribute(model, name, 'allowed')} | {words} | `{name}: {shown}` |")
    return "\n".join(lines) + "\n"
