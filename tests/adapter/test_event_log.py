"""The scheduler's own code writes the executor's entries into the ``log`` table of a real database."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import pytest
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.models.taskinstance import TaskInstance
from airflow.utils.session import create_session
from sqlalchemy import event, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import scoped_session, sessionmaker
from structlog.testing import capture_logs

from ecs_async_executor.adapter import compat, event_log
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import Launch, Notice, Unfollowed
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import failed, queue, succeeded

pytestmark = pytest.mark.slow

WAITS = "RESOURCE:CPU: no container instance has enough CPU units"
OUT_OF_MEMORY = "ECS container exited 137: OutOfMemoryError: container killed due to memory usage"
ENTRY = f"{OUT_OF_MEMORY}\nending=exit_code exit_code=137"


class Scheduler:
    """A scheduler's loop around one executor, as far as the event log goes."""

    def __init__(self, executor: Any, database: Metadata) -> None:
        self.executor = executor
        self.database = database
        self.errors: list[str] = []
        self.broken: str | None = None
        event.listen(database.engine, "before_cursor_execute", self._break)
        event.listen(database.engine, "commit", self._break_commit)

    def _break(self, _connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if self.broken == "insert" and statement.startswith("INSERT INTO log"):
            raise OperationalError(statement, {}, Exception("database is locked"))

    def _break_commit(self, _connection: Any) -> None:
        if self.broken == "commit":
            raise OperationalError("COMMIT", {}, Exception("could not serialize access"))

    def launch(self, count: int) -> list[Launch]:
        """Queue this many task instances of the database, and let them be launched."""
        self.database.orphan(*["queued"] * count)
        with self.database.session() as session:
            tis = self.database.tis(session)[:count]
            compat.load_for_adoption(tis)
            queue(self.executor, *compat.rebuild(tis).values())
        self.executor.heartbeat()
        launches: list[Launch] = self.executor.scripted.launches[-count:]
        return launches

    def loop(self, *reports: Any) -> None:
        """Give the executor these reports in a heartbeat, and write its entries."""
        self.executor.scripted.report(*reports)
        self.executor.heartbeat()
        self.save()

    process: Any = staticmethod(SchedulerJobRunner._process_task_event_logs)

    def save(self) -> None:
        """Write the executor's entries as the scheduler's loop does after a heartbeat."""
        try:
            with create_session() as session:
                self.process(self.executor._task_event_logs, session)
        except Exception as error:  # noqa: BLE001 - so does the scheduler, and goes on
            self.errors.append(str(error))

    def table(self) -> list[tuple[str, str]]:
        """Return the executor's entries, the oldest first."""
        with self.database.sessions() as session:
            query: Any = select(Log.event, Log.extra).where(Log.event.contains("container")).order_by(Log.id)
            return [(entry.event, entry.extra) for entry in session.execute(query)]


@pytest.fixture
def scheduler(executor: Any, database: Metadata, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    # create_session() takes its sessions from here.
    monkeypatch.setattr("airflow.settings.Session", scoped_session(database.sessions))
    return Scheduler(executor, database)


def waits(launch: Launch, text: str = WAITS) -> Notice:
    return Notice(launch.launch_id, launch.key, "container waits", text, unlaunched=True)


def out_of_memory(launch: Launch) -> Any:
    return failed(launch, OUT_OF_MEMORY, handle_id="arn:1", exit_code=137)


def test_each_entry_of_a_heartbeat_is_in_the_table_with_its_task_instance(scheduler: Scheduler) -> None:
    one, two, three = scheduler.launch(3)

    scheduler.loop(
        waits(one),
        waits(two, "AGENT"),
        out_of_memory(two),
        Unfollowed(three.launch_id, three.key, "nothing says where to look"),
    )

    assert scheduler.errors == []
    with scheduler.database.session() as session:
        names = {compat.uuid_of(ti): ti.task_id for ti in session.scalars(select(TaskInstance))}
        entries: Any = session.scalars(select(Log).where(Log.event.contains("container"))).all()
        found = {(entry.task_id, entry.event, entry.extra) for entry in entries}
        assert {(entry.dag_id, entry.try_number) for entry in entries} == {("adopted", 1)}
    assert found == {
        (names[one.workload.ti.id], "container waits", WAITS),
        (names[two.workload.ti.id], "container waits", "AGENT"),
        (names[two.workload.ti.id], "ecs container failure", ENTRY),
        (names[three.workload.ti.id], "container not followed", "nothing says where to look"),
    }


@pytest.mark.parametrize(
    ("ending", "name", "words"),
    [
        (Ending.OOM, "ecs container out of memory", "A process in the container was killed for want of memory"),
        (Ending.SPOT, "ecs container interrupted", "Airflow's process in the container has ended in order"),
        (Ending.HOST, "ecs container interrupted", "Airflow's process in the container has ended in order"),
    ],
)
def test_what_befell_a_container_that_exited_0_is_told_with_a_line_for_the_next_try(
    scheduler: Scheduler, ending: Ending, name: str, words: str
) -> None:
    (launch,) = scheduler.launch(1)

    scheduler.loop(replace(succeeded(launch), reason="ECS container exited 0: it was so", ending=ending))
    scheduler.loop()

    ((written, text),) = scheduler.table()
    assert written == name
    first, second, *_, last = text.splitlines()
    assert (first, last) == ("ECS container exited 0: it was so", f"ending={ending.value} exit_code=0")
    assert second.startswith(words)


@pytest.mark.parametrize("broken", ["insert", "commit"])
def test_entries_whose_transaction_fails_are_written_by_the_next(scheduler: Scheduler, broken: str) -> None:
    one, two = scheduler.launch(2)
    scheduler.broken = broken
    scheduler.loop(waits(one), waits(two, "AGENT"))
    assert len(scheduler.errors) == 1
    assert scheduler.table() == []

    scheduler.broken = None
    scheduler.loop(out_of_memory(two))
    scheduler.loop()

    assert len(scheduler.errors) == 1
    assert scheduler.table() == [
        ("container waits", WAITS),
        ("container waits", "AGENT"),
        ("ecs container failure", ENTRY),
    ]


def test_an_entry_that_the_database_refuses_holds_up_no_other_for_ever(scheduler: Scheduler) -> None:
    one, two = scheduler.launch(2)
    scheduler.broken = "insert"
    scheduler.loop(waits(one))
    for _ in range(event_log.TRIES - 2):
        scheduler.loop()
    scheduler.loop(waits(two, "AGENT"))
    assert len(scheduler.errors) == event_log.TRIES

    scheduler.broken = None
    with capture_logs() as lines:
        scheduler.loop()

    assert scheduler.table() == [("container waits", "AGENT")]
    assert [(line["event"], line["entries"]) for line in lines] == [("ecs_executor.event_log.given_up", 1)]


def test_what_is_written_is_released(scheduler: Scheduler) -> None:
    (one,) = scheduler.launch(1)
    scheduler.executor.scripted.report(waits(one))
    scheduler.executor.heartbeat()
    entry = weakref.ref(scheduler.executor._task_event_logs[0])

    scheduler.save()

    gc.collect()
    assert entry() is None


def test_what_another_session_took_is_written_and_released_at_the_next_heartbeat(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Each call makes another session, so the end of the scheduler's transaction goes unheard.
    monkeypatch.setattr("airflow.settings.Session", sessionmaker(bind=scheduler.database.engine))
    (one,) = scheduler.launch(1)
    scheduler.executor.scripted.report(waits(one))
    scheduler.executor.heartbeat()
    entry = weakref.ref(scheduler.executor._task_event_logs[0])
    scheduler.save()

    scheduler.loop()

    gc.collect()
    assert entry() is None
    assert scheduler.table() == [("container waits", WAITS)]


def test_entries_are_written_where_airflow_has_no_session_to_watch(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    (one,) = scheduler.launch(1)
    scheduler.executor.scripted.report(waits(one))
    scheduler.executor.heartbeat()
    monkeypatch.setattr("airflow.settings.Session", None)
    with scheduler.database.session() as session:
        scheduler.process(scheduler.executor._task_event_logs, session)
    assert scheduler.table() == [("container waits", WAITS)]


def test_of_too_many_entries_the_newest_are_kept(scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "LIMIT", 3)
    (one,) = scheduler.launch(1)
    scheduler.broken = "insert"
    scheduler.loop(*(waits(one, str(number)) for number in range(4)))
    scheduler.executor.scripted.report(waits(one, "4"))
    scheduler.executor.heartbeat()

    scheduler.broken = None
    scheduler.loop()

    assert scheduler.table() == [("container waits", text) for text in "234"]
