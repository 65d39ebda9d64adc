"""
What AWS says of one container, with its last lines: bounded, shared by all viewers, and it raises nothing.

May import ``core``, ``services`` that know no service, and the service-free adapter.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import anyio

from ecs_async_executor.adapter import looking
from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.services import blocking
from ecs_async_executor.services.details import NEVER_RAN, ContainerDetails, Details
from ecs_async_executor.services.logs import LogReader, NoLog, nothing_printed

LINES: Final = 100
"""The last lines of a container that a page shows."""
DETAILS_TIMEOUT = 4.0
"""Seconds that a page waits for the details of a container, a turn to ask for them included."""
LINES_TIMEOUT = 3.0
"""Seconds that it then waits for the lines."""
KEPT_FOR = 4.0
KEPT_AFTER_END = 15.0
"""Seconds for which all viewers are shown the same; what has ended does not change, but its lines come late."""
_MARGIN: Final = 0.5
_MOST_CONTAINERS: Final = 5
"""Sidecars and attempts beyond these are listed, but their lines are not read."""


@dataclass(frozen=True, slots=True)
class Output:
    """
    What a container has printed last.

    :param problem: why there are no lines, as a sentence without a full stop
    """

    container: ContainerDetails
    lines: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Look:
    """
    What AWS says of a container.

    :param details: None if the service does not know it, or has not answered
    :param problem: why there is no answer; empty if there is one
    """

    details: Details | None = None
    outputs: tuple[Output, ...] = ()
    problem: str = ""

    @property
    def ended(self) -> bool:
        """Whether the container does not change any more."""
        return self.details is not None and self.details.observation.seen is Seen.STOPPED


def look_at(adapter: ServiceAdapter, handle_id: str) -> Look:
    """Ask AWS about a container, or return an answer of a few seconds ago. Raise nothing."""
    try:
        return run_bounded(partial(_shared, adapter, handle_id), DETAILS_TIMEOUT + LINES_TIMEOUT + _MARGIN)
    except Exception as error:  # noqa: BLE001 - it is a page for people
        return Look(problem=in_words(error))


async def _shared(adapter: ServiceAdapter, handle_id: str) -> Look:
    return await looking.of_running_loop().ask(
        ("page", adapter, handle_id),
        partial(_look, adapter, handle_id),
        lambda look: KEPT_AFTER_END if look.ended else KEPT_FOR,
    )


async def _look(adapter: ServiceAdapter, handle_id: str) -> Look:
    details: Details | None = None
    try:
        # Settings can be in a secrets backend.
        await blocking.call(("settings", adapter), "settings", DETAILS_TIMEOUT, lambda: adapter.tuning)
        with anyio.move_on_after(DETAILS_TIMEOUT) as limit:
            async with looking.of_running_loop().clients(adapter) as (inspector, reader):
                details = await inspector.details(handle_id)
                containers = await inspector.log_streams(handle_id) if details is None else details.containers
                limit.deadline = anyio.current_time() + LINES_TIMEOUT + _MARGIN
                shown = [_as_it_ran(one, details) for one in containers]
                return Look(details, await _outputs(reader, shown))
    except Exception as error:  # noqa: BLE001 - it is a page for people
        return Look(details, problem=in_words(error))
    return Look(details, problem=f"no answer within {DETAILS_TIMEOUT:g} s")


def _as_it_ran(container: ContainerDetails, details: Details | None) -> ContainerDetails:
    """Return a container without its log stream if it never ran: there is none, and none will come."""
    if details is None or not details.never_ran or not container.runs_airflow:
        return container
    return replace(container, stream=None, no_stream=f"the container {NEVER_RAN}")


async def _outputs(reader: LogReader, containers: list[ContainerDetails]) -> tuple[Output, ...]:
    """Return the outputs, that of Airflow's container first, the latest attempt before the others."""
    containers.reverse()
    containers.sort(key=lambda one: not one.runs_airflow)
    return tuple(await asyncio.gather(*(_output(reader, one) for one in containers[:_MOST_CONTAINERS])))


async def _output(reader: LogReader, container: ContainerDetails) -> Output:
    stream = container.stream
    if stream is None:
        return Output(container, problem=container.no_stream)
    try:
        lines = await asyncio.wait_for(reader.read(stream, LINES), LINES_TIMEOUT)
    except asyncio.TimeoutError:
        return Output(container, problem=f"CloudWatch Logs has not answered within {LINES_TIMEOUT:g} s")
    except NoLog as error:
        return Output(container, problem=str(error))
    return Output(container, tuple(lines), "" if lines else nothing_printed(stream))
