"""
Several destinations as one: a backend, a console and an inspector over those of each destination.

Imports ``core``, ``console``, ``details``, ``lazily`` and ``places``. The first call to a destination opens its
client. So a destination that is down, or has no good credentials, fails its own calls only, and only as long as
that lasts. Scopes that come in, and those that go out, name their destination first; see
:mod:`ecs_async_executor.core.destinations`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, contextmanager
from dataclasses import replace
from functools import partial
from typing import Generic, Protocol, TypeVar, overload

import msgspec

from ecs_async_executor.core.backend import Backend, Handle, LaunchSpec, Observation, Paced, Seen, Trial, unpaced
from ecs_async_executor.core.destinations import HOME, destination_of, scoped, within
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.services.console import Console, Marked, Progress, untold
from ecs_async_executor.services.details import ContainerDetails, Details, Inspector
from ecs_async_executor.services.lazily import Lazily
from ecs_async_executor.services.places import Places

T = TypeVar("T")


@contextmanager
def _errors_name(destination: str) -> Iterator[None]:
    """Have errors say which destination they are about."""
    try:
        yield
    except BackendError as error:
        raise _named(error, destination) from None


def _named(error: BackendError, destination: str) -> BackendError:
    if not destination:
        return error
    return BackendError(
        error.kind,
        error.code,
        f"{error.message} (destination {destination})".lstrip(),
        error.resource_ids,
        unavailable=error.unavailable,
        token_used=error.token_used,
    )


def _there(destination: str, handle: Handle) -> Handle:
    return Handle(scoped(destination, handle.scope), handle.id)


def _seen_there(destination: str, observation: Observation) -> Observation:
    return msgspec.structs.replace(observation, handle=_there(destination, observation.handle))


@asynccontextmanager
async def _closing(these: Sequence[Lazily[T]]) -> AsyncIterator[None]:
    async with AsyncExitStack() as stack:
        for one in these:
            stack.push_async_callback(one.close)
        yield


class _Opens(Protocol):
    def open(self) -> AbstractAsyncContextManager[None]: ...


_Service = TypeVar("_Service", bound=_Opens)


class _OfAll(Generic[_Service]):
    """
    One object for each destination, opened by the first call there.

    :param each: by the names of their destinations
    """

    def __init__(self, each: Mapping[str, _Service]) -> None:
        self._each = each
        self._open: Mapping[str, Lazily[None]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open each destination's client when it is needed; they belong to the running loop."""
        self._open = {name: Lazily(one.open) for name, one in self._each.items()}
        async with _closing(list(self._open.values())):
            yield

    async def _call(self, name: str, call: Callable[[_Service], Awaitable[T]]) -> T:
        with _errors_name(name):
            await self._open[name].opened()
            return await call(self._each[name])


# --- the backend --------------------------------------------------------------------------------------------


class Destinations(_OfAll[Backend]):
    """
    The backends of all destinations as a :class:`~ecs_async_executor.core.backend.Backend`.

    :param backends: by the names of their destinations; home among them
    :param places: learns which accounts they are
    """

    def __init__(self, backends: Mapping[str, Backend], places: Places) -> None:
        super().__init__(backends)
        self._places = places

    @property
    def describe_batch(self) -> int:
        """The most identifiers of one scope that one call takes."""
        return self._each[HOME].describe_batch

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        """Return every scope that a container can be in, the likeliest first, and never none."""
        return [
            scoped(name, scope)
            for name in self._places.of(handle_id)
            for scope in self._each[name].scopes_of(handle_id)
        ]

    @overload
    def scope_of(self, handle_id: None) -> str: ...

    @overload
    def scope_of(self, handle_id: str) -> str | None: ...

    def scope_of(self, handle_id: str | None) -> str | None:
        """Return the scope of a container, or, for None, home's; None if the identifier does not tell."""
        if handle_id is None:
            return self._each[HOME].scope_of(None)
        scopes = self.scopes_of(handle_id)
        return scopes[0] if len(scopes) == 1 else None

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        """Start a container in the destination that the request's scope names."""
        name = destination_of(spec.scope)
        there = replace(spec, scope=within(spec.scope))
        observation = await self._call(name, lambda backend: backend.launch(there, client_token))
        self._places.learn(name, observation.handle.id)
        return _seen_there(name, observation)

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        """Return what a destination says of containers."""
        name = destination_of(scope)
        found = await self._call(name, lambda backend: backend.describe(within(scope), ids))
        known = next((one for one in found if one.seen is not Seen.MISSING), None)
        if known is not None:
            self._places.learn(name, known.handle.id)
        return [_seen_there(name, one) for one in found] if name else found

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        """List the containers of a destination that carry a mark."""
        name = destination_of(scope)
        found = await self._call(name, lambda backend: backend.search(within(scope), started_by, paced))
        if found:
            self._places.learn(name, found[0].id)
        return [_there(name, one) for one in found]

    async def stop(self, handle: Handle, reason: str) -> None:
        """Stop a container."""
        name = destination_of(handle.scope)
        there = Handle(within(handle.scope), handle.id)
        await self._call(name, lambda backend: backend.stop(there, reason))

    async def check(self) -> None:
        """Make home's harmless call: what is wrong elsewhere holds up only what goes there."""
        await self._call(HOME, lambda backend: backend.check())

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:
        """Return the trials of every destination, first of all whether there can be a client."""
        trials: list[Trial] = []
        for name, backend in self._each.items():
            client = f"Client, destination {name}" if name else "Client"
            trials.append(Trial(client, partial(self._call, name, _nothing), name, decides=True))
            theirs = [
                replace(spec, scope=within(spec.scope)) for spec in specs if destination_of(spec.scope) == name
            ]
            for trial in backend.trials(theirs):
                named = f"{trial.name}, destination {name}" if name else trial.name
                trials.append(Trial(named, partial(self._try, name, trial), name))
        return trials

    @property
    def untried(self) -> str:
        """The requests that would start a container, as the end of a sentence."""
        return self._each[HOME].untried

    async def _try(self, name: str, trial: Trial) -> object:
        return await self._call(name, lambda _: trial.make())


async def _nothing(_: Backend) -> None:
    """Call nothing: opening the client was all."""


# --- what people do -----------------------------------------------------------------------------------------


class ConsoleOfAll(_OfAll[Console]):
    """
    The consoles of all destinations as a :class:`~ecs_async_executor.services.console.Console`.

    :param consoles: by the names of their destinations
    """

    def __init__(self, consoles: Mapping[str, Console]) -> None:
        super().__init__(consoles)
        self.scopes = [scoped(name, scope) for name, one in consoles.items() for scope in one.scopes]

    async def marked(self, scope: str, progress: Progress = untold) -> Sequence[Marked]:
        """List the containers of one place with an executor's mark."""
        name = destination_of(scope)
        found = await self._call(name, lambda console: console.marked(within(scope), progress))
        return [replace(one, handle=_there(name, one.handle)) for one in found]

    async def stop(self, handle: Handle, reason: str) -> None:
        """Stop a container, in a person's name."""
        there = Handle(within(handle.scope), handle.id)
        await self._call(destination_of(handle.scope), lambda console: console.stop(there, reason))


# --- what people look at ------------------------------------------------------------------------------------


@asynccontextmanager
async def inspecting(
    inspectors: Mapping[str, Callable[[], AbstractAsyncContextManager[Inspector]]], places: Places
) -> AsyncIterator[Inspector]:
    """
    Hold clients open, from their first use on, that look at containers of all destinations.

    :param inspectors: by the names of their destinations, what opens one
    :param places: says where a container can be, and remembers where one was found
    """
    lazily = {name: Lazily(one) for name, one in inspectors.items()}
    async with _closing(list(lazily.values())):
        yield InspectorOfAll(lazily, places)


class InspectorOfAll:
    """Looks at containers of all destinations; see :func:`inspecting`."""

    def __init__(self, inspectors: Mapping[str, Lazily[Inspector]], places: Places) -> None:
        self._inspectors = inspectors
        self._places = places

    async def details(self, handle_id: str) -> Details | None:
        """
        Return what people want to read of a container; None if no destination knows it that can have it.

        :raises BackendError: if none knows it, and one of them did not say
        """
        names = self._places.of(handle_id)
        if len(names) == 1:
            return await self._details(names[0], handle_id)
        asked = [asyncio.create_task(self._details(name, handle_id)) for name in names]
        try:
            problem: BaseException | None = None
            for answer in asyncio.as_completed(asked):
                try:
                    details = await answer
                except BackendError as error:
                    problem = problem or error
                    continue
                if details is not None:
                    return details
        finally:
            for one in asked:
                one.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
        if problem is not None:
            raise problem
        return None

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        """
        Return the containers of a task or job with the places of their output, as far as can be known.

        :raises BackendError: if the service does not answer, or refuses
        """
        details = await self.details(handle_id)
        if details is not None:
            return details.containers
        name = self._places.of(handle_id)[0]
        with _errors_name(name):
            inspector = await self._inspectors[name].opened()
            return _logging_there(name, await inspector.log_streams(handle_id))

    async def _details(self, name: str, handle_id: str) -> Details | None:
        with _errors_name(name):
            inspector = await self._inspectors[name].opened()
            details = await inspector.details(handle_id)
        if details is None:
            return None
        self._places.remember(name, handle_id)
        return replace(
            details,
            observation=_seen_there(name, details.observation),
            containers=_logging_there(name, details.containers),
            destination=name,
        )


def _logging_there(name: str, containers: Sequence[ContainerDetails]) -> tuple[ContainerDetails, ...]:
    """Have the streams of containers read with the credentials of their destination."""
    return tuple(
        one if one.stream is None else replace(one, stream=replace(one.stream, destination=name))
        for one in containers
    )
