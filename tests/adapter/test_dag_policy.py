"""An executor_config that ends Airflow's scheduler, or that no executor of ours can use, is refused early."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow import settings
from airflow.exceptions import AirflowClusterPolicyViolation
from airflow.executors.base_executor import BaseExecutor

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import compat, dag_policy
from tests.adapter.scripted import make_workload

DAG = """
from airflow.sdk import DAG, BaseOperator

with DAG("a_dag"):
    BaseOperator(task_id="plain")
    BaseOperator{how}(task_id="configured", executor_config={config}){more}
"""


@pytest.fixture
def import_errors(tmp_path: Path) -> Callable[..., dict[str, str]]:
    """Parse a DAG with this executor_config, and return the errors."""
    manager: Any = getattr(settings, "get_policy_plugin_manager", lambda: settings.POLICY_PLUGIN_MANAGER)()
    if not manager.is_registered(dag_policy):  # installed without its entry points
        manager.register(dag_policy)
    module = "airflow.models.dagbag" if compat.AIRFLOW_VERSION < (3, 2) else "airflow.dag_processing.dagbag"
    dagbag: Any = importlib.import_module(module)

    def parse(config: str, *, mapped: bool = False) -> dict[str, str]:
        how, more = (".partial", ".expand(doc=['a', 'b'])") if mapped else ("", "")
        (tmp_path / "a_dag.py").write_text(DAG.format(config=config, how=how, more=more))
        errors: dict[str, str] = dagbag.DagBag(dag_folder=str(tmp_path)).import_errors
        return errors

    return parse


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize(("config", "kind"), [("'big'", "str"), ("['hunter2']", "list")])
def test_a_dag_with_an_executor_config_that_is_no_dictionary_is_an_import_error(
    import_errors: Callable[..., dict[str, str]], config: str, kind: str, *, mapped: bool
) -> None:
    [error] = import_errors(config, mapped=mapped).values()
    assert "Task configured: executor_config must be a dictionary, not " + kind in error
    assert "hunter2" not in error.splitlines()[-1]


@pytest.mark.parametrize("mapped", [False, True])
@pytest.mark.parametrize("config", ["None", "{}", "{'cpu': '1024'}"])
def test_a_dag_with_a_dictionary_or_nothing_is_imported(
    import_errors: Callable[..., dict[str, str]], config: str, *, mapped: bool
) -> None:
    assert not import_errors(config, mapped=mapped)


class Local(BaseExecutor):
    """Not ours."""


class Hooked(AsyncEcsExecutor):
    def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> dict[str, Any]:
        return super()._run_task_kwargs(task_id, cmd, queue, {"cpu": {"big": 4}[exec_config["cpu"]]})


ECS, BATCH = ("ecs", AsyncEcsExecutor), ("batch", AsyncBatchExecutor)


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Configure executors, each with its alias and, perhaps, its team."""

    def configure(*executors: tuple[str, type[BaseExecutor]], teams: tuple[str | None, ...] = ()) -> None:
        names = [
            SimpleNamespace(alias=alias, module_path=f"some.{cls.__name__}", team_name=team)
            for (alias, cls), team in itertools.zip_longest(executors, teams)
        ]
        found = [(name, cls) for name, (_, cls) in zip(names, executors, strict=True)]
        monkeypatch.setattr(compat, "_configured", lambda: found)

    return configure


@pytest.mark.parametrize("mapped", [False, True])
def test_a_dag_that_asks_for_a_size_that_is_none_is_an_import_error(
    import_errors: Callable[..., dict[str, str]], configured: Callable[..., None], *, mapped: bool
) -> None:
    configured(ECS)
    [error] = import_errors("{'cpu': 64, 'memory': 'much'}", mapped=mapped).values()
    assert 'Task configured: cpu = 64 could mean vCPUs or CPU units: write "64 vCPU" or "64 units"; ' in error
    assert "memory = 'much' cannot be read" in error
    assert not import_errors("{'cpu': 1, 'memory': '4 GB', 'environment': {'A': 1}}", mapped=mapped)


@pytest.mark.parametrize(
    ("executors", "teams", "executor", "refused"),
    [
        ([ECS, ("local", Local)], (), None, True),
        ([("local", Local), ECS], (), None, False),
        ([("local", Local), ECS], (), "ecs", True),
        ([("local", Local), ECS], (), "some.AsyncEcsExecutor", True),
        ([("local", Local), ECS], (), "AsyncEcsExecutor", True),
        ([ECS, ("local", Local)], (), "local", False),
        ([ECS], (), "unknown", False),
        ([], (), None, False),
        # Which team a DAG is of is not known here.
        ([ECS, ("local", Local)], (None, "other"), None, False),
        ([ECS, BATCH], (None, "other"), None, True),
        ([("ecs", Hooked)], (), None, False),
    ],
)
def test_a_size_is_checked_only_for_tasks_that_an_executor_of_ours_will_run(
    configured: Callable[..., None], executors: Any, teams: Any, executor: str | None, *, refused: bool
) -> None:
    configured(*executors, teams=teams)
    task = SimpleNamespace(task_id="t", executor_config={"cpu": "big"}, executor=executor)
    if not refused:
        dag_policy.task_policy(task)
        return
    with pytest.raises(AirflowClusterPolicyViolation, match="Task t: cpu = 'big' cannot be read"):
        dag_policy.task_policy(task)


def test_what_one_service_has_no_place_for_is_refused_where_that_service_runs_the_task(
    configured: Callable[..., None],
) -> None:
    task = SimpleNamespace(task_id="t", executor_config={"command_timeout": 600}, executor=None)
    configured(BATCH)
    dag_policy.task_policy(task)
    configured(ECS)
    with pytest.raises(AirflowClusterPolicyViolation, match="set execution_timeout of the Airflow task"):
        dag_policy.task_policy(task)
    configured(ECS, BATCH, teams=(None, "other"))
    dag_policy.task_policy(task)


def test_where_no_executor_can_be_imported_dags_are_parsed_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> None:
        raise ImportError("no amazon here")

    monkeypatch.setattr(compat, "_configured", fail)
    dag_policy.task_policy(SimpleNamespace(task_id="t", executor_config={"cpu": "big"}, executor=None))


def test_airflow_makes_no_workload_of_anything_else() -> None:
    """Where this no longer fails, the policy has nothing left to do."""
    with pytest.raises(ValueError, match="executor_config"):
        make_workload(executor_config="big")


def test_airflow_finds_the_policy_by_its_entry_point() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'[project.entry-points."airflow.policy"]\necs_async_executor = "{dag_policy.__name__}"\n' in (
        project.read_text()
    )
