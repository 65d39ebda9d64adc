"""
A day of Airflow, AWS and two schedulers in virtual time, with the executor that ships.

One scheduler lives all day. Others come and go beside it: each is killed after half an hour, and the one that
stays adopts what they leave. Task instances defer and are queued again under the same id, fail and are tried
again, are stuck and revoked; AWS throttles, does not answer, has no room, refuses credentials; loop threads die.
Threads, HTTP and the database are played: the executor's main thread runs in the loop, and requests are a label.
"""

from __future__ import annotations

import asyncio
import gc
import random
import sys
import time
import types
import uuid
import weakref
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import Any, TypeAlias, cast
from unittest import mock

import anyio
from anyio.abc import TaskGroup

from ecs_async_executor import AsyncEcsExecutor
from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.condensed import CondensedWorkload
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.telemetry import LogLines
from ecs_async_executor.core.backend import Backend, LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch, PostMortem
from ecs_async_executor.engine import intake, pinging
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.postmortems import Read
from tests.engine.cloud import NO_ANSWER, THROTTLED, Container, FakeCloud, Plan
from tests.engine.virtual_time import EPOCH
from tests.scale.sizes import Size, of_package, sizes_of

HOUR = 3600.0
QUEUED_TIMEOUT = 600.0
PEER_LIVES = 1800.0
UNTIL_ADOPTED = 35.0
"""A little more than ``scheduler_health_check_threshold``."""
LOOP_LIVES = 4 * HOUR
LOST_AFTER = 2 * HOUR
WEATHER_LASTS = 600.0
PEERS_SHARE = 0.1
DEFERS, FAILS, STUCK, NEVER_STARTS = 0.15, 0.05, 0.008, 0.01
TASKS_OF_RUN = 4
QUEUES = ("default", "large", "night", "other")
WEATHERS = {
    "throttled": ("launch", THROTTLED, 0.1, 60.0),
    "no answer": ("launch:after", NO_ANSWER, 0.2, 60.0),
    "reads throttled": ("describe", THROTTLED, 0.3, 60.0),
    "reads without answer": ("describe:after", NO_ANSWER, 0.3, 60.0),
    "no room": (
        "launch",
        BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no room", token_used=True),
        0.5,
        60.0,
    ),
    "credentials": ("launch", BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "expired"), 1.0, 20.0),
    "denied": ("launch", BackendError(Kind.REFUSED, "AccessDeniedException", "denied"), 0.3, 30.0),
    "stops throttled": ("stop", THROTTLED, 0.5, 120.0),
    "well": ("", None, 0.0, 0.0),
}


@dataclass(eq=False, slots=True)
class Ti:
    """A row of Airflow's table of task instances, while it is open."""

    id: uuid.UUID
    task_id: str
    run_id: str
    try_number: int
    queue: str
    state: str = "scheduled"
    queueings: int = 0
    external_executor_id: str | None = None
    queued_dttm: datetime | None = None
    deferrals: int = 0
    workload: Any = None
    scheduler: Scheduler | None = None
    dag_id: str = "warehouse"
    map_index: int = -1
    priority_weight: int = 1
    executor_config: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        return f"{self.id} {self.queueings}"


class Cloud(FakeCloud):
    """The scripted cloud, which forgets what it has told and what is over, as AWS does after an hour."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)
        self.ran_twice: list[str] = []

    def forget(self, now: float) -> None:
        for times in (self.call_times, self.there[""].call_times):
            for seen in times.values():
                seen.clear()
        while self.by_label:
            label = next(iter(self.by_label))
            containers = self.by_label[label]
            if any(container.ends_at > now - HOUR for container in containers):
                break
            if sum(container.ran_user_code(container.ends_at - 1e-6) for container in containers) > 1:
                self.ran_twice.append(label)
            del self.by_label[label]
            for container in containers:
                self._forget(container)
        # What is taken from the front leaves gaps there, which each look at the first has to pass.
        for name in ("by_label", "containers", "by_token", "parameters"):
            kept = getattr(self, name)
            setattr(self, name, type(kept)(kept.default_factory, kept) if name == "by_label" else dict(kept))

    def _forget(self, container: Container) -> None:
        token = f"{container.handle.scope} {container.token}"
        del self.containers[container.handle.id]
        self.by_token.pop(token, None)
        self.parameters.pop(token, None)
        self.failures.pop(token, None)
        self.asked_to_stop.discard(container.handle.id)


@asynccontextmanager
async def last_words() -> AsyncIterator[Read]:
    """Find some last lines of every container."""

    async def read(_: PostMortem) -> str:
        await anyio.sleep(0.2)
        return "a traceback"

    yield read


class VirtualBridge(Bridge):
    """A bridge whose engine runs in the loop that calls it, on virtual time."""

    cloud: Cloud
    clock: Callable[[], float]
    label_of: Callable[[Launch], str]

    def __init__(self, **arguments: Any) -> None:
        played = {
            "monotonic": self.clock,
            "backend": lambda: self.cloud,
            "render": self._render,
            "last_words": last_words,
        }
        super().__init__(**{**arguments, **played})
        self.engine: Engine | None = None
        self.task: asyncio.Task[Any] | None = None
        self.scope: anyio.CancelScope | None = None

    def start(self) -> None:
        self._heartbeats.begin(self._monotonic())

    def _render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        assert choice is None
        placement = str(launch.route)
        return LaunchSpec(
            {"label": type(self).label_of(launch)}, "default", placement, "FARGATE", launch.started_by
        )

    def heartbeat(self, *, may_launch: bool = True) -> None:
        assert may_launch
        self._heartbeats.heartbeat(self._monotonic())
        if self.engine is not None and (self._inbox or self._dead):
            self.engine.wake()

    async def run_engine(self) -> None:
        """Run an engine until its thread is said to have died."""
        engine = self._make_engine(cast("Backend", self.cloud))
        engine._wall = lambda: EPOCH + type(self).clock()
        self.task = asyncio.current_task()
        with anyio.CancelScope() as self.scope:
            await engine.run(lambda: setattr(self, "engine", engine))

    def die(self) -> None:
        """End every await of the engine where it is: no reply is ever read."""
        assert self.scope is not None
        self.engine = None
        self.scope.cancel()


class VirtualExecutor(AsyncEcsExecutor):
    """The executor over a virtual bridge."""

    bridge_type = VirtualBridge

    @property
    def virtual(self) -> VirtualBridge:
        return cast("VirtualBridge", self._bridge)


class Scheduler:
    """One scheduler: its executor, and the events that it takes from it."""

    def __init__(self, tasks: TaskGroup) -> None:
        self.tasks = tasks
        executor = self.executor = VirtualExecutor()
        executor._waits._monotonic = VirtualBridge.clock  # it took the real one as a default
        executor.start()
        self.began = anyio.current_time()
        self.tis: dict[Any, Ti] = {}
        tasks.start_soon(self.executor.virtual.run_engine)

    def queue(self, ti: Ti) -> None:
        """Queue a task instance: with an identity, as Airflow does."""
        ti.state, ti.scheduler = "queued", self
        ti.queueings += 1
        ti.external_executor_id = str(uuid.UUID(int=random.getrandbits(128), version=4))
        ti.queued_dttm = datetime.fromtimestamp(EPOCH + anyio.current_time(), tz=timezone.utc)
        ti.workload = made(ti)
        self.tis[compat.task_key(self.executor, ti.workload.ti)] = ti
        self.executor.queue_workload(ti.workload, session=cast("Any", None))

    def heartbeat(self) -> list[tuple[Any, Ti, str, Any]]:
        """Make a heartbeat; return the events of task instances that are still its own."""
        self.executor.heartbeat()
        events = []
        for key, (state, info) in self.executor.get_event_buffer().items():
            ti = self.tis.get(key)
            if ti is not None and ti.scheduler is self:
                events.append((key, ti, str(getattr(state, "value", state)), info))
        while self.executor._task_event_logs:
            self.executor._task_event_logs.popleft()
        return events

    async def lose_its_loop(self) -> None:
        """The loop thread dies, and is replaced over the same ledger."""
        self.executor.virtual.die()
        await anyio.sleep(0.5)
        self.tasks.start_soon(self.executor.virtual.run_engine)

    def die(self) -> None:
        """The process is killed."""
        self.executor.virtual.die()

    def adopt(self, tis: Sequence[Ti], cloud: Cloud) -> None:
        """Adopt task instances of a scheduler that is gone."""
        now = anyio.current_time()
        for ti in tis:
            ti.state = "running" if any(c.ran_user_code(now) for c in cloud.of(ti.label)) else "queued"
        given_back = self.executor.try_adopt_task_instances(tis)
        assert not given_back
        for ti in tis:
            ti.scheduler = self
            self.tis[compat.task_key(self.executor, ti.workload.ti)] = ti


def made(ti: Ti) -> Any:
    """Make the workload of a task instance."""
    from airflow.executors.workloads import ExecuteTask

    names = ("id", "task_id", "dag_id", "run_id", "try_number", "map_index", "queue", "priority_weight")
    row = {name: getattr(ti, name) for name in (*names, "external_executor_id")}
    row |= {"dag_version_id": ti.id, "pool_slots": 1}
    path = f"dag_id={ti.dag_id}/run_id={ti.run_id}/task_id={ti.task_id}/attempt={ti.try_number}.log"
    return ExecuteTask.model_validate(
        {
            "ti": row,
            "dag_rel_path": "dag.py",
            "token": "eyJ.eyJ.stale",
            "log_path": path,
            "bundle_info": {"name": "bundle", "version": None},
        }
    )


Look: TypeAlias = Callable[["Day", float, bool], None]
"""Called with the day, the virtual time, and whether all that was queued so far is over."""


class Day:
    """
    The day.

    :param launches: launches in all, as near as chance allows
    :param seconds: virtual seconds in which they are queued
    :param parts: shares of the day after each of which all that was queued ends, and is forgotten
    :param heartbeat: virtual seconds between two heartbeats
    :param peer_lives: virtual seconds from the start of a scheduler that is killed to that of the next
    """

    stays: Scheduler

    def __init__(
        self,
        *,
        launches: int,
        seconds: float,
        parts: Sequence[float] = (1.0,),
        heartbeat: float = 1.0,
        peer_lives: float = PEER_LIVES,
        seed: int = 1,
    ) -> None:
        self.launches = launches
        self.seconds = seconds
        self.parts = parts
        self.heartbeat = heartbeat
        self.peer_lives = peer_lives
        self.random = random.Random(seed)
        self.cloud = Cloud(plan=self._plan, fault=self._fault)
        self.open: dict[uuid.UUID, Ti] = {}
        self.counts: Counter[str] = Counter()
        self.lost: list[str] = []
        self.told_twice: list[str] = []
        self.later: deque[tuple[float, Ti]] = deque()
        self.weather: tuple[str, BackendError | None, float, float] = WEATHERS["well"]
        self.killed: weakref.WeakSet[Scheduler] = weakref.WeakSet()
        """Schedulers that were killed and are still in memory: nothing should hold one."""
        self._plans: dict[str, tuple[Plan, ...]] = {}
        self._number = 0
        self._tasks: TaskGroup | None = None

    def sizes(self) -> dict[str, Size]:
        """Return the sizes of all collections of the scheduler that stays, and of the package."""
        gc.collect()
        executor = self.stays.executor
        bridge = executor.virtual
        roots: Mapping[str, object] = {
            "ledger": bridge.ledger,
            "tracking": executor.tracking,
            "engine": bridge.engine,
            "lanes": bridge.task,
            "bridge": bridge,
            "executor": executor,
            **of_package(),
        }
        assert self._tasks is not None
        outside = [self, self.cloud, self.stays, self._tasks, self._tasks.cancel_scope]
        return sizes_of(roots, leave_out=outside)

    # --- AWS -------------------------------------------------------------------------------------------------

    def _plan(self, label: str, nth: int) -> Plan:
        plans = self._plans[label]
        return plans[min(nth, len(plans)) - 1]

    def _plans_of(self, ti: Ti) -> tuple[Plan, ...]:
        draw = self.random
        plan = Plan(start_after=draw.uniform(1.0, 20.0), duration=draw.expovariate(1 / 40.0) + 1.0)
        chance = draw.random()
        if ti.deferrals == 0 and chance < STUCK:
            return (replace(plan, start_after=3 * QUEUED_TIMEOUT),)
        if chance < STUCK + FAILS:
            return (replace(plan, exit_code=draw.choice([1, 137, None])),)
        if chance < STUCK + FAILS + NEVER_STARTS:
            return replace(plan, starts=False), plan
        return (replace(plan, hidden_for=1.0 if chance > 0.98 else 0.0, lingers=draw.choice([0.0, 20.0])),)

    def _fault(self, operation: str, _: FakeCloud) -> BackendError | None:
        wanted, error, probability, until = self.weather
        if operation == wanted and anyio.current_time() < until and self.random.random() < probability:
            return error
        return None

    def _turn_weather(self, now: float) -> None:
        operation, error, probability, lasts = WEATHERS[self.random.choice(sorted(WEATHERS))]
        self.weather = (operation, error, probability, now + lasts)

    # --- Airflow ---------------------------------------------------------------------------------------------

    def _new(self) -> Ti:
        self._number += 1
        number = self._number
        return Ti(
            id=uuid.UUID(int=self.random.getrandbits(128), version=4),
            task_id=f"task_{number % TASKS_OF_RUN}",
            run_id=f"scheduled__{number // TASKS_OF_RUN}",
            try_number=1,
            queue=QUEUES[number % len(QUEUES)],
        )

    def _queue(self, ti: Ti, scheduler: Scheduler) -> None:
        self.open[ti.id] = ti
        scheduler.queue(ti)
        self._plans[ti.label] = self._plans_of(ti)
        self.counts["queueings"] += 1

    def _apply(self, key: Any, ti: Ti, state: str, info: Any, now: float) -> None:
        if state == "running":
            ti.external_executor_id = info
            return
        assert state in {"success", "failed"}, state
        if ti.state not in {"queued", "running"}:
            self.told_twice.append(ti.label)
            return
        assert ti.scheduler is not None
        del ti.scheduler.tis[key]
        self._plans.pop(ti.label)
        self.counts[state] += 1
        ti.state = state
        if state == "success" and ti.deferrals < 2 and self.random.random() < DEFERS:
            ti.deferrals += 1
            self.counts["deferrals"] += 1
            self._later(ti, now + self.random.uniform(20.0, 60.0))
            return
        del self.open[ti.id]
        if state == "failed" and ti.try_number < 3:
            self.counts["retries"] += 1
            again = self._new()
            again.task_id, again.run_id, again.try_number = ti.task_id, ti.run_id, ti.try_number + 1
            self._later(again, now + 30.0)

    def _later(self, ti: Ti, at: float) -> None:
        ti.state, ti.scheduler = "scheduled", None
        self.open[ti.id] = ti
        self.later.append((at, ti))

    def _revoke_stuck(self, now: float) -> None:
        for ti in list(self.open.values()):
            if ti.state != "queued" or ti.queued_dttm is None or ti.scheduler is None:
                continue
            waited = EPOCH + now - ti.queued_dttm.timestamp()
            if waited > LOST_AFTER:
                self.lost.append(ti.label)
                del self.open[ti.id]
            if waited <= QUEUED_TIMEOUT or any(c.ran_user_code(now) for c in self.cloud.of(ti.label)):
                continue
            with suppress(NotImplementedError):
                ti.scheduler.executor.revoke_task(ti=ti.workload.ti)
                ti.scheduler.tis.pop(compat.task_key(ti.scheduler.executor, ti.workload.ti))
                self.counts["revoked"] += 1
                ti.deferrals = 1  # it is stuck no second time
                self._later(ti, now + 10.0)

    # --- the day ---------------------------------------------------------------------------------------------

    async def run(self, each: float, look: Look) -> None:
        """
        Live through the day.

        :param each: virtual seconds between two looks
        """
        with self._played():
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self.stays = Scheduler(tasks)
                for part in self.parts:
                    await self._live(tasks, self.launches * part, self.seconds * part, each, look)
                    await self._rest(look)
                tasks.cancel_scope.cancel()

    async def _live(self, tasks: TaskGroup, launches: float, seconds: float, each: float, look: Look) -> None:
        begun, before = anyio.current_time(), self.counts["queueings"]
        stays, peer = self.stays, Scheduler(tasks)
        orphaned: list[Ti] = []
        adopt_at = 0.0
        looked = weather_at = forgot = begun
        loop_dies_at = begun + 0.9 * min(LOOP_LIVES, seconds)
        due = 0.0
        while True:
            now = anyio.current_time()
            queueing = now < begun + seconds
            if now - weather_at > min(WEATHER_LASTS, seconds / 9) and queueing:
                weather_at = now
                self._turn_weather(now)
            if now - peer.began > self.peer_lives and queueing and not orphaned:
                orphaned, adopt_at = list(peer.tis.values()), now + UNTIL_ADOPTED
                self._kill(peer)
                peer = Scheduler(tasks)
                self.counts["schedulers killed"] += 1
            if orphaned and now > adopt_at:
                stays.adopt([ti for ti in orphaned if ti.id in self.open], self.cloud)
                self.counts["adopted"] += len(orphaned)
                orphaned = []
            if now > loop_dies_at and queueing:
                loop_dies_at += LOOP_LIVES
                self.counts["loop threads died"] += 1
                await stays.lose_its_loop()
            self._queue_again(now)
            # The same in every hour: those that come again are launches, too.
            due += launches / seconds * self.heartbeat * queueing
            allowed = launches * min(1.0, (now - begun) / seconds) + before
            while due >= 1.0 and self.counts["queueings"] < allowed:
                due -= 1.0
                self._queue(self._new(), peer if self.random.random() < PEERS_SHARE else stays)
            due = min(due, 50.0)
            for scheduler in (stays, peer):
                for event in scheduler.heartbeat():
                    self._apply(*event, now)
            if now - forgot > 60.0:
                forgot = now
                self._revoke_stuck(now)
                self.cloud.forget(now)
            if now - looked >= each:
                looked = now
                look(self, now, False)
            if not queueing and (not self.open or now > begun + seconds + 2 * LOST_AFTER):
                break
            await anyio.sleep(self.heartbeat)
        self._kill(peer)

    def _kill(self, peer: Scheduler) -> None:
        peer.die()
        self.killed.add(peer)

    def _queue_again(self, now: float) -> None:
        still = deque((at, ti) for at, ti in self.later if at > now)
        for at, ti in self.later:
            if at <= now:
                self._queue(ti, self.stays)
        self.later = still

    async def _rest(self, look: Look) -> None:
        """Let all that is over be forgotten, and look."""
        self.lost += [ti.label for ti in self.open.values() if ti.label not in self.lost]
        until = anyio.current_time() + 2 * HOUR
        while anyio.current_time() < until:
            for event in self.stays.heartbeat():
                self._apply(*event, anyio.current_time())
            await anyio.sleep(10.0)
        self.cloud.forget(anyio.current_time())
        left = [container for containers in self.cloud.by_label.values() for container in containers]
        assert not left, f"the cloud still knows {left[:3]}"
        look(self, anyio.current_time(), True)

    @contextmanager
    def _played(self) -> Iterator[None]:
        """Play the clock and the database."""
        loop = asyncio.get_running_loop()
        clock = types.SimpleNamespace(
            time=lambda: EPOCH + loop.time(), monotonic=loop.time, thread_time=time.thread_time
        )

        def label_of(launch: Launch) -> str:
            workload = launch.workload
            subject = getattr(getattr(workload, "ti", None), "id", None)  # an adopted workload has none
            if isinstance(workload, CondensedWorkload):
                subject = uuid.UUID(workload.subject)
            return self.open[subject].label if subject in self.open else "over"

        with ExitStack() as stack:
            for name, module in list(sys.modules.items()):
                if name.startswith("ecs_async_executor.adapter") and getattr(module, "time", None) is time:
                    stack.enter_context(mock.patch.object(module, "time", clock))
            patch = mock.patch.object
            stack.enter_context(patch(VirtualBridge, "cloud", self.cloud, create=True))
            stack.enter_context(patch(VirtualBridge, "clock", staticmethod(loop.time), create=True))
            stack.enter_context(patch(VirtualBridge, "label_of", staticmethod(label_of), create=True))
            # Snapshots and idle looks twice a second are most of a day's work.
            stack.enter_context(patch(pinging, "INTERVAL", 5.0))
            stack.enter_context(patch(intake, "INTERVAL", 5.0))
            stack.enter_context(patch(LogLines, "_write", lambda *_: None))
            stack.enter_context(patch(compat, "load_for_adoption", lambda tis: None))
            stack.enter_context(patch(compat, "rebuild", lambda tis: {ti.id: ti.workload for ti in tis}))
            stack.enter_context(patch(compat, "log_paths", lambda: lambda ti: ti.workload.log_path))
            stack.enter_context(
                patch(compat, "task_key", lambda executor, ti: key_of(executor, getattr(ti, "workload", None), ti))
            )
            yield


_task_key = compat.task_key


def key_of(executor: AsyncExecutor, workload: Any, ti: Any) -> Any:
    """Return the key of a task instance, whatever stands for it."""
    return _task_key(executor, ti if workload is None else workload.ti)
