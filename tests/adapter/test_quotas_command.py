"""``airflow ecs-async quotas``, over executors that run at a local ECS."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.commands import quotas as quotas_command
from ecs_async_executor.adapter.commands.drawn import places_of
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.adapter.status import ExecutorStatus, read_status
from ecs_async_executor.core.quotas import By
from ecs_async_executor.local import Fault, LocalEcs, Rate
from tests.adapter import test_status
from tests.adapter.metadata import Metadata
from tests.adapter.scripted import make_workload, queue
from tests.adapter.test_status import beat_until, free_port, works

configured, scheduler = test_status.configured, test_status.scheduler


@pytest.fixture
def command(database: Metadata, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run the command; return what it prints."""
    monkeypatch.setattr(quotas_command, "create_session", lambda scoped: database.session())
    monkeypatch.setenv("COLUMNS", "100")

    def run(output: str = "table", *, ask_aws: bool = False) -> str:
        capsys.readouterr()
        cli.quotas(Namespace(output=output, ask_aws=ask_aws))
        return capsys.readouterr().out

    return run


@pytest.fixture
def running(
    started: Callable[..., Any],
    configured: Callable[..., None],
    scheduler: Callable[..., int],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[..., tuple[Any, int]]:
    """Start an executor that shows what it does; return it and its port."""

    def run(cls: type[Any] = AsyncEcsExecutor, **options: str) -> tuple[Any, int]:
        port = free_port()
        section = "BATCH" if cls is AsyncBatchExecutor else "ECS"
        for name, value in {"STATUS_PORT": str(port), **options}.items():
            monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__{name}", value)
        configured(cls)
        job_id = scheduler()

        def make() -> Any:
            executor = cls(parallelism=1000)
            executor.job_id = job_id
            return executor

        executor = started(make)
        beat_until(executor, lambda: works(port))
        return executor, port

    return run


def rate(port: int, operation: str) -> dict[str, Any]:
    rates = read_status("127.0.0.1", port)["rates"]
    return next((one for one in rates if one["operation"] == operation), {})


def test_a_rate_above_the_quota_is_seen_as_ours_and_its_option_is_named(
    local_ecs: Callable[..., LocalEcs], running: Callable[..., Any], command: Callable[..., str]
) -> None:
    local_ecs(limits={"FARGATE": Rate(10.0, 10.0)}, script=[{"duration": 60.0}])
    executor, port = running(LAUNCH_RATE="100", LAUNCH_BURST="50")
    for n in range(100):
        queue(executor, make_workload(f"t{n}"))
    beat_until(executor, lambda: rate(port, "launch").get("refused", 0) >= 10)

    table = command()

    line = next(line for line in table.splitlines() if line.startswith("RunTask on Fargate"))
    assert "| 100/s | 20/s  |" in line
    assert line.rstrip().endswith("| ours")
    assert "one executor begins with launch_rate = 100. Unset it, so that each begins gently" in table
    assert max(map(len, table.partition("\n\n")[0].splitlines()[:6])) <= 100
    text = command("json")
    (whole,) = json.loads(text[text.index("[{") :])  # the executor's own log is in this process, too
    assert whole["schedulers"] == [compat.hostname()]
    assert whole["buckets"][0]["calls"] == "RunTask on Fargate"
    assert whole["advice"][0]["setting"] == "launch_rate = 20"
    assert "setting: launch_rate = 20\n" in command("yaml")


def test_a_wait_for_vcpus_names_the_quota_its_value_and_the_page(
    local_ecs: Callable[..., LocalEcs],
    running: Callable[..., Any],
    command: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ecs = local_ecs(quotas={"Fargate On-Demand vCPU resource count": 48.0}, script=[{"duration": 60.0}])
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", ecs.url)
    words = "You've reached the limit on the number of vCPUs you can run concurrently"
    ecs.faults.add(Fault(kind="failures", operation="RunTask", failures=({"reason": words},)))
    executor, port = running(READ_SERVICE_QUOTAS="True")
    beat_until(executor, lambda: read_status("127.0.0.1", port)["quotas"])
    queue(executor, make_workload("t"))
    beat_until(executor, lambda: read_status("127.0.0.1", port)["gates"])

    shown = command()

    known = "Fargate On-Demand vCPU resource count (L-3032A538)"
    assert f"{known}: 48." in shown
    assert f"{words} ({known} is 48" in shown
    page = f"https://{ecs.region}.console.aws.amazon.com/servicequotas/home/services/fargate/quotas/L-3032A538"
    assert f"Request more of {known}, or let other containers end: {page}" in shown
    assert shown.count("is 48") == 1
    (gate,) = read_status("127.0.0.1", port)["gates"]
    assert f"({known} is 48)" in gate["reason"]


@pytest.mark.parametrize("cls", [AsyncEcsExecutor, AsyncBatchExecutor])
def test_service_quotas_are_asked_on_request_only_and_a_refusal_is_a_line(
    local_ecs: Callable[..., LocalEcs],
    running: Callable[..., Any],
    command: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    cls: type[Any],
) -> None:
    ecs = local_ecs()
    monkeypatch.setenv("AWS_ENDPOINT_URL_SERVICE_QUOTAS", ecs.url)
    running(cls)
    assert "vCPU" not in command()
    assert "Fargate Spot vCPU resource count (L-36FBB829): 6." in command(ask_aws=True)
    ecs.faults.add(
        Fault(kind="error", operation="ListServiceQuotas", code="AccessDeniedException", message="not authorized")
    )
    shown = command(ask_aws=True)
    assert "Allow servicequotas:ListServiceQuotas to whoever runs this command." in shown
    assert ("TerminateJob" in shown) == (cls is AsyncBatchExecutor)


def test_what_cannot_be_seen_is_said(
    configured: Callable[..., None], scheduler: Callable[..., int], command: Callable[..., str]
) -> None:
    configured(AsyncEcsExecutor)
    scheduler("here")
    scheduler("there")
    shown = command()
    assert "Not in these figures: ECS on here, ECS on there: [ecs_async_executor] status_port is not set" in shown
    (whole,) = json.loads(command("json"))
    assert [one["scheduler"] for one in whole["unseen"]] == ["here", "there"]
    assert (whole["buckets"], whole["advice"], whole["problem"]) == ([], [], None)


def test_without_a_scheduler_there_is_nothing_to_show(
    configured: Callable[..., None], command: Callable[..., str]
) -> None:
    configured(AsyncEcsExecutor)
    assert "No scheduler runs." in command()


def _status(**rate: Any) -> dict[str, Any]:
    launch = {"operation": "launch", "bucket": "FARGATE", "destination": "", "per_second": 10.0, "throttles": 0}
    return {
        "now": "2026-11-28T12:00:00+00:00",
        "statistics": {"launching": 0, "pending": 0, "active": 0},
        "destinations": [],
        "gates": [],
        "rates": [{**launch, **rate}],
    }


def _seen(executor: AsyncExecutor, hostname: str, status: dict[str, Any] | None) -> ExecutorStatus:
    problem = None if status is not None else "no answer"
    return ExecutorStatus(hostname, 1, 0.0, "ECS", class_name(type(executor)), executor.team_name, status, problem)


def test_executors_of_several_schedulers_and_teams_share_a_bucket_if_their_settings_for_aws_are_the_same(
    configured: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    for team, region in (("BLUE", "eu-west-1"), ("RED", "eu-west-1"), ("GREEN", "us-east-1")):
        for name, value in (("CLUSTER", "c"), ("CONTAINER_NAME", "a"), ("TASK_DEFINITION", "d"), ("SUBNETS", "s")):
            monkeypatch.setenv(f"AIRFLOW__{team}___AWS_ECS_EXECUTOR__{name}", value)
        monkeypatch.setenv(f"AIRFLOW__{team}___AWS_ECS_EXECUTOR__REGION_NAME", region)
        monkeypatch.setenv(f"AIRFLOW__{team}___AWS_ECS_EXECUTOR__CONN_ID", "")
    executors: list[Any] = [AsyncEcsExecutor(team_name=team) for team in ("blue", "red", "green")]
    refused = {"calls": 100, "refused": 20, "sent_when_refused": 9.0, "refused_since": "2026-11-28T11:58:00+00:00"}
    seen = [
        _seen(executors[0], "a", _status(**refused)),
        _seen(executors[1], "a", _status(calls=50, used=8.0)),
        _seen(executors[1], "b", None),
        _seen(executors[2], "a", _status()),
    ]
    shared, alone = places_of(executors, seen)
    (bucket,) = shared.buckets()
    assert [draw.who for draw in bucket.draws] == ["a (job 1)", "a (job 1)"]
    assert (bucket.calls, bucket.refused, bucket.refused_for, bucket.unseen) == (150, 20, 120.0, 1)
    assert bucket.by is By.OURS  # 9/s of the one that was refused, and 8/s of the other
    (bucket,) = alone.buckets()
    assert (bucket.used, bucket.rate, bucket.refused) == (0.0, 10.0, 0)  # an executor of an earlier version
