"""
The engine alone in virtual time: the CPU of a sweep, and the time until an end is seen.

A sweep of a hundred thousand containers takes minutes within AWS's default read quota. Here the clock jumps to the
next timer, so only the engine's own CPU time passes. The cost of a request (HTTP, signing, decoding) is not in
these figures; the scenario ``steady`` has it.
"""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext

import anyio

from benchmarks.cells import Cell, Figures
from benchmarks.meters import percentile
from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Paced, Seen, Trial, unpaced
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Adopt, AirflowState, Command, Finished, Launch, Report
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.engine.intake import Check
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.options import Options, rules_from
from ecs_async_executor.engine.rendering import Rendering
from ecs_async_executor.services import ecs
from ecs_async_executor.settings import Tuning

EPOCH = 1_800_000_000.0
SWEEPS = 3
ENDING = 2000
"""Number of containers that end, but no more than half of those that run."""
READS_PER_SECOND = 20.0
BATCH = 100


class _VirtualTime(asyncio.SelectorEventLoop):
    """A loop whose clock jumps to the next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._now = 0.0

    def time(self) -> float:
        return self._now

    def _run_once(self) -> None:
        if not self._ready and self._scheduled:  # type: ignore[attr-defined]
            self._now = max(self._now, self._scheduled[0].when())  # type: ignore[attr-defined]
        super()._run_once()  # type: ignore[misc]


class _Cloud:
    """Containers that run until the time in ``ends``."""

    describe_batch = BATCH

    def __init__(self, number: int, latency: float) -> None:
        self.ids = [f"arn:aws:ecs:us-east-1:123456789012:task/default/{index:032x}" for index in range(number)]
        self.ends: dict[str, float] = {}
        self.polled = 0
        self._latency = latency

    def scope_of(self, _: str | None) -> str:
        return "default"

    def scopes_of(self, _: str) -> Sequence[str]:
        return ["default"]

    def open(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        await anyio.sleep(self._latency / 2)
        self.polled += len(ids)
        seen = [self._observe(scope, one, anyio.current_time()) for one in ids]
        await anyio.sleep(self._latency / 2)
        return seen

    def _observe(self, scope: str, identifier: str, now: float) -> Observation:
        over = self.ends.get(identifier, now + 1) <= now
        return Observation(
            Handle(scope, identifier),
            Seen.STOPPED if over else Seen.RUNNING,
            status="STOPPED" if over else "RUNNING",
            exit_code=0 if over else None,
            started=True,
            created_at=EPOCH,
        )

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        raise NotImplementedError

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        raise NotImplementedError

    async def stop(self, handle: Handle, reason: str) -> None:
        raise NotImplementedError

    async def check(self) -> None:
        """Pass."""

    untried = "launch"

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:  # noqa: ARG002 - the protocol's
        return [Trial("check", self.check)]


class _Outbox(deque[Report]):
    """Records the time at which the end of a container is reported."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: dict[str, float] = {}

    def append(self, report: Report) -> None:
        if isinstance(report, Finished) and report.handle_id is not None:
            self.ends[report.handle_id] = anyio.current_time()


def simulate(cell: Cell) -> Figures:
    """Adopt ``running`` containers, sweep them, then end some and measure when the engine reports it."""
    return anyio.run(_simulate, cell, backend_options={"loop_factory": _VirtualTime})


async def _simulate(cell: Cell) -> Figures:
    cloud = _Cloud(cell.running, cell.latency)
    ledger = Ledger(rules_from(ecs.SERVICE, Tuning(), max_attempts=1))
    outbox = ledger.outbox = _Outbox()
    async with _engine(cloud, ledger) as submit:
        begun = anyio.current_time()
        for index, identifier in enumerate(cloud.ids):
            launch = Launch(f"launch-{index}", ("dag", f"task_{index}"), None, 0, f"ti-{index}", EPOCH)
            submit(Adopt(launch, AirflowState.RUNNING, identifier))
        while len(ledger.active) < cell.running:  # noqa: ASYNC110 - in virtual time
            await anyio.sleep(0.5)
        resolved = anyio.current_time() - begun
        # Let a sweep that began during the adoption end before the measurement.
        interval = max(1.0, cell.running / BATCH / (READS_PER_SECOND / 4))
        await anyio.sleep(2 * interval)
        gc.collect()
        polled, cpu = cloud.polled, time.process_time()
        await anyio.sleep(SWEEPS * interval)
        polled, cpu = cloud.polled - polled, time.process_time() - cpu
        chance = random.Random(1)  # noqa: S311 - when containers end
        now = anyio.current_time()
        for identifier in chance.sample(cloud.ids, min(ENDING, cell.running // 2)):
            cloud.ends[identifier] = now + chance.uniform(0.0, 2 * interval)
        while len(outbox.ends) < len(cloud.ends):  # noqa: ASYNC110 - in virtual time
            await anyio.sleep(interval)
        delays = [outbox.ends[identifier] - ended for identifier, ended in cloud.ends.items()]
    return {
        "adopted_and_resolved_s": resolved,
        "sweep_interval_s": interval,
        "polled": polled,
        "cpu_per_polled_s": cpu / polled,
        "cpu_per_sweep_s": cpu / polled * cell.running,
        "detection_p50_s": percentile(delays, 0.5),
        "detection_p99_s": percentile(delays, 0.99),
        "detection_max_s": max(delays),
    }


@asynccontextmanager
async def _engine(cloud: _Cloud, ledger: Ledger) -> AsyncIterator[Callable[[Command], None]]:
    """Run an engine with the default settings."""
    inbox: deque[Command | Check] = deque()
    engine = Engine(
        backend=cloud,
        ledger=ledger,
        inbox=inbox,
        rendering=Rendering(_no_request),
        options=Options(
            launch_rate=lambda _: 20.0,
            launch_burst=10,
            launch_rate_max=100.0,
            max_concurrent_launches=64,
            max_concurrent_describes=8,
            describe_rate=READS_PER_SECOND,
            describe_burst=READS_PER_SECOND,
            poll_interval=1.0,
            change_rate=40.0,
            change_burst=20.0,
        ),
        meters=Meters(),
        wall=lambda: EPOCH + anyio.current_time(),
    )
    async with anyio.create_task_group() as tasks:
        ready = anyio.Event()
        tasks.start_soon(engine.run, ready.set)
        await ready.wait()
        yield inbox.append
        tasks.cancel_scope.cancel()


def _no_request(_: Launch) -> LaunchSpec:
    raise NotImplementedError
