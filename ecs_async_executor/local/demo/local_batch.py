"""The demo's side of the local Batch: what has to exist there, and what it says about its jobs."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import boto3

from ecs_async_executor.local.demo.cloud import Ran, add_fault, kill, workload
from ecs_async_executor.local.demo.scenario import EXITED, HOST_TAKEN, label

if TYPE_CHECKING:
    from ecs_async_executor.local.demo.airflow_home import AirflowHome

DEFINITION = "demo"
OVER = ("SUCCEEDED", "FAILED")
WITHOUT_CAPACITY_SECONDS = 5.0


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
        """Make the job definition, and return the part of the environment that the executor needs."""
        environment = airflow.container_environment
        self._batch.register_job_definition(
            jobDefinitionName=DEFINITION,
            type="container",
            containerProperties={
                "image": f"python:{sys.version_info.major}.{sys.version_info.minor}",
                "environment": [{"name": name, "value": value} for name, value in environment.items()],
                "resourceRequirements": [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}],
            },
        )
        return airflow.batch_executor(provider=provider, url=self.url, job_definition=DEFINITION)

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

    def withhold_capacity(self, task_id: str) -> None:
        """Leave the next job of a task RUNNABLE for a while, for want of instances."""
        add_fault(self.url, task_id, kind="stuck", operation="SubmitJob", seconds=WITHOUT_CAPACITY_SECONDS)


def _read(job: dict[str, Any]) -> Ran:
    ran = workload(job["container"]["command"])["ti"]
    exit_code = job["container"].get("exitCode")
    reason = job.get("statusReason", "")
    end = ""
    if job["status"] in OVER:
        end = EXITED if exit_code is not None else HOST_TAKEN if reason.startswith("Host EC2") else reason
    return Ran(
        id=job["jobId"],
        label=label(ran["dag_id"], ran["task_id"], ran["map_index"]),
        number=ran["try_number"],
        status=job["status"],
        created=_time(job["createdAt"]),
        started=_time(job["startedAt"]) if "startedAt" in job else None,
        stopped=_time(job["stoppedAt"]) if "stoppedAt" in job else None,
        exit_code=exit_code,
        end=end,
        why=EXITED if end == EXITED else reason,
    )


def _time(milliseconds: int) -> datetime:
    return datetime.fromtimestamp(milliseconds / 1000, timezone.utc)
