"""
What a RunTask and its task definition make of each other: containers, with the overrides applied.

Pure functions over request parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ecs_async_executor.local.life import Container


def container_of(definition: Mapping[str, Any], override: Mapping[str, Any]) -> Container:
    """Make a container of its definition and what the request overrides."""
    command = override.get("command") or definition.get("command") or []
    environment = {
        pair["name"]: pair.get("value", "")
        for source in (definition, override)
        for pair in source.get("environment") or ()
    }
    timeout = definition.get("stopTimeout")
    memory = override.get("memory") or definition.get("memory")
    return Container(
        name=definition["name"],
        command=(*(definition.get("entryPoint") or ()), *command),
        environment=environment,
        essential=definition.get("essential", True),
        directory=definition.get("workingDirectory"),
        stop_timeout=float(timeout) if timeout is not None else None,
        image=definition.get("image", ""),
        memory=int(memory) if memory else None,
        cpu=int(override.get("cpu") or definition.get("cpu") or 0),
    )


def main_of(containers: Sequence[Container], overrides: Mapping[str, Mapping[str, Any]]) -> str:
    """Name the container that does the work: whose command was given, else the first essential one."""
    for container in containers:
        if overrides.get(container.name, {}).get("command"):
            return container.name
    return next((c.name for c in containers if c.essential), containers[0].name)
