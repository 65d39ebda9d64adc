"""
What an executor shows over HTTP: its engine's figures, closed gates, rates and launches, as one document.

May import ``core``, ``destinations``, ``statistics``, anyio and msgspec. Loop thread only.
:mod:`~ecs_async_executor.engine.status_server` serves the document; ``adapter/status.py`` reads it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timezone
from itertools import islice

import anyio
import anyio.lowlevel
import msgspec

from ecs_async_executor.core.destinations import within
from ecs_async_executor.core.ledger import Ledger
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.phases import (
    Checking,
    InDoubt,
    Phase,
    Running,
    Searching,
    Sending,
    Starting,
    Tracked,
    Waiting,
)
from ecs_async_executor.core.placements import Placements
from ecs_async_executor.core.usage import Used
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.destinations import Destination, Destinations
from ecs_async_executor.engine.statistics import PHASE_NAMES, AtDestination, Events, Statistics, shown

LAUNCHES_SHOWN = 1000
"""The most launches in one document."""
_LAUNCHES_PER_YIELD = 100
"""A launch takes some ten microseconds; after so many the lanes get their turn."""

STATES: Mapping[str, tuple[type[Phase], ...]] = {
    "pending": (Waiting, InDoubt, Sending),
    "searching": (Checking, Searching),
    "active": (Starting, Running),
}
"""Where a launch is, roughly; :data:`~ecs_async_executor.engine.statistics.PHASE_NAMES` say it precisely."""
_STATE_OF = {phase: state for state, phases in STATES.items() for phase in phases}
_PHASE_OF_NAME = {name.replace(" ", "_"): kind for kind, name in PHASE_NAMES.items() if kind != "Ended"}
FILTERS = (*STATES, *_PHASE_OF_NAME)
"""The states that launches can be asked for by."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """
    Where an executor shows what it does, and as whom.

    :param setting: the option that names the port, with its section, for people
    :param identity: what the document begins with: version, executor, class, team, hostname, pid, started_at
    :param fields: returns the fields that name a launch's workload: dag_id, run_id, task_id, ...
    :param redacted: makes words of the service's safe to show
    """

    host: str
    port: int
    setting: str
    identity: Mapping[str, object]
    fields: Callable[[Launch], Mapping[str, object]]
    redacted: Callable[[str], str]


class Status:
    """
    Describes one engine.

    :param statistics: returns the latest snapshot, with what the bridge adds to it
    :param wall: the wall clock
    """

    def __init__(
        self,
        *,
        endpoint: Endpoint,
        ledger: Ledger,
        destinations: Destinations,
        placements: Placements,
        statistics: Callable[[], Statistics],
        wall: Callable[[], float],
    ) -> None:
        self._endpoint = endpoint
        self._ledger = ledger
        self._destinations = destinations
        self._placements = placements
        self._statistics = statistics
        self._wall = wall

    def paused(self) -> str | None:
        """Return why nothing can be launched at all, or None."""
        paused = self._statistics().paused
        return None if paused is None else self._endpoint.redacted(paused)

    async def document(self, state: str | None = None) -> bytes:
        """
        Return the document as JSON.

        :param state: with launches in this state only; one of :data:`FILTERS`
        """
        now = loop_time()
        statistics, paused = self._statistics(), self.paused()
        gates, reasons = self._gates(now)
        launches, count = await self._launches(state, now, reasons)
        document = {
            **self._endpoint.identity,
            "now": self._moment(now, now),
            "paused": paused,
            "statistics": {**_figures(statistics), "paused": paused},
            "gates": gates,
            "destinations": list(map(self._destination, statistics.destinations)),
            "events": list(map(self._events_of, statistics.events)),
            "rates": [rate for destination in self._destinations for rate in self._rates(destination, now)],
            "quotas": [
                {"destination": destination.name, **asdict(quota)}
                for destination in self._destinations
                for quota in destination.quotas
            ],
            "launch_count": count,
            "launches": launches,
        }
        return msgspec.json.encode(document, enc_hook=str)

    def _destination(self, figures: AtDestination) -> dict[str, object]:
        trouble = None if figures.trouble is None else self._endpoint.redacted(figures.trouble)
        return {
            "name": figures.name,
            "trouble": trouble,
            "launch_rate": figures.launch_rate,
            "pending": figures.pending,
            "launching": figures.launching,
            "active": figures.active,
        }

    def _events_of(self, figures: Events) -> dict[str, object]:
        trouble = None if figures.trouble is None else self._endpoint.redacted(figures.trouble)
        return {
            "destination": figures.name,
            "trouble": trouble,
            "sweep_interval": round(figures.sweep_interval, 1),
            "missed": figures.missed,
            "trusted": figures.trusted,
        }

    def _rates(self, destination: Destination, now: float) -> Iterator[dict[str, object]]:
        """Yield each bucket in use: its rate, and what was sent and refused of late."""
        for rate in destination.limiter.rates():
            bucket = within(rate.bucket)
            usage = destination.session.usages.get((rate.operation, bucket))
            used = asdict(usage.figures(now)) if usage is not None else asdict(Used())
            for name in ("refused_since", "refused_at"):
                used[name] = None if used[name] is None else self._moment(used[name], now)
            yield {
                **asdict(rate),
                "bucket": bucket,
                "destination": destination.name,
                "begins_at": destination.begins_at(rate.operation, bucket),
                **used,
            }

    def _moment(self, at: float, now: float) -> str:
        """Return a time of the loop's clock as one of the wall clock."""
        return datetime.fromtimestamp(self._wall() - (now - at), tz=timezone.utc).isoformat(timespec="seconds")

    def _gates(self, now: float) -> tuple[list[dict[str, object]], dict[str, str]]:
        """Return the closed gates, and the reason of each by placement."""
        closed = dict(self._placements.closed())
        if not closed:
            return [], {}
        ways_of = self._ledger.queues.ways_of
        waiting = Counter(
            ways_of(tracked)[0].placement
            for tracked in self._ledger.unsettled.values()
            if isinstance(tracked.phase, Waiting | InDoubt)
        )
        reasons = {placement: self._endpoint.redacted(barred.reason) for placement, barred in closed.items()}
        gates: list[dict[str, object]] = [
            {
                "placement": placement,
                "choice": self._placements.choice_of(placement),
                "kind": barred.kind.value,
                "reason": reasons[placement],
                "since": self._moment(barred.since, now),
                "waiting": waiting[placement],
            }
            for placement, barred in closed.items()
        ]
        return gates, reasons

    async def _launches(
        self, state: str | None, now: float, reasons: Mapping[str, str]
    ) -> tuple[list[dict[str, object]], int]:
        """Return the oldest launches in a state, and how many are in it."""
        wanted = list(self._in_state(state))
        records = []
        for number, tracked in enumerate(islice(wanted, LAUNCHES_SHOWN), 1):
            records.append(self._record(tracked, now, reasons))
            if number % _LAUNCHES_PER_YIELD == 0:
                await anyio.lowlevel.checkpoint()
        return records, len(wanted)

    def _in_state(self, state: str | None) -> Iterator[Tracked]:
        launches = self._ledger.launches.values()
        if state is None:
            yield from launches
        elif state in STATES:
            kinds = STATES[state]
            yield from (tracked for tracked in launches if isinstance(tracked.phase, kinds))
        else:
            kind = _PHASE_OF_NAME[state]
            yield from (tracked for tracked in launches if type(tracked.phase).__name__ == kind)

    def _record(self, tracked: Tracked, now: float, reasons: Mapping[str, str]) -> dict[str, object]:
        phase = tracked.phase
        placement = getattr(phase, "placement", None) or self._ledger.queues.ways_of(tracked)[0].placement
        waits = isinstance(phase, Waiting | InDoubt)
        return {
            **self._endpoint.fields(tracked.launch),
            **shown(tracked, now),
            "state": _STATE_OF.get(type(phase)),
            "since": self._moment(getattr(phase, "since", tracked.since), now),
            "placement": placement,
            "reason": reasons.get(placement) if waits and placement is not None else None,
        }


def _figures(statistics: Statistics) -> dict[str, object]:
    """Return a snapshot as JSON's types."""
    elsewhere = ("destinations", "events", "stranded")
    values = {one.name: getattr(statistics, one.name) for one in fields(statistics) if one.name not in elsewhere}
    return {name: dict(value) if isinstance(value, Mapping) else value for name, value in values.items()}
