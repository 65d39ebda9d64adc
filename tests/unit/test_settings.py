from __future__ import annotations

import importlib.metadata
import json
import re
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tried
from hypothesis import strategies as st
from pydantic import ValidationError

from ecs_async_executor import settings
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.services import batch as batch_service
from ecs_async_executor.services import ecs as ecs_service
from ecs_async_executor.settings import (
    BatchSettings,
    BatchTuning,
    EcsSettings,
    SettingsForBatch,
    Tuning,
    batch_differences,
    camelize,
    load,
    load_batch,
    load_ecs,
    load_for_batch,
    load_tuning,
    settings_table,
)

OURS = "ecs_async_executor"
THEIRS = "aws_ecs_executor"
REQUIRED = {"cluster": "c", "container_name": "airflow"}

A_DICTIONARY = {"launchType": "EC2", "overrides": {"cpu": "256"}}


class Conf:
    def __init__(self, ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> None:
        self.values = {OURS: ours or {}, THEIRS: theirs or {}}

    def get(self, section: str, key: str, *, fallback: Any = None) -> Any:
        return self.values[section].get(key, fallback)


def tuning(**options: str) -> Tuning:
    return load_tuning(Conf(ours=options))


def ecs(**options: str) -> EcsSettings:
    return load_ecs(Conf(theirs={**REQUIRED, **options}))


def problems_of(ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        load(Conf(ours, REQUIRED if theirs is None else theirs))
    return caught.value.problems


# --- our own options


def test_an_empty_configuration_gives_the_defaults() -> None:
    assert tuning() == Tuning()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_concurrent_launches", " 128 ", 128),
        ("launch_rate", "2.5", 2.5),
        ("launch_rate", "", None),
        ("launch_rate", "none", None),
        ("capacity_timeout", "900", 900.0),
        ("capacity_timeout", "off", None),
        ("capacity_timeout", "Off", None),
        ("capacity_timeout", "", None),
        ("poll_interval", "", 1.0),
        ("shutdown_timeout", "29.5", 29.5),
        *[
            ("adopt_task_instances", text, True)
            for text in ("true", "True", "TRUE", "1", "yes", "YES", "on", " On ")
        ],
        *[("adopt_task_instances", text, False) for text in ("false", "False", "FALSE", "0", "no", "No", "off")],
        ("queues", '{"gpu": {"cluster": "g", "overrides": {}}}', {"gpu": {"cluster": "g", "overrides": {}}}),
        ("queues", "", {}),
    ],
)
def test_an_option_is_read_from_text(key: str, text: str, value: object) -> None:
    assert getattr(tuning(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("max_concurrent_launches", "0", "a whole number from 1 to 1000"),
        ("max_concurrent_launches", "many", "a whole number from 1 to 1000"),
        ("max_concurrent_launches", "1.5", "a whole number from 1 to 1000"),
        ("launch_rate", "-1", "requests per second, more than 0, at most 1000"),
        ("launch_rate", "0", "more than 0"),
        ("launch_burst", "1000", "from 1 to 100"),
        ("describe_rate", "inf", "requests per second"),
        ("poll_interval", "nan", "seconds from 0.01 to 300"),
        ("missing_grace", "-1", "seconds from 0 to 3600"),
        ("capacity_timeout", "0", "seconds from 1 to 86400, or `off`"),
        ("shutdown_timeout", "30", "seconds from 0.1 to 29.9"),
        ("adopt_task_instances", "perhaps", "true or false"),
        ("read_timeout", "soon", "seconds"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_what_is_allowed(key: str, text: str, allowed: str) -> None:
    (problem,) = problems_of({key: text})
    assert problem.startswith(f"[{OURS}] {key} = {text!r}: must be ")
    assert allowed in problem


def test_a_shutdown_has_to_outlast_a_request() -> None:
    assert problems_of({"connect_timeout": "9", "read_timeout": "9.5"}) == (
        (
            "[ecs_async_executor] shutdown_timeout = 20: must be less than 30 and at least "
            "connect_timeout + read_timeout + 2 = 20.5"
        ),
    )
    assert tuning(connect_timeout="9", read_timeout="9").shutdown_timeout == 20


def test_the_rate_cannot_begin_above_its_maximum() -> None:
    assert problems_of({"launch_rate": "20", "launch_rate_max": "10"}) == (
        "[ecs_async_executor] launch_rate = 20: must be at most launch_rate_max = 10",
    )


def test_a_record_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValidationError, match="shutdown_timeout = 20: must be less than 30"):
        Tuning(connect_timeout=10, read_timeout=20)
    with pytest.raises(ValidationError, match="mutually exclusive"):
        EcsSettings(
            cluster="c",
            container_name="a",
            launch_type="EC2",
            capacity_provider_strategy=({"capacityProvider": "x"},),
        )


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ('{"a": 1}', "at a: "),
        ("[1]", "a JSON object of objects"),
        ('{"a": {', "it is not JSON: line 1, column 8"),
        ('{"a": {"count": 2}}', "count cannot be set for queue a: one workload is one container"),
        ('{"a": {"clientToken": "t"}}', "clientToken cannot be set for queue a"),
    ],
)
def test_bad_queues_are_named_without_their_values(queues: str, said: str) -> None:
    (problem,) = problems_of({"queues": queues})
    assert problem.startswith("[ecs_async_executor] queues = (not shown): must be a JSON object of objects")
    assert said in problem


def test_queues_are_spelled_as_run_task_kwargs_may_be() -> None:
    queues = {"gpu": {"task_definition": "g", "overrides": {"task_role_arn": "r"}, "tags": {"cost_center": "1"}}}
    assert tuning(queues=json.dumps(queues)).queues == {
        "gpu": {"taskDefinition": "g", "overrides": {"taskRoleArn": "r"}, "tags": {"cost_center": "1"}}
    }


@pytest.mark.parametrize("key", ["client_token", "ClientToken"])
def test_what_a_queue_cannot_set_it_cannot_set_in_another_spelling(key: str) -> None:
    (problem,) = problems_of({"queues": json.dumps({"a": {key: "t"}})})
    assert "clientToken cannot be set for queue a" in problem


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"task_defintion": "g"}, "RunTask has no taskDefintion; did you mean taskDefinition?"),
        (
            {"subnets": ["s"]},
            "RunTask has no subnets; did you mean networkConfiguration.awsvpcConfiguration.subnets?",
        ),
        ({"zone": "a"}, "RunTask has no zone; it takes capacityProviderStrategy, cluster, count, "),
        (
            {"overrides": {"containerOverrides": [{"name": "airflow"}, {"name": "log", "memry": 1}]}},
            "RunTask has no overrides.containerOverrides[1].memry; did you mean memory?",
        ),
    ],
)
def test_a_parameter_that_run_task_does_not_have_is_refused_with_the_way_out(
    overrides: dict[str, Any], said: str
) -> None:
    conf = Conf({"queues": json.dumps({"fine": {"cluster": "c"}, "gpu": overrides})}, {"cluster": "c"})
    with pytest.raises(ConfigurationError) as caught:
        load(conf, ecs_service.wrong_parameters)
    first, second = caught.value.problems
    assert first.startswith("[ecs_async_executor] queues = (not shown): must be a JSON object of objects")
    assert f"(queue gpu: {said}" in first
    assert second.startswith("[aws_ecs_executor] container_name is not set")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"cluster": 5}, "cluster must be a string, not int"),
        ({"cluster": None}, "cluster must be a string, not nothing"),
        ({"overrides": []}, "overrides must be an object, not list"),
        (
            {"overrides": {"containerOverrides": [{"memory": "1"}]}},
            "overrides.containerOverrides[0].memory must be a whole number, not str",
        ),
        (
            {"overrides": {"containerOverrides": [{"memory": True}]}},
            "overrides.containerOverrides[0].memory must be a whole number, not bool",
        ),
        (
            {"overrides": {"containerOverrides": ["log"]}},
            "overrides.containerOverrides[0] must be an object, not str",
        ),
        ({"enableExecuteCommand": "yes"}, "enableExecuteCommand must be true or false, not str"),
        ({"tags": {"team": 5}}, "tags[0].value must be a string, not int"),
        ({"tags": "team"}, "tags must be a list, not str"),
    ],
)
def test_a_parameter_of_another_type_than_run_tasks_is_refused(overrides: dict[str, Any], said: str) -> None:
    conf = Conf({"queues": json.dumps({"fine": {"cluster": "c"}, "gpu": overrides})}, REQUIRED)
    with pytest.raises(ConfigurationError) as caught:
        load(conf, ecs_service.wrong_parameters)
    (problem,) = caught.value.problems
    assert problem.startswith("[ecs_async_executor] queues = (not shown): must be ")
    assert problem.endswith(f"(queue gpu: {said})")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"jobQueue": 5}, "jobQueue must be a string, not int"),
        ({"containerOverrides": None}, "containerOverrides must be an object, not nothing"),
        ({"containerOverrides": []}, "containerOverrides must be an object, not list"),
        ({"retryStrategy": None}, "retryStrategy must be an object, not nothing"),
        ({"retryStrategy": {"attempts": "3"}}, "retryStrategy.attempts must be a whole number, not str"),
        (
            {"ecsPropertiesOverride": {"taskProperties": {}}},
            "ecsPropertiesOverride.taskProperties must be a list, not dict",
        ),
        ({"parameters": {"size": 5}}, "parameters.size must be a string, not int"),
        ({"tags": [{"Key": "team", "Value": 5}]}, "tags.team must be a string, not int"),
        ({"tags": [{"team": "data"}]}, "tags must be an object, not list"),
    ],
)
def test_a_parameter_of_another_type_than_submit_jobs_is_refused(overrides: dict[str, Any], said: str) -> None:
    conf = BatchConf({"queues": json.dumps({"fine": {"jobQueue": "q"}, "gpu": overrides})})
    with pytest.raises(ConfigurationError) as caught:
        load_for_batch(conf, batch_service.wrong_parameters)
    (problem,) = caught.value.problems
    assert problem.startswith("[batch_async_executor] queues = (not shown): must be ")
    assert problem.endswith(f"(queue gpu: {said})")


def test_a_queue_may_give_launches_their_own_mark_back() -> None:
    queues = {"q": {"startedBy": None}}
    found = load(Conf({"queues": json.dumps(queues)}, REQUIRED), ecs_service.wrong_parameters)
    request = ecs_service.workload_request(
        {**ecs_service.base_request(found.ecs), "startedBy": "theirs", "taskDefinition": "t"},
        found.tuning.queues["q"],
        None,
        found.ecs.container_name,
        ["run"],
    )
    assert ecs_service.launch_spec(request, started_by="ours").request["startedBy"] == "ours"


def test_every_parameter_that_run_task_has_can_be_set_for_a_queue() -> None:
    queues = {
        "gpu": {
            "cluster": "gpu",
            "capacity_provider_strategy": [{"capacityProvider": "g", "weight": 1}],
            "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["s"], "assign_public_ip": "ENABLED"}},
            "overrides": {"containerOverrides": [{"name": "airflow", "memory": 1, "environment": []}]},
            "tags": {"cost_center": "1"},
            "enable_ecs_managed_tags": True,
        },
        "listed": {"tags": [{"key": "cost_center", "value": "1"}]},
    }
    found = load(Conf({"queues": json.dumps(queues)}, REQUIRED), ecs_service.wrong_parameters)
    assert found.tuning.queues.keys() == queues.keys()


def test_another_section_has_the_same_options() -> None:
    conf = Conf()
    conf.values["ecs_async_executor_batch"] = {"launch_rate": "7"}
    assert load_tuning(conf, "ecs_async_executor_batch").launch_rate == 7


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Tuning().launch_burst = 3


# --- the provider's options


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
    ours = {option.name: option for option in settings.options(EcsSettings)}
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


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"launch_type": "LAMBDA"}, "launch_type = 'LAMBDA': must be FARGATE, EC2, EXTERNAL, MANAGED_INSTANCES"),
        ({"capacity_provider_strategy": "a"}, "capacity_provider_strategy = 'a': must be a JSON list like"),
        ({"capacity_provider_strategy": "[1]"}, "must be a JSON list like"),
        ({"capacity_provider_strategy": '[{"weight": 1}]'}, "each item needs a capacityProvider"),
        ({"capacity_provider_strategy": '[{"capacityProvider": "a", "weight": "1"}]'}, "takes weight and base"),
        ({"capacity_provider_strategy": '[{"capacityProvider": "a", "wait": 1}]'}, "takes weight and base"),
        ({"assign_public_ip": "maybe"}, "assign_public_ip = 'maybe': must be true or false"),
        ({"max_run_task_attempts": "0"}, "must be a whole number from 1 to 100"),
        (
            {"assign_public_ip": "true"},
            "assign_public_ip is set, but subnets is not: at least one subnet is required",
        ),
        ({"security_groups": "sg"}, "security_groups is set, but subnets is not"),
        (
            {"launch_type": "EC2", "capacity_provider_strategy": '[{"capacityProvider": "a"}]'},
            "launch_type = 'EC2': capacity_provider_strategy is set too, and the two are mutually exclusive",
        ),
        (
            {"run_task_kwargs": '{"launch_type": "EC2", "capacityProviderStrategy": [{"capacityProvider": "a"}]}'},
            "mutually exclusive",
        ),
        ({"run_task_kwargs": '{"launchType": "X"}'}, "launch_type = 'X' (from run_task_kwargs): must be FARGATE"),
        ({"run_task_kwargs": "{"}, "run_task_kwargs = (not shown): must be a JSON object, or the dotted path"),
        ({"run_task_kwargs": "[]"}, "must be a JSON object, or the dotted path of a dictionary"),
        ({"run_task_kwargs": "no.such.module"}, "importing it raised ModuleNotFoundError"),
        ({"run_task_kwargs": "json.dumps"}, "must be a JSON object, or the dotted path of a dictionary"),
        ({"run_task_kwargs": '{"clientToken": "t"}'}, "clientToken cannot be set"),
        ({"run_task_kwargs": '{"overrides": []}'}, "overrides must be an object"),
        ({"run_task_kwargs": '{"overrides": {"containerOverrides": {}}}'}, "containerOverrides a list of objects"),
        (
            {"run_task_kwargs": '{"overrides": {"containerOverrides": [1]}}'},
            "containerOverrides a list of objects",
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


def test_every_problem_of_both_sections_is_reported_at_once() -> None:
    problems = problems_of(
        {
            "launch_burst": "x",
            "poll_interval": "-1",
            "read_timeout": "28",
            "launch_rate": "50",
            "launch_rate_max": "5",
        },
        {"launch_type": "X", "assign_public_ip": "yes", "run_task_kwargs": '{"cluster": "c"}'},
    )
    assert [problem.split(" = ")[0].split(" is ")[0] for problem in problems] == [
        "[ecs_async_executor] launch_burst",
        "[ecs_async_executor] poll_interval",
        "[ecs_async_executor] shutdown_timeout",
        "[ecs_async_executor] launch_rate",
        "[aws_ecs_executor] container_name",
        "[aws_ecs_executor] launch_type",
        "[aws_ecs_executor] assign_public_ip",
    ]


def test_what_is_missing_is_named() -> None:
    assert problems_of(theirs={"cluster": " "}) == (
        "[aws_ecs_executor] cluster is not set: it must be the name or ARN of a cluster",
        "[aws_ecs_executor] container_name is not set: it must be the name of a container of the task definition",
    )


def test_a_value_that_may_hold_secrets_is_never_shown() -> None:
    secret = "hunter2"
    broken = json.dumps(
        {"overrides": {"containerOverrides": [{"environment": [{"name": "P", "value": secret}]}]}}
    )[:-1]
    with pytest.raises(ConfigurationError) as caught:
        load(Conf({"queues": broken}, {**REQUIRED, "run_task_kwargs": broken}))
    assert len(caught.value.problems) == 2
    assert secret not in str(caught.value)
    kwargs = ecs(run_task_kwargs=json.dumps({"overrides": {"x": secret}}))
    assert secret not in repr(kwargs)
    assert secret not in repr(tuning(queues=json.dumps({"q": {"group": secret}})))
    with pytest.raises(ValidationError) as wrong:
        EcsSettings(cluster="c", container_name="a", run_task_kwargs=[secret])  # type: ignore[arg-type]
    assert secret not in str(wrong.value)


def test_a_connection_needs_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    (problem,) = problems_of(theirs={**REQUIRED, "conn_id": "aws_prod"})
    assert problem.startswith(
        "[aws_ecs_executor] conn_id = 'aws_prod': Airflow connections for AWS need the amazon"
    )
    assert load_ecs(Conf(theirs=REQUIRED)).conn_id is None
    assert load_ecs(Conf(theirs={**REQUIRED, "conn_id": ""})).conn_id == ""


# --- spelling


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


@tried(deadline=None, suppress_health_check=[HealthCheck.too_slow])  # time is no part of it
@given(st.dictionaries(st.from_regex(r"[a-z]+([A-Z][a-z]+)*", fullmatch=True), st.integers()))
def test_what_is_spelled_right_stays(mapping: dict[str, int]) -> None:
    assert camelize(mapping) == mapping


# --- the table


def test_the_table_has_every_option_and_its_default() -> None:
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in settings_table().splitlines()[2:]]
    assert [row[0] for row in rows] == [f"`{name}`" for name in Tuning.model_fields]
    assert {len(row) for row in rows} == {5}
    defaults = {row[0].strip("`"): row[1].strip("`") for row in rows}
    assert defaults["shutdown_timeout"] == "20"
    assert defaults["capacity_timeout"] == "unset"
    for name, text in defaults.items():
        expected = Tuning() if text == "unset" else tuning(**{name: text})
        assert expected == Tuning()


# --- for Batch


BATCH_REQUIRED: dict[str, Any] = {"job_name": "airflow", "job_queue": "q"}


class BatchConf(Conf):
    def __init__(self, ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.values |= {"batch_async_executor": ours or {}, "aws_batch_executor": theirs or BATCH_REQUIRED}


def batch(**options: str) -> BatchSettings:
    return load_batch(BatchConf(theirs={**BATCH_REQUIRED, **options}))


def test_batch_has_sections_of_its_own() -> None:
    conf = BatchConf({"launch_rate": "7"}, {**BATCH_REQUIRED, "max_submit_job_attempts": "5"})
    conf.values[OURS]["launch_rate"] = "not read"
    found = load_for_batch(conf)
    assert (found.tuning.launch_rate, found.batch.max_submit_job_attempts) == (7, 5)
    assert load_for_batch(BatchConf()) == SettingsForBatch(BatchTuning(), BatchSettings(**BATCH_REQUIRED))


def test_problems_of_both_sections_for_batch_are_named_at_once() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load_for_batch(BatchConf({"launch_rate": "50"}, {"job_name": "a b"}))
    assert caught.value.problems == (
        "[batch_async_executor] launch_rate = 50: must be at most launch_rate_max = 40",
        (
            "[aws_batch_executor] job_name = 'a b': must be up to 128 letters, digits, hyphens and underscores, "
            "a letter or digit first"
        ),
        "[aws_batch_executor] job_queue is not set: it must be the name or ARN of a job queue",
    )


def test_what_submit_job_kwargs_says_wins_whatever_its_spelling() -> None:
    kwargs = {"job_definition": "kwargs", "jobQueue": "k", "x": 1}
    found = batch(job_definition="option", submit_job_kwargs=json.dumps(kwargs))
    assert (found.job_definition, found.job_queue, found.submit_job_kwargs) == ("kwargs", "k", {"x": 1})


@pytest.mark.parametrize("key", ["arrayProperties", "nodeOverrides", "eksPropertiesOverride"])
def test_a_queue_of_batchs_runs_one_container_per_workload(key: str) -> None:
    for spelling in (key, re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", key)):
        with pytest.raises(ConfigurationError, match=rf"{key} cannot be set for queue a"):
            load_for_batch(BatchConf({"queues": json.dumps({"a": {spelling: {}}})}))


def test_a_queue_of_batchs_cannot_name_jobs_as_batch_does_not() -> None:
    said = "queue a: jobName must be up to 128 letters, digits, hyphens and underscores, a letter or digit first"
    with pytest.raises(ConfigurationError, match=rf"queues = .* \({said}\)"):
        load_for_batch(BatchConf({"queues": '{"a": {"job_name": "a b"}}'}))


BOTH = '{"container_overrides": {}, "ecs_properties_override": {}}'


@pytest.mark.parametrize(
    "conf",
    [
        BatchConf({"queues": f'{{"a": {BOTH}}}'}),
        BatchConf(theirs={**BATCH_REQUIRED, "submit_job_kwargs": BOTH}),
    ],
)
def test_one_container_and_several_cannot_be_meant_at_once(conf: BatchConf) -> None:
    with pytest.raises(
        ConfigurationError, match="containerOverrides and ecsPropertiesOverride exclude each other"
    ):
        load_for_batch(conf)


def test_a_queue_of_batchs_can_be_spelled_as_submit_job_kwargs_may_be() -> None:
    queues = {
        "gpu": {
            "job_queue": "gpu",
            "job_definition": "airflow-gpu",
            "container_overrides": {"resource_requirements": [{"type": "GPU", "value": "1"}]},
            "parameters": {"some_name": "x"},
            "tags": [{"Key": "team", "Value": "data"}],
        }
    }
    conf = BatchConf({"queues": json.dumps(queues)})
    assert load_for_batch(conf, batch_service.wrong_parameters).tuning.queues == {
        "gpu": {
            "jobQueue": "gpu",
            "jobDefinition": "airflow-gpu",
            "containerOverrides": {"resourceRequirements": [{"type": "GPU", "value": "1"}]},
            "parameters": {"some_name": "x"},
            "tags": [{"Key": "team", "Value": "data"}],
        }
    }


def test_every_parameter_that_submit_job_does_not_have_is_named() -> None:
    queues = {
        "gpu": {"jobQeue": "gpu", "vcpus": 2},
        "night": {"containerOverrides": {"enviroment": [{"name": "P", "value": "hunter2"}]}},
        "listed": {"containerOverrides": {"environment": [{"Name": "P", "value": "hunter2"}]}},
    }
    conf = BatchConf({"queues": json.dumps(queues)})
    with pytest.raises(ConfigurationError) as caught:
        load_for_batch(conf, batch_service.wrong_parameters)
    assert "hunter2" not in str(caught.value)
    told = "[batch_async_executor] queues = (not shown): must be a JSON object of objects: queue name to request"
    assert caught.value.problems == tuple(
        f"{told} parameters (queue {problem})"
        for problem in (
            "gpu: SubmitJob has no jobQeue; did you mean jobQueue?",
            "gpu: SubmitJob has no vcpus; did you mean containerOverrides.vcpus?",
            "night: SubmitJob has no containerOverrides.enviroment; did you mean environment?",
            "listed: SubmitJob has no containerOverrides.environment[0].Name; did you mean name?",
        )
    )


def test_the_readme_shows_what_differs_for_batch_only() -> None:
    shown = [line.split("`")[1] for line in batch_differences().splitlines()[2:]]
    assert shown == ["launch_rate", "launch_rate_max", "describe_rate", "permanent_error_grace", "queues"]
