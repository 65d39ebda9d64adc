"""``container_executors``: which executors Airflow in a container knows, and what ``check`` says of that."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor import cli
from ecs_async_executor.adapter.naming import setting_for_containers
from ecs_async_executor.core.messages import Launch
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor, make_workload, queue
from tests.adapter.steering import forget_executors

SETTING = "AIRFLOW__CORE__EXECUTOR"
ECS, BATCH = "ecs_async_executor.AsyncEcsExecutor", "ecs_async_executor.AsyncBatchExecutor"
ALIASED = f"AwsEcsExecutor:{ECS}"
LOCAL = "airflow.executors.local_executor.LocalExecutor"


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Set ``[core] executor``."""

    def set_(value: str) -> None:
        monkeypatch.setenv(SETTING, value)
        forget_executors()

    yield set_
    forget_executors()


# --- what containers get ------------------------------------------------------------------------------------


@pytest.fixture(params=[("ECS", ScriptedExecutor), ("BATCH", ScriptedBatchExecutor)], ids=["ecs", "batch"])
def variables(
    request: pytest.FixtureRequest, make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, str]]]:
    """Return the variables in a workload's request."""
    service, cls = request.param

    monkeypatch.delenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS")

    def variables_of(workload: Any = None, *, on: bool = True) -> list[dict[str, str]]:
        if not on:
            monkeypatch.setenv(f"AIRFLOW__{service}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS", "False")
        executor = make_executor(cls)
        queue(executor, workload or make_workload())
        executor.heartbeat()
        (launch,) = [command for command in executor.scripted.commands if isinstance(command, Launch)]
        sent = executor.workloads.render(launch).request
        (override,) = (
            [sent["containerOverrides"]] if service == "BATCH" else sent["overrides"]["containerOverrides"]
        )
        found: list[dict[str, str]] = override["environment"]
        return found

    return variables_of


MARK = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}


@pytest.mark.parametrize(
    ("configured", "given"),
    [
        (ALIASED, ALIASED),
        (f"{ECS},{BATCH}", f"{ECS},{BATCH}"),
        (f"LocalExecutor, batch:{BATCH}", f"{LOCAL},batch:{BATCH}"),
    ],
)
def test_containers_know_the_executors_that_tasks_can_name(
    configure: Callable[[str], None], variables: Callable[..., Any], configured: str, given: str
) -> None:
    configure(configured)
    assert variables() == [{"name": SETTING, "value": given}, MARK]


def test_one_executor_without_an_alias_leaves_the_request_as_the_providers(
    configure: Callable[[str], None], variables: Callable[..., Any]
) -> None:
    configure(ECS)
    assert variables() == [MARK]


def test_without_the_setting_containers_know_what_their_image_says(
    configure: Callable[[str], None], variables: Callable[..., Any]
) -> None:
    configure(ALIASED)
    assert variables(on=False) == [MARK]


def test_a_variable_of_the_tasks_own_wins(configure: Callable[[str], None], variables: Callable[..., Any]) -> None:
    configure(ALIASED)
    own = make_workload(executor_config={"environment": {SETTING: "mine:some.Executor"}})
    assert variables(own) == [{"name": SETTING, "value": "mine:some.Executor"}, MARK]


def name(path: str, alias: str | None = None, team: str | None = None) -> Any:
    return SimpleNamespace(module_path=path, alias=alias, team_name=team)


@pytest.mark.parametrize(
    ("team", "given"),
    [
        (None, f"{LOCAL},{BATCH}"),
        ("blue", f"ecs:{ECS},{LOCAL},{BATCH}"),
        ("red", f"mine:{BATCH},{LOCAL}"),
        ("green", f"{LOCAL},{BATCH}"),
    ],
)
def test_containers_of_a_team_know_its_executors_and_everybodys(team: str | None, given: str) -> None:
    configured = [
        name(LOCAL, "LocalExecutor"),
        name(BATCH),
        name(ECS, "ecs", "blue"),
        name(BATCH, "mine", "red"),
    ]
    assert sorted(str(setting_for_containers(configured, team)).split(",")) == sorted(given.split(","))


def test_airflow_reads_what_containers_get_as_the_scheduler_reads_its_own(
    configure: Callable[[str], None],
) -> None:
    from airflow.executors.executor_loader import ExecutorLoader

    loader: Any = ExecutorLoader
    configured = f"LocalExecutor,AwsEcsExecutor:{ECS},batch:{BATCH}"
    names = ("LocalExecutor", "AwsEcsExecutor", "AsyncEcsExecutor", ECS, "batch", BATCH)
    configure(configured)
    paths = [loader.lookup_executor_name_by_str(one).module_path for one in names]
    given = setting_for_containers(loader.get_executor_names(), None)
    assert given is not None
    configure(given)
    assert [loader.lookup_executor_name_by_str(one).module_path for one in names] == paths


# --- what check says -----------------------------------------------------------------------------------------


@pytest.fixture
def check(
    place: Callable[..., Any], configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., list[dict[str, str]]]:
    """Return the findings about executors in containers, for a definition with this variable or without one."""
    for name in ("ECS", "BATCH"):
        monkeypatch.delenv(f"AIRFLOW__{name}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS")

    def run(
        service: str, configured: str, defined: str | None = None, named: str | None = None
    ) -> list[dict[str, str]]:
        opened = place(service)
        # The newest revision of each.
        monkeypatch.setenv("AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION", "family")
        monkeypatch.setenv("AIRFLOW__AWS_BATCH_EXECUTOR__JOB_DEFINITION", "airflow")
        _define(opened.local, {} if defined is None else {SETTING: defined})
        with opened.database.session() as session:
            ti, over = opened.database.tis(session)[:2]
            ti.executor, ti.state = named, "up_for_reschedule"
            over.executor, over.state = "OverAndDone", "success"
        configure(configured)
        given = {"team": None, "service": service, "timeout": 15.0, "launch": False, "queue": None}
        given |= {"executor_config": None, "strict": False, "output": "json"}
        with suppress(SystemExit):
            cli.check(Namespace(**given))
        findings = json.loads(opened.shown.readouterr().out)
        return [one for one in findings if one["name"].startswith("Executors in containers")]

    return run


def _define(local: Any, variables: dict[str, str]) -> None:
    local.register("family", "airflow", environment=variables)
    environment = [{"name": name, "value": value} for name, value in variables.items()]
    needs = [{"type": "VCPU", "value": "1"}, {"type": "MEMORY", "value": "512"}]
    container = {"image": "local", "command": [], "resourceRequirements": needs, "environment": environment}
    local.register_job_definition(
        {"jobDefinitionName": "airflow", "type": "container", "containerProperties": container}
    )


@pytest.mark.parametrize("service", ["ecs", "batch"])
class TestCheck:
    def ours(self, service: str) -> str:
        return {"ecs": ECS, "batch": BATCH}[service]

    def test_what_the_executor_tells_containers_is_in_order(self, check: Callable[..., Any], service: str) -> None:
        assert check(service, f"mine:{self.ours(service)}", defined="LocalExecutor", named="mine") == []

    def test_one_executor_that_no_task_names_is_in_order(self, check: Callable[..., Any], service: str) -> None:
        assert check(service, self.ours(service)) == []

    def test_a_task_that_names_the_only_executor_needs_it_in_the_image(
        self, check: Callable[..., Any], service: str
    ) -> None:
        ours = self.ours(service)
        (finding,) = check(service, ours, named=ours.rpartition(".")[2])
        assert finding["verdict"] == "warning"
        assert repr(ours.rpartition(".")[2]) in finding["text"]
        assert SETTING in finding["hint"]
        assert check(service, ours, defined=ours, named=ours.rpartition(".")[2]) == []

    def test_a_name_in_use_that_containers_do_not_know_is_a_problem(
        self, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, service: str
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS", "False")
        ours = self.ours(service)
        (finding,) = check(service, f"mine:{ours}", defined=ours, named="mine")
        assert (finding["verdict"], "lacks 'mine', which tasks name" in finding["text"]) == ("problem", True)
        assert finding["hint"] == f"set container_executors = True, or set it to 'mine:{ours}'"

    def test_a_name_that_no_task_has_used_yet_is_a_warning(
        self, check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, service: str
    ) -> None:
        monkeypatch.setenv(f"AIRFLOW__{service.upper()}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS", "False")
        (finding,) = check(service, f"LocalExecutor,mine:{self.ours(service)}", defined="LocalExecutor")
        assert (finding["verdict"], "lacks 'mine'" in finding["text"]) == ("warning", True)
        (unset,) = check(service, f"LocalExecutor,mine:{self.ours(service)}")
        assert (unset["verdict"], "only an image" in unset["text"]) == ("warning", True)
