"""
What AWS refuses and how it says so: the rules of the ECS API that moto does not have.

Pure functions over request parameters. The limits are those of the ECS
API reference (RunTask, DescribeTasks, ListTasks, StopTask).
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ecs_async_executor.local.errors import AwsError, decode_page

MAX_COUNT = 10
MAX_OVERRIDES = 8192
MAX_DESCRIBE = 100
MAX_LIST = 100
MAX_TAGS = 50
FARGATE_PROVIDERS = frozenset({"FARGATE", "FARGATE_SPOT"})
LAUNCH_TYPES = ("EC2", "FARGATE", "EXTERNAL", "MANAGED_INSTANCES")
NO_INSTANCES = "No Container Instances were found in your cluster."
NOT_ASSOCIATED = (
    "The specified capacity provider strategy cannot contain a capacity provider that is not associated with the "
    "cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and try again."
)

_STARTED_BY = re.compile(r"[A-Za-z0-9\-/_]{1,128}")
_CLIENT_TOKEN = re.compile(r"[\x21-\x7e]{1,64}")


def invalid(message: str) -> AwsError:
    """Make an ``InvalidParameterException``."""
    return AwsError("InvalidParameterException", message)


def canonical(value: Any) -> str:
    """Serialize to JSON such that equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def fingerprint(params: Mapping[str, Any]) -> str:
    """Digest the parameters of a request, less its token: the same digest means the same request."""
    return hashlib.sha256(canonical({k: v for k, v in params.items() if k != "clientToken"}).encode()).hexdigest()


def check_run_task(params: Mapping[str, Any]) -> None:
    """
    Check what can be checked of a RunTask without looking anything up.

    :raises AwsError: if AWS would refuse it
    """
    if not params.get("taskDefinition"):
        raise AwsError("ClientException", "Task definition can not be blank.")
    count = params.get("count", 1)
    if not isinstance(count, int) or not 1 <= count <= MAX_COUNT:
        raise invalid(f"The value for 'count' must be between 1 and {MAX_COUNT}.")
    if params.get("launchType") and params.get("capacityProviderStrategy"):
        raise invalid(
            "Specifying both a launch type and capacity provider strategy is not supported. "
            "Remove one and try again."
        )
    launch_type = params.get("launchType")
    if launch_type and launch_type not in LAUNCH_TYPES:
        raise invalid(f"launch type should be one of [{','.join(LAUNCH_TYPES)}]")
    if launch_type == "MANAGED_INSTANCES":
        # The model lists it because tasks show it. AWS's words are not known.
        raise invalid("Launch type MANAGED_INSTANCES can not be specified. Use a capacity provider strategy.")
    started_by = params.get("startedBy")
    if started_by and not _STARTED_BY.fullmatch(started_by):
        raise invalid(
            "startedBy must be at most 128 characters of letters, numbers, hyphens, forward slashes "
            "and underscores."
        )
    token = params.get("clientToken")
    if token and not _CLIENT_TOKEN.fullmatch(token):
        raise invalid("clientToken must be at most 64 characters in the range 33-126.")
    if len(params.get("tags") or ()) > MAX_TAGS:
        raise invalid(f"Tags can not be more than {MAX_TAGS}.")
    overrides = params.get("overrides")
    if overrides:
        size = len(json.dumps(overrides, separators=(",", ":"), ensure_ascii=False))
        if size > MAX_OVERRIDES:
            raise invalid(f"Container Overrides length must be at most {MAX_OVERRIDES}")


def check_against_definition(
    params: Mapping[str, Any],
    *,
    containers: Collection[str],
    network_mode: str | None,
    fargate: bool,
    compatibilities: Collection[str],
) -> None:
    """
    Check a RunTask against its task definition.

    :param containers: the names of the definition's containers
    :param fargate: the containers would run on Fargate
    :raises AwsError: if AWS would refuse it
    """
    for override in (params.get("overrides") or {}).get("containerOverrides") or ():
        name = override.get("name")
        if not name:
            raise invalid("Container name in overrides cannot be empty.")
        if name not in containers:
            raise invalid(f"Override for container named {name} is not a container in the TaskDefinition.")
    if fargate and "FARGATE" not in compatibilities:
        raise invalid("Task definition does not support launch_type FARGATE.")
    network = (params.get("networkConfiguration") or {}).get("awsvpcConfiguration")
    if network_mode == "awsvpc":
        if not network:
            raise invalid("Network Configuration must be provided when networkMode 'awsvpc' is specified.")
        if not network.get("subnets"):
            raise invalid("subnets can not be empty.")
    elif network:
        raise invalid("Network Configuration is not valid for the given networkMode of this task definition.")
    if network and network.get("assignPublicIp") == "ENABLED" and not fargate:
        raise invalid("Assign public IP is not supported for this launch type.")


def check_describe(tasks: Sequence[str]) -> None:
    """
    Check the task list of a DescribeTasks.

    :raises AwsError: if it is empty or longer than AWS takes
    """
    if not tasks:
        raise invalid("Tasks cannot be empty.")
    if len(tasks) > MAX_DESCRIBE:
        raise invalid(f"Tasks cannot contain more than {MAX_DESCRIBE} entries.")


def check_cluster(tasks: Sequence[str], cluster_arn: str) -> None:
    """
    Check that no ARN of a task names another cluster or Region.

    :raises AwsError: if one does, whatever the others are
    """
    own = cluster_arn.replace(":cluster/", ":task/", 1)
    for task in tasks:
        named, _, _ = task.rpartition("/")
        if task.startswith("arn:") and "/" in named and named != own:
            other, mine = named.rpartition("/")[2], own.rpartition("/")[2]
            raise invalid(f"Invalid identifier: Identifier is for cluster {other}. Your cluster is {mine}")


def check_list(params: Mapping[str, Any], *, stopped_by_mark: bool = True) -> tuple[int, int]:
    """
    Check a ListTasks and give the sequence number to go on after, and the page size.

    :param stopped_by_mark: ``startedBy`` goes together with the desired status STOPPED
    :raises AwsError: if AWS would refuse it
    """
    if params.get("startedBy") and any(
        params.get(key) for key in ("family", "serviceName", "containerInstance", "launchType")
    ):
        raise invalid("When startedBy is specified, it must be the only filter.")
    desired = params.get("desiredStatus")
    if params.get("startedBy") and desired == "STOPPED" and not stopped_by_mark:
        raise invalid("When startedBy is specified, it must be the only filter.")
    if desired and desired not in ("RUNNING", "PENDING", "STOPPED"):
        raise invalid("desiredStatus should be one of [RUNNING,PENDING,STOPPED]")
    size = params.get("maxResults") or MAX_LIST
    if not 1 <= size <= MAX_LIST:
        raise invalid(f"maxResults must be between 1 and {MAX_LIST}.")
    token = params.get("nextToken")
    try:
        after = decode_page(token) if token else 0
    except ValueError as error:
        raise invalid("Invalid token.") from error
    return after, size
