"""Settings as a real Airflow has them: from the environment, from airflow.cfg, for all and for a team."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.configuration import conf
from structlog.testing import capture_logs

from ecs_async_executor import AsyncEcsExecutor, cli
from ecs_async_executor.adapter import compat
from ecs_async_executor.core.errors import ConfigurationError

OURS, THEIRS = "ECS_ASYNC_EXECUTOR", "AWS_ECS_EXECUTOR"


@pytest.fixture
def airflow_cfg() -> Iterator[Callable[[str], None]]:
    """Add sections to ``airflow.cfg``, for one test."""
    parser: Any = conf
    before = set(parser.sections())
    yield parser.read_string
    for section in set(parser.sections()) - before:
        parser.remove_section(section)


def problems_of(make_executor: Callable[..., Any], **arguments: Any) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        make_executor(**arguments)
    return caught.value.problems


def arguments_of(**more: Any) -> Any:
    given = {
        "team": None,
        "service": None,
        "timeout": 1.0,
        "launch": False,
        "queue": None,
        "executor_config": None,
        "strict": False,
        "output": "text",
    }
    return type("Arguments", (), {**given, **more})()


def test_an_option_of_ours_that_does_not_exist_is_refused_with_the_nearest_that_does(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, airflow_cfg: Callable[[str], None]
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{OURS}__MAX_CONCURENT_LAUNCHES", "5")
    airflow_cfg("[ecs_async_executor]\nPOLL_INTERVAL = 5\nzzz = 1\nqueues = {}\n")
    first, second, third = sorted(problems_of(make_executor))
    assert first == (
        "[ecs_async_executor] POLL_INTERVAL (airflow.cfg) is not an option: did you mean poll_interval?"
    )
    assert second == (
        f"[ecs_async_executor] max_concurent_launches (AIRFLOW__{OURS}__MAX_CONCURENT_LAUNCHES) is not an option: "
        "did you mean max_concurrent_launches?"
    )
    assert third.startswith("[ecs_async_executor] zzz (airflow.cfg) is not an option: the options are max_")


def test_an_option_of_the_providers_that_does_not_exist_is_named_and_no_more(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{THEIRS}__SUBNET", "subnet-1")
    doubt = f"[aws_ecs_executor] subnet (AIRFLOW__{THEIRS}__SUBNET) is not an option: did you mean subnets?"
    with capture_logs() as logs:
        make_executor()
    assert [line["doubt"] for line in logs if line["event"] == "ecs_executor.settings.doubtful"] == [doubt]
    monkeypatch.setattr(compat, "configured_executors", list)
    with pytest.raises(SystemExit):
        cli.check(arguments_of(timeout=0.01))
    assert f"Warning: Settings: {doubt}\n" in capsys.readouterr().out


def test_fargate_without_subnets_is_named_at_start(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{THEIRS}__LAUNCH_TYPE", "FARGATE")
    with capture_logs() as logs:
        make_executor()
        assert not [line for line in logs if line["event"] == "ecs_executor.settings.doubtful"]
        monkeypatch.delenv(f"AIRFLOW__{THEIRS}__SUBNETS")
        make_executor()
    [line] = [line for line in logs if line["event"] == "ecs_executor.settings.doubtful"]
    assert line["doubt"].startswith("[aws_ecs_executor] launch_type says Fargate, but subnets is not set: ")


@pytest.mark.parametrize("value", ['{"tags": {"discount": "50%"}}', '{"tags": {"discount": "%(secret)s"}}'])
def test_a_single_percent_sign_in_airflow_cfg_is_named_with_the_way_out(
    make_executor: Callable[..., Any], airflow_cfg: Callable[[str], None], value: str
) -> None:
    airflow_cfg(f"[aws_ecs_executor]\nrun_task_kwargs = {value}\n[ecs_async_executor]\nlaunch_burst = many\n")
    first, second = problems_of(make_executor)
    assert first.startswith("[ecs_async_executor] launch_burst = 'many'")
    assert second == "[aws_ecs_executor] run_task_kwargs (value not shown) has a single %: write %%"
    airflow_cfg("[aws_ecs_executor]\nrun_task_kwargs = {'tags': {'discount': '50%%'}}\n")
    airflow_cfg("[ecs_async_executor]\nlaunch_burst = 5\n")
    executor = make_executor(AsyncEcsExecutor, start=False)
    assert executor.run_task_kwargs["tags"] == [{"key": "discount", "value": "50%"}]


def test_a_team_hears_that_its_own_options_are_not_set(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__DATA___{THEIRS}__CONTAINER_NAME", "airflow")
    monkeypatch.setenv(f"AIRFLOW__DATA___{OURS}__LAUNCH_RAT", "5")
    monkeypatch.setenv(f"AIRFLOW__{OURS}__OF_NOBODY", "5")
    unknown = f"(AIRFLOW__DATA___{OURS}__LAUNCH_RAT) is not an option: did you mean launch_rate?"
    unset = "cluster is not set: set it to the name or ARN of a cluster (a team has options of its own)"
    said = (f"[data=ecs_async_executor] launch_rat {unknown}", f"[data=aws_ecs_executor] {unset}")
    monkeypatch.setattr(compat, "configured_executors", list)
    assert problems_of(make_executor, team_name="data") == said
    with pytest.raises(SystemExit) as ended:
        cli.check(arguments_of(team="data"))
    assert str(ended.value).splitlines()[1:] == [f"  - {problem}" for problem in said]


@pytest.mark.parametrize(
    ("configured", "meant"),
    [
        ("AsyncEcsExecutor", "AsyncEcsExecutor"),
        ("AwsBatchExecutor:ecs_async_executor.AsyncBatchExecuter", "AsyncBatchExecutor"),
        ("LocalExecutor,ecs_async_executer.AsyncEcsExecutor", "AsyncEcsExecutor"),
        ("no.such.Thing", None),
    ],
)
def test_a_command_says_in_a_line_that_the_executor_cannot_be_imported(
    monkeypatch: pytest.MonkeyPatch, configured: str, meant: str | None
) -> None:
    from airflow.executors import executor_loader

    loader: Any = executor_loader
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", configured)
    for name in ("_executor_names", "_team_name_to_executors"):  # read once per process
        monkeypatch.setattr(loader, name, copy.copy(getattr(loader, name)))
        getattr(loader, name).clear()
    with pytest.raises(SystemExit) as ended:
        cli.check(arguments_of())
    [line] = str(ended.value).splitlines()
    assert line.startswith(f"Settings: [core] executor = {configured!r} cannot be used: ")
    assert (f"did you mean ecs_async_executor.{meant}?" in line) is (meant is not None)


def test_a_scheduler_with_wrong_rules_does_not_start_and_says_everything(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("queues:\n  large: {memroy: 1 GB}\nplacements: [spto]\n")
    monkeypatch.setenv(f"AIRFLOW__{OURS}__EXECUTOR_RULES", str(path))
    monkeypatch.setenv(f"AIRFLOW__{OURS}__RETRIES", '[{"when": "oom", "memory": "x1"}]')
    assert [problem.partition(": ")[0] for problem in problems_of(make_executor)] == [
        "[ecs_async_executor] retries[0].memory = 'x1' makes nothing larger",
        f"{path} line 2, queues.large.memroy is no key of a queue, nor a parameter of the request",
        f"{path} line 3, placements[0]",
    ]


def test_a_doubtful_rule_is_named_at_start(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{OURS}__PLACEMENTS", '{"big": {"launchType": "EC2"}}')
    doubt = "[ecs_async_executor] placements.big is in no list of placements: only tasks that name it use it"
    with capture_logs() as logs:
        make_executor()
    assert [line["doubt"] for line in logs if line["event"] == "ecs_executor.settings.doubtful"] == [doubt]


def test_an_api_server_without_the_file_of_rules_knows_all_other_settings(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(f"AIRFLOW__{OURS}__EXECUTOR_RULES", str(tmp_path / "rules.yaml"))
    adapter = make_executor(start=False).adapter
    assert adapter.tuning.task_log_lines == 1000
    with pytest.raises(ConfigurationError, match="does not exist: the scheduler and the commands read it"):
        _ = adapter.rules
