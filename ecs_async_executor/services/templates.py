"""
Templates: requests that differ in command and mark only are built, checked and measured once.

Imports ``core``, and ``parameters`` and ``requests`` beside it. Pure, but for the SDK's description of a service,
which is read once.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.services.parameters import fits
from ecs_async_executor.services.requests import room_for_command

STAND_IN: Final = ("the command",)
"""The command of the request that a template is made of."""

_as_json: Final = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


class Template:
    """
    A finished request without what makes it one launch's.

    :param spec: made with :data:`STAND_IN` as its command
    :param operation: names of the service and of the operation, in the SDK and in the API
    :param overrides: the parameter with the command
    :param added: what the service puts into it before ECS counts
    :param more: what the request gets before it is sent
    :raises LookupError: if the command is not in the request, once
    """

    def __init__(
        self,
        spec: LaunchSpec,
        operation: tuple[str, str],
        *,
        overrides: str,
        added: str = "",
        more: Mapping[str, str] | None = None,
    ) -> None:
        whole = spec.request[overrides]
        paths = _paths_to(list(STAND_IN), whole)
        if len(paths) != 1:
            raise LookupError("there is not one command in the request")
        self.spec = replace(spec, checked=fits(*operation, {**spec.request, **(more or {})}))
        self._path = (overrides, *paths[0])
        self._room = room_for_command(whole, added, len(_as_json(list(STAND_IN))))

    def request(self, command: Sequence[str]) -> dict[str, Any] | None:
        """Return the request with a command; None if that is too long. Only what leads to the command is new."""
        words = list(command)
        if len(_as_json(words)) > self._room:
            return None
        made: dict[str, Any] = _with(self.spec.request, self._path, words)
        return made


def _with(value: Any, path: Sequence[str | int], new: Any) -> Any:
    """Return a value with another one at the end of a path; the rest is shared."""
    if not path:
        return new
    first, *rest = path
    changed: Any = value.copy()
    changed[first] = _with(value[first], rest, new)
    return changed


def _paths_to(wanted: object, value: Any) -> list[tuple[str | int, ...]]:
    """Return the paths to all places where a value is."""
    if value == wanted:
        return [()]
    members: Any = ()
    if isinstance(value, dict):
        members = value.items()
    elif isinstance(value, list):
        members = enumerate(value)
    return [(key, *path) for key, member in members for path in _paths_to(wanted, member)]
