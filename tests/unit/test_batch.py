from __future__ import annotations

import asyncio
import copy
import json
from collections.abc import Callable
from typing import Any

import pytest
from botocore.exceptions import ReadTimeoutError
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services import batch
from ecs_async_executor.services.wire import stop_reason
from ecs_async_executor.settings import JOB_NAME, BatchSettings
from tests.unit.clients import FakeClient, FakeFactory, refusal

COMMAND = ["python", "-m", "x"]
MARK = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
TI = "0199c0de-1111-7222-8333-444455556666"
LAUNCH = "5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11"
JOB = "876da822-4198-45f2-a252-6cea32512ea8"
OTHER = "11111111-4198-45f2-a252-6cea32512ea8"


def settings(**options: Any) -> BatchSettings:
    return BatchSettings(**{"job_name": "airflow", "job_queue": "q", "job_definition": "d:1", **options})


def request(executor_config: Any = None, queue: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    return batch.workload_request(batch.base_request(settings(**options)), queue, executor_config, COMMAND)


def spec(executor_config: Any = None, **options: Any) -> LaunchSpec:
    return batch.launch_spec(request(executor_config, **options), started_by=TI)


def container(**parameters: Any) -> dict[str, Any]:
    return {"containerOverrides": parameters}


# --- one workload's request


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


class Uncopyable:
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("hunter2")


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


# --- definitions of several containers


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
    with pytest.raises(Rejected, match=r"ecsPropertiesOverride have .* and ECS takes 8192"):
        spec(several({"environment": [{"name": "A", "value": "x" * 8192}]}))


# --- the finished spec


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
        ({"jobQueue": 5}, "jobQueue must be a text, not int"),
        ({"jobName": "a b"}, "jobName must have 1 to 128 letters"),
        ({"jobName": "-a"}, "jobName must have 1 to 128 letters"),
        (container(vcpus=object()), "containerOverrides cannot be sent as JSON: TypeError"),
        (container(environment=[{"name": "A", "value": "x" * 8192}]), "and ECS takes 8192"),
    ],
)
def test_what_batch_would_refuse_is_rejected(executor_config: Any, reason: str) -> None:
    with pytest.raises(Rejected, match=reason):
        spec(executor_config)


@pytest.mark.parametrize("change", [{"arrayProperties": {"size": 2}}, {"nodeOverrides": {"numNodes": 1}}])
def test_what_a_hook_returns_is_checked_too(change: dict[str, Any]) -> None:
    with pytest.raises(Rejected):
        batch.launch_spec(request() | change, started_by=TI)


# --- names


def test_every_attempt_has_a_name_of_its_own_that_begins_with_the_launchs() -> None:
    prefix = batch.name_prefix("airflow", TI)
    names = [batch.job_name(prefix, f"{LAUNCH}-{n}") for n in (1, 2)] + [batch.job_name(prefix, f"{TI}-1")]
    assert names == [f"airflow-{TI}-5b2f7f2e-1", f"airflow-{TI}-5b2f7f2e-2", f"airflow-{TI}-1"]
    assert {batch.mark_in(name) for name in names} == {TI}


def test_a_launch_has_a_mark_that_its_names_begin_with_and_no_other_launchs() -> None:
    made = batch.launch_spec(request(), started_by=TI, launch_id=LAUNCH)
    assert made.started_by is not None
    names = {one: batch.job_name(made.started_by, f"{one}-12") for one in (LAUNCH, TI, "0badcafe-1")}
    assert all(name.startswith(f"{made.started_by}-") for name in names.values())
    assert [one for one, name in names.items() if name.startswith(f"{made.own_mark}-")] == [LAUNCH]


def test_a_launch_that_has_the_workloads_identity_has_no_mark_of_its_own() -> None:
    assert batch.launch_spec(request(), started_by=TI, launch_id=TI).own_mark is None


def test_a_long_name_is_cut_so_that_the_mark_and_a_hundred_attempts_fit() -> None:
    made = batch.launch_spec(request({"jobName": "n" * 128}), started_by=TI)
    name = batch.job_name(made.request["jobName"], f"{LAUNCH}-100100")
    assert len(name) <= 128
    assert JOB_NAME.fullmatch(name)
    assert batch.mark_in(name) == TI


@pytest.mark.parametrize("name", [None, 7, "airflow", f"airflow-{TI}", f"airflow-{TI}-x", f"{TI}-1"])
def test_the_name_of_a_job_that_is_not_ours_has_no_mark(name: object) -> None:
    assert batch.mark_in(name) is None


# --- what a record means


def job(status: str, **more: Any) -> dict[str, Any]:
    return {
        "jobId": JOB,
        "jobName": f"airflow-{TI}-5b2f7f2e-1",
        "status": status,
        "createdAt": 1_767_323_045_250,
        **more,
    }


def attempt(
    exit_code: int | None = None, reason: str | None = None, *, started: bool = True, why: str = ""
) -> Any:
    made: dict[str, Any] = {"container": {"exitCode": exit_code, "reason": reason}, "statusReason": why}
    return made | ({"startedAt": 1_767_323_050_000, "stoppedAt": 1_767_323_060_000} if started else {})


def ecs_containers(side: int | None, airflow: int | None) -> Any:
    def ended(name: str, exit_code: int | None, *environment: Any) -> dict[str, Any]:
        made = {"name": name, "environment": [{"name": "A", "value": "1"}, *environment]}
        return made | ({"reason": PULL} if exit_code is None else {"exitCode": exit_code})

    return {
        "taskProperties": [{"containers": [ended("side", side), ended("main", airflow, MARK)], "taskArn": "arn"}]
    }


def attempt_of_several() -> Any:
    return {
        "startedAt": 1_767_323_050_000,
        "statusReason": "Essential container in task exited",
        "taskProperties": [{"containers": [{"name": "side", "exitCode": 0}, {"name": "main", "exitCode": 3}]}],
    }


USUAL = "Essential container in task exited"
OOM = "OutOfMemoryError: Container killed due to memory usage"
PULL = "CannotPullContainerError: Error response from daemon: manifest not found"
HOST = "Host EC2 (instance i-0123) terminated."
STUCK = "MISCONFIGURATION:JOB_RESOURCE_REQUIREMENT - The job resource requirement (vCPU/memory/GPU) is higher"

OBSERVATIONS: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("submitted", job("SUBMITTED"), {"seen": Seen.PENDING, "started": False, "exit_code": None, "reason": ""}),
    ("pending", job("PENDING"), {"seen": Seen.PENDING, "started": False}),
    ("runnable", job("RUNNABLE"), {"seen": Seen.PENDING, "started": False, "reason": ""}),
    (
        "runnable for ever",
        job("RUNNABLE", statusReason=STUCK),
        {"seen": Seen.PENDING, "started": False, "reason": STUCK, "unusual": False},
    ),
    ("starting", job("STARTING", container={"image": "i"}), {"seen": Seen.PENDING, "started": False}),
    ("a status to come", job("PONDERING"), {"seen": Seen.PENDING, "started": False}),
    (
        "running",
        job("RUNNING", startedAt=1_767_323_050_000),
        {"seen": Seen.RUNNING, "started": True, "exit_code": None, "reason": ""},
    ),
    (
        "succeeded",
        job("SUCCEEDED", statusReason=USUAL, container={"exitCode": 0}, attempts=[attempt(0)]),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 0, "reason": "", "unusual": False},
    ),
    ("succeeded, without details", job("SUCCEEDED"), {"seen": Seen.STOPPED, "started": True, "exit_code": 0}),
    (
        "failed",
        job("FAILED", statusReason=USUAL, container={"exitCode": 3}, attempts=[attempt(3, why=USUAL)]),
        {
            "seen": Seen.STOPPED,
            "started": True,
            "exit_code": 3,
            "reason": "Batch container exited 3",
            "unusual": False,
        },
    ),
    (
        "Airflow's container of several failed",
        job(
            "FAILED",
            statusReason=USUAL,
            ecsProperties=ecs_containers(side=0, airflow=3),
            attempts=[attempt_of_several()],
        ),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 3, "reason": "Batch container exited 3"},
    ),
    (
        "another container of several failed",
        job(
            "FAILED",
            statusReason=USUAL,
            ecsProperties=ecs_containers(side=1, airflow=0),
            attempts=[attempt_of_several()],
        ),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 0, "reason": ""},
    ),
    (
        "Airflow's container of several failed, but was not essential",
        job("SUCCEEDED", ecsProperties=ecs_containers(side=0, airflow=4), attempts=[attempt_of_several()]),
        {"seen": Seen.STOPPED, "started": True, "exit_code": 4, "reason": "Batch container exited 4"},
    ),
    (
        "several containers succeeded",
        job("SUCCEEDED", statusReason=USUAL, ecsProperties=ecs_containers(side=0, airflow=0)),
        {"seen": Seen.STOPPED, "exit_code": 0, "reason": ""},
    ),
    (
        "the image of one of several was not found",
        job(
            "FAILED",
            statusReason="Task failed to start",
            ecsProperties=ecs_containers(side=None, airflow=None),
            attempts=[{"statusReason": "Task failed to start", "taskProperties": []}],
        ),
        {"started": False, "exit_code": None, "reason": f"Batch job failed before its container ran: {PULL}"},
    ),
    (
        "out of memory",
        job(
            "FAILED", statusReason=USUAL, container={"exitCode": 137, "reason": OOM}, attempts=[attempt(137, OOM)]
        ),
        {"exit_code": 137, "reason": f"Batch container exited 137 ({OOM})"},
    ),
    (
        "took too long",
        job("FAILED", statusReason="Job attempt duration exceeded timeout", container={"exitCode": 143}),
        {
            "exit_code": 143,
            "started": True,
            "reason": "Batch container exited 143: Job attempt duration exceeded timeout",
            "unusual": True,
        },
    ),
    (
        "image not found",
        job(
            "FAILED",
            statusReason="Task failed to start",
            container={"reason": PULL},
            attempts=[attempt(None, PULL, started=False, why="Task failed to start")],
        ),
        {
            "seen": Seen.STOPPED,
            "started": False,
            "exit_code": None,
            "reason": f"Batch job failed before its container ran: {PULL}",
        },
    ),
    (
        "not started, with a time of starting all the same",
        job(
            "FAILED",
            statusReason="Task failed to start",
            startedAt=1_767_323_050_000,
            attempts=[attempt(None, PULL, why="Task failed to start")],
        ),
        {"started": False, "exit_code": None},
    ),
    (
        "host lost",
        job("FAILED", statusReason=HOST, startedAt=1_767_323_050_000, attempts=[attempt(None, why=HOST)]),
        {
            "started": True,
            "exit_code": None,
            "reason": f"Batch job failed without an exit code from its container: {HOST}",
            "unusual": True,
        },
    ),
    (
        "terminated by a person before it ran",
        job("FAILED", statusReason="not wanted", attempts=[], isTerminated=True, isCancelled=True),
        {
            "started": False,
            "exit_code": None,
            "by_hand": True,
            "reason": "Batch job failed before its container ran: not wanted",
        },
    ),
    (
        "cancelled by a person, or by what is configured for the queue",
        job("FAILED", statusReason=STUCK, isTerminated=False, isCancelled=True),
        {"started": False, "by_hand": True, "reason": f"Batch job failed before its container ran: {STUCK}"},
    ),
    (
        "host lost before it ran",
        job("FAILED", statusReason=HOST, attempts=[], isTerminated=False, isCancelled=False),
        {"started": False, "by_hand": False, "reason": f"Batch job failed before its container ran: {HOST}"},
    ),
    *(
        (
            f"terminated by an executor: {reason}",
            job("FAILED", statusReason=reason, isTerminated=True, isCancelled=True),
            {"started": False, "by_hand": False},
        )
        for reason in (stop_reason("revoked"), stop_reason("x" * 300), "Airflow Executor received a SIGTERM")
    ),
    (
        "a failed attempt, and Batch tries again",
        job("RUNNABLE", statusReason=USUAL, container={"exitCode": 1}, attempts=[attempt(1, why=USUAL)]),
        {"seen": Seen.PENDING, "started": True, "exit_code": None, "reason": ""},
    ),
    (
        "a failed attempt, and no room for the next",
        job("RUNNABLE", statusReason=STUCK, attempts=[attempt(1, why=USUAL)]),
        {"seen": Seen.PENDING, "started": True, "reason": STUCK},
    ),
    *(
        (
            f"a failed attempt, and the next one waits: {reason}",
            job("RUNNABLE", statusReason=reason, attempts=[attempt(1, why=USUAL)]),
            {"seen": Seen.PENDING, "reason": reason},
        )
        for reason in ("ACTION_REQUIRED - CE(s) are disabled", "UNDETERMINED - not known", "UNDETERMINED")
    ),
    *(
        (
            f"a failed attempt, whose end is shown: {reason}",
            job("RUNNABLE", statusReason=reason, attempts=[attempt(1, why=reason)]),
            {"seen": Seen.PENDING, "reason": ""},
        )
        for reason in (OOM, PULL, HOST)
    ),
    (
        "a lost host, and Batch runs it again",
        job("RUNNING", attempts=[attempt(None, why=HOST)]),
        {"seen": Seen.RUNNING, "started": True, "exit_code": None},
    ),
    (
        "the last of several attempts",
        job("FAILED", statusReason=USUAL, container={"exitCode": 9}, attempts=[attempt(1), attempt(9)]),
        {"exit_code": 9, "reason": "Batch container exited 9 after 2 attempts of Batch's own"},
    ),
    (
        "an attempt that ran, then one that did not",
        job(
            "FAILED",
            statusReason="Task failed to start",
            container={"reason": PULL},
            attempts=[attempt(1), attempt(None, PULL, started=False, why="Task failed to start")],
        ),
        {"started": True, "exit_code": None},
    ),
    ("the supervisor was done", job("FAILED", container={"exitCode": 0}), {"exit_code": 0, "reason": ""}),
    ("somebody else's job", job("RUNNING") | {"jobName": "x"}, {"started_by": None}),
    (
        "nulls",
        job("RUNNABLE", statusReason=None, container=None, attempts=None),
        {"seen": Seen.PENDING, "reason": ""},
    ),
]


@pytest.mark.parametrize(("record", "expected"), [o[1:] for o in OBSERVATIONS], ids=[o[0] for o in OBSERVATIONS])
@pytest.mark.parametrize("decoded", [False, True])
def test_an_observation_says_what_the_record_means(
    record: dict[str, Any], expected: dict[str, Any], decoded: bool
) -> None:
    if decoded:
        [record] = batch.DECODERS["DescribeJobsResponse"](json.dumps({"jobs": [record]}).encode())["jobs"]
    seen = batch.observation(record, "q")
    expected = {"handle": Handle("q", JOB), "status": record["status"], "started_by": TI} | expected
    assert {name: getattr(seen, name) for name in expected} == expected
    assert seen.created_at == 1_767_323_045.25


def test_only_what_is_used_of_a_reply_is_decoded() -> None:
    body = json.dumps({"jobs": [job("RUNNING", tags={"a": "b"}, container={"image": "i"})]}).encode()
    assert batch.DECODERS["DescribeJobsResponse"](body)["jobs"] == [job("RUNNING", container={})]


# --- the backend


def use(client: FakeClient, work: Callable[[batch.BatchBackend], Any], factory: FakeFactory | None = None) -> Any:
    async def run() -> Any:
        session: Any = factory or FakeFactory(client, "batch")
        backend = batch.BatchBackend(session, settings())
        async with backend.open():
            return await work(backend)

    return asyncio.run(run())


def test_launch_submits_the_request_under_the_attempts_name_and_leaves_the_spec_alone() -> None:
    client = FakeClient(submit_job={"jobId": JOB, "jobName": "n"})
    made = spec()
    before = copy.deepcopy(made)
    seen = use(client, lambda backend: backend.launch(made, f"{LAUNCH}-2"))
    assert client.calls == [("submit_job", {**made.request, "jobName": f"airflow-{TI}-5b2f7f2e-2"})]
    assert made == before
    assert seen == Observation(Handle("q", JOB), Seen.PENDING, status="SUBMITTED")


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (refusal("TooManyRequestsException", "Too Many Requests", "SubmitJob", 429), Kind.THROTTLED),
        (refusal("ClientException", "JobQueue q not found.", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "Job queue q does not exist.", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "JobQueue q is not in ENABLED state", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "JobDefinition d:1 is invalid or INACTIVE", "SubmitJob"), Kind.REFUSED),
        (refusal("ClientException", "Job Definition d does not exist", "SubmitJob"), Kind.REFUSED),
        (
            refusal("AccessDeniedException", "not authorized to perform batch:SubmitJob", "SubmitJob", 403),
            Kind.REFUSED,
        ),
        (refusal("ClientException", "Timeout must be at least 60 seconds", "SubmitJob"), Kind.INVALID),
        (refusal("ClientException", "Too many container overrides", "SubmitJob"), Kind.INVALID),
        (refusal("ServerException", "internal", "SubmitJob", 500), Kind.AMBIGUOUS),
        (refusal("ExpiredTokenException", "expired", "SubmitJob", 403), Kind.CREDENTIALS),
        (ReadTimeoutError(endpoint_url="x"), Kind.AMBIGUOUS),
        ({}, Kind.AMBIGUOUS),
        ({"jobId": None}, Kind.AMBIGUOUS),
    ],
)
def test_a_launch_that_does_not_succeed_says_what_that_means(answer: Any, kind: Kind) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(submit_job=answer), lambda backend: backend.launch(spec(), "l-1"))
    assert caught.value.kind is kind
    assert caught.value.__cause__ is None


def test_refused_credentials_are_looked_up_again() -> None:
    client = FakeClient(submit_job=refusal("ExpiredTokenException", "expired", "SubmitJob", 403))
    factory = FakeFactory(client, "batch")
    with pytest.raises(BackendError):
        use(client, lambda backend: backend.launch(spec(), "l-1"), factory)
    assert factory.forgotten == 1
    assert factory.closed


def test_describe_reports_what_is_there_and_what_is_not() -> None:
    client = FakeClient(describe_jobs={"jobs": [job("RUNNING")]})
    found = use(client, lambda backend: backend.describe("q", [OTHER, JOB]))
    assert client.calls == [("describe_jobs", {"jobs": [OTHER, JOB]})]
    assert {one.handle.id: one.seen for one in found} == {JOB: Seen.RUNNING, OTHER: Seen.MISSING}


def test_a_record_that_cannot_be_read_spoils_no_other_is_not_missing_and_is_logged_once() -> None:
    third = OTHER.replace("1", "2")
    client = FakeClient(describe_jobs={"jobs": [{"jobId": OTHER, "status": 7}, job("RUNNING")]})

    async def twice(backend: batch.BatchBackend) -> Any:
        await backend.describe("q", [JOB, OTHER, third])
        return await backend.describe("q", [JOB, OTHER, third])

    with capture_logs() as logs:
        found = use(client, twice)
    assert {one.handle.id: one.seen for one in found} == {JOB: Seen.RUNNING, third: Seen.MISSING}
    assert [(entry["event"], entry["job_id"]) for entry in logs] == [("batch_executor.describe.malformed", OTHER)]


@pytest.mark.parametrize("record", [None, "job", {"status": "RUNNING"}, {"jobId": 7, "status": "RUNNING"}])
def test_nobody_is_missing_because_of_a_record_that_says_not_whose_it_is(record: Any) -> None:
    client = FakeClient(describe_jobs={"jobs": [record, job("RUNNING")]})
    with capture_logs():
        found = use(client, lambda backend: backend.describe("q", [JOB, OTHER]))
    assert [one.handle.id for one in found] == [JOB]


@pytest.mark.parametrize(
    ("method", "work"),
    [
        ("describe_jobs", lambda backend: backend.describe("q", [JOB])),
        ("list_jobs", lambda backend: backend.find("q", TI)),
        ("describe_jobs", lambda backend: backend.check()),
    ],
)
def test_a_reply_that_is_no_reply_is_not_taken_for_an_empty_one(method: str, work: Any) -> None:
    with pytest.raises(BackendError) as caught:
        use(FakeClient(**{method: {"ResponseMetadata": {}}}), work)
    assert caught.value.kind is Kind.AMBIGUOUS


@pytest.mark.parametrize(
    ("asked", "filtered"),
    [(f"nightly-{TI}", f"nightly-{TI}-*"), (TI, f"airflow-{TI}-*")],
)
def test_find_lists_by_the_beginning_of_the_name_through_all_pages(asked: str, filtered: str) -> None:
    def answer(**parameters: Any) -> Any:
        if "nextToken" in parameters:
            return {"jobSummaryList": [{"jobId": OTHER}]}
        return {"jobSummaryList": [{"jobId": JOB}], "nextToken": "more"}

    client = FakeClient(list_jobs=answer)
    found = use(client, lambda backend: backend.find("gpu", asked))
    assert found == [Handle("gpu", JOB), Handle("gpu", OTHER)]
    first, second = client.asked("list_jobs")
    assert first == {"jobQueue": "gpu", "filters": [{"name": "JOB_NAME", "values": [filtered]}]}
    assert second == {**first, "nextToken": "more"}


@pytest.mark.parametrize("record", [None, "job", {"jobName": "x"}, {"jobId": 7}])
def test_a_search_whose_answer_has_a_job_without_its_identifier_says_so(record: Any) -> None:
    client = FakeClient(list_jobs={"jobSummaryList": [{"jobId": JOB}, record]})
    with pytest.raises(BackendError, match="cannot be read") as caught:
        use(client, lambda backend: backend.find("q", TI))
    assert caught.value.kind is Kind.REFUSED


def test_stop_terminates_and_keeps_the_reason_short() -> None:
    client = FakeClient(terminate_job={})
    use(client, lambda backend: backend.stop(Handle("q", JOB), "why" * 200))
    [(_, parameters)] = client.calls
    assert parameters == {"jobId": JOB, "reason": stop_reason("why" * 200)}
    assert len(parameters["reason"]) == 255


@pytest.mark.parametrize("words", [f"Job {JOB} not found", "The job doesn't exist", "Job does not exist: x"])
def test_stopping_what_does_not_exist_is_not_found(words: str) -> None:
    client = FakeClient(terminate_job=refusal("ClientException", words, "TerminateJob"))
    with pytest.raises(BackendError) as caught:
        use(client, lambda backend: backend.stop(Handle("q", JOB), "why"))
    assert caught.value.kind is Kind.NOT_FOUND


def test_the_check_describes_a_job_that_cannot_exist() -> None:
    client = FakeClient(describe_jobs={"jobs": []})
    use(client, lambda backend: backend.check())
    assert client.calls == [("describe_jobs", {"jobs": ["a" * 32]})]


def test_a_failed_check_says_why() -> None:
    client = FakeClient(describe_jobs=refusal("AccessDeniedException", "no", "DescribeJobs", 403))
    with pytest.raises(BackendError, match="AccessDeniedException: no"):
        use(client, lambda backend: backend.check())


def test_jobs_are_looked_for_in_the_configured_queue() -> None:
    session: Any = FakeFactory(FakeClient(), "batch")
    backend = batch.BatchBackend(session, settings())
    assert backend.scope_of(None) == backend.scope_of(JOB) == "q"


def test_one_scheduler_asks_no_more_of_an_account_than_batch_answers() -> None:
    from ecs_async_executor.settings import BatchTuning

    assert batch.SERVICE.change_rate + BatchTuning().describe_rate <= 50
    assert batch.SERVICE.rate_of(spec().bucket) <= batch.SERVICE.change_rate
    assert not batch.SERVICE.repeatable
