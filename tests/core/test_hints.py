"""What a person is told of an end: what it means, and what to do."""

from __future__ import annotations

import json
import time

import pytest

from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.hints import hint

LOGGER = {"timestamp": "2026-11-28T17:12:25Z", "level": "critical"}
REFUSED_BY_API = json.dumps(
    {
        **LOGGER,
        "event": "Unhandled exception",
        "logger": "unhandled_exception",
        "exception": [{"exc_type": "ConnectError", "exc_value": "[Errno 111] Connection refused"}],
    }
)
"""As Airflow 3.3 prints it, shortened."""
REFUSED_BY_A_DATABASE = json.dumps(
    {
        **LOGGER,
        "event": "Task failed with exception",
        "logger": "task",
        "error_detail": [{"exc_type": "ConnectError", "exc_value": "[Errno 111] Connection refused"}],
    }
)
PULL = "CannotPullContainerError: "
INIT = "ResourceInitializationError: "


@pytest.mark.parametrize(
    ("ending", "exit_code", "reason", "lines", "says"),
    [
        (Ending.OOM, 137, "OutOfMemoryError", [], "more memory"),
        (Ending.OOM, 137, "OutOfMemoryError", ["No module named airflow"], "more memory"),
        (Ending.EXIT, 137, "ECS container exited 137", [], "SIGKILL"),
        (Ending.EXIT, 139, "", [], "SIGSEGV"),
        (Ending.EXIT, 134, "", [], "SIGABRT"),
        (Ending.EXIT, 143, "", [], "SIGTERM"),
        (Ending.EXIT, 125, "", [], "runtime"),
        (Ending.EXIT, 126, "", [], "file mode"),
        (Ending.EXIT, 127, "", [], "no such command"),
        (Ending.EXIT, 1, "", ["exec /usr/bin/python: exec format error"], "CPU architecture"),
        (Ending.EXIT, 126, "exec /usr/bin/python: exec format error", [], "cpuArchitecture"),
        (Ending.START, None, "CannotStartContainerError: exec format error", [], "CPU architecture"),
        (Ending.EXIT, 1, "", ["a", "/usr/local/bin/python: No module named airflow"], "has no Airflow"),
        (Ending.EXIT, 1, "", ["ModuleNotFoundError: No module named 'airflow'"], "has no Airflow"),
        (
            Ending.EXIT,
            1,
            "",
            ["Error while finding module specification (ModuleNotFoundError: No module named 'airflow.sdk')"],
            "without airflow.sdk",
        ),
        (Ending.EXIT, 1, "", [REFUSED_BY_API], "execution_api_server_url"),
        (Ending.EXIT, 1, "", [REFUSED_BY_API[:400]], "execution_api_server_url"),
        (Ending.EXIT, 1, "", [REFUSED_BY_API.replace("111", "-2")], "execution_api_server_url"),
        (Ending.EXIT, 1, "", ["httpx.ConnectTimeout: timed out"], "execution_api_server_url"),
        (Ending.IMAGE, None, PULL + "manifest unknown", [], "name and tag"),
        (
            Ending.IMAGE,
            None,
            PULL + "AccessDeniedException: not authorized: ecr:BatchGetImage",
            [],
            "ECR permissions",
        ),
        (Ending.IMAGE, None, PULL + "dial tcp 1.2.3.4:443: i/o timeout", [], "NAT gateway"),
        (Ending.IMAGE, None, PULL + "no descriptor matching platform 'linux/amd64'", [], "CPU architecture"),
        (Ending.IMAGE, None, PULL + "toomanyrequests: You have reached your pull rate limit", [], "pull-through"),
        (Ending.IMAGE, None, PULL + "write /x: no space left on device", [], "disk"),
        (Ending.IMAGE, None, PULL + "odd", [], "could not be pulled"),
        (Ending.START, None, INIT + "failed to download env files: file download command", [], "s3:GetObject"),
        (Ending.START, None, INIT + "failed to download env files: network timeout, secret", [], "S3"),
        (Ending.START, None, INIT + "unable to pull secrets or registry auth", [], "secretsmanager"),
        (Ending.START, None, INIT + "failed to validate logger args: no log group", [], "log driver"),
        (Ending.START, None, INIT + "failed to initialize logging driver", [], "CreateLogStream"),
        (Ending.START, None, INIT + "failed to invoke EFS utils commands", [], "mount targets"),
        (Ending.START, None, "Timeout waiting for network interface provisioning", [], "free addresses"),
        (Ending.START, None, 'exec: "python": executable file not found in $PATH', [], "no such command"),
        (Ending.START, None, "exec: permission denied", [], "file mode"),
        (Ending.START, None, "ATTRIBUTE", [], "placement constraints"),
        (Ending.CAPACITY, None, "RESOURCE:MEMORY", [], "no room"),
        (Ending.SPOT, 143, "Your Spot Task was interrupted.", [], "spot capacity"),
        (Ending.HOST, None, "Host EC2 (instance i-0) terminated.", [], "host is gone"),
        (Ending.STOPPED, 143, "not wanted", [], "did not fail by itself"),
        (Ending.STOPPED, 137, "not wanted", [], "within stopTimeout"),
        (Ending.STOPPED, 143, "Job attempt duration exceeded timeout", [], "Raise the timeout"),
        (Ending.STOPPED, None, "Canceled by JobStateTimeLimit action", [], "limit of the job queue"),
        (Ending.REFUSED, None, "ECS refused the container for 120 s: AccessDenied", [], "airflow ecs-async check"),
        (Ending.LOST, None, None, [], "run it again"),
    ],
)
def test_an_end_is_explained(
    ending: Ending, exit_code: int | None, reason: str | None, lines: list[str], says: str
) -> None:
    said = hint(ending, exit_code, reason, lines)
    assert said is not None
    assert says in said
    assert "  " not in said


@pytest.mark.parametrize(
    ("ending", "exit_code", "reason", "lines"),
    [
        (None, 0, None, []),
        (None, None, "waits", ["exec format error"]),
        (Ending.EXIT, 1, "ECS container exited 1", ["ValueError: x"]),
        (Ending.EXIT, 1, "", [REFUSED_BY_A_DATABASE]),
        (Ending.EXIT, 1, "", ["ModuleNotFoundError: No module named 'airflow.providers.ftp'"]),
        (Ending.EXIT, 1, "", ["ModuleNotFoundError: No module named 'airflow_extras'"]),
        (Ending.START, None, "ECS task stopped before its container ran", []),
        (Ending.REFUSED, None, "The container request could not be built: overrides are too long", []),
    ],
)
def test_what_nothing_is_known_about_has_no_hint(
    ending: Ending | None, exit_code: int | None, reason: str | None, lines: list[str]
) -> None:
    assert hint(ending, exit_code, reason, lines) is None


def test_a_long_line_is_searched_once() -> None:
    began = time.perf_counter()
    assert hint(Ending.EXIT, 1, "", ["Unhandled exception " * 12_000]) is None
    assert time.perf_counter() - began < 2.0  # it would take a minute to search it from each of its words


@pytest.mark.parametrize("ending", list(Ending))
def test_every_kind_of_end_can_be_asked_about(ending: Ending) -> None:
    said = hint(ending)
    assert said is None or said.endswith(".")
