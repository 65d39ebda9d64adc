"""
Airflow executors for Amazon ECS and AWS Batch that never make the scheduler wait for AWS.

Importing this package imports nothing else, not even the standard library: the exports are resolved on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as ``typing`` has it, whose import would take longer than all of this
if TYPE_CHECKING:
    from typing import Any

    from ecs_async_executor.adapter.batch import AsyncBatchExecutor as AsyncBatchExecutor
    from ecs_async_executor.adapter.ecs import AsyncEcsExecutor as AsyncEcsExecutor

__all__ = ["AsyncBatchExecutor", "AsyncEcsExecutor"]


def __getattr__(name: str) -> Any:
    if name == "AsyncBatchExecutor":
        from ecs_async_executor.adapter.batch import AsyncBatchExecutor

        return AsyncBatchExecutor
    if name == "AsyncEcsExecutor":
        from ecs_async_executor.adapter.ecs import AsyncEcsExecutor

        return AsyncEcsExecutor
    if name == "__version__":
        from importlib.metadata import version

        return version("ecs-async-executor")
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
