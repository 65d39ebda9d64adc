"""Sensors in reschedule mode: Airflow queues the same key every few seconds; containers take a minute to stop."""

from __future__ import annotations

import uuid
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import AirflowState
from tests.engine.cloud import Container, FakeCloud, Plan
from tests.engine.harness import Harness, make_launch
from tests.engine.virtual_time import wall

pytestmark = pytest.mark.anyio
SENSORS = 30
POKES = 6
POKE_INTERVAL = 5.0
POKE_SECONDS = 1.0
DEPROVISIONING = 60.0
POOL = 8
"""Slots of Airflow's pool; fewer than the sensors, so that they wait for one another."""
PLACES = 60
"""Containers that the cluster has room for, those that still stop among them; fewer than the sensors want."""
FULL = BackendError(Kind.CAPACITY, "RESOURCE:MEMORY", "no container instance met all of its requirements")


def fails(label: str) -> bool:
    return int(label.removeprefix("sensor-")) % 3 == 0


def plan(label: str, nth: int, *, exit_shows: bool) -> Plan:
    exit_code = 1 if nth == POKES and fails(label) else 0
    if exit_shows:
        return Plan(duration=POKE_SECONDS, exit_code=exit_code, lingers=DEPROVISIONING)
    return Plan(duration=POKE_SECONDS + DEPROVISIONING, exit_code=exit_code)


def full_beyond(places: int) -> Any:
    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation != "launch":
            return None
        now = anyio.current_time()
        there = sum(now < c.starts_at + POKE_SECONDS + DEPROVISIONING for c in cloud.containers.values())
        return FULL if there >= places else None

    return fault


class Sensor:
    """A task instance of Airflow's that gives its slot back between pokes."""

    def __init__(self, harness: Harness, number: int, *, assigned: bool) -> None:
        self.harness = harness
        self.label = f"sensor-{number}"
        self.ti_id = str(uuid.uuid4())
        self.assigned = assigned
        self.launches: list[str] = []

    async def sense(self, pool: anyio.Semaphore) -> None:
        for nth in range(1, POKES + 1):
            async with pool:
                await self.poke(nth)
            await anyio.sleep(POKE_INTERVAL)

    async def poke(self, nth: int) -> None:
        # Airflow assigns an identity to each queueing, or none, and then its containers share the mark.
        fields: dict[str, Any] = {"tokened": True} if self.assigned else {"started_by": self.ti_id}
        self.launches.append(self.harness.launch(self.label, **fields))
        [*_, container] = await self.harness.until(lambda: self.containers(nth))
        # By then the container has told Airflow's API that it is to be asked again.
        await anyio.sleep(container.starts_at + POKE_SECONDS - anyio.current_time())

    def containers(self, at_least: int) -> list[Container]:
        found = self.harness.cloud.of(self.label)
        return found if len(found) >= at_least else []


@pytest.mark.parametrize("assigned", [True, False], ids=["assigned", "no identity"])
@pytest.mark.parametrize("exit_shows", [True, False], ids=["exit shows at once", "exit shows when stopped"])
async def test_every_poke_of_a_rescheduled_sensor_has_one_container_though_the_earlier_ones_still_stop(
    exit_shows: bool, assigned: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: plan(label, nth, exit_shows=exit_shows), fault=full_beyond(PLACES))
    async with Harness(cloud).running() as harness:
        sensors = [Sensor(harness, number, assigned=assigned) for number in range(SENSORS)]
        pool = anyio.Semaphore(POOL)
        async with anyio.create_task_group() as tasks:
            for sensor in sensors:
                tasks.start_soon(sensor.sense, pool)
        assert any(notice for s in sensors for notice in harness.notices(s.label)), "the cluster never was full"
        await harness.until_idle()
        await anyio.sleep(400)

        for sensor in sensors:
            containers = cloud.of(sensor.label)
            told = harness.launched(sensor.label)
            assert len(containers) == POKES
            assert [(r.launch_id, r.handle_id) for r in told] == [
                (launch_id, container.handle.id)
                for launch_id, container in zip(sensor.launches, containers, strict=True)
            ]
            assert not any(container.stop_reasons for container in containers)
            *earlier, last = harness.finished(sensor.label)
            assert last.launch_id == sensor.launches[-1]
            assert last.handle_id == containers[-1].handle.id
            assert last.success is not fails(sensor.label)
            # An earlier poke's end is told once, if it was seen before the next one was queued, or never.
            assert all(finished.success for finished in earlier)
            assert len({finished.launch_id for finished in earlier}) == len(earlier)


@pytest.mark.parametrize("assigned", [True, False], ids=["assigned", "no identity"])
async def test_a_sensor_that_was_queued_when_its_scheduler_died_is_launched_though_earlier_containers_still_stop(
    assigned: bool,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=POKE_SECONDS + DEPROVISIONING, exit_code=nth % 2))
    async with Harness(cloud).running() as first:
        sensor = Sensor(first, 1, assigned=assigned)
        for nth in (1, 2, 3):
            await sensor.poke(nth)
            await anyio.sleep(POKE_INTERVAL)
        known = first.launched(sensor.label)[-1].handle_id
    async with Harness(cloud).running() as second:
        mark = str(uuid.uuid4()) if assigned else sensor.ti_id
        # Where Airflow assigns nothing, the row still has the container of the poke before.
        second.adopt(
            make_launch(
                sensor.label,
                started_by=mark,
                launch_id=mark if assigned else str(uuid.uuid4()),
                tokened=assigned,
                queued_at=wall(),
            ),
            AirflowState.QUEUED,
            None if assigned else known,
        )
        await second.until_finished(sensor.label)
    [launched] = second.launched(sensor.label)
    [finished] = second.finished(sensor.label)
    assert len(cloud.of(sensor.label)) == 4
    assert launched.handle_id == finished.handle_id == cloud.of(sensor.label)[-1].handle.id
    assert finished.success
    assert not any(container.stop_reasons for container in cloud.of(sensor.label))
