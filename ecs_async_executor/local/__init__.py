"""
A local ECS and Batch, for any client of theirs: boto3, aiobotocore, the AWS CLI, Terraform, an Airflow executor.

moto's server with what moto lacks: tasks and jobs that really run (as processes) or follow a script, AWS's own
rules (client tokens, MISSING, retry strategies, limits, paging, stop codes), HTTP keep-alive, faults, latency,
rate limits, and a ledger of every container that was ever started. The rest of moto is served too. Needs the extra
``local``. In a test::

    from ecs_async_executor.local import LocalEcs

    with LocalEcs(runner="subprocess") as ecs:
        ecs.register("hello", "main", command=["sh", "-c", "exit 3"])
        client = ecs.client("ecs")
        client.run_task(
            taskDefinition="hello",
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        )
        ecs.wait_stopped()
        assert [entry.exit_code for entry in ecs.ledger.entries()] == [3]

Batch is at the same address and needs no preparation: the compute environment ``default``, the job queue
``default`` and the job definition ``airflow``, which has no command of its own, exist from the start::

    client = ecs.client("batch")
    job = client.submit_job(
        jobName="hello",
        jobQueue="default",
        jobDefinition="airflow",
        containerOverrides={"command": ["sh", "-c", "exit 3"]},
        retryStrategy={"attempts": 2},
    )
    ecs.wait_stopped()
    assert [a["container"]["exitCode"] for a in ecs.job(job["jobId"])["attempts"]] == [3, 3]

What processes print is in CloudWatch Logs if their definition has the log driver ``awslogs``; jobs of Batch have
it by default. A container with a memory limit (``memory=``, Batch: ``MEMORY``) is killed above it. There are no
images, but ``missing_images=["*:missing"]`` cannot be pulled.

It plays Batch's single-container jobs on ECS: no arrays, no dependencies, no multi-node jobs, no EKS.

Every Region is there, and every account of which a client assumes a role: ``regions=["eu-west-1"]`` makes cluster,
job queue and job definition in another Region too, ``ecs.register("hello", place=ecs.place("eu-west-1"))`` a task
definition, and ``ecs.faults.throttle(region="eu-west-1")`` throttles that Region alone.

With ``runner="scripted"`` no process runs: ``script=[{"command": "slow", "duration": 60, "exit_code": 1}]``
says how tasks live (:class:`Rule`), and ten thousand of them cost little. ``ecs.faults`` makes calls fail
(:class:`Fault`), ``ecs.kill(arn, cause="spot")`` takes a task's host away. ``groups={"asg": {"scale_out":
720}}`` puts an Auto Scaling group behind a capacity provider (:class:`ScalingGroup`). Where AWS may do a thing
in more than one way there is a switch (:class:`Behaviour`), and ``python -m
ecs_async_executor.local.conformance`` asks AWS.

As a program: ``python -m ecs_async_executor.local --port 4566``, then point clients at it with
``AWS_ENDPOINT_URL=http://127.0.0.1:4566`` and any credentials. Its control path:

================================= =====================================================================
``GET /_local/health``            whether it is up
``GET /_local/ledger``            every container accepted; ``?started_by=`` narrows it
``GET /_local/statistics``        calls, errors, concurrency by operation; connections; running, waiting
``GET /_local/faults``            the faults in force; ``POST`` one or a list, ``DELETE`` all or ``/<id>``
``PUT /_local/latency``           seconds, a pair of seconds, or an object of these by operation
``PUT /_local/behaviour``         switches (:class:`Behaviour`), or the name of a preset; ``GET`` shows them
``PUT /_local/capacity``          how many tasks or jobs may run: ``{"FARGATE_SPOT": 0}``, null for no limit
``PUT /_local/script``            a list of rules for the tasks and jobs that start from now on
``GET /_local/tasks/<id>``        one task, whatever its region; ``/_local/jobs/<id>`` one job
``POST /_local/tasks/<id>/kill``  ``{"cause": "host", "notice": 0}``: take its host away; jobs likewise
``POST .../<id>/interrupt``       interrupt it as Spot does: SIGTERM, then SIGKILL; a job on EC2 loses its host
``POST /_local/reset``            forget everything and kill every process
================================= =====================================================================

It is no sandbox: the subprocess runner runs every command that it is sent, with your rights. It listens on
127.0.0.1.
"""

from __future__ import annotations

try:
    import aiohttp  # noqa: F401
    import moto  # noqa: F401
except ImportError as error:
    msg = "the local ECS needs its extra: pip install 'ecs-async-executor[local]'"
    raise ImportError(msg) from error

from ecs_async_executor.local.behaviour import Behaviour as Behaviour
from ecs_async_executor.local.ecs import CAUSES as CAUSES
from ecs_async_executor.local.ecs_placement import Instance as Instance
from ecs_async_executor.local.faults import KINDS as KINDS
from ecs_async_executor.local.faults import Fault as Fault
from ecs_async_executor.local.faults import Faults as Faults
from ecs_async_executor.local.ledger import Entry as Entry
from ecs_async_executor.local.ledger import Ledger as Ledger
from ecs_async_executor.local.local_ecs import LocalEcs as LocalEcs
from ecs_async_executor.local.place import Place as Place
from ecs_async_executor.local.rates import AWS_RATES as AWS_RATES
from ecs_async_executor.local.rates import Rate as Rate
from ecs_async_executor.local.runners import Runner as Runner
from ecs_async_executor.local.runners import SubprocessRunner as SubprocessRunner
from ecs_async_executor.local.scaling import ScalingGroup as ScalingGroup
from ecs_async_executor.local.scripted import Rule as Rule
from ecs_async_executor.local.scripted import ScriptedRunner as ScriptedRunner
from ecs_async_executor.local.server import OperationStatistics as OperationStatistics
from ecs_async_executor.local.server import Statistics as Statistics

__all__ = [
    "AWS_RATES",
    "CAUSES",
    "KINDS",
    "Behaviour",
    "Entry",
    "Fault",
    "Faults",
    "Instance",
    "Ledger",
    "LocalEcs",
    "OperationStatistics",
    "Place",
    "Rate",
    "Rule",
    "Runner",
    "ScalingGroup",
    "ScriptedRunner",
    "Statistics",
    "SubprocessRunner",
]
