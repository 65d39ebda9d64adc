"""
The session with one destination: every call of the backend there goes through it, and it keeps the books on them.

May import ``core``, ``meters``, anyio and structlog. It decides nothing about a launch: it counts, times,
pauses all calls while the credentials are refused, and remembers since when launches get no answer.
"""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import structlog

from ecs_async_executor.core.backend import Backend, Handle, LaunchSpec, Observation, Paced, unpaced
from ecs_async_executor.core.choosing import Outage
from ecs_async_executor.core.destinations import HOME, within
from ecs_async_executor.core.errors import NO_ANSWER, BackendError, Kind
from ecs_async_executor.core.gates import Gate
from ecs_async_executor.core.metrics import Operation, Result
from ecs_async_executor.core.usage import Usage
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.meters import Meters

log = structlog.get_logger(__name__)

T = TypeVar("T")

UNANSWERED_SECONDS = 60.0
"""After so long without an answer to any launch, none is taken from the scheduler and none given back."""
OUTAGE_COUNTS_FOR = 120.0
"""Seconds for which a launch without an answer says that the next one will have none either."""
LATENCIES_KEPT = 256
_READ = ("read", "")
_DRAWS_FROM = {Operation.STOP: ("stop", "")}
"""The kind and the bucket that an operation draws from; launches name theirs, all others are reads."""
_UNDECIDED = NO_ANSWER | {Kind.THROTTLED, Kind.CONCURRENT}
"""Errors that do not show whether the credentials are good."""


class Session:
    """
    One destination of a backend, with one gate for the credentials that all calls there share.

    Every call raises :class:`~ecs_async_executor.core.errors.BackendError` as the backend does; any other
    exception of the backend becomes one of :attr:`Kind.AMBIGUOUS`: there was no answer.

    :param meters: count and time every call
    :param event: makes the full name of a log event
    :param resumed: called when the credentials work again
    :param destination: its name, for the log
    :ivar silence: why the latest launch without an answer had none, for people
    :ivar usages: what was sent and refused of late, by kind (launch, stop, read) and bucket
    """

    def __init__(
        self,
        backend: Backend,
        meters: Meters,
        *,
        event: Callable[[str], str],
        resumed: Callable[[], None] = lambda: None,
        destination: str = HOME,
    ) -> None:
        self._backend = backend
        self._event = event
        self._resumed = resumed
        self._named = {"destination": destination} if destination else {}
        self._credentials = Gate(5.0, 30.0)
        self._latencies: deque[float] = deque(maxlen=LATENCIES_KEPT)
        self._unanswered_since: float | None = None
        self._unanswered_at = -math.inf
        self.meters = meters
        self.silence = ""
        self.usages: defaultdict[tuple[str, str], Usage] = defaultdict(Usage)

    # --- whether to call -------------------------------------------------------------------------------------

    def may_call(self, now: float) -> bool:
        """Return whether the credentials allow a call."""
        return self._credentials.may_pass(now)

    def begins_call(self, now: float) -> bool:
        """Return whether the credentials allow a call; if they are refused at present, this call is the probe."""
        if not self._credentials.may_pass(now):
            return False
        self._credentials.probe_started(now)
        return True

    @property
    def next_probe_at(self) -> float | None:
        """When :meth:`may_call` allows the next call, or None if the credentials are not refused."""
        return self._credentials.next_probe_at

    @property
    def paused(self) -> str | None:
        """Why the credentials allow no call, or None."""
        return None if self._credentials.is_open else f"AWS credentials: {self._credentials.reason}"

    @property
    def unanswered(self) -> str:
        """Why the latest launch without an answer had none, in a sentence."""
        return f"AWS does not answer: {self.silence}"

    def outage(self, now: float) -> Outage | None:
        """Return since when launches are not taken here or have no answer, or None."""
        closed_since = self._credentials.closed_since
        if closed_since is not None:
            return Outage(closed_since, self.paused or "")
        is_news = now < self._unanswered_at + OUTAGE_COUNTS_FOR
        if is_news and self._unanswered_since is not None and self.is_unanswered(now):
            return Outage(self._unanswered_since, self.unanswered)
        return None

    def is_unanswered(self, now: float) -> bool:
        """Return whether launches have had no answer of any kind for :data:`UNANSWERED_SECONDS`."""
        return self._unanswered_since is not None and now >= self._unanswered_since + UNANSWERED_SECONDS

    @property
    def latencies(self) -> Sequence[float]:
        """How long the latest calls took, in seconds."""
        return self._latencies

    # --- the calls -------------------------------------------------------------------------------------------

    @property
    def describe_batch(self) -> int:
        """See :attr:`~ecs_async_executor.core.backend.Backend.describe_batch`."""
        return self._backend.describe_batch

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        """Start one container, and note whether launches get an answer."""
        try:
            observation = await self._call(
                Operation.LAUNCH,
                self._backend.launch(spec, client_token),
                draws_from=("launch", within(spec.bucket)),
            )
        except BackendError as error:
            if error.kind not in NO_ANSWER:
                self._unanswered_since = None
            else:
                self.silence = str(error)
                self._unanswered_at = loop_time()
                if self._unanswered_since is None:
                    self._unanswered_since = self._unanswered_at
            raise
        self._unanswered_since = None
        return observation

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """Describe containers."""
        return await self._call(Operation.DESCRIBE, self._backend.describe(scope, ids))

    async def search(self, scope: str, mark: str, paced: Paced = unpaced) -> Sequence[Handle]:
        """List the containers that carry a mark; ``paced`` is awaited before each request but the first."""
        waited = 0.0

        async def pacing() -> None:
            nonlocal waited
            begun = loop_time()
            await paced()
            now = loop_time()
            waited += now - begun
            self.usages[_READ].sent(now)

        search = self._backend.search(scope, mark, pacing)
        return await self._call(Operation.SEARCH, search, waited=lambda: waited)

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask for a container to be stopped."""
        await self._call(Operation.STOP, self._backend.stop(handle, reason))

    async def check(self) -> None:
        """Make one harmless call."""
        await self._call(Operation.CHECK, self._backend.check())

    async def _call(
        self,
        operation: Operation,
        call: Awaitable[T],
        waited: Callable[[], float] = lambda: 0.0,
        draws_from: tuple[str, str] | None = None,
    ) -> T:
        """
        Await a call.

        :param waited: returns the seconds of it that were no time of the service's
        :param draws_from: kind and bucket of a launch
        """
        begun = loop_time()
        usage = self.usages[draws_from or _DRAWS_FROM.get(operation, _READ)]
        sent = usage.sent(begun)
        result: Result | None = None  # of a call that is cancelled
        try:
            answer = await call
        except BackendError as error:
            result = Result.ERROR
            if error.kind is Kind.THROTTLED:
                result = Result.THROTTLED
                usage.refused(loop_time(), sent)
            if error.kind is Kind.CREDENTIALS:
                self._pause(error)
            elif error.kind in _UNDECIDED:
                self._credentials.undecided(loop_time())
            else:
                self._resume()  # the service authenticated the caller before it refused: the credentials work
            raise
        except Exception as error:
            result = Result.ERROR
            self._credentials.undecided(loop_time())
            log.exception(self._event("backend.unexpected_error"))
            raise BackendError(Kind.AMBIGUOUS, type(error).__name__, "unexpected error, see the log") from error
        else:
            result = Result.OK
            self._resume()
            return answer
        finally:
            if result is not None:
                seconds = loop_time() - begun - waited()
                self._latencies.append(seconds)
                self.meters.called(operation, result, seconds)

    def _pause(self, error: BackendError) -> None:
        if self._credentials.is_open:
            log.error(self._event("credentials.paused"), code=error.code, reason=error.message, **self._named)
        self._credentials.refused(loop_time(), str(error))

    def _resume(self) -> None:
        paused = not self._credentials.is_open
        self._credentials.succeeded()
        if paused and self._credentials.is_open:
            log.info(self._event("credentials.resumed"), **self._named)
            self._resumed()
