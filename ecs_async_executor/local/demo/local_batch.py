"""The demo's side of the local Batch: what has to exist there, and what it says about its jobs."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.cloud import (
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
    kill,
    workload,
)
from ecs_async_executor.local.demo.scenario import EXITED, HOST_TAKEN, NOT_STARTED, OUT_OF_MEMORY, label

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ecs_async_executor.local.demo.airflow_home import AirflowHome

DEFINITION = "demo"
OVER = ("SUCCEEDED", "FAILED")
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
        session = boto3.session.Session("local", "local", region_name="us-east-1")
        self._batch: Any = session.client("batch", endpoint_url=url)

    def settings(self, airflow: AirflowHome, *, provider: bool) -> dict[str, str]:
        """Make the job definitions, and return the part of the environment that the executor needs."""
        environment = airflow.container_environment
        self._register(DEFINITION, environment)
        self._register(SMALL, environment, memory=SMALL_MB)
        self._register(NO_IMAGE, environment, image=MISSING_IMAGE)
        self._register(HUGE, environment, cpu=HUGE_CPU, memory=HUGE_MB)
        return airflow.batch_executor(provider=provider, url=self.url, job_definition=DEFINITION)

    def _register(
        self, name: str, environment: Mapping[str, str], *, image: str = IMAGE, cpu: int = 1, memory: int = 2048
    ) -> None:
        self._batch.register_job_definition(
            jobDefinitionName=name,
            type="container",
            containerProperties={
                "image": image,
                "environment": [{"name": name, "value": value} for name, value in environment.items()],
                "resourceRequirements": [
                    {"type": "VCPU", "value": str(cpu)},
                    {"type": "MEMORY", "value": str(memory)},
                ],
            },
        )

    def containers(self) -> list[Ran]:
        """Return every job, in the order in which they were made."""
        filters = [{"name": "JOB_NAME", "values": ["demo*"]}]
        pages = self._batch.get_paginator("list_jobs").paginate(jobQueue="default", filters=filters)
        ids = [job["jobId"] for page in pages for job in page["jobSummaryList"]]
        found = [
            _read(job)
            for start in range(0, len(ids), 100)
            for job in self._batch.describe_jobs(jobs=ids[start : start + 100])["jobs"]
        ]
        return sorted(found, key=lambda job: job.created)

    def take_host_away(self, container: str) -> None:
        """Let the host under a job be reclaimed, as Spot does."""
        kill(self.url, "jobs", container)

    def withhold_capacity(self, task_id: str, *, for_good: bool = False) -> None:
        """Leave the next job of a task RUNNABLE for a while, or all of them for good."""
        how = {"seconds": FOR_GOOD_SECONDS, "count": None} if for_good else {"seconds": WITHOUT_CAPACITY_SECONDS}
        add_fault(self.url, task_id, kind="stuck", operation="SubmitJob", **how)


def _read(job: dict[str, Any]) -> Ran:
    container = job["container"]
    ran = workload(container["command"])["ti"]
    why = EXITED if "exitCode" in container else job.get("statusReason", "")
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
    )


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
