"""The engine over the local ECS without capacity: as documentation and public reports have AWS answer then."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Adopt, AirflowState, HeldUp, Launch, Launched, Notice
from ecs_async_executor.local import Fault
from ecs_async_executor.local.behaviour import CHOICES
from tests.contract.scheduler import Scheduler
from tests.contract.services import local

pytestmark = pytest.mark.slow
OUTAGE = 6.0
"""Seconds: the first probe of the gate is refused, the second, ten seconds later, is not."""


class SameJwt(Scheduler):
    """Sends the same request each time."""

    def render(self, launch: Launch) -> LaunchSpec:
        return self.service.spec(self.life, started_by=launch.started_by, jwt="the same")


def until(scheduler: Scheduler, condition: Callable[[], bool], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, scheduler.bridge.statistics()
        scheduler.heartbeat()
        time.sleep(0.02)


def launched(scheduler: Scheduler) -> int:
    return len({report.key for report in scheduler.reports if isinstance(report, Launched)})


@pytest.mark.parametrize(
    ("scheduler_type", "memory"),
    [*((Scheduler, memory) for memory in CHOICES["failure_memory"]), (SameJwt, "replay")],
)
def test_what_a_client_token_remembers_of_failures_delays_nothing(
    memory: str, scheduler_type: type[Scheduler]
) -> None:
    with local(behaviour={"failure_memory": memory}) as service:
        full = service.server.faults.no_capacity()
        scheduler = scheduler_type(service)
        scheduler.heartbeat(*scheduler.launches(6))
        end = time.monotonic() + OUTAGE
        until(scheduler, lambda: time.monotonic() > end, OUTAGE + 1)
        service.server.faults.remove(full)
        until(scheduler, lambda: launched(scheduler) == 6, 12.0)
        scheduler.run_until_finished(6)
        assert scheduler.stop()
        assert [finished.reason for finished in scheduler.outcomes() if not finished.success] == []
        assert service.containers() == 6


@pytest.mark.parametrize("memory", ["replay", "conflict"])
def test_a_scheduler_killed_after_an_outage_of_capacity_leaves_nothing_to_start_twice(memory: str) -> None:
    """The numbers in its client tokens have gone on, and its successor does not know how far."""
    with local(behaviour={"failure_memory": memory}) as service:
        full = service.server.faults.no_capacity()
        successor = Scheduler(service, life="long")
        launches = successor.launches(6)
        identities = [launch.launch_id for launch in launches]
        scheduler = subprocess.Popen([sys.executable, "-m", "tests.contract.burst", service.name, *identities])
        try:
            until(successor, lambda: service.server.faults.listing()[0]["struck"] >= 7, 60)
            service.server.faults.remove(full)
            until(successor, lambda: service.containers() >= 1, 60)
        finally:
            scheduler.send_signal(signal.SIGKILL)
            scheduler.wait()
        for launch in launches:
            successor.bridge.submit(Adopt(launch, AirflowState.QUEUED, None))
        until(successor, lambda: launched(successor) == 6, 60)
        assert successor.stop(containers=True)
        assert service.containers() == 6


@pytest.mark.parametrize("name", ["mixed_instances", "failure_without_reason"])
def test_a_lack_of_capacity_in_any_entry_of_failures_is_waited_for(name: str) -> None:
    with local() as service:
        service.server.faults.add(Fault.from_json({"known": name, "count": 4}))
        scheduler = Scheduler(service)
        scheduler.heartbeat(*scheduler.launches(4))
        scheduler.run_until_finished(4)
        assert scheduler.stop()
        assert [finished.reason for finished in scheduler.outcomes() if not finished.success] == []
        assert service.containers() == 4


class OnGroup(Scheduler):
    """Launches at the capacity provider of an Auto Scaling group."""

    def render(self, launch: Launch) -> LaunchSpec:
        spec = super().render(launch)
        request = {
            key: value for key, value in spec.request.items() if key not in {"launchType", "platformVersion"}
        }
        return replace(spec, request={**request, "capacityProviderStrategy": [{"capacityProvider": "asg"}]})


def test_200_wait_for_the_hosts_of_a_group_in_one_container_each_and_none_is_stopped() -> None:
    """Twelve minutes at AWS are twelve seconds here."""
    group = {"tasks_per_host": 20, "max_hosts": 10, "scale_out": 12.0, "patience": 60.0}
    with local(groups={"asg": group}) as service:
        scheduler = OnGroup(service)
        scheduler.heartbeat(*scheduler.launches(200))
        scheduler.run_until_finished(200, timeout=90)
        assert scheduler.stop()
        assert [finished.reason for finished in scheduler.outcomes() if not finished.success] == []
        assert service.containers() == 200
        assert service.server.hosts() == {"asg": 10}
        held = {report.key for report in scheduler.reports if isinstance(report, HeldUp) and not report.over}
        assert len(held) == 200


@pytest.mark.parametrize("reason", ["RESOURCE:MEMORY", "EMPTY CAPACITY PROVIDER"])
def test_a_task_that_never_finds_a_place_costs_no_attempt(reason: str) -> None:
    with local(groups={"asg": {"scale_out": 9.0, "patience": 1.0, "reason": reason, "max_hosts": 0}}) as service:
        scheduler = OnGroup(service)
        scheduler.heartbeat(*scheduler.launches(1))
        until(scheduler, lambda: service.containers() == 4, 90)
        assert scheduler.outcomes() == []
        [notice] = {report.text for report in scheduler.reports if isinstance(report, Notice)}
        assert f"no capacity for it: ECS task stopped before its container ran: {reason}" in notice
        assert scheduler.stop(containers=True)
