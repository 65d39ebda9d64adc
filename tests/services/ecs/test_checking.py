"""What check finds of task definitions to which workloads come in environment files."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.services import ecs
from ecs_async_executor.services.findings import Finding, Verdict
from tests.services.ecs.samples import container, spec
from tests.services.fakes import FakeClient, FakeFactory

ROLE = "arn:aws:iam::123456789012:role/execution"
MINE = {"type": "s3", "value": "arn:aws:s3:::mine/a.env"}
NAME = "Environment files, task definition 'f'"


def look(definition: dict[str, Any], *specs: LaunchSpec, **of_container: Any) -> Sequence[Finding]:
    described = {"containerDefinitions": [{"name": "airflow", **of_container}], **definition}
    factory: Any = FakeFactory(FakeClient(describe_task_definition={"taskDefinition": described}))
    reader: Any = None

    async def run() -> list[Finding]:
        found = ecs.look_at_definitions(factory, reader, "airflow", specs, lambda *_: None)
        return [one async for one in found if one.name == NAME]

    return asyncio.run(run())


def by_file(executor_config: Any = None) -> LaunchSpec:
    return replace(spec(executor_config), handed_over="A=b\n")


def test_without_an_execution_role_no_container_would_start() -> None:
    (found,) = look({}, by_file())
    assert found.verdict is Verdict.PROBLEM
    assert "no execution role" in found.text
    assert look({"executionRoleArn": ROLE}, by_file()) == []
    assert look({}, by_file({"overrides": {"executionRoleArn": ROLE}})) == []


@pytest.mark.parametrize(("config", "lost"), [(None, True), (container(environmentFiles=[MINE]), False)])
def test_files_of_the_definition_that_a_launch_replaces_are_named(config: Any, lost: bool) -> None:
    found = look({"executionRoleArn": ROLE}, by_file(config), environmentFiles=[MINE])
    assert [one.verdict for one in found] == [Verdict.WARNING] * lost
    assert all("arn:aws:s3:::mine/a.env" in one.text for one in found)


def test_with_workloads_in_commands_nothing_is_said() -> None:
    assert look({}, spec(), environmentFiles=[MINE]) == []
