"""
The ledger: every container that was ever accepted, for tests that count the containers of a workload.

Knows no service. Entries outlive the service's own memory of stopped containers.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import IO, Any

from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.place import Place


@dataclass(frozen=True, slots=True)
class Entry:
    """
    One container that was accepted, as it stands when the ledger is read.

    :param service: ``ecs`` or ``batch``
    :param id: its identifier at the service (ECS: task ARN, Batch: job id)
    :param token: the client token of the request; Batch has none
    :param started_by: the client's mark (ECS: startedBy, Batch: the job's name or a part of it)
    :param cluster: the ECS cluster, or the Batch job queue
    :param account: the AWS account
    :param attempt: its number among the containers with this mark; each attempt of a Batch job is a container
    :param status: the container's status, in ECS's words
    :param command: the main container's command
    :param digest: a digest of that command; equal digests mean equal commands
    :param replays: how many further requests got this container for an answer because of their client token
    :param exit_code: the main container's exit code; None before its exit, and for ever if it never ran
    """

    service: str
    id: str
    token: str
    started_by: str
    definition: str
    cluster: str
    account: str
    region: str
    launch_type: str
    number: int
    attempt: int
    command: tuple[str, ...] = field(repr=False)
    digest: str
    replays: int
    status: str
    created_at: float
    started_at: float | None
    stopped_at: float | None
    exit_code: int | None
    stop_code: str | None
    stopped_reason: str | None


@dataclass(slots=True)
class Record:
    """The live data that an :class:`Entry` is made of."""

    service: str
    id: str
    token: str
    cluster: str
    place: Place
    launch_type: str
    job: Job
    life: Life
    replays: int = 0


def digest(command: Sequence[str]) -> str:
    """Return a digest of a command; equal digests mean equal commands."""
    return hashlib.sha256(json.dumps(list(command)).encode()).hexdigest()[:16]


class Ledger:
    """
    Every container that was accepted, in order. Safe to read from any thread.

    :param path: a file that gets a JSON line whenever a container is accepted or has ended
    """

    def __init__(
        self,
        lock: threading.RLock,
        settle: Callable[[], float],
        clock: Callable[[], float],
        path: str | os.PathLike[str] | None = None,
    ) -> None:
        self._lock = lock
        self._settle = settle
        self._clock = clock
        self._records: list[Record] = []
        self._by_job: dict[str, Record] = {}
        self._file: IO[str] | None = Path(path).open("a", encoding="utf-8") if path is not None else None  # noqa: SIM115

    def __len__(self) -> int:
        with self._lock:
            return len(self._records)

    def accept(self, record: Record) -> None:
        """Record a container that was accepted."""
        self._records.append(record)
        self._by_job[record.job.id] = record
        self._write("accepted", record)

    def replayed(self, job: Job) -> None:
        """Record that a request got an existing container for an answer."""
        record = self._by_job.get(job.id)
        if record is not None:
            record.replays += 1

    def ended(self, job: Job) -> None:
        """Record that a container has ended."""
        record = self._by_job.get(job.id)
        if record is not None:
            self._write("ended", record)

    def entries(self, *, started_by: str | None = None) -> list[Entry]:
        """Return all entries, or those with one mark."""
        with self._lock:
            now = self._settle()
            return [_entry(r, now) for r in self._records if started_by is None or r.job.started_by == started_by]

    def by_started_by(self) -> dict[str, list[Entry]]:
        """Return all entries, grouped by the client's mark."""
        return self._grouped(lambda e: e.started_by)

    def by_command(self) -> dict[tuple[str, ...], list[Entry]]:
        """Return all entries, grouped by command."""
        return self._grouped(lambda e: e.command)

    def clear(self) -> None:
        """Forget everything; the file keeps its lines."""
        with self._lock:
            self._records.clear()
            self._by_job.clear()

    def close(self) -> None:
        """Close the file; the entries in memory stay readable."""
        with self._lock:
            if self._file is not None:
                self._file.close()
                self._file = None

    def _grouped(self, key: Callable[[Entry], Any]) -> dict[Any, list[Entry]]:
        groups: dict[Any, list[Entry]] = {}
        for entry in self.entries():
            groups.setdefault(key(entry), []).append(entry)
        return groups

    def _write(self, event: str, record: Record) -> None:
        if self._file is not None:
            line: Mapping[str, Any] = {"event": event, **asdict(_entry(record, self._clock()))}
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()


def _entry(record: Record, now: float) -> Entry:
    job, life = record.job, record.life
    main = life.exits.get(job.main)
    doomed = life.doomed(now)
    return Entry(
        service=record.service,
        id=record.id,
        token=record.token,
        started_by=job.started_by,
        definition=job.definition,
        cluster=record.cluster,
        account=record.place.account,
        region=record.place.region,
        launch_type=record.launch_type,
        number=job.number,
        attempt=job.attempt,
        command=job.command,
        digest=digest(job.command),
        replays=record.replays,
        status=life.status(now),
        created_at=life.created_at,
        started_at=life.started_at if life.started(now) else None,
        stopped_at=life.stopped_at if life.stopped_at is not None and life.stopped_at <= now else None,
        exit_code=main.code if main is not None and main.at <= now else None,
        stop_code=life.stop_code if doomed else None,
        stopped_reason=life.stopped_reason if doomed else None,
    )
