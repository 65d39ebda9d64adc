"""The services that a storm can hit: the adapter's part of each, and the faults that it has."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from ecs_async_executor.core.backend import Backend, LaunchSpec, Service
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.destinations import HOME, sent_to
from ecs_async_executor.core.listening import EventQueue
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.local import AWS_RATES, Rate
from ecs_async_executor.local.account import DEFAULT_ACCOUNT
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.destinations import Destinations
from ecs_async_executor.services.events import SqsEvents
from ecs_async_executor.services.places import Places
from ecs_async_executor.settings import BatchSettings, EcsSettings, Tuning
from ecs_async_executor.settings.rules import AT_HOME, Destination
from tests.chaos.groups import GROUPS
from tests.chaos.regions import ABROAD, CHOICES, PROVIDERS, Course

TUNING = Tuning(
    poll_interval=0.5,
    launch_rate=100.0,
    launch_rate_max=300.0,
    launch_burst=50,
    describe_rate=200.0,
    missing_grace=30.0,
    connect_timeout=1.0,
    read_timeout=2.0,
    shutdown_timeout=8.0,
)


def _ecs_settings(region: str) -> EcsSettings:
    return EcsSettings(
        region_name=region,
        cluster="default",
        container_name="main",
        task_definition="airflow",
        launch_type="FARGATE",
        subnets=("subnet-1",),
    )


ECS_SETTINGS = _ecs_settings("us-east-1")
BATCH_SETTINGS = BatchSettings(
    region_name="us-east-1", job_name="airflow", job_queue="default", job_definition="airflow"
)


@dataclass(frozen=True)
class Cloud:
    """
    One service.

    :param spec: makes the request of a launch from a command, a placement and a choice
    :param choices: returns what a launch with a placement may choose from
    :param assigns: Airflow assigns an identity with the queueing, if its version does so
    :param launch: the operation that starts a container
    :param describe: the operation that describes containers
    :param every: a pattern for all operations that matter
    :param placed: text in the body of a request for a placement
    :param stuck: the status of a container without a place
    :param limits: the service's rate limits, larger but in its proportions, so a run takes minutes
    :param no_capacity: lacks of capacity, as faults of the operation that starts a container
    :param concurrent: the service refuses when too many containers are started at once
    :param groups: placements that are capacity providers with an Auto Scaling group each
    :param abroad: a second destination, which some of the workloads go to; its Region's name
    :param events: the service of which a queue is told; empty: there is no queue
    :param calm: nothing goes wrong but abroad
    :param failure_memories: what client tokens may remember of a request that started nothing
    """

    service: Service
    backend: Callable[[], Backend]
    spec: Callable[[Launch, list[str], str, str | None], LaunchSpec]
    assigns: bool
    launch: str
    describe: str
    every: str
    placed: str
    stuck: str
    limits: Mapping[str, Rate]
    no_capacity: tuple[dict[str, Any], ...]
    concurrent: bool
    groups: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failure_memories: tuple[str, ...] = ()
    choices: Callable[[str], Choices] = lambda _: NO_CHOICES
    abroad: str = ""
    events: str = ""
    calm: bool = False

    def behaviour(self, seed: int) -> dict[str, str]:
        """Return what the service does in a run where it can do it in more than one way."""
        memories = self.failure_memories
        return {"failure_memory": memories[seed % len(memories)]} if memories else {}

    def queues(self, endpoint: str) -> Mapping[str, EventQueue]:
        """Return the queue of events of home, if there is one."""
        if not self.events:
            return {}
        url = f"{endpoint}/{DEFAULT_ACCOUNT}/{self.events}-events"
        return {HOME: SqsEvents.from_settings(ECS_SETTINGS, TUNING, AT_HOME, url)}

    def identity(self, external_id: str | None) -> str | None:
        """Return the identity that Airflow assigned, None if the value is something else."""
        try:
            return str(uuid.UUID(external_id or "")) if self.assigns else None
        except ValueError:
            return None

    def handle_id(self, external_id: str | None) -> str | None:
        """Return the identifier of a container, None if the value is something else."""
        return external_id if external_id and self.identity(external_id) is None else None


def _ecs_spec(launch: Launch, command: list[str], placement: str, choice: str | None = None) -> LaunchSpec:
    placed: dict[str, Any] = {}
    if placement not in GROUPS:
        placed["overrides"] = {"cpu": placement, "memory": str(2 * int(placement))}
    provider = placement if placement in GROUPS else PROVIDERS.get(choice or "")
    if provider is not None:
        placed["capacityProviderStrategy"] = [{"capacityProvider": provider}]
    request = ecs.workload_request(ecs.base_request(ECS_SETTINGS), placed, None, "main", command)
    return ecs.launch_spec(request, started_by=launch.started_by, expires_at=time.time() + 600.0)


def _spec_somewhere(launch: Launch, command: list[str], placement: str, choice: str | None) -> LaunchSpec:
    course = Course.read(placement)
    spec = replace(_ecs_spec(launch, command, course.size, choice), choice=choice)
    return sent_to(ABROAD, spec) if course.abroad else spec


def _ecs_backend() -> Backend:
    return ecs.EcsBackend(ClientFactory.from_settings(ECS_SETTINGS, TUNING), ECS_SETTINGS)


def _two_backends() -> Backend:
    there = _ecs_settings(ABROAD)
    backends = {HOME: _ecs_backend(), ABROAD: ecs.EcsBackend(ClientFactory.from_settings(there, TUNING), there)}
    regions = {HOME: Destination(region_name=ECS_SETTINGS.region_name), ABROAD: Destination(region_name=ABROAD)}
    return Destinations(backends, Places(regions))


def _batch_spec(launch: Launch, command: list[str], placement: str, choice: str | None = None) -> LaunchSpec:
    placed = {"containerOverrides": {"resourceRequirements": [{"type": "MEMORY", "value": placement}]}}
    request = batch.workload_request(batch.base_request(BATCH_SETTINGS), placed, None, command)
    return batch.launch_spec(
        request, started_by=launch.started_by, launch_id=launch.launch_id, expires_at=time.time() + 600.0
    )


_ECS = Cloud(
    service=ecs.SERVICE,
    backend=_ecs_backend,
    spec=_ecs_spec,
    assigns=True,
    launch="RunTask",
    describe="DescribeTasks",
    every="*Task*",
    placed='"cpu": "{}"',
    stuck="PROVISIONING",
    limits={
        **AWS_RATES,
        "modify": Rate(400, 400),
        "read": Rate(300, 300),
        "FARGATE": Rate(150, 100),
        "EC2": Rate(150, 100),
    },
    no_capacity=(
        {"kind": "failures", "failures": ({"reason": "RESOURCE:MEMORY"},)},
        {"kind": "failures", "failures": ({"reason": "RESOURCE:CPU"},)},
        {"kind": "failures", "failures": ({"reason": "AGENT"},)},
        {"kind": "failures", "failures": ({"reason": "Capacity is unavailable at this time."},)},
        {
            "kind": "error",
            "code": "ClientException",
            "message": "You've reached the limit on the number of vCPUs you can run concurrently",
        },
    ),
    concurrent=True,
    groups=GROUPS,
    failure_memories=("forget", "conflict", "replay"),
)
_REGIONS = replace(
    _ECS,
    backend=_two_backends,
    spec=_spec_somewhere,
    choices=lambda placement: CHOICES if Course.read(placement).chooses else NO_CHOICES,
    groups={},
    abroad=ABROAD,
)

CLOUDS: Mapping[str, Cloud] = {
    "ecs": _ECS,
    "ecs-regions": _REGIONS,
    "ecs-events": replace(_ECS, events="ecs"),
    "ecs-regions-calm": replace(_REGIONS, calm=True),
    "batch": Cloud(
        service=batch.SERVICE,
        backend=lambda: batch.BatchBackend(ClientFactory.from_settings(BATCH_SETTINGS, TUNING), BATCH_SETTINGS),
        spec=_batch_spec,
        assigns=False,
        launch="SubmitJob",
        describe="DescribeJobs",
        every="*Job*",
        placed='"value": "{}"',
        stuck="RUNNABLE",
        limits={"batch": Rate(500, 400), "batch_read": Rate(300, 300), "batch_modify": Rate(400, 400)},
        no_capacity=({"kind": "stuck", "seconds": 5.0},),
        concurrent=False,
    ),
}
