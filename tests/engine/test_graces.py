"""One more bad answer after an outage: only the time that answers show counts, for every kind of wait."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import AirflowState, Finished
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import RULES, Harness, make_launch

OUTAGE = 600.0
LONG = Plan(start_after=1.0, duration=5000.0)


class Weather:
    """What every call of an operation meets; by default nothing."""

    def __init__(self) -> None:
        self.errors: dict[str, Kind] = {}

    def __call__(self, operation: str, cloud: FakeCloud) -> BackendError | None:
        kind = self.errors.get(operation) or self.errors.get("*" if ":" not in operation else "")
        return None if kind is None else BackendError(kind, kind.name, f"{kind.value} in the test")


def test_the_first_answer_starts_the_grace_and_silence_does_not_count() -> None:
    grace = NOT_YET.answered(10.0, 5.0)
    assert grace == Grace(0.0, 10.0)
    assert grace.answered(12.0, 5.0) == Grace(2.0, 12.0)
    assert grace.answered(900.0, 5.0) == Grace(5.0, 900.0)
    assert grace.answered(9.0, 5.0) == grace, "a late answer takes nothing back"


Outcome = list[Finished]


async def one_more_refusal_at_a_gate(kind: Kind, outage: Kind) -> Outcome:
    """Refused for three seconds, ten minutes without an answer, refused once more."""
    weather = Weather()
    rules = replace(RULES, permanent_error_grace=120.0, capacity_timeout=120.0)
    async with Harness(FakeCloud(fault=weather), rules=rules).running() as harness:
        weather.errors = {"launch": kind}
        harness.launch("a")
        harness.launch("b")
        await anyio.sleep(3.0)
        weather.errors = {"*": outage}
        await anyio.sleep(OUTAGE)
        weather.errors = {"launch": kind}
        calls = harness.cloud.calls["launch"]
        await harness.until(lambda: harness.cloud.calls["launch"] >= calls + 2)
        await anyio.sleep(2.0)
        early = harness.finished()
        # The rest of the grace is waited out, and no longer.
        await harness.until(lambda: len(harness.finished()) == 2, timeout=240.0)
        return early


async def refused_at_a_gate() -> Outcome:
    return await one_more_refusal_at_a_gate(Kind.REFUSED, Kind.CREDENTIALS)


async def no_capacity_at_a_gate() -> Outcome:
    return await one_more_refusal_at_a_gate(Kind.CAPACITY, Kind.CREDENTIALS)


async def refused_at_a_gate_whose_probes_get_no_answer() -> Outcome:
    return await one_more_refusal_at_a_gate(Kind.REFUSED, Kind.THROTTLED)


async def refused_alone_while_others_pass() -> Outcome:
    """Two own refusals, ten minutes apart."""
    weather = Weather()
    async with Harness(FakeCloud(fault=weather)).running() as harness:
        weather.errors = {"launch": Kind.REFUSED}
        harness.launch("a")
        await anyio.sleep(1.0)
        weather.errors = {"*": Kind.CREDENTIALS}
        await anyio.sleep(OUTAGE)
        weather.errors = {"launch": Kind.REFUSED}
        calls = harness.cloud.calls["launch"]
        await harness.until(lambda: harness.cloud.calls["launch"] > calls)
        await anyio.sleep(1.0)
        early = harness.finished()
        await harness.until(harness.finished, timeout=240.0)
        return early


async def search(first: str, kind: Kind, was: AirflowState) -> Outcome:
    """Ask where an adopted launch's container is: one bad answer, an outage, and one more."""
    weather = Weather()
    cloud = FakeCloud(fault=weather, plan=lambda label, nth: LONG)
    async with Harness(cloud).running() as harness:
        launch = make_launch("a", tokened=False)
        harness.submit(launch)
        await harness.until_launched("a")
        await anyio.sleep(5.0)
        successor = Harness(cloud)
        unlisted = cloud.unlisted
        async with successor.running():
            if kind is Kind.NOT_FOUND:
                cloud.unlisted = lambda container: True
            else:
                weather.errors = {first: kind}
            successor.adopt(launch.evolve(workload=None), was, None)
            calls = cloud.calls["search"]
            await harness.until(lambda: cloud.calls["search"] > calls)
            await anyio.sleep(1.0)
            weather.errors = {"search": Kind.AMBIGUOUS}
            await anyio.sleep(OUTAGE)
            weather.errors = {first: kind} if kind is not Kind.NOT_FOUND else {}
            calls = cloud.calls["search"]
            await harness.until(lambda: cloud.calls["search"] > calls)
            await anyio.sleep(1.0)
            early = successor.finished("a")
            cloud.unlisted = unlisted
            weather.errors = {}
            await harness.until(lambda: successor.launched("a"), timeout=60.0)
            return early


async def a_search_refused() -> Outcome:
    return await search("search", Kind.REFUSED, AirflowState.QUEUED)


async def an_empty_listing_of_what_runs() -> Outcome:
    return await search("search", Kind.NOT_FOUND, AirflowState.RUNNING)


async def unknown_to_the_service() -> Outcome:
    """A running container that the service does not know for a moment, an outage, and then another moment."""
    weather = Weather()
    cloud = FakeCloud(fault=weather, plan=lambda label, nth: LONG)
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await harness.until_launched("a")
        await anyio.sleep(5.0)
        (container,) = cloud.of("a")
        container.forgotten_until = anyio.current_time() + OUTAGE + 10.0
        await anyio.sleep(3.0)
        weather.errors = {"describe": Kind.AMBIGUOUS}
        await anyio.sleep(OUTAGE)
        weather.errors = {}
        await anyio.sleep(20.0)
        return harness.finished()


async def a_new_container_unknown_to_the_service() -> Outcome:
    weather = Weather()
    cloud = FakeCloud(fault=weather, plan=lambda label, nth: replace(LONG, hidden_for=OUTAGE + 10.0))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(3.0)
        weather.errors = {"describe": Kind.AMBIGUOUS}
        await anyio.sleep(OUTAGE)
        weather.errors = {}
        await anyio.sleep(20.0)
        return harness.finished()


@pytest.mark.parametrize(
    "scenario",
    [
        refused_at_a_gate,
        refused_at_a_gate_whose_probes_get_no_answer,
        no_capacity_at_a_gate,
        refused_alone_while_others_pass,
        a_search_refused,
        an_empty_listing_of_what_runs,
        unknown_to_the_service,
        a_new_container_unknown_to_the_service,
    ],
)
@pytest.mark.anyio
async def test_one_more_bad_answer_after_an_outage_ends_no_grace(
    scenario: Callable[[], Awaitable[Outcome]],
) -> None:
    assert await scenario() == []
