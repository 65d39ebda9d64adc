from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ecs_async_executor.local import LocalEcs


class Clock:
    """A wall clock that stands still until it is told to move."""

    def __init__(self) -> None:
        self.now = 1_700_000_000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture(autouse=True)
def _no_aws_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith(("AWS_", "MOTO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def start() -> Iterator[Callable[..., LocalEcs]]:
    """Start a local ECS with task definition ``job`` (container ``main``)."""
    with ExitStack() as stack:

        def start(**options: Any) -> LocalEcs:
            ecs = stack.enter_context(LocalEcs(**options))
            ecs.register("job", "main")
            return ecs

        yield start


def request(*command: str, **params: Any) -> dict[str, Any]:
    """Make the parameters of a RunTask on Fargate."""
    override: dict[str, Any] = {"name": "main"}
    if command:
        override["command"] = list(command)
    return {
        "taskDefinition": "job",
        "launchType": "FARGATE",
        "networkConfiguration": {"awsvpcConfiguration": {"subnets": ["subnet-1"]}},
        "overrides": {"containerOverrides": [override]},
        **params,
    }


@pytest.fixture(name="request_for")
def _request_for() -> Callable[..., dict[str, Any]]:
    return request


@pytest.fixture
def run() -> Callable[..., dict[str, Any]]:
    """Run one task with a client and give its record."""

    def run(client: Any, *command: str, **params: Any) -> dict[str, Any]:
        reply = client.run_task(**request(*command, **params))
        assert reply["failures"] == []
        task: dict[str, Any] = reply["tasks"][0]
        return task

    return run


@pytest.fixture
def submit() -> Callable[..., str]:
    """Submit one job with a client and give its id."""

    def submit(client: Any, name: str, *command: str, **params: Any) -> str:
        wanted: dict[str, Any] = {"jobName": name, "jobQueue": "default", "jobDefinition": "airflow", **params}
        if command:
            wanted["containerOverrides"] = {"command": list(command)}
        job: str = client.submit_job(**wanted)["jobId"]
        return job

    return submit
