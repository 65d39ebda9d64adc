"""The commands of ``airflow ecs-async`` under the names that Airflow loads them by; resolved on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_async_executor.adapter.commands import get_cli_commands
    from ecs_async_executor.adapter.commands.check import check
    from ecs_async_executor.adapter.commands.show_request import show_request
    from ecs_async_executor.adapter.commands.status import status

__all__ = ["check", "get_cli_commands", "show_request", "status"]


def __getattr__(name: str) -> Any:
    if name == "check":
        from ecs_async_executor.adapter.commands.check import check

        return check
    if name == "get_cli_commands":
        from ecs_async_executor.adapter.commands import get_cli_commands

        return get_cli_commands
    if name == "show_request":
        from ecs_async_executor.adapter.commands.show_request import show_request

        return show_request
    if name == "status":
        from ecs_async_executor.adapter.commands.status import status

        return status
    msg = f"module {__name__!r} has no attribute {name!r}"
    raise AttributeError(msg)
