"""
How the ECS API shows a task: a :class:`Task` and its JSON, cached until something visible changes.

May import :mod:`life`, :mod:`runners` and :mod:`sizes`. With ``realistic`` the record has every member that a
Fargate task has on AWS (about 3.5 KB of JSON), otherwise those that clients decide by.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.runners import NOT_STARTED
from ecs_async_executor.local.sizes import DISK, Size


@dataclass(slots=True, eq=False)
class Task:
    """
    A task of ECS: the request's side of it, and its life.

    :param sequence: orders the tasks of a server by creation
    :param size: of the task; what nobody says is what its containers take together
    :param amounts: the size of each container, as DescribeTasks shows it
    :param images: the image of each container
    :param visible_at: before that it is MISSING
    :param listed_at: before that it is not listed
    """

    job: Job
    life: Life
    sequence: int
    task_arn: str
    cluster_arn: str
    cluster_name: str
    definition_arn: str
    family: str
    group: str
    launch_type: str
    capacity_provider: str | None
    platform_version: str | None
    size: Size
    amounts: dict[str, dict[str, str]]
    subnet: str | None
    overrides: dict[str, Any]
    images: dict[str, str]
    tags: list[dict[str, str]]
    token: str = ""
    instance_arn: str | None = None
    realistic: bool = True
    visible_at: float = 0.0
    listed_at: float = 0.0
    _cache: dict[bool, str] = field(default_factory=dict)
    _valid: tuple[float, float, int] = (0.0, 0.0, -1)

    @property
    def id(self) -> str:
        """The last part of the ARN."""
        return self.job.id

    def to_json(self, now: float, *, tags: bool = False) -> str:
        """Show it as DescribeTasks does at this time."""
        since, until, changes = self._valid
        if not (changes == self.life.changes and since <= now < until):
            self._cache.clear()
            self._valid = (now, self.life.next_change(now), self.life.changes)
        text = self._cache.get(tags)
        if text is None:
            record = self.record(now)
            record["tags"] = self.tags if tags else []
            text = self._cache[tags] = json.dumps(record, separators=(",", ":"))
        return text

    def retagged(self) -> None:
        """Note that the tags were changed."""
        self._cache.clear()

    def state(self, now: float) -> object:
        """Return what EventBridge is told of when it changes: the states of the task and of its containers."""
        exits = self.life.exits
        ended = tuple(name for name, one in exits.items() if one.at <= now) if exits else ()
        return self.life.status(now), ended

    def desired_status(self, now: float) -> str:
        """Give RUNNING, or STOPPED once its end is decided."""
        return "STOPPED" if self.life.doomed(now) else "RUNNING"

    def brief(self, now: float) -> dict[str, Any]:
        """Show what AWS shows of a stopped task to a request that repeats its token."""
        return {
            "taskArn": self.task_arn,
            "lastStatus": self.life.status(now),
            "desiredStatus": self.desired_status(now),
        }

    def record(self, now: float) -> dict[str, Any]:
        """Show it as a dictionary, less its tags."""
        life, job = self.life, self.job
        status = life.status(now)
        record: dict[str, Any] = {
            "clusterArn": self.cluster_arn,
            "cpu": str(self.size.cpu or self._together("cpu")),
            "memory": str(self.size.memory or self._together("memory", "memoryReservation")),
            "containers": [self._container(i, now) for i in range(len(job.containers))] if self._has(now) else [],
            "createdAt": life.created_at,
            "desiredStatus": self.desired_status(now),
            "group": self.group,
            "lastStatus": status,
            "launchType": self.launch_type,
            "overrides": self.overrides,
            "taskArn": self.task_arn,
            "taskDefinitionArn": self.definition_arn,
            "version": 1 + life.changes + _passed(life, now),
        }
        if self.launch_type == "FARGATE":
            disk = {"sizeInGiB": self.size.disk or DISK}
            record |= {"ephemeralStorage": disk, "fargateEphemeralStorage": disk}
        if self.capacity_provider:
            record["capacityProviderName"] = self.capacity_provider
        if self.instance_arn:
            record["containerInstanceArn"] = self.instance_arn
        if job.started_by:
            record["startedBy"] = job.started_by
        moments = {
            "startedAt": life.started_at,
            "stoppingAt": life.stopping_at,
            "executionStoppedAt": life.ended_at if life.started(now) else None,
            "stoppedAt": life.stopped_at,
        }
        record |= {key: at for key, at in moments.items() if at is not None and at <= now}
        if life.doomed(now):
            if life.stop_code:
                record["stopCode"] = life.stop_code
            record["stoppedReason"] = life.stopped_reason or ""
        if self.realistic:
            self._decorate(record, status, now)
        return record

    def _together(self, *names: str) -> int:
        """Return what the containers take together of the first of these amounts that each has."""
        return sum(next((int(one[name]) for name in names if name in one), 0) for one in self.amounts.values())

    def _has(self, now: float) -> bool:
        """Return whether it has containers: what never found a place, and has stopped for it, shows none."""
        life = self.life
        return life.provisioned_at is not None or life.stop_code != NOT_STARTED or not life.ended(now)

    def _container(self, index: int, now: float) -> dict[str, Any]:
        container = self.job.containers[index]
        exited = self.life.exits.get(container.name)
        gone = exited is not None and exited.at <= now
        stopped = gone or self.life.ended(now)
        base, _, _ = self.task_arn.rpartition("/")
        record: dict[str, Any] = {
            "containerArn": f"{base.replace(':task/', ':container/', 1)}/{self.id}/{_hex(self.id, index, 32)}",
            "taskArn": self.task_arn,
            "name": container.name,
            "image": self.images.get(container.name, ""),
            "lastStatus": "STOPPED" if stopped else "RUNNING" if self.life.started(now) else "PENDING",
            **self.amounts.get(container.name, {}),
        }
        if gone and exited is not None:
            if exited.code is not None:
                record["exitCode"] = exited.code
            if exited.reason:
                record["reason"] = exited.reason
        if self.realistic:
            record |= {
                "networkBindings": [],
                "networkInterfaces": [{"attachmentId": _uuid(self.id, 0), "privateIpv4Address": self._address()}]
                if self.subnet
                else [],
                "healthStatus": "UNKNOWN",
                "managedAgents": [],
            }
            if self.life.started(now):
                record["runtimeId"] = f"{self.id}-{int(_hex(self.id, index, 8), 16)}"
                record["imageDigest"] = f"sha256:{_hex(record['image'], 0, 64)}"
        return record

    def _decorate(self, record: dict[str, Any], status: str, now: float) -> None:
        life = self.life
        fargate = self.launch_type == "FARGATE"
        region = self.task_arn.split(":")[3]
        record |= {
            "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
            "attachments": [self._attachment(status, region)] if self.subnet else [],
            "availabilityZone": f"{region}{'abc'[int(_hex(self.id, 7, 2), 16) % 3]}",
            "enableExecuteCommand": False,
            "healthStatus": "UNKNOWN",
            "inferenceAccelerators": [],
        }
        if fargate:
            record |= {
                "platformFamily": "Linux",
                "platformVersion": self.platform_version
                if self.platform_version and self.platform_version != "LATEST"
                else "1.4.0",
            }
        if life.provisioned_at is not None and life.provisioned_at <= now:
            record |= {"connectivity": "CONNECTED", "connectivityAt": life.provisioned_at}
        if life.started(now) and life.provisioned_at is not None:
            record |= {"pullStartedAt": life.provisioned_at, "pullStoppedAt": life.started_at}

    def _attachment(self, status: str, region: str) -> dict[str, Any]:
        details = {
            "subnetId": self.subnet or "",
            "networkInterfaceId": f"eni-{_hex(self.id, 1, 17)}",
            "macAddress": ":".join(_hex(self.id, 2, 12)[i : i + 2] for i in range(0, 12, 2)),
            "privateDnsName": f"ip-{self._address().replace('.', '-')}.{region}.compute.internal",
            "privateIPv4Address": self._address(),
        }
        states = {"PROVISIONING": "PRECREATED", "STOPPED": "DELETED"}
        return {
            "id": _uuid(self.id, 0),
            "type": "ElasticNetworkInterface",
            "status": states.get(status, "ATTACHED"),
            "details": [{"name": name, "value": value} for name, value in details.items()],
        }

    def _address(self) -> str:
        number = int(_hex(self.id, 3, 6), 16)
        return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _hex(text: str, salt: int, length: int) -> str:
    return hashlib.sha256(f"{text}:{salt}".encode()).hexdigest()[:length]


def _uuid(text: str, salt: int) -> str:
    digits = _hex(text, salt, 32)
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


def _passed(life: Life, now: float) -> int:
    moments = (life.provisioned_at, life.started_at, life.stopping_at, life.ended_at, life.stopped_at)
    return sum(1 for moment in moments if moment is not None and moment <= now)
