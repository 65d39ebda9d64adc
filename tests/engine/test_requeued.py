"""A key that is queued again under the same mark while the launch before it is still being looked for."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.messages import Was
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import RULES, Harness, make_launch
from tests.engine.test_engine import TIMED_OUT, in_virtual_time
from tests.engine.virtual_time import EPOCH


@in_virtual_time
@pytest.mark.parametrize("requeued_after", [0.0, RULES.predecessor_wait + 30.0])
async def test_a_revoked_launch_that_is_found_late_does_not_stop_the_container_of_the_next(
    requeued_after: float,
) -> None:
    listing_works_at = [1e9]

    def no_listing(operation: str, cloud: FakeCloud) -> BackendError | None:
        return TIMED_OUT if operation == "find" and anyio.current_time() < listing_works_at[0] else None

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=300), fault=no_listing)
    async with Harness(cloud).running() as engine:
        # Airflow assigns no identity: both queueings have the task instance's id for their mark.
        adopted = make_launch("a", started_by="ti-1")
        engine.adopt(adopted, Was.QUEUED)
        await anyio.sleep(1)
        engine.stop(adopted.launch_id)
        await anyio.sleep(requeued_after)
        again = make_launch("a", started_by="ti-1")
        engine.submit(again)
        await engine.until(lambda: engine.launched("a"))
        listing_works_at[0] = anyio.current_time()
        [finished] = await engine.until(lambda: engine.finished("a"))
        await engine.until(lambda: not engine.ledger.records)
    assert (finished.success, finished.launch_id) == (True, again.launch_id)
    [container] = cloud.of("a")
    assert container.stop_reasons == []


@in_virtual_time
async def test_a_revoked_launch_that_is_found_late_stops_its_own_container_and_not_that_of_the_next() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=600))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        await first.until(lambda: cloud.of("a"))
    cloud.fault = lambda operation, cloud: TIMED_OUT if operation == "find" else None
    async with Harness(cloud).running() as second:
        adopted = replace(original, launch_id=make_launch("a").launch_id)
        second.adopt(adopted, Was.QUEUED)
        await anyio.sleep(10)
        second.stop(adopted.launch_id)
        again = make_launch("a", started_by="ti-1")
        second.submit(again)
        await second.until(lambda: second.launched("a"))
        cloud.fault = lambda operation, cloud: None
        [finished] = await second.until(lambda: second.finished("a"))
    assert (finished.success, finished.launch_id) == (True, again.launch_id)
    old, new = cloud.of("a")
    assert (old.stop_reasons, new.stop_reasons) == (["revoked"], [])


@in_virtual_time
async def test_an_identity_that_is_queued_again_while_its_adopted_container_has_ended_unseen_is_launched() -> None:
    def plan(label: str, nth: int) -> Plan:
        return Plan(duration=20) if nth == 1 else Plan(duration=40, exit_code=1)

    cloud = FakeCloud(plan=plan)
    async with Harness(cloud).running() as first:
        launch = make_launch("a", tokened=True)
        first.submit(launch)
        await first.until(lambda: first.launched("a"))
        await anyio.sleep(5)
    async with Harness(cloud).running() as second:
        second.adopt(launch, Was.RUNNING)
        await anyio.sleep(3)
        cloud.fault = lambda operation, _: (
            TIMED_OUT if operation == "describe" and anyio.current_time() < 40 else None
        )
        await anyio.sleep(25)  # deferred, and due again; its end was not seen
        second.submit(replace(launch, queued_at=EPOCH + anyio.current_time()))
        await second.until(lambda: second.finished("a"))
        await anyio.sleep(600)
    assert [end.exit_code for end in second.finished("a")] == [1]
    assert len(cloud.of("a")) == 2
