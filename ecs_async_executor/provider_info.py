"""
What Airflow's providers manager is told about this package.

May import :mod:`ecs_async_executor.settings` only: every Airflow component loads this on start.
"""

from __future__ import annotations

from typing import Any, Final

from ecs_async_executor.settings import TUNING_SECTION, Option, Tuning, options

_VERSION_ADDED: Final = "0.1.0"


def get_provider_info() -> dict[str, Any]:
    """
    Describe the executor, its commands and its options.

    ``[aws_ecs_executor]`` is not declared: it belongs to the amazon provider, and a second declaration of a
    section raises on Airflow 3.1 and replaces the first one from 3.2 on.
    """
    return {
        "package-name": "ecs-async-executor",
        "name": "ECS async executor",
        "description": "Runs workloads on Amazon ECS without ever making the scheduler wait for AWS.",
        "executors": ["ecs_async_executor.AsyncEcsExecutor"],
        "cli": ["ecs_async_executor.cli.get_cli_commands"],
        "config": {
            TUNING_SECTION: {
                "description": (
                    "How AsyncEcsExecutor launches and watches containers. "
                    "What it launches is configured in ``[aws_ecs_executor]``, as for AwsEcsExecutor.\n"
                ),
                "options": {option.name: _config_option(option) for option in options(Tuning)},
            }
        },
    }


def _config_option(option: Option) -> dict[str, Any]:
    return {
        "description": f"{option.description}\nAllowed: {option.allowed}.\n",
        "version_added": _VERSION_ADDED,
        "type": option.kind,
        "example": option.example,
        "default": option.default,
    }
