"""Where the checks go, and with what parameters. Imports nothing of this package."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

IMAGE = "public.ecr.aws/docker/library/busybox:stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """
    A service, and what its containers are started with.

    :param endpoint: None for AWS
    :param task_definition: an existing one, whose image has ``sh``; None to register one without roles or logs
    :param container: the name of its container
    :param image: of the task definition that is registered
    :param ec2_cluster: a cluster with at least one container instance; None to skip what needs one
    :param job_queue: None to skip Batch
    :param job_definition: an existing one, whose image has ``sh``
    :param interval: seconds between two looks at a container
    :param work: seconds that a container works
    :param patience: seconds that a container may take to start, and again to stop
    """

    endpoint: str | None
    region: str
    cluster: str = "default"
    subnets: tuple[str, ...] = ("subnet-1",)
    security_groups: tuple[str, ...] = ()
    assign_public_ip: bool = False
    launch_type: str = "FARGATE"
    capacity_provider: str | None = None
    task_definition: str | None = None
    container: str = "main"
    image: str = IMAGE
    ec2_cluster: str | None = None
    job_queue: str | None = None
    job_definition: str | None = None
    interval: float = 1.0
    work: int = 5
    patience: float = 600.0

    def has(self, needed: str | None) -> bool:
        """Return whether what a check needs is there."""
        if needed == "ec2":
            return self.ec2_cluster is not None
        if needed == "batch":
            return self.job_queue is not None and self.job_definition is not None
        return True

    def placement(self) -> dict[str, Any]:
        """Return the parameters of RunTask that say where."""
        network: dict[str, Any] = {"subnets": list(self.subnets)}
        if self.security_groups:
            network["securityGroups"] = list(self.security_groups)
        if self.assign_public_ip:
            network["assignPublicIp"] = "ENABLED"
        where: dict[str, Any] = {"networkConfiguration": {"awsvpcConfiguration": network}}
        if self.capacity_provider:
            return {"capacityProviderStrategy": [{"capacityProvider": self.capacity_provider}], **where}
        return {"launchType": self.launch_type, **where}

    def fargate(self) -> bool:
        """Return whether containers run on Fargate."""
        return (self.capacity_provider or self.launch_type).startswith("FARGATE")
