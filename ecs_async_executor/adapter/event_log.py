"""
Entries for Airflow's event log (the table ``log``), kept until the scheduler has written them.

May import Airflow and SQLAlchemy only. After each heartbeat the scheduler pops the entries from the executor's
deque and inserts them in bulk (``SchedulerJobRunner._process_task_event_logs``). Up to Airflow 3.3 a generator
pops them, and SQLAlchemy refers to them weakly: an entry to which nothing else refers is gone before the insert.
Airflow 3.2 and 3.3 then log a violated NOT NULL constraint, and 3.1 inserts empty rows.
"""

from __future__ import annotations

from collections import deque
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

from airflow import settings
from airflow.models.log import Log
from sqlalchemy import event
from sqlalchemy.orm import Session

LIMIT = 10_000
"""Entries kept; the oldest give way."""
TRIES = 3
"""Transactions an entry may fail with: an entry that the database refuses must not hold up the others for ever."""


class EventLog(deque[Log]):
    """
    The deque from which the scheduler pops entries; it refers to each until it is written.

    The end of the scheduler's transaction decides: a commit releases its entries, a rollback puts them back for
    the next heartbeat. Only the scheduler's main thread uses it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._being_written: list[Log] = []
        self._failures: WeakKeyDictionary[Log, int] = WeakKeyDictionary()
        self._watched: WeakSet[Session] = WeakSet()
        self._given_up = 0

    def append(self, entry: Log, /) -> None:
        """Add an entry, the oldest giving way if there are too many."""
        if len(self) >= LIMIT:
            super().popleft()
            self._given_up += 1
        super().append(entry)

    def popleft(self) -> Log:
        """Hand the oldest entry over to the scheduler."""
        entry = super().popleft()
        self._being_written.append(entry)
        if len(self._being_written) == 1:
            # Unwatched, a transaction counts as committed; an exception here would lose its entries for certain.
            with suppress(Exception):
                self._watch_transaction()
        return entry

    def release(self) -> int:
        """
        Release the entries that the scheduler took before this heartbeat: its transaction is over.

        :returns: the number of entries given up since the last call
        """
        self._being_written.clear()
        given_up, self._given_up = self._given_up, 0
        return given_up

    def _watch_transaction(self) -> None:
        sessions: Any = settings.Session
        session: Session = sessions()  # this thread's, which the scheduler uses too
        if session in self._watched:
            return
        self._watched.add(session)
        event.listen(session, "after_commit", self._committed)
        event.listen(session, "after_soft_rollback", self._rolled_back)

    def _committed(self, _: Session) -> None:
        self._being_written.clear()

    def _rolled_back(self, _: Session, _transaction: Any) -> None:
        failed, self._being_written = self._being_written, []
        for entry in failed:
            self._failures[entry] = self._failures.get(entry, 0) + 1
        again = [entry for entry in failed if self._failures[entry] < TRIES]
        again = again[max(0, len(again) + len(self) - LIMIT) :]
        self._given_up += len(failed) - len(again)
        self.extendleft(reversed(again))
