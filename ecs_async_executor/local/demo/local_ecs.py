"""The demo's side of the local ECS: what has to exist there, and what it says about its tasks."""

from __future__ import annotations

from datetime import timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.cloud import (
    BURST,
    DRIVEN,
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
    interrupt,
    kill,
    of_definition,
    workload,
)
from ecs_async_executor.local.demo.scenario import (
    ABROAD,
    AVOIDS,
    EXITED,
    HOME,
    HOST_TAKEN,
    INTERRUPTED,
    NOT_STARTED,
    OUT_OF_MEMORY,
    Where,
    label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime

    from mypy_boto3_ecs.type_defs import TaskTypeDef

    from ecs_async_executor.local.demo.airflow_home import AirflowHome

CLUSTER, CLUSTER_ABROAD = "demo", "demo-eu"
CLUSTERS = {HOME: CLUSTER, ABROAD: CLUSTER_ABROAD}
CONTAINER = "airflow"
SIZE = ("256", "2048")
RULES = """\
retries:
  - {{when: oom, memory: x2, up to: 8 GB}}
queues:
  cheap:
    placements: [spot, on-demand]
    placement_patience: 3
    retries:
      - {{when: spot, placements: on-demand}}
  eu:
    region_name: {region}
    cluster: {cluster}
    network_configuration:
      awsvpcConfiguration:
        subnets: [{subnet}]
        securityGroups: [{group}]
"""
FULL = "Capacity is unavailable at this time. Please try again later or in a different availability zone"

ENDS = {"EssentialContainerExited": EXITED, "SpotInterruption": HOST_TAKEN, "TaskFailedToStart": NOT_STARTED}
"""What stop codes mean in the words of the scenario; with an exit code Spot has given its warning before."""


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
        session = boto3.session.Session("local", "local")
        self._ecs = {name: session.client("ecs", name, endpoint_url=url) for name in (HOME, ABROAD)}
        self._ec2 = {name: session.client("ec2", name, endpoint_url=url) for name in (HOME, ABROAD)}
        self._stopped: dict[str, Ran | None] = {}

    def prepare(self, environment: Mapping[str, str]) -> tuple[str, str]:
        """
        Make the clusters and the task definitions.

        :param environment: of the containers
        :return: the subnets and the security groups that a task can use, as the executor is told them
        """
        for region, cluster in CLUSTERS.items():
            self._ecs[region].create_cluster(clusterName=cluster, capacityProviders=["FARGATE", "FARGATE_SPOT"])
            self._register("demo", environment, region=region)
        self._register(SMALL, environment, memory=SMALL_MB)
        self._register(NO_IMAGE, environment, image=MISSING_IMAGE)
        self._register(HUGE, environment, size=(str(HUGE_CPU * 1024), str(HUGE_MB)))
        return self._network(HOME)

    def _network(self, region: str) -> tuple[str, str]:
        subnets = self._ec2[region].describe_subnets()["Subnets"]
        groups = self._ec2[region].describe_security_groups()["SecurityGroups"]
        return subnets[0]["SubnetId"], groups[0]["GroupId"]

    def rules(self) -> str:
        """Return the executor's rules, once what they name exists."""
        subnet, group = self._network(ABROAD)
        return RULES.format(region=ABROAD, cluster=CLUSTER_ABROAD, subnet=subnet, group=group)

    def _register(
        self,
        family: str,
        environment: Mapping[str, str],
        *,
        region: str = HOME,
        size: tuple[str, str] = SIZE,
        **container: Any,
    ) -> None:
        log_options = {"awslogs-group": LOG_GROUP, "awslogs-region": region, "awslogs-stream-prefix": "airflow"}
        variables = {**environment, "DEMO_REGION": region}
        definition: Any = {
            "name": CONTAINER,
            "image": IMAGE,
            "essential": True,
            "environment": [{"name": name, "value": value} for name, value in variables.items()],
            "logConfiguration": {"logDriver": "awslogs", "options": log_options},
            # Enough for Airflow's process in it to end in order when Spot takes the capacity back.
            "stopTimeout": 30,
            **container,
        }
        self._ecs[region].register_task_definition(
            family=family,
            requiresCompatibilities=["FARGATE"],
            networkMode="awsvpc",
            cpu=size[0],
            memory=size[1],
            containerDefinitions=[definition],
        )

    def tasks(self) -> list[Ran]:
        """Return every ECS task but those of bursts, in the order in which they were made."""
        found = [ran for region, cluster in CLUSTERS.items() for ran in self._tasks(region, cluster)]
        return sorted(found, key=lambda ran: ran.created)

    def _tasks(self, region: str, cluster: str) -> Iterator[Ran]:
        client = self._ecs[region]
        # One that stops between the two lists is in both.
        arns = dict.fromkeys(
            arn
            for status in ("RUNNING", "STOPPED")
            for page in client.get_paginator("list_tasks").paginate(cluster=cluster, desiredStatus=status)
            for arn in page["taskArns"]
        )
        # What has stopped changes no more, and nothing of a burst is wanted.
        changing = [arn for arn in arns if arn not in self._stopped]
        for start in range(0, len(changing), 100):
            described = client.describe_tasks(cluster=cluster, tasks=changing[start : start + 100])["tasks"]
            for task in described:
                of_burst = of_definition(task["taskDefinitionArn"], BURST, DRIVEN)
                ran = None if of_burst else _read(task)
                if ran is None or ran.stopped:
                    self._stopped[task["taskArn"]] = ran
                else:
                    yield ran
        yield from (ran for arn in arns if (ran := self._stopped.get(arn)) is not None)

    def settings(self, airflow: AirflowHome, *, provider: bool) -> dict[str, str]:
        """Make what has to exist, and return the part of the environment that the executor needs."""
        subnets, groups = self.prepare(airflow.container_environment)
        for family in (BURST, DRIVEN):
            self._register(family, airflow.light_environment(reports=family == BURST))
        return airflow.executor(provider=provider, ecs_url=self.url, subnets=subnets, security_groups=groups)

    def driven(self) -> dict[str, str]:
        """Return what a driven executor needs besides: another task definition."""
        return {"AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": DRIVEN}

    def containers(self) -> list[Ran]:
        """Return every ECS task but those of bursts, in the order in which they were made."""
        return self.tasks()

    def take_host_away(self, container: str) -> None:
        """Let the host under an ECS task be reclaimed, as Spot does."""
        kill(self.url, "tasks", container)

    def take_capacity_back(self, container: str) -> None:
        """Let the capacity under an ECS task be reclaimed: its processes are asked to end."""
        interrupt(self.url, "tasks", container)

    def fill_cheap_capacity(self) -> None:
        """Answer as Fargate Spot does when it is full, to every request of one task."""
        fault = {"kind": "failures", "operation": "RunTask", "failures": [{"reason": FULL}], "count": None}
        add_fault(self.url, AVOIDS, '"FARGATE_SPOT"', **fault)

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
    if end == HOST_TAKEN and "exitCode" in container:
        end = INTERRUPTED
    provider = task.get("capacityProviderName") or task["launchType"]
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
        why=brief(reason) or (end if end in (EXITED, INTERRUPTED) else stop_code),
        where=Where(f"{task['taskArn'].split(':')[3]} {provider}", int(task["cpu"]) / 1024, int(task["memory"])),
    )


def _utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.astimezone(timezone.utc)
