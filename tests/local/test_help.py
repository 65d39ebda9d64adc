"""``--help`` of the local ECS names what people look for, and what it shows can be used."""

from __future__ import annotations

import json
from dataclasses import fields

import pytest

from ecs_async_executor.local import KINDS, Fault, LocalEcs, Rule
from ecs_async_executor.local.__main__ import parser
from ecs_async_executor.local.manual import DEFINITION, FAULTS, SCRIPT


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("COLUMNS", "100")
    return parser().format_help()


def test_the_help_names_the_control_path_the_kinds_of_faults_and_the_members_of_rules(shown: str) -> None:
    words = set(shown.replace(",", " ").replace(".", " ").split())
    assert {"/_local/faults", "--inherit-environment", "/_local/ledger"} <= words
    assert set(KINDS) <= words
    assert {field.name for one in (Rule, Fault) for field in fields(one)} <= words


def test_the_help_fits_into_100_columns(shown: str) -> None:
    assert [line for line in shown.splitlines() if len(line) > 100] == []


def test_the_examples_stand_in_the_help_as_json(shown: str) -> None:
    packed = "".join(shown.split())
    for example in (DEFINITION, SCRIPT, FAULTS):
        assert "".join(json.dumps(example).split()) in packed


def test_the_examples_can_be_used() -> None:
    for rule in SCRIPT:
        Rule.from_json(rule)
    for fault in FAULTS:
        Fault.from_json(fault)
    with LocalEcs(runner="subprocess") as ecs:
        ecs.register_task_definition(DEFINITION)
        ecs.client().run_task(
            taskDefinition=DEFINITION["family"],
            launchType="FARGATE",
            networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        )
        ecs.wait_stopped()
        assert [entry.exit_code for entry in ecs.ledger.entries()] == [0]
