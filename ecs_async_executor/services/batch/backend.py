"""
AWS Batch as the engine's backend: one class over the client.

Imports ``core``, the settings, the rest of this folder, and ``calls``, ``parsing`` and ``requests`` of the folder
above.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial
from typing import TYPE_CHECKING, Final
from uuid import UUID

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Paced, Service, Trial, unpaced
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.identity import is_uuid
from ecs_async_executor.services.batch.names import job_name, name_prefix
from ecs_async_executor.services.batch.replies import DECODERS, launched, missing, observation, sized
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.parsing import UNREADABLE, UnreadableRecords, text
from ecs_async_executor.services.requests import NO_SUCH_ID, stop_reason, tag_refusal
from ecs_async_executor.settings import BatchSettings

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

SERVICE: Final = Service(
    name="Batch",
    launch_rates={},
    launch_rate=40.0,
    change_rate=20.0,
    change_burst=20.0,
    shares_changes=False,
    repeatable=False,
    stop_permission="batch:TerminateJob",
)
"""
Four fifths of the 50 SubmitJob requests per second that AWS Batch takes from an account in a Region.

From the AWS Batch User Guide ("AWS Batch service quotas"); the quota cannot be raised. None is published for the
other operations: 20 TerminateJob requests per second are a guess that throttles correct. SubmitJob has no client
client token, so a repeated request makes a second job.
"""

OPERATIONS: Final = {
    "DescribeJobs": Operation("describe_jobs", frozenset({"jobs"})),
    "ListJobs": Operation("list_jobs", frozenset({"jobSummaryList"})),
    "SubmitJob": Operation("submit_job"),
    "TerminateJob": Operation("terminate_job"),
}


class BatchBackend:
    """
    AWS Batch as a :class:`~ecs_async_executor.core.backend.Backend`.

    A scope is a job queue: a job is described whatever its queue, but listed by it.

    :param clients: makes the client
    :param settings: names the default job queue, and the beginning of jobs' names
    """

    describe_batch = 100
    """The most identifiers that DescribeJobs takes."""

    def __init__(self, clients: ClientFactory, settings: BatchSettings) -> None:
        self._call = Calls(clients, "batch", operations=OPERATIONS, decoders=DECODERS, lean=True)
        self._settings = settings
        self._unreadable = UnreadableRecords(SERVICE.event("describe.malformed"), "job_id", "jobId")

    def scope_of(self, handle_id: str | None) -> str:  # noqa: ARG002 - an identifier does not tell the job's queue
        """Return the job queue that jobs go to by default."""
        return self._settings.job_queue

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        """Return the one scope that a job is asked for in."""
        return [self.scope_of(handle_id)]

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open; it belongs to the running loop."""
        return self._call.open()

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        """
        Submit one job; the same spec and client token again make another job of the same name.

        :param token: the client token, which becomes the end of the job's name
        """
        request = spec.request
        job = {**request, "jobName": job_name(request["jobName"], client_token)}
        try:
            if not spec.checked:
                self._call.check("SubmitJob", job)
            reply = await self._call("SubmitJob", **job)
        except BackendError as error:
            raise tag_refusal(error, request.get("tags"), "batch:TagResource") from None
        return launched(reply, spec.scope)

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Return what Batch says about jobs; a job that the answer leaves out is MISSING.

        A record that cannot be read is left out, and logged once: it says nothing about its job. A record without
        an identifier can be that of any job in the request; then none of them is MISSING.
        """
        reply = await self._call("DescribeJobs", jobs=list(ids))
        found: list[Observation] = []
        unread: set[object] = set()
        for job in reply.get("jobs") or ():
            try:
                found.append(observation(job, scope))
            except UNREADABLE as error:  # noqa: PERF203
                job_id = job.get("jobId") if isinstance(job, Mapping) else None
                unread.add(job_id if isinstance(job_id, str) else None)
                self._unreadable.log(job, error)
        if None not in unread:
            answered = unread | {one.handle.id for one in found}
            found += [missing(scope, one) for one in ids if one not in answered]
        return sized(found, reply)

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        """
        List the jobs whose names begin with a mark, whatever their status.

        :param started_by: see :func:`~ecs_async_executor.services.batch.launch_spec`; or a launch's mark alone,
            for jobs of the name in the settings
        :param paced: awaited before each page but the first
        :raises BackendError: REFUSED if one of the jobs has no identifier
        """
        prefix = name_prefix(self._settings.job_name, started_by) if is_uuid(started_by) else started_by
        asked = {"jobQueue": scope, "filters": [{"name": "JOB_NAME", "values": [f"{prefix}-*"]}]}
        jobs = await self._call.pages("ListJobs", "jobSummaryList", paced=paced, **asked)
        try:
            return [Handle(scope, text(job["jobId"])) for job in jobs]
        except UNREADABLE as error:
            # This job carries the mark: without it in the result, the launch could run twice.
            raise BackendError(
                Kind.REFUSED,
                "MalformedReply",
                f"ListJobs answered with a record that cannot be read: {type(error).__name__}",
            ) from None

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask Batch to end a job, or not to begin it."""
        await self._call("TerminateJob", jobId=handle.id, reason=stop_reason(reason))

    async def check(self) -> None:
        """
        Describe a job that cannot exist, as the provider's health check does.

        :raises BackendError: if Batch does not answer as it should
        """
        await self._call("DescribeJobs", jobs=[NO_SUCH_ID])

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:
        """Return the requests of polling and searching, the latter in the queues of the settings and launches."""
        queues = dict.fromkeys([self._settings.job_queue, *(spec.scope for spec in specs)])
        return [
            Trial("DescribeJobs", self.check),
            *(
                Trial(f"ListJobs, job queue {queue!r}", partial(self.search, queue, str(UUID(int=0))))
                for queue in queues
            ),
        ]

    @property
    def untried(self) -> str:
        """The requests that would need a job, as the end of a sentence."""
        return (
            "SubmitJob, because it would start a job, and TerminateJob, because it needs one. check --launch "
            "starts one, and shows whether Batch accepts the job definition, and whether the credentials permit "
            "SubmitJob"
        )
