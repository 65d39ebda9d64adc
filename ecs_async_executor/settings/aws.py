"""
The options of the amazon provider's sections: what is launched, and as whom.

May import :mod:`.options`, :mod:`.values` and :mod:`.rules`. Names and defaults are the provider's, and a test
compares them with the provider that is installed.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import ConfigDict, model_validator
from pydantic_core import PydanticCustomError

from ecs_async_executor.settings.options import Conflict, Section, flag, option, whole
from ecs_async_executor.settings.rules import Placement
from ecs_async_executor.settings.values import (
    JOB_NAME_RULE,
    LAUNCH_TYPES,
    Enabled,
    JobName,
    LaunchType,
    Names,
    RunTaskParameters,
    Strategy,
    SubmitJobParameters,
    Unset,
    camelize,
    read_json,
    read_json_or_import,
    refused_in_run_task,
    refused_in_submit_job,
)

ECS_SECTION: Final = "aws_ecs_executor"
_SPOT: Final = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]


class AwsSettings(Section):
    """
    What the sections for ECS and for Batch have in common.

    A request parameter that also has an option is moved from the parameters to that option, which it wins over. So
    the fields hold what applies, and the parameters hold the rest, in the API's spelling.
    """

    model_config = ConfigDict(coerce_numbers_to_str=True)  # as in all other parameters

    parameters_option: ClassVar[str]
    """The option that holds request parameters."""
    options_of_parameters: ClassVar[Mapping[str, str]]
    """The request parameters that have an option, with its name."""
    place_parameter: ClassVar[str]
    """The request parameter that says where a container is, and where it has to be searched for."""
    built_in_placements: ClassVar[Mapping[str, Placement]] = {}
    """The placements that every executor of the service has."""
    unset_words = {"conn_id": ()}  # an empty conn_id means: no connection

    conn_id: Annotated[
        str | None,
        option(
            "Airflow connection for AWS; needs the amazon provider. Empty: AWS's default credential chain. Unset: "
            "aws_default with the amazon provider, the default chain without it.",
            allowed="the ID of a connection",
        ),
    ] = None
    region_name: Annotated[str | None, option("AWS region.", allowed="the name of a region")] = None
    check_health_on_startup: Annotated[bool, flag("Whether the scheduler makes a test call when it starts.")] = (
        True
    )

    @model_validator(mode="before")
    @classmethod
    def _move_parameters(cls, data: Any) -> Any:
        """Let request parameters win over their options, whatever the spelling of their names."""
        if not isinstance(data, Mapping):
            return data
        try:
            parameters = cls.read_parameters(data.get(cls.parameters_option))
        except PydanticCustomError:
            return data  # the field's own validator reports it
        if not isinstance(parameters, Mapping) or not all(isinstance(key, str) for key in parameters):
            return data
        rest = camelize(copy.deepcopy(dict(parameters)))
        moved = {name: rest.pop(key) for key, name in cls.options_of_parameters.items() if key in rest}
        return {**cls.make_room(data, moved), **moved, cls.parameters_option: rest}

    def doubts(self) -> list[str]:
        """Return what is hardly meant as it is; unlike a conflict, it may work."""
        return []

    @staticmethod
    def read_parameters(value: Any) -> Any:
        """Read the option that holds request parameters."""
        return read_json(value)

    @staticmethod
    def refused_in_rules(parameters: Mapping[str, Any]) -> Iterator[str]:
        """Yield a sentence for each request parameter that a rule cannot set, or not like this."""
        raise NotImplementedError

    @classmethod
    def make_room(cls, options: Mapping[str, Any], moved: Mapping[str, Any]) -> dict[str, Any]:  # noqa: ARG003
        """Return the options without those that a moved parameter excludes."""
        return dict(options)


class EcsSettings(AwsSettings):
    """The options of ``[aws_ecs_executor]``."""

    section = ECS_SECTION
    parameters_option = "run_task_kwargs"
    place_parameter = "cluster"
    built_in_placements = {
        "spot": Placement(
            "spot", {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]}
        ),
        "on-demand": Placement("on-demand", {"launchType": "FARGATE"}),
        "ec2": Placement("ec2", {"launchType": "EC2"}),
    }
    options_of_parameters = {
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

    cluster: Annotated[str, option("ECS cluster. Required.", allowed="the name or ARN of a cluster")]
    container_name: Annotated[
        str,
        option(
            "Container of the task definition that runs Airflow's workload. Required.",
            allowed="the name of a container in the task definition",
        ),
    ]
    task_definition: Annotated[
        str | None,
        option("Task definition.", allowed="the family, family:revision or ARN of a task definition"),
    ] = None
    launch_type: Annotated[
        LaunchType | None,
        option("Launch type; excludes capacity_provider_strategy.", allowed=f"one of {', '.join(LAUNCH_TYPES)}"),
    ] = None
    capacity_provider_strategy: Annotated[
        Strategy,
        option(
            "Capacity provider strategy; excludes launch_type.",
            allowed='a JSON list like [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]',
        ),
    ] = None
    platform_version: Annotated[
        str, option("Fargate platform version; sent for Fargate only.", allowed="LATEST or a version")
    ] = "LATEST"
    subnets: Annotated[Names, option("Subnets.", allowed="a comma-separated list of subnets")] = ()
    security_groups: Annotated[
        Names, option("Security groups.", allowed="a comma-separated list of security groups")
    ] = ()
    assign_public_ip: Annotated[Enabled, flag("Whether containers get a public address.")] = False
    run_task_kwargs: Annotated[
        RunTaskParameters,
        option(
            "More parameters of RunTask; they win over the options.",
            allowed="a JSON object, or the dotted path of a dictionary",
        ),
    ] = {}
    max_run_task_attempts: Annotated[
        int, whole("How many containers a launch may try until one of them starts.", low=1, high=100)
    ] = 3

    @staticmethod
    def read_parameters(value: Any) -> Any:
        """Read the option that holds request parameters."""
        return read_json_or_import(value)

    @staticmethod
    def refused_in_rules(parameters: Mapping[str, Any]) -> Iterator[str]:
        """Yield a sentence for each RunTask parameter that a rule cannot set."""
        return refused_in_run_task(parameters)

    @classmethod
    def make_room(cls, options: Mapping[str, Any], moved: Mapping[str, Any]) -> dict[str, Any]:
        """Return the options without those that a moved parameter excludes."""
        one_is_moved = ("launch_type" in moved) != ("capacity_provider_strategy" in moved)
        excluded = {"launch_type", "capacity_provider_strategy"} if one_is_moved else set()
        return {name: value for name, value in options.items() if name not in excluded}

    def conflicts(self) -> list[Conflict]:
        """Return two placements at once, and a network without subnets."""
        found: list[Conflict] = []
        if self.launch_type and self.capacity_provider_strategy:
            found.append(
                Conflict(
                    ("launch_type", "capacity_provider_strategy"),
                    f"launch_type = {self.launch_type!r} and capacity_provider_strategy exclude each other: unset "
                    "one of them",
                )
            )
        if (self.security_groups or self.assign_public_ip) and not self.subnets and not self._has_own_subnets():
            which = "security_groups" if self.security_groups else "assign_public_ip"
            found.append(
                Conflict(
                    ("security_groups", "assign_public_ip", "subnets", "run_task_kwargs"),
                    f"{which} is set, but subnets is not: set at least one subnet, or unset {which}",
                )
            )
        return found

    def doubts(self) -> list[str]:
        """Return a launch on Fargate without subnets; ``queues`` or each ``executor_config`` may have them."""
        providers = {item["capacityProvider"] for item in self.capacity_provider_strategy or ()}
        fargate = self.launch_type == "FARGATE" or bool(providers & {"FARGATE", "FARGATE_SPOT"})
        if not fargate or self.subnets or self._has_own_subnets():
            return []
        which = "launch_type" if self.launch_type else "capacity_provider_strategy"
        doubt = f"{which} says Fargate, but subnets is not set: a task fails unless its queue or executor_config"
        return [f"{doubt} has a networkConfiguration"]

    def _has_own_subnets(self) -> bool:
        network = self.run_task_kwargs.get("networkConfiguration")
        vpc = network.get("awsvpcConfiguration") if isinstance(network, Mapping) else None
        return bool(vpc.get("subnets")) if isinstance(vpc, Mapping) else False


class BatchSettings(AwsSettings):
    """The options of ``[aws_batch_executor]``."""

    section = "aws_batch_executor"
    parameters_option = "submit_job_kwargs"
    place_parameter = "jobQueue"
    options_of_parameters = {"jobDefinition": "job_definition", "jobName": "job_name", "jobQueue": "job_queue"}

    job_name: Annotated[JobName, option("Beginning of the names of jobs. Required.", allowed=JOB_NAME_RULE)]
    job_queue: Annotated[str, option("Job queue. Required.", allowed="the name or ARN of a job queue")]
    job_definition: Annotated[
        str | None, option("Job definition.", allowed="the name, name:revision or ARN of a job definition")
    ] = None
    submit_job_kwargs: Annotated[
        SubmitJobParameters,
        option("More parameters of SubmitJob; they win over the options.", allowed="a JSON object"),
    ] = {}
    max_submit_job_attempts: Annotated[
        int, whole("How many jobs a launch may try until the container of one starts.", low=1, high=100)
    ] = 3
    eks_properties_override: Annotated[Unset, option("Not supported.", allowed="unset")] = None
    node_override: Annotated[Unset, option("Not supported.", allowed="unset")] = None

    @staticmethod
    def refused_in_rules(parameters: Mapping[str, Any]) -> Iterator[str]:
        """Yield a sentence for each SubmitJob parameter that a rule cannot set, or not like this."""
        return refused_in_submit_job(parameters)
