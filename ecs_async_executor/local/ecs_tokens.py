"""
What client tokens of RunTask have done, as the ECS API reference's "Ensuring idempotency" has it.

May import :mod:`ecs_tasks`, :mod:`errors` and the modules below. One :class:`Tokens` per Region.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ecs_async_executor.local.ecs_tasks import Task
from ecs_async_executor.local.errors import AwsError

TTL = 24 * 3600.0
"""Seconds that a token is known at most; with its last task it goes an hour after the task's end."""
DETAILS = 3600.0
"""Seconds after which of failures only their number is told."""


@dataclass(slots=True)
class Use:
    """
    One request that was answered.

    :param mark: digests the request
    :param at: when, in wall-clock seconds
    """

    mark: str
    at: float
    tasks: list[Task]
    failures: list[dict[str, Any]]

    def reply(self, now: float) -> dict[str, Any]:
        """Repeat the answer, with what has become of the tasks."""
        tasks = [
            task.brief(now) if task.life.status(now) == "STOPPED" else {**task.record(now), "tags": task.tags}
            for task in self.tasks
        ]
        old = now >= self.at + DETAILS
        return {"tasks": tasks, "failures": [{} if old else failure for failure in self.failures]}


class Tokens:
    """The tokens of one Region; a token is known in its cluster only."""

    def __init__(self) -> None:
        self._uses: dict[tuple[str, str], Use] = {}

    def find(self, cluster: str, token: str, mark: str, now: float, *, memory: str) -> Use | None:
        """
        Return the use that a request repeats, None if the request is new.

        :param memory: ``failure_memory`` of :class:`~ecs_async_executor.local.behaviour.Behaviour`
        :raises AwsError: if the token was used for another request
        """
        use = self._uses.get((cluster, token)) if token else None
        if use is None or now >= use.at + TTL or (not use.tasks and memory == "forget"):
            return None
        if use.mark == mark:
            return use
        if not use.tasks and memory == "replay":
            return None
        fields: Mapping[str, Any] = {"resourceIds": [task.task_arn for task in use.tasks]} if use.tasks else {}
        message = "The clientToken was already used with different parameters."
        raise AwsError("ConflictException", message, **fields)

    def remember(
        self,
        cluster: str,
        token: str,
        mark: str,
        now: float,
        tasks: Sequence[Task],
        failures: list[dict[str, Any]],
    ) -> None:
        """Write a use down; without a token there is nothing to remember."""
        if token:
            self._uses[cluster, token] = Use(mark, now, list(tasks), failures)

    def forget(self, task: Task) -> None:
        """Drop the use that made a task, when the last of its tasks goes."""
        use = self._uses.get((task.cluster_name, task.token))
        if use is None or task not in use.tasks:
            return
        use.tasks.remove(task)
        if not use.tasks:
            del self._uses[task.cluster_name, task.token]
