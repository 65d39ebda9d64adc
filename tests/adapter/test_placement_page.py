"""docs/placement.md says what is so: its rules are read, its DAGs parsed, its requests compared with real ones."""

from __future__ import annotations

import configparser
import json
import re
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from airflow.models.taskinstancekey import TaskInstanceKey
from airflow.sdk import DAG

from ecs_async_executor import AsyncBatchExecutor, AsyncEcsExecutor
from ecs_async_executor.adapter import dag_policy
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.workloads import AdoptedWorkload
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import End
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.settings.rule_files import read_rule_file
from ecs_async_executor.settings.rule_schema import keys_table, rules_schema

PAGE = (Path(__file__).parents[2] / "docs" / "placement.md").read_text()
_BLOCK = re.compile(r"(?:<!-- sent: (.*?) -->\n\n)?^( *)```(\w+)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
MADE_FROM = {"ecs": AsyncEcsExecutor, "batch": AsyncBatchExecutor}


@dataclass
class Recipe:
    """One section of the page: its rules, its DAGs, and what it says is sent."""

    title: str
    rules: str = ""
    dags: list[str] = field(default_factory=list)
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)

    @property
    def service(self) -> str:
        return "batch" if any("service=batch" in how for how, _ in self.sent) else "ecs"


def blocks(text: str) -> Iterator[tuple[str, str, str]]:
    """Yield each block of code: what was sent, the language, the code without its indent."""
    for sent, indent, language, code in _BLOCK.findall(text):
        yield sent, language, "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))


def recipes() -> list[Recipe]:
    found = []
    for section in re.split(r"^### (?=\d+\. )", PAGE, flags=re.MULTILINE)[1:]:
        recipe = Recipe(section.splitlines()[0])
        for sent, language, code in blocks(section):
            if language == "yaml":
                assert not recipe.rules
                recipe.rules = code
            elif language == "python":
                recipe.dags.append(code)
            else:
                assert language == "json"
                assert sent
                recipe.sent.append((sent, json.loads(code)))
        found.append(recipe)
    return found


RECIPES = recipes()


@pytest.fixture(autouse=True)
def of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure what the cookbook says, and nothing else."""
    (text,) = (code for _, language, code in blocks(PAGE) if language == "ini" and "aws_ecs_executor" in code)
    parser = configparser.ConfigParser()
    parser.read_string(text)
    for section in parser.sections():
        for name, value in parser[section].items():
            monkeypatch.setenv(f"AIRFLOW__{section.upper()}__{name.upper()}", value)


def executor_with(folder: Path, monkeypatch: pytest.MonkeyPatch, rules: str, service: str) -> AsyncExecutor:
    monkeypatch.delenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__EXECUTOR_RULES", raising=False)
    if rules:
        path = folder / "rules.yaml"
        path.write_text(rules)
        monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__EXECUTOR_RULES", str(path))
    executor = MADE_FROM[service]()
    executor.adapter.prepare()
    executor.workloads.prepare(None)
    return executor


def tasks_of(dags: list[str]) -> dict[str, Any]:
    """Return the tasks of DAGs by their names, as far as the policy for DAGs lets them be."""
    found = {}
    for code in dags:
        names: dict[str, Any] = {}
        exec(compile(code, "placement.md", "exec"), names)  # noqa: S102 - the page is ours
        for make in names.values():
            if getattr(make, "__wrapped__", None) is not None and isinstance(made := make(), DAG):
                for task in made.tasks:
                    dag_policy.task_policy(task)
                    found[task.task_id] = task
    assert found or not dags
    return found


@dataclass
class How:
    """How something was sent, as a comment of the page says it."""

    queue: str | None = None
    task: str | None = None
    placement: str | None = None
    destination: str = ""
    after: list[End] = field(default_factory=list)


def how_of(words: str) -> How:
    how = How()
    for part in words.split("; "):
        name, _, value = part.partition("=")
        if name == "after":
            ending, *rest = value.split()
            fields = dict(one.split("=") for one in rest)
            size = Size(int(fields["cpu"]), int(fields["memory"])) if "cpu" in fields else None
            exit_code = int(fields["exit"]) if "exit" in fields else None
            how.after.append(End(len(how.after) + 1, Ending(ending), exit_code, size, fields.get("placement")))
        elif name != "service":
            assert hasattr(how, name)
            setattr(how, name, value)
    return how


def request_of(executor: AsyncExecutor, how: How, tasks: Mapping[str, Any]) -> tuple[dict[str, Any], str]:
    """Return the request of a task's next try, and where it goes."""
    key = TaskInstanceKey("dag", how.task or "task", "run", len(how.after) + 1, -1)
    task = tasks[how.task] if how.task else None
    workload = AdoptedWorkload(how.queue or (task.queue if task else None), task.executor_config if task else None)
    launch = Launch(str(uuid.uuid4()), key, workload, 1, "mark", 0.0)
    ends = executor.workloads._last_ends
    ends.wanted = True
    for end in how.after:
        ends.remember(key._replace(try_number=end.try_number), end)
    choices = executor.workloads.choices(launch)
    assert (how.placement is None) == (choices.names == ())
    assert how.placement is None or how.placement in choices.names
    spec = executor.workloads.render(launch, how.placement)
    request: dict[str, Any] = spec.request  # type: ignore[assignment]
    return request, destination_of(spec.scope)


def difference(base: Any, request: Any) -> Any:
    """Return what a request has that another has not, in the same form."""
    if isinstance(base, Mapping) and isinstance(request, Mapping):
        changed = {
            name: difference(base.get(name), value) for name, value in request.items() if base.get(name) != value
        }
        return {name: value for name, value in changed.items() if value not in ({}, [])}
    if isinstance(base, list) and isinstance(request, list):
        if base and isinstance(base[0], Mapping) and "command" in base[0]:  # containers
            return [difference(*both) for both in zip(base, request, strict=True)]
        return [one for one in request if one not in base]
    return request


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.title)
def test_a_recipe_sends_what_the_page_says(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, _ = request_of(executor_with(tmp_path, monkeypatch, "", recipe.service), How(), {})
    executor = executor_with(tmp_path, monkeypatch, recipe.rules, recipe.service)
    tasks = tasks_of(recipe.dags)
    assert recipe.sent
    for words, said in recipe.sent:
        how = how_of(words)
        request, destination = request_of(executor, how, tasks)
        assert difference(plain, request) == said, words
        assert destination == how.destination
        assert plain.keys() - request.keys() <= {"platformVersion"}


@pytest.mark.parametrize("recipe", [one for one in RECIPES if one.rules], ids=lambda recipe: recipe.title)
def test_an_editor_accepts_the_rules_of_a_recipe(recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(recipe.rules)
    service = {"ecs": "ECS", "batch": "Batch"}[recipe.service]
    jsonschema.validate(read_rule_file(str(path)).values, rules_schema(service), jsonschema.Draft7Validator)


def test_every_other_block_of_rules_can_be_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    others = PAGE[: PAGE.index("## Cookbook")]
    rules = [code for _, language, code in blocks(others) if language == "yaml"]
    assert len(rules) == 2
    for code in rules:
        executor_with(tmp_path, monkeypatch, code, "ecs")


def test_options_and_file_of_the_page_say_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_file = executor_with(
        tmp_path, monkeypatch, next(code for _, language, code in blocks(PAGE) if language == "yaml"), "ecs"
    )
    (options,) = (code for _, language, code in blocks(PAGE) if language == "ini" and "queues" in code)
    parser = configparser.ConfigParser()
    parser.read_string(options)
    monkeypatch.delenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EXECUTOR_RULES")
    for name, value in parser["ecs_async_executor"].items():
        monkeypatch.setenv(f"AIRFLOW__ECS_ASYNC_EXECUTOR__{name.upper()}", value)
    assert AsyncEcsExecutor().adapter.rules == in_file.adapter.rules


def test_airflow_replaces_variables_in_the_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rules.yaml").write_text("placements: [spot]")
    monkeypatch.setenv("RULES_OF_TESTS", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EXECUTOR_RULES", "$RULES_OF_TESTS/rules.yaml")
    assert AsyncEcsExecutor().adapter.rules.order == ("spot",)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__EXECUTOR_RULES", "~/rules.yaml")
    assert AsyncEcsExecutor().adapter.rules.order == ("spot",)


def test_the_problems_of_the_page_are_those_that_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (said,) = (code for _, language, code in blocks(PAGE) if language == "text")
    wrong = (
        "queues:\n  large: {memroy: 16 GB}\nplacements:\n  [spot, on_demand]\n"
        "retries:\n  - {when: oom, memory: x2, up to: 30}\n"
    )
    with pytest.raises(ConfigurationError) as caught:
        executor_with(tmp_path, monkeypatch, wrong, "ecs")
    assert str(caught.value).replace(str(tmp_path), "/opt/airflow/config") == said.rstrip()


@pytest.mark.parametrize("kind", ["size", "destination", "queue", "retry"])
def test_the_page_has_the_keys_as_they_are(kind: str) -> None:
    found = re.search(rf"<!-- {kind} keys:.*?-->\n(.*?)<!-- /{kind} keys -->", PAGE, re.DOTALL)
    assert found is not None
    assert found[1].strip() == keys_table(kind).strip(), "write the tables anew: nox -s readme"


def test_the_built_in_placements_of_the_page_are_those_that_there_are(tmp_path: Path) -> None:
    table = re.search(r"\| Name \| Is \|\n\| --- \| --- \|\n((?:\|.*\n)+)", PAGE)
    assert table is not None
    said = {}
    for name, text in re.findall(r"\| `(.+?)` \| `(.+?)` \|", table[1]):
        path = tmp_path / "one.yaml"
        path.write_text(text)
        said[name] = read_rule_file(str(path)).values
    built_in = AsyncEcsExecutor().adapter.rules.placements
    assert said == {name: one.parameters for name, one in built_in.items()}
    assert AsyncBatchExecutor().adapter.rules.placements == {}
