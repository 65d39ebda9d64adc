"""What a failed container printed last: read, told in Airflow's event log, and written beside the task's log."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from ecs_async_executor.adapter import compat, last_words
from ecs_async_executor.adapter.last_words import LastWordsReader
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import LastWords, PostMortem
from ecs_async_executor.services.details import ContainerDetails
from ecs_async_executor.services.ecs import SERVICE
from ecs_async_executor.services.logs import LogStream, NoLog
from tests.adapter.scripted import (
    ScriptedExecutor,
    failed,
    make_callback,
    make_workload,
    queue,
    succeeded,
)

ARN = "arn:aws:ecs:eu-west-1:1:task/c/1"
REASON = "ECS container exited 137 (OutOfMemoryError: Container killed due to memory usage)"
STREAM = LogStream("/group", "a/airflow/1", "eu-west-1")


# --- which containers are looked at ---------------------------------------------------------------------------


def entries(executor: Any) -> list[tuple[str, str]]:
    return [(entry.event, entry.extra) for entry in executor._task_event_logs]


def test_a_failure_tells_its_hint_at_once_and_has_its_container_looked_at(executor: Any, bridge: Any) -> None:
    queue(executor, make_workload())
    executor.heartbeat()
    (launch,) = bridge.launches
    bridge.report(failed(launch, REASON, handle_id=ARN, exit_code=137, ending=Ending.OOM))
    executor.sync()

    assert bridge.dead == [
        PostMortem(launch.launch_id, launch.key, ARN, Ending.OOM, REASON, 137, log_path="dag/task.log")
    ]
    ((event, text),) = entries(executor)
    assert event == "ecs container failure"
    assert text.split("\n")[0] == REASON
    assert "more memory" in text.split("\n")[1]


def test_no_entry_holds_what_a_database_refuses(executor: Any, bridge: Any) -> None:
    queue(executor, make_workload())
    executor.heartbeat()
    (launch,) = bridge.launches
    bridge.report(failed(launch, "said \0", handle_id=ARN, exit_code=1))
    bridge.report(LastWords(launch.launch_id, launch.key, "printed \0 and \ud83d"))
    executor.sync()
    texts = [text for _, text in entries(executor)]
    assert texts == ["said \ufffd\nending=exit_code exit_code=1", "printed \ufffd and \ufffd"]


def test_last_words_are_told_though_their_launch_is_forgotten_and_its_key_queued_again(
    executor: Any, bridge: Any
) -> None:
    queue(executor, make_workload())
    executor.heartbeat()
    (launch,) = bridge.launches
    bridge.report(failed(launch, REASON, handle_id=ARN))
    executor.sync()
    executor.get_event_buffer()
    queue(executor, make_workload(id=launch.workload.ti.id))
    executor.heartbeat()
    bridge.report(LastWords(launch.launch_id, launch.key, "last words"))
    executor.sync()

    assert entries(executor)[-1] == ("ecs container output", "last words")
    assert set(executor.tracking.launches) == {launch.key} == executor.running, "the new launch is untouched"
    assert executor.get_event_buffer() == {}


def test_nothing_is_looked_at_without_a_failure_or_without_a_container(executor: Any, bridge: Any) -> None:
    queue(executor, make_workload("one"), make_workload("two"))
    executor.heartbeat()
    one, two = bridge.launches
    bridge.report(succeeded(one), failed(two, "ECS refused the container", ending=Ending.REFUSED))
    executor.sync()
    assert bridge.dead == []


def test_a_launch_that_airflow_has_revoked_is_not_looked_at(executor: Any, bridge: Any) -> None:
    workload = make_workload()
    queue(executor, workload)
    executor.heartbeat()
    (launch,) = bridge.launches
    executor.revoke_task(ti=workload.ti)
    bridge.report(failed(launch, REASON, handle_id=ARN))
    executor.sync()
    assert bridge.dead == []


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 3), reason="cannot run callbacks")
def test_a_callback_has_neither_event_log_nor_task_log(executor: Any, bridge: Any) -> None:
    queue(executor, make_callback())
    executor.heartbeat()
    (launch,) = bridge.launches
    bridge.report(failed(launch, REASON, handle_id=ARN, exit_code=137, ending=Ending.OOM))
    executor.sync()
    assert bridge.dead == []


def test_with_container_log_lines_0_no_container_is_looked_at(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__CONTAINER_LOG_LINES", "0")
    executor = make_executor()
    queue(executor, make_workload())
    executor.heartbeat()
    (launch,) = executor.scripted.launches
    executor.scripted.report(failed(launch, REASON, handle_id=ARN, exit_code=137, ending=Ending.OOM))
    executor.sync()
    assert executor.scripted.dead == []
    assert len(entries(executor)) == 1


# --- how they are read ----------------------------------------------------------------------------------------


class Adapter:
    """A service whose clients answer as a test says."""

    service = SERVICE

    def __init__(self, *containers: ContainerDetails, lines: Sequence[str] = (), error: Exception | None = None):
        self.containers = containers
        self.lines = lines
        self.error = error
        self.opened: list[str] = []
        self.closed: list[str] = []
        self.asked: list[str] = []
        self.hangs = False
        self.unopenable = 0

    @asynccontextmanager
    async def inspector(self) -> AsyncIterator[Adapter]:
        if self.unopenable:
            self.unopenable -= 1
            raise BackendError(Kind.CREDENTIALS, "NoCredentialsError", "Unable to locate credentials")
        self.opened.append("inspector")
        yield self
        self.closed.append("inspector")

    def log_reader(self) -> Adapter:
        return self

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Adapter]:
        self.opened.append("reader")
        yield self
        self.closed.append("reader")

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        if self.hangs:
            await anyio.sleep_forever()
        if self.error is not None:
            raise self.error
        return self.containers

    async def tail(self, stream: LogStream, lines: int) -> list[str]:
        self.asked.append(f"tail {stream.name} {lines}")
        return list(self.lines)

    async def read(self, stream: LogStream, lines: int) -> list[str]:
        self.asked.append(f"read {stream.name} {lines}")
        return list(self.lines)


class Files:
    def __init__(self) -> None:
        self.written: list[tuple[str, str]] = []

    def write(self, log_path: str, text: str) -> None:
        self.written.append((log_path, text))


def airflow(stream: LogStream | None = STREAM, **more: Any) -> ContainerDetails:
    return ContainerDetails("airflow", runs_airflow=True, stream=stream, **more)


def dead(ending: Ending = Ending.OOM, exit_code: int | None = 137, log_path: str | None = "a.log") -> PostMortem:
    return PostMortem(str(uuid.uuid4()), "key", ARN, ending, REASON, exit_code, log_path)


def told(adapter: Any, *of: PostMortem, files: Any = None) -> list[str]:
    written: Any = files or Files()
    reader = LastWordsReader(adapter, 50, written)

    async def work() -> list[str]:
        async with reader.open() as read:
            return [await read(one) for one in of]

    return asyncio.run(work())


def test_the_lines_are_in_the_entry_and_in_the_file() -> None:
    adapter, files = Adapter(airflow(), lines=["one", "two"]), Files()
    (text,) = told(adapter, dead(), files=files)
    assert text.split("\n")[-2:] == ["one", "two"]
    assert files.written == [("a.log", text + "\n")]
    assert adapter.asked == ["tail a/airflow/1 50"]


def test_airflows_json_is_readable_in_the_entry_and_stays_json_in_the_file_which_airflow_reads() -> None:
    line = '{"timestamp":"2026-11-29T01:05:33.72Z","level":"info","event":"50 MB","ti_id":"1","dag_id":"d"}'
    files = Files()
    (text,) = told(Adapter(airflow(), lines=[line, "plain \x1b[2J"]), dead(), files=files)
    assert text.split("\n")[-2:] == ["2026-11-29T01:05:33 INFO 50 MB", "plain "]
    assert line in files.written[0][1].split("\n")


def test_without_a_log_path_there_is_no_file() -> None:
    files = Files()
    (text,) = told(Adapter(airflow(), lines=["one"]), dead(log_path=None), files=files)
    assert text.endswith("one")
    assert files.written == []


def test_clients_are_opened_by_the_first_read_shared_by_all_and_closed() -> None:
    adapter = Adapter(airflow(), lines=["one"])
    told(adapter)
    assert adapter.opened == []
    told(adapter, dead(), dead())
    assert (adapter.opened, sorted(adapter.closed)) == (["inspector", "reader"], ["inspector", "reader"])


def test_a_client_that_cannot_be_opened_is_told_and_tried_again() -> None:
    adapter = Adapter(airflow(), lines=["one"])
    adapter.unopenable = 1
    first, second = told(adapter, dead(), dead())
    assert first.endswith("NoCredentialsError: Unable to locate credentials.")
    assert second.endswith("one")


def test_a_container_that_never_ran_is_not_waited_for() -> None:
    adapter = Adapter(airflow())
    (text,) = told(adapter, dead(Ending.IMAGE, None))
    assert adapter.asked == ["read a/airflow/1 50"]
    assert text.endswith("never ran, so that there is no output.")


def test_of_several_attempts_the_latest_with_output_counts() -> None:
    other = LogStream("/group", "a/airflow/2", "eu-west-1")
    sidecar = ContainerDetails("side", stream=LogStream("/group", "side", "eu-west-1"))
    adapter = Adapter(airflow(), airflow(other), airflow(None, no_stream="it has not started"), sidecar)
    told(adapter, dead())
    assert adapter.asked == ["tail a/airflow/2 50"]


DENIED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized: ecs:DescribeTasks")


@pytest.mark.parametrize(
    ("adapter", "why"),
    [
        (Adapter(airflow(None, no_stream="container 'airflow' has the log driver splunk")), "log driver splunk."),
        (Adapter(ContainerDetails("side", stream=STREAM)), "no container with Airflow's command."),
        (Adapter(error=NoLog("the credentials lack the permission logs:GetLogEvents")), "logs:GetLogEvents."),
        (
            Adapter(
                error=BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized: ecs:DescribeTasks")
            ),
            "ECS does not say where it is: AccessDeniedException: not authorized: ecs:DescribeTasks.",
        ),
    ],
)
def test_why_there_are_no_lines_is_told(adapter: Adapter, why: str) -> None:
    files = Files()
    (text,) = told(adapter, dead(), files=files)
    assert text.startswith(REASON)
    assert text.endswith(why)
    assert files.written == [("a.log", text + "\n")]


def test_a_service_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(last_words, "_TIMEOUT", 0.05)
    adapter = Adapter(airflow())
    adapter.hangs = True
    (text,) = told(adapter, dead())
    assert text.endswith("no answer within 0.05 s.")


def test_an_executor_reads_as_many_lines_as_its_settings_say(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__CONTAINER_LOG_LINES", "7")
    executor = make_executor()
    adapter = Adapter(airflow())
    reader = executor.scripted.arguments["last_words"].__self__
    assert isinstance(reader, LastWordsReader)
    reader._adapter = adapter  # type: ignore[assignment]

    async def work() -> None:
        async with reader.open() as read:
            await read(dead(log_path=None))

    asyncio.run(work())
    assert adapter.asked == ["tail a/airflow/1 7"]
    assert isinstance(executor, ScriptedExecutor)
