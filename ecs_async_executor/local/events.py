"""
What EventBridge is told of tasks and jobs: each change of their state, as AWS tells it.

May import moto, :mod:`account` and :mod:`faults`. An event goes to moto's EventBridge, which compares it with the
patterns of rules, applies the InputTransformer of a target, and sends it on, to SQS for example. Nobody is told
while there are no rules. An event has all that DescribeTasks or DescribeJobs shows, the commands included.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import json
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final

import jsonpath_ng.ext
from moto.core.exceptions import ServiceException
from moto.events.models import events_backends
from moto.sqs.models import sqs_backends

from ecs_async_executor.local.account import Account
from ecs_async_executor.local.faults import EVENT_OPERATIONS, Faults
from ecs_async_executor.local.place import Place

# moto reads the paths of an InputTransformer again for each event, which takes 80 ms of CPU for each path.
jsonpath_ng.ext.parse = lru_cache(jsonpath_ng.ext.parse)

LOOK_SECONDS: Final = 0.1
NOBODYS: Final = "00000000-0000-0000-0000-000000000000"


class Events:
    """
    Tells moto's EventBridge of changes.

    :param faults: what goes wrong with events on their way
    """

    def __init__(self, account: Account, faults: Faults) -> None:
        self._account = account
        self._faults = faults
        self._told: dict[str, object] | None = None
        self._later: list[tuple[float, int, Place, dict[str, Any]]] = []
        self._numbers = itertools.count()

    def look(self) -> None:
        """Tell of what has changed since the last look; call it in moto's thread, between two requests."""
        if not self._has_rules():
            self._told = None
            return
        now = self._account.host.clock()
        due: list[tuple[Place, dict[str, Any]]] = []
        for place, entry in self._changes(now):
            due += self._on_its_way(place, entry, now)
        while self._later and self._later[0][0] <= now:
            _, _, place, entry = heapq.heappop(self._later)
            due.append((place, entry))
        for place, entry in due:
            # One by one: what a target that is gone does not get, others do.
            with contextlib.suppress(ServiceException):
                events_backends[place.account][place.region].put_events([entry])

    def _has_rules(self) -> bool:
        return any(
            bus.rules
            for account in self._account.accounts
            if account in events_backends
            for backend in list(events_backends[account].values())
            for bus in list(backend.event_buses.values())
        )

    def _changes(self, now: float) -> list[tuple[Place, dict[str, Any]]]:
        """Return the events of what has changed since a rule was there to hear of it."""
        with self._account.lock:
            self._account.host.settle()
            told, self._told, changes = self._told, {}, []
            for name, service in self._account.services.items():
                for reference, state in service.states(now).items():
                    self._told[reference] = state
                    if told is not None and told.get(reference) != state:
                        changes.append(self._entry(name, reference, now))
            return changes

    def _entry(self, service: str, reference: str, now: float) -> tuple[Place, dict[str, Any]]:
        place, arn, detail = self._account.services[service].event(reference, now)
        return place, {
            "Source": f"aws.{service}",
            "DetailType": "ECS Task State Change" if service == "ecs" else "Batch Job State Change",
            "Resources": [arn],
            "Time": now,
            "Detail": detail,
        }

    def _on_its_way(
        self, place: Place, entry: dict[str, Any], now: float
    ) -> Iterator[tuple[Place, dict[str, Any]]]:
        """Yield what arrives of an event at once, and keep what arrives later."""
        operation = EVENT_OPERATIONS[entry["Source"]]
        struck = self._faults.strike(operation, entry["Detail"].encode(), place)
        kinds = {fault.kind: fault for fault in struck}
        if "event_lost" in kinds:
            return
        if (late := kinds.get("event_late")) is not None:
            heapq.heappush(self._later, (now + late.seconds, next(self._numbers), place, entry))
            return
        yield place, entry
        if "event_doubled" in kinds:
            yield place, entry
        if "event_forged" in kinds:
            self._forge(place)
            yield place, {**entry, "Detail": _forged(entry["Detail"])}

    def _forge(self, place: Place) -> None:
        """Send what is no event to every queue, as whoever may send to it can."""
        for queue in list(sqs_backends[place.account][place.region].queues):
            for body in (" ", "{", "[1]", json.dumps({"container": 3})):
                sqs_backends[place.account][place.region].send_message(queue, body)


def _forged(detail: str) -> str:
    """Return the detail of an event about a container that there is not, in a state that it is not in."""
    told: Mapping[str, Any] = json.loads(detail)
    ends = {"lastStatus": "STOPPED"} if "taskArn" in told else {"status": "FAILED"}
    names = {name: str(told[name])[: -len(NOBODYS)] + NOBODYS for name in ("taskArn", "jobId") if name in told}
    return json.dumps({**told, **names, **ends})
