"""
moto's Batch backend, with AWS's rules for what jobs are made from: compute environments, queues, job definitions.

May import moto and the modules below. The operations on jobs are in :mod:`batch`.
"""

from __future__ import annotations

from typing import Any

from moto.batch.models import BatchBackend, ComputeEnvironment, JobDefinition, JobQueue
from moto.iam.exceptions import NotFoundException

from ecs_async_executor.local import batch_rules as rules
from ecs_async_executor.local.errors import name_of
from ecs_async_executor.local.place import Place

SERVICE_ROLE = "AWSServiceRoleForBatch"


class LocalBatchBackend(BatchBackend):
    """moto's Batch of one account and region, with jobs that `Batch` looks after."""

    @property
    def place(self) -> Place:
        """Where it is."""
        return Place(self.account_id, self.region_name)

    def find_queue(self, reference: str) -> JobQueue:
        """
        Look a job queue up by name or ARN.

        :raises AwsError: if there is none
        """
        for queue in list(self._job_queues.values()):
            if reference in (queue.name, queue.arn):
                return queue
        raise rules.refused(f"JobQueue {reference} not found.")

    def find_definition(self, reference: str) -> JobDefinition:
        """
        Look a job definition up by name, ``name:revision`` or ARN.

        :raises AwsError: if there is none that is active
        """
        active = [d for d in self.get_job_definitions(reference) if d.status == "ACTIVE"]
        if not active:
            raise rules.refused(f"JobDefinition name {reference} does not exist or is not in ACTIVE status")
        return max(active, key=lambda d: d.revision)

    def get_job_definitions(self, identifier: str) -> list[JobDefinition]:
        """Look job definitions up by name, ``name:revision`` (which moto does not know here) or ARN."""
        name = name_of(identifier)
        return [
            d for d in list(self._job_definitions.values()) if name in (d.name, f"{d.name}:{d.revision}", d.arn)
        ]

    def create_compute_environment(
        self,
        compute_environment_name: str,
        _type: str,
        state: str,
        compute_resources: dict[str, Any],
        service_role: str,
        tags: dict[str, str] | None = None,
    ) -> ComputeEnvironment:
        """Create a compute environment; without a role it gets the service-linked one, as on AWS."""
        return super().create_compute_environment(
            compute_environment_name,
            _type,
            state or "ENABLED",
            compute_resources,
            service_role or self._service_role(),
            tags,
        )

    def _service_role(self) -> str:
        try:
            return str(self.iam_backend.get_role(SERVICE_ROLE).arn)
        except NotFoundException:
            return str(
                self.iam_backend.create_role(
                    role_name=SERVICE_ROLE,
                    assume_role_policy_document="{}",
                    path="/aws-service-role/batch.amazonaws.com/",
                    permissions_boundary=None,
                    description="",
                    tags=[],
                    max_session_duration="3600",
                    linked_service="batch.amazonaws.com",
                ).arn
            )


# moto finds a backend's URLs through the module that its class claims to come from.
LocalBatchBackend.__module__ = BatchBackend.__module__
