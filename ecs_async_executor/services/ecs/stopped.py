"""
Stopped tasks of a cluster, by mark: ECS cannot list them by it, so all of them are read and compared.

Imports ``core``, and ``calls`` and ``parsing`` of the folder above.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import anyio

from ecs_async_executor.core.backend import Paced
from ecs_async_executor.services.calls import Calls
from ecs_async_executor.services.parsing import UNREADABLE, UnreadableRecords, text

_PASSES: Final = 3
"""How often a listed task is described if ECS does not show it: it can be forgotten, or hidden for a moment."""


class StoppedTasks:
    """
    The marks of one cluster's stopped tasks, read in sweeps that concurrent searches share.

    :param cluster: as it is named in requests
    :param batch: the most ARNs that one DescribeTasks takes
    :param unreadable: logs the records that cannot be read
    """

    def __init__(self, call: Calls, cluster: str, *, batch: int, unreadable: UnreadableRecords) -> None:
        self._call = call
        self._cluster = cluster
        self._batch = batch
        self._unreadable = unreadable
        self._lock = anyio.Lock()
        self._begun = 0
        """How many sweeps have begun."""
        self._known: dict[str, str | None] = {}
        self._result: dict[str, str | None] = {}
        self._result_of = 0
        """The number of the sweep that the result is of, which was complete."""

    async def marks(self, paced: Paced) -> Mapping[str, str | None]:
        """
        Return the mark of each stopped task, by its ARN.

        A caller that comes during a sweep waits for the next sweep: its task may have stopped after this one
        listed the tasks.

        :param paced: awaited before each request of a sweep that this call makes
        :raises BackendError: if the list cannot be read to its end
        """
        came_after = self._begun
        async with self._lock:
            if self._result_of <= came_after:
                self._begun += 1
                self._result, self._result_of = await self._sweep(paced), self._begun
            return self._result

    async def _sweep(self, paced: Paced) -> dict[str, str | None]:
        # ECS has to say twice that there are no stopped tasks at all.
        arns = await self._list(paced) or await self._list(paced)
        # A task keeps its mark: later sweeps need not ask for it again, even if this one fails.
        known = self._known = {arn: self._known[arn] for arn in arns if arn in self._known}
        for _ in range(_PASSES):
            new = [arn for arn in arns if arn not in known]
            for first in range(0, len(new), self._batch):
                batch = new[first : first + self._batch]
                reply = await self._call.retrying("DescribeTasks", paced=paced, cluster=self._cluster, tasks=batch)
                for task in reply.get("tasks") or ():
                    try:
                        known[text(task["taskArn"])] = task.get("startedBy")
                    except UNREADABLE as error:  # noqa: PERF203
                        self._unreadable.log(task, error, record="task")
        return dict(known)

    async def _list(self, paced: Paced) -> list[str]:
        await paced()
        return await self._call.pages(
            "ListTasks", "taskArns", paced=paced, cluster=self._cluster, desiredStatus="STOPPED"
        )
