"""
What the main thread remembers of the launches that have not ended.

May import ``compat`` and ``core``. Main thread only. SystemExit can surface there at any statement: each method
leaves a state from which the same call, or the report behind it, can be repeated.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Container
from collections.abc import Set as AbstractSet
from typing import Any
from uuid import UUID

import msgspec

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.core.messages import Adopt, AirflowState, Launch
from ecs_async_executor.core.policy import CREATED_MARGIN

SPENT_IDENTITIES_KEPT = 20_000
BACKLOG_SHARE = 1 / 3
"""Of ``task_queued_timeout``: how far ahead of its launch the executor takes a workload from the scheduler."""


class KnownLaunch(msgspec.Struct, frozen=True, gc=False):
    """
    One launch that has not ended.

    :param subject: id of the task instance or callback: one key can come to mean another try
    :param queued_at: wall-clock seconds; after a deferral the same task instance is queued again
    :param log_path: where Airflow keeps the log of the try, below its log folder; None if that is not known
    """

    launch_id: str
    subject: object
    queued_at: float
    log_path: str | None = None


class Tracking:
    """
    The launches by key, and what else the scheduler's questions need of them.

    A launch that is tracked and not staged is known to the engine; every method keeps to that.

    :ivar launches: by key, the latest launch
    :ivar unlaunched: ids of the launches without a container
    :ivar held_up: until when (monotonic seconds) Airflow's revoke of a launch is refused, by launch id
    :ivar staged: adopted launches that the engine does not have yet
    :ivar uncommitted: keys of those whose adoption is not committed yet
    :ivar queued_timeout: ``task_queued_timeout``, in seconds
    """

    def __init__(self) -> None:
        self.launches: dict[Key, KnownLaunch] = {}
        self.unlaunched: set[str] = set()
        self.held_up: dict[str, float] = {}
        self.staged: dict[Key, Adopt] = {}
        self.uncommitted: set[Key] = set()
        self.queued_timeout = 600.0
        self._spent: set[str] = set()
        self._spent_order: deque[str] = deque()

    def add(self, key: Key, launch: Launch, subject: object) -> None:
        """Track a launch, in place of any earlier one of its key, before it is handed to the engine."""
        if key in self.launches:
            self.forget(key)
        log_path = getattr(launch.workload, "log_path", None)  # the engine drops the workload once it has started
        self.launches[key] = KnownLaunch(launch.launch_id, subject, launch.queued_at, log_path)
        self.unlaunched.add(launch.launch_id)

    def stage(self, key: Key, adopt: Adopt, subject: object, *, committed: bool) -> None:
        """Track an adopted launch that is handed to the engine later."""
        self.forget(key)
        if not committed:
            self.uncommitted.add(key)
        self.staged[key] = adopt  # before it is tracked: a tracked launch that is not staged is the engine's
        launch = adopt.launch
        log_path = getattr(launch.workload, "log_path", None)
        self.launches[key] = KnownLaunch(launch.launch_id, subject, launch.queued_at, log_path)
        if launch.started_by == launch.launch_id:
            self.spend(launch.launch_id)
        if adopt.state is AirflowState.QUEUED:
            self.unlaunched.add(launch.launch_id)

    def has_container(self, launch_id: str) -> None:
        """Note that a launch has its container."""
        self.unlaunched.discard(launch_id)
        if launch_id in self.held_up:
            # Airflow's time for it is over already; the container gets as much as any other.
            self.held_up[launch_id] = time.monotonic() + self.queued_timeout

    def waits_for_capacity(self, launch_id: str) -> None:
        """Note that a launch cannot have a container for now."""
        self.held_up[launch_id] = math.inf

    def is_held_up(self, launch_id: str) -> bool:
        """Return whether a launch waits for capacity, or its container has not had its time to start since."""
        return self.held_up.get(launch_id, 0.0) > time.monotonic()

    def forget(self, key: Key) -> None:
        """Drop a key's launch; reports about it are ignored from here on."""
        tracked = self.launches.get(key)
        if tracked is not None:
            self.unlaunched.discard(tracked.launch_id)
            self.held_up.pop(tracked.launch_id, None)
            del self.launches[key]
        self.staged.pop(key, None)
        self.uncommitted.discard(key)

    def is_launch_of(self, tracked: KnownLaunch, ti: Any) -> bool:
        """Return whether a tracked launch belongs to this task instance, and to its latest queueing."""
        queued = ti.queued_dttm
        queued_again = queued is not None and queued.timestamp() > tracked.queued_at + CREATED_MARGIN
        return tracked.subject == compat.uuid_of(ti) and not queued_again

    def task_instances(self, launch_ids: Container[str]) -> dict[UUID, Key]:
        """Return the keys of launches with these ids, by task instance id; callbacks are left out."""
        return {
            tracked.subject: key
            for key, tracked in self.launches.items()
            if tracked.launch_id in launch_ids and isinstance(tracked.subject, UUID)
        }

    def room(self, launch_rate: float, stranded: AbstractSet[str] = frozenset()) -> int:
        """
        Return how many more launches can be tracked and still launch well before they time out.

        :param launch_rate: launches per second
        :param stranded: ids of launches that wait for a destination in trouble: they delay no other
        """
        waiting = len(self.unlaunched - stranded) if stranded else len(self.unlaunched)
        return max(1, int(launch_rate * self.queued_timeout * BACKLOG_SHARE)) - waiting

    def spend(self, identity: str) -> bool:
        """Mark an identity that Airflow assigned as used; return False if it was already."""
        spent = self._spent
        if identity in spent:
            return False
        spent.add(identity)
        order = self._spent_order
        order.append(identity)
        if len(order) > SPENT_IDENTITIES_KEPT:
            spent.discard(order.popleft())
        return True
