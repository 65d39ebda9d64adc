"""An executor_config that ends Airflow's scheduler before any executor is asked is refused with its DAG."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow import settings

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


def test_airflow_makes_no_workload_of_anything_else() -> None:
    """Where this no longer fails, the policy has nothing left to do."""
    with pytest.raises(ValueError, match="executor_config"):
        make_workload(executor_config="big")


def test_airflow_finds_the_policy_by_its_entry_point() -> None:
    project = Path(__file__).parents[2] / "pyproject.toml"
    assert f'[project.entry-points."airflow.policy"]\necs_async_executor = "{dag_policy.__name__}"\n' in (
        project.read_text()
    )
