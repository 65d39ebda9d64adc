"""
``python -m benchmarks.stub``: just enough of ECS, as fast as one asyncio process can be.

The local ECS checks AWS's rules and takes a millisecond of CPU for each request. Beside a client that needs half
of that, a benchmark would measure the server. The stub checks nothing but rates, and those only on request. Its
records have the members and the size of a Fargate task on AWS.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import signal
import time
import uuid
from functools import partial
from pathlib import Path
from typing import Any

from aiohttp import web

from benchmarks.player import Player
from ecs_async_executor.local.place import Place
from ecs_async_executor.local.rates import MODIFY, READ, Buckets, Rate

REGION = "us-east-1"
ACCOUNT = "123456789012"
ARN = f"arn:aws:ecs:{REGION}:{ACCOUNT}"
_ID = "0" * 32
_OVERRIDES = '"@overrides"'
_BUCKETS = {"RunTask": ("FARGATE", MODIFY), "StopTask": (MODIFY,), "DescribeTasks": (READ,)}
_MARK = '"@mark"'
_CREATED = '"@created"'


def _template() -> str:
    details = {
        "subnetId": "subnet-0a1b2c3d4e5f60718",
        "networkInterfaceId": "eni-0a1b2c3d4e5f60718",
        "macAddress": "0a:1b:2c:3d:4e:5f",
        "privateDnsName": "ip-10-0-0-1.ec2.internal",
        "privateIPv4Address": "10.0.0.1",
    }
    moment = 1795238209.271
    record: dict[str, Any] = {
        "attachments": [
            {
                "id": str(uuid.UUID(_ID)),
                "type": "ElasticNetworkInterface",
                "status": "ATTACHED",
                "details": [{"name": name, "value": value} for name, value in details.items()],
            }
        ],
        "attributes": [{"name": "ecs.cpu-architecture", "value": "x86_64"}],
        "availabilityZone": "us-east-1a",
        "clusterArn": f"{ARN}:cluster/default",
        "connectivity": "CONNECTED",
        "connectivityAt": moment,
        "containers": [
            {
                "containerArn": f"{ARN}:container/default/{_ID}/{_ID}",
                "taskArn": f"{ARN}:task/default/{_ID}",
                "name": "airflow",
                "image": "123456789012.dkr.ecr.us-east-1.amazonaws.com/airflow:latest",
                "imageDigest": "sha256:" + "a" * 64,
                "runtimeId": f"{_ID}-3232353113",
                "networkBindings": [],
                "networkInterfaces": [{"attachmentId": str(uuid.UUID(_ID)), "privateIpv4Address": "10.0.0.1"}],
                "healthStatus": "UNKNOWN",
                "managedAgents": [],
                "cpu": "256",
                "memory": "512",
                "@container": "@state",
            }
        ],
        "cpu": "256",
        "memory": "512",
        "createdAt": "@created",
        "enableExecuteCommand": False,
        "ephemeralStorage": {"sizeInGiB": 20},
        "fargateEphemeralStorage": {"sizeInGiB": 20},
        "group": "family:benchmark",
        "healthStatus": "UNKNOWN",
        "launchType": "FARGATE",
        "overrides": "@overrides",
        "platformFamily": "Linux",
        "platformVersion": "1.4.0",
        "pullStartedAt": moment,
        "pullStoppedAt": moment,
        "startedAt": moment,
        "startedBy": "@mark",
        "tags": [],
        "taskArn": f"{ARN}:task/default/{_ID}",
        "taskDefinitionArn": f"{ARN}:task-definition/benchmark:1",
        "version": 4,
        "@task": "@state",
    }
    return json.dumps(record, separators=(",", ":"))


_TEMPLATE = _template()
_RUNNING = {
    '"@container":"@state"': '"lastStatus":"RUNNING"',
    '"@task":"@state"': '"desiredStatus":"RUNNING","lastStatus":"RUNNING"',
}
_STOPPED = {
    '"@container":"@state"': '"lastStatus":"STOPPED","exitCode":0',
    '"@task":"@state"': (
        '"desiredStatus":"STOPPED","lastStatus":"STOPPED","stopCode":"EssentialContainerExited",'
        '"stoppedReason":"Essential container in task exited"'
    ),
}
_FAILED = {
    **_STOPPED,
    '"@container":"@state"': '"lastStatus":"STOPPED","exitCode":1',
}
_DEFINITION = {
    "taskDefinition": {
        "taskDefinitionArn": f"{ARN}:task-definition/benchmark:1",
        "status": "ACTIVE",
        "containerDefinitions": [
            {
                "name": "airflow",
                "image": "airflow",
                "logConfiguration": {
                    "logDriver": "awslogs",
                    "options": {
                        "awslogs-group": "/benchmark",
                        "awslogs-region": REGION,
                        "awslogs-stream-prefix": "b",
                    },
                },
            }
        ],
    }
}
_OUTPUT = {
    "events": [
        {
            "timestamp": 1795238209271 + line,
            "message": f"line {line} of a traceback in user code",
            "ingestionTime": 0,
        }
        for line in range(50)
    ],
    "nextForwardToken": "f/1",
    "nextBackwardToken": "b/1",
}
_TYPICAL_OVERRIDES = {
    "containerOverrides": [
        {
            "name": "airflow",
            "command": [
                "python",
                "-m",
                "airflow.sdk.execution_time.execute_workload",
                "--json-string",
                "x" * 1000,
            ],
            "environment": [{"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}],
        }
    ],
    "inferenceAcceleratorOverrides": [],
}


class Stub:
    """
    Tasks that run for ``duration`` seconds (None: for ever) and exit 0, or 1.

    :param latency: seconds before every answer
    :param failing: share of the tasks that exit 1
    """

    def __init__(self, latency: float, duration: float | None, failing: float = 0.0) -> None:
        self.latency = latency
        self.duration = duration
        self.failing = failing
        self._tasks: dict[str, tuple[str, float, list[str | None]]] = {}
        self._arrivals: list[float] = []
        self._calls: dict[str, int] = {}
        self._throttled: list[tuple[float, str]] = []
        self._quotas = Buckets({})
        self._items = 0
        self._player: Player | None = None

    async def serve(self, request: web.BaseRequest) -> web.StreamResponse:
        """Answer one request."""
        body = await request.read()
        parameters = json.loads(body or b"{}")
        if request.path.startswith("/_local/"):
            if request.path == "/_local/play":
                await self._play(parameters["dsn"])
            return _reply(json.dumps(self._controlled(request.path, parameters)))
        operation = request.headers.get("X-Amz-Target", "").rpartition(".")[2]
        self._calls[operation] = self._calls.get(operation, 0) + 1
        refused = not self._quotas.take(Place(ACCOUNT, REGION), _BUCKETS.get(operation, ()), time.monotonic())
        if refused:
            self._throttled.append((time.time(), operation))
        elif operation == "RunTask":
            self._arrivals.append(time.time())
        if self.latency:
            await asyncio.sleep(self.latency)
        if refused:
            return _reply(json.dumps({"__type": "ThrottlingException", "message": "Rate exceeded"}), 400)
        match operation:
            case "RunTask":
                record = self._run(
                    parameters.get("overrides", {}), str(parameters.get("startedBy", "")), self.duration
                )
                return _reply(f'{{"tasks":[{record}],"failures":[]}}')
            case "DescribeTasks":
                return _reply(self._describe(parameters["tasks"]))
            case "DescribeTaskDefinition":
                return _reply(json.dumps(_DEFINITION))
            case "GetLogEvents":
                return _reply(json.dumps(_OUTPUT))
            case "StopTask":
                text = json.dumps(
                    {"__type": "InvalidParameterException", "message": "The referenced task was not found."}
                )
                return _reply(text, 400)
        return _reply(json.dumps({"__type": "UnsupportedFeatureException", "message": operation}), 400)

    def _run(self, overrides: Any, mark: str, duration: float | None) -> str:
        name = uuid.uuid4().hex
        now = time.time()
        base = (
            _TEMPLATE.replace(_ID, name)
            .replace(_OVERRIDES, json.dumps(overrides, separators=(",", ":")))
            .replace(_MARK, json.dumps(mark))
            .replace(_CREATED, f"{now:.3f}")
        )
        ends = now + duration if duration is not None else float("inf")
        arn = f"{ARN}:task/default/{name}"
        self._tasks[arn] = (base, ends, [None, None])
        if self._player is not None:
            # The container stops once Airflow knows of its end, however long that takes.
            self._tasks[arn] = (base, float("inf"), [None, None])
            self._player.play(overrides, partial(self._stop, arn))
        return _with(base, _RUNNING)

    def _stop(self, arn: str) -> None:
        base, _, cache = self._tasks[arn]
        self._tasks[arn] = (base, time.time(), cache)

    async def _play(self, dsn: str | None) -> None:
        if self._player is not None:
            await self._player.close()
        self._player = None if dsn is None else await Player.to(dsn, self.duration or 0.0)

    def _describe(self, arns: list[str]) -> str:
        self._items += len(arns)
        now = time.time()
        tasks: list[str] = []
        failures: list[dict[str, str]] = []
        for arn in arns:
            found = self._tasks.get(arn)
            if found is None:
                failures.append({"arn": arn, "reason": "MISSING"})
                continue
            base, ends, cache = found
            over = now >= ends
            text = cache[over]
            if text is None:
                end = _FAILED if int(arn[-4:], 16) < self.failing * 0x10000 else _STOPPED
                text = cache[over] = _with(base, end if over else _RUNNING)
            tasks.append(text)
        return f'{{"tasks":[{",".join(tasks)}],"failures":{json.dumps(failures)}}}'

    def _controlled(self, path: str, data: dict[str, Any]) -> Any:
        match path.removeprefix("/_local/"):
            case "preload":
                for _ in range(data["number"]):
                    self._run(_TYPICAL_OVERRIDES, str(uuid.uuid4()), None)
                return {"arns": list(self._tasks)}
            case "figures":
                return {"calls": self._calls, "items": self._items, "running": len(self._tasks)}
            case "throttled":
                return {"throttled": self._throttled}
            case "quotas":
                # New, full buckets: earlier calls do not count.
                self._quotas = Buckets({name: Rate(*rate) for name, rate in data.items()})
            case "arrivals":
                return {"arrivals": self._arrivals}
            case "played":
                return {"refused": self._player.refused if self._player else []}
        return {}


def _with(base: str, states: dict[str, str]) -> str:
    for mark, text in states.items():
        base = base.replace(mark, text)
    return base


def _reply(text: str, status: int = 200) -> web.Response:
    return web.Response(
        body=text.encode(),
        status=status,
        headers={"Content-Type": "application/x-amz-json-1.1", "x-amzn-RequestId": str(uuid.uuid4())},
    )


async def until_stopped(port_file: Path, stub: Stub) -> None:
    """Serve until a signal comes."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopped.set)
    runner = web.ServerRunner(web.Server(stub.serve, access_log=None), shutdown_timeout=1.0)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        temporary = port_file.with_suffix(".tmp")
        temporary.write_text(str(runner.addresses[0][1]))
        temporary.replace(port_file)
        await stopped.wait()
    finally:
        await runner.cleanup()


def main() -> None:
    """Serve until a signal comes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port-file", type=Path, required=True)
    parser.add_argument("--latency", type=float, default=0.05)
    parser.add_argument("--duration", type=float)
    parser.add_argument("--failing", type=float, default=0.0)
    options = parser.parse_args()
    asyncio.run(until_stopped(options.port_file, Stub(options.latency, options.duration, options.failing)))


if __name__ == "__main__":
    main()
