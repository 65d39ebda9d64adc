"""
The types of options: how their text is read, and which values are refused.

May import pydantic only. A validator raises ``PydanticCustomError``; its type tells :mod:`.reading` how to put the
error into a sentence.
"""

from __future__ import annotations

import ast
import copy
import importlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Final, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field
from pydantic_core import PydanticCustomError

# The types of errors.
UNREADABLE: Final = "unreadable"
"""The text cannot be read at all: continues "it must be ..., but"."""
RULE: Final = "rule"
"""The value breaks a rule: a sentence of its own."""

LAUNCH_TYPES: Final = ("FARGATE", "EC2", "EXTERNAL")
MANAGED_INSTANCES: Final = "MANAGED_INSTANCES"
INSTEAD_OF_MANAGED_INSTANCES: Final = (
    "RunTask refuses the launch type MANAGED_INSTANCES: set capacity_provider_strategy to the capacity provider "
    "of the managed instances instead, and no launch type"
)

JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What AWS Batch accepts as the name of a job."""
JOB_NAME_RULE: Final = "1 to 128 letters, digits, hyphens and underscores, starting with a letter or a digit"

QUEUE_URL: Final = r"https?://[A-Za-z0-9.:-]+/[0-9]{12}/[A-Za-z0-9_-]{1,80}"
QUEUE_URL_ALLOWED: Final = "the URL of a standard queue"
QUEUE_URL_EXAMPLE: Final = "https://sqs.eu-west-1.amazonaws.com/123456789012/airflow-events"

CONTAINER_FORMS: Final = ("containerOverrides", "ecsPropertiesOverride")
"""Parameters of SubmitJob for job definitions with one container, and with several: a request has one of them."""

MORE_THAN_A_CONTAINER: Final = {
    "arrayProperties": "one workload is one container, and an array job has many",
    "eksPropertiesOverride": "jobs on EKS are not supported",
    "nodeOverrides": "one workload is one container, and a multi-node job has many",
}
"""Parameters of SubmitJob for jobs that cannot run Airflow's command, or would run it many times."""

_UNSETTABLE: Final = {
    "clientToken": "the executor sets it, so that a launch can be repeated safely",
    "count": "one workload is one container",
}


def _refuse(kind: str, text: str) -> PydanticCustomError:
    # As a value of the template, because the text can have braces.
    return PydanticCustomError(kind, "{text}", {"text": text})


# --- reading text -------------------------------------------------------------------------------------------


def _names(value: Any) -> Any:
    """Split ``a, b`` at its commas; drop spaces and empty parts."""
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def read_json(value: Any) -> Any:
    """Read JSON, or Python's notation: the amazon provider documents its examples in that."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            line, column = getattr(error, "lineno", "?"), getattr(error, "colno", "?")
            text = f"it is not JSON: the error is in line {line}, column {column}"
            raise _refuse(UNREADABLE, text) from None


_NAME: Final = re.compile(r"[A-Za-z_][\w-]*")
_DOTTED: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def _names_or_json(value: Any) -> Any:
    """Read JSON, or names that commas separate."""
    names = _names(value)
    return list(names) if names and all(_NAME.fullmatch(name) for name in names) else read_json(value)


def read_json_or_import(value: Any) -> Any:
    """Read JSON, or import the dictionary that a dotted path names."""
    if not isinstance(value, str) or not _DOTTED.fullmatch(value.strip()):
        return read_json(value)
    module, _, name = value.strip().rpartition(".")
    try:
        return copy.deepcopy(getattr(importlib.import_module(module), name))
    except Exception as error:  # noqa: BLE001 - the module is the user's, it can raise anything
        raise _refuse(UNREADABLE, f"importing it raised {type(error).__name__}: {error}") from None


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


def _enabled(value: Any) -> Any:
    """Read the API's words for a boolean, which run_task_kwargs may have."""
    return {"ENABLED": True, "DISABLED": False}.get(value.upper(), value) if isinstance(value, str) else value


# --- spelling -----------------------------------------------------------------------------------------------

_IRREGULAR: Final = {
    "enable_ecs_managed_tags": "enableECSManagedTags",
    "managed_ebs_volume": "managedEBSVolume",
    "size_in_gib": "sizeInGiB",
}

_KEYS_OF_THE_USER: Final = frozenset({"environment", "parameters", "tags"})
"""Objects in requests whose keys are names of the user's, not parameters."""


def camelize(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """
    Return a request with the API's spelling of ``snake_case`` keys, as the amazon provider does.

    Lists stay as they are, and so do keys of the user's own (``tags``) and keys that are spelled right already.
    """
    result: dict[str, Any] = {}
    for key, value in mapping.items():
        if not isinstance(key, str):
            result[key] = value  # for botocore to refuse
            continue
        name = _IRREGULAR.get(key.lower())
        if name is None:
            name = re.sub(r"(?<!^)_(.)", lambda match: match.group(1).upper(), key)
            name = name[:1].lower() + name[1:]
        if isinstance(value, Mapping) and name not in _KEYS_OF_THE_USER:
            value = camelize(value)  # noqa: PLW2901
        result[name] = value
    return result


def _camelize_items(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(camelize(item) if isinstance(item, Mapping) else item for item in value)
    return value


# --- refusing values ----------------------------------------------------------------------------------------


def _check_launch_type(value: str) -> str:
    if value == MANAGED_INSTANCES:
        raise _refuse(RULE, INSTEAD_OF_MANAGED_INSTANCES)
    if value not in LAUNCH_TYPES:
        raise PydanticCustomError("launch_type", "no launch type")
    return value


def _check_strategy(value: tuple[dict[str, Any], ...] | None) -> tuple[dict[str, Any], ...] | None:
    for item in value or ():
        if not (isinstance(item.get("capacityProvider"), str) and item["capacityProvider"]):
            raise _refuse(RULE, "each item needs a capacityProvider, the name of one")
        if item.keys() - {"capacityProvider", "weight", "base"}:
            raise _refuse(RULE, "an item can have capacityProvider, weight and base, nothing else")
        if any(type(item.get(key, 0)) is not int for key in ("weight", "base")):
            raise _refuse(RULE, "weight and base must be whole numbers")
    return value


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    A place in S3.

    :param name: the bucket's
    :param prefix: how the keys of objects begin; empty, or ends with a slash
    """

    name: str
    prefix: str = ""

    def key(self, name: str) -> str:
        """Return the key of an object here."""
        return f"{self.prefix}{name}"

    def key_in(self, arn: str) -> str | None:
        """Return the key of an object by its ARN, None if it is elsewhere."""
        bucket, _, key = arn.partition(":s3:::")[2].partition("/")
        return key if bucket == self.name and key.startswith(self.prefix) else None

    def __str__(self) -> str:
        return f"s3://{self.name}/{self.prefix}".rstrip("/")


_BUCKET: Final = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])((?:/[A-Za-z0-9!_.*'()-]+)*)/?")


def _read_bucket(value: Any) -> Any:
    """Read ``s3://bucket/prefix``."""
    if not isinstance(value, str):
        return value
    found = _BUCKET.fullmatch(value)
    if found is None:
        raise PydanticCustomError("bucket", "no place in S3")
    return Bucket(found[1], f"{found[2][1:]}/" if found[2] else "")


COMMAND: Final = "command"
ENVIRONMENT_FILE: Final = "environment_file"


def _check_delivery(value: str) -> str:
    if value not in (COMMAND, ENVIRONMENT_FILE):
        raise PydanticCustomError("delivery", "no way to hand a workload over")
    return value


def _check_delivery_of_job(value: str) -> str:
    if _check_delivery(value) == ENVIRONMENT_FILE:
        raise _refuse(RULE, "SubmitJob takes no environment files; only ECS reads them. Leave it at command")
    return value


def _check_no_bucket(value: Any) -> Any:
    if value is not None:
        raise _refuse(RULE, "unset it, because SubmitJob takes no environment files")
    return value


def _check_job_name(value: str) -> str:
    if not JOB_NAME.fullmatch(value):
        raise PydanticCustomError("job_name", "no name of a job")
    return value


def _check_unset(value: Any) -> Any:
    if value is not None:
        raise _refuse(RULE, "unset it, because only jobs with one container on ECS are supported")
    return value


def _check_run_task(value: dict[str, Any]) -> dict[str, Any]:
    if "clientToken" in value:
        raise _refuse(RULE, f"clientToken cannot be set, because {_UNSETTABLE['clientToken']}")
    overrides = value.get("overrides", {})
    if not isinstance(overrides, dict):
        raise _refuse(RULE, "overrides must be an object")
    containers = overrides.get("containerOverrides", [])
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise _refuse(RULE, "overrides.containerOverrides must be a list of objects")
    return value


def _check_submit_job(value: dict[str, Any]) -> dict[str, Any]:
    for key, why in MORE_THAN_A_CONTAINER.items():
        if key in value:
            raise _refuse(RULE, f"{key} cannot be set, because {why}")
    if not isinstance(value.get("containerOverrides", {}), dict):
        raise _refuse(RULE, "containerOverrides must be an object")
    if value.keys() >= set(CONTAINER_FORMS):
        raise _refuse(RULE, f"{' and '.join(CONTAINER_FORMS)} exclude each other; remove one of them")
    return value


def refused_in_run_task(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each parameter of RunTask that a rule cannot set."""
    yield from _excluded(parameters, ("launchType", "capacityProviderStrategy"))
    yield from _refused(parameters, _UNSETTABLE)


def refused_in_submit_job(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield a sentence for each parameter of SubmitJob that a rule cannot set, or not like this."""
    name = parameters.get("jobName")
    if isinstance(name, str) and not JOB_NAME.fullmatch(name):
        yield f"jobName must be {JOB_NAME_RULE}"
    yield from _excluded(parameters, CONTAINER_FORMS)
    yield from _refused(parameters, MORE_THAN_A_CONTAINER)


def _excluded(parameters: Mapping[str, Any], names: tuple[str, str]) -> Iterator[str]:
    if parameters.keys() >= set(names):
        yield f"{names[0]} excludes {names[1]}: remove one of them"


def _refused(parameters: Mapping[str, Any], unsettable: Mapping[str, str]) -> Iterator[str]:
    for key, why in unsettable.items():
        if parameters.get(key, 1) != 1:
            yield f"{key} cannot be set, because {why}"


# --- the types ----------------------------------------------------------------------------------------------
# Of the validators of a type, pydantic runs those "before" its own check from the last to the first. What has
# ``repr=False`` may hold secrets: neither a repr nor a message shows its value.

Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_names)]
LaunchType: TypeAlias = Annotated[str, AfterValidator(_check_launch_type), BeforeValidator(_upper)]
Strategy: TypeAlias = Annotated[
    tuple[dict[str, Any], ...] | None,
    AfterValidator(_check_strategy),
    BeforeValidator(_camelize_items),
    BeforeValidator(read_json),
]
Enabled: TypeAlias = Annotated[bool, BeforeValidator(_enabled)]
Delivery: TypeAlias = Annotated[str, AfterValidator(_check_delivery)]
DeliveryOfJob: TypeAlias = Annotated[str, AfterValidator(_check_delivery_of_job)]
BucketPath: TypeAlias = Annotated[Bucket, BeforeValidator(_read_bucket)]
NoBucket: TypeAlias = Annotated[Any, AfterValidator(_check_no_bucket)]
JobName: TypeAlias = Annotated[str, AfterValidator(_check_job_name)]
Unset: TypeAlias = Annotated[Any, AfterValidator(_check_unset), Field(repr=False)]
RunTaskParameters: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(read_json_or_import), AfterValidator(_check_run_task), Field(repr=False)
]
SubmitJobParameters: TypeAlias = Annotated[
    dict[str, Any], BeforeValidator(read_json), AfterValidator(_check_submit_job), Field(repr=False)
]
RawRules: TypeAlias = Annotated[Any, BeforeValidator(read_json), Field(repr=False)]
"""Rules as they are written; they are checked together with those of the file, in :mod:`.rule_reading`."""
RawPlacements: TypeAlias = Annotated[Any, BeforeValidator(_names_or_json), Field(repr=False)]
