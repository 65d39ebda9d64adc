"""
Beside the provider's executor for Batch: the same SubmitJob request where it is right, and ours where it is not.

Ours differs in the end of the job's name, and says that Batch makes one attempt unless the request says otherwise.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any, NamedTuple

import pytest

pytest.importorskip("airflow.providers.amazon")

from botocore.exceptions import ParamValidationError

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import ConfigurationError, Rejected
from ecs_async_executor.services import batch
from ecs_async_executor.services.batch.names import mark_in

# Of the fixtures' module, which cannot be imported.
MARK = "0199c0de-1111-7222-8333-444455556666"
TOKEN = "5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11-1"
SUFFIX = f"-{MARK}-5b2f7f2e-1"
JOB_ID = "876da822-4198-45f2-a252-6cea32512ea8"

BASE = {"job_name": "airflow", "job_queue": "q", "job_definition": "d:3", "region_name": "eu-west-1"}
ENVIRONMENT = [{"name": "UPPER_CASE", "value": "ü"}, {"name": "snake_case", "value": "a b"}]
GPU = [{"type": "GPU", "value": "1"}]
SPOT = {"attempts": 3, "evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]}
ABSENT = object()


class Case(NamedTuple):
    options: dict[str, str]
    executor_config: dict[str, Any] | None = None


def kwargs(options: dict[str, str], **parameters: Any) -> dict[str, str]:
    return {**options, "submit_job_kwargs": json.dumps(parameters)}


def container(**parameters: Any) -> dict[str, Any]:
    return {"containerOverrides": parameters}


QUEUE_ARN = "arn:aws:batch:eu-west-1:123456789012:job-queue/q"
DEFINITION_ARN = "arn:aws:batch:eu-west-1:123456789012:job-definition/d:3"

SAME = {
    "options alone": Case(BASE),
    "ARNs": Case({**BASE, "job_queue": QUEUE_ARN, "job_definition": DEFINITION_ARN}),
    "a definition without a revision": Case({**BASE, "job_definition": "d"}),
    "connection": Case({**BASE, "conn_id": "aws_default"}),
    "no connection": Case({**BASE, "conn_id": ""}),
    "kwargs: empty": Case(kwargs(BASE)),
    "kwargs: job queue": Case(kwargs(BASE, jobQueue="other")),
    "kwargs: job queue, snake case": Case(kwargs(BASE, job_queue="other")),
    "kwargs: job definition": Case(kwargs(BASE, jobDefinition="other:1")),
    "kwargs: job definition, snake case": Case(kwargs(BASE, job_definition="other:1")),
    "kwargs: job name": Case(kwargs(BASE, jobName="nightly")),
    "kwargs: job name, snake case": Case(kwargs(BASE, job_name="nightly")),
    "kwargs: everything": Case(
        kwargs({"region_name": "eu-west-1"}, jobName="airflow", jobQueue="q", jobDefinition="d")
    ),
    "kwargs: tags": Case(kwargs(BASE, tags={"some_team": "my_data", "Env": "prod"}, propagate_tags=True)),
    "kwargs: tags, upper case": Case(kwargs(BASE, Tags={"some_team": "my_data"})),
    "kwargs: retries": Case(kwargs(BASE, retryStrategy=SPOT)),
    "kwargs: retries, snake case": Case(kwargs(BASE, retry_strategy={"attempts": 2})),
    "kwargs: timeout": Case(kwargs(BASE, timeout={"attemptDurationSeconds": 600})),
    "kwargs: timeout, snake case": Case(kwargs(BASE, timeout={"attempt_duration_seconds": 600})),
    "kwargs: fair share": Case(kwargs(BASE, shareIdentifier="s", scheduling_priority_override=7)),
    "kwargs: parameters": Case(kwargs(BASE, parameters={"input": "x"})),
    "kwargs: dependencies": Case(kwargs(BASE, dependsOn=[{"jobId": JOB_ID, "type": "SEQUENTIAL"}])),
    "kwargs: resources": Case(
        kwargs(BASE, **container(resourceRequirements=[{"type": "VCPU", "value": "2"}, *GPU], instanceType="p4d"))
    ),
    "kwargs: environment": Case(kwargs(BASE, **container(environment=ENVIRONMENT))),
    "kwargs: command": Case(kwargs(BASE, **container(command=["ignored"]))),
    "kwargs: vcpus and memory": Case(kwargs(BASE, **container(vcpus=2, memory=2048))),
    "kwargs: consumables": Case(
        kwargs(
            BASE,
            consumableResourcePropertiesOverride={
                "consumableResourceList": [{"consumableResource": "licence", "quantity": 1}]
            },
        )
    ),
    "task: nothing": Case(BASE, {}),
    "task: container": Case(BASE, container(memory=4096, environment=ENVIRONMENT)),
    "task: container over container": Case(
        kwargs(BASE, **container(memory=1024, vcpus=1, environment=ENVIRONMENT)),
        container(memory=4096, resourceRequirements=GPU),
    ),
    "task: list of variables replaces": Case(
        kwargs(BASE, **container(environment=ENVIRONMENT)), container(environment=[{"name": "B", "value": "2"}])
    ),
    "task: command is overwritten": Case(BASE, container(command=["x"])),
    "task: job queue and definition": Case(BASE, {"jobQueue": "gpu", "jobDefinition": "big:9"}),
    "task: job name": Case(BASE, {"jobName": "mine"}),
    "task: tags over tags": Case(kwargs(BASE, tags={"a": "1", "b": "1"}), {"tags": {"b": "2", "some_key": "3"}}),
    "task: retries": Case(BASE, {"retryStrategy": {"attempts": 5}}),
    "task: part of the retries": Case(kwargs(BASE, retryStrategy=SPOT), {"retryStrategy": {"attempts": 5}}),
    "task: timeout": Case(BASE, {"timeout": {"attemptDurationSeconds": 60}}),
    "task: parameters": Case(BASE, {"parameters": {"some_file": "x"}}),
}


@pytest.mark.parametrize("name", SAME)
def test_the_request_is_the_providers(batch_duel: Any, name: str) -> None:
    case = SAME[name]
    batch_duel.configure(case.options)

    theirs = batch_duel.of_provider(copy.deepcopy(case.executor_config))
    ours = batch_duel.of_ours(copy.deepcopy(case.executor_config))

    assert ours.pop("jobName") == theirs.pop("jobName") + SUFFIX
    if "retryStrategy" not in theirs:
        assert ours.pop("retryStrategy") == {"attempts": 1}
    assert ours == theirs


def test_there_are_enough_cases() -> None:
    assert len(SAME) >= 35


# --- where the provider is wrong: should it mend something, the case fails here and moves to the others


class Mended(NamedTuple):
    """:param theirs: what the provider raises, or has in its request; :param ours: what is in ours instead."""

    options: dict[str, str]
    theirs: type[Exception] | dict[str, Any]
    ours: dict[str, Any]
    executor_config: dict[str, Any] | None = None


def at(body: Any, path: str) -> Any:
    try:
        for part in path.split("."):
            body = body[int(part) if part.isdigit() else part]
    except (KeyError, IndexError):
        return ABSENT
    return body


MENDED = {
    "tags as documented": Mended(
        kwargs(BASE, Tags=[{"Key": "key", "Value": "value"}]),
        theirs=ParamValidationError,
        ours={"tags": {"key": "value"}},
    ),
    "tags of one task as for ECS": Mended(
        BASE,
        theirs=ParamValidationError,
        ours={"tags": {"a_b": "c"}},
        executor_config={"tags": [{"key": "a_b", "value": "c"}]},
    ),
    "parameters in kwargs keep their names": Mended(
        kwargs(BASE, parameters={"input_file": "x"}),
        theirs={"parameters": {"inputFile": "x"}},
        ours={"parameters": {"input_file": "x"}},
    ),
    "container in kwargs, snake case": Mended(
        kwargs(BASE, container_overrides={"memory": 2048}),
        theirs={"containerOverrides.memory": ABSENT},
        ours={"containerOverrides.memory": 2048, "containerOverrides.command.0": "python"},
    ),
    "several containers": Mended(
        kwargs(BASE, ecsPropertiesOverride={"taskProperties": [{"containers": [{"name": "airflow"}]}]}),
        theirs={
            "containerOverrides.command.0": "python",
            "ecsPropertiesOverride.taskProperties.0.containers.0": {"name": "airflow"},
        },
        ours={
            "containerOverrides": ABSENT,
            "ecsPropertiesOverride.taskProperties.0.containers.0.name": "airflow",
            "ecsPropertiesOverride.taskProperties.0.containers.0.command.0": "python",
        },
    ),
    "kwargs in the notation of the provider's documentation of ECS": Mended(
        {**BASE, "submit_job_kwargs": "{'tags': {'a': 'b'}}"}, theirs=ValueError, ours={"tags": {"a": "b"}}
    ),
    "empty kwargs": Mended({**BASE, "submit_job_kwargs": ""}, theirs=ValueError, ours={"jobQueue": "q"}),
    "options with spaces": Mended(
        {**BASE, "job_queue": " q "}, theirs={"jobQueue": " q "}, ours={"jobQueue": "q"}
    ),
}


@pytest.mark.parametrize("name", MENDED)
def test_ours_is_right_where_the_providers_is_not(batch_duel: Any, name: str) -> None:
    case = MENDED[name]
    batch_duel.configure(case.options)

    ours = batch_duel.of_ours(copy.deepcopy(case.executor_config))
    assert {path: at(ours, path) for path in case.ours} == case.ours

    if not isinstance(case.theirs, dict):
        with pytest.raises(case.theirs):
            batch_duel.of_provider(copy.deepcopy(case.executor_config))
    else:
        theirs = batch_duel.of_provider(copy.deepcopy(case.executor_config))
        assert {path: at(theirs, path) for path in case.theirs} == case.theirs


@pytest.mark.parametrize("option", ["node_override", "eks_properties_override"])
def test_jobs_that_cannot_be_given_the_command_are_refused_on_start(batch_duel: Any, option: str) -> None:
    batch_duel.configure({**BASE, option: '{"podProperties": {}}'})
    with pytest.raises(ConfigurationError, match=rf"{option} \(value not shown\) is not valid: unset it"):
        batch_duel.of_ours()
    with pytest.raises(ParamValidationError):  # of every job, as what it sends is no parameter, or only a text
        batch_duel.of_provider()


@pytest.mark.parametrize("key", ["nodeOverrides", "node_overrides", "eks_properties_override", "arrayProperties"])
def test_jobs_that_cannot_be_given_the_command_are_refused_in_kwargs_in_any_spelling(
    batch_duel: Any, key: str
) -> None:
    batch_duel.configure(kwargs(BASE, **{key: {}}))
    with pytest.raises(ConfigurationError, match=r"submit_job_kwargs \(value not shown\) .* cannot be set"):
        batch_duel.of_ours()
    if key == "nodeOverrides":
        with pytest.raises(KeyError, match="Multi-node jobs are not currently supported"):
            batch_duel.of_provider()
    else:
        assert batch_duel.of_provider()["containerOverrides"]["command"]


def test_jobs_that_cannot_be_given_the_command_are_refused_of_one_task(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    with pytest.raises(Rejected, match="one workload is one container"):
        batch_duel.spec({"arrayProperties": {"size": 2}})
    assert batch_duel.of_provider({"arrayProperties": {"size": 2}})["arrayProperties"] == {"size": 2}


def test_an_executor_config_is_never_changed(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    executor_config = container(environment=[])
    mark = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}

    for _ in range(2):
        assert batch_duel.of_ours(executor_config)["containerOverrides"]["environment"] == [mark]
        assert executor_config == container(environment=[])

    executor = batch_duel.provider()
    batch_duel.of_provider(executor_config, executor)
    assert batch_duel.of_provider(executor_config, executor)["containerOverrides"]["environment"] == [mark, mark]


def test_a_bad_executor_config_is_refused_for_this_workload_alone(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    with pytest.raises(Rejected, match='never override "command"'):
        batch_duel.spec({"command": ["x"]})
    with pytest.raises(ValueError, match="should never override"):
        batch_duel.provider().execute_async("key", ["x"], executor_config={"command": ["x"]})


def test_a_job_that_batch_does_not_know_is_noticed(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    [seen] = batch_duel.run(lambda backend: backend.describe("q", [JOB_ID]))
    assert seen.seen is Seen.MISSING

    executor = batch_duel.provider()
    executor.active_workers.add_job(JOB_ID, "key", ["python"], "default", {}, 1)
    executor.sync_running_jobs()
    assert len(executor.active_workers) == 1


def test_attempts_can_be_told_apart_and_found_by_their_launch(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    spec = batch_duel.spec()

    async def twice(backend: batch.BatchBackend) -> None:
        await asyncio.gather(*(backend.launch(spec, f"{TOKEN[:-1]}{n}") for n in (1, 2)))

    batch_duel.run(twice)
    names = {call.body["jobName"] for call in batch_duel.recorder.of("submitjob")}
    assert names == {f"airflow{SUFFIX}", f"airflow{SUFFIX[:-1]}2"}
    assert {mark_in(name) for name in names} == {MARK}

    executor = batch_duel.provider()
    assert {batch_duel.of_provider(executor=executor)["jobName"] for _ in range(2)} == {"airflow"}


def test_batchs_own_retries_do_not_multiply_ours_unless_asked_for(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    assert batch_duel.of_ours()["retryStrategy"] == {"attempts": 1}
    assert "retryStrategy" not in batch_duel.of_provider()  # then the job definition decides


def test_the_configured_region_is_asked(batch_duel: Any) -> None:
    batch_duel.configure({**BASE, "region_name": "ap-south-1"})
    batch_duel.of_ours()
    assert [(call.operation, call.region) for call in batch_duel.recorder.calls] == [("submitjob", "ap-south-1")]


def test_the_health_check_is_the_providers(batch_duel: Any) -> None:
    batch_duel.configure(BASE)
    batch_duel.run(lambda backend: backend.check())
    [ours] = batch_duel.recorder.calls
    batch_duel.recorder.calls.clear()
    batch_duel.provider().check_health()
    [theirs] = batch_duel.recorder.calls
    assert (ours.operation, ours.body) == (theirs.operation, theirs.body) == ("describejobs", {"jobs": ["a" * 32]})


KWARGS = r"submit_job_kwargs \(value not shown\) is not valid: it must be a JSON object"


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"job_name": ""}, "job_name is not set"),
        ({"job_queue": ""}, "job_queue is not set"),
        ({"job_name": "a b"}, "job_name = 'a b' is not valid: it must be 1 to 128 letters"),
        (
            {"max_submit_job_attempts": "0"},
            "max_submit_job_attempts = '0' is not valid: it must be a whole",
        ),
        ({"check_health_on_startup": "perhaps"}, "check_health_on_startup = 'perhaps' is not valid: "),
        ({"submit_job_kwargs": "{"}, rf"{KWARGS}, but it is not JSON: "),
        ({"submit_job_kwargs": "[]"}, rf"{KWARGS}$"),
        (
            {"submit_job_kwargs": '{"job_name": "a b"}'},
            r"job_name = 'a b' \(from submit_job_kwargs\) is not valid: it must be 1 to 128 letters",
        ),
    ],
)
def test_what_cannot_be_used_is_said_on_start(batch_duel: Any, options: dict[str, str], problem: str) -> None:
    batch_duel.configure({**BASE, **options})
    with pytest.raises(ConfigurationError, match=rf"\[aws_batch_executor\] {problem}"):
        batch_duel.settings()
