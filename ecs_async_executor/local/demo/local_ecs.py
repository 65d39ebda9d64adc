"""The demo's side of the local ECS: what has to exist there, and what it says about its tasks."""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.cloud import (
    HUGE,
    HUGE_CPU,
    HUGE_MB,
    IMAGE,
    LOG_GROUP,
    MISSING_IMAGE,
    NO_IMAGE,
    OUT_OF_MEMORY_ERROR,
    SMALL,
    SMALL_MB,
    Ran,
    add_fault,
    brief,
    kill,
    workload,
)
from ecs_async_executor.local.demo.scenario import EXITED, HOST_TAKEN, NOT_STARTED, OUT_OF_MEMORY, label

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from mypy_boto3_ecs.type_defs import TaskTypeDef

    from ecs_async_executor.local.demo.airflow_home import AirflowHome

CLUSTER = "demo"
CONTAINER = "airflow"
REGION = "us-east-1"
FULL = "Capacity is unavailable at this time. Please try again later or in a different availability zone"

ENDS = {"EssentialContainerExited": EXITED, "SpotInterruption": HOST_TAKEN, "TaskFailedToStart": NOT_STARTED}
"""What stop codes mean in the words of the scenario."""


class Ecs:
    """
    A client of the local ECS.

    :param url: where it listens
    """

    name = "ECS"
    noun = "ECS task"

    def __init__(self, url: str) -> None:
        self.url = url
        # Nothing of whoever runs the demo may be used: neither credentials nor a profile with an endpoint.
        session = boto3.session.Session("local", "local", region_name=REGION)
        self._ecs = session.client("ecs", endpoint_url=url)
        self._ec2 = session.client("ec2", endpoint_url=url)

    def prepare(self, environment: Mapping[str, str]) -> tuple[str, str]:
        """
        Make the cluster and the task definitions.

        :param environment: of the containers
        :return: the subnets and the security groups that a task can use, as the executor is told them
        """
        self._ecs.create_cluster(clusterName=CLUSTER)
        self._register("demo", environment)
        self._register(SMALL, environment, memory=SMALL_MB)
        self._register(NO_IMAGE, environment, image=MISSING_IMAGE)
        self._register(HUGE, environment, cpu=str(HUGE_CPU * 1024), size=str(HUGE_MB))
        subnets = self._ec2.describe_subnets()["Subnets"]
        groups = self._ec2.describe_security_groups()["SecurityGroups"]
        return subnets[0]["SubnetId"], groups[0]["GroupId"]

    def _register(
        self,
        family: str,
        environment: Mapping[str, str],
        *,
        cpu: str = "256",
        size: str = "512",
        **container: Any,
    ) -> None:
        log_options = {"awslogs-group": LOG_GROUP, "awslogs-region": REGION, "awslogs-stream-prefix": "airflow"}
        definition: Any = {
            "name": CONTAINER,
            "image": IMAGE,
            "essential": True,
            "environment": [{"name": name, "value": value} for name, value in environment.items()],
            "logConfiguration": {"logDriver": "awslogs", "options": log_options},
            "stopTimeout": 2,
            **container,
        }
        self._ecs.register_task_definition(
            family=family,
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu=cpu,
            memory=size,
            containerDefinitions=[definition],
        )

    def tasks(self) -> list[Ran]:
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

    def settings(self, airflow: AirflowHome, *, provider: bool) -> dict[str, str]:
        """Make what has to exist, and return the part of the environment that the executor needs."""
        subnets, groups = self.prepare(airflow.container_environment)
        return airflow.executor(provider=provider, ecs_url=self.url, subnets=subnets, security_groups=groups)

    def containers(self) -> list[Ran]:
        """Return every ECS task, in the order in which they were made."""
        return self.tasks()

    def take_host_away(self, container: str) -> None:
        """Let the host under an ECS task be reclaimed, as Spot does."""
        kill(self.url, "tasks", container)

    def withhold_capacity(self, task_id: str, *, for_good: bool = False) -> None:
        """Answer the next RunTask of a task, or all of them, as Fargate does when it is full."""
        count = None if for_good else 1
        add_fault(
            self.url, task_id, kind="failures", operation="RunTask", failures=[{"reason": FULL}], count=count
        )


def _read(task: TaskTypeDef) -> Ran:
    (override,) = task["overrides"]["containerOverrides"]
    (container,) = task["containers"]
    ran = workload(override["command"])["ti"]
    reason = container.get("reason", "")
    stop_code = task.get("stopCode", "")
    end = OUT_OF_MEMORY if reason.startswith(OUT_OF_MEMORY_ERROR) else ENDS.get(stop_code, stop_code)
    return Ran(
        id=task["taskArn"],
        label=label(ran["dag_id"], ran["task_id"], ran["map_index"]),
        number=ran["try_number"],
        status=task["lastStatus"],
        created=task["createdAt"].astimezone(timezone.utc),
        started=_utc(task.get("startedAt")),
        stopped=_utc(task.get("stoppedAt")),
        exit_code=container.get("exitCode"),
        end=end,
        why=brief(reason) or (EXITED if end == EXITED else stop_code),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(timezone.utc)
