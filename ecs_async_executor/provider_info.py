"""
What Airflow's providers manager is told about this package.

May import :mod:`ecs_async_executor.settings` only: every Airflow component loads this on start.
"""

from __future__ import annotations

from typing import Any, Final

from ecs_async_executor.settings import BatchSettings, BatchTuning, EcsSettings, Option, Tuning, describe

_VERSION_ADDED: Final = "0.1.0"


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
        "config": {
            Tuning.section: _config_section(Tuning, "AsyncEcsExecutor", EcsSettings.section, "AwsEcsExecutor"),
            BatchTuning.section: _config_section(
                BatchTuning, "AsyncBatchExecutor", BatchSettings.section, "AwsBatchExecutor"
            ),
        },
    }


def _config_section(model: type[Tuning], executor: str, section: str, providers: str) -> dict[str, Any]:
    return {
        "description": (
            f"How {executor} launches and watches containers. "
            f"What it launches is configured in ``[{section}]``, as for {providers}.\n"
        ),
        "options": {option.name: _config_option(option) for option in describe(model)},
    }


def _config_option(option: Option) -> dict[str, Any]:
    return {
        "description": f"{option.description}\nAllowed: {option.allowed}.\n",
        "version_added": _VERSION_ADDED,
        "type": option.kind,
        "example": option.example,
        "default": option.default,
    }
