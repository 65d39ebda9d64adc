"""The front: connections, concurrency, the rest of moto, isolation, the command line."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.config import Config

from ecs_async_executor.local import LocalEcs, ScriptedRunner

Start = Callable[..., LocalEcs]
Run = Callable[..., dict[str, Any]]


def test_connections_are_kept_alive(start: Start, run: Run) -> None:
    ecs = start()
    client = ecs.client()
    before = ecs.statistics.connections
    for _ in range(10):
        run(client)
        client.list_tasks()
        client.describe_clusters()
    assert ecs.statistics.connections - before == 1


def test_aiobotocore_keeps_no_more_connections_than_its_pool(start: Start, request_for: Run) -> None:
    ecs = start(latency=0.01)

    async def main() -> None:
        async with get_session().create_client(
            "ecs",
            endpoint_url=ecs.url,
            region_name=ecs.region,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=AioConfig(max_pool_connections=8),
        ) as client:
            replies = await asyncio.gather(*(client.run_task(**request_for(str(n))) for n in range(100)))
            assert len({r["tasks"][0]["taskArn"] for r in replies}) == 100

    before = ecs.statistics.connections
    asyncio.run(main())
    assert ecs.statistics.connections - before == 8
    figures = ecs.statistics.operation("RunTask")
    assert (figures.calls, figures.peak, figures.in_flight) == (100, 8, 0)


def test_tasks_can_be_described_while_others_are_started(start: Start, request_for: Run) -> None:
    ecs = start(script=[{"duration": 0.05}])

    async def main() -> None:
        async with get_session().create_client(
            "ecs",
            endpoint_url=ecs.url,
            region_name=ecs.region,
            aws_access_key_id="a",
            aws_secret_access_key="b",
            config=AioConfig(max_pool_connections=20, retries={"total_max_attempts": 1}),
        ) as client:
            arns: list[str] = []

            async def launch() -> None:
                for _ in range(25):
                    reply = await client.run_task(**request_for("x"))
                    arns.append(reply["tasks"][0]["taskArn"])

            async def watch() -> None:
                while len(arns) < 200:
                    if arns:
                        reply = await client.describe_tasks(tasks=arns[-100:])
                        assert reply["failures"] == []
                        await client.describe_clusters()
                    await asyncio.sleep(0)

            await asyncio.gather(*(launch() for _ in range(8)), *(watch() for _ in range(3)))

    asyncio.run(main())
    assert ecs.statistics.operation("DescribeTasks").errors == {}
    assert len(ecs.ledger) == 200


def test_the_rest_of_moto_is_served(start: Start) -> None:
    ecs = start()
    assert ecs.client("sts").get_caller_identity()["Account"] == ecs.account
    assert ecs.client("ec2").describe_vpcs()["Vpcs"]
    logs = ecs.client("logs")
    logs.create_log_group(logGroupName="/ecs/job")
    assert [g["logGroupName"] for g in logs.describe_log_groups()["logGroups"]] == ["/ecs/job"]
    s3 = ecs.client("s3", config=Config(s3={"addressing_style": "path"}))
    s3.create_bucket(Bucket="bucket")
    content = os.urandom(3 * 2**20)
    s3.put_object(Bucket="bucket", Key="a key/ü", Body=content)
    assert s3.get_object(Bucket="bucket", Key="a key/ü")["Body"].read() == content
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="bucket")["Contents"]] == ["a key/ü"]
    ecs_client = ecs.client()
    assert ecs_client.describe_task_definition(taskDefinition="job")["taskDefinition"]["family"] == "job"


def test_servers_in_one_process_share_nothing(start: Start, run: Run) -> None:
    one, two = start(clusters=["mine"]), start()
    arn = run(one.client())["taskArn"]
    assert one.account != two.account
    assert two.client().describe_tasks(tasks=[arn])["failures"]
    assert len(two.client().list_clusters()["clusterArns"]) == 1
    assert two.client("sts").get_caller_identity()["Account"] == two.account
    assert (len(one.ledger), len(two.ledger)) == (1, 0)


def test_nothing_is_left_of_a_server_that_has_stopped() -> None:
    with LocalEcs(clusters=["mine"]) as ecs:
        account = ecs.account
        url = ecs.url
    threads = [t.name for t in threading.enumerate()]
    assert not [name for name in threads if name.startswith(("local-ecs", "moto", "job-"))]
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url, timeout=5)  # noqa: S310
    with LocalEcs() as again:
        assert again.account == account
        assert len(again.client().list_clusters()["clusterArns"]) == 1


def test_a_server_can_be_stopped_twice_and_read_afterwards(run: Run) -> None:
    ecs = LocalEcs()
    ecs.start()
    ecs.register("job", "main")
    run(ecs.client())
    ecs.stop()
    ecs.stop()
    assert [e.exit_code for e in ecs.ledger.entries()] == [0]


def test_a_port_in_use_is_reported_and_leaves_nothing() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="in use"):
            LocalEcs(port=taken.getsockname()[1]).start()
    assert "local-ecs" not in [t.name for t in threading.enumerate()]


def test_a_runner_of_ones_own_can_be_given(start: Start, run: Run) -> None:
    ecs = start(runner=ScriptedRunner([{"exit_code": 6}]))
    run(ecs.client())
    assert [e.exit_code for e in ecs.ledger.entries()] == [6]
    with pytest.raises(ValueError, match="runner must be"):
        LocalEcs(runner="docker")


def test_the_ledger_can_be_a_file(run: Run, clock: Any, tmp_path: Path) -> None:
    path = tmp_path / "ledger.jsonl"
    with LocalEcs(ledger_path=path, clock=clock, script=[{"duration": 5, "exit_code": 3}]) as ecs:
        ecs.register("job", "main")
        run(ecs.client(), "a", startedBy="mark", clientToken="t")
        clock.advance(6)
        run(ecs.client(), "b")
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [(x["event"], x["command"], x["exit_code"]) for x in lines] == [
        ("accepted", ["a"], None),
        ("ended", ["a"], 3),
        ("accepted", ["b"], None),
    ]
    assert (lines[0]["started_by"], lines[0]["token"]) == ("mark", "t")
    assert lines[0]["digest"] == lines[1]["digest"] != lines[2]["digest"]


def test_the_environment_lets_another_process_find_the_server(start: Start, run: Run) -> None:
    ecs = start(script=[{"duration": None}])
    run(ecs.client())
    program = "import boto3; print(len(boto3.client('ecs').list_tasks()['taskArns']))"
    result = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **ecs.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert result.stdout.strip() == "1"


def test_a_request_that_no_client_library_would_send_gets_an_answer(start: Start) -> None:
    ecs = start()
    for body in (b"{", b"[]", b'{"taskDefinition": "job", "overrides": {"containerOverrides": [1]}}'):
        request = urllib.request.Request(  # noqa: S310
            ecs.url,
            data=body,
            headers={"X-Amz-Target": "AmazonEC2ContainerServiceV20141113.RunTask"},
        )
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)  # noqa: S310
        with caught.value:
            assert caught.value.code == 400
            assert json.load(caught.value)["__type"] == "SerializationException"


# --- the program ---------------------------------------------------------------------------------------------


@contextmanager
def program(tmp_path: Path, *arguments: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    port_file = tmp_path / "port"
    command = [sys.executable, "-m", "ecs_async_executor.local", "--port-file", str(port_file), *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            assert line.startswith("local ECS on http://127.0.0.1:"), process.stderr and process.stderr.read()
            assert line.strip().endswith(":" + port_file.read_text())
            yield process, line.split()[-1]
        finally:
            process.terminate()
            process.wait(20)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_program_serves_until_a_signal_and_leaves_no_process(tmp_path: Path, number: int) -> None:
    definition = {
        "family": "job",
        "containerDefinitions": [{"name": "main", "image": "i", "memory": 128, "command": ["sleep", "600"]}],
    }
    path = tmp_path / "definition.json"
    path.write_text(json.dumps(definition))
    arguments = ["--cluster", "mine", "--task-definition", str(path), "--log-dir", str(tmp_path / "logs")]
    with program(tmp_path, *arguments) as (process, url):
        client = boto3.client(
            "ecs",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id="a",
            aws_secret_access_key="b",
        )
        client.run_task(cluster="mine", taskDefinition="job")
        server = psutil.Process(process.pid)
        deadline = time.monotonic() + 60
        while not (children := server.children(recursive=True)):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        process.send_signal(number)
        output, errors = process.communicate(timeout=20)
    assert (process.returncode, output, errors) == (0, "", "")
    assert not any(c.is_running() for c in children)
    assert not (tmp_path / "port").exists()


def test_the_program_takes_a_script(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('[{"exit_code": 4}]')
    arguments = [
        "--runner",
        "scripted",
        "--script",
        str(path),
        "--latency",
        "[0.01, 0.02]",
        "--capacity",
        "EC2=0",
        "--capacity",
        "mine=1",
    ]
    with program(tmp_path, *arguments) as (_, url):
        client = boto3.client(
            "ecs", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.register_task_definition(
            family="job", containerDefinitions=[{"name": "main", "image": "i", "memory": 128}]
        )
        begun = time.monotonic()
        assert client.run_task(taskDefinition="job")["failures"][0]["reason"] == "RESOURCE:MEMORY"
        assert time.monotonic() - begun >= 0.01
        task = client.run_task(taskDefinition="job", capacityProviderStrategy=[{"capacityProvider": "mine"}])[
            "tasks"
        ]
        (shown,) = client.describe_tasks(tasks=[task[0]["taskArn"]])["tasks"]
        assert shown["containers"][0]["exitCode"] == 4


def test_the_program_takes_scaling_groups_and_switches(tmp_path: Path) -> None:
    path = tmp_path / "groups.json"
    path.write_text('{"asg": {"scale_out": 0.3}}')
    arguments = ["--runner", "scripted", "--groups", str(path), "--behaviour", '{"empty_clusters": "refused"}']
    with program(tmp_path, *arguments) as (_, url):
        client = boto3.client(
            "ecs", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        client.register_task_definition(
            family="job", containerDefinitions=[{"name": "main", "image": "i", "memory": 128}]
        )
        with pytest.raises(client.exceptions.InvalidParameterException, match="No Container Instances"):
            client.run_task(taskDefinition="job")
        strategy: Any = [{"capacityProvider": "asg"}]
        (task,) = client.run_task(taskDefinition="job", capacityProviderStrategy=strategy)["tasks"]
        assert task["lastStatus"] == "PROVISIONING"
        deadline = time.monotonic() + 60
        while client.describe_tasks(tasks=[task["taskArn"]])["tasks"][0]["lastStatus"] != "STOPPED":
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_the_program_plays_batch_too(tmp_path: Path) -> None:
    script, definition = tmp_path / "script.json", tmp_path / "definition.json"
    script.write_text('[{"exit_code": 4}]')
    definition.write_text(
        json.dumps(
            {
                "jobDefinitionName": "mine",
                "type": "container",
                "containerProperties": {"image": "i", "vcpus": 1, "memory": 128, "command": ["x"]},
            }
        )
    )
    arguments = ["--runner", "scripted", "--script", str(script), "--job-delay", "0.2"]
    arguments += ["--job-queue", "mine", "--job-definition", str(definition)]
    with program(tmp_path, *arguments) as (_, url):
        client = boto3.client(
            "batch", endpoint_url=url, region_name="us-east-1", aws_access_key_id="a", aws_secret_access_key="b"
        )
        job = client.submit_job(jobName="one", jobQueue="mine", jobDefinition="mine")["jobId"]
        deadline = time.monotonic() + 60
        while (shown := client.describe_jobs(jobs=[job])["jobs"][0])["status"] != "FAILED":
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert (shown["container"]["command"], shown["container"]["exitCode"]) == (["x"], 4)
        assert shown["startedAt"] - shown["createdAt"] == pytest.approx(200, abs=1)


def test_the_program_says_what_is_wrong_with_its_arguments(tmp_path: Path) -> None:
    path = tmp_path / "script.json"
    path.write_text('[{"exit": 4}]')
    command = [sys.executable, "-m", "ecs_async_executor.local", "--runner", "scripted", "--script", str(path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert result.stderr.startswith("local ECS: unknown in a rule: exit")


@pytest.mark.parametrize(
    ("option", "said"),
    [("azure", "unknown behaviour: 'azure'"), ('{"foreign_arns": "x"}', "foreign_arns must be one of")],
)
def test_the_program_says_which_switch_is_wrong(option: str, said: str) -> None:
    command = [sys.executable, "-m", "ecs_async_executor.local", "--behaviour", option]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert result.returncode == 2
    assert said in result.stderr
