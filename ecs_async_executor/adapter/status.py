"""
Reading the status of executors from outside their schedulers, over HTTP.

May import Airflow, SQLAlchemy, ``engine`` and the service-free adapter. For commands and for the page in the UI.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from airflow.configuration import conf
from airflow.jobs.job import Job
from sqlalchemy import select

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.endpoint import port_setting
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.engine.daemons import DaemonThreads

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

READ_TIMEOUT = 2.0
"""Seconds that a scheduler has to show its status."""
_MOST_BYTES = 16 * 1024 * 1024
_CHUNK = 64 * 1024
_LOOPBACK = ("127.", "localhost", "::1")
_job: Any = Job


class StatusUnreadable(Exception):
    """An executor's status could not be read; says why, in a sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class ExecutorStatus:
    """
    One executor of ours in one running scheduler.

    :param hostname: the scheduler's, as Airflow's table of jobs has it
    :param job_id: of the scheduler
    :param heartbeat_age: seconds since the scheduler's last heartbeat
    :param executor: the service
    :param class_name: of the executor
    :param status: what ``GET /status`` answered, None if there is no answer
    :param problem: why there is none, and the way out, as a sentence; None if there is one
    """

    hostname: str
    job_id: int
    heartbeat_age: float
    executor: str
    class_name: str
    team: str | None
    status: Mapping[str, Any] | None = None
    problem: str | None = None


def read_status(
    host: str, port: int, timeout: float = READ_TIMEOUT, state: str | None = None
) -> Mapping[str, Any]:
    """
    Read the status that an executor shows at ``status_port``.

    :param timeout: seconds for all of it
    :param state: with launches in this state only; see :data:`~ecs_async_executor.engine.status.FILTERS`
    :raises StatusUnreadable: if there is no answer in time, or not this one
    """
    # In a thread, because no timeout ends the search for a name.
    answer = DaemonThreads().submit(_read, host, port, timeout, state)
    try:
        return answer.result(timeout)
    except (FutureTimeoutError, TimeoutError):
        raise StatusUnreadable(f"no answer from {host}:{port} within {timeout:g} s") from None
    except ConnectionRefusedError:
        raise StatusUnreadable(
            f"nothing listens on {host}:{port}: the scheduler was started without status_port, or its executor "
            "has no AWS client yet"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise StatusUnreadable(f"{host}:{port} cannot be read: {error}") from None


def _read(host: str, port: int, timeout: float, state: str | None) -> Mapping[str, Any]:
    deadline = time.monotonic() + timeout
    connection = http.client.HTTPConnection(host, port, timeout=timeout)
    try:
        connection.request("GET", f"/status?state={state}" if state else "/status")
        response = connection.getresponse()
        body = b""
        while chunk := response.read(_CHUNK):
            body += chunk
            if time.monotonic() > deadline or len(body) > _MOST_BYTES:
                raise TimeoutError
    finally:
        connection.close()
    try:
        document = json.loads(body)
    except ValueError:
        document = None
    if response.status != http.client.OK or not isinstance(document, dict) or "launches" not in document:
        said = document.get("error") if isinstance(document, dict) else None
        raise StatusUnreadable(f"{host}:{port} is no executor's status: {said or f'HTTP {response.status}'}")
    return document


def statuses(session: Session, timeout: float = READ_TIMEOUT, state: str | None = None) -> list[ExecutorStatus]:
    """
    Read the status of each executor of ours in each running scheduler; those without an answer say why.

    :param timeout: seconds for each answer; all are read at once
    :param state: as in :func:`read_status`
    """
    schedulers = _running_schedulers(session)
    asked = [
        _ask(executor, scheduler, timeout, state)
        for _, executor in compat.our_executors(AsyncExecutor)
        for scheduler in schedulers
    ]
    return [seen for answer in asked if (seen := answer.result()) is not None]


def _running_schedulers(session: Session) -> list[Any]:
    query = select(_job.id, _job.hostname, _job.latest_heartbeat).where(
        _job.job_type == "SchedulerJob", _job.state == "running"
    )
    return list(session.execute(query.order_by(_job.id)).all())


def _ask(
    executor: AsyncExecutor, scheduler: Any, timeout: float, state: str | None
) -> Future[ExecutorStatus | None]:
    """Begin to read one status."""
    seen = ExecutorStatus(
        hostname=scheduler.hostname or "",
        job_id=scheduler.id,
        heartbeat_age=(datetime.now(tz=timezone.utc) - scheduler.latest_heartbeat).total_seconds(),
        executor=executor.adapter.service.name,
        class_name=class_name(type(executor)),
        team=executor.team_name,
    )
    return DaemonThreads().submit(_status_of, executor, seen, timeout, state)


def _status_of(
    executor: AsyncExecutor, seen: ExecutorStatus, timeout: float, state: str | None
) -> ExecutorStatus | None:
    """Return an executor's status, or None if its scheduler is gone and a later one has its port."""
    try:
        host, port = _address(executor, seen.hostname)
        status = read_status(host, port, timeout, state)
    except StatusUnreadable as error:
        return replace(seen, problem=f"{_silence(seen)}{error}")
    except ConfigurationError as error:
        return replace(seen, problem="; ".join(error.problems))
    shown = (status.get("class"), status.get("team"), status.get("job_id"))
    if shown != (seen.class_name, seen.team, seen.job_id):
        if _has_replaced(status, seen):
            return None
        others = f"{status.get('class')} of the scheduler with job {status.get('job_id')}"
        others += f", team {status['team']}" if status.get("team") else ""
        setting = port_setting(executor.adapter.tuning, seen.team)
        problem = f"{host}:{port} shows another executor: {others}. Give each a port of its own: {setting}"
        return replace(seen, problem=problem)
    return replace(seen, status=status)


def _has_replaced(status: Mapping[str, Any], seen: ExecutorStatus) -> bool:
    """
    Return whether a port shows the successor of a scheduler that was killed.

    Airflow's table of jobs has a killed scheduler as running until another one looks for such, every five minutes.
    """
    same = (status.get("class"), status.get("team")) == (seen.class_name, seen.team)
    job_id = status.get("job_id")
    return same and isinstance(job_id, int) and job_id > seen.job_id and _is_silent(seen)


def _is_silent(seen: ExecutorStatus) -> bool:
    """Return whether Airflow takes a scheduler for dead by the age of its heartbeat."""
    return seen.heartbeat_age > conf.getfloat("scheduler", "scheduler_health_check_threshold", fallback=30.0)


def _silence(seen: ExecutorStatus) -> str:
    """Return the begin of a sentence about a scheduler that sends no heartbeat, empty if it sends some."""
    if not _is_silent(seen):
        return ""
    return f"the scheduler is down or hangs: it has sent no heartbeat for {seen.heartbeat_age:.0f} s; "


def _address(executor: AsyncExecutor, hostname: str) -> tuple[str, int]:
    """
    Return where an executor shows its status to this machine.

    :raises StatusUnreadable: if it shows it nowhere, or not to this machine
    :raises ConfigurationError: if its settings cannot be used
    """
    tuning = executor.adapter.tuning
    setting = port_setting(tuning, executor.team_name)
    if tuning.status_port is None:
        raise StatusUnreadable(
            f"{setting} is not set: set it to a free port, for the scheduler and here, to see the executor's state"
        )
    if not tuning.status_host.startswith(_LOOPBACK):
        return hostname, tuning.status_port
    if hostname != compat.hostname():
        raise StatusUnreadable(
            f"status_host = {tuning.status_host} shows it to the scheduler's own machine ({hostname}) only: set "
            f"status_host = 0.0.0.0 beside {setting}, or ask there"
        )
    return tuning.status_host, tuning.status_port
