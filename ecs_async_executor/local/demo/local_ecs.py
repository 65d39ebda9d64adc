"""The demo's side of the local ECS: what has to exist there, and what it says about its tasks."""

from __future__ import annotations

import json
import sys
import urllib.request
from dataclasses import dataclass
from datetime import timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.scenario import label

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mypy_boto3_ecs.type_defs import TaskTypeDef

CLUSTER = "demo"
CONTAINER = "airflow"


@dataclass(frozen=True, slots=True)
class EcsTask:
    """
    One ECS task of the demo.

    :param label: the task instance that runs in it
    :param number: the try of the task instance
    """

    arn: str
    label: str
    number: int
    status: str
    created: datetime
    started: datetime | None
    stopped: datetime | None
    exit_code: int | None
    stop_code: str
    stopped_reason: str

    @property
    def short(self) -> str:
        """The end of the ARN, enough to tell it from the others."""
        return self.arn.rpartition("/")[2][:8]


class Ecs:
    """
    A client of the local ECS.

    :param url: where it listens
    """

    def __init__(self, url: str) -> None:
        self.url = url
        # Nothing of whoever runs the demo may be used: neither credentials nor a profile with an endpoint.
        session = boto3.session.Session("local", "local", region_name="us-east-1")
        self._ecs = session.client("ecs", endpoint_url=url)
        self._ec2 = session.client("ec2", endpoint_url=url)

    def prepare(self, environment: Mapping[str, str]) -> tuple[str, str]:
        """
        Make the cluster and the task definition.

        :param environment: of the container
        :return: the subnets and the security groups that a task can use, as the executor is told them
        """
        self._ecs.create_cluster(clusterName=CLUSTER)
        self._ecs.register_task_definition(
            family="demo",
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu="256",
            memory="512",
            containerDefinitions=[
                {
                    "name": CONTAINER,
                    "image": f"python:{sys.version_info.major}.{sys.version_info.minor}",
                    "essential": True,
                    "environment": [{"name": name, "value": value} for name, value in environment.items()],
                    "stopTimeout": 2,
                }
            ],
        )
        subnets = self._ec2.describe_subnets()["Subnets"]
        groups = self._ec2.describe_security_groups()["SecurityGroups"]
        return subnets[0]["SubnetId"], groups[0]["GroupId"]

    def tasks(self) -> list[EcsTask]:
        """Return every ECS task, in the order in which they were made."""
        arns = [
            arn
            for status in ("RUNNING", "STOPPED")
            for page in self._ecs.get_paginator("list_tasks").paginate(cluster=CLUSTER, desiredStatus=status)
            for arn in page["taskArns"]
        ]
        found = [
            _read(task)
            for start in range(0, len(arns), 100)
            for task in self._ecs.describe_tasks(cluster=CLUSTER, tasks=arns[start : start + 100])["tasks"]
        ]
        return sorted(found, key=lambda task: task.created)

    def take_host_away(self, arn: str) -> None:
        """Let the host under an ECS task be reclaimed, as Spot does."""
        request = urllib.request.Request(  # noqa: S310 - our own server
            f"{self.url}/_local/tasks/{arn.rpartition('/')[2]}/kill",
            data=json.dumps({"cause": "spot"}).encode(),
            method="POST",
        )
        with urllib.request.urlopen(request, timeout=5):  # noqa: S310
            pass


def _read(task: TaskTypeDef) -> EcsTask:
    (override,) = task["overrides"]["containerOverrides"]
    (container,) = task["containers"]
    ran = _workload(override["command"])["ti"]
    return EcsTask(
        arn=task["taskArn"],
        label=label(ran["dag_id"], ran["task_id"], ran["map_index"]),
        number=ran["try_number"],
        status=task["lastStatus"],
        created=task["createdAt"].astimezone(timezone.utc),
        started=_utc(task.get("startedAt")),
        stopped=_utc(task.get("stoppedAt")),
        exit_code=container.get("exitCode"),
        stop_code=task.get("stopCode", ""),
        stopped_reason=task.get("stoppedReason", ""),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(timezone.utc)


def _workload(command: list[str]) -> dict[str, Any]:
    """Find the workload in the command that Airflow sends: it follows ``--json-string``."""
    found: dict[str, Any] = json.loads(command[command.index("--json-string") + 1])
    return found
