"""The links of a task instance: Airflow asks for them whenever somebody looks at it."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.adapter.ui import holders
from ecs_async_executor.plugin import EcsAsyncPlugin
from tests.adapter.metadata import Metadata
from tests.adapter.ui.conftest import ARN, Rows

UUID = "01a2232a-6bb4-74a1-bff3-035357e558f3"


@pytest.fixture(autouse=True)
def fresh() -> Any:
    holders.configured.cache_clear()
    yield
    holders.configured.cache_clear()


def links(rows: Rows, task_id: str, try_number: int = 1) -> dict[str, str]:
    from airflow.models.taskinstancekey import TaskInstanceKey

    key = TaskInstanceKey("adopted", task_id, rows.run_id, try_number, -1)
    return {link.name: link.get_link(None, ti_key=key) for link in EcsAsyncPlugin.global_operator_extra_links}


def test_a_try_with_a_container_links_to_it_and_to_its_log(rows: Rows) -> None:
    rows.set("task_0", "running", ARN)
    console = (
        "https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/other/tasks/0123456789abcdef?region=eu-west-1"
    )
    assert links(rows, "task_0") == {
        "Container in AWS": console,
        "Container log in CloudWatch": rows.page("task_0", "/log?try_number=1")
        .replace(":", "%3A")
        .replace("+", "%2B"),
    }


@pytest.mark.parametrize(
    ("external_id", "columns"),
    [
        (None, {}),
        (UUID, {}),  # assigned by Airflow before there is a container
        (UUID, {"executor": "LocalExecutor"}),
        (ARN, {"executor": "LocalExecutor"}),
        (ARN, {"executor": "no.longer.Configured"}),
    ],
)
def test_a_try_without_a_container_of_ours_has_no_links(
    rows: Rows, external_id: str | None, columns: dict[str, Any]
) -> None:
    rows.set("task_0", "queued", external_id, **columns)
    assert set(links(rows, "task_0").values()) == {""}


def test_a_job_links_to_its_page_if_its_region_is_configured(monkeypatch: pytest.MonkeyPatch) -> None:
    from ecs_async_executor import AsyncBatchExecutor

    url = AsyncBatchExecutor().adapter.console_url(UUID)
    assert url == f"https://eu-west-1.console.aws.amazon.com/batch/home?region=eu-west-1#jobs/detail/{UUID}"
    monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__REGION_NAME", "")
    assert AsyncBatchExecutor().adapter.console_url(UUID) is None


def test_a_container_whose_page_only_aws_knows_links_to_our_page_that_asks(
    rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    from ecs_async_executor.adapter.ecs import EcsAdapter

    monkeypatch.setattr(EcsAdapter, "console_url", lambda *_: None)
    rows.set("task_0", "running", ARN)
    assert links(rows, "task_0")["Container in AWS"].endswith("/task_0/-1/console?try_number=1")


def test_each_try_links_to_its_own_container(rows: Rows) -> None:
    rows.set("task_0", "running", ARN)
    rows.retry("task_0")
    rows.set("task_0", "running", ARN.replace("0123", "4567"), try_number=2)
    found = [links(rows, "task_0", number)["Container in AWS"] for number in (1, 2)]
    assert "/tasks/0123456789abcdef?" in found[0]
    assert "/tasks/4567456789abcdef?" in found[1]


def test_a_failed_try_keeps_its_links_while_the_next_one_is_due(rows: Rows) -> None:
    rows.set("task_0", "running", ARN)
    rows.retry("task_0")
    assert all(links(rows, "task_0").values())


def test_an_unknown_try_has_no_links(rows: Rows) -> None:
    rows.set("task_0", "running", ARN)
    assert set(links(rows, "task_0", try_number=9).values()) == {""}


def test_a_link_raises_nothing_if_the_database_is_gone(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    from airflow import settings

    def gone() -> Any:
        raise RuntimeError("no database")

    rows.set("task_0", "running", ARN)
    monkeypatch.setattr(settings, "NonScopedSession", gone)
    assert set(links(rows, "task_0").values()) == {""}


def test_links_and_pages_begin_with_the_path_of_airflows_own_address(
    rows: Rows, monkeypatch: pytest.MonkeyPatch, airflows_database: Metadata
) -> None:
    monkeypatch.setenv("AIRFLOW__API__BASE_URL", "https://example.com/team/airflow/")
    rows.set("task_0", "running", ARN)
    assert links(rows, "task_0")["Container log in CloudWatch"].startswith("/team/airflow/ecs-async/task/adopted/")
    views = EcsAsyncPlugin().external_views
    assert [view["href"].partition("/ecs-async/")[0] for view in views] == ["/team/airflow"] * 2


def test_an_app_that_cannot_be_made_does_not_keep_the_api_server_from_starting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "ecs_async_executor.adapter.ui.app", None)
    assert EcsAsyncPlugin().fastapi_apps == []
