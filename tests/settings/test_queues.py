from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.services import batch as batch_service
from ecs_async_executor.services import ecs as ecs_service
from ecs_async_executor.settings import load, load_for_batch
from tests.settings.conf import BATCH_REQUIRED, REQUIRED, THEIRS, BatchConf, Conf


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"task_defintion": "g"}, "RunTask has no taskDefintion; did you mean taskDefinition?"),
        (
            {"subnets": ["s"]},
            "RunTask has no subnets; did you mean networkConfiguration.awsvpcConfiguration.subnets?",
        ),
        (
            {"launchType": "MANAGED_INSTANCES"},
            "RunTask refuses the launch type MANAGED_INSTANCES: set capacity_provider_strategy to",
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
        _ = load(conf, ecs_service.wrong_parameters).rules
    first, second = caught.value.problems
    place = "overrides" if "overrides" in overrides else next(iter(overrides))
    assert first.startswith(f"[ecs_async_executor] queues.gpu.{place}: {said}")
    assert second.startswith("[aws_ecs_executor] container_name is not set")


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"cluster": ["c"]}, "cluster must be a string, not list"),
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
        ({"tags": {"team": True}}, "tags[0].value must be a string, not bool"),
        ({"tags": "team"}, "tags must be a list, not str"),
    ],
)
def test_a_parameter_of_another_type_than_run_tasks_is_refused(overrides: dict[str, Any], said: str) -> None:
    conf = Conf({"queues": json.dumps({"fine": {"cluster": "c"}, "gpu": overrides})})
    with pytest.raises(ConfigurationError) as caught:
        _ = load(conf, ecs_service.wrong_parameters).rules
    (problem,) = caught.value.problems
    assert problem == f"[ecs_async_executor] queues.gpu.{said}"


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"jobQueue": ["q"]}, "jobQueue must be a string, not list"),
        ({"containerOverrides": None}, "containerOverrides must be an object, not nothing"),
        ({"containerOverrides": []}, "containerOverrides must be an object, not list"),
        ({"retryStrategy": None}, "retryStrategy must be an object, not nothing"),
        ({"retryStrategy": {"attempts": "3"}}, "retryStrategy.attempts must be a whole number, not str"),
        (
            {"ecsPropertiesOverride": {"taskProperties": {}}},
            "ecsPropertiesOverride.taskProperties must be a list, not dict",
        ),
        ({"parameters": {"size": None}}, "parameters.size must be a string, not nothing"),
        ({"tags": [{"Key": "team", "Value": []}]}, "tags.team must be a string, not list"),
        ({"tags": [{"team": "data"}]}, "tags must be an object, not list"),
    ],
)
def test_a_parameter_of_another_type_than_submit_jobs_is_refused(overrides: dict[str, Any], said: str) -> None:
    conf = BatchConf({"queues": json.dumps({"fine": {"jobQueue": "q"}, "gpu": overrides})})
    with pytest.raises(ConfigurationError) as caught:
        _ = load_for_batch(conf, batch_service.wrong_parameters).rules
    (problem,) = caught.value.problems
    assert problem == f"[batch_async_executor] queues.gpu.{said}"


def test_a_queue_may_give_launches_their_own_mark_back() -> None:
    queues = {"q": {"startedBy": None}}
    found = load(Conf({"queues": json.dumps(queues)}), ecs_service.wrong_parameters)
    request = ecs_service.workload_request(
        {**ecs_service.base_request(found.ecs), "startedBy": "theirs", "taskDefinition": "t"},
        found.rules.parameters_of("q"),
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
    found = load(Conf({"queues": json.dumps(queues)}), ecs_service.wrong_parameters)
    assert found.rules.queues.keys() == queues.keys()


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
    assert load_for_batch(conf, batch_service.wrong_parameters).rules.parameters_of("gpu") == {
        "jobQueue": "gpu",
        "jobDefinition": "airflow-gpu",
        "containerOverrides": {"resourceRequirements": [{"type": "GPU", "value": "1"}]},
        "parameters": {"some_name": "x"},
        "tags": [{"Key": "team", "Value": "data"}],
    }


def test_every_parameter_that_submit_job_does_not_have_is_named() -> None:
    queues = {
        "gpu": {"jobQeue": "gpu", "vcpus": 2},
        "night": {"containerOverrides": {"enviroment": [{"name": "P", "value": "hunter2"}]}},
        "listed": {"containerOverrides": {"environment": [{"Name": "P", "value": "hunter2"}]}},
    }
    conf = BatchConf({"queues": json.dumps(queues)})
    with pytest.raises(ConfigurationError) as caught:
        _ = load_for_batch(conf, batch_service.wrong_parameters).rules
    assert "hunter2" not in str(caught.value)
    assert caught.value.problems == tuple(
        f"[batch_async_executor] queues.{problem}"
        for problem in (
            "gpu.jobQeue: SubmitJob has no jobQeue; did you mean jobQueue?",
            "gpu.vcpus: SubmitJob has no vcpus; did you mean containerOverrides.vcpus?",
            "night.containerOverrides: SubmitJob has no containerOverrides.enviroment; did you mean environment?",
            (
                "listed.containerOverrides: SubmitJob has no containerOverrides.environment[0].Name; did you mean "
                "name?"
            ),
        )
    )


@pytest.mark.parametrize(
    ("kwargs", "said"),
    [
        ({"tagz": {"team": "data"}}, "RunTask has no tagz; did you mean tags?"),
        ({"overrides": {"cpu": ["1024"]}}, "overrides.cpu must be a string, not list"),
        ({"overrides": {"cpuu": 1024}}, "RunTask has no overrides.cpuu; did you mean cpu?"),
        ({"enable_execute_command": "yes"}, "enableExecuteCommand must be true or false, not str"),
    ],
)
def test_what_run_task_does_not_have_is_refused_in_the_parameters_of_all_launches(
    kwargs: dict[str, Any], said: str
) -> None:
    conf = Conf(theirs={**REQUIRED, "run_task_kwargs": json.dumps(kwargs)})
    with pytest.raises(ConfigurationError) as caught:
        _ = load(conf, ecs_service.wrong_parameters).rules
    assert caught.value.problems == (f"[{THEIRS}] run_task_kwargs (value not shown) is not valid: {said}",)


def test_what_submit_job_does_not_have_is_refused_in_the_parameters_of_all_launches() -> None:
    conf = BatchConf(theirs={**BATCH_REQUIRED, "submit_job_kwargs": '{"vcpus": 2}'})
    with pytest.raises(ConfigurationError) as caught:
        _ = load_for_batch(conf, batch_service.wrong_parameters).rules
    (problem,) = caught.value.problems
    assert problem == (
        "[aws_batch_executor] submit_job_kwargs (value not shown) is not valid: "
        "SubmitJob has no vcpus; did you mean containerOverrides.vcpus?"
    )


def test_numbers_are_taken_for_text_in_the_parameters_of_all_launches_and_of_queues() -> None:
    overrides = {"overrides": {"cpu": 1024, "memory": 2048}, "tags": {"cost_center": 7}}
    kwargs = {**overrides, "cluster": 5, "taskDefinition": 6}
    conf = Conf({"queues": json.dumps({"big": overrides})}, {**REQUIRED, "run_task_kwargs": json.dumps(kwargs)})
    found = load(conf, ecs_service.wrong_parameters)
    assert (found.ecs.cluster, found.ecs.task_definition) == ("5", "6")
