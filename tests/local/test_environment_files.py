"""Environment files at the local ECS: read from moto's S3 before a container starts, as ECS does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.local import Fault, LocalEcs

BUCKET = "variables"
ARN = f"arn:aws:s3:::{BUCKET}/"
NOT_DOWNLOADED = "ResourceInitializationError: failed to download env files: "


@pytest.fixture(params=["subprocess", "scripted"])
def run(request: pytest.FixtureRequest) -> Any:
    """Return what a task with environment files becomes; the files are made before."""

    def start(ecs: LocalEcs, *names: str, **files: str) -> dict[str, Any]:
        s3, client = ecs.client("s3"), ecs.client()
        s3.create_bucket(Bucket=BUCKET)
        for name, text in files.items():
            s3.put_object(Bucket=BUCKET, Key=f"{name}.env", Body=text.encode())
        ecs.register("family", "main", ["env"], {"FROM": "definition"}, network_mode="bridge")
        override = {"name": "main", "environmentFiles": [{"type": "s3", "value": f"{ARN}{one}"} for one in names]}
        reply = client.run_task(
            taskDefinition="family",
            launchType="EC2",
            overrides={"containerOverrides": [override]},
        )
        arn = reply["tasks"][0]["taskArn"]
        ecs.wait_stopped()
        task: dict[str, Any] = client.describe_tasks(tasks=[arn])["tasks"][0]
        return task

    start.runner = request.param  # type: ignore[attr-defined]
    return start


def test_a_container_gets_the_variables_of_its_files_and_those_of_its_definition_win() -> None:
    with LocalEcs(runner="subprocess") as ecs:
        s3, client = ecs.client("s3"), ecs.client()
        s3.create_bucket(Bucket=BUCKET)
        text = "# NO=comment\nA=1\nFROM=file\nCUT=x=y\nEMPTY=\nNONE\n"
        s3.put_object(Bucket=BUCKET, Key="a.env", Body=text.encode())
        s3.put_object(Bucket=BUCKET, Key="b.env", Body=b"A=2\nB=2\n")
        ecs.register("family", "main", ["env"], {"FROM": "definition"}, network_mode="bridge")
        files = [{"type": "s3", "value": f"{ARN}{name}.env"} for name in "ab"]
        override: Any = {"name": "main", "environmentFiles": files}
        reply = client.run_task(
            taskDefinition="family", launchType="EC2", overrides={"containerOverrides": [override]}
        )
        ecs.wait_stopped()
        (task,) = reply["tasks"]
        seen = dict(line.split("=", 1) for line in ecs.log(task["taskArn"]).splitlines())
        assert task["overrides"]["containerOverrides"][0]["environmentFiles"] == files
    wanted = {"A": "1", "B": "2", "FROM": "definition", "CUT": "x"}
    assert {name: seen.get(name) for name in wanted} == wanted
    assert not {"NO", "# NO", "EMPTY", "NONE"} & seen.keys()


@pytest.mark.parametrize(
    ("names", "fault", "says"),
    [
        (["missing.env"], None, "StatusCode: 403, api error Forbidden"),
        (["a.txt"], None, "StatusCode: 403, api error Forbidden"),
        (["long.env"], None, "token too long"),
        (["a.env"], Fault(kind="error", operation="GetEnvironmentFile", code="SlowDown", status=503), "SlowDown"),
        (["a.env"], Fault(kind="hang", operation="GetEnvironmentFile", seconds=0.2), "deadline exceeded"),
    ],
    ids=["missing", "suffix", "long", "refused", "hang"],
)
def test_a_file_that_cannot_be_read_keeps_the_task_from_starting(
    run: Callable[..., dict[str, Any]], names: list[str], fault: Fault | None, says: str
) -> None:
    with LocalEcs(runner=run.runner) as ecs:  # type: ignore[attr-defined]
        if fault is not None:
            ecs.faults.add(fault)
        task = run(ecs, *names, a="A=1\n", long=f"A={'x' * 70_000}\n")
    assert (task["stopCode"], task["lastStatus"]) == ("TaskFailedToStart", "STOPPED")
    assert task["stoppedReason"].startswith(NOT_DOWNLOADED)
    assert says in task["stoppedReason"]
    assert "startedAt" not in task


def test_a_slow_download_delays_the_start(run: Callable[..., dict[str, Any]]) -> None:
    with LocalEcs(runner=run.runner) as ecs:  # type: ignore[attr-defined]
        ecs.faults.add(Fault(kind="latency", operation="GetEnvironmentFile", seconds=0.3))
        task = run(ecs, "a.env", a="A=1\n")
    assert (task["startedAt"] - task["createdAt"]).total_seconds() >= 0.3


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Fault(kind="throttle", operation="PutObject"), "SlowDown", 503),
        (Fault(kind="error", operation="PutObject", code="AccessDenied", status=403), "AccessDenied", 403),
        (Fault(kind="throttle", operation="PutObject", contains="variables/a.env"), "SlowDown", 503),
    ],
)
def test_faults_of_s3_come_in_its_own_form(fault: Fault, code: str, status: int) -> None:
    from botocore.config import Config
    from botocore.exceptions import ClientError

    with LocalEcs() as ecs:
        s3 = ecs.client("s3", config=Config(retries={"total_max_attempts": 1}))
        s3.create_bucket(Bucket=BUCKET)
        ecs.faults.add(fault)
        with pytest.raises(ClientError) as caught:
            s3.put_object(Bucket=BUCKET, Key="a.env", Body=b"")
    assert caught.value.response["Error"]["Code"] == code
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == status


def test_buckets_go_with_a_reset() -> None:
    with LocalEcs() as ecs:
        for _ in range(2):
            ecs.client("s3").create_bucket(Bucket=BUCKET)
            assert ecs.client("s3").list_objects_v2(Bucket=BUCKET)["KeyCount"] == 0
            ecs.reset()
