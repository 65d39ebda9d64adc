"""
The last lines of a container that has failed: read, and put where people look for them.

May import ``core``, ``log_files`` and the service-free adapter. It runs on the loop's thread, where the engine's
lane bounds how often and how many at a time. A problem here is told in place of the lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import anyio

from ecs_async_executor.adapter.log_files import LogFiles
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core import last_words
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import PostMortem
from ecs_async_executor.services.details import ContainerDetails
from ecs_async_executor.services.logs import LogStream, NoLog

_TIMEOUT: Final = 20.0
"""Seconds for all requests, of which the lines may take five to arrive."""


class LastWordsReader:
    """
    Reads the last lines of containers.

    :param lines: the most lines of one container
    """

    def __init__(self, adapter: ServiceAdapter, lines: int, files: LogFiles) -> None:
        self._adapter = adapter
        self._lines = lines
        self._files = files

    async def __call__(self, dead: PostMortem) -> str:
        """Return the entry for Airflow's event log; have the file written meanwhile."""
        lines: Sequence[str] = ()
        problem = ""
        try:
            with anyio.fail_after(_TIMEOUT):
                lines = await self._read(dead)
        except NoLog as error:
            problem = str(error)
        except BackendError as error:
            problem = f"{self._adapter.service.name} does not say where it is: {in_words(error)}"
        except TimeoutError:
            problem = f"no answer within {_TIMEOUT:g} s"
        if dead.log_path is not None:
            self._files.write(dead.log_path, last_words.file(dead, lines, problem))
        return last_words.entry(dead, lines, problem)

    async def _read(self, dead: PostMortem) -> Sequence[str]:
        stream = _stream_of(await self._adapter.log_streams(dead.handle_id))
        async with self._adapter.log_reader().open() as reader:
            # One that never ran prints nothing later either; another's last lines can take seconds to arrive.
            return await (reader.tail if last_words.ran(dead) else reader.read)(stream, self._lines)


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
