"""
What the main thread remembers of the launches that have not ended.

May import ``compat`` and ``core``. Main thread only. SystemExit can surface there at any statement: each method
leaves a state from which the same call, or the report behind it, can be repeated.
"""

from __future__ import annotations

import functools
import math
import time
from collections import OrderedDict, deque
from collections.abc import Container
from collections.abc import Set as AbstractSet
from typing import Any, Final, TypeVar
from uuid import UUID

import msgspec
from airflow.models.taskinstancekey import TaskInstanceKey

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.compat import Key
from ecs_async_executor.core.dictionaries import take_out
from ecs_async_executor.core.messages import Adopt, AirflowState, Launch
from ecs_async_executor.core.policy import CREATED_MARGIN

SPENT_IDENTITIES_KEPT = 20_000
BACKLOG_SHARE = 1 / 3
"""Of ``task_queued_timeout``: how far ahead of its launch the executor takes a workload from the scheduler."""


SHARED_TEXTS_KEPT = 16_384
_IN_PLACE: Final = ("\0", "\1", "\2")
"""What stands in a log's path for the run, the task and the DAG of its key."""

K = TypeVar("K")


class KnownLaunch(msgspec.Struct, frozen=True, gc=False):
    """
    One launch that has not ended.

    :param subject: id of the task instance, as a number, or of the callback: one key can come to mean another try
    :param queued_at: wall-clock seconds; after a deferral the same task instance is queued again
    :param log: where Airflow keeps the log of the try, below its log folder, see :meth:`log_path`; None if that is
        not known
    """

    launch_id: str
    subject: int | str
    queued_at: float
    log: str | None = None

    @property
    def task_instance(self) -> UUID | None:
        """The id of the task instance; None for a callback."""
        return UUID(int=self.subject) if isinstance(self.subject, int) else None

    def log_path(self, key: Key) -> str | None:
        """Return where Airflow keeps the log of the try, whose key is given; None if that is not known."""
        path = self.log
        if path is not None and isinstance(key, TaskInstanceKey):
            for mark, name in zip(_IN_PLACE, _names(key), strict=True):
                path = path.replace(mark, name)
        return path


def _same(text: str) -> str:
    return text


def _names(key: TaskInstanceKey) -> tuple[str, str, str]:
    return key.run_id, key.task_id, key.dag_id


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
        # A plain dictionary finds its first entry the slower the more before it have been taken out.
        self.staged: OrderedDict[Key, Adopt] = OrderedDict()
        self.uncommitted: set[Key] = set()
        self.queued_timeout = 600.0
        self._spent: set[str] = set()
        self._spent_order: deque[str] = deque()
        self._share = functools.lru_cache(SHARED_TEXTS_KEPT)(_same)

    def shared(self, key: K) -> K:
        """
        Return a key that is equal to this one, with its texts in common with other keys.

        Each row of the database comes with texts of its own for its DAG, its task and its run; 100,000 launches
        would keep 25 MB of the same few.
        """
        if not isinstance(key, TaskInstanceKey):
            return key
        dag_id, task_id, run_id, try_number, map_index = key
        share = self._share
        made: Any = tuple.__new__(type(key), (share(dag_id), share(task_id), share(run_id), try_number, map_index))
        return made  # type: ignore[no-any-return]

    def add(self, key: Key, launch: Launch, subject: object) -> None:
        """Track a launch, in place of any earlier one of its key, before it is handed to the engine."""
        if key in self.launches:
            self.forget(key)
        self.launches[key] = _known(launch, subject)
        self.unlaunched.add(launch.launch_id)

    def stage(self, key: Key, adopt: Adopt, subject: object, *, committed: bool) -> None:
        """Track an adopted launch that is handed to the engine later."""
        self.forget(key)
        if not committed:
            self.uncommitted.add(key)
        self.staged[key] = adopt  # before it is tracked: a tracked launch that is not staged is the engine's
        launch = adopt.launch
        self.launches[key] = _known(launch, subject)
        if launch.started_by == launch.launch_id:
            self.spend(launch.launch_id)
        if adopt.state is AirflowState.QUEUED:
            self.unlaunched.add(launch.launch_id)

    def has_container(self, key: Key) -> None:
        """Note that a key's launch has its container."""
        tracked = self.launches[key]
        launch_id = tracked.launch_id
        self.unlaunched.discard(launch_id)
        if tracked.log is not None and isinstance(key, TaskInstanceKey):
            # It can run for days: keep what it has in common with others.
            self.launches[key] = msgspec.structs.replace(tracked, log=self._pattern_of(tracked.log, key))
        if launch_id in self.held_up:
            # Airflow's time for it is over already; the container gets as much as any other.
            self.held_up[launch_id] = time.monotonic() + self.queued_timeout

    def _pattern_of(self, path: str, key: TaskInstanceKey) -> str:
        """Return a log's path with marks in place of the names that its key has."""
        if not path.isprintable():
            return path  # it has the marks already
        for mark, name in zip(_IN_PLACE, _names(key), strict=True):
            path = path.replace(name, mark)
        return self._share(path)

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
        take_out(self.staged, key)
        self.uncommitted.discard(key)

    def is_launch_of(self, tracked: KnownLaunch, ti: Any) -> bool:
        """Return whether a tracked launch belongs to this task instance, and to its latest queueing."""
        queued = ti.queued_dttm
        queued_again = queued is not None and queued.timestamp() > tracked.queued_at + CREATED_MARGIN
        return tracked.subject == compat.uuid_of(ti).int and not queued_again

    def task_instances(self, launch_ids: Container[str]) -> dict[UUID, Key]:
        """Return the keys of launches with these ids, by task instance id; callbacks are left out."""
        return {
            UUID(int=tracked.subject): key
            for key, tracked in self.launches.items()
            if tracked.launch_id in launch_ids and isinstance(tracked.subject, int)
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


def _known(launch: Launch, subject: object) -> KnownLaunch:
    log = getattr(launch.workload, "log_path", None)  # the engine drops the workload once it has started
    return KnownLaunch(
        launch.launch_id, subject.int if isinstance(subject, UUID) else str(subject), launch.queued_at, log
    )
