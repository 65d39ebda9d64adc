"""The tab "Container" of a task instance."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.ecs import EcsAdapter
from ecs_async_executor.adapter.ui import holders
from ecs_async_executor.core.backend import Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.details import ContainerDetails, Details
from ecs_async_executor.services.logs import LogStream, NoLog
from tests.adapter.ui.conftest import ARN, Rows, SignIn

if TYPE_CHECKING:
    from fastapi.testclient import TestClient

JWT = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
STREAM = LogStream("/airflow", "a/airflow/0123456789abcdef", "eu-west-1")


def details(
    seen: Seen, exit_code: int | None = None, reason: str = "", *, started: bool = True, **more: Any
) -> Details:
    observation = Observation(
        *(Handle("other", ARN), seen, seen.value.upper()), exit_code=exit_code, reason=reason, started=started
    )
    container = ContainerDetails(
        "airflow", "STOPPED", exit_code, image="an-image:1", runs_airflow=True, stream=STREAM
    )
    return Details(
        observation,
        "eu-west-1",
        place="cluster other, FARGATE",
        times=(("created", 1764345600.0), ("started", 1764345661.0)),
        containers=(container,),
        console_url="https://eu-west-1.console.aws.amazon.com/ecs",
        **more,
    )


@dataclass
class Aws:
    """AWS, as the pages ask it."""

    answer: Details | Exception | None = None
    lines: Sequence[str] | Exception = ()
    asked: list[str] = field(default_factory=list)
    wait: Callable[[], Any] | None = None

    async def details(self, handle_id: str) -> Details | None:
        self.asked.append(handle_id)
        if self.wait is not None:
            await asyncio.get_running_loop().run_in_executor(None, self.wait)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    async def log_streams(self, handle_id: str) -> Sequence[ContainerDetails]:
        return [ContainerDetails("airflow", runs_airflow=True, stream=STREAM)]

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Aws]:
        yield self

    async def read(self, stream: LogStream, lines: int) -> list[str]:
        assert stream == STREAM
        if isinstance(self.lines, Exception):
            raise self.lines
        return list(self.lines)[-lines:]


@pytest.fixture
def aws(monkeypatch: pytest.MonkeyPatch) -> Aws:
    aws = Aws()
    monkeypatch.setattr(EcsAdapter, "inspector", lambda _: aws.open())
    monkeypatch.setattr(EcsAdapter, "log_reader", lambda _: aws)
    holders.configured.cache_clear()  # an executor keeps its clients for a while
    return aws


@pytest.fixture
def show(client: TestClient, sign_in: SignIn) -> Callable[[str], str]:
    def get(path: str, status: int = 200) -> str:
        answer = client.get(path, headers=sign_in())
        assert answer.status_code == status, answer.text
        return str(answer.text)

    return get


Show = Callable[..., str]


def test_a_container_that_ended_shows_states_exit_code_reason_and_last_lines(
    show: Show, rows: Rows, aws: Aws
) -> None:
    rows.set("task_0", "failed", ARN)
    aws.answer = details(Seen.STOPPED, 137, "OutOfMemoryError: Container killed due to memory usage")
    aws.lines = ["row 1", "row 2"]
    rows.say("task_0", "ecs container failure", "ECS container exited 137")
    page = show(rows.page("task_0"))
    for said in (
        "exit code 137",
        "OutOfMemoryError",
        "row 1\nrow 2",
        "61 s",
        "an-image:1",
        "container exited 137",
    ):
        assert said in page
    assert "https://eu-west-1.console.aws.amazon.com/ecs" in page
    assert "logsV2:log-groups" in page
    assert "data-refresh" not in page
    assert aws.asked == [ARN]


def test_what_a_container_prints_is_escaped_and_shows_no_jwt(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "failed", ARN)
    aws.answer = details(Seen.STOPPED, 1, "<img src=x onerror=alert(1)>")
    aws.lines = [f"token={JWT}", "<script>alert(2)</script>", '{"event": "<b>said</b>", "level": "info"}']
    rows.say("task_0", "ecs container failure", f"<i>ended</i> {JWT}\nand a second line")
    page = show(rows.page("task_0"))
    assert "eyJ" not in page
    for tag in ("<img", "<script>alert", "<b>said", "<i>ended"):
        assert tag not in page
    assert "&lt;script&gt;alert(2)" in page
    assert "INFO &lt;b&gt;said&lt;/b&gt;" in page
    assert "***\nand a second line" in page


def test_a_launch_that_waits_says_since_when_and_why(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "queued", "01a2232a-6bb4-74a1-bff3-035357e558f3")
    rows.say("task_0", "container waits", "The container waits: ECS has no capacity for it")
    page = show(rows.page("task_0"))
    assert "Waits for a container since" in page
    assert "(2 min)" in page
    assert "ECS has no capacity" in page
    assert 'data-refresh="5"' in page
    assert not aws.asked


def test_a_reason_of_an_earlier_queueing_is_not_why_it_waits_now(show: Show, rows: Rows, aws: Aws) -> None:
    from datetime import datetime, timedelta, timezone

    rows.say("task_0", "container waits", "ECS has no capacity for it")
    rows.set("task_0", "queued")
    rows.set("task_0", "queued", queued_dttm=datetime.now(tz=timezone.utc) + timedelta(seconds=1))
    page = show(rows.page("task_0"))
    assert "has named no reason so far" in page


def test_a_container_of_an_earlier_queueing_is_not_shown_as_its_own(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "queued", ARN)
    aws.answer = details(Seen.STOPPED, 0)
    object.__setattr__(aws.answer, "observation", _created_long_ago(aws.answer.observation))
    page = show(rows.page("task_0"))
    assert "Waits for a container" in page
    assert ARN not in page


def _created_long_ago(seen: Observation) -> Observation:
    return Observation(seen.handle, seen.seen, seen.status, exit_code=0, created_at=1.0)


def test_a_container_that_aws_has_forgotten_keeps_its_entries_and_links(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "failed", ARN)
    rows.say("task_0", "ecs container failure", "ECS does not know the task")
    aws.answer = None
    page = show(rows.page("task_0"))
    assert "ECS does not know the container any more" in page
    assert "ECS does not know the task" in page
    assert "console.aws.amazon.com/ecs/v2/clusters/other/tasks/0123456789abcdef" in page


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (
            BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized: ecs:DescribeTasks"),
            "DescribeTasks",
        ),
        (RuntimeError(f"a bug that quotes {JWT}"), "RuntimeError: a bug that quotes ***"),
    ],
)
def test_what_aws_refuses_is_said_and_the_rest_of_the_page_is_there(
    show: Show, rows: Rows, aws: Aws, answer: Exception, said: str
) -> None:
    rows.set("task_0", "running", ARN)
    rows.say("task_0", "container waits", "an entry")
    aws.answer = answer
    page = show(rows.page("task_0"))
    assert said in page
    assert "an entry" in page


def test_without_the_permission_to_read_logs_the_details_are_there(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "running", ARN)
    aws.answer = details(Seen.RUNNING)
    aws.lines = NoLog("the credentials lack the permission logs:GetLogEvents")
    page = show(rows.page("task_0"))
    assert "lack the permission logs:GetLogEvents" in page
    assert "an-image:1" in page


def test_a_service_that_hangs_holds_up_no_page_for_longer_than_its_bound(
    show: Show, rows: Rows, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.adapter.ui import containers

    monkeypatch.setattr(containers, "DETAILS_TIMEOUT", 0.05)
    released = threading.Event()
    aws.wait = released.wait
    rows.set("task_0", "running", ARN)
    try:
        assert "no answer within 0.05 s" in show(rows.page("task_0"))
    finally:
        released.set()


def test_a_task_of_another_executor_gets_a_friendly_line(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "running", "01a2232a-6bb4-74a1-bff3-035357e558f3", executor="LocalExecutor")
    page = show(rows.page("task_0"))
    assert "No container of ours" in page
    assert "LocalExecutor" in page
    assert not aws.asked


def test_an_api_server_with_another_executor_than_the_schedulers_names_its_own_as_the_likely_cause(
    show: Show, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compat, "our_executors", lambda _: [])
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "LocalExecutor")
    holders.configured.cache_clear()
    rows.set("task_0", "running", ARN)
    page = show(rows.page("task_0"))
    assert "belongs to the default executor" in page
    assert "<code>[core] executor = LocalExecutor</code>" in page
    assert "Give this API server the same, and restart it." in page


def test_each_try_that_is_known_can_be_chosen(show: Show, rows: Rows, aws: Aws) -> None:
    rows.say("task_0", "ecs task submit failure", "refused at the first try", try_number=1)
    rows.set("task_0", "running", ARN, try_number=2)
    aws.answer = details(Seen.RUNNING)
    latest = show(rows.page("task_0"))
    assert "?try_number=1" in latest
    assert "refused at the first try" not in latest
    # Up to Airflow 3.3 a try that failed before it ran leaves nothing but its entries.
    first = show(rows.page("task_0", "?try_number=1"))
    assert "refused at the first try" in first
    assert "keeps no record of this try" in first
    assert "There is no such task instance" in show(rows.page("task_0", "?try_number=7"), 404)


def test_the_placeholder_of_a_task_that_is_not_mapped_means_no_index(show: Show, rows: Rows, aws: Aws) -> None:
    rows.set("task_0", "queued")
    assert "Waits for a container" in show(rows.page("task_0").removesuffix("-1") + "{MAP_INDEX}")


def test_the_link_of_the_log_leads_to_its_stream(
    client: TestClient, sign_in: SignIn, rows: Rows, aws: Aws
) -> None:
    rows.set("task_0", "success", ARN)
    rows.say("task_0", "container waits", "an entry")
    aws.answer = details(Seen.STOPPED, 0)
    answer = client.get(rows.page("task_0", "/log?try_number=1"), headers=sign_in())
    assert answer.status_code == 307
    assert answer.headers["location"].startswith("https://eu-west-1.console.aws.amazon.com/cloudwatch/home")
    aws.answer = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized")
    answer = client.get(rows.page("task_0", "/log?try_number=1"), headers=sign_in())
    assert answer.status_code == 200
    assert "not authorized" in answer.text
    assert "an entry" in answer.text


def test_a_container_that_never_ran_has_no_output_to_come_and_no_stream_to_lead_to(
    client: TestClient, sign_in: SignIn, rows: Rows, aws: Aws
) -> None:
    rows.set("task_0", "failed", ARN)
    aws.answer = details(Seen.STOPPED, None, "CannotPullContainerError: no such image", started=False)
    aws.lines = NoLog("the container has printed nothing so far")
    answer = client.get(rows.page("task_0", "/log?try_number=1"), headers=sign_in())
    assert answer.status_code == 200
    assert "the container never ran, so that it has printed nothing" in answer.text
    assert "so far" not in answer.text


def test_settings_that_cannot_be_used_are_named_on_the_page(
    show: Show, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__POLL_INTERVAL", "often")
    rows.set("task_0", "failed", ARN)
    rows.say("task_0", "ecs container failure", "an entry")
    page = show(rows.page("task_0"))
    assert "poll_interval" in page
    assert "an entry" in page


def test_the_link_of_the_container_asks_aws_where_it_is_if_nothing_else_tells(
    client: TestClient, sign_in: SignIn, rows: Rows, aws: Aws, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(EcsAdapter, "console_url", lambda *_: None)
    rows.set("task_0", "success", ARN)
    aws.answer = details(Seen.STOPPED, 0)
    answer = client.get(rows.page("task_0", "/console?try_number=1"), headers=sign_in())
    assert (answer.status_code, answer.headers["location"]) == (307, aws.answer.console_url)


def test_viewers_of_one_container_share_a_question(
    rows: Rows, aws: Aws, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.adapter.ui import containers

    monkeypatch.setattr(containers, "KEPT_FOR", 60.0)
    rows.set("task_1", "running", f"{ARN}-that-nobody-else-asks-for")
    aws.answer = details(Seen.RUNNING)
    show(rows.page("task_1"))
    show(rows.page("task_1"))
    assert aws.asked == [f"{ARN}-that-nobody-else-asks-for"]
