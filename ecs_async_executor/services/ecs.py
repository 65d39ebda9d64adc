"""
Amazon ECS: build requests and parse replies (pure functions), then a thin class over the client.

May import the rest of ``services``, ``settings`` and ``core``. No Airflow.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypedDict

import anyio
import structlog

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen, Service, Trial
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services.aws import bounded
from ecs_async_executor.services.aws import wrong_parameters as _wrong_parameters
from ecs_async_executor.services.wire import (
    Calls,
    decoder_of,
    in_one_line,
    is_of_an_executor,
    kind_of,
    merge,
    parameters_of,
    put_command,
    sealed,
    stop_reason,
    text,
)
from ecs_async_executor.settings import EcsSettings, Tuning

if TYPE_CHECKING:
    from ecs_async_executor.services.aws import ClientFactory

SERVICE: Final = Service(
    name="ECS",
    launch_rates={"FARGATE": 20.0, "FARGATE_SPOT": 20.0, "EC2": 40.0, "EXTERNAL": 40.0},
    launch_rate=20.0,
    change_rate=40.0,
    change_burst=20.0,
    stop_permission="ecs:StopTask",
)
"""
AWS's default quotas, per account and Region; all of them can be raised.

From the Amazon ECS API Reference ("Request throttling for the Amazon ECS API") and AWS Fargate's throttling
quotas: RunTask on Fargate 20/s, On-Demand and Spot apart; modifying calls (RunTask, StopTask and others) 40/s
together, burst 100, of which a client that is not alone had better not take all.
"""
DEFAULT_CLUSTER: Final = "default"

_STARTED_BY = re.compile(r"[A-Za-z0-9_/-]{1,128}")
_FARGATE_PROVIDERS: Final = frozenset({"FARGATE", "FARGATE_SPOT"})
_BEFORE_START: Final = frozenset({"PROVISIONING", "PENDING", "ACTIVATING"})
_OVER: Final = frozenset({"STOPPED", "DELETED"})

_USUAL_STOP: Final = "EssentialContainerExited"
_STOPPED_BY_REQUEST: Final = "UserInitiated"
_HOST_LOST: Final = ("Host EC2 ", "Container instance deregistration")
"""Who took away a host says nothing of the tasks that were to run there."""

log = structlog.get_logger(__name__)

# --- requests -----------------------------------------------------------------------------------------------


def base_request(settings: EcsSettings) -> dict[str, Any]:
    """
    Build the request that all workloads share, as the amazon provider's executor does from the same options.

    Without launch type and capacity provider strategy it has neither: what applies then depends on the
    cluster, and :class:`EcsBackend` adds it.
    """
    request: dict[str, Any] = {"cluster": settings.cluster, "count": 1}
    if settings.task_definition:
        request["taskDefinition"] = settings.task_definition
    if settings.launch_type:
        request["launchType"] = settings.launch_type
    if settings.capacity_provider_strategy:
        request["capacityProviderStrategy"] = list(settings.capacity_provider_strategy)
    request["platformVersion"] = settings.platform_version
    if settings.subnets or settings.security_groups or settings.assign_public_ip:
        request["networkConfiguration"] = {"awsvpcConfiguration": _network(settings)}
    request = _overlay(request, {**settings.run_task_kwargs, "count": 1})
    overrides = request.setdefault("overrides", {})
    if not overrides.get("containerOverrides"):
        overrides["containerOverrides"] = [{}]
    containers: list[dict[str, Any]] = overrides["containerOverrides"]
    # The first one is Airflow's, whatever it is called: that is the provider's rule, and configurations rely on
    # it. But where one has the right name already, renaming another would address it twice.
    named = [container for container in containers if container.get("name") == settings.container_name]
    container = named[0] if named else containers[0]
    container["name"] = settings.container_name
    container["command"] = []
    return request


def _network(settings: EcsSettings) -> dict[str, Any]:
    network: dict[str, Any] = {}
    if settings.subnets:
        network["subnets"] = list(settings.subnets)
    if settings.security_groups:
        network["securityGroups"] = list(settings.security_groups)
    if settings.launch_type != "EC2":  # which does not take it
        network["assignPublicIp"] = "ENABLED" if settings.assign_public_ip else "DISABLED"
    return network


def wrong_parameters(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Say which parameters RunTask does not take, and what it does, once tags and mark are as it wants them."""
    sent = {key: value for key, value in parameters.items() if key != "startedBy" or value is not None}
    return _wrong_parameters("ecs", "RunTask", _with_tags(sent))


def _overlay(request: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Merge, and keep together what the API wants to be consistent."""
    base = dict(request)
    if "launchType" in overrides:
        base.pop("capacityProviderStrategy", None)
    if "capacityProviderStrategy" in overrides:
        base.pop("launchType", None)
    result = merge(base, _with_tags(overrides))
    if not _takes_platform_version(result):
        result.pop("platformVersion", None)
    return result


def _with_tags(overrides: Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(tags := overrides.get("tags"), Mapping):
        return {**overrides, "tags": _tag_list(tags)}
    return overrides


def _tag_list(tags: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Turn ``{"team": "data"}`` into what the API takes; ``{"key": "team", "value": "data"}`` is one tag."""
    if tags.keys() == {"key", "value"}:
        return [dict(tags)]
    return [{"key": key, "value": value} for key, value in tags.items()]


def _providers(request: Mapping[str, Any]) -> tuple[str, ...]:
    strategy = request.get("capacityProviderStrategy")
    if not isinstance(strategy, (list, tuple)):
        return ()
    return tuple(
        str(item.get("capacityProvider")) if isinstance(item, Mapping) else str(item) for item in strategy
    )


def _takes_platform_version(request: Mapping[str, Any]) -> bool:
    """Fargate alone has platform versions; a request that names no kind of capacity can still become one."""
    if (launch_type := request.get("launchType")) is not None:
        return bool(launch_type == "FARGATE")
    return _FARGATE_PROVIDERS.issuperset(_providers(request))


def container_for(request: Mapping[str, Any], container_name: str) -> dict[str, Any]:
    """
    Return the override of the Airflow container in a request.

    :raises Rejected: if the request has none, or its overrides are not made as the API wants them
    """
    overrides = request.get("overrides")
    if not isinstance(overrides, Mapping):
        raise Rejected(f"overrides must be a dictionary, not {kind_of(overrides)}")
    containers = overrides.get("containerOverrides")
    if not isinstance(containers, list) or not all(isinstance(one, dict) for one in containers):
        raise Rejected("overrides.containerOverrides must be a list of dictionaries")
    for container in containers:
        if "name" not in container:
            raise Rejected('container "name" must be provided in each of overrides.containerOverrides')
        if container["name"] == container_name:
            found: dict[str, Any] = container
            return found
    raise Rejected(f"overrides.containerOverrides has no container named {container_name!r}")


def workload_request(
    base: Mapping[str, Any],
    queue_overrides: Mapping[str, Any] | None,
    executor_config: Any,
    container_name: str,
    command: Sequence[str],
) -> dict[str, Any]:
    """
    Build the request of one workload.

    :param base: what all workloads share; see :func:`base_request`
    :param queue_overrides: what the workload's queue changes in it
    :param executor_config: what the workload itself changes, as its author wrote it
    :param command: what the Airflow container is to run
    :raises Rejected: if the executor_config cannot be used; nothing of its values is in the reason
    """
    executor_config = parameters_of(executor_config, "RunTask")
    if "name" in executor_config or "command" in executor_config:
        raise Rejected('executor_config must never override "name" or "command"')
    if "clientToken" in executor_config:
        raise Rejected("executor_config must not set clientToken: it makes a launch safe to repeat")
    if "launchType" in executor_config and "capacityProviderStrategy" in executor_config:
        raise Rejected("executor_config: launchType and capacityProviderStrategy are mutually exclusive")
    request = _overlay(base, queue_overrides) if queue_overrides else base
    try:
        request = _overlay(request, executor_config)
    except Exception as error:  # noqa: BLE001 - it comes from the author's own objects
        raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None
    _check_count(request)
    container = container_for(request, container_name)
    put_command(container, command, f"container {container_name!r}")
    return request


def launch_spec(request: Mapping[str, Any], *, started_by: str, expires_at: float | None = None) -> LaunchSpec:
    """
    Check a finished request, mark it and say what it shares limits with.

    :param started_by: our mark; one that is already in the request stays, and then it cannot be searched for
    :param expires_at: wall-clock seconds after which the container could not use its command any more
    :raises Rejected: if ECS would refuse the request for what can be seen here
    """
    _check_count(request)
    if "clientToken" in request:
        raise Rejected("clientToken must not be set: it makes a launch safe to repeat")
    if not request.get("taskDefinition"):
        raise Rejected(
            "no task definition: set [aws_ecs_executor] task_definition, or taskDefinition in executor_config"
        )
    if request.get("launchType") and request.get("capacityProviderStrategy"):
        raise Rejected("launchType and capacityProviderStrategy are mutually exclusive")
    whole = sealed(request, "overrides")
    mark: str | None = None
    if whole.get("startedBy") is None:
        mark = whole["startedBy"] = started_by
    if not isinstance(whole["startedBy"], str) or not _STARTED_BY.fullmatch(whole["startedBy"]):
        raise Rejected("startedBy must have 1 to 128 letters, digits, hyphens, underscores or slashes")
    return LaunchSpec(
        request=whole,
        scope=str(whole.get("cluster") or DEFAULT_CLUSTER),
        placement=_placement(whole),
        bucket=_bucket(whole),
        started_by=mark,
        expires_at=expires_at,
    )


def _check_count(request: Mapping[str, Any]) -> None:
    count = request.get("count", 1)
    if isinstance(count, bool) or count != 1:
        raise Rejected("count must be 1: one workload is one container")


def _bucket(request: Mapping[str, Any]) -> str:
    """Name the rate that AWS counts the request in; one that names no kind of capacity counts as Fargate."""
    providers = frozenset(_providers(request))
    if not providers:
        return str(request.get("launchType") or "FARGATE")
    if providers == {"FARGATE_SPOT"}:
        return "FARGATE_SPOT"
    return "FARGATE" if providers <= _FARGATE_PROVIDERS else "EC2"


def _placement(request: Mapping[str, Any]) -> str:
    """Name what competes for the same room; for people too, so it is readable."""
    overrides = request.get("overrides") or {}
    parts = {
        "cluster": request.get("cluster") or DEFAULT_CLUSTER,
        "capacity": "+".join(_providers(request)) or request.get("launchType") or "default",
        "task": request.get("taskDefinition"),
        "constraints": request.get("placementConstraints"),
        "cpu": overrides.get("cpu"),
        "memory": overrides.get("memory"),
        # Not for room: passing a role can be refused, and a subnet be full, for who names it alone.
        "taskRole": overrides.get("taskRoleArn"),
        "executionRole": overrides.get("executionRoleArn"),
        "network": request.get("networkConfiguration"),
    }
    for container in overrides.get("containerOverrides") or ():
        for key in ("cpu", "memory", "memoryReservation", "resourceRequirements"):
            if key in container:
                parts[f"{container.get('name')}.{key}"] = container[key]
    return in_one_line(parts)


# --- replies ------------------------------------------------------------------------------------------------


class _Container(TypedDict, total=False):
    name: str
    lastStatus: str
    exitCode: int | None
    reason: str | None


class _Task(TypedDict, total=False):
    taskArn: str
    clusterArn: str
    lastStatus: str
    createdAt: float | None
    startedAt: float | None
    startedBy: str | None
    stopCode: str | None
    stoppedReason: str | None
    containers: list[_Container]


class _Failure(TypedDict, total=False):
    arn: str | None
    reason: str | None
    detail: str | None


class _Reply(TypedDict, total=False):
    tasks: list[_Task]
    failures: list[_Failure]


decode_reply: Final = decoder_of(_Reply)
DECODERS: Final = {"RunTaskResponse": decode_reply, "DescribeTasksResponse": decode_reply}


def observation(task: Mapping[str, Any], container_name: str, scope: str | None = None) -> Observation:
    """
    Say what a Task record of RunTask or DescribeTasks means.

    The Airflow container decides, as soon as it has an exit code: other containers and the task's own way to
    STOPPED can take much longer.

    :param scope: the cluster as it is given in requests; the record's own name for it by default
    :raises KeyError, TypeError, ValueError, AttributeError: if the record is malformed
    """
    arn = text(task["taskArn"])
    status = text(task["lastStatus"])
    containers = task.get("containers") or ()
    airflow: Mapping[str, Any] = next((one for one in containers if one.get("name") == container_name), {})
    exit_code = airflow.get("exitCode")
    if exit_code is not None:
        exit_code = int(exit_code)
    started = (
        exit_code is not None
        or task.get("startedAt") is not None
        or status == "RUNNING"
        or airflow.get("lastStatus") == "RUNNING"
    )
    if status in _OVER:
        seen = Seen.STOPPED
    elif started and status not in _BEFORE_START:
        seen = Seen.RUNNING
    else:
        seen = Seen.PENDING
    stop_code = task.get("stopCode")
    unusual = stop_code is not None and stop_code != _USUAL_STOP
    said = text(task.get("stoppedReason") or "")
    return Observation(
        handle=Handle(scope if scope is not None else str(task.get("clusterArn") or DEFAULT_CLUSTER), arn),
        seen=seen,
        status=status,
        exit_code=exit_code,
        started=started,
        reason=_reason(
            exit_code,
            over=seen is Seen.STOPPED,
            started=started,
            container=text(airflow.get("reason") or ""),
            task=said,
            stop_code=stop_code,
        ),
        stop_code=stop_code,
        unusual=unusual,
        by_hand=stop_code == _STOPPED_BY_REQUEST
        and not said.startswith(_HOST_LOST)
        and not is_of_an_executor(said),
        created_at=_seconds(task.get("createdAt")),
        started_by=task.get("startedBy"),
    )


def _reason(
    exit_code: int | None, *, over: bool, started: bool, container: str, task: str, stop_code: str | None
) -> str:
    why_task = task or (stop_code or "")
    if exit_code is not None:
        if exit_code == 0:
            return ""
        text = f"ECS container exited {exit_code}"
        if container:
            text += f" ({container})"
        if stop_code not in {None, _USUAL_STOP} and why_task != container:
            text += f": {why_task}"
        return text
    if not over:
        return ""
    text = "ECS task stopped " + (
        "without an exit code from its container" if started else "before its container ran"
    )
    whys = [why for why in (container, why_task) if why]
    if len(whys) == 2 and (whys[0] in whys[1] or whys[1] in whys[0]):  # noqa: PLR2004 - both of them
        whys = [max(whys, key=len)]
    return f"{text}: {'; '.join(whys)}" if whys else text


def _seconds(value: Any) -> float | None:
    if value is None:
        return None
    return value.timestamp() if isinstance(value, datetime) else float(value)


def _missing(scope: str, identifier: str, failure: Mapping[str, Any]) -> Observation:
    reason = str(failure.get("reason") or "unknown")
    detail = f" ({failure['detail']})" if failure.get("detail") else ""
    return Observation(
        handle=Handle(scope, identifier),
        seen=Seen.MISSING,
        status=reason,
        reason=f"ECS does not know the task: {reason}{detail}",
    )


_NO_ROOM = re.compile(
    r"^(RESOURCE|AGENT|INACTIVE)\b|capacity|reached the limit on the number of|placement constraint unsatisfied",
    re.IGNORECASE,
)
_CANNOT_RUN_HERE = re.compile(r"^(ATTRIBUTE|LOCATION)\b")


def failure_error(failures: Sequence[Mapping[str, Any]]) -> BackendError:
    """
    Say what the failures in a RunTask reply mean.

    ATTRIBUTE and LOCATION are what this one request asks for and no instance has: INVALID, so that they fail
    it at once. As REFUSED they would hold up everybody else's launches in the cluster. A reason that is not
    known here is REFUSED: nothing was done, and it may pass.
    """
    first = failures[0]
    reason = str(first.get("reason") or "unknown")
    words = bounded(f"{reason} ({first['detail']})" if first.get("detail") else reason)
    if _NO_ROOM.search(reason):
        kind = Kind.CAPACITY
    elif _CANNOT_RUN_HERE.search(reason):
        kind = Kind.INVALID
    else:
        kind = Kind.REFUSED
    code = reason if re.fullmatch(r"[A-Z_]+(:[A-Z_]+)*", reason) else "RunTaskFailure"
    return BackendError(kind, code, words)


# --- the service --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _StoppedTasks:
    """
    What is known of a cluster's stopped tasks, shared by all that search for one at the same time.

    :param begun: how many sweeps were begun
    :param marks: mark and ARN of each stopped task that was described
    :param result: these, as of the sweep number ``result_of``, which was complete
    """

    lock: anyio.Lock = field(default_factory=anyio.Lock)
    begun: int = 0
    marks: dict[str, str | None] = field(default_factory=dict)
    result_of: int = 0
    result: dict[str, str | None] = field(default_factory=dict)


class EcsBackend:
    """
    ECS as a :class:`~ecs_async_executor.core.backend.Backend`.

    :param session: makes the client
    :param settings: which container decides, and which cluster to check
    """

    describe_batch = 100
    """The most ARNs that DescribeTasks takes, and the most that ListTasks returns."""

    def __init__(self, session: ClientFactory, settings: EcsSettings, tuning: Tuning) -> None:
        self._call = Calls(session, "ecs", decoders=DECODERS, methods=_METHODS, always_there=_ALWAYS_THERE)
        self._settings = settings
        self._tuning = tuning
        self._defaults: dict[str, tuple[str, ...]] = {}
        self._defaults_lock: anyio.Lock | None = None
        self._stopped: dict[str, _StoppedTasks] = {}
        self._malformed: set[str] = set()

    def scope_of(self, handle_id: str | None) -> str:
        """
        Return the cluster of a task, or the one that tasks go to by default.

        It is in the ARN (``...:task/<cluster>/<id>``) unless that is of the form from before 2018; the configured
        name is preferred where both mean the same cluster, so that its tasks are described together.
        """
        default = self._settings.cluster
        parts = (handle_id or "").rpartition(":")[2].split("/")
        if len(parts) != _LONG_ARN_PARTS or parts[1] == default.rpartition("/")[2]:
            return default
        return parts[1]

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the loop that runs this."""
        return self._open()

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[None]:
        async with self._call.open():
            self._defaults_lock = anyio.Lock()
            self._stopped = {}
            yield

    async def launch(self, spec: LaunchSpec, token: str) -> Observation:
        """
        Start one container.

        A record that only says that the task is over (what ECS answers to a repeated token an hour after the
        task stopped) is reported as PENDING: what became of it is for :meth:`describe` to say.
        """
        request = spec.request
        if not request.get("launchType") and not request.get("capacityProviderStrategy"):
            request = await self._with_capacity(request, spec.scope)
        reply = await self._call("RunTask", **{**request, "clientToken": token})
        try:
            tasks, failures = reply.get("tasks") or [], reply.get("failures") or []
            if tasks:
                seen = observation(tasks[0], self._settings.container_name, spec.scope)
                if seen.seen is Seen.STOPPED and seen.exit_code is None and "containers" not in tasks[0]:
                    seen = Observation(
                        seen.handle,
                        Seen.PENDING,
                        status=seen.status,
                        created_at=seen.created_at,
                        started_by=seen.started_by,
                    )
                return seen
            error = failure_error(failures) if failures else None
        except (KeyError, TypeError, ValueError, AttributeError) as problem:
            raise BackendError(
                Kind.AMBIGUOUS,
                "MalformedReply",
                f"RunTask answered with a malformed record: {type(problem).__name__}",
            ) from None
        raise error or BackendError(
            Kind.AMBIGUOUS, "EmptyReply", "RunTask answered with neither tasks nor failures"
        )

    async def _with_capacity(self, request: Mapping[str, Any], scope: str) -> dict[str, Any]:
        """Leave it to the cluster's default strategy if it has one, else say Fargate, as the provider does."""
        providers = await self._default_providers(scope)
        if not providers:
            return {**request, "launchType": "FARGATE"}
        if _FARGATE_PROVIDERS.issuperset(providers):
            return dict(request)
        return {key: value for key, value in request.items() if key != "platformVersion"}

    async def _default_providers(self, scope: str) -> tuple[str, ...]:
        """Ask once per cluster and client: a resent request has to stay the same."""
        assert self._defaults_lock is not None
        async with self._defaults_lock:
            if scope in self._defaults:
                return self._defaults[scope]
            try:
                reply = await self._call("DescribeClusters", clusters=[scope])
            except BackendError as error:
                if error.kind in {Kind.AMBIGUOUS, Kind.THROTTLED}:
                    # Nothing was launched, and RunTask's rate has nothing to do with it.
                    raise BackendError(Kind.CONCURRENT, error.code, error.message) from None
                if error.kind in {Kind.REFUSED, Kind.INVALID}:
                    raise BackendError(
                        Kind.REFUSED,
                        error.code,
                        f"{error.message} (asked because neither launch_type nor "
                        "capacity_provider_strategy is set)",
                    ) from None
                raise
            clusters = reply.get("clusters") or []
            if not clusters:
                raise BackendError(
                    Kind.REFUSED,
                    "ClusterNotFoundException",
                    f"cluster {scope!r} was not found in region {self._call.region_name}",
                )
            self._defaults[scope] = _providers(
                {"capacityProviderStrategy": clusters[0].get("defaultCapacityProviderStrategy")}
            )
            return self._defaults[scope]

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Say where containers are.

        A record that cannot be read is left out and logged once: nothing is known about it, which neither
        PENDING nor MISSING would say.
        """
        reply = await self._call("DescribeTasks", cluster=scope, tasks=list(ids))
        return list(self._observations(reply, scope, ids))

    def _observations(self, reply: Any, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        asked = {_short(one): one for one in ids}
        found: list[Observation] = []
        for task in reply.get("tasks") or ():
            try:
                found.append(observation(task, self._settings.container_name, scope))
            except (KeyError, TypeError, ValueError, AttributeError) as error:  # noqa: PERF203
                self._log_malformed("task", task, error)
        for failure in reply.get("failures") or ():
            try:
                found.append(_missing(scope, asked[_short(failure["arn"])], failure))
            except (KeyError, TypeError, AttributeError) as error:  # noqa: PERF203
                self._log_malformed("failure", failure, error)
        return found

    def _log_malformed(self, what: str, record: Any, error: Exception) -> None:
        arn = str(record.get("taskArn") or record.get("arn")) if isinstance(record, Mapping) else kind_of(record)
        if arn not in self._malformed:
            self._malformed.add(arn)
            log.warning(
                SERVICE.event("describe.malformed"), record=what, arn=bounded(arn), error=type(error).__name__
            )

    async def find(self, scope: str, started_by: str) -> Sequence[Handle]:
        """
        List the tasks that carry a mark, those stopped in the last hour included.

        ECS filters by mark among running tasks only, so the stopped ones are read and compared. Running
        tasks are listed first and the stopped ones read after that, or a task that stops in between is missed.
        """
        running = await self._list(scope, startedBy=started_by)
        stopped = await self._stopped_tasks(scope)
        arns = dict.fromkeys([*running, *(arn for arn, mark in stopped.items() if mark == started_by)])
        return [Handle(scope, arn) for arn in arns]

    async def _list(self, scope: str, **filters: str) -> list[str]:
        return await self._call.pages("ListTasks", "taskArns", cluster=scope, **filters)

    async def _stopped_tasks(self, scope: str) -> Mapping[str, str | None]:
        """Read the stopped tasks of a cluster; whoever comes during a sweep shares the next one."""
        known = self._stopped.setdefault(scope, _StoppedTasks())
        came_after = known.begun
        async with known.lock:
            if known.result_of > came_after:
                return known.result
            known.begun += 1
            # That there is nothing at all is believed only if it is said twice.
            arns = await self._list(scope, desiredStatus="STOPPED") or await self._list(
                scope, desiredStatus="STOPPED"
            )
            # A task keeps its mark: what one sweep has learnt, none has to ask again, even if it failed.
            marks = known.marks = {arn: known.marks[arn] for arn in arns if arn in known.marks}
            for _ in range(_DESCRIBE_PASSES):
                new = [arn for arn in arns if arn not in marks]
                for first in range(0, len(new), self.describe_batch):
                    batch = new[first : first + self.describe_batch]
                    reply = await self._call.go_on("DescribeTasks", cluster=scope, tasks=batch)
                    for task in reply.get("tasks") or ():
                        try:
                            marks[text(task["taskArn"])] = task.get("startedBy")
                        except (KeyError, TypeError, AttributeError) as error:  # noqa: PERF203
                            self._log_malformed("task", task, error)
            known.result, known.result_of = dict(marks), known.begun
            return known.result

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask for a container to be stopped."""
        await self._call("StopTask", cluster=handle.scope, task=handle.id, reason=stop_reason(reason))

    async def check(self) -> None:
        """
        Stop a task that cannot exist, as the provider's health check does.

        "The referenced task was not found" shows that the cluster exists and that we may do it.

        :raises BackendError: with why not
        """
        try:
            stopped = await self._stops_nobody()
        except BackendError as error:
            raise BackendError(
                error.kind, error.code, _UNHEALTHY.format(f"because: {error.message.rstrip('.')}")
            ) from None
        if stopped:
            raise BackendError(Kind.REFUSED, "Unknown", _UNHEALTHY.format("for an unknown reason"))

    async def _stops_nobody(self) -> bool:
        try:
            await self._call("StopTask", cluster=self._settings.cluster, task=_NOBODY)
        except BackendError as error:
            if error.kind is Kind.NOT_FOUND:
                return False
            raise
        return True

    def trials(self) -> Sequence[Trial]:
        """Return what polling, stopping and looking for a lost task need, in the cluster that is configured."""
        cluster, settings = self._settings.cluster, self._settings
        trials = [
            Trial(f"StopTask, cluster {cluster!r}", self._stops_nobody),
            Trial(
                f"DescribeTasks, cluster {cluster!r}",
                partial(self._call, "DescribeTasks", cluster=cluster, tasks=[_NOBODY]),
            ),
            Trial(f"ListTasks, cluster {cluster!r}", partial(self._list, cluster, startedBy=_NOBODY)),
        ]
        if not settings.launch_type and not settings.capacity_provider_strategy:
            trials.append(
                Trial(f"DescribeClusters, cluster {cluster!r}", partial(self._default_providers, cluster))
            )
        return trials

    @property
    def untried(self) -> str:
        """What would need a task."""
        return "RunTask, with the task definition and the right to pass its roles; it would start a task"


_ALWAYS_THERE: Final = {
    "DescribeClusters": frozenset({"clusters", "failures"}),
    "DescribeTasks": frozenset({"tasks", "failures"}),
    "ListTasks": frozenset({"taskArns"}),
}
_METHODS: Final = {
    "DescribeClusters": "describe_clusters",
    "DescribeTasks": "describe_tasks",
    "ListTasks": "list_tasks",
    "RunTask": "run_task",
    "StopTask": "stop_task",
}
_LONG_ARN_PARTS: Final = 3
_DESCRIBE_PASSES: Final = 3
"""A listed task that is MISSING may have been forgotten since, or be one that ECS does not show at that moment."""
_NOBODY: Final = "a" * 32
"""The identifier of a task that cannot exist."""
_UNHEALTHY: Final = (
    "ECS Executor health check has failed {}. "
    "The ECS executor will not be able to run Airflow tasks until the issue is addressed."
)


def _short(arn: str) -> str:
    return arn.rpartition("/")[2]
