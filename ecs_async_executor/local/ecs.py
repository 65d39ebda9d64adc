"""
The local ECS itself: moto's ECS backend with AWS's rules, real task lives and a plain-JSON face.

May import moto and the other modules of this package. What moto does well (clusters, task definitions,
services, capacity providers, tags) stays moto's; everything about tasks is here, and is spoken to in JSON
text, because moto's serializer is what makes it slow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from uuid import uuid4

from moto.ecs.models import Cluster, TaskDefinition, ecs_backends

from ecs_async_executor.local import ecs_rules as rules
from ecs_async_executor.local import rates
from ecs_async_executor.local.account import Account
from ecs_async_executor.local.ecs_backend import LocalBackend
from ecs_async_executor.local.ecs_placement import (
    FULL,
    Instance,
    add_instance,
    check_association,
    check_instances,
    instance_arn,
    no_room,
    obstacles,
    placement,
)
from ecs_async_executor.local.ecs_requests import amounts_of, container_of, main_of, overrides_of, size_of
from ecs_async_executor.local.ecs_tasks import Task
from ecs_async_executor.local.environment_files import EnvironmentFiles
from ecs_async_executor.local.errors import AwsError, encode_page, name_of
from ecs_async_executor.local.faults import Fault, Faults
from ecs_async_executor.local.ledger import Record
from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.outputs import stream_of
from ecs_async_executor.local.place import Place
from ecs_async_executor.local.runners import NOT_STARTED
from ecs_async_executor.local.scaling import ScalingGroup, ScalingGroups
from ecs_async_executor.local.sizes import Size

CAUSES: Mapping[str, tuple[str, str]] = {
    "spot": ("SpotInterruption", "Your Spot Task was interrupted."),
    "fargate_spot": ("TerminationNotice", "Your Spot Task was interrupted."),
    "host": ("TerminationNotice", "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated."),
    "infrastructure": ("InfrastructureHealth", "Task was stopped due to an issue with the underlying host."),
}
"""Ways to lose a host: stop code and reason."""


class Ecs:
    """
    The operations on tasks, in every place. Safe to use from any thread.

    A launch type or capacity provider that the account limits has room for so many tasks; RunTask answers with
    ``failures`` beyond that.

    :param faults: what goes wrong when ECS itself reads something
    :param groups: Auto Scaling groups by the name of their capacity provider; there tasks wait instead
    """

    name = "ecs"
    operations = frozenset({"RunTask", "StartTask", "DescribeTasks", "ListTasks", "StopTask"})
    causes = CAUSES

    def __init__(
        self,
        account: Account,
        *,
        faults: Faults | None = None,
        groups: Mapping[str, ScalingGroup | Mapping[str, Any]] | None = None,
    ) -> None:
        self.account = account
        self.host = account.host
        self.ledger = account.ledger
        self.groups = ScalingGroups(account.host, groups or {})
        self._files = EnvironmentFiles(faults or Faults(), lambda: list(account.accounts))
        self._lock = account.lock
        self._clear()
        account.services[self.name] = self
        ecs = self

        class Bound(LocalBackend):
            def _count(self, cluster: str) -> tuple[int, int]:
                return ecs._count(self, cluster)

        Bound.__module__ = LocalBackend.__module__
        self._backend_class = Bound

    def _clear(self) -> None:
        self._usage: dict[str, int] = {}
        self._where: dict[str, tuple[LocalBackend, Task, str]] = {}

    def backend(self, place: Place) -> LocalBackend:
        """Give moto's backend of a place, made ours first if moto made or reset the account."""
        with self._lock:
            account = ecs_backends[place.account]
            if account.backend is not self._backend_class:
                account.backend = self._backend_class
                dict.clear(account)
            try:
                backend = account[place.region]
            except KeyError:
                raise AwsError("InvalidParameterException", f"Unknown region {place.region}.") from None
        assert isinstance(backend, LocalBackend)
        return backend

    def prepare(self, place: Place) -> None:
        """Put our backend in place of moto's, before moto answers a request of this service."""
        self.backend(place)

    def call(self, operation: str, params: Mapping[str, Any], place: Place, fault: Fault | None = None) -> str:
        """
        Carry out an operation on tasks and give the reply's JSON.

        :param fault: what is to become of the tasks that it starts
        :raises AwsError: if AWS would refuse it
        """
        with self._lock:
            backend = self.backend(place)
            if operation == "RunTask":
                return self._run_task(backend, params, fault)
            if operation == "DescribeTasks":
                return self._describe_tasks(backend, params)
            if operation == "ListTasks":
                return self._list_tasks(backend, params)
            if operation == "StopTask":
                return self._stop_task(backend, params)
            return self._start_task(backend, params)

    def without(
        self, operation: str, kind: str, params: Mapping[str, Any], place: Place, fault: Fault
    ) -> str | None:
        """Give the reply's JSON of a fault that does no work, None if the operation knows no such fault."""
        if kind == "failures" and operation in ("RunTask", "StartTask"):
            return self._fail(params, place, [dict(f) for f in fault.failures])
        if kind == "missing" and operation == "DescribeTasks":
            missing = [{"arn": arn, "reason": "MISSING"} for arn in params.get("tasks") or ()]
            return json.dumps({"tasks": [], "failures": missing})
        if kind == "empty":
            return '{"taskArns":[]}' if operation == "ListTasks" else '{"tasks":[],"failures":[]}'
        return None

    def _fail(self, params: Mapping[str, Any], place: Place, failures: list[dict[str, Any]]) -> str:
        """Answer with failures, unless what the token has done is to be repeated."""
        memory = self.account.behaviour.failure_memory
        token = params.get("clientToken") or ""
        if token and memory != "forget":
            with self._lock:
                backend = self.backend(place)
                cluster, now = backend.find_cluster(params.get("cluster")), self.host.settle()
                mark = rules.fingerprint(params)
                use = backend.tokens.find(cluster.name, token, mark, now, memory=memory)
                if use is not None:
                    return json.dumps(use.reply(now))
                backend.tokens.remember(cluster.name, token, mark, now, (), failures)
        return json.dumps({"tasks": [], "failures": failures})

    def buckets(self, operation: str, params: Mapping[str, Any], place: Place) -> Sequence[str]:
        """Name the rate limits that a call counts against."""
        if operation in rates.READS:
            return (rates.READ,)
        if operation == "RunTask":
            return (rates.MODIFY, self._rate_bucket(params, place))
        return (rates.MODIFY,) if operation in rates.MODIFIES else ()

    def throttled(self) -> AwsError:
        """Make the error of a call that came too fast."""
        return AwsError("ThrottlingException", "Rate exceeded")

    def expired(self) -> AwsError:
        """Make the error of a call with credentials that have expired."""
        return AwsError("ExpiredTokenException", "The security token included in the request is expired")

    def _rate_bucket(self, params: Mapping[str, Any], place: Place) -> str:
        """Name the launch type of a RunTask, as far as that is decided before it is checked."""
        with self._lock:
            cluster = self.backend(place).clusters.get(name_of(params.get("cluster") or "default"))
            return placement(params, cluster)[0]

    def add_instance(self, place: Place, cluster: str, instance: Instance) -> str:
        """Register a container instance and return its ARN."""
        with self._lock:
            return add_instance(self.backend(place), cluster, instance)

    def hosts(self) -> dict[str, int]:
        """Return how many hosts each Auto Scaling group has now."""
        with self._lock:
            return self.groups.hosts()

    def knows(self, reference: str) -> bool:
        """Return whether a task, by id or ARN, is one of this service."""
        return name_of(reference) in self._where

    def lose(self, reference: str, *, stop_code: str, reason: str, notice: float = 0.0) -> bool:
        """
        Let the host of a task vanish: no exit codes.

        :param reference: id or ARN
        :param notice: seconds until it does
        :return: False if nothing of the task ran any more
        :raises KeyError: if there is no such task
        """
        with self._lock:
            _, task, _ = self._where[name_of(reference)]
            return self.host.lose(task.job, stop_code, reason, notice)

    def interrupt(self, reference: str) -> None:
        """
        Interrupt a task as Fargate Spot does: its processes are asked to end, and killed after their stop timeout.

        :raises KeyError: if there is no such task
        """
        with self._lock:
            _, task, _ = self._where[name_of(reference)]
            self.host.interrupt(task.job, *CAUSES["spot"])

    def show(self, reference: str) -> dict[str, Any]:
        """
        Show a task as DescribeTasks does.

        :param reference: id or ARN
        :raises KeyError: if there is no such task
        """
        with self._lock:
            now = self.host.settle()
            _, task, _ = self._where[name_of(reference)]
            return {**task.record(now), "tags": task.tags}

    def states(self, now: float) -> dict[str, object]:
        """Return the states of all tasks and their containers."""
        return {name: task.state(now) for name, (_, task, _) in self._where.items()}

    def event(self, reference: str, now: float) -> tuple[Place, str, str]:
        """Return where a task is, its ARN, and itself as JSON."""
        backend, task, _ = self._where[reference]
        return backend.place, task.task_arn, task.to_json(now)

    def limits_changed(self) -> None:
        """Do nothing: no task waits for room."""

    def reset(self) -> None:
        """Forget every task; what runs is killed first."""
        with self._lock:
            for _, task, _ in list(self._where.values()):
                self.host.lose(task.job, "UserInitiated", "The server was reset.")
                self.host.forget(task.job)
            self.groups.reset()
            self._clear()

    def _run_task(self, backend: LocalBackend, params: Mapping[str, Any], fault: Fault | None) -> str:
        rules.check_run_task(params)
        cluster = backend.find_cluster(params.get("cluster"))
        behaviour, now = self.account.behaviour, self.host.settle()
        token = params.get("clientToken") or ""
        mark = rules.fingerprint(params) if token else ""
        use = backend.tokens.find(cluster.name, token, mark, now, memory=behaviour.failure_memory)
        if use is not None:
            for task in use.tasks:
                self.ledger.replayed(task.job)
            return json.dumps(use.reply(now))
        launch_type, provider = placement(params, cluster)
        if behaviour.unassociated_providers == "refused":
            check_association(params, cluster)
        if behaviour.empty_clusters == "refused" and launch_type == "EC2" and provider is None:
            check_instances(backend, cluster)
        definition = self._checked_definition(backend, params, launch_type)
        size = size_of(params, definition, fargate=launch_type == "FARGATE")
        key, limit = self._room(backend.place, launch_type, provider)
        tasks: list[Task] = []
        failures: list[dict[str, Any]] = []
        for _ in range(params.get("count", 1)):
            refused = obstacles(backend, cluster, params, size) if launch_type == "EC2" else []
            if not refused and limit is not None and self._usage.get(key, 0) >= limit:
                refused = no_room(backend, cluster, launch_type)
            if refused:
                failures += refused
                continue
            task = self._make(backend, cluster, definition, params, launch_type, provider, size, now)
            task.visible_at, task.listed_at = self.account.sight(now, fault)
            tasks.append(task)
            self._accept(backend, task, key)
            self._place(task, backend.place, provider or "", now, fault)
        kept = failures if behaviour.failure_memory != "forget" else []
        if tasks or kept:
            backend.tokens.remember(cluster.name, token, mark, now, tasks, kept)
        return _reply(tasks, failures, self.host.settle(), tags=True)

    def _room(self, place: Place, launch_type: str, provider: str | None) -> tuple[str, int | None]:
        """Return what a task counts against, and the limit of that."""
        limits = self.account.limits
        name = launch_type if provider is None or limits.limit(place, provider) is None else provider
        return limits.counter(place, name), limits.limit(place, name) if provider not in self.groups else None

    def _place(self, task: Task, place: Place, provider: str, now: float, fault: Fault | None) -> None:
        """Give a task its place, now or later or never."""
        not_before = self.account.hold(now, fault)
        if fault is not None and fault.kind == "unplaced":
            self.host.reject(task.job, task.life, now + fault.seconds, NOT_STARTED, fault.reason or FULL)
        elif provider in self.groups:
            pool = self.account.limits.counter(place, provider)
            self.groups.submit(provider, pool, task.job, task.life, now, not_before=not_before)
        else:
            self.host.submit(task.job, task.life, not_before=not_before)
        if fault is not None and fault.kind == "interrupted":
            self.host.interrupt(task.job, *CAUSES["spot"], after=fault.seconds)

    def _start_task(self, backend: LocalBackend, params: Mapping[str, Any]) -> str:
        instances = params.get("containerInstances") or []
        if not 1 <= len(instances) <= rules.MAX_COUNT:
            raise rules.invalid("Container instances must be between 1 and 10.")
        rules.check_run_task({**params, "count": 1})
        cluster = backend.find_cluster(params.get("cluster"))
        definition = self._checked_definition(backend, params, "EC2")
        size = size_of(params, definition, fargate=False)
        now = self.host.settle()
        known = backend.container_instances.get(cluster.name, {})
        tasks: list[Task] = []
        failures: list[dict[str, Any]] = []
        for reference in instances:
            instance = known.get(name_of(reference))
            if instance is None:
                failures.append({"arn": reference, "reason": "MISSING"})
                continue
            task = self._make(backend, cluster, definition, params, "EC2", None, size, now)
            task.visible_at, task.listed_at = self.account.sight(now, None)
            task.instance_arn = instance.container_instance_arn
            tasks.append(task)
            self._accept(backend, task, self.account.limits.counter(backend.place, "EC2"))
            self._place(task, backend.place, "", now, None)
        return _reply(tasks, failures, self.host.settle(), tags=True)

    def _checked_definition(
        self, backend: LocalBackend, params: Mapping[str, Any], launch_type: str
    ) -> TaskDefinition:
        definition = backend.find_definition(params["taskDefinition"])
        compatibilities = set(definition.compatibilities)
        if definition.network_mode == "awsvpc" and definition.cpu and definition.memory:
            compatibilities.add("FARGATE")
        rules.check_against_definition(
            params,
            containers=[str(c["name"]) for c in definition.container_definitions],
            network_mode=definition.network_mode,
            fargate=launch_type == "FARGATE",
            compatibilities=compatibilities,
        )
        return definition

    def _make(
        self,
        backend: LocalBackend,
        cluster: Cluster,
        definition: TaskDefinition,
        params: Mapping[str, Any],
        launch_type: str,
        provider: str | None,
        size: Size,
        now: float,
    ) -> Task:
        overrides = params.get("overrides") or {}
        by_name = overrides_of(params)
        definitions: Sequence[Mapping[str, Any]] = definition.container_definitions
        reader = partial(self._files.reader, place=backend.place)
        containers = tuple(container_of(d, by_name.get(d["name"], {}), size, reader) for d in definitions)
        main = main_of(containers, by_name)
        started_by = params.get("startedBy") or ""
        number, attempt = self.account.number(started_by, next(c.command for c in containers if c.name == main))
        job = Job(
            id=uuid4().hex,
            definition=f"{definition.family}:{definition.revision}",
            started_by=started_by,
            containers=containers,
            main=main,
            number=number,
            attempt=attempt,
        )
        life = Life(now)
        printing = next(d for d in definitions if d["name"] == main)
        self.account.outputs.expect(job, life, stream_of(printing, job.id, backend.place))
        network = (params.get("networkConfiguration") or {}).get("awsvpcConfiguration") or {}
        base = cluster.arn.replace(":cluster/", ":task/", 1)
        return Task(
            job=job,
            life=life,
            sequence=number,
            task_arn=f"{base}/{job.id}",
            cluster_arn=cluster.arn,
            cluster_name=cluster.name,
            definition_arn=definition.arn,
            family=definition.family,
            group=params.get("group") or f"family:{definition.family}",
            launch_type=launch_type,
            capacity_provider=provider,
            platform_version=params.get("platformVersion"),
            size=size,
            amounts={str(d["name"]): amounts_of(d, by_name.get(d["name"], {})) for d in definitions},
            subnet=(network.get("subnets") or [None])[0],
            overrides={"containerOverrides": [], "inferenceAcceleratorOverrides": [], **overrides},
            images={str(d["name"]): str(d.get("image", "")) for d in definitions},
            tags=list(params.get("tags") or ()),
            token=params.get("clientToken") or "",
            instance_arn=instance_arn(backend, cluster) if launch_type == "EC2" else None,
            realistic=self.account.realistic,
        )

    def _accept(self, backend: LocalBackend, task: Task, key: str) -> None:
        backend.add(task)
        self._where[task.id] = (backend, task, key)
        self._usage[key] = self._usage.get(key, 0) + 1
        self.account.accept(
            self,
            Record(
                service=self.name,
                id=task.task_arn,
                token=task.token,
                cluster=task.cluster_name,
                place=backend.place,
                launch_type=task.launch_type,
                job=task.job,
                life=task.life,
            ),
        )

    def _describe_tasks(self, backend: LocalBackend, params: Mapping[str, Any]) -> str:
        references: Sequence[str] = params.get("tasks") or ()
        cluster = backend.find_cluster(params.get("cluster"))
        rules.check_describe(references)
        if self.account.behaviour.foreign_arns == "refused":
            rules.check_cluster(references, cluster.arn)
        now = self.host.settle()
        shown: list[str] = []
        failures: list[dict[str, str]] = []
        tags = "TAGS" in (params.get("include") or ())
        for reference in dict.fromkeys(references):
            task = self._visible(backend, cluster, reference, now)
            if task is not None:
                shown.append(task.to_json(now, tags=tags))
            else:
                failures.append({"arn": _task_arn(cluster, reference), "reason": "MISSING"})
        return f'{{"tasks":[{",".join(shown)}],"failures":{json.dumps(failures)}}}'

    def _list_tasks(self, backend: LocalBackend, params: Mapping[str, Any]) -> str:
        after, size = rules.check_list(
            params, stopped_by_mark=self.account.behaviour.started_by_stopped == "listed"
        )
        cluster = backend.find_cluster(params.get("cluster"))
        now = self.host.settle()
        desired = params.get("desiredStatus") or "RUNNING"
        started_by = params.get("startedBy")
        candidates = backend.by_mark.get(started_by, {}) if started_by else backend.tasks.get(cluster.name, {})
        instance = params.get("containerInstance")
        service = params.get("serviceName")
        wanted = {"family": params.get("family"), "launch_type": params.get("launchType")}
        page: list[Task] = []
        for task in candidates.values():
            if (
                task.sequence > after
                and task.cluster_name == cluster.name
                and all(value is None or getattr(task, name) == value for name, value in wanted.items())
                and (instance is None or name_of(task.instance_arn or "") == name_of(instance))
                and (service is None or task.group == f"service:{service}")
                and task.desired_status(now) == desired
                and now >= task.listed_at
            ):
                page.append(task)
                if len(page) > size:
                    break
        reply: dict[str, Any] = {"taskArns": [task.task_arn for task in page[:size]]}
        if len(page) > size:
            reply["nextToken"] = encode_page(page[size - 1].sequence)
        return json.dumps(reply)

    def _stop_task(self, backend: LocalBackend, params: Mapping[str, Any]) -> str:
        cluster = backend.find_cluster(params.get("cluster"))
        if self.account.behaviour.foreign_arns == "refused":
            rules.check_cluster([params.get("task") or ""], cluster.arn)
        self.host.settle()
        task = backend.by_id.get(name_of(params.get("task") or ""))
        if task is None or task.cluster_name != cluster.name:
            raise rules.invalid("The referenced task was not found.")
        self.host.stop(task.job, "UserInitiated", params.get("reason") or "Task stopped by user")
        return f'{{"task":{task.to_json(self.host.settle(), tags=True)}}}'

    def _visible(self, backend: LocalBackend, cluster: Cluster, reference: str, now: float) -> Task | None:
        task = backend.by_id.get(name_of(reference))
        if (
            task is None
            or task.cluster_name != cluster.name
            or now < task.visible_at
            or (reference.startswith("arn:") and reference != task.task_arn)
        ):
            return None
        return task

    def _count(self, backend: LocalBackend, cluster: str) -> tuple[int, int]:
        with self._lock:
            now = self.host.settle()
            states = [t.life.status(now) for t in backend.tasks.get(cluster, {}).values()]
        return states.count("RUNNING"), states.count("PENDING") + states.count("PROVISIONING")

    def ended(self, job: Job, at: float) -> None:  # noqa: ARG002
        """Learn that nothing of a task runs any more."""
        found = self._where.get(job.id)
        if found is not None:
            self._usage[found[2]] -= 1

    def expire(self, job: Job) -> None:
        """Forget a task."""
        found = self._where.pop(job.id, None)
        if found is not None:
            found[0].forget(found[1])


def _task_arn(cluster: Cluster, reference: str) -> str:
    if reference.startswith("arn:"):
        return reference
    return f"{cluster.arn.replace(':cluster/', ':task/', 1)}/{reference}"


def _reply(tasks: Sequence[Task], failures: list[dict[str, Any]], now: float, *, tags: bool) -> str:
    shown = ",".join(task.to_json(now, tags=tags) for task in tasks)
    return f'{{"tasks":[{shown}],"failures":{json.dumps(failures)}}}'
