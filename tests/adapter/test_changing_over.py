"""``[core] executor`` still names the provider's executors: what the commands say to set instead."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")
pytest.importorskip("airflow.providers.amazon.aws.executors.ecs", reason="needs the amazon provider")

from airflow.providers.amazon.aws.executors.ecs import AwsEcsExecutor

from ecs_async_executor import cli
from ecs_async_executor.adapter.commands.changing_over import change, change_of_all
from tests.adapter.steering import Place, forget_executors

ECS = "ecs_async_executor.AsyncEcsExecutor"
BATCH = "ecs_async_executor.AsyncBatchExecutor"
MODULE = "airflow.providers.amazon.aws.executors"
OLD_ECS = f"{MODULE}.ecs.ecs_executor.AwsEcsExecutor"
OLD_BATCH = f"{MODULE}.batch.batch_executor.AwsBatchExecutor"
SETTING = "AIRFLOW__CORE__EXECUTOR"


class NamingExecutor(AwsEcsExecutor):
    """A subclass of the provider's, as users have them."""


@pytest.mark.parametrize(
    ("setting", "team", "expected"),
    [
        (OLD_ECS, None, f"AwsEcsExecutor:{ECS}"),
        (f"{MODULE}.ecs.AwsEcsExecutor", None, f"AwsEcsExecutor:{ECS}"),
        (f"ecs:{OLD_ECS}", None, f"ecs:{ECS}"),
        (f"LocalExecutor, {OLD_ECS}", None, f"LocalExecutor,AwsEcsExecutor:{ECS}"),
        (f"{OLD_ECS},{OLD_BATCH}", None, f"AwsEcsExecutor:{ECS},{OLD_BATCH}"),
        (f"LocalExecutor;blue=ecs:{OLD_ECS}", "blue", f"LocalExecutor;blue=ecs:{ECS}"),
        (f"{OLD_ECS};blue={OLD_ECS}", None, f"AwsEcsExecutor:{ECS};blue={OLD_ECS}"),
        (f"LocalExecutor;blue={OLD_ECS}", None, None),
        (OLD_BATCH, None, None),
        ("my_company.AwsEcsExecutor", None, None),
    ],
)
def test_only_the_providers_entry_changes_and_keeps_its_name(
    setting: str, team: str | None, expected: str | None
) -> None:
    changed = change(setting, {ECS}, team)
    assert (None if changed is None else changed.setting) == expected


def test_all_of_the_providers_executors_can_be_replaced_at_once() -> None:
    setting = f"{OLD_ECS},b:{OLD_BATCH};blue={OLD_BATCH}"
    assert change_of_all(setting) == f"AwsEcsExecutor:{ECS},b:{BATCH};blue=AwsBatchExecutor:{BATCH}"
    assert change_of_all(ECS) is None


@pytest.fixture
def configure(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    def read(setting: str) -> None:
        monkeypatch.setenv(SETTING, setting)
        forget_executors()

    yield read
    forget_executors()


@pytest.fixture
def check(
    place: Callable[..., Place], configure: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., dict[str, Any]]:
    """Return the findings by name, for a setting and what a waiting task instance names as its executor."""
    for name in ("ECS", "BATCH"):
        monkeypatch.delenv(f"AIRFLOW__{name}_ASYNC_EXECUTOR__CONTAINER_EXECUTORS", raising=False)

    def run(setting: str, named: str | None = None, service: str | None = None) -> dict[str, Any]:
        opened = place("batch" if service == "batch" or "Batch" in setting else "ecs")
        with opened.database.session() as session:
            opened.database.tis(session)[0].executor = named
        configure(setting)
        given = {"team": None, "service": service, "timeout": 15.0, "launch": False, "queue": None}
        with suppress(SystemExit):
            cli.check(Namespace(**given, executor_config=None, strict=False, output="json"))
        return {one["name"]: one for one in json.loads(opened.shown.readouterr().out)}

    return run


def test_the_providers_executor_is_replaced_under_an_alias(check: Callable[..., Any]) -> None:
    finding = check(OLD_ECS, named="AwsEcsExecutor")["Executor"]
    assert finding["verdict"] == "warning"
    assert (
        finding["text"]
        == f"[core] executor = {OLD_ECS!r} still names the provider's, and {ECS} is what is checked"
    )
    assert finding["hint"] == (
        f"set it to 'AwsEcsExecutor:{ECS}' for schedulers, API servers and DAG processors; containers get it from "
        "the executor; task instances name 'AwsEcsExecutor', which the part before the colon keeps working"
    )


def test_where_no_task_instance_names_it_the_class_alone_may_do(check: Callable[..., Any]) -> None:
    hint = check(OLD_ECS)["Executor"]["hint"]
    assert hint.startswith(f"set it to 'AwsEcsExecutor:{ECS}' for ")
    assert hint.endswith(f"executor='AwsEcsExecutor' of tasks working: if no DAG says it, {ECS} is enough")


def test_a_name_that_no_alias_can_keep_is_to_be_changed_in_tasks(check: Callable[..., Any]) -> None:
    hint = check(f"LocalExecutor,ecs:{OLD_ECS}", named="AwsEcsExecutor")["Executor"]["hint"]
    assert hint.startswith(f"set it to 'LocalExecutor,ecs:{ECS}' for ")
    assert hint.endswith("; in tasks, change executor='AwsEcsExecutor' to executor='ecs'")


def test_the_executor_for_batch_is_what_is_checked_where_the_providers_is_configured(
    check: Callable[..., Any],
) -> None:
    finding = check(OLD_BATCH)["Executor"]
    assert finding["text"].endswith(f"{BATCH} is what is checked")
    assert finding["hint"].startswith(f"set it to 'AwsBatchExecutor:{BATCH}' for ")


def test_containers_are_judged_by_what_the_new_executor_tells_them(check: Callable[..., Any]) -> None:
    findings = check(OLD_ECS, named="AwsEcsExecutor")
    assert not [name for name in findings if name.startswith("Executors in containers")]


def test_containers_that_are_told_nothing_need_the_new_setting(
    check: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW__ECS_ASYNC_EXECUTOR__CONTAINER_EXECUTORS", "False")
    findings = check(OLD_ECS, named="AwsEcsExecutor")
    assert (
        "API servers and DAG processors, and in containers (container_executors is off)"
        in findings["Executor"]["hint"]
    )
    (finding,) = [one for name, one in findings.items() if name.startswith("Executors in containers")]
    assert finding["hint"] == f"set container_executors = True, or set it to 'AwsEcsExecutor:{ECS}'"


def test_a_subclass_is_to_have_another_base(check: Callable[..., Any]) -> None:
    path = f"{__name__}.NamingExecutor"
    finding = check(path)["Executor"]
    assert finding["text"].endswith(f": {path} is a subclass of it")
    assert finding["hint"] == f"derive {path} from {ECS} instead"


@pytest.mark.parametrize("command", ["status", "list_containers"])
def test_the_other_commands_name_the_new_setting(configure: Callable[[str], None], command: str) -> None:
    configure(f"LocalExecutor,{OLD_ECS}")
    given = Namespace(service=None, team=None, output="table", watch=None, verbose=False)
    with pytest.raises(SystemExit, match=f"set it to 'LocalExecutor,AwsEcsExecutor:{ECS}'"):
        getattr(cli, command)(given)
