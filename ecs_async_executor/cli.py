"""The commands of ``airflow ecs-async`` under the names that Airflow loads them by; resolved on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_async_executor.adapter.commands import get_cli_commands
    from ecs_async_executor.adapter.commands.check import check
    from ecs_async_executor.adapter.commands.describe import describe
    from ecs_async_executor.adapter.commands.exec_ import exec_
    from ecs_async_executor.adapter.commands.list import list_containers
    from ecs_async_executor.adapter.commands.logs import logs
    from ecs_async_executor.adapter.commands.orphans import orphans
    from ecs_async_executor.adapter.commands.quotas import quotas
    from ecs_async_executor.adapter.commands.show_request import show_request
    from ecs_async_executor.adapter.commands.status import status
    from ecs_async_executor.adapter.commands.stop import stop

__all__ = [
    "check",
    "describe",
    "exec_",
    "get_cli_commands",
    "list_containers",
    "logs",
    "orphans",
    "quotas",
    "show_request",
    "status",
    "stop",
]

_COMMANDS = "ecs_async_executor.adapter.commands"
_MODULES = {"get_cli_commands": _COMMANDS, "list_containers": f"{_COMMANDS}.list"}
"""Where a name is that is not in the module of its own name."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    return getattr(import_module(_MODULES.get(name, f"{_COMMANDS}.{name}")), name)
