"""An engine over the fake cloud, driven as the bridge would, in virtual time."""

from __future__ import annotations

import asyncio
import itertools
import random
import uuid
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import anyio

from ecs_async_executor.core.backend import LaunchSpec, Service
from ecs_async_executor.core.choices import Choices
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.listening import EventQueue
from ecs_async_executor.core.messages import (
    Adopt,
    AirflowState,
    Command,
    Finished,
    Launch,
    Launched,
    Notice,
    Release,
    Report,
    Stop,
)
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.intake import Check
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.options import Options
from ecs_async_executor.engine.rendering import Rendering, no_choices
from ecs_async_executor.engine.statistics import PHASE_NAMES, Statistics
from tests.engine.cloud import FakeCloud
from tests.engine.virtual_time import EPOCH, VirtualTimeLoop, wall
from tests.rules import rules as default_rules

OPTIONS = Options(
    launch_rate=lambda bucket: 1000.0,
    launch_burst=100,
    launch_rate_max=1000.0,
    max_concurrent_launches=64,
    max_concurrent_describes=8,
    describe_rate=1000.0,
    describe_burst=100,
    poll_interval=1.0,
    change_rate=40.0,
    change_burst=20.0,
)
QUOTA = replace(OPTIONS, launch_rate=lambda bucket: 20.0, launch_burst=10)
"""Begin with what an account may do by default: 20 launches a second after a burst."""
STALL = 20.0
"""Seconds of silence after which a scheduler launches nothing, where a test watches for it."""
SERVICE = Service(name="Cloud", launch_rates={}, launch_rate=1000.0, change_rate=40.0, change_burst=20.0)
RULES = default_rules()
JWTS = itertools.count()


def launch_id() -> str:
    return str(uuid.uuid4())


class _Rendering(Rendering):
    """Renders as the engine does, or with a coroutine function in place of a hook in its own thread."""

    instead: Callable[[Launch], Coroutine[Any, Any, LaunchSpec]] | None = None

    async def render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        return await (super().render(launch, choice) if self.instead is None else self.instead(launch))


class Harness:
    """What the executor would see, and a few verbs to drive it."""

    def __init__(
        self,
        cloud: FakeCloud,
        *,
        options: Options = OPTIONS,
        rules: Rules = RULES,
        render: Callable[[Launch], LaunchSpec] | None = None,
        choices: Callable[[Launch], Choices] = no_choices,
        rendering: Rendering | None = None,
        events: Mapping[str, EventQueue] | None = None,
        seed: int = 1,
    ) -> None:
        self.cloud = cloud
        self.events = events
        self.options = options
        self.ledger = Ledger(rules)
        self.inbox: deque[Command | Check] = deque()
        self.render = render or self.default_render
        self.rendering = rendering or _Rendering(self._render, choices=choices)
        self.rendered: list[str] = []
        self.reports: list[Report] = []
        self.ends: list[Finished] = []
        self.ends_of: defaultdict[Any, list[Finished]] = defaultdict(list)
        self.snapshots: list[Statistics] = []
        self.silence = 0.0
        self.silences = 0
        self.silent_since: float | None = None
        self.clock_error = 0.0
        self.seed = seed
        self.meters = Meters()
        self.engine = self._make_engine()

    def _make_engine(self) -> Engine:
        return Engine(
            backend=self.cloud,
            ledger=self.ledger,
            inbox=self.inbox,
            rendering=self.rendering,
            options=self.options,
            meters=self.meters,
            heartbeat_age=self._heartbeat_age,
            silences=lambda: self.silences,
            publish=self.snapshots.append,
            events=self.events,
            wall=lambda: wall() + self.clock_error,
            random_source=random.Random(self.seed),
            event=SERVICE.event,
        )

    def _heartbeat_age(self) -> float:
        return self.silence if self.silent_since is None else anyio.current_time() - self.silent_since

    def new_loop(self) -> None:
        """Do what the bridge does when the loop thread has died: a new engine over the same ledger."""
        self.engine = self._make_engine()

    def _render(self, launch: Launch, choice: str | None = None) -> LaunchSpec:
        self.rendered.append(launch.label)
        spec = self.render(launch)
        return spec if choice is None else self.chosen(spec, choice)

    def chosen(self, spec: LaunchSpec, choice: str) -> LaunchSpec:
        """Return a request as one for a choice, which names its placement, too."""
        request = {**spec.request, "choice": choice}
        return replace(spec, request=request, placement=choice, choice=choice)

    def default_render(self, launch: Launch) -> LaunchSpec:
        # The token of Airflow's own differs with every rendering of any scheduler, as a real one does.
        request = {"label": launch.label, "jwt": next(JWTS)}
        return LaunchSpec(
            request, "default", "main" if launch.route is None else str(launch.route), "FARGATE", launch.started_by
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Harness]:
        ready = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.engine.run, ready.set)
            await ready.wait()
            try:
                yield self
            finally:
                tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def running_until_drained(self) -> AsyncIterator[Harness]:
        """Run the engine, and leave only when it has ended by itself."""
        ready = anyio.Event()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self.engine.run, ready.set)
            await ready.wait()
            yield self

    # --- what the bridge and the executor do -----------------------------------------------------------------

    def submit(self, *commands: Command) -> None:
        self.inbox.extend(commands)
        self.engine.wake()

    def launch(self, label: str, *, priority: int = 0, key: str | None = None, **fields: Any) -> str:
        command = make_launch(label, priority=priority, key=key, **fields)
        self.submit(command)
        return command.launch_id

    def stop(self, launch_id: str, reason: str = "revoked") -> None:
        self.submit(Stop(launch_id, reason))

    def release(self, *launches: Launch) -> None:
        self.submit(*(Release(launch.launch_id) for launch in launches))

    def adopt(self, launch: Launch, was: AirflowState, handle_id: str | None = None) -> None:
        self.submit(Adopt(launch, was, handle_id))

    def drain(self, stop_reason: str | None = None) -> None:
        self.engine.drain(stop_reason)

    # --- what was reported -----------------------------------------------------------------------------------

    def take(self) -> list[Report]:
        taken: list[Report] = []
        while self.ledger.outbox:
            taken.append(self.ledger.outbox.popleft())
        self.reports.extend(taken)
        for end in taken:
            if isinstance(end, Finished):
                self.ends.append(end)
                self.ends_of[end.key].append(end)
        return taken

    def finished(self, label: str | None = None) -> list[Finished]:
        self.take()
        return list(self.ends if label is None else self.ends_of[label])

    def launched(self, label: str) -> list[Launched]:
        self.take()
        return [r for r in self.reports if isinstance(r, Launched) and r.key == label]

    def notices(self, label: str) -> list[Notice]:
        self.take()
        return [r for r in self.reports if isinstance(r, Notice) and r.key == label]

    def handles(self) -> dict[str, str]:
        """Return which container each workload was said to have, the latest if there were several."""
        self.take()
        return {str(r.key): r.handle_id for r in self.reports if isinstance(r, Launched)}

    # --- waiting ---------------------------------------------------------------------------------------------

    async def until(self, condition: Callable[[], Any], timeout: float = 7200.0) -> Any:
        """
        Wait until a condition holds, looking again whenever something may have changed; return its value.

        :param timeout: seconds of virtual time
        :raises TimeoutError: if it does not hold by then
        """
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualTimeLoop)
        seen = -1
        with anyio.fail_after(timeout):
            while not (value := condition()):
                seen = await loop.settled(seen)
        return value

    async def until_launched(self, label: str, *, times: int = 1, timeout: float = 7200.0) -> Launched:
        """Wait until a workload was said to have its n-th container; return the report."""
        await self.until(lambda: len(self.launched(label)) >= times, timeout)
        launched = self.launched(label)
        assert len(launched) == times
        return launched[-1]

    async def until_finished(self, label: str, *, timeout: float = 7200.0) -> Finished:
        """Wait for the one report of how a workload ended."""
        [finished] = await self.until(lambda: self.finished(label), timeout)
        assert isinstance(finished, Finished)
        return finished

    async def until_idle(self, *, timeout: float = 7200.0) -> None:
        """Wait until no launch is left to see to."""
        await self.until(self.is_idle, timeout)

    # --- inside: only here do tests look into the ledger and the engine --------------------------------------

    def launches(self) -> list[Launch]:
        """Return the launches that have not ended."""
        return [tracked.launch for tracked in self.ledger.launches.values()]

    def records(self) -> list[str]:
        """Describe every launch there is, for an assertion's message."""
        return [repr(tracked) for tracked in self.ledger.launches.values()]

    def phases(self, label: str | None = None) -> list[str]:
        """Return the phases of the launches of a workload, or of all."""
        return [
            PHASE_NAMES[type(t.phase).__name__]
            for t in self.ledger.launches.values()
            if label in (None, t.launch.label)
        ]

    def is_idle(self) -> bool:
        """Return whether no launch is left to see to; stops may still be owed."""
        return not self.ledger.launches

    def owes_stops(self) -> bool:
        """Return whether a container has still to be stopped."""
        return bool(self.ledger.stops)

    def without_container(self) -> list[Launch]:
        """Return the launches of which no container is known."""
        return [t.launch for t in self.ledger.launches.values() if t.handle is None]

    def followed_since(self, then: float) -> list[str]:
        """Return the ids of the launches whose containers became known at ``then`` or later."""
        return [tracked.launch.launch_id for tracked in self.ledger.active.since(HOME, then)]

    def queue_length(self) -> int:
        """Return how many entries the launch queues have, those that mean nothing any more included."""
        return sum(len(queue.heap) for queue in self.ledger.queues.queues.values())

    def render_with(self, rendered: Callable[[Launch], Coroutine[Any, Any, LaunchSpec]]) -> None:
        """Have this engine render with a coroutine function, as it does with a hook in its own thread."""
        assert isinstance(self.rendering, _Rendering)
        self.rendering.instead = rendered

    def wake_launching(self) -> None:
        """Wake the lane that launches, and no other."""
        self.engine.launching.wake()


def make_launch(label: str, *, priority: int = 0, key: str | None = None, **fields: Any) -> Launch:
    identity = launch_id()
    launch = Launch(
        launch_id=identity,
        key=key or label,
        workload=None,
        priority=priority,
        started_by=identity,
        queued_at=EPOCH + anyio.current_time(),
        label=label,
    )
    return launch.evolve(**fields)


def under_a_new_id(launch: Launch) -> Launch:
    """Return a launch as a scheduler adopts it where Airflow has not kept its identity."""
    return launch.evolve(launch_id=launch_id())


async def first_scheduler_dies(
    cloud: FakeCloud,
    label: str = "a",
    *,
    told: bool = True,
    over: bool = False,
    containers: int = 1,
    after: float = 0.0,
    rules: Rules = RULES,
    **fields: Any,
) -> tuple[Launch, str]:
    """
    Have a scheduler launch a workload and die; return the launch and the identifier of its first container.

    :param told: the scheduler was told of the container; if not, it dies as soon as there is one
    :param over: the scheduler was also told how the container ended
    :param containers: how many it was told of, where the earlier ones do not start
    :param after: seconds that it lives on
    """
    async with Harness(cloud, rules=rules).running() as first:
        launch = make_launch(label, **fields)
        first.submit(launch)
        await first.until(lambda: cloud.of(label))
        if told:
            await first.until_launched(label, times=containers)
        if over:
            await first.until_finished(label)
        await anyio.sleep(after)
    return launch, cloud.of(label)[0].handle.id


async def first_scheduler_dies_after_a_deferral(cloud: FakeCloud, *, after: float = 0.0) -> tuple[Launch, str]:
    """
    Have a scheduler launch a workload a second time under the mark of a container that is over, and die.

    :param after: seconds that it lives on after it was told of the second container
    :returns: the second launch, and the identifier of the first container
    """
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        old = await first.until_finished("a")
        await anyio.sleep(20)
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until_launched("a", times=2)
        await anyio.sleep(after)
    assert old.handle_id is not None
    return resumed, old.handle_id
