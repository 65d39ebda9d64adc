"""What README, the first page and the page of hooks show: the settings are read, the signatures are the code's."""

from __future__ import annotations

import ast
import configparser
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from airflow.models.taskinstancekey import TaskInstanceKey

import ecs_async_executor
from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter.executor import AsyncExecutor

ROOT = Path(__file__).parents[2]
HOOKS = (ROOT / "docs" / "hooks.md").read_text()
CLASSES = {one.__name__: one for one in (AsyncEcsExecutor, AsyncBatchExecutor, AsyncExecutor)}


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize(("name", "count"), [("README.md", 1), ("docs/README.md", 2)])
def test_the_settings_of_a_page_can_be_used(name: str, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    executors = []
    for block in blocks((ROOT / name).read_text(), "ini"):
        parser = configparser.ConfigParser(interpolation=None)
        parser.read_string(block)
        for section in parser.sections():
            for option, value in parser[section].items():
                if (section, option) == ("core", "executor"):
                    executors.append(value)
                else:
                    monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{option.upper()}", value)
    assert len(executors) == count
    for path in executors:
        module, _, made = path.rpartition(".")
        assert module == "ecs_async_executor"
        adapter = getattr(ecs_async_executor, made)().adapter
        adapter.prepare()
        assert adapter.settings.doubts == ()


def functions(code: str) -> Iterator[ast.FunctionDef]:
    yield from (node for node in ast.parse(code).body if isinstance(node, ast.FunctionDef))


def signature(function: ast.FunctionDef) -> str:
    decorators = [ast.unparse(one) for one in function.decorator_list]
    returned = ast.unparse(function.returns) if function.returns else None
    return f"{decorators} {function.name}({ast.unparse(function.args)}) -> {returned}"


def of_the_page() -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for name, code in re.findall(
        r"<!-- signatures: (\w+) -->\n\n```python\n(.*?)^```$", HOOKS, re.MULTILINE | re.DOTALL
    ):
        found.setdefault(name, {}).update({one.name: signature(one) for one in functions(code)})
    return found


def of_the_code(name: str) -> dict[str, str]:
    (tree,) = ast.parse(inspect.getsource(CLASSES[name])).body
    assert isinstance(tree, ast.ClassDef)
    return {one.name: signature(one) for one in tree.body if isinstance(one, ast.FunctionDef)}


@pytest.mark.parametrize("name", CLASSES)
def test_the_page_of_hooks_has_the_signatures_of_the_code(name: str) -> None:
    said, code = of_the_page()[name], of_the_code(name)
    assert said == {one: code.get(one) for one in said}


@pytest.mark.parametrize("name", ["AsyncEcsExecutor", "AsyncBatchExecutor"])
def test_the_page_of_hooks_leaves_none_out(name: str) -> None:
    assert of_the_code(name).keys() - {"_make_adapter"} == of_the_page()[name].keys()
    assert "_serialize_workload_to_command" in of_the_page()["AsyncExecutor"]


@pytest.mark.parametrize("name", ["AsyncEcsExecutor", "AsyncBatchExecutor"])
def test_the_page_names_every_method_that_is_never_called(name: str) -> None:
    table = HOOKS[HOOKS.index("| Method of the provider's executor |") :]
    named = {one for line in table.splitlines() for one in re.findall(r"`(\w+)`", line.split("|")[1])}
    assert CLASSES[name]().adapter.never_called.keys() - named == set()


def test_the_subclass_of_the_page_names_the_dag_in_a_tag(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER", "airflow")
    monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME", "airflow")
    names: dict[str, Any] = {}
    exec(compile(blocks(HOOKS, "python")[0], "hooks.md", "exec"), names)  # noqa: S102 - the page is ours
    executor = names["TaggedExecutor"]()
    key = TaskInstanceKey("etl", "load", "run", 1, -1)
    request = executor._run_task_kwargs(key, ["command"], None, {"tags": [{"key": "cost", "value": "a"}]})
    assert request["tags"] == [{"key": "cost", "value": "a"}, {"key": "dag", "value": "etl"}]
    assert executor.adapter.has_overridden_hooks()
