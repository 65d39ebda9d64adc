"""The services that the contract is held against: the scripted cloud, and ECS and Batch as played locally."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar, Protocol
from unittest import mock

from ecs_async_executor.core import backend
from ecs_async_executor.core.backend import Backend, Handle, LaunchSpec
from ecs_async_executor.core.destinations import HOME, sent_to, within
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.local import Fault, LocalEcs, Rule
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.services.destinations import Destinations
from ecs_async_executor.services.places import Places
from ecs_async_executor.settings import BatchSettings, EcsSettings, Tuning
from ecs_async_executor.settings.rules import Destination
from tests.engine.cloud import FakeCloud, Plan

TUNING = Tuning(
    poll_interval=0.1, launch_rate=900.0, launch_rate_max=1000.0, launch_burst=100, describe_rate=100.0
)

SETTINGS = EcsSettings(
    region_name="us-east-1",
    cluster="default",
    container_name="main",
    task_definition="airflow",
    launch_type="FARGATE",
    subnets=("subnet-1",),
)


BATCH_SETTINGS = BatchSettings(
    region_name="us-east-1", job_name="airflow", job_queue="default", job_definition="airflow"
)


LIVES: Mapping[str, Plan] = {
    "quick": Plan(start_after=0.1, duration=0.2),
    "fails": Plan(start_after=0.1, duration=0.2, exit_code=3),
    "long": Plan(start_after=0.1, duration=600.0),
    "waits": Plan(start_after=600.0),
    "never-starts": Plan(start_after=0.2, starts=False),
    "host-lost": Plan(start_after=0.1, duration=0.2, exit_code=None),
    "lingers": Plan(start_after=0.1, duration=0.2, lingers=60.0),
}
"""What a workload's label says about how its containers go."""


class Service(Protocol):
    """A service under contract."""

    name: str
    facts: backend.Service
    default_scope: str

    def backend(self) -> Backend: ...

    def spec(
        self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first"
    ) -> LaunchSpec: ...

    def fail(self, operation: str, kind: Kind, *, times: int | None = None) -> None:
        """Let calls (``launch``, ``describe``, ``find``, ``stop``) fail; ``:after`` the work was done."""

    def containers(self, started_by: str | None = None) -> int:
        """How many containers were ever started."""

    async def stop_by_hand(self, backend: Any, handle: Handle) -> None:
        """Stop a container as a person does, with the service's own tools."""


class Fake:
    """The scripted cloud, in real time."""

    name = "fake"
    facts = backend.Service("fake", {}, 20.0, 40.0, 20.0)
    default_scope = "default"

    def __init__(self) -> None:
        self.cloud = FakeCloud(latency=0.005, plan=lambda label, nth: LIVES[label], fault=self._fault)
        self.faults: dict[str, tuple[Kind, Iterator[int] | None]] = {}
        self.struck: set[str] = set()

    def _fault(self, operation: str, cloud: FakeCloud) -> BackendError | None:
        kind, left = self.faults.get(operation, (None, None))
        if kind is None or (left is not None and next(left, None) is None):
            return None
        self.struck.add(operation)
        return BackendError(kind, "Fault", kind.value)

    def backend(self) -> Backend:
        return self.cloud

    def spec(self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first") -> LaunchSpec:
        return LaunchSpec({"label": life, "jwt": jwt}, "default", "main", "FARGATE", started_by)

    def fail(self, operation: str, kind: Kind, *, times: int | None = None) -> None:
        self.faults[operation] = (kind, None if times is None else iter(range(times)))

    def containers(self, started_by: str | None = None) -> int:
        return sum(started_by in (None, c.started_by) for c in self.cloud.containers.values())

    async def stop_by_hand(self, backend: Any, handle: Handle) -> None:
        self.cloud.containers[handle.id].stop_by_hand()


@dataclass
class Local:
    """A backend of ours against a local server, through aiobotocore and real sockets."""

    server: LocalEcs
    destinations: ClassVar[tuple[str, ...]] = ()
    default_scope: ClassVar[str] = "default"
    name: ClassVar[str]
    facts: ClassVar[backend.Service]
    operations: ClassVar[Mapping[str, str]]

    def backend(self) -> Backend:
        raise NotImplementedError

    def spec(self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first") -> LaunchSpec:
        """Make the request for a container that goes as its command says."""
        raise NotImplementedError

    async def stop_by_hand(self, backend: Any, handle: Handle) -> None:
        """Stop a container as a person does."""
        raise NotImplementedError

    def fault(self, operation: str, kind: str, **options: Any) -> None:
        """Let calls (``launch``, ``describe``, ``find``, ``stop``, ``*``) go wrong in one of the server's ways."""
        for name in self.operations if operation == "*" else [operation]:
            self.server.faults.add(Fault(operation=self.operations[name], kind=kind, **options))

    def fail(self, operation: str, kind: Kind, *, times: int | None = None) -> None:
        name, _, after = operation.partition(":")
        faults: dict[Kind, dict[str, Any]] = {
            Kind.THROTTLED: {"kind": "throttle"},
            Kind.AMBIGUOUS: {"kind": "reset_after" if after else "reset_before"},
            Kind.CAPACITY: {"kind": "failures", "failures": ({"reason": "RESOURCE:MEMORY"},)},
            Kind.CREDENTIALS: {"kind": "expired_token"},
            Kind.REFUSED: {"kind": "error", "code": "AccessDeniedException", "message": "not authorized"},
        }
        self.fault(name, count=times, **faults[kind])

    def containers(self, started_by: str | None = None) -> int:
        return sum(started_by is None or started_by in entry.started_by for entry in self.server.ledger.entries())


class LocalEcsService(Local):
    """ECS."""

    name = "ecs"
    facts = ecs.SERVICE
    operations: ClassVar = {
        "launch": "RunTask",
        "describe": "DescribeTasks",
        "search": "ListTasks",
        "stop": "StopTask",
    }

    def backend(self) -> Backend:
        return ecs.EcsBackend(ClientFactory.from_settings(SETTINGS, TUNING), SETTINGS)

    def spec(self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first") -> LaunchSpec:
        request = ecs.workload_request(ecs.base_request(SETTINGS), None, None, "main", [life, jwt])
        return ecs.launch_spec(request, started_by=started_by)

    async def stop_by_hand(self, backend: ecs.EcsBackend, handle: Handle) -> None:
        await backend._call("StopTask", cluster=handle.scope, task=handle.id, reason="not wanted")


class LocalBatchService(Local):
    """Batch."""

    name = "batch"
    facts = replace(batch.SERVICE, absent_grace=3.0)
    operations: ClassVar = {
        "launch": "SubmitJob",
        "describe": "DescribeJobs",
        "search": "ListJobs",
        "stop": "TerminateJob",
    }

    def backend(self) -> Backend:
        return batch.BatchBackend(ClientFactory.from_settings(BATCH_SETTINGS, TUNING), BATCH_SETTINGS)

    def spec(self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first") -> LaunchSpec:
        request = batch.workload_request(batch.base_request(BATCH_SETTINGS), None, None, [life, jwt])
        return batch.launch_spec(request, started_by=started_by, launch_id=launch_id)

    async def stop_by_hand(self, backend: batch.BatchBackend, handle: Handle) -> None:
        await backend._call("TerminateJob", jobId=handle.id, reason="not wanted")


class Broken:
    """A backend without usable credentials."""

    describe_batch = 100
    untried = ""

    def scope_of(self, handle_id: str | None) -> str:
        return "home"

    def scopes_of(self, handle_id: str) -> list[str]:
        return ["home"]

    def open(self) -> AbstractAsyncContextManager[None]:
        raise BackendError(Kind.CREDENTIALS, "NoCredentials", "there are none")

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(f"{name} of home was asked for")


class Elsewhere:
    """A local service as another destination, beside a home without credentials."""

    destinations = ("there",)
    default_scope = "there|default"

    def __init__(self, service: Local) -> None:
        self._service = service

    def __getattr__(self, name: str) -> Any:
        return getattr(self._service, name)

    def backend(self) -> Backend:
        backends: Any = {HOME: Broken(), "there": self._service.backend()}
        destinations = {HOME: Destination(region_name="eu-west-1"), "there": Destination(region_name="us-east-1")}
        return Destinations(backends, Places(destinations))

    def spec(self, life: str, *, started_by: str, launch_id: str | None = None, jwt: str = "first") -> LaunchSpec:
        there = self._service.spec(life, started_by=started_by, launch_id=launch_id, jwt=jwt)
        return sent_to("there", there)

    async def stop_by_hand(self, backend: Any, handle: Handle) -> None:
        there = Handle(within(handle.scope), handle.id)
        await self._service.stop_by_hand(backend._each["there"], there)


@contextmanager
def elsewhere(service: str) -> Iterator[Elsewhere]:
    """Serve a local service as another destination."""
    with local(service) as one:
        yield Elsewhere(one)


LOCAL: Mapping[str, type[Local]] = {"ecs": LocalEcsService, "batch": LocalBatchService}


def _rule(life: str, plan: Plan) -> Rule:
    never = None if plan.starts else "CannotPullContainerError: image not found"
    lost = plan.starts and plan.exit_code is None
    return Rule(
        command=rf"^{life}\b",
        pending=plan.start_after,
        starts=plan.starts,
        duration=plan.duration,
        exit_code=plan.exit_code,
        stopping=plan.lingers,
        stopped_reason="Host EC2 (instance i-0123) terminated." if lost else never,
        stop_code="TerminationNotice" if lost else None,
    )


@contextmanager
def local(service: str = "ecs", **options: Any) -> Iterator[Local]:
    """
    Serve a local ECS and Batch whose containers live as their label says.

    A test whose fault never struck has shown nothing: it fails, unless the fault is left to chance.
    """
    with LocalEcs(script=[_rule(*life) for life in LIVES.items()], **options) as server:
        server.register("airflow", "main", command=["quick"])
        with mock.patch.dict("os.environ", server.environment):
            yield LOCAL[service](server)
        idle = [one for one in server.faults.listing() if not one["struck"] and one["probability"] == 1.0]
        assert not idle, f"never struck: {idle}"


@contextmanager
def fake() -> Iterator[Fake]:
    """Play the scripted cloud; faults that never strike fail the test here too."""
    service = Fake()
    yield service
    idle = service.faults.keys() - service.struck
    assert not idle, f"never struck: {idle}"


SERVICES: Mapping[str, Callable[[], Any]] = {
    "fake": fake,
    **{name: partial(local, name) for name in LOCAL},
    **{f"{name} elsewhere": partial(elsewhere, name) for name in LOCAL},
}
