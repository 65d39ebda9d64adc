"""The part of Airflow's database that matters: task instances, their queueings, and committed outcomes."""

from __future__ import annotations

import random
import sqlite3
import uuid
from collections.abc import Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, fields
from pathlib import Path

from tests.chaos.groups import group_of
from tests.chaos.regions import Course
from tests.chaos.weather import LIVES, PLACEMENTS

_SCHEMA = """
CREATE TABLE ti (
    key TEXT PRIMARY KEY,
    id TEXT NOT NULL,
    life TEXT NOT NULL,
    placement TEXT NOT NULL,
    priority INTEGER NOT NULL,
    pre_assigns INTEGER NOT NULL,
    state TEXT NOT NULL DEFAULT 'scheduled',
    queueing INTEGER NOT NULL DEFAULT 0,
    external_id TEXT,
    queued_at REAL,
    resume_at REAL,
    scheduler INTEGER
);
CREATE INDEX ti_state ON ti (state);
CREATE TABLE queueing (
    key TEXT NOT NULL,
    number INTEGER NOT NULL,
    revoked INTEGER NOT NULL DEFAULT 0,
    queued_at REAL NOT NULL,
    PRIMARY KEY (key, number)
);
CREATE TABLE outcome (
    key TEXT NOT NULL,
    queueing INTEGER NOT NULL,
    scheduler INTEGER NOT NULL,
    success INTEGER NOT NULL,
    reason TEXT,
    handle_id TEXT
);
CREATE TABLE scheduler (
    number INTEGER PRIMARY KEY,
    adopted INTEGER NOT NULL DEFAULT 0,
    restarts INTEGER NOT NULL DEFAULT 0,
    slowest_beat REAL NOT NULL DEFAULT 0
);
"""


@dataclass(frozen=True)
class TaskInstance:
    """
    A row of the table of task instances.

    :param pre_assigns: Airflow assigns an identity with the queueing, as 3.3 does and 3.1 does not
    :param queueing: number of its queueings so far
    :param external_id: the assigned UUID, the ARN of its container, or the value that an earlier queueing left
    """

    key: str
    id: str
    life: str
    placement: str
    priority: int
    pre_assigns: bool
    state: str
    queueing: int
    external_id: str | None
    queued_at: float | None
    resume_at: float | None
    scheduler: int | None


_COLUMNS = tuple(column.name for column in fields(TaskInstance))


@dataclass(frozen=True)
class Outcome:
    """The outcome of one launch, as it was committed."""

    key: str
    queueing: int
    scheduler: int
    success: bool
    reason: str | None
    handle_id: str | None


class Database:
    """
    SQLite in a file: commits survive a SIGKILL, open transactions do not.

    :param path: the file; made by :meth:`create`
    """

    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path, timeout=30, isolation_level=None)
        self._db.execute("PRAGMA synchronous = NORMAL")

    def close(self) -> None:
        self._db.close()

    @classmethod
    def create(
        cls,
        path: Path,
        workloads: int,
        seed: int,
        *,
        assigns: bool = True,
        groups: bool = False,
        regions: bool = False,
    ) -> None:
        """
        Make the task instances, all due at once.

        :param assigns: for most of them Airflow assigns an identity with the queueing
        :param groups: some run in Auto Scaling groups
        :param regions: some go to another Region, and some choose between placements
        """
        draw = random.Random(f"{seed}:workloads")
        grouped = random.Random(f"{seed}:groups")
        sent = random.Random(f"{seed}:regions") if regions else None
        lives, weights = zip(*((life.name, life.weight) for life in LIVES), strict=True)
        with closing(sqlite3.connect(path)) as db, db:
            db.execute("PRAGMA journal_mode = WAL")
            db.executescript(_SCHEMA)
            db.executemany(
                "INSERT INTO ti (key, id, life, placement, priority, pre_assigns) VALUES (?, ?, ?, ?, ?, ?)",
                (
                    (
                        f"w{number}",
                        str(uuid.UUID(int=draw.getrandbits(128), version=4)),
                        life := draw.choices(lives, weights)[0],
                        _placement(draw, grouped, sent, life, number / workloads if groups else None),
                        draw.choice((1, 1, 1, 10)),
                        draw.random() < 0.8 and assigns,
                    )
                    for number in range(workloads)
                ),
            )

    # --- the scheduler's calls ------------------------------------------------------------------------------

    def enroll(self, scheduler: int) -> None:
        self._db.execute("INSERT INTO scheduler (number) VALUES (?)", (scheduler,))

    def enrolled(self, scheduler: int) -> bool:
        """Return whether a scheduler has begun to work."""
        found = self._db.execute("SELECT 1 FROM scheduler WHERE number = ?", (scheduler,)).fetchone()
        return found is not None

    def note(self, scheduler: int, *, adopted: int, restarts: int, slowest_beat: float) -> None:
        self._db.execute(
            "UPDATE scheduler SET adopted = ?, restarts = ?, slowest_beat = ? WHERE number = ?",
            (adopted, restarts, slowest_beat, scheduler),
        )

    def adopt(self, scheduler: int) -> list[TaskInstance]:
        """Give this scheduler the queued task instances of dead ones; return them."""
        with self._transaction():
            rows = self._select("WHERE state = 'queued' AND scheduler != ?", scheduler)
            self._db.execute("UPDATE ti SET scheduler = ? WHERE state = 'queued'", (scheduler,))
        return rows

    def queue(self, scheduler: int, limit: int, now: float) -> list[TaskInstance]:
        """Queue due task instances while there is room, with an identity if Airflow assigns one; return them."""
        (due_now,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM ti WHERE state = 'scheduled' OR state = 'deferred' AND resume_at <= ?)",
            (now,),
        ).fetchone()
        if not due_now:
            return []
        with self._transaction():
            self._db.execute(
                "UPDATE ti SET state = 'scheduled' WHERE state = 'deferred' AND resume_at <= ?", (now,)
            )
            (held,) = self._db.execute("SELECT COUNT(*) FROM ti WHERE state = 'queued'").fetchone()
            due = self._select("WHERE state = 'scheduled' LIMIT ?", max(0, limit - held))
            self._db.executemany(
                "UPDATE ti SET state = 'queued', queueing = queueing + 1, queued_at = ?, scheduler = ?,"
                " external_id = CASE WHEN pre_assigns THEN ? ELSE external_id END WHERE key = ?",
                [(now, scheduler, str(uuid.uuid4()), ti.key) for ti in due],
            )
            self._db.executemany(
                "INSERT INTO queueing (key, number, queued_at) VALUES (?, ?, ?)",
                [(ti.key, ti.queueing + 1, now) for ti in due],
            )
            return [row for ti in due for row in self._select("WHERE key = ?", ti.key)]

    def commit_events(
        self, launched: Iterable[tuple[str, str]], outcomes: Sequence[Outcome], resume_at: float
    ) -> None:
        """Commit an executor's events: all of them or, if the process is killed, none."""
        with self._transaction():
            self._db.executemany(
                "UPDATE ti SET external_id = ? WHERE key = ? AND state = 'queued'",
                [(handle_id, key) for key, handle_id in launched],
            )
            for outcome in outcomes:
                self._db.execute(
                    "INSERT INTO outcome VALUES (?, ?, ?, ?, ?, ?)",
                    (
                        outcome.key,
                        outcome.queueing,
                        outcome.scheduler,
                        outcome.success,
                        outcome.reason,
                        outcome.handle_id,
                    ),
                )
                self._db.execute(
                    "UPDATE ti SET resume_at = ?, state = CASE WHEN NOT ? THEN 'failed'"
                    " WHEN life = 'defers' AND queueing = 1 THEN 'deferred' ELSE 'success' END WHERE key = ?",
                    (resume_at, outcome.success, outcome.key),
                )

    def queued_before(self, then: float) -> list[TaskInstance]:
        return self._select("WHERE state = 'queued' AND queued_at < ?", then)

    def revoke(self, ti: TaskInstance, resume_at: float) -> None:
        """Take a queued task instance back; it is queued again later."""
        with self._transaction():
            self._db.execute("UPDATE ti SET state = 'deferred', resume_at = ? WHERE key = ?", (resume_at, ti.key))
            self._db.execute("UPDATE queueing SET revoked = 1 WHERE key = ? AND number = ?", (ti.key, ti.queueing))

    # --- the audit's reads -----------------------------------------------------------------------------------

    def states(self) -> dict[str, int]:
        return dict(self._db.execute("SELECT state, COUNT(*) FROM ti GROUP BY state"))

    def queueings(self) -> dict[tuple[str, int], bool]:
        """Return every committed queueing, and whether it was revoked."""
        rows = self._db.execute("SELECT key, number, revoked FROM queueing")
        return {(key, number): bool(revoked) for key, number, revoked in rows}

    def queued_at(self) -> dict[tuple[str, int], float]:
        """Return when each launch was queued, in wall-clock seconds."""
        rows = self._db.execute("SELECT key, number, queued_at FROM queueing")
        return {(key, number): at for key, number, at in rows}

    def outcomes(self) -> list[Outcome]:
        return [
            Outcome(key, queueing, scheduler, bool(success), reason, handle_id)
            for key, queueing, scheduler, success, reason, handle_id in self._db.execute("SELECT * FROM outcome")
        ]

    def figures(self) -> tuple[int, int, float]:
        """Return adoptions, replaced loop threads, and the slowest heartbeat in seconds, over all schedulers."""
        found: tuple[int, int, float] = self._db.execute(
            "SELECT COALESCE(SUM(adopted), 0), COALESCE(SUM(restarts), 0), COALESCE(MAX(slowest_beat), 0)"
            " FROM scheduler"
        ).fetchone()
        return found

    def _select(self, where: str, *parameters: object) -> list[TaskInstance]:
        rows = self._db.execute(f"SELECT * FROM ti {where}", parameters)  # noqa: S608 - our own clauses
        return [TaskInstance(**dict(zip(_COLUMNS, row, strict=True))) for row in rows]

    def _transaction(self) -> _Transaction:
        return _Transaction(self._db)


def _placement(
    draw: random.Random, grouped: random.Random, sent: random.Random | None, life: str, run: float | None
) -> str:
    """Return a placement on Fargate, or the group that a workload runs in."""
    place = draw.choice(PLACEMENTS)
    if sent is not None:
        return Course.drawn(sent, place)
    # What is stuck until it is revoked would keep its place in a group for ever: there a revoke is refused.
    return place if run is None or life == "stuck" else group_of(grouped, run) or place


class _Transaction:
    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __enter__(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._db.execute("COMMIT" if kind is None else "ROLLBACK")
