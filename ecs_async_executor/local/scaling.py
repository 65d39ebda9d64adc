"""
Auto Scaling groups behind capacity providers: the hosts that come when tasks wait.

Knows no service. Tasks without a place are what makes a group grow, so they wait here where RunTask on a launch
type would answer with failures. As JSON::

    {"asg": {"hosts": 0, "tasks_per_host": 20, "max_hosts": 10, "scale_out": 720, "patience": 1800}}
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ecs_async_executor.local.host import Host
from ecs_async_executor.local.jsonable import from_json
from ecs_async_executor.local.life import Job, Life
from ecs_async_executor.local.runners import NOT_STARTED


@dataclass(frozen=True, slots=True, kw_only=True)
class ScalingGroup:
    """
    One group.

    :param hosts: container instances to begin with
    :param tasks_per_host: how many tasks run on each
    :param max_hosts: it never has more
    :param scale_out: seconds from the first task that waits to new hosts, as many as the waiting tasks need then.
        When no task waits any more, the demand is gone, and the next one begins anew
    :param patience: seconds in PROVISIONING after which a task is stopped
    :param reason: of that stop: ``RESOURCE:*``, ``AGENT``, ``NO ACTIVE INSTANCES``, ``EMPTY CAPACITY PROVIDER``
    """

    hosts: int = 0
    tasks_per_host: int = 1
    max_hosts: int = 100
    scale_out: float = 300.0
    patience: float = 1800.0
    reason: str = "RESOURCE:MEMORY"

    @classmethod
    def from_json(cls, data: object) -> ScalingGroup:
        """
        Make a group of a JSON object.

        :raises ValueError: if a member is unknown or of the wrong type
        """
        return from_json(cls, data)


@dataclass(slots=True)
class _State:
    pool: str
    group: ScalingGroup
    hosts: int
    demand: int = 0


class ScalingGroups:
    """
    The groups of one host, by the name of their capacity provider. Call with the host's lock held.

    A group has hosts of its own in each Region; the names of what is submitted to are pools of the host.
    """

    def __init__(self, host: Host, groups: Mapping[str, ScalingGroup | Mapping[str, Any]]) -> None:
        self._host = host
        self._groups = {
            name: g if isinstance(g, ScalingGroup) else ScalingGroup.from_json(g) for name, g in groups.items()
        }
        self.reset()

    def reset(self) -> None:
        """Go back to the hosts of the beginning."""
        self._states: dict[str, _State] = {}
        for provider in self._groups:
            self._state(provider, provider)

    def __contains__(self, provider: object) -> bool:
        return provider in self._groups

    def hosts(self) -> dict[str, int]:
        """Return how many hosts each group has now."""
        self._host.settle()
        return {name: state.hosts for name, state in self._states.items()}

    def submit(
        self, provider: str, pool: str, job: Job, life: Life, now: float, *, not_before: float = 0.0
    ) -> None:
        """
        Run a job on a group's hosts; without a place it waits, and the group grows.

        :param pool: the name of the provider where it has hosts of its own
        """
        state = self._state(provider, pool)
        waited = self._host.waiting_in(pool)
        self._host.submit(job, life, pool=pool, not_before=not_before)
        if not self._host.waiting_in(pool):
            return
        deadline = now + state.group.patience
        self._host.alarm(deadline, lambda at: self._give_up(state.group, job, at))
        if not waited:
            self._demand(state, now)

    def _state(self, provider: str, pool: str) -> _State:
        state = self._states.get(pool)
        if state is None:
            group = self._groups[provider]
            state = self._states[pool] = _State(pool, group, group.hosts)
            self._host.pools[pool] = group.hosts * group.tasks_per_host
        return state

    def _give_up(self, group: ScalingGroup, job: Job, at: float) -> None:
        self._host.expel(job, at, NOT_STARTED, group.reason)

    def _demand(self, state: _State, now: float) -> None:
        """Wait for new hosts; an earlier wait, whose tasks are all gone, is void."""
        state.demand += 1
        demand = state.demand
        if state.hosts < state.group.max_hosts:
            self._host.alarm(now + state.group.scale_out, lambda at: self._grow(state, demand, at))

    def _grow(self, state: _State, demand: int, at: float) -> None:
        group, waiting = state.group, self._host.waiting_in(state.pool)
        if self._states.get(state.pool) is not state or demand != state.demand or not waiting:
            return
        state.hosts = min(group.max_hosts, state.hosts + -(-waiting // group.tasks_per_host))
        self._host.resize(state.pool, state.hosts * group.tasks_per_host, at)
        if self._host.waiting_in(state.pool):
            self._demand(state, at)
