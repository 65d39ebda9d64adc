"""
Where RunTask puts a task, and what it says when there is no room.

May import moto's types and the modules below. Container instances have a size and may refuse whatever comes;
how much of them is used is not counted: that is what ``capacity`` is for. Of placement constraints they know
``attribute:name == value``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from moto.ecs.models import Cluster, ContainerInstance

from ecs_async_executor.local import ecs_rules as rules
from ecs_async_executor.local.ecs_backend import LocalBackend
from ecs_async_executor.local.known_faults import FARGATE_FULL
from ecs_async_executor.local.sizes import Size

FULL = "RESOURCE:MEMORY"
NOT_A_MEMBER = "MemberOf constraint unsatisfied."
_EQUALS = re.compile(r"attribute:([\w.-]+) *== *([\w.-]+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """
    A container instance of a cluster.

    :param cpu: in CPU units
    :param memory: in MiB
    :param gpu: how many GPUs
    :param refuses: the reason that it gives for every task (``ATTRIBUTE``, ``AGENT``); None: it takes tasks
    """

    cpu: int = 4096
    memory: int = 7482
    gpu: int = 0
    refuses: str | None = None


class LocalInstance(ContainerInstance):
    """moto's container instance, without an EC2 instance of moto's and with a size that counts."""

    def __init__(self, instance: Instance, number: int, cluster: str, backend: LocalBackend) -> None:
        # moto's own would look the EC2 instance up; what it sets is set here.
        self._backend, self._account_id = backend, backend.account_id
        self.region_name, self.cluster_name = backend.region_name, cluster
        self.id = f"{number:032x}"
        self.ec2_instance_id = f"i-{number:017x}"
        self.agent_connected, self.status = True, "ACTIVE"
        self.registered_resources = [
            _resource("CPU", instance.cpu),
            _resource("MEMORY", instance.memory),
            _resource("GPU", instance.gpu),
        ]
        self.remaining_resources = [dict(resource) for resource in self.registered_resources]
        self.pending_tasks_count = self.running_tasks_count = 0
        self.version_info = {"agentVersion": "1.0.0", "agentHash": "0", "dockerVersion": "DockerVersion: 25.0.0"}
        self.attributes = {"ecs.os-type": "linux"}
        self.registered_at = datetime.now(timezone.utc)
        self._refuses = instance.refuses


LocalInstance.__module__ = ContainerInstance.__module__


def add_instance(backend: LocalBackend, cluster: str, instance: Instance) -> str:
    """Register a container instance and return its ARN."""
    known = backend.container_instances.setdefault(cluster, {})
    added = LocalInstance(instance, len(known) + 1, cluster, backend)
    known[added.id] = added
    backend.find_cluster(cluster).registered_container_instances_count += 1
    return str(added.container_instance_arn)


def placement(params: Mapping[str, Any], cluster: Cluster | None) -> tuple[str, str | None]:
    """Decide launch type and capacity provider as AWS does: the request, the cluster's default, then EC2."""
    launch_type = params.get("launchType")
    if launch_type:
        return launch_type, None
    default = cluster.default_capacity_provider_strategy if cluster is not None else None
    strategy = params.get("capacityProviderStrategy") or default
    if not strategy:
        return "EC2", None
    provider: str = strategy[0]["capacityProvider"]
    return "FARGATE" if provider in rules.FARGATE_PROVIDERS else "EC2", provider


def check_association(params: Mapping[str, Any], cluster: Cluster) -> None:
    """
    Check that the cluster has the capacity providers of a RunTask.

    :raises AwsError: if it lacks one
    """
    known = cluster.capacity_providers or ()
    if any(item["capacityProvider"] not in known for item in params.get("capacityProviderStrategy") or ()):
        raise rules.invalid(rules.NOT_ASSOCIATED)


def check_instances(backend: LocalBackend, cluster: Cluster) -> None:
    """
    Check that a cluster has a container instance.

    :raises AwsError: if it has none
    """
    if not backend.container_instances.get(cluster.name):
        raise rules.invalid(rules.NO_INSTANCES)


def obstacles(
    backend: LocalBackend, cluster: Cluster, params: Mapping[str, Any], size: Size
) -> list[dict[str, Any]]:
    """
    Return why no registered container instance takes a task, an entry for each.

    Nothing if one takes it, or if none is registered.
    """
    found = []
    for instance in _instances(backend, cluster):
        reason = _obstacle(instance, size, params.get("placementConstraints") or ())
        if reason is None:
            return []
        found.append({"arn": instance.container_instance_arn, "reason": reason})
    return found


def no_room(backend: LocalBackend, cluster: Cluster, launch_type: str) -> list[dict[str, Any]]:
    """Return the ``failures`` of a task that finds everything full: one entry for each container instance."""
    if launch_type == "FARGATE":
        return [{"reason": FARGATE_FULL}]
    instances = _instances(backend, cluster)
    if not instances:
        return [{"arn": instance_arn(backend, cluster), "reason": FULL}]
    return [{"arn": i.container_instance_arn, "reason": _obstacle(i, Size()) or FULL} for i in instances]


def instance_arn(backend: LocalBackend, cluster: Cluster) -> str:
    """Return the ARN of a container instance that takes tasks, of an invented one if none is registered."""
    for instance in _instances(backend, cluster):
        if _obstacle(instance, Size()) is None:
            return str(instance.container_instance_arn)
    return f"{cluster.arn.replace(':cluster/', ':container-instance/', 1)}/{'0' * 31}1"


def _instances(backend: LocalBackend, cluster: Cluster) -> Sequence[ContainerInstance]:
    return list((backend.container_instances.get(cluster.name) or {}).values())


def _obstacle(
    instance: ContainerInstance, size: Size, constraints: Sequence[Mapping[str, str]] = ()
) -> str | None:
    """Return why a task of this size finds no place on an instance, None if it does."""
    for constraint in constraints:
        wanted = _EQUALS.fullmatch(constraint.get("expression") or "")
        if wanted is not None and instance.attributes.get(wanted[1]) != wanted[2]:
            return NOT_A_MEMBER
    refuses: str | None = getattr(instance, "_refuses", None)
    if refuses is not None:
        return refuses
    sizes = {r["name"]: r["integerValue"] for r in instance.registered_resources}
    wanted_of = {"CPU": size.cpu, "MEMORY": size.memory, "GPU": size.gpu}
    return next((f"RESOURCE:{name}" for name, wanted in wanted_of.items() if wanted > sizes[name]), None)


def _resource(name: str, value: int) -> dict[str, Any]:
    return {"name": name, "type": "INTEGER", "integerValue": value, "doubleValue": 0.0, "longValue": 0}
