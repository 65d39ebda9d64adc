"""Adopting a launch whose identifier, as Airflow knows it, is not the whole story."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import Launched, Was
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import RULES, Harness, launch_id, make_launch
from tests.engine.test_engine import TIMED_OUT, in_virtual_time


@in_virtual_time
@pytest.mark.parametrize("was", [Was.QUEUED, Was.RUNNING])
@pytest.mark.parametrize("mark", ["assigned", "ti-1"])
async def test_the_container_after_one_that_never_started_is_found_though_airflow_knows_the_first(
    was: Was, mark: str
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, duration=60))
    async with Harness(cloud).running() as first:
        # Airflow's identity of the launch is overwritten with the first container's identifier.
        original = make_launch("a", tokened=mark == "assigned")
        if mark != "assigned":
            original = replace(original, started_by=mark)
        first.submit(original)
        await first.until(lambda: len(first.launched("a")) == 2)
        known = first.launched("a")[0].handle_id
        if was is Was.RUNNING:
            await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.rendered.append("make the JWT differ")
        adopted = replace(original, launch_id=launch_id(), started_by="ti-1", tokened=False)
        second.adopt(adopted, was, known)
        [finished] = await second.until(lambda: second.finished("a"))
    assert len(cloud.of("a")) == 2
    assert finished.success
    assert finished.handle_id == cloud.of("a")[1].handle.id


@in_virtual_time
async def test_a_known_container_that_the_service_does_not_show_yet_is_not_launched_again() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=40, hidden_for=20))
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        [launched] = await first.until(lambda: first.launched("a"))
    async with Harness(cloud).running() as second:
        adopted = replace(original, launch_id=launch_id(), started_by="ti-1", tokened=False)
        second.adopt(adopted, Was.QUEUED, launched.handle_id)
        [finished] = await second.until(lambda: second.finished("a"))
    assert len(cloud.of("a")) == 1
    assert (finished.success, finished.handle_id) == (True, launched.handle_id)
    assert {r.handle_id for r in second.reports if isinstance(r, Launched)} == {launched.handle_id}


@in_virtual_time
async def test_many_searches_wait_for_a_slow_listing_together() -> None:
    cloud = FakeCloud(latency=5.0, plan=lambda label, nth: Plan(duration=600))
    first, second = Harness(cloud), Harness(cloud)
    originals = [make_launch(f"w{n}") for n in range(200)]
    async with first.running():
        first.submit(*originals)
        await first.until(lambda: all(first.launched(f"w{n}") for n in range(200)))
    async with second.running():
        for original in originals:
            second.adopt(original, Was.RUNNING)
        await second.until(lambda: all(second.launched(f"w{n}") for n in range(200)), timeout=30)
    assert len(cloud.containers) == 200


@in_virtual_time
async def test_a_first_container_that_is_not_shown_for_a_moment_does_not_hide_the_second() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, duration=60, hidden_for=40 if nth == 1 else 0))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        [known] = await first.until(lambda: first.launched("a"))
    # Its end is seen by another scheduler, which launches the second and dies before Airflow hears of that.
    spec = first.default_render(original)
    await cloud.launch(spec, f"{original.launch_id}-2")
    await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(replace(original, launch_id=launch_id()), Was.RUNNING, known.handle_id)
        [finished] = await second.until(lambda: second.finished("a"))
    assert (finished.success, finished.handle_id) == (True, cloud.of("a")[1].handle.id)


@in_virtual_time
@pytest.mark.parametrize("was", [Was.RUNNING, Was.RESTARTING])
@pytest.mark.parametrize("hidden_for", [30.0, 1e6])
async def test_a_listed_container_that_is_not_described_weighs_more_than_one_that_never_started(
    was: Was, hidden_for: float
) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(starts=nth > 1, duration=1e6, hidden_for=0 if nth == 1 else hidden_for)
    )
    async with Harness(cloud).running() as first:
        original = make_launch("a", tokened=True)
        first.submit(original)
        await first.until(lambda: len(first.launched("a")) == 2)
        await anyio.sleep(5)
    known, runs = (container.handle.id for container in cloud.of("a"))
    async with Harness(cloud).running() as second:
        second.adopt(original, was, known)
        await anyio.sleep(RULES.missing_grace + 10)
        finished = second.finished("a")
    assert len(cloud.of("a")) == 2
    if hidden_for < RULES.missing_grace:
        assert not finished
        assert [launched.handle_id for launched in second.launched("a")] == [runs]
    else:
        assert "MISSING for" in str(finished[0].reason)
        assert (finished[0].handle_id, cloud.asked_to_stop) == (runs, {runs})


@in_virtual_time
@pytest.mark.parametrize("was", [Was.RUNNING, Was.RESTARTING])
async def test_a_running_ones_identifier_of_an_earlier_queueing_does_not_bring_that_ones_outcome(was: Was) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 60, exit_code=0 if nth == 1 else 3))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        [old] = await first.until(lambda: first.launched("a"))
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(20)
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until(lambda: len(first.launched("a")) == 2)
        await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(replace(resumed, launch_id=launch_id()), was, old.handle_id)
        [finished] = await second.until(lambda: second.finished("a"))
    assert (finished.exit_code, finished.handle_id) == (3, cloud.of("a")[1].handle.id)


@in_virtual_time
async def test_a_running_one_that_clocks_make_look_old_is_followed_all_the_same() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=60))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        [launched] = await first.until(lambda: first.launched("a"))
        await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        skewed = replace(original, launch_id=launch_id(), queued_at=original.queued_at + 30)
        second.adopt(skewed, Was.RUNNING, launched.handle_id)
        [finished] = await second.until(lambda: second.finished("a"))
    assert (finished.success, finished.handle_id) == (True, launched.handle_id)


@in_virtual_time
async def test_one_answer_that_came_late_and_names_no_container_fails_nothing() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        [launched] = await first.until(lambda: first.launched("a"))
        await anyio.sleep(10)
    adopted_at = anyio.current_time()
    asked_at: list[float] = []

    def no_answer_then_hidden(operation: str, cloud: FakeCloud) -> BackendError | None:
        waited = anyio.current_time() - adopted_at
        if operation == "describe":
            asked_at.append(waited)
            # What it is asked for first is not shown, once.
            cloud.containers[launched.handle_id].plan.hidden_for = 10_000.0 if len(asked_at) == 1 else 0.0
        return TIMED_OUT if operation == "find" and waited < 100 else None

    cloud.fault = no_answer_then_hidden
    async with Harness(cloud).running() as second:
        second.adopt(replace(original, launch_id=launch_id()), Was.RUNNING)
        [finished] = await second.until(lambda: second.finished("a"))
    assert asked_at[0] > RULES.missing_grace
    assert (finished.success, finished.handle_id) == (True, launched.handle_id)


@in_virtual_time
async def test_a_revoked_ones_container_that_airflow_names_is_stopped_though_its_record_cannot_be_read() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e6))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        [launched] = await first.until(lambda: first.launched("a"))
        await anyio.sleep(5)
    cloud.unreadable = lambda container: True
    async with Harness(cloud).running() as second:
        adopted = replace(original, launch_id=launch_id())
        second.adopt(adopted, Was.RUNNING, launched.handle_id)
        await anyio.sleep(10)
        second.stop(adopted.launch_id)
        await second.until(lambda: not second.ledger.records and not second.ledger.stops)
    assert cloud.containers[launched.handle_id].stop_reasons == ["revoked"]
    assert not second.finished("a")
