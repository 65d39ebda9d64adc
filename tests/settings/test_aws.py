from __future__ import annotations

import json

import pytest

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.settings import EcsSettings, Source, describe, load, load_for_batch
from tests.settings.conf import (
    BATCH_REQUIRED,
    REQUIRED,
    THEIRS,
    BatchConf,
    Conf,
    any_parameters,
    batch,
    ecs,
    problems_of,
    problems_of_batch,
)


def test_the_providers_defaults_apply_without_the_provider() -> None:
    found = ecs()
    assert (found.conn_id, found.region_name) == (None, None)
    assert found.max_run_task_attempts == 3
    assert found.assign_public_ip is False
    assert found.platform_version == "LATEST"
    assert found.check_health_on_startup is True


def test_the_options_and_defaults_are_those_of_the_installed_provider() -> None:
    info = pytest.importorskip("airflow.providers.amazon.get_provider_info").get_provider_info()
    theirs = info["config"][THEIRS]["options"]
    ours = {option.name: option for option in describe(EcsSettings)}
    assert set(ours) == set(theirs)
    for name, option in theirs.items():
        if name != "conn_id":  # unset means aws_default here too, but only with the provider
            assert ours[name].default == option["default"], name
            assert ours[name].kind == option["type"], name


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("subnets", "subnet-a", ("subnet-a",)),
        ("subnets", " subnet-a , subnet-b,", ("subnet-a", "subnet-b")),
        ("subnets", "", ()),
        ("launch_type", "fargate", "FARGATE"),
        ("launch_type", "", None),
        ("assign_public_ip", "False", False),
        ("assign_public_ip", "no", False),
        ("conn_id", "", ""),
        ("max_run_task_attempts", "5", 5),
        (
            "capacity_provider_strategy",
            '[{"capacityProvider": "a", "weight": 1}]',
            ({"capacityProvider": "a", "weight": 1},),
        ),
        ("capacity_provider_strategy", "[{'capacity_provider': 'a'}]", ({"capacityProvider": "a"},)),
        ("run_task_kwargs", "{}", {}),
        ("run_task_kwargs", "", {}),
        ("run_task_kwargs", '{"group": "g"}', {"group": "g"}),
    ],
)
def test_a_provider_option_is_read_from_text(key: str, text: str, value: object) -> None:
    assert getattr(ecs(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("parameter", "value", "option", "expected"),
    [
        ("cluster", "k", "cluster", "k"),
        ("container_name", "k", "container_name", "k"),
        ("taskDefinition", "k", "task_definition", "k"),
        ("task_definition", "k", "task_definition", "k"),
        ("platformVersion", "1.4.0", "platform_version", "1.4.0"),
        ("subnets", "k,l", "subnets", ("k", "l")),
        ("securityGroups", ["k"], "security_groups", ("k",)),
        ("launchType", "EC2", "launch_type", "EC2"),
        ("assign_public_ip", "ENABLED", "assign_public_ip", True),
    ],
)
def test_run_task_kwargs_win_over_options(parameter: str, value: object, option: str, expected: object) -> None:
    found = ecs(
        task_definition="o",
        subnets="o",
        launch_type="FARGATE",
        platform_version="1.3.0",
        run_task_kwargs=json.dumps({parameter: value}),
    )
    assert getattr(found, option) == expected
    assert found.run_task_kwargs == {}


def test_capacity_providers_in_run_task_kwargs_replace_the_launch_type() -> None:
    kwargs = json.dumps({"capacityProviderStrategy": [{"capacityProvider": "a"}]})
    found = ecs(launch_type="FARGATE", run_task_kwargs=kwargs)
    assert found.launch_type is None
    assert found.capacity_provider_strategy == ({"capacityProvider": "a"},)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"launch_type": "LAMBDA"}, "launch_type = 'LAMBDA' is not valid: it must be one of FARGATE, EC2, "),
        (
            {"launch_type": "managed_instances"},
            "set capacity_provider_strategy to the capacity provider of the managed instances instead",
        ),
        (
            {"run_task_kwargs": '{"launchType": "MANAGED_INSTANCES"}'},
            "RunTask refuses the launch type MANAGED_INSTANCES",
        ),
        (
            {"capacity_provider_strategy": "a"},
            "capacity_provider_strategy = 'a' is not valid: it must",
        ),
        ({"capacity_provider_strategy": "[1]"}, "must be a JSON list like"),
        ({"capacity_provider_strategy": '[{"weight": 1}]'}, "each item needs a capacityProvider"),
        (
            {"capacity_provider_strategy": '[{"capacityProvider": "a", "weight": "1"}]'},
            "weight and base must be",
        ),
        ({"capacity_provider_strategy": '[{"capacityProvider": "a", "wait": 1}]'}, "nothing else"),
        ({"assign_public_ip": "maybe"}, "assign_public_ip = 'maybe' is not valid: it must be true or false"),
        ({"max_run_task_attempts": "0"}, "must be a whole number from 1 to 100"),
        (
            {"assign_public_ip": "true"},
            "assign_public_ip is set, but subnets is not: set at least one subnet, or unset assign_public_ip",
        ),
        ({"security_groups": "sg"}, "security_groups is set, but subnets is not"),
        (
            {"launch_type": "EC2", "capacity_provider_strategy": '[{"capacityProvider": "a"}]'},
            "launch_type = 'EC2' and capacity_provider_strategy exclude each other: unset one of them",
        ),
        (
            {"run_task_kwargs": '{"launch_type": "EC2", "capacityProviderStrategy": [{"capacityProvider": "a"}]}'},
            "exclude each other",
        ),
        ({"run_task_kwargs": '{"launchType": "X"}'}, "launch_type = 'X' (from run_task_kwargs) is not valid: "),
        ({"run_task_kwargs": "{"}, "it must be a JSON object, or the dotted path of a dictionary, but it is"),
        ({"run_task_kwargs": "[]"}, "must be a JSON object, or the dotted path of a dictionary"),
        ({"run_task_kwargs": "no.such.module"}, "importing it raised ModuleNotFoundError"),
        ({"run_task_kwargs": "json.dumps"}, "must be a JSON object, or the dotted path of a dictionary"),
        ({"run_task_kwargs": '{"clientToken": "t"}'}, "clientToken cannot be set"),
        ({"run_task_kwargs": '{"overrides": []}'}, "overrides must be an object"),
        ({"run_task_kwargs": '{"overrides": {"containerOverrides": {}}}'}, "containerOverrides must be a list"),
        (
            {"run_task_kwargs": '{"overrides": {"containerOverrides": [1]}}'},
            "containerOverrides must be a list",
        ),
    ],
)
def test_a_bad_provider_option_is_named(options: dict[str, str], said: str) -> None:
    (problem,) = problems_of(theirs={**REQUIRED, **options})
    assert problem.startswith(f"[{THEIRS}] ")
    assert said in problem


def test_own_subnets_in_run_task_kwargs_are_enough() -> None:
    kwargs = json.dumps({"networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"]}}})
    assert ecs(security_groups="sg", run_task_kwargs=kwargs).security_groups == ("sg",)


def test_what_submit_job_kwargs_says_wins_whatever_its_spelling() -> None:
    kwargs = {"job_definition": "kwargs", "jobQueue": "k", "x": 1}
    found = batch(job_definition="option", submit_job_kwargs=json.dumps(kwargs))
    assert (found.job_definition, found.job_queue, found.submit_job_kwargs) == ("kwargs", "k", {"x": 1})


BOTH = '{"container_overrides": {}, "ecs_properties_override": {}}'


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (
            {"queues": f'{{"a": {BOTH}}}'},
            {},
            "queues.a.container_overrides excludes ecsPropertiesOverride: remove one of them",
        ),
        (
            {},
            {"submit_job_kwargs": BOTH},
            "containerOverrides and ecsPropertiesOverride exclude each other; remove one of them",
        ),
    ],
)
def test_one_container_and_several_cannot_be_meant_at_once(
    ours: dict[str, str], theirs: dict[str, str], said: str
) -> None:
    (problem,) = problems_of_batch(ours, {**BATCH_REQUIRED, **theirs})
    assert said in problem


@pytest.mark.parametrize(
    ("options", "doubted"),
    [
        ({"launch_type": "FARGATE"}, "launch_type"),
        ({"capacity_provider_strategy": '[{"capacityProvider": "FARGATE_SPOT"}]'}, "capacity_provider_strategy"),
        ({"capacity_provider_strategy": '[{"capacityProvider": "mine"}]'}, None),
        ({"launch_type": "FARGATE", "subnets": "s"}, None),
        ({"launch_type": "FARGATE", "run_task_kwargs": '{"subnets": ["s"]}'}, None),
        ({"launch_type": "EC2"}, None),
    ],
)
def test_fargate_without_subnets_is_doubted(options: dict[str, str], doubted: str | None) -> None:
    found = load(Conf(theirs={**REQUIRED, **options}), any_parameters).doubts
    assert [doubt.split()[1] for doubt in found] == ([doubted] if doubted else [])


def test_an_option_that_batch_does_not_have_is_named_in_both_sections() -> None:
    names = {
        "batch_async_executor": {"poll_intervall": "a"},
        "aws_batch_executor": {"job_que": "b", "conn_id": "c"},
    }
    with pytest.raises(ConfigurationError) as caught:
        load_for_batch(BatchConf(), any_parameters, Source(options_set=names.__getitem__))
    assert caught.value.problems == (
        "[batch_async_executor] poll_intervall (a) is not an option: did you mean poll_interval?",
    )
    del names["batch_async_executor"]["poll_intervall"]
    found = load_for_batch(BatchConf(), any_parameters, Source(options_set=names.__getitem__))
    assert found.doubts == ("[aws_batch_executor] job_que (b) is not an option: did you mean job_queue?",)
