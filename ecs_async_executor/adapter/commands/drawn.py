"""
The buckets of AWS's that running executors draw from, put together from what each of them shows.

May import ``core``, the status, ``services.quotas`` and the service-free adapter.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any

from ecs_async_executor.adapter.configuration import source_of
from ecs_async_executor.adapter.executor import AsyncExecutor
from ecs_async_executor.adapter.naming import class_name
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.status import ExecutorStatus
from ecs_async_executor.core.account import AccountQuota
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.core.limiter import PollPacer
from ecs_async_executor.core.quotas import Bucket, Draw, Settings
from ecs_async_executor.services.quotas import CHANGES, published

_CONTAINERS_PER_CALL = 100
_QUOTA = tuple(one.name for one in fields(AccountQuota))


@dataclass(frozen=True, slots=True)
class Place:
    """
    One Region of one account, as far as the settings tell: executors with the same settings for AWS share it.

    :param destination: its name for the executor that has it; "" is home
    """

    service: str
    region: str | None
    conn_id: str | None
    role_arn: str | None
    destination: str = field(compare=False)

    def __str__(self) -> str:
        """Name it for people."""
        return self.destination or self.region or "home"


@dataclass(slots=True)
class At:
    """
    What the executors of ours do at a place.

    :param adapter: of one of them
    :param seen: those that show what they do
    :param unseen: those that do not
    """

    place: Place
    adapter: ServiceAdapter
    team: str | None
    seen: list[ExecutorStatus] = field(default_factory=list)
    unseen: list[ExecutorStatus] = field(default_factory=list)

    @property
    def section(self) -> str:
        """The section with the settings of the rates."""
        return source_of(self.team).section(self.adapter.tuning.section)

    @property
    def quotas(self) -> list[AccountQuota]:
        """What the executors have read of the account's quotas."""
        for one in self.seen:
            shown = (one.status or {}).get("quotas", ())
            if here := [quota for quota in shown if quota["destination"] == self.place.destination]:
                return [AccountQuota(**{name: quota[name] for name in _QUOTA}) for quota in here]
        return []

    def buckets(self) -> Iterator[Bucket]:
        """Yield the buckets that the executors draw from, and the wider one that launches and stops share."""
        found: dict[tuple[str, str], list[Draw]] = {}
        for one in self.seen:
            status = one.status or {}
            for rate in status["rates"]:
                if rate["destination"] == self.place.destination:
                    key = (rate["operation"], rate["bucket"])
                    found.setdefault(key, []).append(_draw(one, rate, status["now"]))
        service = self.place.service
        changes = CHANGES.get(service)
        changing = sum(d.used for (operation, _), draws in found.items() if operation != "read" for d in draws)
        for (operation, name), draws in found.items():
            known = published(service, operation, name)
            changes_too = changes is not None and operation != "read"
            yield Bucket(
                known.call,
                operation,
                known.per_second,
                known.raised_by,
                tuple(draws),
                unseen=len(self.unseen),
                beside=changing - sum(draw.used for draw in draws) if changes_too else 0.0,
                wider=changes.per_second if changes_too and changes is not None else None,
            )

    def settings(self) -> Settings:
        """Return the settings that the rates depend on; of the executor that launches most, what it does."""
        tuning = self.adapter.tuning
        busiest = max((self._figures(one) for one in self.seen), key=lambda one: one["launching"])
        read_rate = min((rate["per_second"] for rate in self._rates("read")), default=tuning.describe_rate)
        active = max(self._figures(one)["active"] for one in self.seen)
        pacer = PollPacer(tuning.poll_interval)
        return Settings(
            section=self.section,
            launch_rate=tuning.launch_rate,
            launch_rate_max=tuning.launch_rate_max,
            describe_rate=tuning.describe_rate,
            max_concurrent_launches=tuning.max_concurrent_launches,
            launching=busiest["launching"],
            pending=busiest["pending"],
            sweep_seconds=0.0
            if self._has_events
            else pacer.interval(math.ceil(active / _CONTAINERS_PER_CALL), read_rate),
        )

    @property
    def _has_events(self) -> bool:
        """Whether events tell of ends, so that sweeps may be slow."""
        return any(
            events["destination"] == self.place.destination and events["trouble"] is None
            for one in self.seen
            for events in (one.status or {}).get("events", ())
        )

    def _rates(self, operation: str) -> Iterator[Mapping[str, Any]]:
        for one in self.seen:
            for rate in (one.status or {})["rates"]:
                if rate["operation"] == operation and rate["destination"] == self.place.destination:
                    yield rate

    def _figures(self, one: ExecutorStatus) -> Mapping[str, Any]:
        """Return the counts of an executor's launches here."""
        status = one.status or {}
        for there in status["destinations"]:
            if there["name"] == self.place.destination:
                found: Mapping[str, Any] = there
                return found
        figures: Mapping[str, Any] = status["statistics"]
        return figures


def places_of(executors: Iterable[AsyncExecutor], seen: Sequence[ExecutorStatus]) -> list[At]:
    """
    Return every place at which configured executors work that run in some scheduler, their homes first.

    Executors with settings that cannot be used are at none.
    """
    found: dict[Place, At] = {}
    for executor in executors:
        adapter = executor.adapter
        try:
            named = {name: _place(adapter, name) for name in adapter.destinations}
            _ = adapter.tuning
        except ConfigurationError:
            continue
        of_it = [one for one in seen if one.hostname and _is_of(one, executor)]
        for name, place in named.items():
            shows = [one for one in of_it if one.status is not None and _is_at(one.status, name)]
            if name != HOME and not shows:
                continue
            at = found.setdefault(place, At(place, adapter, executor.team_name))
            at.seen += shows
            if name == HOME:
                at.unseen += [one for one in of_it if one.status is None]
    return list(found.values())


def _is_of(one: ExecutorStatus, executor: AsyncExecutor) -> bool:
    return (one.class_name, one.team) == (class_name(type(executor)), executor.team_name)


def _is_at(status: Mapping[str, Any], destination: str) -> bool:
    return any(rate["destination"] == destination for rate in status["rates"])


def _place(adapter: ServiceAdapter, destination: str) -> Place:
    there = adapter.destinations[destination]
    region = adapter.region_of(destination)
    conn_id = there.conn_id or (adapter.conn_id if destination else None)
    return Place(adapter.service.name, region, conn_id, there.role_arn, destination)


def _draw(one: ExecutorStatus, rate: Mapping[str, Any], now: str) -> Draw:
    since = rate.get("refused_since")
    return Draw(
        who=f"{one.hostname} (job {one.job_id})",
        rate=rate["per_second"],
        begins_at=rate.get("begins_at", rate["per_second"]),
        used=rate.get("used", 0.0),
        calls=rate.get("calls", 0),
        refused=rate.get("refused", 0),
        refused_for=_seconds_between(since, now) if since else None,
        sent_when_refused=rate.get("sent_when_refused"),
        background=rate.get("background") or 0.0,
    )


def _seconds_between(since: str, now: str) -> float:
    return (datetime.fromisoformat(now) - datetime.fromisoformat(since)).total_seconds()
