"""
The seam between the engine and a cloud service: the ``Backend`` protocol and its records.

May import :mod:`ecs_async_executor.core.errors` only. The engine knows nothing else of a service. What is made for
every container in every sweep is a msgspec structure: that costs an eighth of what a frozen dataclass does.
"""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import msgspec


class Handle(msgspec.Struct, frozen=True, gc=False):
    """
    What names a container at the service, for as long as the service remembers it.

    :param scope: where it lives and has to be asked for (a cluster, a queue; as it was given in the request)
    :param id: the service's identifier
    """

    scope: str
    id: str


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """
    One request to start a container, ready to be sent any number of times under one token.

    :param request: the service's parameters, without the token; never changed after this was made
    :param scope: see :class:`Handle`
    :param placement: what shares capacity with this request; a capacity refusal closes the gate of this name
    :param bucket: the service's rate bucket that the request draws from
    :param started_by: the mark by which :meth:`Backend.search` finds the container, None if the user set their own
    :param own_mark: one that also tells its containers from those of other launches of the same workload, where
        the service has room for that
    :param expires_at: wall-clock seconds after which a container could no longer use what the request carries
    """

    request: Mapping[str, Any] = field(repr=False)
    scope: str
    placement: str
    bucket: str
    started_by: str | None = None
    expires_at: float | None = None
    own_mark: str | None = None


@dataclass(frozen=True, slots=True)
class Service:
    """
    What sets one service apart from another, known before anything is called.

    Rates are calls per second that an account may make as long as nobody had them raised.

    :param name: for people, and for the thread
    :param launch_rates: launches, by bucket
    :param launch_rate: launches from a bucket that is not among those
    :param change_rate: launches and stops together
    :param change_burst: how many of those may leave at once after a rest
    :param repeatable: the same spec and token again mean the same container. If not, a request without a definite
        answer is never sent again before a search, long enough after it, has found no container.
    :param absent_grace: how many seconds are long enough for that
    :param stop_permission: what stopping a container takes, for people
    """

    name: str
    launch_rates: Mapping[str, float]
    launch_rate: float
    change_rate: float
    change_burst: float
    repeatable: bool = True
    absent_grace: float = 20.0
    stop_permission: str = ""

    @property
    def executor(self) -> str:
        """Return what the names of its executor's metrics and log events begin with."""
        return f"{self.name.lower()}_executor"

    def event(self, what: str) -> str:
        """Name a log event of its executor."""
        return f"{self.executor}.{what}"

    def rate_of(self, bucket: str) -> float:
        """Return how many launches per second a bucket allows."""
        return self.launch_rates.get(bucket, self.launch_rate)


class Seen(enum.Enum):
    """Where a container is in its life, as far as the engine cares."""

    PENDING = "pending"
    RUNNING = "running"
    STOPPED = "stopped"
    MISSING = "missing"
    """The service does not know it: not yet, or no longer."""


class Observation(msgspec.Struct, frozen=True, gc=False):
    """
    What the service said about one container at one moment.

    :param handle: which container
    :param seen: where it is
    :param status: the service's own word for that, for people
    :param exit_code: of the Airflow container, as soon as it has one, whatever ``seen`` says
    :param started: user code can have run in it
    :param reason: why it stopped, or why it does not start, as a sentence for people; empty if there is nothing
        to say
    :param stop_code: the service's code for why it stopped, or None
    :param by_hand: a person had it stopped, or what a person has configured for that; no executor did
    :param created_at: wall-clock seconds, None if unknown
    :param started_by: the mark it was started with, None if unknown
    :param unplaced: there is no room for it: it waits for a place yet, or, STOPPED, it never got one
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


@dataclass(frozen=True, slots=True)
class Trial:
    """
    A request that changes nothing and shows whether the service would take others like it.

    :param name: the operation, and what it was tried on
    :param make: makes the request; raises :class:`~ecs_async_executor.core.errors.BackendError` with why not
    """

    name: str
    make: Callable[[], Awaitable[object]]


class Backend(Protocol):
    """
    A cloud service that runs containers.

    Every method makes one request at most per call of the underlying API, retries nothing and raises
    :class:`~ecs_async_executor.core.errors.BackendError` for whatever goes wrong.
    """

    @property
    def describe_batch(self) -> int:
        """How many handles of one scope one :meth:`describe` takes."""
        ...

    def scope_of(self, handle_id: str | None) -> str:
        """Say where a container with this identifier lives, or, for None, where containers go by default."""
        ...

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold the client open, on the loop that runs this."""
        ...

    async def launch(self, spec: LaunchSpec, token: str) -> Observation:
        """Start one container; :attr:`Service.repeatable` says what the same spec and token again mean."""
        ...

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """Say where containers are: one observation per id, MISSING ones included, in any order."""
        ...

    async def search(self, scope: str, started_by: str) -> Sequence[Handle]:
        """List the containers, stopped ones included where the service can, that carry this mark."""
        ...

    async def stop(self, handle: Handle, reason: str) -> None:
        """Ask for a container to be stopped; asking twice is harmless."""
        ...

    async def check(self) -> None:
        """Make one harmless call; return if the service answers it as it should, raise why not."""
        ...

    def trials(self) -> Sequence[Trial]:
        """Return all that can be tried without starting a container."""
        ...

    @property
    def untried(self) -> str:
        """The operations that :meth:`trials` leaves out, and why: the end of a sentence for people."""
        ...
