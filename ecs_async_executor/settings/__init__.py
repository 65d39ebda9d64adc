"""
The typed, validated settings: our own sections, and the amazon provider's of the same services.

May import :mod:`ecs_async_executor.core.errors` and pydantic only; the configuration comes in through
:class:`ConfReader`. Each option is described where it is declared; the README's table and the provider info
are made from that.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import importlib
import importlib.metadata
import json
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Final, NamedTuple, Protocol, TypeAlias, TypeVar, cast

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from ecs_async_executor.core.errors import ConfigurationError

TUNING_SECTION: Final = "ecs_async_executor"
ECS_SECTION: Final = "aws_ecs_executor"
BATCH_TUNING_SECTION: Final = "batch_async_executor"
BATCH_SECTION: Final = "aws_batch_executor"
LAUNCH_TYPES: Final = ("FARGATE", "EC2", "EXTERNAL", "MANAGED_INSTANCES")

_SHUTDOWN_MARGIN: Final = 2.0
"""Seconds that a shutdown needs besides the longest possible request."""
_SHUTDOWN_LIMIT: Final = 30.0
"""Airflow's ``scheduler_health_check_threshold``: from then on another scheduler takes the workloads away."""


class ConfReader(Protocol):
    """What is asked of a configuration; Airflow's ``conf`` and a team's ``ExecutorConf`` both do it."""

    def get(self, section: str, key: str, *, fallback: Any = ...) -> Any:
        """Return the value of an option, ``fallback`` if it has none."""
        ...


WrongParameters: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]
"""Says which of some request parameters the service's API does not take, and what it does."""


def _all_are_good(_: Mapping[str, Any]) -> Iterable[str]:
    return ()


@dataclass(frozen=True, slots=True)
class Option:
    """
    What there is to say about one option.

    :param default: as it would be written in ``airflow.cfg``; None if it is unset by default
    :param kind: Airflow's name of its type: string, integer, float or boolean
    :param allowed: what values it takes, in words
    """

    name: str
    kind: str
    default: str | None
    example: str
    description: str
    allowed: str


def _option(description: str, *, example: str, allowed: str, kind: str = "string", **constraints: Any) -> Any:
    return Field(
        description=description,
        json_schema_extra={"example": example, "allowed": allowed, "kind": kind},
        **constraints,
    )


def _whole(description: str, *, example: str, low: int, high: int) -> Any:
    allowed = f"a whole number from {low} to {high}"
    return _option(description, example=example, allowed=allowed, kind="integer", ge=low, le=high)


def _seconds(description: str, *, example: str, low: float, high: float, off: bool = False) -> Any:
    allowed = f"seconds from {low:g} to {high:g}" + (", or `off`" if off else "")
    return _option(
        description, example=example, allowed=allowed, kind="float", ge=low, le=high, allow_inf_nan=False
    )


def _per_second(description: str, *, example: str) -> Any:
    allowed = "requests per second, more than 0, at most 1000"
    return _option(description, example=example, allowed=allowed, kind="float", gt=0, le=1000, allow_inf_nan=False)


# --- what strings mean --------------------------------------------------------------------------------------


def _names(value: Any) -> Any:
    """Split ``a, b`` at its commas; spaces and empty parts do not count."""
    if isinstance(value, str):
        return tuple(part for part in (part.strip() for part in value.split(",")) if part)
    return value


def _json(value: Any) -> Any:
    """Read JSON; Python's own notation too, because the amazon provider documents its examples in it."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError as error:
        try:
            return ast.literal_eval(value)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            where = getattr(error, "lineno", "?"), getattr(error, "colno", "?")
            raise PydanticCustomError(
                "json", "it is not JSON: line {line}, column {column}", {"line": where[0], "column": where[1]}
            ) from None


_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def _json_or_import(value: Any) -> Any:
    """Read JSON, or import the dictionary that a dotted path names."""
    if not isinstance(value, str) or not _DOTTED.fullmatch(value.strip()):
        return _json(value)
    module, _, name = value.strip().rpartition(".")
    try:
        return copy.deepcopy(getattr(importlib.import_module(module), name))
    except Exception as error:  # noqa: BLE001 - the module is the user's, it can raise anything
        raise PydanticCustomError(
            "import", "importing it raised {what}", {"what": f"{type(error).__name__}: {error}"}
        ) from None


def _upper(value: Any) -> Any:
    return value.strip().upper() if isinstance(value, str) else value


_IRREGULAR: Final = {
    "enable_ecs_managed_tags": "enableECSManagedTags",
    "managed_ebs_volume": "managedEBSVolume",
    "size_in_gib": "sizeInGiB",
}


_USERS_OWN: Final = frozenset({"parameters", "tags"})
"""Objects in requests whose keys are no parameters."""


def camelize(mapping: Mapping[Any, Any]) -> dict[str, Any]:
    """
    Give ``snake_case`` keys the API's spelling, as the amazon provider does; keys of ``tags`` are the user's.

    Lists are left alone, and so is everything that is spelled right already.
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
        if isinstance(value, Mapping) and name not in _USERS_OWN:
            value = camelize(value)  # noqa: PLW2901
        result[name] = value
    return result


def _strategy(value: tuple[dict[str, Any], ...] | None) -> tuple[dict[str, Any], ...] | None:
    problem = PydanticCustomError("strategy", "each item needs a capacityProvider, and takes weight and base")
    for item in value or ():
        if not (isinstance(item.get("capacityProvider"), str) and item["capacityProvider"]):
            raise problem
        if item.keys() - {"capacityProvider", "weight", "base"}:
            raise problem
        if any(type(item.get(key, 0)) is not int for key in ("weight", "base")):
            raise problem
    return value


def _camelized_items(value: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return tuple(camelize(item) if isinstance(item, Mapping) else item for item in value)
    return value


def _launch_type(value: str | None) -> str | None:
    if value is not None and value not in LAUNCH_TYPES:
        raise PydanticCustomError("launch_type", "it is no launch type")
    return value


def _enabled(value: Any) -> Any:
    """Take the API's words for a boolean, which is what run_task_kwargs may hold."""
    return {"ENABLED": True, "DISABLED": False}.get(value.upper(), value) if isinstance(value, str) else value


_UNSETTABLE: Final = {
    "clientToken": "it is what makes a launch safe to repeat",
    "count": "one workload is one container",
}


def _usable_kwargs(value: dict[str, Any]) -> dict[str, Any]:
    """Refuse what would be wrong for every launch."""
    if "clientToken" in value:
        raise PydanticCustomError("kwargs", "clientToken cannot be set: it is what makes a launch safe to repeat")
    overrides = value.get("overrides", {})
    containers = overrides.get("containerOverrides", []) if isinstance(overrides, dict) else None
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise PydanticCustomError(
            "kwargs", "overrides must be an object, its containerOverrides a list of objects"
        )
    return value


def _camelized_queues(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {queue: camelize(overrides) for queue, overrides in value.items()}


def _queues_run_one(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return _without(value, _UNSETTABLE)


MORE_THAN_A_CONTAINER: Final = {
    "arrayProperties": "one workload is one container, and an array job runs many",
    "eksPropertiesOverride": "jobs on EKS take their command elsewhere, and are not supported",
    "nodeOverrides": "one workload is one container, and a multi-node job runs many",
}
"""Parameters of SubmitJob for jobs that Airflow's command cannot be given to, or is given to many times."""


CONTAINER_FORMS: Final = ("containerOverrides", "ecsPropertiesOverride")
"""Parameters of SubmitJob for job definitions of a single container, and of several: a request has one of them."""


def _usable_job_kwargs(value: dict[str, Any]) -> dict[str, Any]:
    for key, why in MORE_THAN_A_CONTAINER.items():
        if key in value:
            raise PydanticCustomError("kwargs", "{key} cannot be set: {why}", {"key": key, "why": why})
    if not isinstance(value.get("containerOverrides", {}), dict):
        raise PydanticCustomError("kwargs", "containerOverrides must be an object")
    if value.keys() >= set(CONTAINER_FORMS):
        raise PydanticCustomError("kwargs", " and ".join(CONTAINER_FORMS) + " exclude each other")
    return value


def _queues_run_one_job(value: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    for queue, overrides in value.items():
        name = overrides.get("jobName")
        if isinstance(name, str) and not JOB_NAME.fullmatch(name):
            raise PydanticCustomError(
                "queues",
                "queue {queue}: jobName must be {allowed}",
                {"queue": queue, "allowed": _JOB_NAMES},
            )
        if overrides.keys() >= set(CONTAINER_FORMS):
            raise PydanticCustomError(
                "queues",
                "queue {queue}: {forms} exclude each other",
                {"queue": queue, "forms": " and ".join(CONTAINER_FORMS)},
            )
    return _without(value, MORE_THAN_A_CONTAINER)


def _without(value: dict[str, dict[str, Any]], unsettable: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    for queue, overrides in value.items():
        for key, why in unsettable.items():
            if overrides.get(key, 1) != 1:
                raise PydanticCustomError(
                    "queues",
                    "{key} cannot be set for queue {queue}: {why}",
                    {"key": key, "queue": queue, "why": why},
                )
    return value


def _unsupported(value: Any) -> Any:
    if value is not None:
        raise PydanticCustomError("kwargs", "only jobs of one container that ECS runs are supported")
    return value


JOB_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")
"""What AWS Batch takes for the name of a job."""
_JOB_NAMES: Final = "up to 128 letters, digits, hyphens and underscores, a letter or digit first"


def _job_name(value: str) -> str:
    if not JOB_NAME.fullmatch(value):
        raise PydanticCustomError("job_name", "it is no name of a job")
    return value


_Names = Annotated[tuple[str, ...], BeforeValidator(_names)]

# --- the models ---------------------------------------------------------------------------------------------


class _Conflict(NamedTuple):
    """Options that are good one by one, but not together."""

    keys: tuple[str, ...]
    text: str


_Collect = Callable[[_Conflict], None]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    _unset_words: ClassVar[Mapping[str, Collection[str]]] = {}
    """Per option, what means that it is unset, where that is not just the empty text."""
    _kwargs: ClassVar[str] = ""
    """The option that holds request parameters, if there is one."""
    _hoisted: ClassVar[Mapping[str, str]] = {}
    """Request parameters in that which say the same as an option, and win over it."""

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        """Take an empty option for an unset one, as ``airflow.cfg`` has no other way to say it."""
        if not isinstance(data, Mapping):
            return data
        return {
            key: value.strip() if isinstance(value, str) else value
            for key, value in data.items()
            if value is not None
            and not (isinstance(value, str) and value.strip().lower() in cls._unset_words.get(key, {""}))
        }

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Any:
        found = self._conflicts()
        if info.context is not None:
            for conflict in found:
                cast("_Collect", info.context["conflict"])(conflict)
        elif found:
            raise PydanticCustomError("together", "{text}", {"text": "; ".join(one.text for one in found)})
        return self

    def _conflicts(self) -> list[_Conflict]:
        return []


class Tuning(_Section):
    """The options of ``[ecs_async_executor]``; ``Tuning()`` has the defaults."""

    _unset_words = {"capacity_timeout": {"", "off", "none"}, "launch_rate": {"", "off", "none"}}

    max_concurrent_launches: Annotated[
        int,
        _whole("Launch requests in flight at once. Sizes the connection pool.", example="128", low=1, high=1000),
    ] = 64
    launch_rate: Annotated[
        float | None,
        _per_second(
            "Launch requests per second to start with; adapts from there. Unset: AWS's default quota of the "
            "launch type, 20 for Fargate and 40 for EC2, begun at a quarter of it.",
            example="20",
        ),
    ] = None
    launch_burst: Annotated[
        int,
        _whole(
            "Launch requests that may leave at once after a pause. Large bursts collide where several "
            "schedulers share an account's quota.",
            example="20",
            low=1,
            high=100,
        ),
    ] = 10
    launch_rate_max: Annotated[
        float,
        _per_second("What the adaptive launch rate never exceeds, per second.", example="50"),
    ] = 100.0
    max_concurrent_describes: Annotated[
        int,
        _whole(
            "Status requests in flight at once; each asks for up to 100 containers.",
            example="16",
            low=1,
            high=100,
        ),
    ] = 8
    describe_rate: Annotated[
        float,
        _per_second("Status requests per second; AWS's default quota is 20, shared by the account.", example="40"),
    ] = 20.0
    poll_interval: Annotated[
        float,
        _seconds(
            "Pause between two looks at a container. Stretches by itself once looking takes more than a "
            "quarter of describe_rate.",
            example="5",
            low=0.01,
            high=300,
        ),
    ] = 1.0
    missing_grace: Annotated[
        float,
        _seconds(
            "How long AWS may not know a container that it has started, before it counts as lost.",
            example="120",
            low=0,
            high=3600,
        ),
    ] = 60.0
    permanent_error_grace: Annotated[
        float,
        _seconds(
            "How long a refusal that a person may be mending (permissions, cluster, task definition) may "
            "last before it fails the workloads that meet it.",
            example="300",
            low=0,
            high=86400,
        ),
    ] = 120.0
    capacity_timeout: Annotated[
        float | None,
        _seconds(
            "How long a workload waits for capacity before it fails with AWS's reason, so that Airflow's "
            "retries apply. Unset or off: as long as it takes.",
            example="900",
            low=1,
            high=86400,
            off=True,
        ),
    ] = None
    shutdown_timeout: Annotated[
        float,
        _seconds(
            "How long the scheduler's end may wait for requests in flight and for containers that are yet to be "
            "stopped. Less than 30, because from then on other schedulers take over; at least connect_timeout + "
            "read_timeout + 2.",
            example="25",
            low=0.1,
            high=29.9,
        ),
    ] = 20.0
    adopt_task_instances: Annotated[
        bool,
        _option(
            "Leave running containers to the next scheduler when this one ends. False: stop them.",
            example="False",
            allowed="true or false",
            kind="boolean",
        ),
    ] = True
    connect_timeout: Annotated[
        float, _seconds("Time that a connection to AWS may take.", example="3", low=0.1, high=29.9)
    ] = 5.0
    read_timeout: Annotated[
        float, _seconds("Time that AWS may take to answer a request.", example="8", low=0.1, high=29.9)
    ] = 10.0
    queues: Annotated[
        dict[str, dict[str, Any]],
        BeforeValidator(_json),
        AfterValidator(_camelized_queues),
        AfterValidator(_queues_run_one),
        Field(repr=False),
        _option(
            "Airflow queue to overrides of the request that starts a container, as JSON; applied after "
            "run_task_kwargs and before executor_config. Airflow's callbacks have no queue.",
            example='{"gpu": {"cluster": "gpu", "taskDefinition": "airflow-gpu"}}',
            allowed="a JSON object of objects: queue name to request parameters",
        ),
    ] = {}

    def _conflicts(self) -> list[_Conflict]:
        found: list[_Conflict] = []
        longest = self.connect_timeout + self.read_timeout + _SHUTDOWN_MARGIN
        if not longest <= self.shutdown_timeout < _SHUTDOWN_LIMIT:
            found.append(
                _Conflict(
                    ("connect_timeout", "read_timeout", "shutdown_timeout"),
                    f"shutdown_timeout = {self.shutdown_timeout:g}: must be less than {_SHUTDOWN_LIMIT:g} and "
                    f"at least connect_timeout + read_timeout + {_SHUTDOWN_MARGIN:g} = {longest:g}",
                )
            )
        if self.launch_rate is not None and self.launch_rate > self.launch_rate_max:
            found.append(
                _Conflict(
                    ("launch_rate", "launch_rate_max"),
                    f"launch_rate = {self.launch_rate:g}: must be at most launch_rate_max = "
                    f"{self.launch_rate_max:g}",
                )
            )
        return found


class BatchTuning(Tuning):
    """The options of ``[batch_async_executor]``: the same ones, for quotas that are others."""

    launch_rate: Annotated[
        float | None,
        _per_second(
            "Launch requests per second to start with; adapts from there. Unset: 25, half of what AWS Batch takes "
            "from an account, status requests and all else included; begun at a quarter of it.",
            example="20",
        ),
    ] = None
    launch_rate_max: Annotated[
        float,
        _per_second(
            "What the adaptive launch rate never exceeds, per second. Nobody gets more than 50.", example="30"
        ),
    ] = 40.0
    describe_rate: Annotated[
        float,
        _per_second("Status requests per second; they count against AWS's 50 of an account, too.", example="10"),
    ] = 20.0
    permanent_error_grace: Annotated[
        float,
        _seconds(
            "How long a refusal that a person may be mending (permissions, job queue, job definition) may "
            "last before it fails the workloads that meet it.",
            example="300",
            low=0,
            high=86400,
        ),
    ] = 120.0
    queues: Annotated[
        dict[str, dict[str, Any]],
        BeforeValidator(_json),
        AfterValidator(_camelized_queues),
        AfterValidator(_queues_run_one_job),
        Field(repr=False),
        _option(
            "Airflow queue to overrides of the request that submits a job, as JSON; applied after "
            "submit_job_kwargs and before executor_config. Airflow's callbacks have no queue.",
            example='{"gpu": {"jobQueue": "gpu", "jobDefinition": "airflow-gpu"}}',
            allowed="a JSON object of objects: queue name to request parameters",
        ),
    ] = {}


class AwsSettings(_Section):
    """
    What the amazon provider's sections have in common.

    What the option for request parameters says about something that also has an option has been moved to that
    option: the fields hold what applies, and the parameters only the rest, in the API's spelling.
    """

    section: ClassVar[str]
    _unset_words = {"conn_id": ()}  # empty: no connection

    conn_id: Annotated[
        str | None,
        _option(
            "Airflow connection for AWS; needs the amazon provider. Empty: AWS's default credential chain. "
            "Unset: aws_default with the amazon provider, the default chain without it.",
            example="aws_default",
            allowed="the id of a connection",
        ),
    ] = None
    region_name: Annotated[
        str | None, _option("AWS region.", example="us-east-1", allowed="the name of a region")
    ] = None
    check_health_on_startup: Annotated[
        bool,
        _option("Make a test call on start.", example="True", allowed="true or false", kind="boolean"),
    ] = True

    @model_validator(mode="before")
    @classmethod
    def _hoist(cls, data: Any) -> Any:
        """Let request parameters win over the options, whatever spelling their keys have."""
        if not isinstance(data, Mapping):
            return data
        try:
            kwargs = cls._parameters(data.get(cls._kwargs))
        except PydanticCustomError:
            return data  # the field's own validator says so
        if not isinstance(kwargs, Mapping) or not all(isinstance(key, str) for key in kwargs):
            return data
        rest = camelize(copy.deepcopy(dict(kwargs)))
        hoisted = {field: rest.pop(name) for name, field in cls._hoisted.items() if name in rest}
        result = dict(data)
        cls._make_room(result, hoisted)
        result.update(hoisted)
        result[cls._kwargs] = rest
        return result

    @staticmethod
    def _parameters(value: Any) -> Any:
        return _json(value)

    @classmethod
    def _make_room(cls, options: dict[str, Any], hoisted: Mapping[str, Any]) -> None:
        """Drop options that what is hoisted excludes."""


class EcsSettings(AwsSettings):
    """The options of ``[aws_ecs_executor]``."""

    section = ECS_SECTION
    _kwargs = "run_task_kwargs"
    _hoisted = {
        "assignPublicIp": "assign_public_ip",
        "capacityProviderStrategy": "capacity_provider_strategy",
        "cluster": "cluster",
        "containerName": "container_name",
        "launchType": "launch_type",
        "platformVersion": "platform_version",
        "securityGroups": "security_groups",
        "subnets": "subnets",
        "taskDefinition": "task_definition",
    }

    cluster: Annotated[
        str, _option("ECS cluster. Required.", example="airflow", allowed="the name or ARN of a cluster")
    ]
    container_name: Annotated[
        str,
        _option(
            "Container of the task definition that runs Airflow's workload. Required.",
            example="airflow",
            allowed="the name of a container of the task definition",
        ),
    ]
    task_definition: Annotated[
        str | None,
        _option(
            "Task definition to run.",
            example="airflow:7",
            allowed="family, family:revision or ARN",
        ),
    ] = None
    launch_type: Annotated[
        str | None,
        AfterValidator(_launch_type),
        BeforeValidator(_upper),
        _option(
            "Launch type; excludes capacity_provider_strategy.",
            example="FARGATE",
            allowed=", ".join(LAUNCH_TYPES),
        ),
    ] = None
    capacity_provider_strategy: Annotated[
        tuple[dict[str, Any], ...] | None,
        AfterValidator(_strategy),
        BeforeValidator(_camelized_items),
        BeforeValidator(_json),
        _option(
            "Capacity provider strategy; excludes launch_type.",
            example='[{"capacityProvider": "FARGATE_SPOT", "weight": 1}]',
            allowed='a JSON list like [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]',
        ),
    ] = None
    platform_version: Annotated[
        str,
        _option("Fargate platform version; not sent elsewhere.", example="1.4.0", allowed="LATEST or a version"),
    ] = "LATEST"
    subnets: Annotated[
        _Names,
        _option("Subnets, comma separated.", example="subnet-1,subnet-2", allowed="a comma separated list"),
    ] = ()
    security_groups: Annotated[
        _Names,
        _option("Security groups, comma separated.", example="sg-1,sg-2", allowed="a comma separated list"),
    ] = ()
    assign_public_ip: Annotated[
        bool,
        BeforeValidator(_enabled),
        _option("Give containers a public address.", example="True", allowed="true or false", kind="boolean"),
    ] = False
    run_task_kwargs: Annotated[
        dict[str, Any],
        BeforeValidator(_json_or_import),
        AfterValidator(_usable_kwargs),
        Field(repr=False),
        _option(
            "Further parameters of RunTask; they win over the options.",
            example='{"tags": {"team": "data"}}',
            allowed="a JSON object, or the dotted path of a dictionary",
        ),
    ] = {}
    max_run_task_attempts: Annotated[
        int, _whole("Containers to try until one starts.", example="3", low=1, high=100)
    ] = 3

    @staticmethod
    def _parameters(value: Any) -> Any:
        return _json_or_import(value)

    @classmethod
    def _make_room(cls, options: dict[str, Any], hoisted: Mapping[str, Any]) -> None:
        if ("launch_type" in hoisted) != ("capacity_provider_strategy" in hoisted):
            options.pop("launch_type", None)
            options.pop("capacity_provider_strategy", None)

    def _conflicts(self) -> list[_Conflict]:
        found: list[_Conflict] = []
        if self.launch_type and self.capacity_provider_strategy:
            found.append(
                _Conflict(
                    ("launch_type", "capacity_provider_strategy"),
                    f"launch_type = {self.launch_type!r}: capacity_provider_strategy is set too, and the two "
                    "are mutually exclusive",
                )
            )
        if (self.security_groups or self.assign_public_ip) and not self.subnets and not self._has_own_subnets():
            which = "security_groups" if self.security_groups else "assign_public_ip"
            found.append(
                _Conflict(
                    ("security_groups", "assign_public_ip", "subnets", "run_task_kwargs"),
                    f"{which} is set, but subnets is not: at least one subnet is required to run a task",
                )
            )
        return found

    def _has_own_subnets(self) -> bool:
        network = self.run_task_kwargs.get("networkConfiguration")
        vpc = network.get("awsvpcConfiguration") if isinstance(network, Mapping) else None
        return bool(vpc.get("subnets")) if isinstance(vpc, Mapping) else False


class BatchSettings(AwsSettings):
    """The options of ``[aws_batch_executor]``."""

    section = BATCH_SECTION
    _kwargs = "submit_job_kwargs"
    _hoisted = {"jobDefinition": "job_definition", "jobName": "job_name", "jobQueue": "job_queue"}

    job_name: Annotated[
        str,
        AfterValidator(_job_name),
        _option(
            "What the names of jobs begin with. Required.",
            example="airflow",
            allowed=_JOB_NAMES,
        ),
    ]
    job_queue: Annotated[
        str, _option("Job queue. Required.", example="airflow", allowed="the name or ARN of a job queue")
    ]
    job_definition: Annotated[
        str | None,
        _option("Job definition.", example="airflow:7", allowed="name, name:revision or ARN"),
    ] = None
    submit_job_kwargs: Annotated[
        dict[str, Any],
        BeforeValidator(_json),
        AfterValidator(_usable_job_kwargs),
        Field(repr=False),
        _option(
            "Further parameters of SubmitJob; they win over the options.",
            example='{"tags": {"team": "data"}}',
            allowed="a JSON object",
        ),
    ] = {}
    max_submit_job_attempts: Annotated[
        int, _whole("Jobs to try until a container starts.", example="3", low=1, high=100)
    ] = 3
    eks_properties_override: Annotated[
        Any, AfterValidator(_unsupported), _option("Not supported.", example="", allowed="unset")
    ] = None
    node_override: Annotated[
        Any, AfterValidator(_unsupported), _option("Not supported.", example="", allowed="unset")
    ] = None


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that is configured for ECS."""

    tuning: Tuning
    ecs: EcsSettings


@dataclass(frozen=True, slots=True)
class SettingsForBatch:
    """Everything that is configured for Batch."""

    tuning: Tuning
    batch: BatchSettings


# --- reading ------------------------------------------------------------------------------------------------

_Model = TypeVar("_Model", bound=_Section)
_MAY_HOLD_SECRETS: Final = frozenset(
    {"eks_properties_override", "node_override", "queues", "run_task_kwargs", "submit_job_kwargs"}
)
_SHOWN_CHARACTERS: Final = 200


def _said(error: ErrorDetails) -> str:
    kind = error["type"]
    if kind in {"json", "import", "strategy", "kwargs", "queues"}:
        return f" ({error['msg']})"
    where = ".".join(str(part) for part in error["loc"][1:])
    return f" (at {where}: {error['msg']})" if where else ""


def _problem(section: str, model: type[_Section], raw: Mapping[str, Any], error: ErrorDetails) -> str:
    key = str(error["loc"][0])
    allowed = _describe(model, key).allowed
    if error["type"] == "missing":
        return f"[{section}] {key} is not set: it must be {allowed}"
    if key in _MAY_HOLD_SECRETS:
        shown = "(not shown)"
    else:
        value = error["input"] if len(error["loc"]) == 1 else raw.get(key, error["input"])
        shown = repr(value)
        if len(shown) > _SHOWN_CHARACTERS:
            shown = shown[:_SHOWN_CHARACTERS] + "..."
        if key in model._hoisted.values() and raw.get(key) != value and model._kwargs in raw:  # noqa: SLF001
            shown += f" (from {model._kwargs})"  # noqa: SLF001
    return f"[{section}] {key} = {shown}: must be {allowed}{_said(error)}"


def _read(conf: ConfReader, section: str, model: type[_Model]) -> tuple[_Model | None, list[str]]:
    raw = {key: conf.get(section, key, fallback=None) for key in model.model_fields}
    raw = {key: value for key, value in raw.items() if value is not None}
    problems: dict[str, str] = {}
    bad: set[str] = set()

    def collect(conflict: _Conflict) -> None:
        if bad.isdisjoint(conflict.keys):
            problems[conflict.text] = f"[{section}] {conflict.text}"

    context = {"conflict": collect}
    try:
        settings = model.model_validate(raw, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            key = str(details["loc"][0])
            if key not in bad:
                problems[key] = _problem(section, model, raw, details)
            bad.add(key)
        # The rules between options are only looked at when each option is good by itself: look again without
        # the bad ones, so that one start shows everything.
        rest: dict[str, Any] = {key: value for key, value in raw.items() if key not in bad}
        rest |= {key: "x" for key in bad if model.model_fields[key].is_required()}
        with contextlib.suppress(ValidationError):  # a bad value from run_task_kwargs, which is reported above
            model.model_validate(rest, context=context)
        return None, list(problems.values())
    return settings, list(problems.values())


def _amazon_provider_is_installed() -> bool:
    try:
        importlib.metadata.distribution("apache-airflow-providers-amazon")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


_Aws = TypeVar("_Aws", bound=AwsSettings)


def _read_aws(conf: ConfReader, model: type[_Aws]) -> tuple[_Aws | None, list[str]]:
    settings, problems = _read(conf, model.section, model)
    conn_id = conf.get(model.section, "conn_id", fallback=None)
    if conn_id and not _amazon_provider_is_installed():
        problems.append(
            f"[{model.section}] conn_id = {conn_id!r}: Airflow connections for AWS need the amazon provider "
            "(pip install 'ecs-async-executor[amazon]'); without it conn_id must be unset"
        )
    return settings, problems


def load_tuning(conf: ConfReader, section: str = TUNING_SECTION, model: type[Tuning] = Tuning) -> Tuning:
    """
    Read our own options.

    :raises ConfigurationError: if any of them is not usable; names them all
    """
    tuning, problems = _read(conf, section, model)
    if tuning is None or problems:
        raise ConfigurationError(problems)
    return tuning


def load_ecs(conf: ConfReader) -> EcsSettings:
    """
    Read the amazon provider's options for ECS.

    :raises ConfigurationError: if any of them is not usable; names them all
    """
    ecs, problems = _read_aws(conf, EcsSettings)
    if ecs is None or problems:
        raise ConfigurationError(problems)
    return ecs


def load_batch(conf: ConfReader) -> BatchSettings:
    """
    Read the amazon provider's options for Batch.

    :raises ConfigurationError: if any of them is not usable; names them all
    """
    batch, problems = _read_aws(conf, BatchSettings)
    if batch is None or problems:
        raise ConfigurationError(problems)
    return batch


def load(conf: ConfReader, wrong: WrongParameters = _all_are_good) -> Settings:
    """
    Read both sections for ECS.

    :param wrong: what is not to be set for a queue, because RunTask does not take it
    :raises ConfigurationError: if anything in them is not usable; names everything
    """
    return Settings(*_load(conf, TUNING_SECTION, Tuning, EcsSettings, wrong))


def load_for_batch(conf: ConfReader, wrong: WrongParameters = _all_are_good) -> SettingsForBatch:
    """
    Read both sections for Batch.

    :param wrong: what is not to be set for a queue, because SubmitJob does not take it
    :raises ConfigurationError: if anything in them is not usable; names everything
    """
    return SettingsForBatch(*_load(conf, BATCH_TUNING_SECTION, BatchTuning, BatchSettings, wrong))


def _load(
    conf: ConfReader, section: str, model: type[Tuning], aws_model: type[_Aws], wrong: WrongParameters
) -> tuple[Tuning, _Aws]:
    tuning, problems = _read(conf, section, model)
    if tuning is not None:
        allowed = _describe(model, "queues").allowed
        problems += [
            f"[{section}] queues = (not shown): must be {allowed} (queue {queue}: {problem})"
            for queue, overrides in tuning.queues.items()
            for problem in wrong(overrides)
        ]
    aws, more = _read_aws(conf, aws_model)
    if tuning is None or aws is None or problems or more:
        raise ConfigurationError(problems + more)
    return tuning, aws


# --- describing ---------------------------------------------------------------------------------------------


def _describe(model: type[_Section], name: str) -> Option:
    field = model.model_fields[name]
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    default: str | None
    if field.is_required() or field.default in (None, (), {}):
        # Empty ones too: Airflow expands variables in defaults, and stumbles over braces.
        default = None
    elif isinstance(field.default, float):
        default = f"{field.default:g}"
    else:
        default = str(field.default)
    return Option(
        name=name,
        kind=str(extra["kind"]),
        default=default,
        example=str(extra["example"]),
        description=field.description or "",
        allowed=str(extra["allowed"]),
    )


def options(model: type[_Section] = Tuning) -> tuple[Option, ...]:
    """Describe every option of a section, in the order of declaration."""
    return tuple(_describe(model, name) for name in model.model_fields)


def settings_table(model: type[_Section] = Tuning) -> str:
    """Return the options of a section as a Markdown table."""
    rows = ["| Option | Default | Allowed | What it does | Example |", "| --- | --- | --- | --- | --- |"]
    for option in options(model):
        default = "unset" if option.default is None else f"`{option.default}`"
        rows.append(
            f"| `{option.name}` | {default} | {option.allowed} | {option.description} | `{option.example}` |"
        )
    return "\n".join(rows) + "\n"


def batch_differences() -> str:
    """Return what differs in ``[batch_async_executor]`` as a Markdown table."""
    same = {option.name: option for option in options(Tuning)}
    rows = settings_table(BatchTuning).splitlines()
    differ = [
        row for row, option in zip(rows[2:], options(BatchTuning), strict=True) if option != same[option.name]
    ]
    return "\n".join([*rows[:2], *differ]) + "\n"
