"""Regions and accounts of one server: each has clusters, tasks, jobs, tokens, limits and faults of its own."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from ecs_async_executor.local import LocalEcs, Rate
from ecs_async_executor.local.place import signed_by

FOREVER = [{"duration": None}]
HERE, THERE, OTHER = "us-east-1", "eu-west-1", "999988887777"
FULL = "Capacity is unavailable at this time. Please try again later or in a different availability zone"

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]
Submit = Callable[..., str]


@pytest.fixture
def two(start: Start) -> Callable[..., LocalEcs]:
    """Start a server with task definition ``job`` in two Regions."""

    def two(**options: Any) -> LocalEcs:
        ecs = start(**{"script": FOREVER, "regions": [THERE], **options})
        ecs.register("job", place=ecs.place(THERE))
        return ecs

    return two


def through(provider: str) -> dict[str, Any]:
    return {
        "taskDefinition": "job",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "capacityProviderStrategy": [{"capacityProvider": provider}],
    }


def refused(call: Callable[..., Any], **params: Any) -> str:
    with pytest.raises(ClientError) as caught:
        call(**params)
    code: str = caught.value.response["Error"]["Code"]
    return code


def test_a_task_lives_in_the_region_that_the_request_was_signed_for(two: Start, run: Run) -> None:
    ecs = two()
    here, there = ecs.client(), ecs.client(region_name=THERE)
    arns = [run(client)["taskArn"] for client in (here, there)]
    assert [arn.split(":")[3] for arn in arns] == [HERE, THERE]
    assert [entry.region for entry in ecs.ledger.entries()] == [HERE, THERE]
    assert {entry.account for entry in ecs.ledger.entries()} == {ecs.account}
    for client, own, foreign in ((here, *arns), (there, *reversed(arns))):
        assert client.list_tasks()["taskArns"] == [own]
        reply = client.describe_tasks(tasks=arns)
        assert [task["taskArn"] for task in reply["tasks"]] == [own]
        assert reply["failures"] == [{"arn": foreign, "reason": "MISSING"}]
        assert refused(client.stop_task, task=foreign) == "InvalidParameterException"


def test_a_client_token_is_known_in_its_region_only(two: Start, run: Run) -> None:
    ecs = two()
    here, there = ecs.client(), ecs.client(region_name=THERE)
    first = run(here, clientToken="once")
    assert run(there, clientToken="once")["taskArn"] != first["taskArn"]
    assert run(here, clientToken="once")["taskArn"] == first["taskArn"]
    assert len(ecs.ledger) == 2


def test_job_queue_definition_and_jobs_are_apart_too(two: Start, submit: Submit) -> None:
    aws = two()
    here, there = aws.client("batch"), aws.client("batch", region_name=THERE)
    jobs = [submit(client, "one") for client in (here, there)]
    assert [job["jobId"] for job in here.describe_jobs(jobs=jobs)["jobs"]] == jobs[:1]
    (found,) = there.describe_jobs(jobs=jobs)["jobs"]
    assert (found["jobId"], found["jobArn"].split(":")[3]) == (jobs[1], THERE)
    assert refused(here.terminate_job, jobId=jobs[1], reason="not here") == "ClientException"


def test_room_counts_in_each_region_on_its_own(two: Start, request_for: Run, submit: Submit) -> None:
    aws = two(capacity={"FARGATE": 1, f"{THERE}/FARGATE_SPOT": 0, "default": 1, f"{THERE}/default": 2})
    here, there = aws.client(), aws.client(region_name=THERE)
    for client in (here, there):
        assert client.run_task(**request_for())["failures"] == []
        assert client.run_task(**request_for())["failures"] == [{"reason": FULL}]
    assert here.run_task(**through("FARGATE_SPOT"))["failures"] == [{"reason": FULL}], (
        "on-demand and spot share FARGATE's limit here"
    )
    assert there.run_task(**through("FARGATE_SPOT"))["failures"] == [{"reason": FULL}]
    for region, states in ((HERE, ["RUNNING", "RUNNABLE"]), (THERE, ["RUNNING", "RUNNING"])):
        batch = aws.client("batch", region_name=region)
        jobs = [submit(batch, name) for name in ("one", "two")]
        assert [job["status"] for job in batch.describe_jobs(jobs=jobs)["jobs"]] == states


def test_room_can_be_taken_and_given_at_any_time(two: Start, request_for: Run, submit: Submit) -> None:
    aws = two()
    there = aws.client("batch", region_name=THERE)
    aws.limit(**{"FARGATE": 0, "default": 0, f"{HERE}/FARGATE": None})
    assert aws.client().run_task(**request_for())["failures"] == [{"reason": FULL}]
    job = submit(there, "waits")
    assert there.describe_jobs(jobs=[job])["jobs"][0]["status"] == "RUNNABLE"
    put(f"{aws.url}/_local/capacity", {"FARGATE": None, "default": 1})
    assert aws.client().run_task(**request_for())["failures"] == []
    assert there.describe_jobs(jobs=[job])["jobs"][0]["status"] == "RUNNING"
    with pytest.raises(urllib.error.HTTPError, match="400"):
        put(f"{aws.url}/_local/capacity", {"FARGATE": "some"})


def put(url: str, data: object) -> None:
    wanted = urllib.request.Request(url, json.dumps(data).encode(), method="PUT")  # noqa: S310 - ours
    with urllib.request.urlopen(wanted, timeout=5):  # noqa: S310
        pass


def test_an_auto_scaling_group_has_hosts_of_its_own_in_each_region(two: Start, run: Run) -> None:
    ecs = two(groups={"asg": {"hosts": 1, "tasks_per_host": 1}})
    states = []
    for client in (ecs.client(), ecs.client(region_name=THERE)):
        for _ in range(2):
            arn = client.run_task(**through("asg"))["tasks"][0]["taskArn"]
            states.append(client.describe_tasks(tasks=[arn])["tasks"][0]["lastStatus"])
    assert states == ["RUNNING", "PROVISIONING"] * 2


def test_a_rate_is_one_region_s(two: Start, request_for: Run) -> None:
    ecs = two(limits={"FARGATE": Rate(0.001, 1)})
    for region in (HERE, THERE):
        client = ecs.client(region_name=region, config=Config(retries={"total_max_attempts": 1}))
        assert client.run_task(**request_for())["failures"] == []
        assert refused(client.run_task, **request_for()) == "ThrottlingException"


def test_a_fault_can_be_one_region_s(two: Start, run: Run) -> None:
    ecs = two()
    number = ecs.faults.error("RunTask", "AccessDeniedException", "no", region=THERE)
    assert run(ecs.client())
    there = ecs.client(region_name=THERE)
    assert refused(there.run_task, taskDefinition="job") == "AccessDeniedException"
    assert ecs.faults.struck(number) == 1


def test_a_role_leads_into_its_account(two: Start, run: Run) -> None:
    ecs = two()
    place = ecs.place(THERE, OTHER)
    there = ecs.client(account=OTHER, region_name=THERE)
    assert refused(there.list_tasks) == "ClusterNotFoundException"
    ecs.create_cluster("default", place=place)
    ecs.register("job", place=place)
    ecs.faults.error("RunTask", "AccessDeniedException", "no", account=ecs.account)
    arn = run(there)["taskArn"]
    assert arn.split(":")[3:5] == [THERE, OTHER]
    assert ecs.client(region_name=THERE).list_tasks()["taskArns"] == []
    assert [(entry.account, entry.region) for entry in ecs.ledger.entries()] == [(OTHER, THERE)]
    me = ecs.client("sts", account=OTHER).get_caller_identity()
    assert (me["Account"], me["Arn"].startswith(f"arn:aws:sts::{OTHER}:assumed-role/local/")) == (OTHER, True)


def test_a_reset_makes_what_the_server_was_told_to_make_in_every_region(two: Start) -> None:
    ecs = two(clusters=["mine"], job_queues=["slow"])
    ecs.client(account=OTHER).create_cluster(clusterName="theirs")
    ecs.reset()
    for region in (HERE, THERE):
        arns = ecs.client(region_name=region).list_clusters()["clusterArns"]
        assert sorted(arn.rpartition("/")[2] for arn in arns) == ["default", "mine"]
        queues = ecs.client("batch", region_name=region).describe_job_queues()["jobQueues"]
        assert sorted(queue["jobQueueName"] for queue in queues) == ["default", "slow"]
    assert ecs.client(account=OTHER).list_clusters()["clusterArns"] == []


@pytest.mark.parametrize(
    ("authorization", "signed"),
    [
        ("AWS4-HMAC-SHA256 Credential=AKIA/20250101/eu-west-1/ecs/aws4_request, Signature=0", ("AKIA", THERE)),
        ("AWS4-HMAC-SHA256 Credential=a/b/20250101/eu-west-1/ecs/aws4_request,", ("a/b", THERE)),
        ("", ("", None)),
        ("Bearer a/b", ("", None)),
    ],
)
def test_a_signature_names_key_and_region(authorization: str, signed: tuple[str, str | None]) -> None:
    assert signed_by(authorization) == signed
