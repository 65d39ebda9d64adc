"""The demo's side of the local Batch: what has to exist there, and what it says about its jobs."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.cloud import (
    BURST,
    DRIVEN,
    HUGE,
    HUGE_CPU,
    HUGE_MB,
    IMAGE,
    MISSING_IMAGE,
    NO_IMAGE,
    OUT_OF_MEMORY_ERROR,
    SMALL,
    SMALL_MB,
    Ran,
    add_fault,
    brief,
    interrupt,
    kill,
    of_definition,
    workload,
)
from ecs_async_executor.local.demo.scenario import (
    ABROAD,
    AVOIDS,
    EXITED,
    FILLS,
    HOME,
    HOST_TAKEN,
    NOT_STARTED,
    OUT_OF_MEMORY,
    PROBES,
    Where,
    label,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ecs_async_executor.local.demo.airflow_home import AirflowHome

DEFINITION = "demo"
SPOT_QUEUE = "demo-spot"
RULES = f"""\
placements:
  spot: {{job_queue: {SPOT_QUEUE}}}
  on-demand: {{job_queue: default}}
retries:
  - {{when: oom, memory: x2, up to: 8 GB}}
queues:
  cheap:
    placements: [spot, on-demand]
    placement_patience: 3
    retries:
      - {{when: host, placements: on-demand}}
  eu:
    region_name: {ABROAD}
"""
OVER = ("SUCCEEDED", "FAILED")
_INSTANCE = re.compile(r" \(instance [^)]*\)")
WITHOUT_CAPACITY_SECONDS = 5.0
FOR_GOOD_SECONDS = 30 * 86400.0


class Batch:
    """
    A client of the local Batch.

    :param url: where it listens
    """

    name = "Batch"
    noun = "Batch job"

    def __init__(self, url: str) -> None:
        self.url = url
        # Nothing of whoever runs the demo may be used: neither credentials nor a profile with an endpoint.
        session = boto3.session.Session("local", "local")
        self._batch: dict[str, Any] = {
            name: session.client("batch", name, endpoint_url=url) for name in (HOME, ABROAD)
        }
        self._over: dict[str, Ran | None] = {}

    def settings(self, airflow: AirflowHome, *, provider: bool) -> dict[str, str]:
        """Make the job definitions, and return the part of the environment that the executor needs."""
        environment = airflow.container_environment
        for region in (HOME, ABROAD):
            self._register(DEFINITION, environment, region=region)
        self._register(SMALL, environment, memory=SMALL_MB)
        self._register(NO_IMAGE, environment, image=MISSING_IMAGE)
        self._register(HUGE, environment, cpu=HUGE_CPU, memory=HUGE_MB)
        for name in (BURST, DRIVEN):
            self._register(name, airflow.light_environment(reports=name == BURST))
        return airflow.batch_executor(provider=provider, url=self.url, job_definition=DEFINITION)

    def driven(self) -> dict[str, str]:
        """Return what a driven executor needs besides: another job definition."""
        return {"AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION": DRIVEN}

    def rules(self) -> str:
        """Return the executor's rules, once what they name exists."""
        order = [{"order": 1, "computeEnvironment": "default"}]
        self._batch[HOME].create_job_queue(
            jobQueueName=SPOT_QUEUE, state="ENABLED", priority=1, computeEnvironmentOrder=order
        )
        return RULES

    def _register(
        self,
        name: str,
        environment: Mapping[str, str],
        *,
        region: str = HOME,
        image: str = IMAGE,
        cpu: int = 1,
        memory: int = 2048,
    ) -> None:
        variables = {**environment, "DEMO_REGION": region, "DEMO_DEFINITION": "jobDefinition"}
        self._batch[region].register_job_definition(
            jobDefinitionName=name,
            type="container",
            containerProperties={
                "image": image,
                "environment": [{"name": name, "value": value} for name, value in variables.items()],
                "resourceRequirements": [
                    {"type": "VCPU", "value": str(cpu)},
                    {"type": "MEMORY", "value": str(memory)},
                ],
            },
        )

    def containers(self) -> list[Ran]:
        """Return every job but those of bursts, in the order in which they were made."""
        found = [ran for region, client in self._batch.items() for ran in self._jobs(region, client)]
        return sorted(found, key=lambda ran: ran.created)

    def take_host_away(self, container: str) -> None:
        """Let the host under a job be reclaimed, as Spot does."""
        kill(self.url, "jobs", container)

    def take_capacity_back(self, container: str) -> None:
        """Let the host under a job be reclaimed: on EC2 that is what an interruption looks like."""
        interrupt(self.url, "jobs", container)

    def fill_cheap_capacity(self) -> None:
        """Let each job of some tasks that is sent there stay RUNNABLE."""
        fault = {"kind": "stuck", "operation": "SubmitJob", "seconds": FOR_GOOD_SECONDS, "count": None}
        for task_id in (FILLS, AVOIDS, PROBES):
            add_fault(self.url, task_id, SPOT_QUEUE, **fault)

    def withhold_capacity(self, task_id: str, *, for_good: bool = False) -> None:
        """Leave the next job of a task RUNNABLE for a while, or all of them for good."""
        how = {"seconds": FOR_GOOD_SECONDS, "count": None} if for_good else {"seconds": WITHOUT_CAPACITY_SECONDS}
        add_fault(self.url, task_id, kind="stuck", operation="SubmitJob", **how)

    def _jobs(self, region: str, client: Any) -> Iterator[Ran]:
        filters = [{"name": "JOB_NAME", "values": ["demo*"]}]
        for queue in client.describe_job_queues()["jobQueues"]:
            pages = client.get_paginator("list_jobs").paginate(jobQueue=queue["jobQueueName"], filters=filters)
            ids = [job["jobId"] for page in pages for job in page["jobSummaryList"]]
            # What is over changes no more, and nothing of a burst is wanted.
            changing = [job_id for job_id in ids if job_id not in self._over]
            for start in range(0, len(changing), 100):
                for job in client.describe_jobs(jobs=changing[start : start + 100])["jobs"]:
                    of_burst = of_definition(job["jobDefinition"], BURST, DRIVEN)
                    ran = None if of_burst else _read(job, f"{region} {queue['jobQueueName']}")
                    if ran is None or job["status"] in OVER:
                        self._over[job["jobId"]] = ran
                    else:
                        yield ran
            yield from (ran for job_id in ids if (ran := self._over.get(job_id)) is not None)


def _read(job: dict[str, Any], at: str) -> Ran:
    container = job["container"]
    ran = workload(container["command"])["ti"]
    why = EXITED if "exitCode" in container else _in_short(job.get("statusReason", ""))
    needs = {need["type"]: float(need["value"]) for need in container["resourceRequirements"]}
    return Ran(
        id=job["jobId"],
        label=label(ran["dag_id"], ran["task_id"], ran["map_index"]),
        number=ran["try_number"],
        status=job["status"],
        created=_time(job["createdAt"]),
        started=_time(job["startedAt"]) if "startedAt" in job else None,
        stopped=_time(job["stoppedAt"]) if "stoppedAt" in job else None,
        exit_code=container.get("exitCode"),
        end=_end(job) if job["status"] in OVER else "",
        why=brief(container.get("reason", "")) or why,
        where=Where(at, needs["VCPU"], int(needs["MEMORY"])),
    )


def _in_short(reason: str) -> str:
    return "no capacity" if "CAPACITY:" in reason else _INSTANCE.sub("", reason)


def _end(job: dict[str, Any]) -> str:
    """Tell how a job ended, in the words of the scenario where it has any."""
    container, reason = job["container"], job.get("statusReason", "")
    if container.get("reason", "").startswith(OUT_OF_MEMORY_ERROR):
        return OUT_OF_MEMORY
    if "exitCode" in container:
        return EXITED
    if reason.startswith("Host EC2"):
        return HOST_TAKEN
    return NOT_STARTED if "startedAt" not in job else reason


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
