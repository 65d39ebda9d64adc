"""
What people do to containers beside the executor: list those that carry an executor's mark, and stop one.

Imports ``core`` only. The folder of each service has a class that meets the protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ecs_async_executor.core.backend import Handle

Progress: TypeAlias = Callable[[int, int], None]
"""Is told how much of a list is read, and how long the list is as far as that is known."""


def untold(_done: int, _total: int) -> None:
    """Tell nobody."""


@dataclass(frozen=True, slots=True)
class Marked:
    """
    A container that carries an executor's mark, and has not been told to stop.

    :param mark: the task instance's id or the identity that Airflow assigned; None if the container has the
        variable only that every executor of Airflow sets
    :param created_at: wall-clock seconds, None if unknown
    """

    handle: Handle
    mark: str | None
    status: str
    created_at: float | None


class Console(Protocol):
    """A service, as a person wants to use it."""

    @property
    def scopes(self) -> Sequence[str]:
        """Where the settings send containers: clusters, or job queues."""
        ...

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold a client open, on the running loop."""
        ...

    async def marked(self, scope: str, progress: Progress = untold) -> Sequence[Marked]:
        """
        List the containers with an executor's mark, of whichever deployment of Airflow.

        :raises BackendError: if the list cannot be read to its end
        """
        ...

    async def stop(self, handle: Handle, reason: str) -> None:
        """
        Stop a container for a person: the executor reports it as stopped by hand.

        :raises BackendError: if the service refuses, or does not answer
        """
        ...
