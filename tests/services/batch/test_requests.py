from __future__ import annotations

import copy
import json
import uuid
from typing import Any

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.services import batch
from tests.services.batch.samples import TI, container, request, settings, spec
from tests.services.samples import COMMAND, MARK, Uncopyable


def test_precedence_is_options_then_kwargs_then_queue_then_task() -> None:
    made = request(
        container(memory=4),
        {"jobQueue": "queue", "containerOverrides": {"memory": 3, "vcpus": 3}, "shareIdentifier": "queue"},
        submit_job_kwargs={
            "job_queue": "kwargs",
            "jobDefinition": "kwargs",
            "containerOverrides": {"memory": 2, "vcpus": 2, "instanceType": "kwargs"},
        },
    )
    assert made == {
        "jobName": "airflow",
        "jobQueue": "queue",
        "jobDefinition": "kwargs",
        "shareIdentifier": "queue",
        "containerOverrides": {
            "memory": 4,
            "vcpus": 3,
            "instanceType": "kwargs",
            "command": COMMAND,
            "environment": [MARK],
        },
    }


def test_a_request_changes_and_shares_nothing_that_it_was_made_of() -> None:
    base = batch.base_request(settings(submit_job_kwargs=container(environment=[{"name": "A", "value": "1"}])))
    queue, executor_config = {"tags": {"a": "b"}}, container(environment=[{"name": "B", "value": "2"}])
    before = copy.deepcopy((base, queue, executor_config))
    for _ in range(2):
        made = batch.workload_request(base, queue, executor_config, COMMAND)
        assert made["containerOverrides"]["environment"] == [{"name": "B", "value": "2"}, MARK]
        made["tags"]["c"] = "d"
        assert (base, queue, executor_config) == before


@pytest.mark.parametrize(
    ("tags", "sent"),
    [
        ({"some_team": "data"}, {"some_team": "data"}),
        ([{"Key": "team", "Value": "data"}], {"team": "data"}),
        ([{"key": "a", "value": "b"}, {"key": "c", "value": "d"}], {"a": "b", "c": "d"}),
        (["team"], ["team"]),
        ([{"team": "data"}], [{"team": "data"}]),
        ([{"Key": ["team"], "Value": "data"}], [{"Key": ["team"], "Value": "data"}]),
    ],
)
def test_tags_can_be_written_as_for_other_services(tags: Any, sent: Any) -> None:
    assert request({"tags": tags})["tags"] == sent
    assert request(submit_job_kwargs={"Tags": tags})["tags"] == sent


def test_parameters_keep_the_names_that_the_job_definition_gives_them() -> None:
    made = request(submit_job_kwargs={"parameters": {"input_file": "x"}, "share_identifier": "s"})
    assert (made["parameters"], made["shareIdentifier"]) == ({"input_file": "x"}, "s")


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ([], "executor_config must be a dictionary of SubmitJob parameters, not list"),
        ({"command": ["hunter2"]}, 'never override "command"'),
        ({"arrayProperties": {"size": 2}}, "arrayProperties must not be set: one workload is one container"),
        ({"nodeOverrides": {"numNodes": 2}}, "nodeOverrides must not be set"),
        ({"eksPropertiesOverride": {"podProperties": {}}}, "eksPropertiesOverride must not be set"),
        ({"containerOverrides": "hunter2"}, "containerOverrides must be a dictionary, not str"),
        (container(environment={"P": "hunter2"}), "environment of containerOverrides must be a list"),
        ({"tags": Uncopyable()}, "executor_config cannot be copied: TypeError"),
    ],
)
def test_a_bad_executor_config_is_rejected_with_a_reason_but_not_its_values(
    executor_config: Any, reason: str
) -> None:
    with pytest.raises(Rejected) as caught:
        request(executor_config)
    assert reason in caught.value.reason
    assert "hunter2" not in caught.value.reason


def several(*containers: dict[str, Any]) -> dict[str, Any]:
    return {"ecsPropertiesOverride": {"taskProperties": [{"containers": list(containers)}]}}


MEMORY = [{"type": "MEMORY", "value": "2048"}]


@pytest.mark.parametrize(
    ("override", "sent"),
    [
        (
            several({"name": "airflow", "environment": [{"name": "A", "value": "1"}]}, {"name": "log"}),
            several(
                {"name": "airflow", "environment": [{"name": "A", "value": "1"}, MARK], "command": COMMAND},
                {"name": "log"},
            ),
        ),
        (several(), several({"environment": [MARK], "command": COMMAND})),
        ({"ecsPropertiesOverride": {}}, several({"environment": [MARK], "command": COMMAND})),
    ],
)
def test_the_first_of_several_containers_gets_the_command_and_nothing_is_said_of_a_single_one(
    override: dict[str, Any], sent: dict[str, Any]
) -> None:
    rest = {"jobName": "airflow", "jobQueue": "q", "jobDefinition": "d:1"}
    assert request(submit_job_kwargs=override) == rest | sent
    assert request(queue=override) == rest | sent
    assert request(override) == rest | sent


def test_what_is_said_last_decides_whether_there_is_one_container_or_several() -> None:
    one, two = container(resourceRequirements=MEMORY), several({"name": "airflow", "resourceRequirements": MEMORY})
    first = {"name": "airflow", "resourceRequirements": MEMORY, "command": COMMAND, "environment": [MARK]}
    for made in (request(queue=two, submit_job_kwargs=one), request(two, one), request({}, two)):
        assert "containerOverrides" not in made
        assert made["ecsPropertiesOverride"]["taskProperties"][0]["containers"] == [first]
    for made in (request(queue=one, submit_job_kwargs=two), request(one, two)):
        assert "ecsPropertiesOverride" not in made
        assert made["containerOverrides"]["resourceRequirements"] == MEMORY
        assert made["containerOverrides"]["command"] == COMMAND


def test_one_container_and_several_cannot_be_meant_at_once() -> None:
    both = container(resourceRequirements=MEMORY) | several({"name": "airflow"})
    with pytest.raises(Rejected, match="containerOverrides and ecsPropertiesOverride exclude each other"):
        request(both)


@pytest.mark.parametrize(
    ("override", "reason"),
    [
        (["hunter2"], "ecsPropertiesOverride must be a dictionary, not list"),
        (None, "ecsPropertiesOverride must be a dictionary, not nothing"),
        ({"taskProperties": "hunter2"}, "taskProperties must be a list of dictionaries"),
        ({"taskProperties": [{"containers": ["hunter2"]}]}, "containers must be a list of dictionaries"),
        (
            {"taskProperties": [{"containers": [{"environment": {"P": "hunter2"}}]}]},
            "environment of the first container of ecsPropertiesOverride must be a list",
        ),
    ],
)
def test_what_is_no_override_of_several_containers_is_rejected(override: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason) as caught:
        request({"ecsPropertiesOverride": override})
    assert "hunter2" not in caught.value.reason


def test_a_spec_of_several_containers_has_their_resources_in_its_placement_and_is_short_enough() -> None:
    made = spec(several({"name": "airflow", "resourceRequirements": MEMORY}))
    assert 'resourceRequirements=[[{"type":"MEMORY","value":"2048"}]]' in made.placement
    with pytest.raises(Rejected, match=r"ecsPropertiesOverride has .* and ECS takes at most 8192"):
        spec(several({"environment": [{"name": "A", "value": "x" * 8192}]}))


def test_a_spec_names_queue_placement_and_mark() -> None:
    made = spec()
    assert made.scope == "q"
    assert made.placement == "queue=q definition=d:1"
    assert made.started_by == made.request["jobName"] == f"airflow-{TI}"
    assert "python" not in repr(made)


def test_what_competes_for_other_room_has_another_placement() -> None:
    configs: list[Any] = [
        None,
        {"jobQueue": "other"},
        {"jobDefinition": "other"},
        container(vcpus=1),
        container(memory=1),
        container(instanceType="p4d.24xlarge"),
        container(resourceRequirements=[{"type": "GPU", "value": "1"}]),
    ]
    assert len({spec(config).placement for config in configs}) == len(configs)
    same = [{}, {"tags": {"a": "b"}}, container(environment=[]), {"jobName": "other"}]
    assert {spec(config).placement for config in same} == {"queue=q definition=d:1"}


def test_batch_makes_one_attempt_unless_the_request_says_otherwise() -> None:
    assert spec().request["retryStrategy"] == {"attempts": 1}
    theirs = {"evaluateOnExit": [{"onStatusReason": "Host EC2*", "action": "RETRY"}]}
    assert spec({"retryStrategy": theirs}).request["retryStrategy"] == theirs
    assert spec(submit_job_kwargs={"retry_strategy": {"attempts": 3}}).request["retryStrategy"] == {"attempts": 3}


@pytest.mark.parametrize(
    ("executor_config", "reason"),
    [
        ({"jobDefinition": None}, r"no jobDefinition: set \[aws_batch_executor\] job_definition"),
        ({"jobQueue": ""}, "no jobQueue"),
        ({"jobQueue": ["q"]}, "jobQueue must be a string, not list"),
        ({"jobName": "a b"}, "jobName must have 1 to 128 letters"),
        ({"jobName": "-a"}, "jobName must have 1 to 128 letters"),
        (container(vcpus=object()), "containerOverrides cannot be sent as JSON: TypeError"),
        (container(environment=[{"name": "A", "value": "x" * 8192}]), "and ECS takes at most 8192"),
    ],
)
def test_what_batch_would_refuse_is_rejected(executor_config: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        spec(executor_config)


def test_the_variables_that_batch_adds_count_in_the_size() -> None:
    def sized(characters: int) -> LaunchSpec:
        return spec(container(environment=[{"name": "A", "value": "x" * characters}]))

    empty = len(json.dumps(sized(0).request["containerOverrides"], separators=(",", ":")))
    added = json.dumps(
        [
            {"name": "AWS_BATCH_JOB_ID", "value": str(uuid.uuid4())},
            {"name": "AWS_BATCH_JQ_NAME", "value": "q"},
            {"name": "AWS_BATCH_CE_NAME", "value": "c"},
            {"name": "AWS_BATCH_JOB_ATTEMPT", "value": "1"},
        ],
        separators=(",", ":"),
    )
    most = 8192 - empty - len(added) + 1  # its brackets are there already, a comma is not
    sized(most)
    with pytest.raises(Rejected, match="8193 characters, the command and what the service adds included"):
        sized(most + 1)


@pytest.mark.parametrize("change", [{"arrayProperties": {"size": 2}}, {"nodeOverrides": {"numNodes": 1}}])
def test_what_a_hook_returns_is_checked_too(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        batch.launch_spec(request() | change, started_by=TI)


def test_a_number_is_sent_as_the_text_that_batch_wants_wherever_it_comes_from() -> None:
    given = container(resourceRequirements=[{"type": "MEMORY", "value": 2048}])
    wanted = [{"type": "MEMORY", "value": "2048"}]
    for found in (
        spec(given),
        spec(submit_job_kwargs=given),
        batch.launch_spec(request(queue=given), started_by=TI),
        spec({**given, "jobQueue": 5}),
    ):
        assert found.request["containerOverrides"]["resourceRequirements"] == wanted
    assert found.scope == "5"
