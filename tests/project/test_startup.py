"""Every process of Airflow's loads something of this package: what that brings along."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def loaded_by(statements: str, before: str = "import __future__") -> set[str]:
    """Return the modules that statements load in a new process, without those of what stands before them."""
    code = (
        f"import json, sys; {before}; known = set(sys.modules)\n{statements}\n"
        "print(json.dumps(sorted(set(sys.modules) - known)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_the_package_loads_nothing_but_itself() -> None:
    assert loaded_by("import ecs_async_executor") == {"ecs_async_executor"}


def test_the_provider_info_loads_nothing_else_of_the_package_and_of_others() -> None:
    brought = loaded_by("from ecs_async_executor.provider_info import get_provider_info; get_provider_info()")
    assert {name for name in brought if name.startswith("ecs_async")} == {
        "ecs_async_executor",
        "ecs_async_executor.provider_info",
    }
    assert {name.partition(".")[0] for name in brought} - sys.stdlib_module_names == {"ecs_async_executor"}


def test_what_airflow_loads_for_its_settings_is_the_provider_info_and_the_policy() -> None:
    brought = loaded_by("import airflow.settings, ecs_async_executor.provider_info")
    assert {name for name in brought if name.startswith("ecs_async")} == {
        "ecs_async_executor",
        "ecs_async_executor.adapter",
        "ecs_async_executor.adapter.dag_policy",
        "ecs_async_executor.provider_info",
    }


PLUGIN = (
    "import ecs_async_executor.plugin",
    "import airflow.plugins_manager, airflow.sdk.bases.operatorlink, structlog",
)
COMMANDS = (
    "from ecs_async_executor.cli import get_cli_commands; get_cli_commands()",
    "import airflow.settings, airflow.cli.cli_config",
)


@pytest.mark.parametrize(("statement", "before"), [PLUGIN, COMMANDS], ids=["plugin", "commands"])
def test_the_plugin_and_the_commands_load_neither_the_executor_nor_what_airflow_had_not_loaded(
    statement: str, before: str
) -> None:
    brought = loaded_by(statement, before)
    assert {name.partition(".")[0] for name in brought} - sys.stdlib_module_names == {"ecs_async_executor"}
    parts = {".".join(name.split(".")[1:2]) for name in brought}
    assert parts.isdisjoint({"engine", "services", "settings", "local"})
    assert brought.isdisjoint({"ecs_async_executor.adapter.executor", "ecs_async_executor.adapter.ui.app"})
