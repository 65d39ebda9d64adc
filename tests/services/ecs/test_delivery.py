"""The workload in an environment file: what leaves the request, and what the container makes of the file."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.services.ecs.delivery import (
    LINE_LIMIT,
    VARIABLE,
    file_of,
    set_apart,
    with_file,
    workload_in,
)
from ecs_async_executor.services.redaction import redacted, without_tokens
from tests.services.ecs.samples import request

COMMAND = ("python", "-m", "airflow.sdk.execution_time.execute_workload", "--json-string")
TOKEN = "eyJhbGciOiJIUzUxMiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl"
WORKLOAD = json.dumps({"token": TOKEN, "ti": {"task_id": 'größe = "x" #\'\\\n$HOME'}})

EXECUTE_WORKLOAD = """\
import os, subprocess, sys
def main():
    kind, path = sys.argv[1:]
    assert kind == "--json-path"
    text = open(path).read()
    print(ascii([text, sys.argv, dict(os.environ), subprocess.check_output(["env"]).decode()]))
"""


def apart(command: list[str], config: Any = None, **container: Any) -> tuple[dict[str, Any], str | None]:
    made = request(config)
    made["overrides"]["containerOverrides"][0] |= {"command": command, **container}
    return set_apart(made, "airflow", COMMAND)


def command_of(made: dict[str, Any]) -> list[str]:
    return list(made["overrides"]["containerOverrides"][0]["command"])


@pytest.fixture
def airflow(tmp_path: Path) -> Path:
    """A package of Airflow's name whose execute_workload tells what it was given."""
    folder = tmp_path / "airflow" / "sdk" / "execution_time"
    folder.mkdir(parents=True)
    for one in (folder, *folder.parents[:2]):
        (one / "__init__.py").touch()
    (folder / "execute_workload.py").write_text(EXECUTE_WORKLOAD)
    return tmp_path


def run(command: list[str], airflow: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable if word == "python" else word for word in command]
    environment = {"PYTHONPATH": str(airflow), "PATH": "/usr/bin:/bin", **variables}
    return subprocess.run(words, env=environment, capture_output=True, text=True, check=False)


def test_the_container_gets_the_very_workload_and_what_it_starts_does_not(airflow: Path) -> None:
    made, file = apart([*COMMAND, WORKLOAD])
    assert file is not None
    name, _, value = file.rstrip("\n").partition("=")
    ran = run(command_of(made), airflow, **{name: value})
    assert ran.returncode == 0, ran.stderr
    text, *rest = ast.literal_eval(ran.stdout)
    assert text == WORKLOAD
    assert VARIABLE not in repr(rest)
    assert TOKEN not in repr(rest)


def test_a_container_without_the_variable_says_so(airflow: Path) -> None:
    made, _ = apart([*COMMAND, WORKLOAD])
    ran = run(command_of(made), airflow)
    assert ran.returncode == 1
    assert "entrypoint drops variables" in ran.stderr


def test_a_file_is_one_line_that_every_reader_takes_alike() -> None:
    file = file_of(WORKLOAD)
    assert file.count("\n") == file.count("=") == 1
    assert file.startswith(f"{VARIABLE}=")
    assert not set(file) & set("\"'\\$ #")
    assert workload_in(file) == WORKLOAD


def test_what_hides_jwts_hides_the_value_of_the_variable() -> None:
    value = file_of(WORKLOAD).rstrip("\n").partition("=")[2]
    assert without_tokens(value) == "***"
    assert value not in redacted(f"{VARIABLE}={value}")


def test_a_workload_that_ecs_could_not_read_is_refused() -> None:
    limit = LINE_LIMIT * 3 // 4
    assert file_of("x" * (limit - 100))
    with pytest.raises(Rejected, match=f"at most {LINE_LIMIT}"):
        file_of("x" * limit)


def test_a_command_without_a_jwt_stays_as_it_is() -> None:
    made, file = apart(["sh", "-c", "exit 3"])
    assert (command_of(made), file) == (["sh", "-c", "exit 3"], None)
    made, file = apart([])
    assert (command_of(made), file) == ([], None)


def test_words_around_the_command_stay() -> None:
    made, file = apart(["nice", *COMMAND, WORKLOAD, "--more"])
    words = command_of(made)
    assert (words[:3], words[-1], file) == (["nice", "python", "-c"], "--more", file_of(WORKLOAD))


@pytest.mark.parametrize(
    "container",
    [
        {"command": ["sh", "-c", WORKLOAD]},
        {"command": [*COMMAND, WORKLOAD, WORKLOAD]},
        {"command": [*COMMAND, WORKLOAD], "environment": [{"name": "COPY", "value": TOKEN}]},
    ],
)
def test_a_jwt_that_would_stay_in_the_request_is_refused(container: dict[str, Any]) -> None:
    with pytest.raises(Rejected, match="the request has a JWT") as caught:
        apart(**container)
    assert TOKEN not in str(caught.value.reason)


def test_a_file_comes_after_those_of_the_user_and_leaves_the_request_alone() -> None:
    mine = {"type": "s3", "value": "arn:aws:s3:::mine/a.env"}
    made = request({"overrides": {"containerOverrides": [{"name": "airflow", "environmentFiles": [mine]}]}})
    before = json.dumps(made)
    sent = with_file(made, "airflow", "arn:aws:s3:::ours/b.env")
    assert sent["overrides"]["containerOverrides"][0]["environmentFiles"] == [
        mine,
        {"type": "s3", "value": "arn:aws:s3:::ours/b.env"},
    ]
    assert json.dumps(made) == before


def test_environment_files_that_are_no_list_are_refused_with_their_type() -> None:
    with pytest.raises(Rejected, match="must be a list, not str"):
        apart([*COMMAND, WORKLOAD], environmentFiles="arn:aws:s3:::mine/a.env")
