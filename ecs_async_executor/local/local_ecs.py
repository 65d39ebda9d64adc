"""The local AWS as a context manager: the server in a thread of this process, on a port of its own."""

from __future__ import annotations

import asyncio
import os
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import TYPE_CHECKING, Any

from aiohttp import web

from ecs_async_executor.local import rates
from ecs_async_executor.local.account import Account, acquire_account, release_account
from ecs_async_executor.local.batch import RETENTION, Batch
from ecs_async_executor.local.behaviour import DEFAULT, Behaviour
from ecs_async_executor.local.ecs import Ecs
from ecs_async_executor.local.ecs_placement import Instance
from ecs_async_executor.local.errors import name_of
from ecs_async_executor.local.faults import Faults
from ecs_async_executor.local.host import Host
from ecs_async_executor.local.ledger import Ledger
from ecs_async_executor.local.place import Place
from ecs_async_executor.local.runners import Runner, SubprocessRunner
from ecs_async_executor.local.scaling import ScalingGroup
from ecs_async_executor.local.scripted import Rule, ScriptedRunner
from ecs_async_executor.local.server import Front, Latency, Statistics

if TYPE_CHECKING:
    from typing_extensions import Self


class LocalEcs:
    """
    A local ECS and Batch that run while the context is open; usable from any thread.

    Several may be open in one process: each has an account of its own and shares nothing, except for an account
    whose roles are assumed at both. Cluster ``default`` exists, and so do Batch's compute environment ``default``,
    job queue ``default`` and job definition ``airflow``. On exit everything that runs is ended and reaped.

    It answers for every Region, and for every account of which a client assumes a role; nothing of one is known in
    another, and limits count in each on its own. All of them share the host.

    :param runner: ``subprocess``, ``scripted``, or a runner of your own
    :param script: the rules of the scripted runner
    :param latency: seconds that every answer takes at least: a number, a pair to draw from, or these per
        operation
    :param max_running: how many tasks and jobs run at a time; the others wait in PROVISIONING or RUNNABLE
    :param capacity: how many tasks may run per launch type or capacity provider, beyond it RunTask answers with
        ``failures``; and how many jobs per job queue, beyond it they wait in RUNNABLE. ``<Region>/<name>`` is for
        one Region
    :param groups: Auto Scaling groups by the name of their capacity provider: what finds no place there waits in
        PROVISIONING until hosts come, or ends as TaskFailedToStart
    :param instances: container instances per cluster; a task that is too large for all of them gets a failure for
        each
    :param behaviour: what the services do where they can do it in more than one way: switches, or the name of a
        preset (``default``, ``aws``)
    :param limits: True to enforce AWS's default rate limits, or limits of your own
    :param quotas: what Service Quotas shows, by the names of the quotas; None: those of a new account
    :param visible_after: seconds after RunTask during which a task is MISSING, and after SubmitJob during which
        DescribeJobs leaves a job out
    :param listed_after: seconds during which it is not listed, None for the same
    :param retention: seconds that a stopped task is remembered
    :param job_retention: seconds that a finished job is remembered
    :param job_delay: seconds from SubmitJob to RUNNABLE
    :param job_mark: a regular expression; what its first group matches in a job's name is the client's mark, by
        which rules and the ledger know it. None: the whole name
    :param realistic: answers as large as AWS's
    :param start_delay: seconds from placement to start (subprocess)
    :param stop_timeout: seconds between SIGTERM and SIGKILL (subprocess)
    :param environment: variables for every process (subprocess)
    :param missing_images: patterns with ``*`` of the names of images that cannot be pulled (subprocess)
    :param log_dir: where processes' output goes (subprocess); None for a directory that goes with the server
    :param ledger_path: a file to append JSON lines to
    :param clusters: what to create besides ``default``
    :param job_queues: what to create besides ``default``
    :param region: where requests without a signature go
    :param regions: further Regions in which to create all that
    :param seed: of everything that is drawn
    :param clock: wall-clock seconds; replace it to travel in time with a scripted runner
    :param shutdown_timeout: seconds that processes get after SIGTERM on exit
    """

    def __init__(
        self,
        *,
        runner: str | Runner = "scripted",
        script: Iterable[Rule | Mapping[str, Any]] = (),
        latency: Latency = 0.0,
        max_running: int | None = None,
        capacity: Mapping[str, int] | None = None,
        groups: Mapping[str, ScalingGroup | Mapping[str, Any]] | None = None,
        instances: Mapping[str, Sequence[Instance]] | None = None,
        behaviour: Behaviour | Mapping[str, object] | str = DEFAULT,
        limits: bool | Mapping[str, rates.Rate] = False,
        quotas: Mapping[str, float] | None = None,
        visible_after: float = 0.0,
        listed_after: float | None = None,
        retention: float = 3600.0,
        job_retention: float = RETENTION,
        job_delay: float = 0.0,
        job_mark: str | None = None,
        realistic: bool = True,
        start_delay: float = 0.0,
        stop_timeout: float = 30.0,
        environment: Mapping[str, str] | None = None,
        inherit_environment: bool = False,
        missing_images: Sequence[str] = (),
        log_dir: str | os.PathLike[str] | None = None,
        ledger_path: str | os.PathLike[str] | None = None,
        clusters: Sequence[str] = (),
        job_queues: Sequence[str] = (),
        region: str = "us-east-1",
        regions: Sequence[str] = (),
        host: str = "127.0.0.1",
        port: int = 0,
        seed: int = 0,
        clock: Callable[[], float] = time.time,
        shutdown_timeout: float = 5.0,
    ) -> None:
        if runner == "subprocess":
            runner = SubprocessRunner(
                log_dir=log_dir,
                start_delay=start_delay,
                stop_timeout=stop_timeout,
                environment=environment,
                inherit_environment=inherit_environment,
                missing_images=missing_images,
            )
        elif runner == "scripted":
            runner = ScriptedRunner(script, seed=seed)
        elif isinstance(runner, str):
            msg = f"runner must be 'subprocess', 'scripted' or a runner, not {runner!r}"
            raise ValueError(msg)
        self.runner: Runner = runner
        self.region = region
        self._regions = dict.fromkeys((region, *regions))
        self.faults = Faults(seed=seed)
        self._clusters = dict.fromkeys(("default", *clusters))
        self._job_queues = dict.fromkeys(("default", *job_queues))
        self._definitions: list[Mapping[str, Any]] = []
        self._latency: Latency = latency
        self._limits = rates.AWS_RATES if limits is True else (limits or None)
        self._address = (host, port)
        self._seed = seed
        self._shutdown_timeout = shutdown_timeout
        self._thread: threading.Thread | None = None
        self._make_host = lambda ended, expired: Host(
            self.runner,
            max_running=max_running,
            retention=retention,
            clock=clock,
            ended=ended,
            expired=expired,
        )
        self._groups = groups
        self._instances = dict(instances or {})
        self._clusters |= dict.fromkeys(self._instances)
        self._batch_options: dict[str, Any] = {"delay": job_delay, "retention": job_retention, "mark": job_mark}
        self._options: dict[str, Any] = {
            "capacity": capacity,
            "visible_after": visible_after,
            "listed_after": listed_after,
            "realistic": realistic,
            "behaviour": Behaviour.of(behaviour),
            "quotas": quotas,
            "ledger_path": ledger_path,
        }

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """
        Serve; returns when clients can connect.

        :raises OSError: if the address cannot be bound
        """
        account = acquire_account()
        try:
            self._account = Account(self._make_host, Place(account, self.region), **self._options)
            self._ecs = Ecs(self._account, faults=self.faults, groups=self._groups)
            self._batch = Batch(self._account, **self._batch_options)
            ready: Future[tuple[Front, int, asyncio.AbstractEventLoop, asyncio.Event]] = Future()
            self._thread = threading.Thread(target=self._run, args=(ready,), name="local-ecs", daemon=True)
            self._thread.start()
            self._front, self.port, self._loop, self._stopping = ready.result()
            self._front.on_reset(self._set_up)
            self._set_up()
        except BaseException:
            if self._thread is not None and hasattr(self, "_stopping"):
                self.stop()
            else:
                release_account(account, {account})
            raise

    def stop(self) -> None:
        """End and reap everything that runs, and stop serving. Safe to call twice."""
        thread, self._thread = self._thread, None
        if thread is None:
            return
        self._loop.call_soon_threadsafe(self._stopping.set)
        thread.join()
        self._account.host.close(self._shutdown_timeout)
        self._account.ledger.close()
        release_account(self._account.home.account, self._account.accounts)

    @property
    def url(self) -> str:
        """The endpoint to give to clients."""
        return f"http://{self._address[0]}:{self.port}"

    @property
    def account(self) -> str:
        """The AWS account that clients find themselves in."""
        return self._account.home.account

    @property
    def ledger(self) -> Ledger:
        """Every container that was accepted, of ECS and of Batch."""
        return self._account.ledger

    @property
    def statistics(self) -> Statistics:
        """What the server has seen; live."""
        return self._front.statistics

    @property
    def latency(self) -> Latency:
        """How long every answer takes at least; may be set at any time."""
        return self._front.latency

    @latency.setter
    def latency(self, value: Latency) -> None:
        self._front.latency = value

    @property
    def behaviour(self) -> Behaviour:
        """What the services do where they can do it in more than one way; may be set at any time."""
        return self._account.behaviour

    @behaviour.setter
    def behaviour(self, value: Behaviour | Mapping[str, object] | str) -> None:
        self._account.behaviour = Behaviour.of(value)

    @property
    def running(self) -> int:
        """How many tasks and jobs have a place."""
        return self._account.host.running

    @property
    def waiting(self) -> int:
        """How many tasks and jobs wait for a place."""
        return self._account.host.waiting

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which an AWS client in another process finds this server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "local",
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": self.region,
            "AWS_DEFAULT_REGION": self.region,
        }

    def place(self, region: str | None = None, account: str | None = None) -> Place:
        """Return a Region of an account; by default those in which clients find themselves."""
        return Place(account or self.account, region or self.region)

    def client(self, service: str = "ecs", *, account: str | None = None, **options: Any) -> Any:
        """
        Make a boto3 client of a service of this server.

        :param account: assume a role of this account
        :param options: go to boto3
        """
        import boto3

        defaults = {
            "endpoint_url": self.url,
            "region_name": self.region,
            "aws_access_key_id": "local",
            "aws_secret_access_key": "local",
        }
        if account is not None:
            role = f"arn:aws:iam::{account}:role/local"
            given = self.client("sts").assume_role(RoleArn=role, RoleSessionName="local")["Credentials"]
            defaults |= {
                "aws_access_key_id": given["AccessKeyId"],
                "aws_secret_access_key": given["SecretAccessKey"],
                "aws_session_token": given["SessionToken"],
            }
        return boto3.Session().client(service, **{**defaults, **options})  # type: ignore[call-overload]

    def register(
        self,
        family: str,
        container_name: str = "main",
        command: Sequence[str] | None = None,
        environment: Mapping[str, str] | None = None,
        *,
        network_mode: str = "awsvpc",
        size: tuple[str, str] = ("256", "512"),
        sidecars: Sequence[Mapping[str, Any]] = (),
        place: Place | None = None,
        **container: Any,
    ) -> str:
        """
        Register a task definition for every launch type that its network mode allows; give its ARN.

        :param network_mode: ``awsvpc`` (any launch type) or another one (EC2 only)
        :param size: CPU units and MiB of memory of the task
        :param sidecars: definitions of further containers; ``image`` may be left out
        :param place: None, here and below: that of :meth:`place` without arguments
        :param container: further members of the container's definition, e.g. ``stopTimeout=2``
        """
        main: dict[str, Any] = {"name": container_name, "image": "local", **container}
        if command is not None:
            main["command"] = list(command)
        main["environment"] = [{"name": k, "value": v} for k, v in (environment or {}).items()]
        fargate = network_mode == "awsvpc"
        return self.register_task_definition(
            {
                "family": family,
                "containerDefinitions": [main, *({"image": "local", **s} for s in sidecars)],
                "networkMode": network_mode,
                "requiresCompatibilities": ["EC2", "FARGATE"] if fargate else ["EC2"],
                "cpu": size[0],
                "memory": size[1],
            },
            place=place,
        )

    def register_task_definition(self, definition: Mapping[str, Any], *, place: Place | None = None) -> str:
        """
        Register a task definition, given as RegisterTaskDefinition takes it; give its ARN.

        :raises AwsError: if moto refuses it
        """
        reply = self._call_moto(place, "ecs", "RegisterTaskDefinition", definition)
        arn: str = reply["taskDefinition"]["taskDefinitionArn"]
        return arn

    def create_cluster(self, name: str, *, place: Place | None = None, **options: Any) -> str:
        """Create a cluster; ``options`` as CreateCluster takes them. Give its ARN."""
        reply = self._call_moto(place, "ecs", "CreateCluster", {"clusterName": name, **options})
        arn: str = reply["cluster"]["clusterArn"]
        return arn

    def register_instance(
        self, cluster: str, instance: Instance | None = None, *, place: Place | None = None
    ) -> str:
        """Register a container instance in a cluster; give its ARN."""
        return self._ecs.add_instance(place or self.place(), cluster, instance or Instance())

    def limit(self, **limits: int | None) -> None:
        """Change limits of ``capacity``, e.g. ``FARGATE_SPOT=0``; None lifts one."""
        self._account.limit(limits)

    def hosts(self) -> dict[str, int]:
        """Return how many hosts each Auto Scaling group has now."""
        return self._ecs.hosts()

    def register_job(
        self,
        name: str,
        command: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
        *,
        place: Place | None = None,
        **definition: Any,
    ) -> str:
        """
        Register a job definition; give its ARN.

        :param definition: further members, e.g. ``retryStrategy={"attempts": 3}``
        """
        return self.register_job_definition(
            {
                "jobDefinitionName": name,
                "type": "container",
                "containerProperties": {
                    "image": "local",
                    "command": list(command),
                    "environment": [{"name": k, "value": v} for k, v in (environment or {}).items()],
                    "resourceRequirements": [
                        {"type": "VCPU", "value": "1"},
                        {"type": "MEMORY", "value": "512"},
                    ],
                },
                **definition,
            },
            place=place,
        )

    def register_job_definition(self, definition: Mapping[str, Any], *, place: Place | None = None) -> str:
        """
        Register a job definition, given as RegisterJobDefinition takes it; give its ARN.

        :raises AwsError: if moto refuses it
        """
        reply = self._call_moto(place, "batch", "RegisterJobDefinition", definition)
        arn: str = reply["jobDefinitionArn"]
        return arn

    def create_job_queue(
        self, name: str, compute_environment: str = "default", *, place: Place | None = None, **options: Any
    ) -> str:
        """Create a job queue; ``options`` as CreateJobQueue takes them. Give its ARN."""
        order = [{"order": 1, "computeEnvironment": compute_environment}]
        defaults = {"jobQueueName": name, "state": "ENABLED", "priority": 1, "computeEnvironmentOrder": order}
        reply = self._call_moto(place, "batch", "CreateJobQueue", {**defaults, **options})
        arn: str = reply["jobQueueArn"]
        return arn

    def create_environment(self, place: Place | None = None) -> None:
        """Create Batch's compute environment ``default``, on the cluster of that name."""
        self._front.in_moto(lambda: self._batch.create_environment(place or self.place()))

    def _call_moto(
        self, place: Place | None, service: str, operation: str, params: Mapping[str, Any]
    ) -> dict[str, Any]:
        return self._front.call_moto(place or self.place(), service, operation, params)

    def task(self, task: str) -> dict[str, Any]:
        """
        Show a task as DescribeTasks does.

        :param task: id or ARN
        :raises KeyError: if there is no such task
        """
        return self._ecs.show(task)

    def job(self, job: str) -> dict[str, Any]:
        """
        Show a job as DescribeJobs does.

        :param job: id or ARN
        :raises KeyError: if there is no such job
        """
        return self._batch.show(job)

    def log(self, reference: str) -> str:
        """
        Read what the processes of a task, or of all attempts of a job, have written.

        :param reference: id or ARN
        :raises TypeError: if the runner runs no processes
        """
        if not isinstance(self.runner, SubprocessRunner):
            msg = "only the subprocess runner has logs"
            raise TypeError(msg)
        paths = [self.runner.log_path(part) for part in self._batch.parts(reference) or [name_of(reference)]]
        return "".join(path.read_text(errors="replace") for path in paths if path.exists())

    def kill(
        self,
        reference: str,
        *,
        cause: str = "host",
        notice: float = 0.0,
        stop_code: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """
        Lose the host of a task or job: its processes are killed, and there is no exit code.

        :param reference: id or ARN
        :param cause: ``host``, ``spot``, ``fargate_spot`` or ``infrastructure``
        :param notice: seconds until it happens; until then it runs on, but a task's stop code is visible
        :param stop_code: instead of the cause's
        :param reason: instead of the cause's
        :return: False if nothing of it ran any more
        :raises KeyError: if there is no such task or job
        """
        return self._account.kill(reference, cause=cause, notice=notice, stop_code=stop_code, reason=reason)

    def interrupt(self, reference: str) -> None:
        """
        Interrupt a running task or job, as Spot does.

        On Fargate its processes get SIGTERM, and SIGKILL after their stop timeout; a job on EC2 loses its host.

        :param reference: id or ARN
        :raises KeyError: if there is no such task or job
        """
        self._account.owner(reference).interrupt(reference)

    def script(self, rules: Iterable[Rule | Mapping[str, Any]]) -> None:
        """
        Replace the scripted runner's rules, for tasks that start from now on.

        :raises TypeError: if the runner takes no script
        """
        if not isinstance(self.runner, ScriptedRunner):
            msg = "only the scripted runner takes a script"
            raise TypeError(msg)
        self.runner.script(rules)

    def wait_stopped(self, count: int | None = None, timeout: float = 30.0) -> None:
        """
        Wait until so many containers are STOPPED, None for all that were accepted.

        :raises TimeoutError: if they are not in time
        """
        deadline = time.monotonic() + timeout
        while True:
            entries = self.ledger.entries()
            stopped = sum(entry.status == "STOPPED" for entry in entries)
            if stopped >= (len(entries) if count is None else count):
                return
            if time.monotonic() > deadline:
                msg = f"{stopped} of {len(entries)} containers stopped within {timeout} s"
                raise TimeoutError(msg)
            time.sleep(0.01)

    def reset(self) -> None:
        """Forget everything; what runs is killed. What the constructor was told to create is made again."""
        self._front.reset()

    def _set_up(self) -> None:
        for region in self._regions:
            self._set_up_in(self.place(region))

    def _set_up_in(self, place: Place) -> None:
        for name in self._clusters:
            self.create_cluster(name, place=place)
        for name, instances in self._instances.items():
            for instance in instances:
                self.register_instance(name, instance, place=place)
        self.create_environment(place)
        for name in self._job_queues:
            self.create_job_queue(name, place=place)
        self.register_job("airflow", place=place)

    def _run(self, ready: Future[Any]) -> None:
        try:
            asyncio.run(self._serve(ready))
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            else:
                raise

    async def _serve(self, ready: Future[Any]) -> None:
        front = Front(
            self._account,
            faults=self.faults,
            latency=self._latency,
            limits=self._limits,
            seed=self._seed,
        )
        stopping = asyncio.Event()
        runner = web.ServerRunner(front.server(), shutdown_timeout=1.0)
        await runner.setup()
        try:
            host, port = self._address
            site = web.TCPSite(runner, host, port, backlog=1024)
            await site.start()
            bound = runner.addresses[0][1]
            telling = asyncio.create_task(front.tell_of_changes())
            ready.set_result((front, bound, asyncio.get_running_loop(), stopping))
            await stopping.wait()
            front.closing.set()
            await telling
        finally:
            front.closing.set()
            await runner.cleanup()
            front.close()
