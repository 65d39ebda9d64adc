from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.services import ecs
from tests.services.ecs.samples import container, request, settings, spec
from tests.services.samples import COMMAND, MARK, Uncopyable, json_objects, patient, scribble


@patient
@given(json_objects)
def test_a_workload_request_changes_nothing_that_it_was_given(executor_config: dict[str, Any]) -> None:
    base = ecs.base_request(settings())
    queue = {"overrides": {"containerOverrides": [{"name": "airflow", "environment": []}]}}
    before = copy.deepcopy((base, queue, executor_config))
    for _ in range(2):
        scribble(ecs.workload_request(base, queue, executor_config, "airflow", COMMAND))
        assert (base, queue, executor_config) == before


def test_a_base_request_shares_nothing_with_the_settings() -> None:
    options = settings(
        capacity_provider_strategy=({"capacityProvider": "a"},),
        run_task_kwargs={"overrides": {"containerOverrides": [{"environment": []}]}},
    )
    before = options.model_copy(deep=True)
    scribble(ecs.base_request(options))
    assert options == before


def test_precedence_is_options_then_kwargs_then_queue_then_task() -> None:
    made = request(
        {"overrides": {"memory": "task"}},
        {"overrides": {"memory": "queue", "cpu": "queue"}, "group": "queue"},
        run_task_kwargs={
            "overrides": {"memory": "kwargs", "cpu": "kwargs", "taskRoleArn": "kwargs"},
            "task_definition": "kwargs",
        },
    )
    assert made["taskDefinition"] == "kwargs"
    assert made["group"] == "queue"
    overrides = {key: value for key, value in made["overrides"].items() if key != "containerOverrides"}
    assert overrides == {"memory": "task", "cpu": "queue", "taskRoleArn": "kwargs"}


def test_the_airflow_container_gets_command_and_mark() -> None:
    made = request({"overrides": {"containerOverrides": [{"name": "side"}, {"name": "airflow", "cpu": 1}]}})
    assert made["overrides"]["containerOverrides"] == [
        {"name": "side"},
        {"name": "airflow", "cpu": 1, "command": COMMAND, "environment": [MARK]},
    ]
    assert ecs.container_for(made, "airflow") is made["overrides"]["containerOverrides"][1]


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ([], "executor_config must be a dictionary of RunTask parameters, not list"),
        ("hunter2", "not str"),
        ({1: 2}, "executor_config must be a dictionary"),
        ({"name": "hunter2"}, 'never override "name" or "command"'),
        ({"command": ["hunter2"]}, 'never override "name" or "command"'),
        ({"clientToken": "hunter2"}, "clientToken"),
        ({"count": 2}, "count must be 1"),
        ({"count": True}, "count must be 1"),
        ({"count": None}, "count must be 1"),
        ({"launchType": "EC2", "capacityProviderStrategy": []}, "mutually exclusive"),
        ({"overrides": "hunter2"}, "overrides must be a dictionary, not str"),
        ({"overrides": None}, "overrides must be a dictionary, not nothing"),
        ({"overrides": {"containerOverrides": {}}}, "containerOverrides must be a list of dictionaries"),
        ({"overrides": {"containerOverrides": ["hunter2"]}}, "containerOverrides must be a list of dictionaries"),
        ({"overrides": {"containerOverrides": [{"cpu": 1}]}}, 'container "name" must be provided'),
        ({"overrides": {"containerOverrides": [{"name": "other"}]}}, "has no container named 'airflow'"),
        ({"overrides": {"containerOverrides": []}}, "has no container named 'airflow'"),
        (
            {"overrides": {"containerOverrides": [{"name": "airflow", "environment": {"P": "hunter2"}}]}},
            "environment of container 'airflow' must be a list of names and values, not dict",
        ),
        ({"group": Uncopyable()}, "executor_config cannot be copied: TypeError"),
    ],
)
def test_a_bad_executor_config_is_rejected_with_a_reason_but_not_its_values(
    executor_config: Any, reason: str
) -> None:
    with pytest.raises(Rejected) as caught:
        request(executor_config)
    assert reason in caught.value.reason
    assert "hunter2" not in caught.value.reason


@pytest.mark.parametrize(
    ("options", "executor_config", "bucket"),
    [
        ({"launch_type": "FARGATE"}, None, "FARGATE"),
        ({"launch_type": "EC2"}, None, "EC2"),
        ({"launch_type": "EXTERNAL"}, None, "EXTERNAL"),
        ({"launch_type": None}, None, "FARGATE"),
        ({"launch_type": "EC2"}, {"launchType": "FARGATE"}, "FARGATE"),
        ({}, {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}, "FARGATE"),
        (
            {},
            {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}, {"capacityProvider": "FARGATE"}]},
            "FARGATE",
        ),
        ({}, {"capacityProviderStrategy": [{"capacityProvider": "mine"}]}, "EC2"),
    ],
)
def test_the_bucket_is_the_rate_that_aws_counts_in(options: Any, executor_config: Any, bucket: str) -> None:
    assert spec(executor_config, **options).bucket == bucket


def test_the_scope_is_the_cluster_as_given() -> None:
    assert spec().scope == "c"
    assert spec({"cluster": "arn:aws:ecs:x:1:cluster/gpu"}).scope == "arn:aws:ecs:x:1:cluster/gpu"
    made = request(launch_type="EC2")
    del made["cluster"]
    assert ecs.launch_spec(made, started_by="mark").scope == "default"


PLACEMENTS = [
    None,
    {"cluster": "other"},
    {"launchType": "EC2"},
    {"capacityProviderStrategy": [{"capacityProvider": "mine"}]},
    {"taskDefinition": "other"},
    {"overrides": {"cpu": "1024"}},
    {"overrides": {"memory": "1024"}},
    {"placementConstraints": [{"type": "distinctInstance"}]},
    container(cpu=1),
    container(memory=1),
    container(memoryReservation=1),
    container(resourceRequirements=[{"type": "GPU", "value": "1"}]),
]


def test_what_competes_for_other_room_has_another_placement() -> None:
    assert len({spec(config).placement for config in PLACEMENTS}) == len(PLACEMENTS)


def test_what_competes_for_the_same_room_has_the_same_placement() -> None:
    same = [
        {},
        {"tags": {"a": "b"}},
        container(environment=[{"name": "A", "value": "b"}]),
        {"propagateTags": "TASK_DEFINITION"},
    ]
    assert {spec(config).placement for config in same} == {"cluster=c capacity=FARGATE task=f"}


BASE: dict[str, Any] = {"cluster": "c", "taskDefinition": "airflow", "launchType": "FARGATE", "overrides": {}}


@pytest.mark.parametrize(
    "own",
    [
        {"overrides": {"taskRoleArn": "arn:aws:iam::1:role/secret"}},
        {"overrides": {"executionRoleArn": "arn:aws:iam::1:role/secret"}},
        {"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-of-a-full-zone"]}}},
    ],
)
def test_what_ecs_can_refuse_for_one_task_alone_has_a_gate_of_its_own(own: dict[str, Any]) -> None:
    of_all = ecs.launch_spec(BASE, started_by="one").placement
    of_one = ecs.launch_spec({**BASE, **own}, started_by="other").placement
    assert of_all != of_one


def test_our_mark_is_put_in() -> None:
    made = spec()
    assert made.started_by == made.request["startedBy"] == "mark"


def test_the_users_own_mark_stays_and_is_not_searched_for() -> None:
    made = spec({"startedBy": "theirs"})
    assert made.request["startedBy"] == "theirs"
    assert made.started_by is None


def test_a_spec_is_not_changed_by_what_happens_to_the_request() -> None:
    made = request(launch_type="FARGATE")
    sealed = ecs.launch_spec(made, started_by="mark", expires_at=7.0)
    before = copy.deepcopy(sealed)
    scribble(made)
    assert sealed == before
    assert sealed.expires_at == 7.0


def test_a_spec_does_not_show_its_request() -> None:
    assert "python" not in repr(spec())


def padded(characters: int) -> dict[str, Any]:
    made = request(container(environment=[{"name": "A", "value": ""}]), launch_type="FARGATE")
    size = len(json.dumps(made["overrides"], separators=(",", ":")))
    ecs.container_for(made, "airflow")["environment"][0]["value"] = "ü" * (characters - size)
    return made


def test_overrides_of_8192_characters_are_accepted() -> None:
    assert ecs.launch_spec(padded(8192), started_by="m").started_by == "m"


def test_overrides_of_more_are_rejected() -> None:
    with pytest.raises(
        Rejected, match="overrides has 8193 characters, the command included, and ECS takes at most 8192"
    ):
        ecs.launch_spec(padded(8193), started_by="m")


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ({"startedBy": "a b"}, "startedBy must have 1 to 128 letters"),
        ({"startedBy": "a" * 129}, "startedBy must have"),
        ({"startedBy": True}, "startedBy must have"),
        ({"taskDefinition": ""}, "no task definition"),
        ({"launchType": "MANAGED_INSTANCES"}, "set capacity_provider_strategy"),
        (container(cpu=object()), "overrides cannot be sent as JSON: TypeError"),
    ],
)
def test_what_ecs_would_refuse_is_rejected(executor_config: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        spec(executor_config)


@pytest.mark.parametrize("change", [{"count": 3}, {"clientToken": "t"}, {"capacityProviderStrategy": [{}]}])
def test_what_a_hook_returns_is_checked_too(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        ecs.launch_spec(request(launch_type="FARGATE") | change, started_by="m")


def test_a_number_is_sent_as_the_text_that_ecs_wants_wherever_it_comes_from() -> None:
    given = {"overrides": {"cpu": 1024, "memory": 2048}}
    for found in (
        spec(given),
        spec(run_task_kwargs=given),
        ecs.launch_spec(request(queue=given, launch_type="FARGATE"), started_by="mark"),
    ):
        assert (found.request["overrides"]["cpu"], found.request["overrides"]["memory"]) == ("1024", "2048")
        assert found.placement == spec({"overrides": {"cpu": "1024", "memory": "2048"}}).placement
