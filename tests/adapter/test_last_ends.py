"""How earlier tries ended: written by the scheduler's own code, and found again by the next one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest
from airflow.jobs.scheduler_job_runner import SchedulerJobRunner
from airflow.models.log import Log
from airflow.utils.session import create_session
from sqlalchemy import delete, select
from sqlalchemy.orm import scoped_session
from structlog.testing import capture_logs

from ecs_async_executor.adapter import last_ends
from ecs_async_executor.adapter.last_ends import Entry, LastEnds, Past, read_entries
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import End
from ecs_async_executor.core.sizes import Size
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import (
    ScriptedExecutor,
    failed,
    launched,
    make_callback,
    make_workload,
    queue,
    succeeded,
)

DOUBLE = '[{"when": "oom", "memory": "x2"}]'
OOM = "ECS container exited 137 (OutOfMemoryError: Container killed due to memory usage)"
ARN = "arn:aws:ecs:eu-west-1:1:task/c/1"
AT_4_GB = Size(1024, 4096)


@pytest.fixture(autouse=True)
def doubled(monkeypatch: pytest.MonkeyPatch, settings: None) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__RETRIES", DOUBLE)


class Scheduler:
    """A scheduler around one executor, on a database that others share."""

    process: Any = staticmethod(SchedulerJobRunner._process_task_event_logs)

    def __init__(self, database: Metadata, executor: Any = None) -> None:
        self.database = database
        self.executor = executor or ScriptedExecutor()
        self.executor.start()

    def launch(self, number: int, **of_ti: Any) -> Launch:
        """Have a try of a task instance launched."""
        queue(self.executor, make_workload(try_number=number, **of_ti))
        self.executor.heartbeat()
        launch: Launch = self.executor.scripted.launches[-1]
        return launch

    def report(self, *reports: Any) -> None:
        """Apply reports in a heartbeat, and write the event log as the scheduler's loop does after it."""
        self.executor.scripted.report(*reports)
        self.executor.heartbeat()
        with create_session() as session:
            self.process(self.executor._task_event_logs, session)

    def fails(self, launch: Launch, ending: Ending = Ending.OOM, size: Size | None = AT_4_GB, **more: Any) -> None:
        self.report(failed(launch, OOM, handle_id=ARN, exit_code=137, ending=ending, size=size, **more))

    def memory(self, launch: Launch) -> str | None:
        """Return the memory that a launch's request asks for."""
        spec = self.executor.workloads.render(launch)
        memory: str | None = spec.request["overrides"].get("memory")
        return memory

    def questions(self) -> list[str]:
        """Return what was asked of the table since the last call."""
        asked = [one for one in self.database.statements if "FROM log" in one]
        self.database.statements.clear()
        return asked

    def entries(self) -> list[tuple[str, int, str]]:
        with self.database.sessions() as session:
            found: Any = session.execute(select(Log.event, Log.try_number, Log.extra).order_by(Log.id))
            return [tuple(row) for row in found if row.event.startswith("ecs ")]


@pytest.fixture
def scheduler(database: Metadata, monkeypatch: pytest.MonkeyPatch) -> Scheduler:
    monkeypatch.setattr("airflow.settings.Session", scoped_session(database.sessions))
    monkeypatch.setattr("airflow.settings.NonScopedSession", database.sessions)
    return Scheduler(database)


def another(scheduler: Scheduler) -> Scheduler:
    """Start another scheduler on the same database: beside the one before, or after it has ended."""
    return Scheduler(scheduler.database)


# --- what is written ----------------------------------------------------------------------------------------


def test_the_entry_about_a_failure_ends_with_a_line_for_the_next_try(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1), choice="spot")
    ((event, number, text),) = scheduler.entries()
    assert (event, number) == ("ecs container failure", 1)
    lines = text.splitlines()
    assert lines[0] == OOM
    assert lines[-1] == "ending=oom exit_code=137 cpu=1024 memory=4096 placement=spot"


def test_a_reason_however_long_leaves_the_line_whole(scheduler: Scheduler) -> None:
    launch = scheduler.launch(1)
    scheduler.report(failed(launch, "x" * 200_000, handle_id=ARN, ending=Ending.HOST))
    ((_, _, text),) = scheduler.entries()
    assert len(text) < 9000
    assert text.splitlines()[-1] == "ending=host"


def test_a_launch_without_a_container_has_an_end_too(scheduler: Scheduler) -> None:
    scheduler.report(failed(scheduler.launch(1), "no", ending=Ending.CAPACITY))
    ((event, _, text),) = scheduler.entries()
    assert event == "ecs task submit failure"
    assert text.endswith("\nending=capacity")


def test_a_task_killed_for_want_of_memory_beside_its_supervisor_counts(scheduler: Scheduler) -> None:
    launch = scheduler.launch(1)
    outlived = OOM.replace("137", "0")
    scheduler.report(replace(succeeded(launch), reason=outlived, ending=Ending.OOM, size=AT_4_GB))
    key: Any = launch.key
    (state, _) = scheduler.executor.event_buffer[key]
    assert str(state) == "success"
    ((event, number, text),) = scheduler.entries()
    assert (event, number) == ("ecs container out of memory", 1)
    first, second, *_, last = text.splitlines()
    assert first == outlived
    assert second.startswith("A process in the container was killed for want of memory, most likely the task.")
    assert last == "ending=oom exit_code=0 cpu=1024 memory=4096"
    other = another(scheduler)
    assert other.memory(other.launch(2)) == "8192"


def test_an_ordinary_success_writes_nothing(scheduler: Scheduler) -> None:
    scheduler.report(succeeded(scheduler.launch(1)))
    assert scheduler.entries() == []


# --- what is found again -------------------------------------------------------------------------------------


def test_the_scheduler_that_saw_the_end_asks_nobody(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    scheduler.questions()
    second = scheduler.launch(2)
    assert not scheduler.executor.workloads.lacks(second)
    assert scheduler.memory(second) == "8192"
    assert scheduler.questions() == []


def test_a_scheduler_that_has_not_seen_the_end_finds_it_with_one_question(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    next_one = another(scheduler)
    second = next_one.launch(2)
    scheduler.questions()
    workloads = next_one.executor.workloads
    assert workloads.lacks(second)
    assert scheduler.questions() == []
    assert next_one.memory(second) == "8192"
    assert len(scheduler.questions()) == 1
    assert not workloads.lacks(second)
    assert next_one.memory(second) == "8192"
    assert workloads.choices(second).names == ()
    assert scheduler.questions() == []


def test_tries_seen_by_different_schedulers_escalate(scheduler: Scheduler) -> None:
    other = another(scheduler)
    scheduler.fails(scheduler.launch(1))
    second = other.launch(2)
    assert other.memory(second) == "8192"
    other.fails(second, size=Size(1024, 8192))
    third = scheduler.launch(3)
    assert scheduler.memory(third) == "16384"
    scheduler.fails(third, Ending.SPOT, Size(2048, 16384))
    assert other.memory(other.launch(4)) == "16384"


def test_an_end_that_is_not_written_yet_counts_beside_those_that_are(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    other = another(scheduler)
    second = other.launch(2)
    other.executor.scripted.report(
        failed(second, OOM, handle_id=ARN, exit_code=137, ending=Ending.OOM, size=Size(1024, 8192))
    )
    other.executor.heartbeat()
    assert other.memory(other.launch(3)) == "16384"


def test_a_task_that_failed_by_itself_has_no_end_to_react_to(scheduler: Scheduler) -> None:
    scheduler.report(succeeded(scheduler.launch(1)))  # its container has: exit code 0
    assert scheduler.memory(scheduler.launch(2)) is None
    other = another(scheduler)
    assert other.memory(other.launch(2)) is None


@pytest.mark.parametrize("seen", [True, False], ids=["seen", "read"])
def test_a_task_that_resumes_does_not_count_the_container_before_its_deferral(
    scheduler: Scheduler, seen: bool
) -> None:
    scheduler.fails(scheduler.launch(2, task_id="resumes"))
    resumed = scheduler if seen else another(scheduler)
    scheduler.fails(scheduler.launch(1, task_id="resumes"), size=Size(memory=512))
    assert resumed.memory(resumed.launch(2, task_id="resumes")) == "1024"


def test_task_instances_are_told_apart(scheduler: Scheduler) -> None:
    others: list[dict[str, Any]] = [
        {"map_index": 1},
        {"task_id": "other"},
        {"run_id": "other"},
        {"dag_id": "other"},
    ]
    for number, of_ti in enumerate(others, 1):
        scheduler.fails(scheduler.launch(1, **of_ti), size=Size(memory=1024 * number))
    other = another(scheduler)
    assert other.memory(other.launch(2, map_index=1)) == "2048"
    assert other.memory(other.launch(2, map_index=2)) is None
    assert other.memory(other.launch(2)) is None
    assert other.memory(other.launch(2, task_id="other")) == "4096"


def test_the_tries_before_a_clear_count(scheduler: Scheduler) -> None:
    """Airflow's try numbers go on when a task instance is cleared."""
    scheduler.fails(scheduler.launch(1))
    scheduler.report(succeeded(scheduler.launch(2)))
    other = another(scheduler)
    assert other.memory(other.launch(3)) == "8192"


def test_without_the_entries_a_try_is_launched_as_its_task_asks(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    with scheduler.database.session() as session:
        session.execute(delete(Log))  # as `airflow db clean` does, in time
    other = another(scheduler)
    assert other.memory(other.launch(2)) is None


def test_of_several_entries_about_a_try_the_latest_counts(scheduler: Scheduler) -> None:
    for megabytes in (512, 1024):
        scheduler.fails(scheduler.launch(1), size=Size(memory=megabytes))
    other = another(scheduler)
    assert other.memory(other.launch(2)) == "2048"


def test_the_question_is_answered_by_the_index_of_task_instances(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    second = scheduler.launch(2)
    scheduler.questions()
    read_entries(second.key, ("ecs container failure", "ecs retry rule"))
    (statement,) = scheduler.questions()
    with scheduler.database.engine.connect() as connection:
        parameters = tuple("x" for one in statement if one == "?")
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
    (step,) = [row[-1] for row in plan]
    assert "idx_log_task_instance (dag_id=? AND task_id=? AND run_id=? AND map_index=? AND try_number<?)" in step


# --- who asks, and who does not -----------------------------------------------------------------------------


def test_first_tries_and_callbacks_ask_nothing(scheduler: Scheduler) -> None:
    workloads = scheduler.executor.workloads
    first = scheduler.launch(1)
    queue(scheduler.executor, make_callback())
    scheduler.executor.heartbeat()
    for launch in (first, scheduler.executor.scripted.launches[-1]):
        scheduler.questions()
        assert not workloads.lacks(launch)
        workloads.choices(launch)
        workloads.render(launch)
        assert scheduler.questions() == []


@pytest.mark.parametrize("own", [None, []])
def test_without_a_rule_no_try_asks_and_nothing_is_remembered(
    scheduler: Scheduler, monkeypatch: pytest.MonkeyPatch, own: Any
) -> None:
    if own is None:
        monkeypatch.delenv("AIRFLOW__ECS_ASYNC_EXECUTOR__RETRIES")
    config = {} if own is None else {"retries": own}
    other = another(scheduler)
    other.fails(other.launch(1, executor_config=config))
    second = other.launch(2, executor_config=config)
    scheduler.questions()
    assert not other.executor.workloads.lacks(second)
    assert other.memory(second) is None
    assert scheduler.questions() == []
    if own is None:
        assert other.executor.workloads._last_ends._ends == {}


def test_no_heartbeat_asks(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    other = another(scheduler)
    scheduler.questions()
    other.launch(2)
    other.executor.heartbeat()
    assert scheduler.questions() == []


# --- a database that does not answer ------------------------------------------------------------------------


class Reading:
    """Stands in for the question to the database."""

    def __init__(self, answer: Callable[[], Sequence[Entry]]) -> None:
        self.answer = answer
        self.asked = 0

    def __call__(self, _: Any, __: Any) -> Sequence[Entry]:
        self.asked += 1
        return self.answer()


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def raises() -> Sequence[Entry]:
    raise OSError("the database is gone")


def ends_of(scheduler: Scheduler, reading: Reading, clock: Clock | None = None) -> LastEnds:
    return LastEnds(scheduler.executor.adapter, reading, clock or Clock())


@pytest.fixture
def alone(executor: Any) -> Scheduler:
    """A scheduler without a database."""
    scheduler = Scheduler.__new__(Scheduler)
    scheduler.executor = executor
    return scheduler


def test_a_database_that_fails_leaves_launches_as_they_are_and_is_given_a_rest(alone: Scheduler) -> None:
    reading, clock = Reading(raises), Clock()
    ends = ends_of(alone, reading, clock)
    one, two, three = (alone.launch(2, task_id=str(number)) for number in range(3))
    with capture_logs() as logs:
        assert ends.before(one) == Past()
        assert ends.before(two) == Past()
    assert reading.asked == 1
    (line,) = [line for line in logs if line["event"] == "ecs_executor.retry_rules.unknown"]
    assert line["log_level"] == "warning"
    assert line["error"] == "OSError: the database is gone"
    clock.now += last_ends.PAUSE
    reading.answer = lambda: [Entry(1, 1, "ecs container failure", "ending=oom")]
    assert ends.before(three) == Past((End(1, Ending.OOM),))
    assert ends.before(one) == Past(), "what was once answered for a launch stays its answer"


def test_a_database_that_hangs_holds_a_launch_up_for_so_long_only(
    alone: Scheduler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(last_ends, "TIMEOUT", 0.05)
    answered = threading.Event()

    def hangs() -> Sequence[Entry]:
        answered.wait(60)
        return []

    reading, clock = Reading(hangs), Clock()
    ends = ends_of(alone, reading, clock)
    one, two, three = (alone.launch(2, task_id=str(number)) for number in range(3))
    with capture_logs() as logs:
        assert ends.before(one) == Past()
        clock.now += last_ends.PAUSE
        assert ends.before(two) == Past()  # the first question has no answer yet: there is no second one
    assert reading.asked == 1
    assert [line["error"] for line in logs if "error" in line] == [
        "no answer within 0.05 s",
        "the last question has no answer yet",
    ]
    answered.set()
    assert ends._under_way is not None
    ends._under_way.result(60)
    clock.now += last_ends.PAUSE
    ends.before(three)
    assert reading.asked == 2


def test_what_is_remembered_is_bounded(alone: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_ends, "ENDS_KEPT", 3)
    monkeypatch.setattr(last_ends, "LAUNCHES_KEPT", 2)
    reading = Reading(list)
    ends = ends_of(alone, reading)
    ends.wanted = True
    launches = [alone.launch(2, task_id=str(number)) for number in range(4)]
    for launch in launches:
        key: Any = launch.key
        ends.remember(key._replace(try_number=1), End(1, Ending.OOM))
        ends.note(launch, "text")
    assert (len(ends._ends), len(ends._answers), len(ends._notes)) == (3, 2, 2)
    assert [ends.note_of(one.launch_id, one.key) for one in launches] == [None, None, "text", "text"]
    ends = ends_of(alone, reading)
    ends.wanted = True
    for launch in launches:
        key = launch.key
        ends.remember(key._replace(try_number=1), End(1, Ending.OOM))
    assert [ends.known(one) is None for one in launches] == [True, False, False, False]


# --- what people read ----------------------------------------------------------------------------------------

TOLD = "Try 2 is launched with 8 GB of memory instead of 4 GB: try 1 ended by running out of memory."


def told(scheduler: Scheduler) -> list[str]:
    return [text for event, _, text in scheduler.entries() if event == "ecs retry rule"]


def test_the_event_log_says_once_what_a_try_gets_when_it_is_launched(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    second = scheduler.launch(2)
    assert scheduler.memory(second) == "8192"
    assert scheduler.memory(second) == "8192"
    scheduler.report()
    assert told(scheduler) == []
    scheduler.report(launched(second))
    assert told(scheduler) == [TOLD]
    scheduler.report(launched(second))
    # It defers, and comes back; and another scheduler goes on.
    scheduler.report(succeeded(second))
    resumed = scheduler.launch(2)
    scheduler.memory(resumed)
    scheduler.report(launched(resumed))
    other = another(scheduler)
    adopted = other.launch(2)
    assert other.memory(adopted) == "8192"
    other.report(launched(adopted))
    assert told(scheduler) == [TOLD]


def test_a_launch_that_fails_is_not_said_to_be_launched(scheduler: Scheduler) -> None:
    scheduler.fails(scheduler.launch(1))
    second = scheduler.launch(2)
    scheduler.memory(second)
    scheduler.report(failed(second, "no", ending=Ending.REFUSED))
    assert told(scheduler) == []
    assert scheduler.executor.workloads._last_ends._notes == {}


def test_people_do_not_read_the_line_for_programs_in_commands_and_pages(scheduler: Scheduler) -> None:
    from ecs_async_executor.adapter import tries
    from ecs_async_executor.adapter.ui.tries_of_task import Task, entries_of

    scheduler.fails(scheduler.launch(1))
    with scheduler.database.sessions() as session:
        (entry,) = entries_of(session, Task("dag", "run", "task"))[1]
        of = tries.Try(uuid4(), "dag", "run", "task", -1, 1, "failed", None, None, None, None, None, None)
        (same,) = tries.entries(session, of)
    assert entry == same
    assert entry.text.startswith(OOM)
    assert "ending=" not in entry.text
