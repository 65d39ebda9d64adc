"""
The seam between the engine and a cloud service: the ``Backend`` protocol and its records.

May import ``endings``, ``errors`` and ``sizes`` only. The engine knows nothing else of a service. The values that
every sweep makes for every container are msgspec structures, which cost an eighth of a frozen dataclass.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias, overload

import msgspec

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.sizes import Size


class Handle(msgspec.Struct, frozen=True, gc=False):
    """
    The name of a container at the service, valid as long as the service remembers the container.

    :param scope: where it lives and has to be asked for (a cluster, a queue; as the request named it); elsewhere
        than at home, its destination stands before that, see :mod:`.destinations`
    :param id: the service's identifier
    """

    scope: str
    id: str


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """
    One request to start a container, ready to be sent any number of times under one client token.

    :param request: the service's parameters, without the client token; never changed afterwards
    :param scope: see :class:`Handle`
    :param placement: requests with the same placement share capacity; a capacity refusal closes its gate
    :param bucket: the service's rate bucket that the request draws from
    :param started_by: the mark by which :meth:`Backend.search` lists the container; None if the user set their own
    :param own_mark: a mark of this launch alone, where the service has room for one
    :param choice: the placement that was chosen, see :mod:`.choices`; None if there was no choice
    :param expires_at: wall-clock seconds after which the JWT in the request is of no use to a container
    :param checked: the service's SDK would take the request, so that it need not be asked again
    :param handed_over: what the container gets in another way than by the request, which only leads there; it may
        be another one when the request is repeated
    """

    request: Mapping[str, Any] = field(repr=False)
    scope: str
    placement: str
    bucket: str
    started_by: str | None = None
    expires_at: float | None = None
    own_mark: str | None = None
    choice: str | None = None
    handed_over: str | None = field(default=None, repr=False)
    checked: bool = False


@dataclass(frozen=True, slots=True)
class Service:
    """
    The differences between services that are known before any call.

    Rates are an account's default quotas, in calls per second.

    :param name: the service's name, for people
    :param launch_rates: launches, by bucket
    :param launch_rate: launches from any other bucket
    :param change_rate: launches and stops together, or stops alone
    :param change_burst: how many launches and stops may leave at once after a rest
    :param shares_changes: launches and stops draw on one quota
    :param repeatable: the same spec and client token again mean the same container. If not, a request without a
        definite answer is sent again only after a search has found no container for ``absent_grace``
    :param absent_grace: seconds for which that search has to find none
    :param stop_permission: the permission that stopping a container takes, for people
    """

    name: str
    launch_rates: Mapping[str, float]
    launch_rate: float
    change_rate: float
    change_burst: float
    shares_changes: bool = True
    repeatable: bool = True
    absent_grace: float = 20.0
    stop_permission: str = ""

    @property
    def executor(self) -> str:
        """Return the prefix of the executor's metrics and log events."""
        return f"{self.name.lower()}_executor"

    def event(self, what: str) -> str:
        """Return the full name of a log event."""
        return f"{self.executor}.{what}"

    def rate_of(self, bucket: str) -> float:
        """Return the launches per second that a bucket allows."""
        return self.launch_rates.get(bucket, self.launch_rate)


class Seen(enum.Enum):
    """The states of a container that make a difference to the engine."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    MISSING = "missing"
    """The service does not know the container: not yet, or no longer."""


class Observation(msgspec.Struct, frozen=True, gc=False):
    """
    The service's description of one container at one moment.

    :param handle: which container
    :param seen: its state
    :param status: the service's own word for the state, for people
    :param exit_code: of Airflow's container, as soon as it has one, whatever ``seen`` says
    :param started: user code can have run in it
    :param reason: why it stopped, or why it does not start, as a sentence for people; empty if there is no reason
    :param stop_code: the service's code for the stop, or None
    :param by_hand: a person stopped it, or a limit that a person configured; no executor did
    :param created_at: wall-clock seconds, None if unknown
    :param stopped_at: wall-clock seconds, None if it has not stopped or if that is unknown
    :param started_by: the mark it was started with, None if unknown
    :param unplaced: there is no room for it: it waits for a place yet, or, STOPPED, it never got one
    :param queued: it has no place yet, be it for want of room or because the service has not found one so soon
    :param ending: the kind of its end; None before it, and on success, unless a process in it was killed
    :param size: what it had, for an end that the next try may be made bigger for; else None
    """

    handle: Handle
    seen: Seen
    status: str = ""
    exit_code: int | None = None
    started: bool = False
    reason: str = ""
    stop_code: str | None = None
    by_hand: bool = False
    created_at: float | None = None
    started_by: str | None = None
    unplaced: bool = False
    stopped_at: float | None = None
    ending: Ending | None = None
    size: Size | None = None
    queued: bool = False


@dataclass(frozen=True, slots=True)
class Trial:
    """
    A request that changes nothing and shows whether the service would accept others like it.

    :param name: the operation, and its target
    :param make: makes the request; raises :class:`~ecs_async_executor.core.errors.BackendError` if it is refused
    :param destination: where it goes, see :mod:`.destinations`
    :param decides: if it fails, so do all others of its destination
    """

    name: str
    make: Callable[[], Awaitable[object]]
    destination: str = ""
    decides: bool = False


Paced: TypeAlias = Callable[[], Awaitable[None]]
"""Waits until the rate allows one more reading request, and takes it from the budget."""


async def unpaced() -> None:
    """Wait for nothing."""


class Backend(Protocol):
    """
    A cloud service that runs containers.

    No method retries; each raises :class:`~ecs_async_executor.core.errors.BackendError` if a call fails.
    """

    @property
    def describe_batch(self) -> int:
        """The most handles of one scope that one :meth:`describe` takes."""
        ...

    @overload
    def scope_of(self, handle_id: None) -> str: ...

    @overload
    def scope_of(self, handle_id: str) -> str | None: ...

    def scope_of(self, handle_id: str | None) -> str | None:
        """
        Return the scope of a container with this identifier, or, for no identifier, the default scope.

        None: the identifier does not tell in which destination its container is; the request that made it does.
        """
        ...

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        """Return the scopes that a container with this identifier can be in: the likeliest first, one at least."""
        ...

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold the client open, on the running loop."""
        ...

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        """Start one container; :attr:`Service.repeatable` says what a repetition means."""
        ...

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """Describe containers: one observation per id, MISSING ones included, in any order."""
        ...

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        """
        List the containers, stopped ones included where the service can, that carry this mark.

        It can take many requests; ``paced`` is awaited before each but the first.
        """
        ...

    async def stop(self, handle: Handle, reason: str) -> None:
        """Stop a container; a repetition is harmless."""
        ...

    async def check(self) -> None:
        """Make one harmless call; raise if the service refuses it."""
        ...

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:
        """
        Return every request that can be tried without starting a container.

        :param specs: of launches that could come: the requests are tried wherever these would go, too
        """
        ...

    @property
    def untried(self) -> str:
        """The operations that :meth:`trials` leaves out, and why: the end of a sentence for people."""
        ...
