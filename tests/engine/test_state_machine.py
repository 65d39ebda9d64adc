"""
Exactly one outcome per launch, whatever happens: Airflow, the engine and AWS as a random walk in virtual time.

Airflow's side is played by its rules: a key is queued again without a revoke only once its container is through;
a dead scheduler's launches are adopted by the next one from what Airflow knows, which can lag behind. More steps:
``STATE_MACHINE_EXAMPLES=500 STATE_MACHINE_STEPS=200 pytest tests/engine/test_state_machine.py``.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, replace

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ecs_async_executor.errors import BackendError, Kind
from ecs_async_executor.messages import Finished, Launch, Launched, Stop, Was
from ecs_async_executor.policy import Rules
from tests.engine.cloud import Container, FakeCloud, Plan
from tests.engine.harness import OPTIONS, Harness, make_launch
from tests.engine.virtual_time import VirtualTimeLoop

MAX_LAUNCHES, MAX_DESCRIBES, RATE = 5, 2, 20.0
LONG = 4000.0
"""Long enough that only a stop ends it in time."""
WALK_OPTIONS = replace(
    OPTIONS,
    launch_rate=lambda bucket: RATE,
    launch_burst=10,
    launch_rate_max=RATE,
    max_concurrent_launches=MAX_LAUNCHES,
    max_concurrent_describes=MAX_DESCRIBES,
)
# A service that forgets its containers is played nowhere here, so neither grace may run out.
WALK_RULES = Rules(service="ECS", max_attempts=3, missing_grace=1e5, permanent_error_grace=1e5)

ERRORS = {
    "throttled": BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded"),
    "concurrent": BackendError(Kind.CONCURRENT, "ClientException", "Too many concurrent attempts"),
    "no answer": BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout"),
    "no capacity": BackendError(Kind.CAPACITY, "RESOURCE:CPU", "no room"),
    "expired": BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "expired"),
    "denied": BackendError(Kind.REFUSED, "AccessDeniedException", "denied"),
}
PLANS = st.builds(
    Plan,
    start_after=st.floats(0, 30),
    duration=st.one_of(st.floats(0.5, 300), st.just(LONG)),
    exit_code=st.sampled_from([0, 0, 0, 1, 137, None]),
    starts=st.sampled_from([True, True, True, False]),
    hidden_for=st.sampled_from([0.0, 0.0, 1.0, 10.0]),
    lingers=st.sampled_from([0.0, 30.0]),
)


@dataclass
class Instance:
    """What Airflow knows of one queueing of a task instance."""

    launch: Launch
    arn: str | None = None
    outcome: Finished | None = None
    revoked: bool = False
    superseded: bool = False
    silent: bool = False
    stop_owed: bool = False

    @property
    def open(self) -> bool:
        return self.outcome is None and not self.revoked and not self.superseded


class ExactlyOnce(RuleBasedStateMachine):
    """One scheduler at a time, any number in a row."""

    REPEATABLE = True

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        self.cloud = FakeCloud(fault=self.fault, repeatable=self.REPEATABLE)
        self.faults: dict[str, tuple[BackendError, float, float]] = {}
        self.random = random.Random(0)
        self.instances: dict[str, Instance] = {}
        self.latest: dict[str, Instance] = {}
        self.keys = 0
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
        self.harness = Harness(
            self.cloud, options=WALK_OPTIONS, rules=replace(WALK_RULES, repeatable=self.REPEATABLE)
        )
        self.start_loop()

    def start_loop(self) -> None:
        self.began.append(self.loop.time())
        ready = asyncio.Event()
        self.engine_task = self.loop.create_task(self.harness.engine.run(ready.set))
        self.loop.run_until_complete(ready.wait())

    def kill_loop(self) -> None:
        """The thread dies: every await ends where it is, and no reply is ever read."""
        self.engine_task.cancel()
        with suppress(asyncio.CancelledError):
            self.loop.run_until_complete(self.engine_task)

    def pass_time(self, seconds: float) -> None:
        async def main() -> None:
            await asyncio.sleep(seconds)

        self.loop.run_until_complete(main())
        assert not self.engine_task.done() or self.drained_at is not None

    def new_launch(self) -> Launch:
        async def main() -> Launch:
            return make_launch("", key="")

        return self.loop.run_until_complete(main())

    # --- Airflow ---------------------------------------------------------------------------------------------

    def queue(self, key: str) -> None:
        launch = replace(self.new_launch(), key=key, label=key, tokened=True, priority=self.random.randrange(3))
        instance = Instance(launch)
        self.instances[launch.launch_id] = instance
        self.latest[key] = instance
        self.harness.submit(launch)

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

    @precondition(lambda self: any(i.open for i in self.latest.values()))
    @rule(data=st.data(), requeue=st.booleans())
    def revoke(self, data: st.DataObject, requeue: bool) -> None:
        key = data.draw(st.sampled_from([k for k, i in self.latest.items() if i.open]))
        instance = self.latest[key]
        instance.revoked = instance.stop_owed = True
        self.harness.submit(Stop(instance.launch.launch_id, "revoked"))
        if requeue:
            self.queue(key)
        self.silence(instance)

    # --- time and trouble ------------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.01, 0.03, 0.1, 0.5, 2.0, 10.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.pass_time(seconds)

    @rule(
        operation=st.sampled_from(["launch", "launch:after", "describe", "find", "stop", "stop:after"]),
        error=st.sampled_from(sorted(ERRORS)),
        probability=st.sampled_from([0.1, 0.5, 1.0]),
        seconds=st.sampled_from([1.0, 30.0, 300.0]),
    )
    def trouble(self, operation: str, error: str, probability: float, seconds: float) -> None:
        if operation.endswith(":after"):
            error = "no answer"  # any other answer would be a lie of the service's
        self.faults[operation] = (ERRORS[error], probability, self.loop.time() + seconds)

    @rule(seconds=st.sampled_from([0.02, 0.06, 3.0]))
    def loop_thread_dies(self, seconds: float) -> None:
        self.pass_time(seconds)
        self.kill_loop()
        self.harness.new_loop()
        self.start_loop()

    @rule(seconds=st.sampled_from([0.02, 0.06, 3.0]), gap=st.sampled_from([0.0, 30.0]), told=st.booleans())
    def scheduler_is_killed_and_its_successor_adopts(self, seconds: float, gap: float, told: bool) -> None:
        self.pass_time(seconds)
        if told:
            self.apply_reports()
        self.kill_loop()
        self.loop.run_until_complete(asyncio.sleep(gap))
        self.start_scheduler()
        now = self.loop.time()
        for instance in self.instances.values():
            instance.stop_owed = False  # Airflow revokes once, and tells no successor
            if not instance.open:
                continue
            containers = self.containers_of(instance)
            running = any(c.ran_user_code(now) for c in containers)
            was = Was.RUNNING if running else Was.QUEUED
            self.harness.adopt(instance.launch, was, instance.arn)

    # --- what has to hold ------------------------------------------------------------------------------------

    def containers_of(self, instance: Instance) -> list[Container]:
        prefix = instance.launch.launch_id
        return [c for c in self.cloud.of(instance.launch.label) if c.token.startswith(prefix)]

    def apply_reports(self) -> None:
        for report in self.harness.take():
            instance = self.instances[report.launch_id]
            assert not instance.silent, f"{report} of a launch that Airflow has no use for any more"
            assert instance.outcome is None, f"{report} after {instance.outcome}"
            if isinstance(report, Launched):
                instance.arn = report.handle_id
            elif isinstance(report, Finished):
                instance.outcome = report

    def silence(self, instance: Instance) -> None:
        """Let the engine learn what it was told; from then on it has nothing to say about this launch."""
        self.pass_time(0.0)
        self.apply_reports()
        instance.silent = True

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
        assert self.cloud.peak["launch"] <= MAX_LAUNCHES
        times = self.cloud.call_times["launch"]
        if len(times) > 60:
            window = times[-1] - times[-60]
            engines = 1 + sum(began >= times[-60] for began in self.began)
            assert 10 * engines + RATE * window + 10 >= 60, "a burst of every engine, and the rate"
        del times[:-200]

    @invariant()
    def an_outcome_tells_the_truth(self) -> None:
        for instance in self.instances.values():
            if instance.outcome is not None and instance.outcome.success:
                assert any(c.plan.exit_code == 0 for c in self.containers_of(instance))

    def teardown(self) -> None:
        try:
            self.faults.clear()
            self.pass_time(1000.0)
            self.revoked_containers_were_stopped()
            self.pass_time(4500.0)
            self.apply_reports()
            lost = [i for i in self.instances.values() if i.open]
            assert not lost, f"no outcome: {lost[:3]}"
            assert not self.harness.ledger.records
            assert not self.harness.ledger.stops
            self.nothing_is_launched_after_drain()
        finally:
            if not self.engine_task.done():
                self.kill_loop()
            self.loop.close()

    def revoked_containers_were_stopped(self) -> None:
        for instance in self.instances.values():
            if instance.stop_owed:
                alive = [c for c in self.containers_of(instance) if c.alive(self.loop.time())]
                assert not alive, f"still running: {alive}"

    def nothing_is_launched_after_drain(self) -> None:
        self.queue_new([Plan()], 8)
        self.pass_time(0.02)
        self.drained_at = self.loop.time()
        self.harness.engine.drain(None)
        self.queue("late")
        self.loop.run_until_complete(self.engine_task)
        assert not self.cloud.of("late")
        assert max(self.cloud.call_times["launch"], default=0) <= self.drained_at


class ExactlyOnceWithoutTokens(ExactlyOnce):
    """At a service that makes a container of every request, however often it is sent."""

    REPEATABLE = False


SETTINGS = settings(
    max_examples=int(os.environ.get("STATE_MACHINE_EXAMPLES", "25")),
    stateful_step_count=int(os.environ.get("STATE_MACHINE_STEPS", "40")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="STATE_MACHINE_EXAMPLES" not in os.environ,
)
ExactlyOnce.TestCase.settings = ExactlyOnceWithoutTokens.TestCase.settings = SETTINGS
TestExactlyOnce = pytest.mark.slow(ExactlyOnce.TestCase)
TestExactlyOnceWithoutTokens = pytest.mark.slow(ExactlyOnceWithoutTokens.TestCase)
