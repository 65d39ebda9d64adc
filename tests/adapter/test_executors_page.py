"""docs/executors.md says what is so: its settings are read, its tasks find their executors, in containers too."""

from __future__ import annotations

import configparser
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk import DAG

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import executor_for
from ecs_async_executor.services.requests import EXECUTOR_SETTING, variable_in
from tests.adapter.steering import forget_executors

PAGE = (Path(__file__).parents[2] / "docs" / "executors.md").read_text()
KEY = TaskInstanceKey("a_dag", "task", "run", 1, -1)


@dataclass
class Recipe:
    """One section of the page: its settings, its DAGs and its classes."""

    title: str
    settings: configparser.ConfigParser
    code: list[str] = field(default_factory=list)

    @property
    def team(self) -> str | None:
        found = re.search(r";(\w+)=", self.settings["core"]["executor"])
        return found[1] if found else None

    def variables(self) -> Iterator[tuple[str, str]]:
        for section in self.settings.sections():
            team, _, name = section.rpartition("=")
            for option, value in self.settings[section].items():
                yield f"AIRFLOW__{f'{team}___' if team else ''}{name}__{option}".upper(), value


def recipes() -> list[Recipe]:
    found = []
    for section in re.split(r"^## (?=\d+\. )", PAGE, flags=re.MULTILINE)[1:]:
        parser = configparser.ConfigParser(interpolation=None)
        code = []
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", section, re.MULTILINE | re.DOTALL):
            if language == "ini":
                parser.read_string(text)
            else:
                assert language == "python"
                code.append(text)
        found.append(Recipe(section.splitlines()[0], parser, code))
    return found


RECIPES = recipes()


@pytest.fixture(params=RECIPES, ids=lambda recipe: recipe.title)
def recipe(
    request: pytest.FixtureRequest, settings: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Recipe]:
    one: Recipe = request.param
    if one.team and compat.AIRFLOW_VERSION < (3, 2):
        pytest.skip("teams begin with Airflow 3.2")
    for service in ("ECS", "BATCH"):
        monkeypatch.delenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS")
    for name, value in one.variables():
        monkeypatch.setenv(name, value)
    (tmp_path / "my_company").mkdir()
    (tmp_path / "my_company" / "executors.py").write_text("\n".join(t for t in one.code if "class " in t))
    monkeypatch.syspath_prepend(str(tmp_path))
    forget_executors()
    yield one
    forget_executors()
    for name in ("my_company", "my_company.executors"):
        sys.modules.pop(name, None)


def tasks_of(recipe: Recipe) -> list[Any]:
    found = []
    for code in recipe.code:
        names: dict[str, Any] = {}
        exec(compile(code, "executors.md", "exec"), names)  # noqa: S102 - the page is ours
        for make in names.values():
            if getattr(make, "__wrapped__", None) is not None and isinstance(made := make(), DAG):
                found += made.tasks
    return found


class Named:
    """An executor, as the scheduler knows it."""

    def __init__(self, name: Any) -> None:
        self.names = {name.alias, name.module_path, name.module_path.rpartition(".")[2]}
        self.team: str | None = getattr(name, "team_name", None)
        self.path: str = name.module_path


def requests_of(recipe: Recipe) -> list[dict[str, Any]]:
    found = []
    for _, executor in compat.our_executors(AsyncExecutor):
        executor.adapter.prepare()
        found.append(executor.adapter.request(KEY, ["python"], None, {}))
    return found


def environment_of(request: dict[str, Any]) -> list[dict[str, str]]:
    override = request.get("containerOverrides") or request["overrides"]["containerOverrides"][0]
    found: list[dict[str, str]] = override["environment"]
    return found


def test_the_page_has_all_recipes() -> None:
    assert len(RECIPES) == 4
    assert [recipe.team for recipe in RECIPES] == [None, None, "blue", None]


def test_every_task_finds_its_executor_for_the_scheduler_and_in_containers(
    recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = [task.executor for task in tasks_of(recipe) if task.executor]
    named += [one.alias for one in compat.executor_names() if one.alias]
    assert named
    at_home = [Named(one) for one in compat.executor_names()]
    wanted = [executor_for(at_home, name, recipe.team) for name in named]
    assert None not in wanted

    for request in requests_of(recipe):
        given = variable_in(environment_of(request), EXECUTOR_SETTING)
        assert given is not None
        with monkeypatch.context() as inside:
            inside.setenv(EXECUTOR_SETTING, given)
            inside.delenv("AIRFLOW__CORE__MULTI_TEAM", raising=False)
            forget_executors()
            there = [Named(one) for one in compat.executor_names()]
            found = [executor_for(there, name, None) for name in named]
            assert [one.path for one in found if one] == [one.path for one in wanted if one]
        forget_executors()


def test_the_subclass_does_what_it_says(settings: None, monkeypatch: pytest.MonkeyPatch) -> None:
    names: dict[str, Any] = {}
    (code,) = (code for one in RECIPES for code in one.code if "class " in code)
    exec(compile(code, "executors.md", "exec"), names)  # noqa: S102 - the page is ours
    executor = names["NamingExecutor"]()
    executor.adapter.prepare()
    request = executor.adapter.request(KEY, ["python"], None, {})
    assert variable_in(environment_of(request), "DAG_ID") == "a_dag"
    assert executor.adapter.has_overridden_hooks()
