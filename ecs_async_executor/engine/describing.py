"""
Describing containers within the read budget, for the lanes that poll and search.

May import ``core``, ``session``, anyio and structlog. A description that gets no answer decides nothing: another
sweep or search asks again.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import anyio
import structlog

from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.limiter import Limiter
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.session import Session

log = structlog.get_logger(__name__)

T = TypeVar("T")

APART_AGAIN_SECONDS = 60.0
"""Seconds before a refused batch of the same scope is described in parts again, which takes many calls."""
REFUSAL_LOGGED_SECONDS = 60.0
UNTAKEN_KEPT = 1000


class Describing:
    """
    Describe containers in batches, and in parts where the service refuses a batch for one of its identifiers.

    :param calls: calls in flight at most; shared by all callers that take a place before they describe
    """

    def __init__(self, *, session: Session, limiter: Limiter, calls: int, event: Callable[[str], str]) -> None:
        self._session = session
        self._limiter = limiter
        self._event = event
        self._refusal_logged_at = -math.inf
        self._apart_at: defaultdict[str, float] = defaultdict(lambda: -math.inf)
        self._untaken: set[Handle] = set()
        self.places = anyio.CapacityLimiter(calls)

    async def wait_for_read(self) -> None:
        """Wait until the read budget allows one call, and take it."""
        while not self._limiter.take_read(now := loop_time()):  # noqa: ASYNC110 - time is the event
            await anyio.sleep_until(self._limiter.read_ready_at(now))

    def in_batches(self, members: Sequence[T]) -> Iterable[Sequence[T]]:
        """Cut a sequence into parts that one call can describe."""
        size = self._session.describe_batch
        for start in range(0, len(members), size):
            yield members[start : start + size]

    async def describe(
        self, scope: str, ids: Sequence[str], refusal: list[str] | None = None
    ) -> Sequence[Observation]:
        """
        Describe one batch of containers; return nothing if the service gives no answer.

        :param refusal: gets the service's words if it refuses to answer, or ours if an answer cannot be read
        """
        if not self._session.begins_call(loop_time()):
            return ()
        try:
            observations = await self._session.describe(scope, ids)
        except BackendError as error:
            if error.kind is Kind.INVALID and (told := await self._described_apart(scope, ids)):
                return told
            self.read_refused(error, "describe", scope)
            if refusal is not None and error.kind in (Kind.REFUSED, Kind.INVALID):
                refusal.append(str(error))
            if error.kind is not Kind.INVALID:
                return ()
            return [_not_taken(handle) for one in ids if (handle := Handle(scope, one)) in self._untaken]
        self._limiter.read_succeeded()
        if refusal is not None and len(observations) < len(ids):
            refusal.append("the record of a container cannot be read")
        return observations

    def read_refused(self, error: BackendError, operation: str, scope: str) -> None:
        """Note that a reading call failed: slow down after a throttle, log any other refusal once a minute."""
        now = loop_time()
        if error.kind is Kind.THROTTLED:
            self._limiter.read_throttled(now)
        elif error.kind is not Kind.CREDENTIALS and now >= self._refusal_logged_at + REFUSAL_LOGGED_SECONDS:
            # It decides nothing: containers run on, and their ends are seen once the service answers again.
            self._refusal_logged_at = now
            log.warning(
                self._event("read.failed"),
                operation=operation,
                scope=scope,
                code=error.code,
                reason=error.message,
            )

    async def _described_apart(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """
        Describe a refused batch in parts, to find identifiers that the service does not accept.

        The identifier is to blame only if another one is answered; if none is, the service refuses the call
        itself.
        """
        if len(ids) == 1 or loop_time() < self._apart_at[scope]:
            return ()
        self._apart_at[scope] = math.inf  # one at a time
        told: list[Observation] = []
        untaken: list[str] = []
        try:
            await self._describe_halves(scope, ids, told, untaken)
        finally:
            self._apart_at[scope] = -math.inf if told else loop_time() + APART_AGAIN_SECONDS
        if told:
            handles = [Handle(scope, one) for one in untaken]
            if len(self._untaken) > UNTAKEN_KEPT:
                self._untaken.clear()
            self._untaken.update(handles)  # it may be alone in the next batch
            told += map(_not_taken, handles)
        return told

    async def _describe_halves(
        self, scope: str, ids: Sequence[str], told: list[Observation], untaken: list[str]
    ) -> None:
        for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]):
            await self.wait_for_read()
            try:
                told += await self._session.describe(scope, half)
            except BackendError as error:
                if error.kind is not Kind.INVALID:
                    self.read_refused(error, "describe", scope)
                elif len(half) == 1:
                    untaken += half
                else:
                    await self._describe_halves(scope, half, told, untaken)


def _not_taken(handle: Handle) -> Observation:
    return Observation(handle, Seen.MISSING, status="INVALID")
