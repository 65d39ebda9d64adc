"""
Workloads as objects in S3, each written before its launch and deleted after it.

An object is deleted once its container has started or ended, or when its JWT is no longer valid. Deleting has a
task of its own, and nothing waits for it. What a process leaves behind, the next one deletes when it describes the
container; the rest is left to the bucket's lifecycle rule.

Imports ``core``, the settings, ``replies`` beside it, and ``calls`` of the folder above.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import anyio
import structlog

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.calls import Calls, Operation
from ecs_async_executor.services.ecs.replies import environment_files
from ecs_async_executor.settings.tuning import WRITING_TIMEOUT

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory
    from ecs_async_executor.settings.values import Bucket

log = structlog.get_logger(__name__)

_OPERATIONS: Final = {"PutObject": Operation("put_object"), "DeleteObject": Operation("delete_object")}
_UNKNOWN_EXPIRY: Final = 600.0
"""Seconds after which an object is deleted whose JWT does not say how long it is valid: Airflow's default."""
_SLACK: Final = 60.0
"""Seconds for clocks that differ, before an object counts as useless."""
_LOOK: Final = 60.0
"""Seconds after which the wall clock is looked at again, which can be set."""
_AT_ONCE: Final = 8
_AGAIN: Final = (5.0, 30.0, 120.0)
"""Seconds after which a deletion that failed is tried again."""
_QUIET: Final = 60.0
"""Seconds between two log lines about deletions that fail."""
_MOST: Final = 50_000
_WHY: Final = "(PutObject is needed because workload_delivery = environment_file)"
_PROBE: Final = "ecs-async-executor-check.env"


class WorkloadFiles:
    """
    The environment files of one destination's launches.

    :param clients: makes the client of S3
    :param bucket: where the objects are
    :param event: makes the name of a log event
    :param wall: wall-clock seconds
    """

    def __init__(
        self,
        clients: ClientFactory,
        bucket: Bucket,
        event: Callable[[str], str],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._call = Calls(clients, "s3", operations=_OPERATIONS, decoders={})
        self.bucket = bucket
        self._event = event
        self._wall = wall
        self._kept: dict[str, float] = {}
        self._queue: list[tuple[float, str]] = []
        self._failed: dict[str, int] = {}
        self._key_of: dict[str, str] = {}
        self._started: dict[str, None] = {}
        self._deleting: dict[str, asyncio.Event] = {}
        self._said_at = float("-inf")

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Hold a client of S3 open, and delete what is done with; it belongs to the running loop."""
        self._deleting = {}
        self._wake = asyncio.Event()
        async with self._call.open():
            lane = asyncio.create_task(self._delete_what_is_done_with(), name="delete workloads")
            try:
                yield
            finally:
                lane.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await lane

    # --- writing ---------------------------------------------------------------------------------------------

    async def put(self, client_token: str, text: str, expires_at: float | None) -> str:
        """
        Write the file of a launch, in place of that of an earlier request under the same client token.

        :param expires_at: wall-clock seconds after which it is of no use
        :returns: its ARN
        :raises BackendError: if it is not there for certain; nothing was launched
        """
        key = self.bucket.key(f"{client_token}.env")
        while (gone := self._deleting.get(key)) is not None:
            await gone.wait()
        self._keep(key, expires_at)
        try:
            with anyio.fail_after(WRITING_TIMEOUT):
                await self._put(key, text)
        except TimeoutError:
            raise BackendError(
                Kind.UNSENT, "Timeout", f"no answer to PutObject within {WRITING_TIMEOUT:g} s {_WHY}"
            ) from None
        except BackendError as error:
            raise before_launch(error, _WHY) from None
        return self._arn(key)

    async def _put(self, key: str, text: str) -> Any:
        return await self._call(
            "PutObject", Bucket=self.bucket.name, Key=key, Body=text.encode(), ContentType="text/plain"
        )

    def _keep(self, key: str, expires_at: float | None) -> None:
        now = self._wall()
        self._schedule(key, (now + _UNKNOWN_EXPIRY if expires_at is None else max(now, expires_at)) + _SLACK)

    def _arn(self, key: str) -> str:
        return f"arn:{self._call.partition}:s3:::{self.bucket.name}/{key}"

    def launched(self, client_token: str, handle_id: str) -> None:
        """Note which container reads the file of a launch."""
        self._started.pop(handle_id, None)  # a repeated request has written the object again
        self._key_of[handle_id] = self.bucket.key(f"{client_token}.env")
        _forget_oldest(self._key_of)

    # --- deleting --------------------------------------------------------------------------------------------

    def described(self, found: Sequence[Observation], reply: Mapping[str, Any], container_name: str) -> None:
        """Have the files of containers deleted that have read them, or never will."""
        over = [one for one in found if one.started or one.seen is Seen.STOPPED]
        new = [one.handle.id for one in over if one.handle.id not in self._started]
        if new:
            unknown = {handle_id for handle_id in new if handle_id not in self._key_of}
            arns = environment_files(reply, container_name, unknown) if unknown else {}
            for handle_id in new:
                self._done_with(handle_id, arns.get(handle_id, ()))
        for one in found:
            if one.exit_code is not None or one.seen in (Seen.STOPPED, Seen.MISSING):
                self._started.pop(one.handle.id, None)  # it is hardly described again

    def _done_with(self, handle_id: str, arns: Sequence[str]) -> None:
        self._started[handle_id] = None
        _forget_oldest(self._started)
        key = self._key_of.pop(handle_id, None)
        keys = [key] if key is not None else [self.bucket.key_in(arn) for arn in arns]
        for one in keys:
            if one is not None:
                self._schedule(one, self._wall())

    def _schedule(self, key: str, at: float) -> None:
        self._kept[key] = at
        heapq.heappush(self._queue, (at, key))
        if self._queue[0] == (at, key):
            self._wake.set()

    async def _delete_what_is_done_with(self) -> None:
        while True:
            try:
                await self._delete_due()
            except Exception:  # noqa: PERF203 - a bug must not end the lane
                log.exception(self._event("workload.delete_failed"))
                await asyncio.sleep(_AGAIN[0])

    async def _delete_due(self) -> None:
        now = self._wall()
        due: list[str] = []
        while self._queue and self._queue[0][0] <= now and len(due) < _AT_ONCE:
            at, key = heapq.heappop(self._queue)
            if self._kept.get(key) == at and key not in due:
                due.append(key)
        if due:
            await asyncio.gather(*map(self._delete, due))
            return
        self._wake.clear()
        wait = min(max(0.0, self._queue[0][0] - now), _LOOK) if self._queue else None
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._wake.wait(), wait)

    async def _delete(self, key: str) -> None:
        gone = self._deleting[key] = asyncio.Event()
        at = self._kept.pop(key)
        try:
            await self._call("DeleteObject", Bucket=self.bucket.name, Key=key)
        except BackendError as error:
            self._not_deleted(key, at, error)
        else:
            self._failed.pop(key, None)
        finally:
            del self._deleting[key]
            gone.set()

    def _not_deleted(self, key: str, at: float, error: BackendError) -> None:
        tries = self._failed.pop(key, 0)
        if tries < len(_AGAIN):
            self._failed[key] = tries + 1
            self._schedule(key, max(at, self._wall() + _AGAIN[tries]))
        now = self._wall()
        if now - self._said_at >= _QUIET:
            self._said_at = now
            log.warning(
                self._event("workload.not_deleted"),
                bucket=self.bucket.name,
                code=error.code,
                reason=error.message,
                way_out="allow s3:DeleteObject; the lifecycle rule of the bucket deletes what is left",
            )

    # --- checking --------------------------------------------------------------------------------------------

    async def try_to_write(self) -> None:
        """
        Write an object without a workload, as launches do.

        :raises BackendError: if that is refused, or if the bucket keeps what is deleted
        """
        reply = await self._put(self.bucket.key(_PROBE), "#\n")
        if reply.get("VersionId") not in {None, "null"}:
            raise BackendError(
                Kind.REFUSED,
                "VersionedBucket",
                f"bucket {self.bucket.name!r} keeps earlier versions, so that workloads stay in it after they are "
                "deleted: take a bucket without versioning",
            )

    async def try_to_delete(self) -> None:
        """
        Delete that object.

        :raises BackendError: if that is refused
        """
        await self._call("DeleteObject", Bucket=self.bucket.name, Key=self.bucket.key(_PROBE))


def _forget_oldest(these: dict[str, Any]) -> None:
    """Bound what is kept of containers that are never described to their end."""
    if len(these) > _MOST:
        del these[next(iter(these))]


def before_launch(error: BackendError, why: str) -> BackendError:
    """
    Return what an error means of a call that comes before RunTask: nothing was launched.

    :param why: the reason for that call, for people
    """
    if error.kind is Kind.THROTTLED:
        # RunTask's rate is not to blame.
        return BackendError(Kind.CONCURRENT, error.code, error.message)
    if error.kind is Kind.AMBIGUOUS:
        return BackendError(Kind.UNSENT, error.code, error.message)
    if error.kind in {Kind.CONCURRENT, Kind.UNSENT, Kind.CREDENTIALS}:
        return error
    return BackendError(Kind.REFUSED, error.code, f"{error.message} {why}".lstrip())
