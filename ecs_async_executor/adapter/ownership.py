"""
After a silence of the scheduler: which of its launches are still its own.

May import ``compat``, ``core``, the bridge and the service-free adapter. Main thread only.
"""

from __future__ import annotations

import math
import time

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import VersionedExecutor
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.telemetry import LogLines, log_exception
from ecs_async_executor.adapter.tracking import Tracking
from ecs_async_executor.core.messages import Release
from ecs_async_executor.engine.bridge import Bridge

CHECK_INTERVAL = 1.0
CHECK_TRIES = 30
CHECK_SECONDS = 30.0
"""How often, how many times and for how long the database is asked; after that the service decides alone."""


class OwnershipCheck:
    """
    Asks Airflow's database which launches another scheduler has adopted, and releases those.

    :ivar fresh: seconds; nobody adopts from a scheduler with a heartbeat younger than this
    """

    def __init__(
        self, executor: VersionedExecutor, adapter: ServiceAdapter, tracking: Tracking, lines: LogLines
    ) -> None:
        self._executor = executor
        self._adapter = adapter
        self._tracking = tracking
        self._lines = lines
        self.fresh = math.inf
        self._tries = 0
        self._first_at = self._last_at = -math.inf

    def may_launch(self, bridge: Bridge) -> bool:
        """
        Release what another scheduler has adopted; return whether the rest may be launched. Raise nothing.

        False while the database has no final answer: others adopt until the scheduler's own next heartbeat in the
        database, which comes after this call.
        """
        now = time.monotonic()
        if now < self._last_at + CHECK_INTERVAL:
            return False
        if not self._tries:
            self._first_at = now
        self._last_at = now
        self._tries += 1
        try:
            answered = self._release_lost(bridge)
        except Exception as error:  # noqa: BLE001 - would end the scheduler
            log_exception(self._adapter.service.event("ownership.unknown"), error)
            answered = False
        if not answered and self._tries < CHECK_TRIES and now - self._first_at < CHECK_SECONDS:
            return False
        self._tries = 0
        return True

    def _release_lost(self, bridge: Bridge) -> bool:
        """Release the launches that the scheduler holds no longer; return whether that was final."""
        executor, tracking = self._executor, self._tracking
        if executor.job_id is None:
            return True  # nobody adopts from a scheduler that the database does not know
        launches = tracking.task_instances(bridge.unstarted() | tracking.unlaunched)
        queued = compat.queued_tasks(executor)
        ids = [*launches, *queued.values()]
        lost = compat.lost_to_others(ids, int(executor.job_id), self.fresh) if ids else set()
        if lost is None:
            return False
        for key in [key for key, ti_id in queued.items() if ti_id in lost]:
            compat.forget_queued(executor, key)
        for key in [key for ti_id, key in launches.items() if ti_id in lost]:
            bridge.submit(Release(tracking.launches[key].launch_id))
            executor.running.discard(key)
            executor.event_buffer.pop(key, None)
            tracking.forget(key)
        self._lines.add("warning", "silence.over", asked=len(ids), lost=len(lost))
        return True
