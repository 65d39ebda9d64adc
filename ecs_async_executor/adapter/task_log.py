"""
The log of a running task: its container's status, and the last lines that the container has printed.

May import ``core``, ``services``, ``compat``, ``log_files`` and the service-free adapter. It runs in Airflow's
api-server, on an executor that is never started: no bridge, no engine. Every problem becomes a line; nothing here
raises.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import anyio

from ecs_async_executor.adapter import compat, log_files, looking
from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core import last_words
from ecs_async_executor.services import blocking, links
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.logs import LogReader, LogStream, NoLog, nothing_printed
from ecs_async_executor.services.redaction import redacted

TASK_LOG_TIMEOUT = 5.0
"""Seconds that the reader of a log waits for the container's status and lines."""
KEPT_FOR: Final = 3.0
"""Seconds for which others are shown the same: the UI asks again after so long, for each viewer."""
KEPT_AFTER_SILENCE: Final = 15.0
"""Seconds for which "no answer" is shown: each question would keep a thread of the api-server for the timeout."""
_MARGIN: Final = 0.5
_NO_ANSWER: Final = "no answer within {:g} s"
_SOURCE_LENGTH: Final = 2000


@dataclass
class _Shown:
    """What is shown of a container: lines about it, and its own lines."""

    sources: list[str] = field(default_factory=list)
    lines: Sequence[str] = ()
    silent: bool = False

    def say(self, line: str) -> None:
        self.sources.append(redacted(line, _SOURCE_LENGTH))


def task_log(adapter: ServiceAdapter, ti: Any, try_number: int) -> tuple[list[str], Sequence[str]]:
    """
    Return lines about the container of a running task instance, and the container's own last lines. Raise nothing.

    :param try_number: the try whose log is read
    """
    try:
        external_id = ti.external_executor_id
        handle_id = adapter.handle_id(external_id) if external_id else None
        if handle_id is None or ti.try_number != try_number:
            return [], []
        shown = run_bounded(partial(_shared_look, adapter, handle_id), TASK_LOG_TIMEOUT + _MARGIN)
        lines = _unknown(shown.lines, ti)
    except Exception as error:  # noqa: BLE001 - it is a line of a log
        why = _NO_ANSWER.format(TASK_LOG_TIMEOUT) if isinstance(error, TimeoutError) else in_words(error)
        return [f"The status of the {adapter.service.name} container could not be read: {why}"], []
    sources = list(shown.sources)
    if left_out := len(shown.lines) - len(lines):
        several = "are shown once: the task's own log has them"
        once = "is shown once: the task's own log has it" if left_out == 1 else several
        sources.append(f"{left_out} of these lines {once}")
    return sources, lines


def _unknown(lines: Sequence[str], ti: Any) -> Sequence[str]:
    """Return a container's lines without those of the task's log, if that is in this machine's log folder."""
    log_path = compat.log_paths()(ti) if lines else None
    return lines if log_path is None else last_words.unknown(lines, log_files.end_of(log_path))


async def _shared_look(adapter: ServiceAdapter, handle_id: str) -> _Shown:
    return await looking.of_running_loop().ask(
        (adapter, handle_id),
        partial(_look, adapter, handle_id),
        lambda shown: KEPT_AFTER_SILENCE if shown.silent else KEPT_FOR,
    )


async def _look(adapter: ServiceAdapter, handle_id: str) -> _Shown:
    """Return what there is to show; what is missing is a line that says why."""
    name = adapter.service.name
    shown = _Shown()
    failed = f"The status of the {name} container could not be read"
    try:
        with anyio.fail_after(TASK_LOG_TIMEOUT):
            lines = await blocking.call(
                ("settings", adapter), "settings", TASK_LOG_TIMEOUT, partial(_prepared, adapter)
            )
            async with looking.of_running_loop().clients(adapter) as (inspector, reader):
                details = await inspector.details(handle_id)
                container = f"{name} container {handle_id}: {_status(details)}"
                shown.say(container)
                failed = "The log of the container could not be read"
                found = await inspector.log_streams(handle_id) if details is None else details.containers
                main = next((one for one in reversed(found) if one.runs_airflow), None)
                if main is not None and main.stream is not None:
                    shown.sources[0] = f"{redacted(container, _SOURCE_LENGTH)}. Its log: {_link(main.stream)}"
                for other in found:
                    if other is not main:
                        shown.say(_about(other))
                if lines and main is not None:
                    await _add_lines(shown, reader, main, lines)
    except TimeoutError:
        shown.silent = True
        shown.say(f"{failed}: {_NO_ANSWER.format(TASK_LOG_TIMEOUT)}")
    except Exception as error:  # noqa: BLE001 - it is a line of a log
        shown.say(f"{failed}: {in_words(error)}")
    return shown


def _prepared(adapter: ServiceAdapter) -> int:
    """
    Return how many lines of the container are shown.

    This can take long: the settings may be in a secrets backend, and the SDK takes a second to import.
    """
    importlib.import_module("aiobotocore.session")
    lines = adapter.tuning.task_log_lines
    return 0 if lines and _airflow_reads_cloudwatch() else lines


def _airflow_reads_cloudwatch() -> bool:
    """Return whether Airflow's own remote logging shows what is in CloudWatch Logs: everything would be twice."""
    from airflow.configuration import conf

    folder = conf.get("logging", "remote_base_log_folder", fallback="") or ""
    return conf.getboolean("logging", "remote_logging", fallback=False) and folder.startswith("cloudwatch://")


async def _add_lines(shown: _Shown, reader: LogReader, container: ContainerDetails, lines: int) -> None:
    if container.stream is None:
        shown.say(f"The output of the container is not shown: {container.no_stream}")
        return
    try:
        shown.lines = await reader.read(container.stream, lines)
    except NoLog as problem:
        shown.say(f"The output of the container is not shown: {problem}")
        return
    if not shown.lines:
        shown.say(f"There is no output to show: {nothing_printed(container.stream)}")
    elif len(shown.lines) == lines:
        shown.say(f"Shown are the last {lines} lines of the container (option task_log_lines)")


# --- in words -----------------------------------------------------------------------------------------------


def _status(details: Details | None) -> str:
    if details is None:
        return "not known to the service (any more)"
    observation = details.observation
    parts = [observation.status or observation.seen.value]
    if observation.exit_code is not None:
        parts.append(f"exit code {observation.exit_code}")
    if observation.stop_code:
        parts.append(observation.stop_code)
    if observation.reason:
        parts.append(observation.reason)
    return ", ".join(parts)


def _about(container: ContainerDetails) -> str:
    """Return a line about a container that is not the one whose lines are shown."""
    of = f" of attempt {container.attempt}" if container.attempt is not None else ""
    ends = [container.status]
    if container.exit_code is not None:
        ends.append(f"exit code {container.exit_code}")
    ends.append(container.reason)
    said = ", ".join(one for one in ends if one)
    where = f"Its log: {_link(container.stream)}" if container.stream is not None else ""
    return f"Container {container.name}{of}: {said}. {where}".rstrip(". ")


def _link(stream: LogStream) -> str:
    return links.log_stream(stream.region, stream.group, stream.name)
