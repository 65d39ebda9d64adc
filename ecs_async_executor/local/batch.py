"""
The local Batch: moto's Batch backend with AWS's rules and real job lives.

May import moto and the other modules of this package. Compute environments, job queues and job definitions
stay moto's; everything about jobs is here. A job's containers run on the same host as the tasks of ECS, and are
written down in the same ledger, but ECS does not show them as tasks.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import uuid4

from moto.batch.models import ComputeEnvironment, JobDefinition, JobQueue, batch_backends

from ecs_async_executor.local import batch_rules as rules
from ecs_async_executor.local import rates
from ecs_async_executor.local.account import Account
from ecs_async_executor.local.batch_backend import SERVICE_ROLE, LocalBatchBackend
from ecs_async_executor.local.batch_jobs import ENDED_FROM_OUTSIDE, USER_INITIATED, Attempt, BatchJob
from ecs_async_executor.local.errors import AwsError, encode_page, name_of
from ecs_async_executor.local.faults import NO_CAPACITY, Fault
from ecs_async_executor.local.ledger import Record
from ecs_async_executor.local.life import Container, Job, Life
from ecs_async_executor.local.outputs import DRIVER, Stream, elsewhere
from ecs_async_executor.local.place import Place
from ecs_async_executor.local.runners import NOT_STARTED
from ecs_async_executor.local.sizes import amount, check_job, smaller

CONTAINER = "default"
ENVIRONMENT = "default"
RETENTION = 7 * 86400.0
LOG_GROUP = "/aws/batch/job"
HOST_LOST = "Host EC2 (instance i-0a1b2c3d4e5f60718) terminated."
CAUSES: Mapping[str, tuple[str, str]] = {
    "spot": ("SpotInterruption", HOST_LOST),
    "fargate_spot": ("TerminationNotice", "Your Spot Task was interrupted."),
    "host": ("TerminationNotice", HOST_LOST),
    "infrastructure": ("InfrastructureHealth", "Task was stopped due to an issue with the underlying host."),
}
"""Ways to lose a host: the ledger's stop code, and the job's status reason."""

OLD_WAY = {"VCPU": "vcpus", "MEMORY": "memory"}
"""The members that say what ``resourceRequirements`` say in new definitions, by type."""
NO_ENVIRONMENT = (
    "MISCONFIGURATION:COMPUTE_ENVIRONMENT_MAX_RESOURCE - CE(s) associated with the job queue cannot meet the "
    "resource requirement of the job."
)
TIME_LIMIT = "Canceled by JobStateTimeLimit action due to reason: "
TOO_LONG = f"Container Overrides length must be at most {rules.MAX_OVERRIDES}"


class Batch:
    """
    The operations on jobs, in every place. Safe to use from any thread.

    :param delay: seconds from SubmitJob to RUNNABLE, half of them SUBMITTED and half PENDING
    :param retention: seconds that a finished job is remembered
    :param mark: a regular expression whose first group is the client's mark in a job's name; None: the name is it
    """

    name = "batch"
    operations = frozenset({"SubmitJob", "DescribeJobs", "ListJobs", "CancelJob", "TerminateJob"})
    causes = CAUSES

    def __init__(
        self, account: Account, *, delay: float = 0.0, retention: float = RETENTION, mark: str | None = None
    ) -> None:
        self.account = account
        self.host = account.host
        self.delay = delay
        self.retention = retention
        self._mark = re.compile(mark or "(.*)")
        self._lock = account.lock
        self._clear()
        account.services[self.name] = self

    def _clear(self) -> None:
        self._count = 0
        self._jobs: dict[str, BatchJob] = {}
        self._parts: dict[str, BatchJob] = {}
        self._queues: dict[str, dict[str, BatchJob]] = {}
        self._names: dict[tuple[str, str], dict[str, BatchJob]] = {}
        self._pools: dict[str, tuple[Place, str]] = {}

    def backend(self, place: Place) -> LocalBatchBackend:
        """Give moto's backend of a place, made ours first if moto made or reset the account."""
        with self._lock:
            account = batch_backends[place.account]
            if account.backend is not LocalBatchBackend:
                account.backend = LocalBatchBackend
                dict.clear(account)
            try:
                backend = account[place.region]
            except KeyError:
                raise rules.refused(f"Unknown region {place.region}") from None
        assert isinstance(backend, LocalBatchBackend)
        return backend

    def prepare(self, place: Place) -> None:
        """Put our backend in place of moto's, before moto answers a request of this service."""
        self.backend(place)

    def create_environment(self, place: Place) -> None:
        """Create the compute environment ``default``, on the ECS cluster of that name; in moto's own thread."""
        backend = self.backend(place)
        role = f"arn:aws:iam::{place.account}:role/aws-service-role/batch.amazonaws.com/{SERVICE_ROLE}"
        environment = ComputeEnvironment(  # type: ignore[abstract]  # moto never says that it is none
            ENVIRONMENT, "UNMANAGED", "ENABLED", {}, role, account_id=place.account, region_name=place.region
        )
        environment.set_ecs(f"arn:aws:ecs:{place.region}:{place.account}:cluster/{ENVIRONMENT}", ENVIRONMENT)
        backend._compute_environments[environment.arn] = environment  # noqa: SLF001

    def call(self, operation: str, params: Mapping[str, Any], place: Place, fault: Fault | None = None) -> str:
        """
        Carry out an operation on jobs and give the reply's JSON.

        :param fault: what is to become of the job that it submits
        :raises AwsError: if AWS would refuse it
        """
        with self._lock:
            backend = self.backend(place)
            if operation == "SubmitJob":
                return self._submit(backend, params, fault)
            if operation == "DescribeJobs":
                return self._describe(place, params)
            if operation == "ListJobs":
                return self._list(backend, params)
            return self._end(place, params, cancel=operation == "CancelJob")

    def without(
        self,
        operation: str,
        kind: str,
        params: Mapping[str, Any],  # noqa: ARG002
        place: Place,  # noqa: ARG002
        fault: Fault,  # noqa: ARG002
    ) -> str | None:
        """Give the reply's JSON of a fault that does no work, None if the operation knows no such fault."""
        if operation == "DescribeJobs" and kind in ("missing", "empty"):
            return '{"jobs":[]}'
        if kind == "empty":
            return '{"jobSummaryList":[]}' if operation == "ListJobs" else "{}"
        return None

    def buckets(self, operation: str, params: Mapping[str, Any], place: Place) -> Sequence[str]:  # noqa: ARG002
        """Name the rate limits that a call counts against."""
        if operation == "SubmitJob":
            return (rates.BATCH,)
        return (rates.BATCH_READ if operation.startswith(("Describe", "List")) else rates.BATCH_MODIFY,)

    def throttled(self) -> AwsError:
        """Make the error of a call that came too fast."""
        return AwsError("TooManyRequestsException", "Too Many Requests", 429)

    def expired(self) -> AwsError:
        """Make the error of a call with credentials that have expired."""
        return AwsError("ExpiredTokenException", "The security token included in the request is expired", 403)

    def knows(self, reference: str) -> bool:
        """Return whether a job, by id or ARN, or a job's task is one of this service."""
        return self._found(reference) is not None

    def parts(self, reference: str) -> list[str]:
        """Give the runner's names of a job's attempts, nothing if there is no such job."""
        with self._lock:
            job = self._jobs.get(name_of(reference))
            return [attempt.job.id for attempt in job.attempts] if job is not None else []

    def states(self, now: float) -> dict[str, object]:
        """Return the states of all jobs; the submission itself is no change."""
        return {name: job.status(now) for name, job in self._jobs.items()}

    def event(self, reference: str, now: float) -> tuple[Place, str, str]:
        """Return where a job is, its ARN, and itself as JSON."""
        job = self._jobs[reference]
        return job.place, job.arn, job.to_json(now)

    def show(self, reference: str) -> dict[str, Any]:
        """
        Show a job as DescribeJobs does.

        :param reference: id or ARN
        :raises KeyError: if there is no such job
        """
        with self._lock:
            now = self.host.settle()
            return self._existing(reference).record(now)

    def lose(self, reference: str, *, stop_code: str, reason: str, notice: float = 0.0) -> bool:
        """
        Let the host of a job vanish: no exit code; the retry strategy may have it run again.

        :param reference: id or ARN
        :param notice: seconds until it does
        :return: False if nothing of the job ran any more
        :raises KeyError: if there is no such job
        """
        with self._lock:
            return self.host.lose(self._existing(reference).attempts[-1].job, stop_code, reason, notice)

    def limits_changed(self) -> None:
        """Let what waits in RUNNABLE have the room that there is now."""
        with self._lock:
            now = self.host.settle()
            for pool, (place, queue) in self._pools.items():
                self.host.resize(pool, self.account.limits.limit(place, queue), now)

    def interrupt(self, reference: str) -> None:
        """
        Interrupt a job as Spot does: on EC2 its host vanishes, on Fargate its processes are asked to end.

        :raises KeyError: if there is no such job
        """
        with self._lock:
            self._interrupt(self._existing(reference), 0.0)

    def _interrupt(self, job: BatchJob, after: float) -> None:
        gone = "FARGATE" not in job.platforms
        _, reason = CAUSES["spot" if gone else "fargate_spot"]
        self.host.interrupt(job.attempts[-1].job, "SpotInterruption", reason, after=after, gone=gone)

    def reset(self) -> None:
        """Forget every job; what runs is killed first."""
        with self._lock:
            for job in list(self._jobs.values()):
                job.final = True
                for attempt in job.attempts:
                    self.host.lose(attempt.job, USER_INITIATED, "The server was reset.")
                    self.host.forget(attempt.job)
            self._clear()

    def ended(self, job: Job, at: float) -> None:  # noqa: ARG002
        """Learn that nothing of an attempt runs any more; another one may follow."""
        found = self._parts.get(job.id)
        if found is None or found.final:
            return
        attempt = found.attempts[-1]
        if attempt.exit_code() == 0 or attempt.life.stop_code in ENDED_FROM_OUTSIDE:
            return
        if not rules.tries_again(
            found.retry,
            len(found.attempts),
            exit_code=attempt.exit_code(),
            reason=attempt.reason(),
            status_reason=attempt.life.stopped_reason or "",
        ):
            return
        stopped = attempt.life.stopped_at
        assert stopped is not None
        following = self._attempt(found, stopped, attempt.instance_arn)
        self.host.follow(
            following.job,
            following.life,
            pool=self._pool(found),
            not_before=stopped,
            retention=self.retention,
        )

    def expire(self, job: Job) -> None:
        """Forget an attempt, and with the last one the job."""
        found = self._parts.pop(job.id, None)
        if found is None or found.attempts[-1].job is not job:
            return
        for attempt in found.attempts:
            self._parts.pop(attempt.job.id, None)
        self._jobs.pop(found.id, None)
        self._queues.get(found.queue_arn, {}).pop(found.id, None)
        name = (found.queue_arn, found.name.lower())
        named = self._names.get(name, {})
        named.pop(found.id, None)
        if not named:
            self._names.pop(name, None)

    def _found(self, reference: str) -> BatchJob | None:
        last = name_of(reference)
        return self._jobs.get(last) or self._parts.get(last)

    def _existing(self, reference: str) -> BatchJob:
        found = self._found(reference)
        if found is None:
            raise KeyError(name_of(reference))
        return found

    def _pool(self, job: BatchJob) -> str:
        limits = self.account.limits
        pool = limits.counter(job.place, job.queue_name)
        if pool not in self._pools:
            self._pools[pool] = (job.place, job.queue_name)
            self.host.resize(pool, limits.limit(job.place, job.queue_name), self.host.settle())
        return pool

    def _submit(self, backend: LocalBatchBackend, params: Mapping[str, Any], fault: Fault | None) -> str:
        rules.check_submit(params)
        queue = backend.find_queue(params["jobQueue"])
        if queue.state != "ENABLED":
            raise rules.refused(f"JobQueue {queue.name} is not in ENABLED state")
        definition = backend.find_definition(params["jobDefinition"])
        if definition.container_properties is None:
            raise rules.refused(f"The local Batch does not support the kind of job definition {definition.name}")
        needs = _needs(definition.container_properties, params.get("containerOverrides") or {})
        check_job(needs, fargate="FARGATE" in (definition.platform_capabilities or ()))
        now = self.host.settle()
        job = self._make(backend, queue, definition, params, now, fault)
        attempt = self._attempt(job, now, _instance_arn(job, queue, backend))
        life = attempt.life
        self._jobs[job.id] = job
        self._queues.setdefault(job.queue_arn, {})[job.id] = job
        self._names.setdefault((job.queue_arn, job.name.lower()), {})[job.id] = job
        counted = self.account.behaviour.batch_variables == "counted"
        added = {**_added(job.id, queue), "AWS_BATCH_JOB_ATTEMPT": "1"} if counted else {}
        if rules.overrides_are_too_long(params.get("containerOverrides") or {}, added):
            job.final = True
            self.host.reject(attempt.job, life, job.runnable_at, NOT_STARTED, TOO_LONG, retention=self.retention)
        else:
            pool = self._pool(job)
            if fault is not None and fault.kind in ("stuck", "unplaced"):
                life.waiting_reason = fault.reason or NO_CAPACITY
            elif self.host.pools.get(pool) == 0:
                life.waiting_reason = NO_ENVIRONMENT
            self._place(job, pool, now, fault)
        return json.dumps({"jobArn": job.arn, "jobName": job.name, "jobId": job.id})

    def _place(self, job: BatchJob, pool: str, now: float, fault: Fault | None) -> None:
        """Give a job its place, now or later or never."""
        (attempt,) = job.attempts
        if fault is not None and fault.kind == "unplaced":
            job.final = True
            at = job.runnable_at + fault.seconds
            job.limited_at = at if self.account.behaviour.time_limit_cancels else None
            reason = f"{TIME_LIMIT}{(fault.reason or NO_CAPACITY).partition(' - ')[0]}"
            self.host.reject(attempt.job, attempt.life, at, USER_INITIATED, reason, retention=self.retention)
            return
        not_before = max(job.runnable_at, self.account.hold(now, fault))
        self.host.submit(attempt.job, attempt.life, pool=pool, not_before=not_before, retention=self.retention)
        if fault is not None and fault.kind == "interrupted":
            self._interrupt(job, fault.seconds)

    def _make(
        self,
        backend: LocalBatchBackend,
        queue: JobQueue,
        definition: JobDefinition,
        params: Mapping[str, Any],
        now: float,
        fault: Fault | None,
    ) -> BatchJob:
        properties = definition.container_properties or {}
        overrides = params.get("containerOverrides") or {}
        parameters = {**(definition.parameters or {}), **(params.get("parameters") or {})}
        command = [
            _filled(word, parameters) for word in overrides.get("command") or properties.get("command") or ()
        ]
        environment = {
            pair["name"]: pair.get("value", "")
            for source in (properties, overrides)
            for pair in source.get("environment") or ()
        }
        visible_at, listed_at = self.account.sight(now, fault)
        id_ = str(uuid4())
        self._count += 1
        return BatchJob(
            id=id_,
            arn=f"arn:aws:batch:{backend.region_name}:{backend.account_id}:job/{id_}",
            name=params["jobName"],
            place=backend.place,
            sequence=self._count,
            queue_arn=queue.arn,
            queue_name=queue.name,
            definition_arn=definition.arn,
            definition=f"{definition.name}:{definition.revision}",
            created_at=now,
            pending_at=now + self.delay / 2,
            runnable_at=now + self.delay,
            visible_at=visible_at,
            listed_at=listed_at,
            container=_container(properties, overrides, command, environment, realistic=self.account.realistic),
            parameters=parameters,
            retry=params.get("retryStrategy") or definition.retry_strategy or {},
            timeout=params.get("timeout") or definition.timeout,
            tags=params.get("tags") or {},
            platforms=list(definition.platform_capabilities or ()),
            propagate_tags=bool(params.get("propagateTags") or definition.propagate_tags),
            command=tuple(command),
            memory=smaller(amount(_needs(properties, overrides).get("MEMORY"))),
            environment={
                **environment,
                **_added(id_, queue),
            },
            realistic=self.account.realistic,
        )

    def _attempt(self, job: BatchJob, created_at: float, instance_arn: str | None) -> Attempt:
        """Make another attempt of a job and write it down."""
        found = self._mark.fullmatch(job.name)
        mark = found[1] if found is not None else job.name
        number, nth = self.account.number(mark, job.command)
        environment = {**job.environment, "AWS_BATCH_JOB_ATTEMPT": str(len(job.attempts) + 1)}
        seconds = (job.timeout or {}).get("attemptDurationSeconds")
        part = Job(
            id=uuid4().hex,
            definition=job.definition,
            started_by=mark,
            containers=(
                Container(CONTAINER, job.command, environment, image=job.container["image"], memory=job.memory),
            ),
            main=CONTAINER,
            number=number,
            attempt=nth,
            time_limit=float(seconds) if seconds is not None else None,
        )
        attempt = Attempt(
            job=part,
            life=Life(created_at),
            task_arn=f"arn:aws:ecs:{job.place.region}:{job.place.account}:task/"
            f"{job.environment['AWS_BATCH_CE_NAME']}/{part.id}",
            log_stream=f"{job.definition.partition(':')[0]}/{CONTAINER}/{part.id}",
            instance_arn=instance_arn,
        )
        self.account.outputs.expect(part, attempt.life, _stream(job, attempt))
        job.attempts.append(attempt)
        self._parts[part.id] = job
        self.account.accept(
            self,
            Record(
                service=self.name,
                id=job.id,
                token="",
                cluster=job.queue_name,
                place=job.place,
                launch_type="FARGATE" if "FARGATE" in job.platforms else "EC2",
                job=part,
                life=attempt.life,
            ),
        )
        return attempt

    def _describe(self, place: Place, params: Mapping[str, Any]) -> str:
        references: Sequence[str] = params.get("jobs") or ()
        rules.check_describe(references)
        now = self.host.settle()
        found = (self._jobs.get(name_of(reference)) for reference in dict.fromkeys(references))
        shown = (j.to_json(now) for j in found if j is not None and j.place == place and now >= j.visible_at)
        return f'{{"jobs":[{",".join(shown)}]}}'

    def _list(self, backend: LocalBatchBackend, params: Mapping[str, Any]) -> str:
        before, size = rules.check_list(params)
        if not params.get("jobQueue"):
            return '{"jobSummaryList":[]}'
        queue = backend.find_queue(params["jobQueue"])
        now = self.host.settle()
        page: list[BatchJob] = []
        for job in self._candidates(queue.arn, params, now):
            if (before is None or job.sequence < before) and now >= job.listed_at:
                page.append(job)
                if len(page) > size:
                    break
        reply: dict[str, Any] = {"jobSummaryList": [job.summary(now) for job in page[:size]]}
        if len(page) > size:
            reply["nextToken"] = encode_page(page[size - 1].sequence)
        return json.dumps(reply)

    def _candidates(self, queue_arn: str, params: Mapping[str, Any], now: float) -> Iterable[BatchJob]:
        """Give what a listing is about, the newest first."""
        jobs = self._queues.get(queue_arn, {})
        filters = params.get("filters")
        if not filters:
            wanted = params.get("jobStatus") or "RUNNING"
            return (job for job in reversed(jobs.values()) if job.status(now) == wanted)
        name, values = filters[0]["name"], filters[0]["values"]
        if name == "JOB_NAME" and not any(value.endswith("*") for value in values):
            exact = {k: v for value in values for k, v in self._names.get((queue_arn, value.lower()), {}).items()}
            return sorted(exact.values(), key=lambda job: -job.sequence)
        return (job for job in reversed(jobs.values()) if any(_passes(job, name, value) for value in values))

    def _end(self, place: Place, params: Mapping[str, Any], *, cancel: bool) -> str:
        for name in ("jobId", "reason"):
            if not params.get(name):
                raise rules.refused(f"{name} can not be blank")
        now = self.host.settle()
        job = self._jobs.get(name_of(params["jobId"]))
        if job is None or job.place != place:
            raise rules.refused(f"Job {params['jobId']} not found")
        status = job.status(now)
        if status in ("SUCCEEDED", "FAILED") or (cancel and status in ("STARTING", "RUNNING")):
            return "{}"
        job.final = True
        job.terminated = job.terminated or not cancel
        job.cancelled = job.cancelled or cancel
        self.host.stop(job.attempts[-1].job, USER_INITIATED, params["reason"])
        return "{}"


def _added(job_id: str, queue: JobQueue) -> dict[str, str]:
    """Return the variables that Batch adds to a job's own."""
    return {
        "AWS_BATCH_JOB_ID": job_id,
        "AWS_BATCH_JQ_NAME": queue.name,
        "AWS_BATCH_CE_NAME": queue.environments[0].name,
    }


def _filled(word: str, parameters: Mapping[str, str]) -> str:
    """Put parameters in the place of ``Ref::name``."""
    for name in sorted(parameters, key=len, reverse=True):
        word = word.replace(f"Ref::{name}", parameters[name])
    return word


def _passes(job: BatchJob, name: str, value: str) -> bool:
    """Return whether a job passes a filter of ListJobs."""
    if name == "JOB_NAME":
        return rules.named(value.lower(), job.name.lower())
    if name == "JOB_DEFINITION":
        return value == job.definition_arn or rules.named(value, job.definition.partition(":")[0])
    if name == "BEFORE_CREATED_AT":
        return job.created_at * 1000 < float(value)
    if name == "AFTER_CREATED_AT":
        return job.created_at * 1000 > float(value)
    return False


def _container(
    properties: Mapping[str, Any],
    overrides: Mapping[str, Any],
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    realistic: bool,
) -> dict[str, Any]:
    """Show what is known of a container before it has run."""
    needs = {r["type"]: r for s in (properties, overrides) for r in s.get("resourceRequirements") or ()}
    container: dict[str, Any] = {
        "image": properties.get("image", ""),
        "command": list(command),
        "resourceRequirements": list(needs.values()),
    }
    for name in ("vcpus", "memory"):
        said = overrides.get(name) or properties.get(name)
        if said:
            container[name] = said
    if properties.get("ephemeralStorage"):
        container["ephemeralStorage"] = properties["ephemeralStorage"]
    if realistic:
        empty: dict[str, Any] = {
            name: properties.get(name) or [] for name in ("volumes", "mountPoints", "ulimits", "secrets")
        }
        container |= empty
        container["environment"] = [{"name": name, "value": value} for name, value in environment.items()]
        container["networkInterfaces"] = []
        for name in ("jobRoleArn", "executionRoleArn", "logConfiguration", "networkConfiguration"):
            if properties.get(name):
                container[name] = properties[name]
    return container


def _needs(properties: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, str]:
    """Return what a job asks for, by type; what it overrides wins, whichever way of saying it is used."""
    needs: dict[str, str] = {}
    for source in (properties, overrides):
        needs |= {kind: str(source[name]) for kind, name in OLD_WAY.items() if source.get(name)}
        needs |= {r["type"]: str(r["value"]) for r in source.get("resourceRequirements") or ()}
    return needs


def _stream(job: BatchJob, attempt: Attempt) -> Stream | None:
    """Return where Batch sends the output of an attempt, None if its log driver is not awslogs."""
    configuration = job.container.get("logConfiguration") or {}
    if configuration.get("logDriver", DRIVER) != DRIVER:
        return None
    options = configuration.get("options") or {}
    group = options.get("awslogs-group") or LOG_GROUP
    return Stream(elsewhere(job.place, options), group, attempt.log_stream)


def _instance_arn(job: BatchJob, queue: JobQueue, backend: LocalBatchBackend) -> str | None:
    if "FARGATE" in job.platforms:
        return None
    cluster = queue.environments[0].ecs_name
    return f"arn:aws:ecs:{backend.region_name}:{backend.account_id}:container-instance/{cluster}/{'0' * 31}1"
