from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ecs_async_executor.settings.values import camelize
from tests.settings.conf import ecs


@pytest.mark.parametrize(
    ("given_", "expected"),
    [
        ({"task_definition": 1}, {"taskDefinition": 1}),
        ({"taskDefinition": 1}, {"taskDefinition": 1}),
        ({"TaskDefinition": 1}, {"taskDefinition": 1}),
        ({"overrides": {"task_role_arn": 1}}, {"overrides": {"taskRoleArn": 1}}),
        ({"enable_ecs_managed_tags": 1}, {"enableECSManagedTags": 1}),
        ({"enableECSManagedTags": 1}, {"enableECSManagedTags": 1}),
        ({"tags": {"cost_center": 1}}, {"tags": {"cost_center": 1}}),
        ({"a": [{"b_c": 1}]}, {"a": [{"b_c": 1}]}),
        ({"a": {1: 2}}, {"a": {1: 2}}),
    ],
)
def test_keys_are_spelled_as_the_api_has_them(given_: dict[str, Any], expected: dict[str, Any]) -> None:
    assert camelize(given_) == expected


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # time is no part of it
@given(st.dictionaries(st.from_regex(r"[a-z]+([A-Z][a-z]+)*", fullmatch=True), st.integers()))
def test_what_is_spelled_right_stays(mapping: dict[str, int]) -> None:
    assert camelize(mapping) == mapping


A_DICTIONARY = {"launchType": "EC2", "overrides": {"cpu": "256"}}


def test_run_task_kwargs_can_be_the_path_of_a_dictionary(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    module = types.ModuleType("company_settings")
    module.ECS = A_DICTIONARY  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "company_settings", module)

    found = ecs(run_task_kwargs="company_settings.ECS")
    assert found.launch_type == "EC2"
    assert found.run_task_kwargs == {"overrides": {"cpu": "256"}}
    found.run_task_kwargs["overrides"]["cpu"] = "1"
    assert A_DICTIONARY == {"launchType": "EC2", "overrides": {"cpu": "256"}}
