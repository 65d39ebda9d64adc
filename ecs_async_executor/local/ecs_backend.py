"""
moto's ECS backend, with AWS's rules for what tasks are made from: clusters, task definitions, client tokens.

May import moto and the modules below. The operations on tasks are in :mod:`ecs`.
"""

from __future__ import annotations

from typing import Any

from moto.ecs.exceptions import ClusterNotFoundException, EcsClientException
from moto.ecs.models import Cluster, EC2ContainerServiceBackend, TaskDefinition

from ecs_async_executor.local.ecs_tasks import Task
from ecs_async_executor.local.ecs_tokens import Tokens
from ecs_async_executor.local.errors import AwsError, name_of
from ecs_async_executor.local.place import Place
from ecs_async_executor.local.sizes import Size, amount, check_task, container_size


class LocalBackend(EC2ContainerServiceBackend):
    """moto's ECS of one account and region, with tasks that `Ecs` looks after."""

    def __init__(self, region_name: str, account_id: str) -> None:
        super().__init__(region_name, account_id)
        self.tasks: dict[str, dict[str, Task]] = {}  # type: ignore[assignment]
        self.by_id: dict[str, Task] = {}
        self.by_mark: dict[str, dict[str, Task]] = {}
        self.tokens = Tokens()
        self.place = Place(account_id, region_name)

    def find_cluster(self, reference: str | None) -> Cluster:
        """
        Look a cluster up by name or ARN.

        :raises AwsError: if there is none, or it was deleted
        """
        cluster = self.clusters.get(name_of(reference or "default"))
        if cluster is None or cluster.status == "INACTIVE":
            raise AwsError("ClusterNotFoundException", "Cluster not found.")
        return cluster

    def find_definition(self, reference: str) -> TaskDefinition:
        """
        Look a task definition up by family, ``family:revision`` or ARN.

        :raises AwsError: if there is none, or it was deregistered
        """
        family, _, revision = name_of(reference).partition(":")
        revisions = self.task_definitions.get(family) or {}
        if revision:
            found = revisions.get(int(revision)) if revision.isdecimal() else None
        else:
            active = [r for r, d in list(revisions.items()) if d.status == "ACTIVE"]
            found = revisions[max(active)] if active else None
        if found is None:
            raise AwsError("ClientException", "TaskDefinition not found.")
        if found.status != "ACTIVE":
            raise AwsError("ClientException", "TaskDefinition is inactive")
        return found

    def add(self, task: Task) -> None:
        """Hold a task."""
        self.by_id[task.id] = task
        self.tasks.setdefault(task.cluster_name, {})[task.task_arn] = task
        if task.job.started_by:
            self.by_mark.setdefault(task.job.started_by, {})[task.id] = task

    def forget(self, task: Task) -> None:
        """Drop a task, and the token that made it."""
        self.by_id.pop(task.id, None)
        self.tasks.get(task.cluster_name, {}).pop(task.task_arn, None)
        marked = self.by_mark.get(task.job.started_by)
        if marked is not None:
            marked.pop(task.id, None)
            if not marked:
                del self.by_mark[task.job.started_by]
        self.tokens.forget(task)

    def register_task_definition(
        self, family: str, container_definitions: list[dict[str, Any]], *args: Any, **kwargs: Any
    ) -> TaskDefinition:
        """
        Register a task definition.

        :raises AwsError: if it is to run on Fargate, and Fargate does not have its size
        """
        disk = kwargs.get("ephemeral_storage") or {}
        size = Size(
            cpu=amount(kwargs.get("cpu")),
            memory=amount(kwargs.get("memory")),
            disk=int(disk.get("sizeInGiB") or 0),
        )
        sizes = {str(one.get("name")): container_size(one) for one in container_definitions}
        fargate = "FARGATE" in (kwargs.get("requires_compatibilities") or ())
        try:
            check_task(size, sizes, fargate=fargate, code="ClientException")
        except AwsError as error:
            raise EcsClientException(error.message) from error
        return super().register_task_definition(family, container_definitions, *args, **kwargs)

    def create_cluster(self, cluster_name: str, *args: Any, **kwargs: Any) -> Cluster:
        """Create a cluster; one that exists is left as it is."""
        existing = self.clusters.get(cluster_name)
        if existing is not None and existing.status == "ACTIVE":
            return existing
        return super().create_cluster(cluster_name, *args, **kwargs)

    def describe_clusters(self, cluster_names: list[str]) -> Any:
        """Describe clusters with the number of tasks that they have now."""
        for name in cluster_names or ["default"]:
            cluster = self.clusters.get(name_of(name))
            if cluster is not None:
                cluster.running_tasks_count, cluster.pending_tasks_count = self._count(cluster.name)
        return super().describe_clusters(cluster_names)

    def _count(self, cluster: str) -> tuple[int, int]:
        raise NotImplementedError

    def _get_resource(self, resource_arn: str, parsed_arn: dict[str, str]) -> Any:
        if parsed_arn["service"] != "task":
            return super()._get_resource(resource_arn, parsed_arn)
        task = self.by_id.get(name_of(resource_arn))
        if task is None:
            raise ClusterNotFoundException
        task.retagged()
        return task

    def reset(self) -> None:
        """Forget everything; tasks that run are stopped by whoever resets the server."""
        LocalBackend.__init__(self, self.region_name, self.account_id)


# moto finds a backend's URLs through the module that its class claims to come from.
LocalBackend.__module__ = EC2ContainerServiceBackend.__module__
