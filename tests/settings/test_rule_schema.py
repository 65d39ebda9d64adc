from __future__ import annotations

import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from botocore.session import get_session

from ecs_async_executor.services import batch as batch_service
from ecs_async_executor.services import ecs as ecs_service
from ecs_async_executor.settings.rule_files import read_rule_file
from ecs_async_executor.settings.rule_keys import SIZE_KEYS, QueueKeys, RetryKeys, attribute
from ecs_async_executor.settings.rule_schema import PARAMETERS, SCHEMA_FILES, rules_schema, schema_text
from ecs_async_executor.settings.values import MORE_THAN_A_CONTAINER

WRONG: list[dict[str, Any]] = yaml.safe_load((Path(__file__).parent / "wrong_rules.yaml").read_text())
OPERATIONS = {"ECS": ("ecs", "RunTask"), "Batch": ("batch", "SubmitJob")}


def is_accepted(service: str, rules: object) -> bool:
    return bool(jsonschema.Draft7Validator(rules_schema(service)).is_valid(rules))


@pytest.mark.parametrize("service", SCHEMA_FILES)
def test_the_package_has_the_schema_as_it_is(service: str) -> None:
    shipped = files("ecs_async_executor.settings") / SCHEMA_FILES[service]
    assert shipped.read_text() == schema_text(service), "write it anew: nox -s readme"
    jsonschema.Draft7Validator.check_schema(json.loads(shipped.read_text()))


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong["rules"].strip())
def test_an_editor_marks_wrong_rules_as_far_as_it_can_know(tmp_path: Path, wrong: dict[str, Any]) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text(wrong["rules"])
    service = "Batch" if wrong.get("on_batch") else "ECS"
    assert is_accepted(service, read_rule_file(str(path)).values) == wrong.get("editor_accepts", False)


RIGHT = {
    "queues": {
        "small": {"cpu": 0.5, "memory": "1 GB", "environment": {"A": "b", "N": 1, "F": True}},
        "bare": {"cpu": 512, "memory": 1024, "gpu": 0, "round_up": False},
        "units": {"cpu": "2 vCPU", "memory": ".5TiB"},
        "eu": {
            "region_name": "us-gov-west-1",
            "conn_id": "aws_eu",
            "role_arn": "arn:aws-cn:iam::012345678901:role/a/b",
        },
        "none": {"placements": [], "retries": []},
        "tagged": {"tags": {"team": "data"}, "propagateTags": "NONE"},
        "own mark": {"startedBy": None},
        "snake": {"task_definition": "t", "enable_ecs_managed_tags": True},
    },
    "placements": ["spot", {"mine": {"capacityProviderStrategy": [{"capacityProvider": "mine"}]}}],
    "placement_patience": 0.5,
    "retries": [
        {"when": "oom", "memory": "x2", "up to": "30 GB", "cpu": "1.5x"},
        {"when": "exit 255", "placements": ["spot", "mine"]},
        {"when": "any", "capacity": "ec2"},
    ],
}


@pytest.mark.usefixtures("with_connections")
def test_an_editor_accepts_what_the_reader_accepts(tmp_path: Path) -> None:
    from tests.settings.test_rule_problems import rules_of

    path = tmp_path / "rules.json"
    path.write_text(json.dumps(RIGHT))
    assert rules_of(path).queues.keys() == RIGHT["queues"].keys()  # type: ignore[attr-defined]
    assert is_accepted("ECS", RIGHT)


TYPES = {"structure": "object", "map": "object", "list": "array"}


@pytest.mark.parametrize("service", OPERATIONS)
def test_an_editor_knows_every_parameter_that_the_sdk_knows(service: str) -> None:
    name, operation = OPERATIONS[service]
    shape: Any = get_session().get_service_model(name).operation_model(operation).input_shape
    unsettable = {"clientToken", *MORE_THAN_A_CONTAINER}
    assert shape.members.keys() - unsettable <= PARAMETERS[service].keys()  # an older SDK lacks some
    for name, member in shape.members.items():
        known = PARAMETERS[service].get(name, {})
        if "type" in known:
            assert TYPES.get(member.type_name, member.type_name) in known["type"]
        elif "enum" in known:
            assert set(known["enum"]) <= set(member.enum)


def test_an_editor_knows_which_sizes_a_service_has_a_place_for() -> None:
    from ecs_async_executor.services.batch.sizes import REFUSED as BATCH
    from ecs_async_executor.services.ecs.sizes import REFUSED as ECS

    for service, refused in (("ECS", ECS), ("Batch", BATCH)):
        absent = {name for name in SIZE_KEYS if attribute(QueueKeys, name, "only") not in {"", service}}
        assert absent == refused.keys()


@pytest.mark.parametrize("model", [QueueKeys, RetryKeys])
def test_the_example_of_a_key_is_right(model: type[QueueKeys | RetryKeys]) -> None:
    for name in model.model_fields:
        only = attribute(model, name, "only")
        if only == "neither":
            continue
        rule = {name: attribute(model, name, "example")}
        if model is RetryKeys:
            rule = {"when": "oom", "memory": "x2", **rule} if name != "when" else {**rule, "memory": "x2"}
        rules = {"retries": [rule]} if model is RetryKeys else {"queues": {"q": rule}}
        service = only or "ECS"
        assert is_accepted(service, rules), rule
        wrong = {"ECS": ecs_service, "Batch": batch_service}[service].wrong_parameters
        if name in SIZE_KEYS and model is QueueKeys:
            assert list(wrong(rule)) == []


def test_patterns_are_read_alike_by_python_and_by_editors() -> None:
    patterns = re.findall(r'"pattern": "(.*?)",?\n', schema_text("ECS") + schema_text("Batch"))
    assert patterns
    for pattern in patterns:
        assert not re.search(r"\\\\[dwsAZ]|\(\?", pattern), pattern
