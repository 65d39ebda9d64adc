"""Events as hints: how soon ends are seen with them, how few reads that takes, and what can be wrong with them."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from statistics import quantiles
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import Observation, Seen
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.listening import Hint
from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.events import FakeQueue, Weather, emit
from tests.engine.harness import OPTIONS, Harness, make_launch
from tests.engine.test_destinations import render

pytestmark = pytest.mark.anyio
PACED = replace(OPTIONS, describe_rate=20.0, describe_burst=20)
RARE = replace(PACED, poll_interval=300.0)
"""Sweeps are too rare to be of any help."""
GONE = BackendError(Kind.REFUSED, "QueueDoesNotExist", "The specified queue does not exist.")
DENIED = BackendError(Kind.REFUSED, "AccessDenied", "not authorized to perform: sqs:ReceiveMessage")
NO_DELETE = BackendError(Kind.REFUSED, "AccessDenied", "not authorized to perform: sqs:DeleteMessage")
LASTING = Plan(start_after=1.0, duration=1e6)


class Played:
    """A harness whose containers emit events, and ends of which the delays are known."""

    def __init__(self, cloud: FakeCloud, queue: FakeQueue, harness: Harness, weather: Weather) -> None:
        self.cloud, self.queue, self.harness, self.weather = cloud, queue, harness, weather
        self.number = 0

    async def work(self, seconds: float, every: float = 1.0, then: Callable[[str], Plan] | None = None) -> None:
        """Have launches begin at a rate for a time."""
        until = anyio.current_time() + seconds
        while anyio.current_time() < until:
            self.number += 1
            self.harness.launch(f"short-{self.number}")
            await anyio.sleep(every)

    def delays(self, since: float) -> list[float]:
        """Return for how long ends were not known, for containers that ended after a time; needs `watch`."""
        return [seen - ended for ended, seen in self.seen if ended >= since]

    seen: list[tuple[float, float]]

    async def watch(self) -> None:
        """Note when each end is reported, as precisely as a tenth of a second."""
        self.seen, known = [], 0
        while True:
            ends = self.harness.finished()
            for end in ends[known:]:
                [*_, last] = self.cloud.of(str(end.key))
                self.seen.append((last.ends_at, anyio.current_time()))
            known = len(ends)
            await anyio.sleep(0.1)

    @property
    def interval(self) -> float:
        """The seconds between the latest sweeps, as the statistics show them."""
        [home] = self.harness.snapshots[-1].events
        return home.sweep_interval

    @property
    def is_trusted(self) -> bool:
        """Whether events are relied on, as the statistics show it."""
        [home] = self.harness.snapshots[-1].events
        return home.trusted


@asynccontextmanager
async def played(
    plan: Callable[[str, int], Plan], weather: Weather | None = None, *, options: Any = PACED, queue: bool = True
) -> AsyncIterator[Played]:
    cloud, fake = FakeCloud(plan=plan), FakeQueue()
    weather = weather or Weather()
    harness = Harness(cloud, options=options, events={HOME: fake} if queue else None)
    one = Played(cloud, fake, harness, weather)
    async with harness.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(emit, cloud, [fake], weather, random.Random(7))
        tasks.start_soon(one.watch)
        yield one
        tasks.cancel_scope.cancel()


def short(label: str, nth: int) -> Plan:
    return Plan(start_after=2.0, duration=20.0 + int(label.rpartition("-")[2]) * 7 % 30)


async def test_sweeps_stretch_while_events_come_and_ends_are_seen_as_soon() -> None:
    async with played(short) as it:
        await it.work(300)
        assert it.interval == 60.0
        asked, since = it.cloud.calls["describe"], anyio.current_time()
        await it.work(300)
        assert it.cloud.calls["describe"] - asked < 2.2 * 300  # one for each event, mostly; sweeps are five
        delays = it.delays(since)
    assert len(delays) > 200
    cuts = quantiles(delays, n=100)
    assert (cuts[49] < 1.5, cuts[98] < 3.0) == (True, True), cuts


async def test_events_that_no_longer_come_bring_the_sweeps_back_at_once() -> None:
    async with played(short) as it:
        await it.work(300)
        assert it.interval == 60.0
        it.weather.lost = 1.0
        since = anyio.current_time()
        with capture_logs() as logs:
            await it.work(200)
        assert (it.interval, it.is_trusted) == (1.0, False)
        assert max(it.delays(since)) < 15.0
        assert max(it.delays(since + 15.0)) < 3.0
        assert [entry["event"] for entry in logs].count("cloud_executor.events.missed") == 1
        it.weather.lost = 0.0
        await it.work(300)
        assert it.interval > 1.0
        assert it.is_trusted


async def test_a_listener_that_ends_with_a_bug_again_and_again_brings_the_sweeps_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def bug() -> None:
        raise RuntimeError("a bug")

    async with played(short) as it:
        await it.work(300)
        assert it.interval == 60.0
        receive = it.queue.receive
        monkeypatch.setattr(it.queue, "receive", bug)
        with capture_logs():
            await it.work(20)
            since = anyio.current_time()
            await it.work(100)
        assert (it.interval, it.is_trusted) == (1.0, False)
        assert max(it.delays(since)) < 3.0
        monkeypatch.setattr(it.queue, "receive", receive)
        await it.work(200)
        assert (it.interval, it.is_trusted) == (60.0, True)


async def test_one_end_in_twenty_without_an_event_keeps_sweeps_as_they_were() -> None:
    async with played(short, Weather(lost=0.05)) as it:
        await it.work(600)
        assert it.interval == 1.0
        assert it.harness.meters.counts()["events.missed"] > 10


@pytest.mark.parametrize(
    "weather",
    [Weather(doubled=1.0, delay=(0.1, 8.0)), Weather(forged=1.0)],
    ids=["doubled, out of order", "forged"],
)
async def test_what_comes_twice_out_of_order_or_forged_changes_nothing(weather: Weather) -> None:
    async with played(short, weather) as it:
        await it.work(400)
        assert it.interval == 60.0
        await it.harness.until_idle()
        assert all(end.success for end in it.harness.finished())
        assert len(it.harness.finished()) == it.number
        await anyio.sleep(60.0)
        unreadable = [one for one in it.queue.sent.values() if one.hint is None]
        assert len(it.queue.sent) == len(unreadable), "a readable message goes round for ever"
        receives = [one.receives for one in unreadable]
        assert max(receives, default=0) <= 2


@pytest.mark.parametrize("problem", [GONE, DENIED], ids=["gone", "denied"])
async def test_a_queue_that_cannot_be_read_is_said_once_costs_nothing_and_is_tried_again(
    problem: BackendError,
) -> None:
    async with played(short) as it:
        await it.work(300)
        with capture_logs() as logs:
            it.queue.fault = lambda call: problem
            asked, since = len(it.queue.calls), anyio.current_time()
            await it.work(600)
            assert it.interval == 1.0
            assert max(it.delays(since + 5.0)) < 3.0
            assert len(it.queue.calls) - asked <= 12
            [home] = it.harness.snapshots[-1].events
            assert (home.trouble, home.trusted) == (str(problem), False)
            it.queue.fault = lambda call: None
            await it.work(300)
            assert it.interval > 10.0
        told = [entry["event"] for entry in logs if ".events." in entry["event"]]
        assert told == ["cloud_executor.events.unavailable", "cloud_executor.events.available"]


async def test_messages_that_may_not_be_deleted_are_said_once_cost_nothing_and_are_tried_again() -> None:
    async with played(short) as it:
        it.queue.fault = lambda call: NO_DELETE if call == "delete" else None
        with capture_logs() as logs:
            await it.work(300)
            calls = len(it.queue.calls)
            await it.work(300)
            assert len(it.queue.calls) - calls <= 2 * 5
            assert (it.interval, it.is_trusted) == (1.0, False)
            it.queue.fault = lambda call: None
            await it.work(300)
        assert it.interval > 1.0
        assert it.is_trusted
        told = [entry["event"] for entry in logs if ".events." in entry["event"]]
        assert told == ["cloud_executor.events.not_deleted"]


async def test_several_schedulers_share_a_queue_and_messages_of_nobody_end() -> None:
    cloud, queue = FakeCloud(plan=short), FakeQueue()
    one, other = (Harness(cloud, options=PACED, events={HOME: queue}, seed=seed) for seed in (1, 2))
    async with one.running(), other.running(), anyio.create_task_group() as tasks:
        tasks.start_soon(emit, cloud, [queue], Weather(), random.Random(7))
        for number in range(400):
            (one, other)[number % 2].launch(f"short-{number}")
            await anyio.sleep(1.0)
        for harness in (one, other):
            [home] = harness.snapshots[-1].events
            assert home.sweep_interval > 30.0
            assert harness.meters.counts()["events.missed"] <= 1
        for number in range(100):
            queue.send(Hint(f"somebody-elses-{number}", Seen.STOPPED))
        await anyio.sleep(120.0)
        assert not queue.sent
        tasks.cancel_scope.cancel()


async def test_an_event_that_overtakes_the_answer_to_its_launch_is_kept_for_it() -> None:
    plan = Plan(start_after=0.1, duration=0.1)
    cloud, queue = FakeCloud(plan=lambda label, nth: plan, latency=4.0), FakeQueue()
    async with Harness(cloud, options=RARE, events={HOME: queue}).running() as harness:
        await anyio.sleep(10.0)  # the first sweep is over
        harness.launch("a")
        await harness.until(lambda: cloud.containers)
        queue.send(Hint("container-1", Seen.STOPPED))
        await harness.until_finished("a", timeout=20.0)


async def test_a_description_that_lags_behind_its_event_is_asked_for_again() -> None:
    plan = Plan(start_after=1.0, duration=100.0)
    cloud, queue = FakeCloud(plan=lambda label, nth: plan), FakeQueue()
    async with Harness(cloud, options=RARE, events={HOME: queue}).running() as it:
        it.launch("a")
        await it.until_launched("a")
        await anyio.sleep(94.0)
        queue.send(Hint("container-1", Seen.STOPPED))
        await it.until_finished("a", timeout=20.0)


async def test_a_backlog_is_received_by_several_requests_at_once() -> None:
    cloud, queue = FakeCloud(plan=lambda label, nth: LASTING), FakeQueue(latency=0.5)
    async with Harness(cloud, options=PACED, events={HOME: queue}).running():
        await anyio.sleep(5.0)
        for number in range(2000):
            queue.send(Hint(f"somebody-elses-{number}", Seen.PENDING))
        began = anyio.current_time()
        while queue.sent:
            await anyio.sleep(1.0)
        assert anyio.current_time() - began < 60.0
        await anyio.sleep(60.0)
        assert queue.waiting == 1


async def test_a_whole_event_is_a_hint_too_and_its_rule_is_told_off_once() -> None:
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(duration=30.0)), FakeQueue()
    async with Harness(cloud, options=RARE, events={HOME: queue}).running() as it:
        it.launch("a")
        await it.until_launched("a")
        await anyio.sleep(40.0)
        with capture_logs() as logs:
            for _ in range(2):
                queue.send(Hint("container-1", Seen.STOPPED), whole=True)
            await it.until_finished("a", timeout=20.0)
    assert [entry["event"] for entry in logs].count("cloud_executor.events.untransformed") == 1


@pytest.mark.slow
async def test_at_20_000_running_ends_are_seen_within_seconds_with_a_twentieth_of_the_reads() -> None:
    """Beside sweeps that see ends as soon: one each second, for which no account has the quota by default."""
    running, rich = 20_000, replace(OPTIONS, describe_rate=1000.0, describe_burst=1000)

    def plan(label: str, nth: int) -> Plan:
        return LASTING if label.startswith("long") else short(label, nth)

    async with played(plan, options=rich) as it:
        for number in range(running):
            it.harness.launch(f"long-{number}")
        await it.harness.until(lambda: len(it.cloud.containers) == running)

        async def reads(seconds: float, *, every: float) -> float:
            asked = it.cloud.calls["describe"]
            await it.work(seconds, every=every)
            return (it.cloud.calls["describe"] - asked) / seconds

        swept = await reads(5.0, every=5.0)
        await it.work(170.0, every=0.2)
        since = anyio.current_time()
        told, delays = await reads(120.0, every=0.2), it.delays(since)
    cuts = quantiles(delays, n=100)
    assert told <= swept / 20, (told, swept)
    assert (cuts[49] < 1.0, cuts[98] < 5.0) == (True, True), cuts


async def test_adopted_containers_are_listened_for_too() -> None:
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(start_after=1.0, duration=50.0)), FakeQueue()
    async with Harness(cloud, options=PACED).running() as first:
        first.launch("a")
        await first.until_launched("a")
    handle_id = cloud.of("a")[0].handle.id
    async with Harness(cloud, options=RARE, events={HOME: queue}).running() as second:
        second.adopt(make_launch("a"), AirflowState.RUNNING, handle_id)
        await anyio.sleep(60.0)
        queue.send(Hint(handle_id, Seen.STOPPED))
        await second.until_finished("a", timeout=10.0)


async def test_a_destination_listens_to_a_queue_of_its_own_and_to_no_other() -> None:
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(start_after=1.0, duration=50.0)), FakeQueue()
    options = replace(RARE, destinations=("eu",))
    async with Harness(cloud, options=options, render=render, events={"eu": queue}).running() as it:
        it.launch("far", route="eu/main")
        it.launch("near", route="/main")
        for label in ("far", "near"):
            await it.until_launched(label)
        await anyio.sleep(60.0)
        for label in ("far", "near"):
            queue.send(Hint(cloud.of(label)[0].handle.id, Seen.STOPPED))
        await it.until_finished("far", timeout=10.0)
        await anyio.sleep(30.0)
        assert not it.finished("near")
        assert [one.name for one in it.snapshots[-1].events] == ["eu"]


async def test_an_event_that_is_out_of_order_takes_nothing_back() -> None:
    """Both events are there before the container runs, as far as descriptions tell."""
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(start_after=5.0, duration=25.0)), FakeQueue()
    async with Harness(cloud, options=RARE, events={HOME: queue}).running() as it:
        it.launch("a")
        await it.until_launched("a")
        queue.send(Hint("container-1", Seen.STOPPED))
        await anyio.sleep(4.0)
        queue.send(Hint("container-1", Seen.RUNNING))
        await it.until_finished("a", timeout=60.0)


async def test_the_event_of_a_container_that_was_replaced_says_nothing_of_its_successor() -> None:
    """The first container never starts; its event comes when the second one runs."""

    def plan(label: str, nth: int) -> Plan:
        return Plan(starts=nth > 1, start_after=1.0, duration=60.0)

    cloud, queue = FakeCloud(plan=plan), FakeQueue()
    async with Harness(cloud, options=PACED, events={HOME: queue}).running() as it:
        it.launch("a")
        await it.until(lambda: len(cloud.of("a")) == 2)
        first, second = cloud.of("a")
        await anyio.sleep(5.0)
        for seen in (Seen.STOPPED, Seen.RUNNING, None):
            queue.send(Hint(first.handle.id, seen))
        await anyio.sleep(30.0)
        assert not it.finished("a")
        assert second.stopped is None
        await it.until_finished("a", timeout=60.0)
        assert len(cloud.of("a")) == 2
        assert not queue.sent


async def test_events_that_are_minutes_late_are_missed_and_change_no_outcome() -> None:
    async with played(short, Weather(late=1.0, late_by=180.0)) as it:
        await it.work(400)
        assert (it.interval, it.is_trusted) == (1.0, False)
        await it.harness.until_idle()
        assert all(end.success for end in it.harness.finished())
        assert len(it.harness.finished()) == it.number
        assert it.cloud.calls["launch"] == it.number
        await anyio.sleep(400.0)
        assert not it.queue.sent, "a late message goes round for ever"


async def test_of_two_schedulers_that_wait_for_one_container_one_hears_of_its_end_and_the_other_sees_it() -> None:
    """Two schedulers know it after an adoption that the first has not noticed; one event is all there is."""
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(start_after=1.0, duration=50.0)), FakeQueue()
    async with Harness(cloud, options=RARE, events={HOME: queue}, seed=1).running() as first:
        launch = make_launch("a")
        first.submit(launch)
        await first.until_launched("a")
        handle_id = cloud.of("a")[0].handle.id
        async with Harness(cloud, options=RARE, events={HOME: queue}, seed=2).running() as second:
            second.adopt(launch, AirflowState.RUNNING, handle_id)
            await anyio.sleep(60.0)
            queue.send(Hint(handle_id, Seen.STOPPED))
            await anyio.sleep(10.0)
            # A message is one scheduler's: the other sees the end with its next sweep, as without events.
            assert len(first.finished("a")) + len(second.finished("a")) == 1
            await anyio.sleep(300.0)
            assert [one.success for one in (*first.finished("a"), *second.finished("a"))] == [True, True]


async def test_destinations_that_share_a_queue_leave_each_others_events() -> None:
    cloud, queue = FakeCloud(plan=lambda label, nth: Plan(start_after=1.0, duration=50.0)), FakeQueue()
    options = replace(RARE, destinations=("eu",))
    queues = {HOME: queue, "eu": queue}
    async with Harness(cloud, options=options, render=render, events=queues).running() as it:
        it.launch("far", route="eu/main")
        it.launch("near", route="/main")
        for label in ("far", "near"):
            await it.until_launched(label)
        await anyio.sleep(60.0)
        for label in ("far", "near"):
            queue.send(Hint(cloud.of(label)[0].handle.id, Seen.STOPPED))
        for label in ("far", "near"):
            await it.until_finished(label, timeout=20.0)


async def test_a_container_that_is_not_known_for_a_moment_in_each_sweep_is_not_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def plan(label: str, nth: int) -> Plan:
        return LASTING if label == "lasting" else short(label, nth)

    async with played(plan) as it:
        it.harness.launch("lasting")
        await it.work(300)
        assert it.interval == 60.0
        [lasting] = it.cloud.of("lasting")
        describe, asked = it.cloud.describe, [anyio.current_time()]

        async def forgetful(scope: str, ids: Any) -> list[Observation]:
            found = list(await describe(scope, ids))
            if lasting.handle.id not in ids:
                return found
            forgotten = anyio.current_time() > asked[-1] + 10.0
            asked.append(anyio.current_time())
            return [
                Observation(one.handle, Seen.MISSING, "MISSING")
                if forgotten and one.handle == lasting.handle
                else one
                for one in found
            ]

        monkeypatch.setattr(it.cloud, "describe", forgetful)
        await it.work(900.0)
        assert "lasting" not in {str(end.key) for end in it.harness.finished()}
        assert it.interval == 60.0
