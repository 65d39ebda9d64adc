"""
ECS as the engine's backend: one class over the client.

Imports ``core``, the settings, the rest of this folder, and ``calls``, ``parsing`` and ``requests`` of the folder
above.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anyio

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Paced, Service, Trial, unpaced
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.ecs.delivery import with_file
from ecs_async_executor.services.ecs.files import WorkloadFiles, before_launch
from ecs_async_executor.services.ecs.replies import DECODERS, launched, missing, observation, sized
from ecs_async_executor.services.ecs.requests import FARGATE_PROVIDERS, cluster_of, providers_in
from ecs_async_executor.services.ecs.sizes import size_refusal
from ecs_async_executor.services.ecs.stopped import StoppedTasks
from ecs_async_executor.services.parsing import UNREADABLE, UnreadableRecords
from ecs_async_executor.services.requests import NO_SUCH_ID, stop_reason, tag_refusal
from ecs_async_executor.settings import EcsSettings

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

SERVICE: Final = Service(
    name="ECS",
    launch_rates={"FARGATE": 20.0, "EC2": 40.0, "EXTERNAL": 40.0},
    launch_rate=20.0,
    change_rate=40.0,
    change_burst=20.0,
    stop_permission="ecs:StopTask",
)
"""
AWS's default quotas, per account and Region; all of them can be raised.

From the Amazon ECS API Reference ("Request throttling for the Amazon ECS API") and AWS Fargate's throttling
quotas: RunTask on Fargate 20/s, On-Demand and Spot together (apart are only the rates of tasks); modifying calls
(RunTask, StopTask and others) 40/s together, burst 100, of which we take a fifth: other clients of the account
need some too.
"""

OPERATIONS: Final = {
    "DescribeClusters": Operation("describe_clusters", frozenset({"clusters", "failures"})),
    "DescribeTasks": Operation("describe_tasks", frozenset({"tasks", "failures"})),
    "ListTasks": Operation("list_tasks", frozenset({"taskArns"})),
    "RunTask": Operation("run_task"),
    "StopTask": Operation("stop_task"),
}
_WHY_CLUSTERS: Final = (
    "(DescribeClusters is needed because neither launch_type nor capacity_provider_strategy is set)"
)
_UNHEALTHY: Final = (
    "ECS Executor health check has failed {}. "
    "The ECS executor will not be able to run Airflow tasks until the issue is addressed."
)
"""The provider's words."""


class EcsBackend:
    """
    ECS as a :class:`~ecs_async_executor.core.backend.Backend`. A scope is a cluster.

    :param clients: makes the client
    :param settings: names the container that decides, and the cluster to check
    :param files: the workloads, where they are handed over in environment files
    """

    describe_batch = 100
    """The most ARNs that DescribeTasks takes, and the most that ListTasks returns."""

    _defaults_lock: anyio.Lock  # made by open(): it belongs to the loop

    def __init__(self, clients: ClientFactory, settings: EcsSettings, files: WorkloadFiles | None = None) -> None:
        self._call = Calls(clients, "ecs", operations=OPERATIONS, decoders=DECODERS, lean=True)
        self._settings = settings
        self._files = files
        self._defaults: dict[str, tuple[str, ...]] = {}
        self._stopped: dict[str, StoppedTasks] = {}
        self._unreadable = UnreadableRecords(SERVICE.event("describe.malformed"), "arn", "taskArn", "arn")

    def scope_of(self, handle_id: str | None) -> str:
        """Return the cluster of a task, or, for None, the one that tasks go to by default."""
        return cluster_of(handle_id, self._settings.cluster)

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        """Return the one cluster that a task can be in."""
        return [self.scope_of(handle_id)]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a client open, and one of S3 if workloads go there; they belong to the running loop."""
        async with self._call.open(), nullcontext() if self._files is None else self._files.open():
            self._defaults_lock = anyio.Lock()
            self._stopped = {}
            yield

    # --- launching

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        """
        Start one task.

        :param token: the client token
        """
        request = spec.request
        if not request.get("launchType") and not request.get("capacityProviderStrategy"):
            request = await self._with_capacity(request, spec.scope)
        files = self._files
        if files is not None and spec.handed_over is not None:
            # Before each request, the repeated ones too: it leads to the same object, with a JWT that is valid.
            arn = await files.put(client_token, spec.handed_over, spec.expires_at)
            request = with_file(request, self._settings.container_name, arn)
        request = {**request, "clientToken": client_token}
        try:
            if not spec.checked:
                self._call.check("RunTask", request)
            reply = await self._call("RunTask", **request)
        except BackendError as error:
            said = size_refusal(error, request)
            raise tag_refusal(said, request.get("tags"), "ecs:TagResource") from None
        container_name = self._settings.container_name
        observation = launched(reply, container_name, spec.scope)
        if files is not None and spec.handed_over is not None:
            files.launched(client_token, observation.handle.id)
        return sized([observation], reply, container_name)[0]

    async def _with_capacity(self, request: Mapping[str, Any], scope: str) -> dict[str, Any]:
        """Leave the choice to the cluster's default strategy; without one, take Fargate, as the provider does."""
        providers = await self._default_providers(scope)
        if not providers:
            return {**request, "launchType": "FARGATE"}
        if FARGATE_PROVIDERS.issuperset(providers):
            return dict(request)
        return {key: value for key, value in request.items() if key != "platformVersion"}

    async def _default_providers(self, scope: str) -> tuple[str, ...]:
        """Return a cluster's default capacity providers, asked for once: a repeated request has to be the same."""
        async with self._defaults_lock:
            if scope in self._defaults:
                return self._defaults[scope]
            try:
                reply = await self._call("DescribeClusters", clusters=[scope])
            except BackendError as error:
                raise before_launch(error, _WHY_CLUSTERS) from None
            clusters = reply.get("clusters") or []
            if not clusters:
                raise BackendError(
                    Kind.REFUSED,
                    "ClusterNotFoundException",
                    f"cluster {scope!r} was not found in region {self._call.region_name}",
                )
            strategy = {"capacityProviderStrategy": clusters[0].get("defaultCapacityProviderStrategy")}
            self._defaults[scope] = providers_in(strategy)
            return self._defaults[scope]

    # --- polling

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Return what ECS says about tasks.

        A record that cannot be read is left out, and logged once: it says nothing about its task, not even that it
        is PENDING or MISSING.
        """
        reply = await self._call("DescribeTasks", cluster=scope, tasks=list(ids))
        asked = {_short(one): one for one in ids}
        found: list[Observation] = []
        for task in reply.get("tasks") or ():
            try:
                found.append(observation(task, self._settings.container_name, scope))
            except UNREADABLE as error:  # noqa: PERF203
                self._unreadable.log(task, error, record="task")
        for failure in reply.get("failures") or ():
            try:
                found.append(missing(scope, asked[_short(failure["arn"])], failure))
            except UNREADABLE as error:  # noqa: PERF203
                self._unreadable.log(failure, error, record="failure")
        if self._files is not None:
            self._files.described(found, reply, self._settings.container_name)
        return sized(found, reply, self._settings.container_name)

    # --- searching

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        """
        List the tasks that carry a mark, those stopped in the last hour included.

        ECS filters running tasks by mark; of the stopped ones all are read. In this order: a task that stops in
        between is then in the second list.

        :param paced: awaited before each request but the first; of those who share a sweep, its first pays
        """
        running = await self._list(scope, paced, startedBy=started_by)
        if scope not in self._stopped:
            self._stopped[scope] = StoppedTasks(
                self._call, scope, batch=self.describe_batch, unreadable=self._unreadable
            )
        stopped = await self._stopped[scope].marks(paced)
        arns = dict.fromkeys([*running, *(arn for arn, mark in stopped.items() if mark == started_by)])
        return [Handle(scope, arn) for arn in arns]

    async def _list(self, scope: str, paced: Paced = unpaced, **filters: str) -> list[str]:
        return await self._call.pages("ListTasks", "taskArns", paced=paced, cluster=scope, **filters)

    # --- stopping and checking

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask ECS to stop a task."""
        await self._call("StopTask", cluster=handle.scope, task=handle.id, reason=stop_reason(reason))

    async def check(self) -> None:
        """
        Stop a task that cannot exist, as the provider's health check does.

        "The referenced task was not found" shows that the cluster exists and that the credentials permit StopTask.

        :raises BackendError: if ECS answers anything else, in the provider's words
        """
        try:
            stopped = await self._stops_nothing(self._settings.cluster)
        except BackendError as error:
            why = (error.message or error.code).rstrip(".")
            raise BackendError(
                error.kind, error.code, _UNHEALTHY.format(f"because: {why}"), unavailable=error.unavailable
            ) from None
        if stopped:
            raise BackendError(Kind.REFUSED, "Unknown", _UNHEALTHY.format("for an unknown reason"))

    async def _stops_nothing(self, cluster: str) -> bool:
        """Return whether ECS has stopped a task that cannot exist."""
        try:
            await self._call("StopTask", cluster=cluster, task=NO_SUCH_ID)
        except BackendError as error:
            if error.kind is Kind.NOT_FOUND:
                return False
            raise
        return True

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:
        """Return the requests of polling, searching and stopping, in the clusters of the settings and launches."""
        settings, trials = self._settings, []
        chosen = {"launchType", "capacityProviderStrategy"}
        by_default = {spec.scope for spec in specs if not chosen & spec.request.keys()}
        if not settings.launch_type and not settings.capacity_provider_strategy:
            by_default.add(settings.cluster)
        for cluster in dict.fromkeys([settings.cluster, *(spec.scope for spec in specs)]):
            asked = {"cluster": cluster, "tasks": [NO_SUCH_ID]}
            trials += [
                Trial(f"StopTask, cluster {cluster!r}", partial(self._stops_nothing, cluster)),
                Trial(f"DescribeTasks, cluster {cluster!r}", partial(self._call, "DescribeTasks", **asked)),
                Trial(f"ListTasks, cluster {cluster!r}", partial(self._list, cluster, startedBy=NO_SUCH_ID)),
            ]
            if cluster in by_default:
                describe = partial(self._default_providers, cluster)
                trials.append(Trial(f"DescribeClusters, cluster {cluster!r}", describe))
        if (files := self._files) is not None:
            bucket = f"bucket {files.bucket.name!r}"
            trials.append(Trial(f"PutObject, {bucket}", files.try_to_write))
            trials.append(Trial(f"DeleteObject, {bucket}", files.try_to_delete))
        return trials

    @property
    def untried(self) -> str:
        """The requests that would start a task, as the end of a sentence."""
        return (
            "RunTask, because it would start a task. check --launch starts one, and shows whether ECS accepts the "
            "task definition, and whether the credentials permit RunTask and passing its roles"
        )


def _short(arn: str) -> str:
    return arn.rpartition("/")[2]
