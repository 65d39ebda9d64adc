"""
The last lines of a container that has failed: read, and put where people look for them.

May import ``core``, ``log_files`` and the service-free adapter. It runs on the loop's thread, where the engine's
lane bounds how often and how many at a time. A problem here is told in place of the lines.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import anyio

from ecs_async_executor.adapter.log_files import LogFiles
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core import last_words
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import PostMortem
from ecs_async_executor.engine.postmortems import Read
from ecs_async_executor.services.details import ContainerDetails, Inspector
from ecs_async_executor.services.logs import LogReader, LogStream, NoLog
from ecs_async_executor.services.readable import readable

_TIMEOUT: Final = 20.0
"""Seconds for all requests, of which the lines may take five to arrive."""
_CLOSING: Final = 1.0


class LastWordsReader:
    """
    Reads the last lines of containers.

    :param lines: the most lines of one container
    """

    def __init__(self, adapter: ServiceAdapter, lines: int, files: LogFiles) -> None:
        self._adapter = adapter
        self._lines = lines
        self._files = files

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Read]:
        """Hold clients open from the first read on; they belong to the running loop."""
        stack = AsyncExitStack()
        clients = _Clients(self._adapter, stack)

        async def read(dead: PostMortem) -> str:
            return await self._entry(clients, dead)

        try:
            yield read
        finally:
            with anyio.move_on_after(_CLOSING, shield=True):
                await stack.aclose()

    async def _entry(self, clients: _Clients, dead: PostMortem) -> str:
        """Return the entry for Airflow's event log; have the file written meanwhile."""
        lines: Sequence[str] = ()
        problem = ""
        try:
            with anyio.fail_after(_TIMEOUT):
                lines = await self._read(clients, dead)
        except NoLog as error:
            problem = str(error)
        except BackendError as error:
            problem = f"{self._adapter.service.name} does not say where it is: {in_words(error)}"
        except TimeoutError:
            problem = f"no answer within {_TIMEOUT:g} s"
        if dead.log_path is not None:
            self._files.write(dead.log_path, last_words.file(dead, lines, problem))
        return last_words.entry(dead, lines, problem, readable)

    async def _read(self, clients: _Clients, dead: PostMortem) -> Sequence[str]:
        inspector, reader = await clients.opened()
        stream = _stream_of(await inspector.log_streams(dead.handle_id))
        # One that never ran prints nothing later either; another's last lines can take seconds to arrive.
        return await (reader.tail if last_words.ran(dead) else reader.read)(stream, self._lines)


class _Clients:
    """What reads need, opened for the first of them that can."""

    def __init__(self, adapter: ServiceAdapter, stack: AsyncExitStack) -> None:
        self._adapter = adapter
        self._stack = stack
        self._opened: tuple[Inspector, LogReader] | None = None
        self._opening = anyio.Lock()

    async def opened(self) -> tuple[Inspector, LogReader]:
        """
        Return what looks at containers and what reads their output.

        :raises BackendError: if there can be no client
        """
        async with self._opening:
            if self._opened is None:
                inspector = await self._stack.enter_async_context(self._adapter.inspector())
                reader = await self._stack.enter_async_context(self._adapter.log_reader().open())
                self._opened = inspector, reader
            return self._opened


def _stream_of(containers: Sequence[ContainerDetails]) -> LogStream:
    """
    Return where the output of Airflow's container is, of Batch's latest attempt.

    :raises NoLog: if that is not known
    """
    found = [one for one in containers if one.runs_airflow]
    if not found:
        raise NoLog("the service names no container with Airflow's command")
    with_stream = [one.stream for one in found if one.stream is not None]
    if not with_stream:
        raise NoLog(found[-1].no_stream)
    return with_stream[-1]
