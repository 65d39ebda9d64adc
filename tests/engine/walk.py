"""
Airflow, the engine and AWS as a random walk in virtual time: what can happen, and what has to hold after each.

Airflow's side is played by its rules: a key is queued again without a revoke only once its container is through;
a dead scheduler's launches are adopted by the next one from what Airflow knows, which can lag behind.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import AirflowState, Finished, Launch, Launched, Stop
from ecs_async_executor.core.policy import Rules
from tests.engine.cloud import Container, FakeCloud, Plan
from tests.engine.harness import OPTIONS, RULES, Harness, make_launch
from tests.engine.virtual_time import VirtualTimeLoop, wall

MAX_LAUNCHES, MAX_DESCRIBES, RATE = 5, 2, 20.0
STALL = 20.0
LONG = 4000.0
"""Long enough that only a stop ends it in time."""
TOKEN_LIFE = 600.0
WALK_OPTIONS = replace(
    OPTIONS,
    launch_rate=lambda bucket: RATE,
    launch_burst=10,
    launch_rate_max=RATE,
    max_concurrent_launches=MAX_LAUNCHES,
    max_concurrent_describes=MAX_DESCRIBES,
    stall_timeout=STALL,
)
PATIENT = replace(RULES, missing_grace=1000.0, permanent_error_grace=1e5)
"""No grace runs out while anything is wrong: nothing fails but what has failed."""

ERRORS = {
    "throttled": BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded"),
    "concurrent": BackendError(Kind.CONCURRENT, "ClientException", "Too many concurrent attempts"),
    "no answer": BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout"),
    "no capacity": BackendError(Kind.CAPACITY, "RESOURCE:CPU", "no room", token_used=True),
    "expired": BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "expired"),
    "denied": BackendError(Kind.REFUSED, "AccessDeniedException", "denied"),
    "malformed": BackendError(Kind.INVALID, "InvalidParameterException", "what is that?"),
    "no cluster": BackendError(Kind.NOT_FOUND, "ClusterNotFoundException", "Cluster not found."),
    "conflict": BackendError(Kind.CONFLICT, "ConflictException", "token in use", []),
}
TRUE_OF_LAUNCHES_ONLY = ("no capacity", "conflict")
PLANS = st.builds(
    Plan,
    start_after=st.floats(0, 30),
    duration=st.one_of(st.floats(0.5, 300), st.just(LONG)),
    exit_code=st.sampled_from([0, 0, 0, 1, 137, None]),
    starts=st.sampled_from([True, True, True, False]),
    unplaced=st.sampled_from([0.0, 0.0, 20.0]),
    hidden_for=st.sampled_from([0.0, 0.0, 1.0, 10.0]),
    lingers=st.sampled_from([0.0, 30.0]),
)
MOMENTS = st.sampled_from([0.02, 0.06, 3.0])
STEPS: Counter[str] = Counter()
"""Taken by each machine in this process; ``conftest.py`` tells them."""


@dataclass(eq=False)
class Instance:
    """What Airflow knows of one queueing of a task instance."""

    launch: Launch
    arn: str | None = None
    outcome: Finished | None = None
    revoked: bool = False
    superseded: bool = False
    silent: bool = False
    stop_owed: bool = False
    closed: bool = False
    """Airflow heard of its end from the container itself."""

    @property
    def open(self) -> bool:
        return self.outcome is None and not self.revoked and not self.superseded and not self.closed


@dataclass(eq=False)
class Straggler:
    """A scheduler that stalled, was taken for dead, and is awake again."""

    harness: Harness
    engine_task: asyncio.Task[None]
    ended: dict[str, Finished]


class Walk(RuleBasedStateMachine):
    """Any number of schedulers in a row, and at most one more that stalled until another had adopted."""

    CLOUD = FakeCloud
    REPEATABLE = True
    RULES = PATIENT
    PEERS = True
    """A peer may adopt what a scheduler that stalls still holds, and the one that stalled wakes up again."""
    FAILURE_MEMORY = "forget"
    """What a client token remembers of an answer without a container."""
    FORGETS = False
    """The service may not know a container for longer than its grace."""

    ELSEWHERE: tuple[str, ...] = ()
    """The destinations that there are besides home."""
    ARNS = True
    """The identifier of a container tells where it is."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.cloud = self.CLOUD(
            fault=self.fault,
            repeatable=self.REPEATABLE,
            failure_memory=self.FAILURE_MEMORY,
            elsewhere=self.ELSEWHERE,
            arns=self.ARNS,
        )
        self.faults: dict[str, tuple[BackendError, float, float]] = {}
        self.random = random.Random(0)
        self.instances: dict[str, Instance] = {}
        self.latest: dict[str, Instance] = {}
        self.stragglers: list[Straggler] = []
        self.keys = 0
        self.jwts = itertools.count()
        self.clock_error = 0.0
        self.unreadable_until = 0.0
        self.began: list[float] = []
        self.drained_at: float | None = None
        self.cloud.plan = lambda label, nth: self.plans.get((label, nth), Plan())
        self.plans: dict[tuple[str, int], Plan] = {}
        self.start_scheduler()

    def fault(self, operation: str, cloud: FakeCloud) -> BackendError | None:
        error, probability, until = self.faults.get(operation, (None, 0.0, 0.0))
        if error is not None and anyio.current_time() < until and self.random.random() < probability:
            return error
        return None

    def start_scheduler(self) -> None:
        self.harness = self.make_harness(replace(self.RULES, repeatable=self.REPEATABLE))
        self.harness.clock_error = self.clock_error
        self.start_loop()

    def make_harness(self, rules: Rules) -> Harness:
        options = replace(WALK_OPTIONS, destinations=self.ELSEWHERE)
        return Harness(self.cloud, options=options, rules=rules, render=self.render)

    def start_loop(self) -> None:
        self.began.append(self.loop.time())
        ready = asyncio.Event()
        self.engine_task = self.loop.create_task(self.harness.engine.run(ready.set))
        self.loop.run_until_complete(ready.wait())

    def kill_loop(self) -> None:
        """The thread dies: every await ends where it is, and no reply is ever read."""
        self.end_task(self.engine_task)

    def end_task(self, task: asyncio.Task[None]) -> None:
        task.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(task)

    def pass_time(self, seconds: float) -> None:
        async def main() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(main())
        assert not self.engine_task.done() or self.drained_at is not None

    def new_launch(self) -> Launch:
        async def main() -> Launch:
            return make_launch("", key="")

        return self.loop.run_until_complete(main())

    def render(self, launch: Launch) -> LaunchSpec:
        request = {"label": launch.label, "jwt": next(self.jwts)}
        expires_at = wall() + self.clock_error + TOKEN_LIFE
        return LaunchSpec(request, "default", "main", "FARGATE", launch.started_by, expires_at)

    # --- Airflow ---------------------------------------------------------------------------------------------

    def queue(self, key: str) -> None:
        launch = self.new_launch().evolve(key=key, label=key, tokened=True, priority=self.random.randrange(3))
        self.hand_over(Instance(launch))

    def hand_over(self, instance: Instance) -> None:
        self.instances[instance.launch.launch_id] = instance
        self.latest[str(instance.launch.key)] = instance
        self.harness.submit(instance.launch)

    @initialize(seed=st.integers(0, 2**32))
    def seeded(self, seed: int) -> None:
        self.random = random.Random(seed)

    @rule(plans=st.lists(PLANS, min_size=1, max_size=3), count=st.integers(1, 8))
    def queue_new(self, plans: list[Plan], count: int) -> None:
        for _ in range(count):
            self.keys += 1
            key = f"k{self.keys}"
            for nth, plan in enumerate(plans, 1):
                self.plans[key, nth] = plan
            self.queue(key)

    @precondition(lambda self: self.resumable())
    @rule(data=st.data())
    def resume_after_deferral(self, data: st.DataObject) -> None:
        key = data.draw(st.sampled_from(self.resumable()))
        old = self.latest[key]
        if old.open:
            old.superseded = True
        self.queue(key)
        self.silence(old)

    def resumable(self) -> list[str]:
        """Keys whose container ran its user code to the end, seen by the executor or not."""
        now = self.loop.time()
        return [
            key
            for key, instance in self.latest.items()
            if any(
                c.ran_user_code(now) and not c.alive(now) and c.plan.exit_code == 0
                for c in self.containers_of(instance)
            )
        ][:10]

    def revocable(self) -> list[str]:
        return [key for key, instance in self.latest.items() if instance.open]

    @precondition(lambda self: self.revocable())
    @rule(data=st.data(), requeue=st.booleans())
    def revoke(self, data: st.DataObject, requeue: bool) -> None:
        key = data.draw(st.sampled_from(self.revocable()))
        instance = self.latest[key]
        instance.revoked = True
        self.will_be_stopped(instance)
        # One that only stalled was not told, and may launch it yet.
        instance.stop_owed = not self.stragglers
        self.harness.submit(Stop(instance.launch.launch_id, "revoked"))
        if requeue:
            self.queue(key)
        self.silence(instance)

    def will_be_stopped(self, instance: Instance) -> None:
        """Take note of a container, if there is one, that somebody does not want."""

    # --- time and trouble ------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.03, 0.1, 0.5, 2.0, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(
        operation=st.sampled_from(["launch", "launch:after", "describe", "search", "stop", "stop:after"]),
        error=st.sampled_from(sorted(ERRORS)),
        probability=st.sampled_from([0.1, 0.5, 1.0]),
        seconds=st.sampled_from([1.0, 30.0, 300.0]),
    )
    def trouble(self, operation: str, error: str, probability: float, seconds: float) -> None:
        if operation.endswith(":after") or (operation != "launch" and error in TRUE_OF_LAUNCHES_ONLY):
            error = "no answer"  # any other answer would be a lie of the service's
        if operation == "stop" and error == "no cluster":
            error = "no answer"  # likewise: it would say that there is no such container
        self.faults[operation] = (ERRORS[error], probability, self.loop.time() + seconds)

    @rule(share=st.sampled_from([0.3, 1.0]), seconds=st.sampled_from([1.0, 30.0, 300.0]))
    def some_records_cannot_be_read(self, share: float, seconds: float) -> None:
        until = self.unreadable_until = self.loop.time() + seconds
        self.cloud.unreadable = lambda container: (
            self.loop.time() < until and zlib.crc32(container.handle.id.encode()) % 10 < share * 10
        )

    @precondition(lambda self: self.FORGETS and self.cloud.containers)
    @rule(count=st.integers(1, 3), seconds=st.sampled_from([5.0, 100.0, 400.0]))
    def service_forgets_containers_for_a_time(self, count: int, seconds: float) -> None:
        now = self.loop.time()
        alive = [c for c in self.cloud.containers.values() if c.alive(now)]
        for container in self.random.sample(alive, min(count, len(alive))):
            container.forgotten_until = max(container.forgotten_until, now + seconds)

    @rule(seconds=st.sampled_from([-86400.0, -30.0, 30.0, 700.0, 86400.0]))
    def wall_clock_jumps(self, seconds: float) -> None:
        self.clock_error += seconds
        self.harness.clock_error = self.clock_error

    @rule(seconds=MOMENTS)
    def loop_thread_dies(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.kill_loop()
        self.harness.new_loop()
        self.start_loop()

    @rule(seconds=st.sampled_from([STALL / 2, STALL, STALL + 15.0, 120.0]))
    def scheduler_is_silent(self, seconds: float) -> None:
        self.silent_for(seconds)
        self.wakes(self.harness)

    def silent_for(self, seconds: float) -> None:
        since = self.loop.time()
        self.harness.silent_since = since
        self.pass_time(seconds)
        if not self.stragglers:
            late = [at for at in self.cloud.call_times["launch"] if at > since + STALL]
            assert not late, f"launched at {late}, silent since {since}"

    def wakes(self, harness: Harness) -> None:
        assert harness.silent_since is not None
        harness.silences += self.loop.time() - harness.silent_since > STALL
        harness.silent_since = None
        harness.engine.wake()

    @precondition(lambda self: self.PEERS and not self.stragglers)
    @rule(
        until_adopted=st.sampled_from([30.0, 45.0]),
        until_awake=st.sampled_from([0.0, 5.0, 60.0]),
        released=st.booleans(),
    )
    def scheduler_stalls_until_a_peer_has_adopted(
        self, until_adopted: float, until_awake: float, released: bool
    ) -> None:
        self.apply_reports()
        self.silent_for(until_adopted)
        stalled = Straggler(self.harness, self.engine_task, {})
        self.stragglers.append(stalled)
        self.start_scheduler()
        self.adopt_what_is_open()
        self.pass_time(until_awake)
        if released:
            stalled.harness.release(*(instance.launch for instance in self.each()))
        self.wakes(stalled.harness)

    @rule(seconds=MOMENTS, gap=st.sampled_from([0.0, 30.0]), told=st.booleans())
    def scheduler_is_killed_and_its_successor_adopts(self, seconds: float, gap: float, told: bool) -> None:
        self.pass_time(seconds)
        if told:
            self.apply_reports()
        self.kill_loop()
        self.loop.run_until_complete(asyncio.sleep(gap))
        self.start_scheduler()
        self.adopt_what_is_open()

    @rule(
        seconds=MOMENTS,
        stop_containers=st.booleans(),
        limit=st.sampled_from([0.0, 0.04, 8.0]),
        again=st.booleans(),
        told=st.booleans(),
    )
    def scheduler_ends_and_its_successor_adopts(
        self, seconds: float, stop_containers: bool, limit: float, again: bool, told: bool
    ) -> None:
        self.pass_time(seconds)
        drained_at = self.loop.time()
        for instance in self.each():
            if stop_containers and instance.open:
                self.will_be_stopped(instance)
        for _ in range(1 + again):
            self.harness.drain("The scheduler was terminated" if stop_containers else None)
        self.loop.run_until_complete(self.finished(limit))
        if not self.stragglers:
            assert max(self.cloud.call_times["launch"], default=0.0) <= drained_at
        if stop_containers and self.engine_task.done() and self.all_is_well_since(drained_at):
            now = self.loop.time()
            for instance in self.each():
                alive = [c for c in self.containers_of(instance) if instance.open and c.alive(now)]
                assert not alive, f"terminated, but still running: {alive}"
        self.kill_loop()
        if told:
            self.apply_reports()
        self.start_scheduler()
        self.adopt_what_is_open()

    async def finished(self, limit: float) -> None:
        await asyncio.wait({self.engine_task}, timeout=limit)

    def all_is_well_since(self, then: float) -> bool:
        return (
            not self.stragglers
            and self.unreadable_until <= then
            and all(until <= then for _, _, until in self.faults.values())
            and all(not c.unknown(then) for c in self.cloud.containers.values())
        )

    def adopt_what_is_open(self) -> None:
        now = self.loop.time()
        for instance in self.each():
            instance.stop_owed = False  # Airflow revokes once, and tells no successor
            if not instance.open:
                continue
            running = any(c.ran_user_code(now) for c in self.containers_of(instance))
            self.adopt(instance, AirflowState.RUNNING if running else AirflowState.QUEUED)

    def adopt(self, instance: Instance, was: AirflowState) -> None:
        self.harness.adopt(instance.launch, was, instance.arn)

    # --- what has to hold ------------------------------------------------------------------------------------

    def each(self) -> Iterable[Instance]:
        return list(dict.fromkeys(self.instances.values()))

    def containers_of(self, instance: Instance) -> list[Container]:
        prefix = instance.launch.launch_id
        return [c for c in self.cloud.of(instance.launch.label) if c.token.startswith(prefix)]

    def apply_reports(self) -> None:
        for report in self.harness.take():
            instance = self.instances[report.launch_id]
            assert not instance.silent, f"{report} of a launch that Airflow has no use for any more"
            assert instance.outcome is None, f"{report} after {instance.outcome}"
            if isinstance(report, Launched):
                self.learn_arn(instance, report.handle_id)
            elif isinstance(report, Finished):
                instance.outcome = report
                self.tells_the_truth(instance, report)
        for straggler in self.stragglers:
            for report in straggler.harness.take():
                assert report.launch_id not in straggler.ended, f"{report} after another"
                if isinstance(report, Finished):
                    straggler.ended[report.launch_id] = report
                    # Its own request was refused, by a fault that the request of the peer need not have met.
                    if report.ending is not Ending.REFUSED:
                        self.tells_the_truth(self.instances[report.launch_id], report)

    def learn_arn(self, instance: Instance, handle_id: str) -> None:
        instance.arn = handle_id

    def tells_the_truth(self, instance: Instance, outcome: Finished) -> None:
        now = self.loop.time()
        containers = self.containers_of(instance)
        good = [c for c in containers if c.succeeded(now)]
        if outcome.success:
            assert good, f"told to have succeeded: {instance}, {containers}"
            return
        assert not good, f"told to have failed: {instance}, {good}"
        alive = [c for c in containers if c.alive(now)]
        assert not alive, f"told to have failed while it runs: {instance}, {alive}"

    def silence(self, instance: Instance) -> None:
        """Let the engine learn what it was told; from then on it has nothing to say about this launch."""
        self.pass_time(0.0)
        self.apply_reports()
        instance.silent = True

    @invariant()
    def every_step_is_counted(self) -> None:
        STEPS[type(self).__name__] += 1

    @invariant()
    def at_most_one_outcome_and_nothing_after_it(self) -> None:
        self.apply_reports()

    @invariant()
    def user_code_of_a_launch_runs_once_at_most(self) -> None:
        now = self.loop.time()
        ran: defaultdict[str, int] = defaultdict(int)
        for container in self.cloud.containers.values():
            ran[container.token.rsplit("-", 1)[0]] += container.ran_user_code(now)
        assert all(times <= 1 for times in ran.values()), ran

    @invariant()
    def limits_are_kept(self) -> None:
        schedulers = 1 + len(self.stragglers)
        for there in self.cloud.there.values():
            assert there.peak["launch"] <= MAX_LAUNCHES * schedulers
            times = there.call_times["launch"]
            if len(times) > 60:
                window = times[-1] - times[-60]
                engines = schedulers + sum(began >= times[-60] for began in self.began)
                assert 10 * engines + RATE * schedulers * window + 10 >= 60, (
                    "a burst of every engine, and the rate"
                )
            del times[:-200]
        del self.cloud.call_times["launch"][:-200]

    def teardown(self) -> None:
        STEPS[type(self).__name__] -= 1  # the beginning is none
        try:
            self.faults.clear()
            self.pass_time(1000.0)
            self.revoked_containers_were_stopped()
            self.pass_time(4500.0)
            self.apply_reports()
            lost = [i for i in self.each() if i.open]
            assert not lost, f"no outcome: {lost[:3]}, {self.harness.records()}"
            for harness in (self.harness, *(straggler.harness for straggler in self.stragglers)):
                assert harness.is_idle()
                assert not harness.owes_stops()
            self.nothing_is_launched_after_drain()
        finally:
            for task in (self.engine_task, *(straggler.engine_task for straggler in self.stragglers)):
                if not task.done():
                    self.end_task(task)
            self.loop.close()

    def revoked_containers_were_stopped(self) -> None:
        for instance in self.each():
            if instance.stop_owed:
                left = [c for c in self.containers_of(instance) if self.outlives_its_revocation(c)]
                assert not left, f"still running: {left}"

    def outlives_its_revocation(self, container: Container) -> bool:
        return container.alive(self.loop.time())

    def nothing_is_launched_after_drain(self) -> None:
        self.queue_new([Plan()], 8)
        self.pass_time(0.02)
        self.drained_at = self.loop.time()
        self.harness.drain()
        self.queue("late")
        self.loop.run_until_complete(self.engine_task)
        assert not self.cloud.of("late")
        assert max(self.cloud.call_times["launch"], default=0) <= self.drained_at
