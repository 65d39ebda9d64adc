"""What ``python -m ecs_async_executor.local --help`` says besides its options, made from the code where it can."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from ecs_async_executor.local.faults import KINDS, Fault
from ecs_async_executor.local.known_faults import KNOWN
from ecs_async_executor.local.scripted import Rule

WIDTH = 100

DEFINITION: Mapping[str, Any] = {
    "family": "hello",
    "networkMode": "awsvpc",
    "requiresCompatibilities": ["FARGATE"],
    "cpu": "256",
    "memory": "512",
    "containerDefinitions": [{"name": "main", "image": "any", "command": ["echo", "hello"]}],
}
SCRIPT: Sequence[Mapping[str, Any]] = (
    {"command": "flaky", "attempt": 1, "exit_code": 137, "container_reason": "OutOfMemoryError"},
    {"definition": "slow", "pending": [20, 40], "duration": 600},
    {"duration": [0.5, 2]},
)
FAULTS: Sequence[Mapping[str, Any]] = (
    {"kind": "throttle", "operation": "RunTask", "count": 3},
    {"kind": "error", "operation": "*Task*", "code": "ServerException", "lasting": 10},
    {"known": "assume_role", "lasting": 30},
)
"""Examples of each form; :func:`manual` shows them."""


def _paragraph(text: str) -> str:
    return textwrap.fill(" ".join(text.split()), WIDTH, break_on_hyphens=False)


DESCRIPTION = _paragraph("""
    Serve a local ECS and Batch (and the rest of moto). Point clients at it with AWS_ENDPOINT_URL and any
    credentials. It is no sandbox: each container is a process of this machine, with your rights.
""")

_DEFINITIONS = """
    task definitions: there is none at the start, and --task-definition registers one from a file. There are no
    images: the command runs here, and a container without a command waits for those that have one. In full:
"""
_BATCH = """
    Batch has the job queue 'default' and the job definition 'airflow' from the start. What processes print is in
    CloudWatch Logs if the log driver is awslogs, and in --log-dir.
"""
_SCRIPTS = """
    scripts: with --runner scripted no process runs. The first rule that matches a task or job says how it lives,
    in seconds, for which a pair gives bounds:
"""
_FAULTS = """
    faults: what goes wrong, one object or a list. POST them to /_local/faults, GET shows those in force, DELETE
    ends all, or one as /_local/faults/<id>:
"""
_CONTROL = """
    control path, at the same address, all in JSON: GET /_local/health, /_local/ledger (every container accepted),
    /_local/statistics, /_local/tasks/<id>, /_local/jobs/<id>; PUT /_local/latency, /_local/behaviour,
    /_local/capacity, /_local/script; POST /_local/tasks/<id>/kill or .../interrupt, jobs likewise; POST
    /_local/reset.
"""


def manual() -> str:
    """Return the forms of definitions, scripts and faults, and the control path."""
    parts = (
        _paragraph(_DEFINITIONS),
        _example(DEFINITION),
        _paragraph(_BATCH),
        _paragraph(_SCRIPTS),
        _example(SCRIPT),
        _paragraph(f"Members: {_members(Rule)}."),
        _paragraph(_FAULTS),
        _example(FAULTS),
        _paragraph(f"Kinds: {', '.join(KINDS)}."),
        _paragraph(f"Members: {_members(Fault)}."),
        _paragraph(f"Known by name: {', '.join(KNOWN)}."),
        _paragraph(_CONTROL),
        "More: python -m pydoc ecs_async_executor.local",
    )
    return "\n\n".join(parts)


def _members(cls: Any) -> str:
    return ", ".join(field.name for field in fields(cls))


def _example(data: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> str:
    """Return an example as JSON, each of its members in a line of its own."""
    if isinstance(data, Mapping):
        inside = ",\n   ".join(f"{json.dumps(key)}: {json.dumps(value)}" for key, value in data.items())
        return f"  {{{inside}}}"
    return "  [" + ",\n   ".join(json.dumps(one) for one in data) + "]"
