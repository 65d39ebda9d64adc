"""Sends one configuration through the provider's executor and through ours, and records what leaves by wire."""

from __future__ import annotations

import asyncio
import copy
import json
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

if "airflow" not in sys.modules:  # or it would write its files to the home directory
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="airflow-"))

from ecs_async_executor import settings
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.clients import ClientFactory

COMMAND = ["python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string", "{}"]
SECTION = "AIRFLOW__AWS_ECS_EXECUTOR__"
BATCH_SECTION = "AIRFLOW__AWS_BATCH_EXECUTOR__"
JOB_ID = "876da822-4198-45f2-a252-6cea32512ea8"
ARN = "arn:aws:ecs:eu-west-1:123456789012:task/c/0123456789abcdef0123456789abcdef"


@dataclass
class Call:
    operation: str
    body: dict[str, Any]
    region: str


@dataclass
class Recorder:
    """An endpoint that notes each request and answers as ECS and Batch do."""

    url: str = ""
    calls: list[Call] = field(default_factory=list)
    default_strategy: list[dict[str, Any]] = field(default_factory=list)
    clusters: bool = True

    def of(self, operation: str) -> list[Call]:
        return [call for call in self.calls if call.operation == operation]

    def answer(self, operation: str, body: Mapping[str, Any]) -> dict[str, Any]:
        if operation == "submitjob":
            return {"jobId": JOB_ID, "jobName": body["jobName"]}
        if operation == "describejobs":
            return {"jobs": []}
        task = {"taskArn": ARN, "lastStatus": "PROVISIONING", "desiredStatus": "RUNNING", "containers": []}
        if operation == "DescribeClusters":
            found = {"clusterName": "c", "defaultCapacityProviderStrategy": self.default_strategy}
            return {"clusters": [found] if self.clusters else [], "failures": []}
        if operation == "DescribeTasks":
            return {"tasks": [task | {"taskArn": arn} for arn in body["tasks"]], "failures": []}
        return {"tasks": [task], "failures": []}


@pytest.fixture(scope="session", autouse=True)
def provider_defaults() -> None:
    """Load the providers' own defaults of options, as every program of Airflow's does when it starts."""
    from airflow import providers_manager

    manager: Any = providers_manager
    manager.ProvidersManager().initialize_providers_configuration()


@pytest.fixture(scope="session")
def endpoint() -> Iterator[Recorder]:
    recorder = Recorder()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        # Headers and body are two writes: with Nagle's algorithm each reply would wait for the peer's ACK.
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            target = self.headers["X-Amz-Target"]  # Batch has paths instead
            operation = target.rpartition(".")[2] if target else self.path.rpartition("/")[2]
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            region = self.headers["Authorization"].split("/")[2]
            recorder.calls.append(Call(operation, body, region))
            reply = json.dumps(recorder.answer(operation, body)).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/x-amz-json-1.1")
            self.send_header("Content-Length", str(len(reply)))
            self.end_headers()
            self.wfile.write(reply)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        recorder.url = f"http://127.0.0.1:{server.server_address[1]}"
        yield recorder
        server.shutdown()
        thread.join()


@dataclass
class Duel:
    """One configuration, for both."""

    recorder: Recorder
    configure: Callable[[Mapping[str, str]], None]

    def provider(self) -> Any:
        """Make the provider's executor."""
        from airflow.providers.amazon.aws.executors.ecs.ecs_executor import AwsEcsExecutor

        make: Any = AwsEcsExecutor
        return make(parallelism=1)

    def of_provider(self, executor_config: Any = None, executor: Any = None) -> dict[str, Any]:
        """Return the body of the RunTask request that the provider's executor sends."""
        executor = executor or self.provider()
        self.recorder.calls.clear()
        executor._run_task("key", list(COMMAND), "default", executor_config or {})
        return self._sent()

    def settings(self) -> settings.EcsSettings:
        from airflow.configuration import conf

        return settings.load(conf, ecs.wrong_parameters).ecs

    def spec(self, executor_config: Any = None) -> LaunchSpec:
        options = self.settings()
        request = ecs.workload_request(
            ecs.base_request(options), None, executor_config, options.container_name, COMMAND
        )
        return ecs.launch_spec(request, started_by="ours")

    def of_ours(self, executor_config: Any = None) -> dict[str, Any]:
        """Return the body of the RunTask request that ours sends."""
        spec = self.spec(executor_config)

        async def launch(backend: ecs.EcsBackend) -> None:
            await backend.launch(spec, "token-1")

        self.run(launch)
        return self._sent()

    def run(self, work: Callable[[ecs.EcsBackend], Any]) -> Any:
        """Use a backend of ours."""
        options, tuning = self.settings(), settings.Tuning()

        async def use() -> Any:
            backend = ecs.EcsBackend(ClientFactory.from_settings(options, tuning), options)
            async with backend.open():
                return await work(backend)

        self.recorder.calls.clear()
        return asyncio.run(use())

    def _sent(self) -> dict[str, Any]:
        calls = self.recorder.of("RunTask")
        assert len(calls) == 1
        return copy.deepcopy(calls[0].body)


@dataclass
class BatchDuel:
    """One configuration, for both; the names of jobs have our own suffix."""

    recorder: Recorder
    configure: Callable[[Mapping[str, str]], None]

    def provider(self) -> Any:
        """Make the provider's executor."""
        from airflow.providers.amazon.aws.executors.batch.batch_executor import AwsBatchExecutor

        make: Any = AwsBatchExecutor
        return make(parallelism=1)

    def of_provider(self, executor_config: Any = None, executor: Any = None) -> dict[str, Any]:
        """Return the body of the SubmitJob request that the provider's executor sends."""
        executor = executor or self.provider()
        self.recorder.calls.clear()
        executor._submit_job("key", list(COMMAND), "default", executor_config or {})
        return self._sent()

    def settings(self) -> settings.BatchSettings:
        from airflow.configuration import conf

        return settings.load_for_batch(conf, batch.wrong_parameters).batch

    def spec(self, executor_config: Any = None) -> LaunchSpec:
        request = batch.workload_request(batch.base_request(self.settings()), None, executor_config, COMMAND)
        return batch.launch_spec(request, started_by=MARK)

    def of_ours(self, executor_config: Any = None) -> dict[str, Any]:
        """Return the body of the SubmitJob request that ours sends."""
        spec = self.spec(executor_config)

        async def launch(backend: batch.BatchBackend) -> None:
            await backend.launch(spec, TOKEN)

        self.run(launch)
        return self._sent()

    def run(self, work: Callable[[batch.BatchBackend], Any]) -> Any:
        """Use a backend of ours."""
        options, tuning = self.settings(), settings.BatchTuning()

        async def use() -> Any:
            backend = batch.BatchBackend(ClientFactory.from_settings(options, tuning), options)
            async with backend.open():
                return await work(backend)

        self.recorder.calls.clear()
        return asyncio.run(use())

    def _sent(self) -> dict[str, Any]:
        calls = self.recorder.of("submitjob")
        assert len(calls) == 1
        return copy.deepcopy(calls[0].body)


MARK = "0199c0de-1111-7222-8333-444455556666"
TOKEN = "5b2f7f2e-5a0f-4a3e-9d2b-0f5c3f9a7d11-1"
SUFFIX = f"-{MARK}-5b2f7f2e-1"


@pytest.fixture
def batch_duel(endpoint: Recorder, monkeypatch: pytest.MonkeyPatch) -> BatchDuel:
    return BatchDuel(endpoint, prepare(endpoint, monkeypatch, BATCH_SECTION))


@pytest.fixture
def duel(endpoint: Recorder, monkeypatch: pytest.MonkeyPatch) -> Duel:
    return Duel(endpoint, prepare(endpoint, monkeypatch, SECTION))


def prepare(
    endpoint: Recorder, monkeypatch: pytest.MonkeyPatch, section: str
) -> Callable[[Mapping[str, str]], None]:
    """Point everything at the endpoint; return what sets the options of a section."""
    endpoint.calls.clear()
    endpoint.default_strategy = []
    endpoint.clusters = True
    for name in list(os.environ):
        if name.startswith((section, "AWS_")):
            monkeypatch.delenv(name)
    for name, value in {
        "AIRFLOW_CONN_AWS_DEFAULT": "aws://",
        "AWS_ACCESS_KEY_ID": "testing",
        "AWS_SECRET_ACCESS_KEY": "testing",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_MAX_ATTEMPTS": "1",
    }.items():
        monkeypatch.setenv(name, value)

    def configure(options: Mapping[str, str]) -> None:
        for key, value in options.items():
            monkeypatch.setenv(section + key.upper(), value)

    return configure
