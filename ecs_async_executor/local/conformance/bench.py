"""
What the checks work with: clients, containers that several of them look at, and the clearing up afterwards.

May import :mod:`model` and :mod:`target`. A bench remembers what it starts and makes, stops it with
:meth:`Bench.stop` after each check, and removes the rest with :meth:`Bench.clear`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any
from uuid import uuid4

from botocore.exceptions import BotoCoreError, ClientError

from ecs_async_executor.local.conformance.model import Unanswered
from ecs_async_executor.local.conformance.target import Target

EXIT_CODE = 7
REASON = "conformance: enough"
MARK = "AIRFLOW_CONFORMANCE"
LONG = "trap 'exit 143' TERM; sleep 600 & wait"
CLEARING_ROUNDS = 90
OUTAGE = 500
NO_ANSWER = (
    "AccessDenied",
    "UnrecognizedClient",
    "InvalidClientTokenId",
    "ExpiredToken",
    "Signature",
    "Throttling",
    "TooManyRequests",
    "RequestTimeout",
)
"""Parts of the error codes that say nothing about a request's content."""
BUILD = {"name": "main", "essential": True, "memory": 128}


@dataclass(frozen=True, slots=True)
class Sight:
    """
    One look at a container.

    :param at: seconds after it was accepted
    :param record: what the service shows; None if it says that there is no such container
    :param listed: a listing by its mark has it
    """

    at: float
    record: Mapping[str, Any] | None
    listed: bool

    @property
    def status(self) -> str:
        """The last status, ``MISSING`` without a record."""
        return (
            "MISSING" if self.record is None else str(self.record.get("lastStatus") or self.record.get("status"))
        )


@dataclass(frozen=True, slots=True)
class Story:
    """
    A container from RunTask or SubmitJob to its end, look by look.

    :param request: what it was started with
    """

    id: str
    request: Mapping[str, Any]
    sights: tuple[Sight, ...]

    @property
    def last(self) -> Mapping[str, Any]:
        """The record at the end."""
        record = self.sights[-1].record
        assert record is not None
        return record

    def since(self, when: Callable[[Sight], bool]) -> float | None:
        """Return when something was seen first, in seconds after the start; None if never."""
        return next((sight.at for sight in self.sights if when(sight)), None)


class Bench:
    """
    A target's services, for one run of the checks.

    :param ecs: a boto3 client
    :param batch: likewise; None if there is no Batch to ask
    :param clock: seconds
    """

    def __init__(
        self,
        target: Target,
        ecs: Any,
        batch: Any = None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.target = target
        self.ecs = ecs
        self.batch = batch
        self.name = f"conformance-{uuid4().hex[:12]}"
        self.calls = 0
        self.containers = 0
        self._clock = clock
        self._sleep = sleep
        self._started: set[str] = set()
        self._tasks: dict[str, str] = {}
        self._jobs: list[str] = []
        self._left: list[str] = []
        self._undo: list[tuple[str, Callable[[], object]]] = []
        for client in (ecs, batch):
            if client is not None:
                client.meta.events.register("before-call", self._count)

    def _count(self, **_: Any) -> None:
        self.calls += 1

    def token(self) -> str:
        """Make a client token that was never used."""
        return f"{self.name}-{uuid4().hex[:12]}"

    # --- what is made on the way ---

    @cached_property
    def definition(self) -> str:
        """A task definition for the target's launch type."""
        given = self.target.task_definition
        if given is not None:
            return given
        kind = "FARGATE" if self.target.fargate() else "EC2"
        return self._register(
            self.name, networkMode="awsvpc", requiresCompatibilities=[kind], cpu="256", memory="512"
        )

    @cached_property
    def ec2_definition(self) -> str:
        """A task definition for any container instance."""
        return self._register(f"{self.name}-ec2", networkMode="bridge", requiresCompatibilities=["EC2"])

    def _register(self, family: str, **params: Any) -> str:
        container = {**BUILD, "image": self.target.image, "name": self.target.container}
        reply = self.ecs.register_task_definition(family=family, containerDefinitions=[container], **params)
        arn: str = reply["taskDefinition"]["taskDefinitionArn"]
        self.undo(f"task definition {family}", lambda: self.ecs.deregister_task_definition(taskDefinition=arn))
        return arn

    @cached_property
    def other_cluster(self) -> str:
        """Another cluster, without container instances; gives its name."""
        self.ecs.create_cluster(clusterName=self.name)
        self.undo(f"cluster {self.name}", lambda: self.ecs.delete_cluster(cluster=self.name))
        return self.name

    def undo(self, what: str, how: Callable[[], object]) -> None:
        """Remember how to remove something that was made."""
        self._undo.append((what, how))

    # --- tasks ---

    def request(self, script: str, **params: Any) -> dict[str, Any]:
        """Make the parameters of a RunTask that runs a shell script; ``params`` replace them."""
        override = {"name": self.target.container, "command": ["sh", "-c", script]}
        wanted: dict[str, Any] = {
            "cluster": self.target.cluster,
            "taskDefinition": self.definition,
            "overrides": {"containerOverrides": [override]},
            **self.target.placement(),
            **params,
        }
        return {name: value for name, value in wanted.items() if value is not None}

    def run_task(self, **params: Any) -> dict[str, Any]:
        """Send a RunTask; what it starts is stopped at the end."""
        reply: dict[str, Any] = self.ecs.run_task(**params)
        for task in reply["tasks"]:
            if task["taskArn"] not in self._started:
                self._started.add(task["taskArn"])
                self._tasks[task["taskArn"]] = params.get("cluster", "default")
                self.containers += 1
        return reply

    def start(self, **params: Any) -> str:
        """
        Start a task and give its ARN.

        :raises Unanswered: if it is not accepted
        """
        reply = self.run_task(**params)
        if not reply["tasks"]:
            raise Unanswered(f"the task was not accepted: {reply['failures']}")
        arn: str = reply["tasks"][0]["taskArn"]
        return arn

    def described(self, arn: str) -> dict[str, Any] | None:
        """Describe a task of the target's cluster; None if it is missing."""
        reply = self.ecs.describe_tasks(cluster=self.target.cluster, tasks=[arn])
        return reply["tasks"][0] if reply["tasks"] else None

    def follow(self, script: str, meanwhile: Callable[[str, Sight], None] | None = None, **params: Any) -> Story:
        """
        Start a task with a mark of its own and look at it until it has stopped.

        :param meanwhile: called with its ARN after each look
        :raises Unanswered: if it does not start, or not stop, within the target's patience
        """
        mark = uuid4().hex
        request = self.request(script, startedBy=mark, clientToken=self.token(), **params)
        arn = self.start(**request)
        begun = self._clock()

        def look() -> Sight:
            listed = self.ecs.list_tasks(cluster=self.target.cluster, startedBy=mark)["taskArns"]
            record = self.described(arn)
            return Sight(self._clock() - begun, record, arn in listed)

        sights = self._watch(arn, look, meanwhile, ("STOPPED", "DELETED"))
        del self._tasks[arn]
        return Story(arn, request, sights)

    def _watch(
        self,
        reference: str,
        look: Callable[[], Sight],
        meanwhile: Callable[[str, Sight], None] | None,
        final: tuple[str, ...],
    ) -> tuple[Sight, ...]:
        sights: list[Sight] = []
        while not sights or sights[-1].status not in final:
            if sights:
                self._sleep(self.target.interval)
            sights.append(look())
            if meanwhile is not None:
                meanwhile(reference, sights[-1])
            if sights[-1].at > 2 * self.target.patience + self.target.work:
                raise Unanswered(f"after {sights[-1].at:.0f} s it is still {sights[-1].status}")
        return tuple(sights)

    @cached_property
    def finished(self) -> Story:
        """A task that works a little and exits with :data:`EXIT_CODE`."""
        request = self.request(f"sleep {self.target.work}; exit {EXIT_CODE}")
        override = request["overrides"]["containerOverrides"][0]
        override["environment"] = [{"name": MARK, "value": f"{self.name} = ü"}]
        return self.follow("", overrides=request["overrides"])

    @cached_property
    def stopped(self) -> Story:
        """A task that is stopped while it runs."""
        asked: list[str] = []

        def stop(arn: str, sight: Sight) -> None:
            if sight.status == "RUNNING" and not asked:
                asked.append(arn)
                self.ecs.stop_task(cluster=self.target.cluster, task=arn, reason=REASON)

        return self.follow(LONG, stop)

    @cached_property
    def failed_to_start(self) -> Story:
        """A task whose command does not exist."""
        override = {"name": self.target.container, "command": ["/no/such/command"]}
        return self.follow("", overrides={"containerOverrides": [override]})

    # --- jobs ---

    def submit(self, script: str, name: str | None = None, **overrides: Any) -> tuple[str, str]:
        """Submit a job that runs a shell script; give its name and its id. It is terminated at the end."""
        name = name or f"conformance-{uuid4().hex}"
        reply = self.batch.submit_job(
            jobName=name,
            jobQueue=self.target.job_queue,
            jobDefinition=self.target.job_definition,
            containerOverrides={"command": ["sh", "-c", script], **overrides},
        )
        self._jobs.append(reply["jobId"])
        self.containers += 1
        return name, reply["jobId"]

    def named(self, name: str) -> list[str]:
        """List the ids of the jobs with a name, or with a prefix that ends in ``*``."""
        filters = [{"name": "JOB_NAME", "values": [name]}]
        reply = self.batch.list_jobs(jobQueue=self.target.job_queue, filters=filters)
        return [job["jobId"] for job in reply["jobSummaryList"]]

    def follow_job(
        self, script: str, meanwhile: Callable[[str, Sight], None] | None = None, **overrides: Any
    ) -> Story:
        """
        Submit a job and look at it until it has ended.

        :raises Unanswered: if it does not end within the target's patience
        """
        name, job = self.submit(script, **overrides)
        begun = self._clock()

        def look() -> Sight:
            listed = self.named(name)
            found = self.batch.describe_jobs(jobs=[job])["jobs"]
            return Sight(self._clock() - begun, found[0] if found else None, job in listed)

        sights = self._watch(job, look, meanwhile, ("SUCCEEDED", "FAILED"))
        self._jobs.remove(job)
        return Story(job, {"jobName": name}, sights)

    @cached_property
    def finished_job(self) -> Story:
        """A job that exits with :data:`EXIT_CODE`."""
        return self.follow_job(f"sleep {self.target.work}; exit {EXIT_CODE}")

    @cached_property
    def terminated_job(self) -> Story:
        """A job that is terminated while it waits or runs."""
        asked: list[str] = []

        def terminate(job: str, sight: Sight) -> None:
            if sight.record is not None and not asked:
                asked.append(job)
                self.batch.terminate_job(jobId=job, reason=REASON)

        return self.follow_job(LONG, terminate)

    # --- the end ---

    def stop(self) -> None:
        """Stop every task and job that may still run."""
        for arn, cluster in self._tasks.items():
            self._try(arn, partial(self.ecs.stop_task, cluster=cluster, task=arn, reason=REASON))
        for job in self._jobs:
            self._try(job, partial(self.batch.terminate_job, jobId=job, reason=REASON))
        self._tasks.clear()
        self._jobs.clear()

    def clear(self) -> list[str]:
        """Stop and remove everything that was started or made; give what could not be."""
        self.stop()
        for what, how in reversed(self._undo):
            self._try(what, how)
        self._undo.clear()
        return self._left

    def _try(self, what: str, how: Callable[[], object]) -> None:
        for left in reversed(range(CLEARING_ROUNDS)):
            problem = _problem(how)
            if problem is None or "was not found" in problem:
                return
            # A cluster cannot go before the tasks in it are gone.
            if not left or "ClusterContains" not in problem:
                self._left.append(f"{what}: {problem}")
                return
            self._sleep(self.target.interval)


def _problem(call: Callable[[], object]) -> str | None:
    try:
        call()
    except (ClientError, BotoCoreError) as error:
        return str(error)
    return None


def refusal(call: Callable[[], object]) -> tuple[str, str, int, Mapping[str, Any]] | None:
    """
    Return code, message, HTTP status and the reply of the error that a call ends in; None if it succeeds.

    :raises Unanswered: if the error says nothing about the request: permissions, credentials, rates, outages
    """
    try:
        call()
    except ClientError as error:
        reply = error.response
        code, status = reply["Error"]["Code"], reply["ResponseMetadata"]["HTTPStatusCode"]
        if status >= OUTAGE or any(word in code for word in NO_ANSWER):
            raise Unanswered(str(error)) from error
        return code, reply["Error"]["Message"], status, reply
    return None
