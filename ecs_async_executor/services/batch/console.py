"""
AWS Batch, as a person wants to use it.

Imports ``core``, the rest of this folder, and ``calls``, ``console``, ``parsing`` and ``requests`` of the folder
above.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import TYPE_CHECKING, Final

from ecs_async_executor.core.backend import Handle, unpaced
from ecs_async_executor.services.batch.backend import OPERATIONS, SERVICE
from ecs_async_executor.services.batch.names import mark_in
from ecs_async_executor.services.calls import Calls
from ecs_async_executor.services.console import Marked, Progress, untold
from ecs_async_executor.services.parsing import UNREADABLE, UnreadableRecords, text
from ecs_async_executor.services.requests import persons_reason

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

_UNFINISHED: Final = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING")
"""In the order in which a job goes through them: one that moves on meanwhile is in a later list."""


class BatchConsole:
    """
    AWS Batch as a :class:`~ecs_async_executor.services.console.Console`.

    :param clients: makes the client
    :param scopes: the job queues of the settings
    """

    def __init__(self, clients: ClientFactory, scopes: Sequence[str]) -> None:
        self.scopes = scopes
        self._call = Calls(clients, "batch", operations=OPERATIONS, decoders={})
        self._unreadable = UnreadableRecords(SERVICE.event("describe.malformed"), "job_id", "jobId")

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the running loop."""
        return self._call.open()

    async def marked(self, scope: str, progress: Progress = untold) -> Sequence[Marked]:
        """List the unfinished jobs of a job queue with an executor's mark in their names."""
        found: dict[str, Marked] = {}
        for number, status in enumerate(_UNFINISHED):
            progress(number, len(_UNFINISHED))
            for job in await self._call.pages(
                "ListJobs", "jobSummaryList", paced=unpaced, jobQueue=scope, jobStatus=status
            ):
                try:
                    mark = mark_in(job.get("jobName"))
                    if mark is None:
                        continue
                    created = job.get("createdAt")
                    handle = Handle(scope, text(job["jobId"]))
                    created_at = None if created is None else float(created) / 1000.0
                    found[handle.id] = Marked(handle, mark, text(job.get("status") or status), created_at)
                except UNREADABLE as error:
                    self._unreadable.log(job, error)
        progress(len(_UNFINISHED), len(_UNFINISHED))
        return list(found.values())

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask Batch to end a job, in a person's name."""
        await self._call("TerminateJob", jobId=handle.id, reason=persons_reason(reason))
