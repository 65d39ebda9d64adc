"""
What Airflow's providers manager is told about this package.

May import nothing: every process of Airflow loads this on start, those of tasks included, and the models of the
settings would take it some 40 ms. So the options come from a file, which ``nox -s readme`` writes.
"""

from __future__ import annotations

import json
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def get_provider_info() -> dict[str, Any]:
    """
    Describe the executors, their commands and their options.

    ``[aws_ecs_executor]`` and ``[aws_batch_executor]`` are not declared: they belong to the amazon provider, and a
    second declaration of a section raises on Airflow 3.1 and replaces the first one from 3.2 on.
    """
    return {
        "package-name": "ecs-async-executor",
        "name": "ECS async executor",
        "description": "Runs workloads on Amazon ECS or AWS Batch without ever making the scheduler wait for AWS.",
        "executors": ["ecs_async_executor.AsyncEcsExecutor", "ecs_async_executor.AsyncBatchExecutor"],
        "cli": ["ecs_async_executor.cli.get_cli_commands"],
        "config": json.loads(Path(__file__).with_name("provider_config.json").read_text(encoding="utf-8")),
    }
