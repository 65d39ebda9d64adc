"""A queue of events in virtual time, and the cloud's side of it: what becomes of an event on its way."""

from __future__ import annotations

import heapq
import itertools
import math
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass, field

import anyio

from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.listening import Hint, Message
from tests.engine.cloud import Container, FakeCloud

WAIT = 20.0
MOST = 10
VISIBLE_AFTER = 10.0


@dataclass
class _Sent:
    hint: Hint | None
    whole: bool
    at: float
    visible_at: float
    receives: int = 0


@dataclass
class FakeQueue:
    """
    A queue as SQS has them: at least once, in any order, hidden for a time from the next receiver.

    :param latency: of every call, in seconds
    :param fault: asked for the error of a call, with its name
    """

    latency: float = 0.02
    fault: Callable[[str], BackendError | None] = lambda call: None
    sent: dict[str, _Sent] = field(default_factory=dict)
    calls: list[tuple[str, float]] = field(default_factory=list)
    deleted: int = 0
    waiting: int = 0
    most_waiting: int = 0
    _numbers: itertools.count[int] = field(default_factory=itertools.count)
    _changed: anyio.Event = field(default_factory=anyio.Event)

    def open(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    def send(self, hint: Hint | None, *, whole: bool = False) -> None:
        """Send an event; None: something else."""
        now = anyio.current_time()
        self.sent[f"receipt-{next(self._numbers)}"] = _Sent(hint, whole, now, now)
        self._wake()

    def _wake(self) -> None:
        changed, self._changed = self._changed, anyio.Event()
        changed.set()

    async def receive(self) -> Sequence[Message]:
        await self._call("receive")
        self.waiting += 1
        self.most_waiting = max(self.most_waiting, self.waiting)
        try:
            until = anyio.current_time() + WAIT
            while not (ready := self._ready()) and anyio.current_time() < until:
                next_at = min((one.visible_at for one in self.sent.values()), default=math.inf)
                with anyio.move_on_after(min(until, next_at) - anyio.current_time()):
                    await self._changed.wait()
        finally:
            self.waiting -= 1
        now = anyio.current_time()
        for receipt in ready:
            one = self.sent[receipt]
            one.receives += 1
            one.visible_at = now + VISIBLE_AFTER
        return [
            Message(receipt, one.hint, one.whole, one.receives, now - one.at)
            for receipt, one in ((receipt, self.sent[receipt]) for receipt in ready)
        ]

    def _ready(self) -> list[str]:
        now = anyio.current_time()
        return list(itertools.islice((r for r, one in self.sent.items() if one.visible_at <= now), MOST))

    async def delete(self, receipts: Sequence[str]) -> None:
        await self._call("delete")
        for receipt in receipts:
            self.deleted += self.sent.pop(receipt, None) is not None

    async def leave(self, receipts: Mapping[str, float]) -> None:
        await self._call("leave")
        for receipt, seconds in receipts.items():
            self.sent[receipt].visible_at = anyio.current_time() + seconds
        self._wake()

    async def _call(self, name: str) -> None:
        self.calls.append((name, anyio.current_time()))
        await anyio.sleep(self.latency)
        if (error := self.fault(name)) is not None:
            raise error


@dataclass
class Weather:
    """
    What becomes of events; shares from 0 to 1.

    :param delay: seconds that an event takes: at least, at most
    :param late: so many take ``late_by`` seconds more
    """

    delay: tuple[float, float] = (0.2, 1.0)
    lost: float = 0.0
    doubled: float = 0.0
    late: float = 0.0
    late_by: float = 90.0
    forged: float = 0.0


async def emit(
    cloud: FakeCloud, queues: Iterable[FakeQueue], weather: Weather, random_source: random.Random
) -> None:
    """Send an event for each container that begins to run or ends, for ever."""
    told: dict[str, Seen] = {}
    ahead: list[tuple[float, str]] = []
    known = 0
    async with anyio.create_task_group() as tasks:

        async def deliver(hint: Hint | None, delay: float) -> None:
            await anyio.sleep(delay)
            for queue in queues:
                queue.send(hint)

        def tell(handle_id: str, seen: Seen) -> None:
            if random_source.random() < weather.lost:
                return
            for _ in range(1 + (random_source.random() < weather.doubled)):
                delay = random_source.uniform(*weather.delay)
                if random_source.random() < weather.late:
                    delay += weather.late_by
                tasks.start_soon(deliver, Hint(handle_id, seen), delay)
            if random_source.random() < weather.forged:
                for forged in (None, Hint("container-0", Seen.STOPPED), Hint(handle_id, Seen.STOPPED), None):
                    tasks.start_soon(deliver, forged, weather.delay[0])

        while True:
            now = anyio.current_time()
            for container in itertools.islice(cloud.containers.values(), known, None):
                for at in (container.starts_at, container.ends_at):
                    heapq.heappush(ahead, (at, container.handle.id))
            known = len(cloud.containers)
            while ahead and ahead[0][0] <= now:
                handle_id = heapq.heappop(ahead)[1]
                state = _state(cloud.containers[handle_id], now)
                if told.get(handle_id, Seen.PENDING) is not state:
                    told[handle_id] = state
                    tell(handle_id, state)
            await anyio.sleep(0.1)


def _state(container: Container, now: float) -> Seen:
    if not container.alive(now):
        return Seen.STOPPED
    return Seen.RUNNING if container.ran_user_code(now) else Seen.PENDING
