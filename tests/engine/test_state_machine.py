"""
Exactly one outcome per launch, whatever happens: random walks through Airflow, the engine and AWS in virtual time.

More steps: ``STATE_MACHINE_EXAMPLES=500 STATE_MACHINE_STEPS=200 pytest tests/engine/test_state_machine.py``.
"""

from __future__ import annotations

import math
import os
import uuid
from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

import anyio
import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import invariant

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.destinations import HOME, sent_to
from ecs_async_executor.core.messages import AirflowState, Finished, Launch
from ecs_async_executor.engine.pinging import Pinging
from ecs_async_executor.engine.statistics import Statistics
from tests.engine.cloud import Container, Plan
from tests.engine.harness import RULES
from tests.engine.listened import Listened
from tests.engine.placed import Placed
from tests.engine.placed_far import PlacedFar
from tests.engine.walk import Instance, Walk
from tests.engine.weather import EVERYWHERE, Weather

SNAPSHOT_INTERVAL = 10.0
"""Seconds of virtual time."""


@pytest.fixture(autouse=True)
def snapshots_are_made_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make snapshots seldom: no walk reads them, and one each half second is a third of the computing."""
    make, made = Pinging.snapshot, WeakKeyDictionary[Pinging, tuple[float, Statistics]]()

    def snapshot(pinging: Pinging) -> Statistics:
        now = anyio.current_time()
        made_at, latest = made.get(pinging, (-math.inf, None))
        if latest is None or now >= made_at + SNAPSHOT_INTERVAL:
            latest = make(pinging)
            made[pinging] = now, latest
        return latest

    monkeypatch.setattr(Pinging, "snapshot", snapshot)


class ExactlyOnce(Walk):
    """
    At a service that makes one container of a token, where Airflow assigns the identity.

    Tokens remember failures, as AWS documents: a scheduler and its peer then agree on which number is next.
    """

    FAILURE_MEMORY = "conflict"


class ForgottenFailures(Walk):
    """At a service that forgets under which tokens it had no room."""

    PEERS = False


class ReplayedFailures(Walk):
    """At a service that repeats a failure to who repeats the request, with requests that do not differ."""

    FAILURE_MEMORY = "replay"
    PEERS = False

    def render(self, launch: Launch) -> LaunchSpec:
        spec = super().render(launch)
        return replace(spec, request={"label": launch.label, "by": id(self.harness)})


class ExactlyOnceWithoutTokens(Walk):
    """At a service that makes a container of every request, however often it is sent."""

    REPEATABLE = False
    PEERS = False


class ShortGraces(Walk):
    """With graces that run out: what cannot be known is failed, and in words that say so."""

    RULES = replace(
        RULES,
        missing_grace=20.0,
        lost_container_grace=60.0,
        permanent_error_grace=40.0,
        capacity_timeout=80.0,
    )
    FORGETS = True

    def tells_the_truth(self, instance: Instance, outcome: Finished) -> None:
        reason = outcome.reason or ""
        if "MISSING for" in reason or "unknown whether" in reason or "has no container of this task" in reason:
            return
        super().tells_the_truth(instance, outcome)

    def outlives_its_revocation(self, container: Container) -> bool:
        # Asked to stop one that it has forgotten for longer than the grace, the service says that there is none.
        asked = container.forgotten_until > 0.0 and container.handle.id in self.cloud.asked_to_stop
        return not asked and super().outlives_its_revocation(container)


@dataclass(eq=False)
class Queueing(Instance):
    """One that is given a new launch id by everybody who adopts it."""

    ids: list[str] = field(default_factory=list)


class SharedMark(Walk):
    """Where Airflow assigns no identity: a container is found by the task instance that it belongs to."""

    PEERS = False
    MARGIN = 5.2
    """A requeue sooner after the previous container's start cannot be told apart from it."""

    def __init__(self) -> None:
        self.arns: dict[str, str] = {}
        self.revoked_once: set[str] = set()
        super().__init__()

    def queue(self, key: str) -> None:
        if "sending" in self.harness.phases(key):
            self.pass_time(2 * self.cloud.latency)  # it may make a container yet
        made = [c.created for c in self.cloud.of(key)]
        if made and self.loop.time() - max(made) < self.MARGIN:
            self.pass_time(self.MARGIN - (self.loop.time() - max(made)))
        launch = self.new_launch().evolve(
            key=key, label=key, tokened=False, started_by=key, priority=self.random.randrange(3)
        )
        self.hand_over(Queueing(launch, ids=[launch.launch_id]))

    def containers_of(self, instance: Instance) -> list[Container]:
        assert isinstance(instance, Queueing)
        return [c for c in self.cloud.of(instance.launch.label) if c.token.rsplit("-", 1)[0] in instance.ids]

    def resumable(self) -> list[str]:
        return [key for key in super().resumable() if not self.latest[key].revoked]

    def revocable(self) -> list[str]:
        # Airflow revokes what is queued, not what runs.
        now = self.loop.time()
        return [
            key
            for key in super().revocable()
            if not any(c.ran_user_code(now) for c in self.containers_of(self.latest[key]))
        ]

    def will_be_stopped(self, instance: Instance) -> None:
        self.revoked_once.add(instance.launch.label)

    def adopt(self, instance: Instance, was: AirflowState) -> None:
        assert isinstance(instance, Queueing)
        now = self.loop.time()
        ended = [c for c in self.containers_of(instance) if c.ran_user_code(now) and not c.alive(now)]
        if any(c.plan.exit_code == 0 and c.stopped is None for c in ended) and self.random.random() < 0.5:
            instance.closed = True  # it had told Airflow how it ended before the scheduler died
            return
        launch_id = str(uuid.uuid4())
        instance.ids.append(launch_id)
        instance.launch = instance.launch.evolve(launch_id=launch_id)
        self.instances[launch_id] = instance
        self.harness.adopt(instance.launch, was, self.arns.get(instance.launch.label))

    def learn_arn(self, instance: Instance, handle_id: str) -> None:
        key = instance.launch.label
        if instance is self.latest[key]:
            self.arns[key] = handle_id

    def tells_the_truth(self, instance: Instance, outcome: Finished) -> None:
        now = self.loop.time()
        containers = self.containers_of(instance)
        # A container of a revoked queueing does its work as well as one of the next, and nobody can tell.
        before = [i for i in self.each() if i.launch.key == instance.launch.key and i is not instance]
        for other in reversed(before):
            if not other.revoked:
                break
            containers += self.containers_of(other)
        if outcome.success:
            assert any(c.succeeded(now) for c in containers), f"told to have succeeded: {instance}, {containers}"
            return
        # What was revoked and outlived its scheduler is nobody's; it is no reason not to tell of the launch's own.
        good = [c for c in self.containers_of(instance) if c.succeeded(now)]
        assert not good, f"told to have failed: {instance}, {good}"
        told_of = [*self.containers_of(instance), *(c for c in containers if c.handle.id == outcome.handle_id)]
        alive = [c for c in told_of if c.alive(now) and c.stopped is None]
        assert not alive, f"told to have failed while it runs: {instance}, {alive}"

    @invariant()
    def user_code_of_a_launch_runs_once_at_most(self) -> None:
        now = self.loop.time()
        for instance in self.each():
            containers = self.containers_of(instance)
            assert sum(c.ran_user_code(now) for c in containers) <= 1, f"twice: {instance}, {containers}"
            if instance.launch.label not in self.revoked_once:
                assert all(c.stopped is None for c in containers), f"stopped, but not revoked: {containers}"


class SharedMarkWithoutTokens(SharedMark):
    """The same at a service that makes a container of every request."""

    REPEATABLE = False


class Destinations(Weather):
    """
    Where launches go to several destinations, each of which may hang, refuse credentials, throttle, and come back.

    The launches of one that is well have their containers in time, whatever becomes of the others.
    """

    FAILURE_MEMORY = "conflict"
    PEERS = False
    PATIENCE = 300.0
    """Seconds: the longest delay of a gate, a search and a container of the same key that is being stopped."""

    def destination_of(self, launch: Launch) -> str:
        return EVERYWHERE[int(launch.label[1:]) % 3] if launch.label[1:].isdigit() else HOME

    def hand_over(self, instance: Instance) -> None:
        # Queue and executor_config decide the destination, and the route is made of them.
        instance.launch = instance.launch.evolve(route=self.destination_of(instance.launch))
        super().hand_over(instance)

    def render(self, launch: Launch) -> LaunchSpec:
        return sent_to(self.destination_of(launch), super().render(launch))

    def teardown(self) -> None:
        try:
            self.launches_of_others_have_their_containers()
        finally:
            self.all_come_back()
            super().teardown()

    def launches_of_others_have_their_containers(self) -> None:
        down = self.only_one_is_down("hangs", "expired", "throttled", "denied")
        self.queue_new([Plan()], 30)
        self.pass_time(self.PATIENCE)
        self.apply_reports()
        now = self.loop.time()
        others = [i for i in self.each() if i.open and self.destination_of(i.launch) != down]
        late = [i for i in others if not any(c.starts_at <= now or c.alive(now) for c in self.containers_of(i))]
        assert not late, f"delayed although only {down or 'home'} is down: {late[:3]}, {self.harness.records()}"


class DestinationsWithoutTokens(Destinations):
    """The same at a service that makes a container of every request, and whose identifiers tell no Region."""

    REPEATABLE = False
    ARNS = False


EXAMPLES = os.environ.get("STATE_MACHINE_EXAMPLES")
TestExactlyOnce = pytest.mark.slow(ExactlyOnce.TestCase)
TestDestinations = pytest.mark.slow(Destinations.TestCase)
TestDestinationsWithoutTokens = pytest.mark.slow(DestinationsWithoutTokens.TestCase)
TestExactlyOnceWithoutTokens = pytest.mark.slow(ExactlyOnceWithoutTokens.TestCase)
TestForgottenFailures = pytest.mark.slow(ForgottenFailures.TestCase)
TestReplayedFailures = pytest.mark.slow(ReplayedFailures.TestCase)
TestShortGraces = pytest.mark.slow(ShortGraces.TestCase)
TestPlaced = pytest.mark.slow(Placed.TestCase)
TestListening = pytest.mark.slow(Listened.TestCase)
TestPlacedFar = pytest.mark.slow(PlacedFar.TestCase)
TestSharedMark = pytest.mark.slow(SharedMark.TestCase)
TestSharedMarkWithoutTokens = pytest.mark.slow(SharedMarkWithoutTokens.TestCase)
for machine, examples in (
    (ExactlyOnce, 20),
    (ExactlyOnceWithoutTokens, 15),
    (Destinations, 15),
    (DestinationsWithoutTokens, 10),
    (ForgottenFailures, 10),
    (ReplayedFailures, 10),
    (ShortGraces, 10),
    (Placed, 20),
    (Listened, 6),
    (PlacedFar, 20),
    (SharedMark, 10),
    (SharedMarkWithoutTokens, 8),
):
    machine.TestCase.settings = settings(
        max_examples=int(EXAMPLES or examples),
        stateful_step_count=int(os.environ.get("STATE_MACHINE_STEPS", "40")),
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=EXAMPLES is None,
    )
