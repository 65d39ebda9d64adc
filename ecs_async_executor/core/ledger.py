"""
The ledger: every record, where it has to be looked at next, and the outbox. Pure: ``now`` is passed in.

May import ``backend``, ``lifecycle``, ``messages`` and ``policy``. It belongs to the bridge and outlives the loop
thread; only the loop thread changes it. :meth:`Ledger.dispatch` is the one place where an event meets a record.
"""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field

from ecs_async_executor.core import lifecycle
from ecs_async_executor.core.backend import Handle, Observation
from ecs_async_executor.core.lifecycle import Event, Phase, Record
from ecs_async_executor.core.messages import Adopt, Command, Finished, Launch, Release, Report, Stop
from ecs_async_executor.core.policy import Rules

Place = tuple[int, int, int, int, str]
"""
(refused probes, -priority, order of arrival, ticket, record id): a heap of these pops the highest priority, oldest
first, but before those whose own request was refused all that have not been tried as often.
"""


@dataclass(slots=True)
class Lane:
    """
    Launches that fall under the same limits.

    :param placement: see :class:`~ecs_async_executor.core.backend.LaunchSpec`; None while it is unknown
    :param bucket: likewise
    """

    placement: str | None
    bucket: str | None
    heap: list[Place] = field(default_factory=list)


@dataclass(slots=True, eq=False)
class StopRequest:
    """
    A container to be stopped. It outlives its record: a stop is owed even when the outcome is known.

    :param tries: that were not throttled
    :param refusals: of these, those with a definite no
    """

    record: Record
    handle: Handle
    reason: str
    tries: int = 0
    refusals: int = 0
    not_before: float = 0.0


class Stops:
    """Stop requests that are owed, those in flight included: what has no answer yet survives the loop thread."""

    def __init__(self) -> None:
        self._order = itertools.count()
        self._waiting: list[tuple[float, int, StopRequest]] = []
        self._in_flight: dict[StopRequest, None] = {}  # in order, so that a walk can be repeated

    def __len__(self) -> int:
        return len(self._waiting) + len(self._in_flight)

    def add(self, request: StopRequest) -> None:
        """Owe a stop, from the request's ``not_before`` on."""
        heapq.heappush(self._waiting, (request.not_before, next(self._order), request))
        self._in_flight.pop(request, None)

    def take(self) -> StopRequest:
        """Take out the one that is due first, to send it; give it to :meth:`done` or back to :meth:`add`."""
        request = self._waiting[0][2]
        self._in_flight[request] = None
        heapq.heappop(self._waiting)
        return request

    def done(self, request: StopRequest) -> None:
        """Owe this one no longer."""
        self._in_flight.pop(request, None)

    def next_at(self) -> float | None:
        """When the next one is due; None if none waits."""
        return self._waiting[0][0] if self._waiting else None

    def recover(self) -> None:
        """Owe those again whose answer nobody will read."""
        for request in list(self._in_flight):
            self.add(request)

    def hopeful(self) -> bool:
        """Tell if any is owed that has not been refused."""
        return any(not request.refusals for request in self._owed())

    def handles(self) -> list[Handle]:
        """Return the containers that are owed a stop. Other threads may call it."""
        return list(dict.fromkeys(request.handle for request in self._owed()))

    def _owed(self) -> list[StopRequest]:
        return [request for _, _, request in list(self._waiting)] + list(self._in_flight)

    def records(self) -> set[Record]:
        """Return the records whose containers are owed a stop."""
        return {request.record for request in self._owed()}


ROUTES_KEPT = 1024
HOLD_SECONDS = 300.0
"""How long a failure waits for another container of the same key to end."""


class Ledger:
    """
    Every launch that has not ended, by id, by key and by what it waits for.

    ``records`` has them all: those with a container are in ``active`` too, the others in ``unsettled``.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.records: dict[str, Record] = {}
        self.outbox: deque[Report] = deque()
        self.stops = Stops()
        self.active: dict[str, Record] = {}
        self.unsettled: dict[str, Record] = {}
        self.lanes: dict[str | None, Lane] = {None: Lane(None, None)}
        self._by_key: dict[Hashable, tuple[Record, ...]] = {}
        self._delayed: list[tuple[float, int, str]] = []
        self._look_ups: list[tuple[float, int, str]] = []
        self._held: dict[Hashable, tuple[float, Finished]] = {}
        self._routes: dict[Hashable, str] = {}
        self._order = itertools.count(1)

    # --- commands and events ---------------------------------------------------------------------------------

    def command(self, command: Command, now: float) -> None:
        """Take one command of the executor's in; a repeated one changes nothing."""
        match command:
            case Launch():
                self._begin(command, lambda: lifecycle.new_record(command, now), now)
            case Adopt(launch, was, handle_id):
                self._begin(
                    launch,
                    lambda: lifecycle.adopted_record(
                        launch, was, handle_id, tokened=launch.tokened and self.rules.repeatable, now=now
                    ),
                    now,
                    adopted=True,
                )
            case Stop(launch_id, reason):
                self._unwanted(launch_id, lifecycle.StopWanted(reason), now)
            case Release(launch_id):
                self._unwanted(launch_id, lifecycle.Released(), now)

    def _unwanted(self, launch_id: str, event: Event, now: float) -> None:
        for key, (_, report) in list(self._held.items()):
            if report.launch_id == launch_id:
                del self._held[key]
        record = self.records.get(launch_id)
        if record is not None:
            self.dispatch(record, event, now)

    def _begin(
        self,
        launch: Launch,
        make: Callable[[], tuple[Record, list[lifecycle.Effect]]],
        now: float,
        *,
        adopted: bool = False,
    ) -> None:
        known = self.records.get(launch.launch_id)
        if known is not None:
            # What is adopted is what was queued; what is queued at another time is another launch.
            if not known.muted and (adopted or launch.queued_at == known.launch.queued_at):
                return
            self._rename(known, now)
        self._held.pop(launch.key, None)
        for sibling in self._by_key.get(launch.key, ()):
            if sibling.stop_reason is None:
                self.dispatch(sibling, lifecycle.Superseded(), now)
        record, effects = make()
        if known is not None and not (adopted and known.released):
            # Its tokens are not this one's, unless it is the very launch, which another scheduler had meanwhile.
            record.spent = known.spent + known.attempt
        siblings = self._by_key.get(launch.key, ())
        # A revoked container of the same key may still run user code. The wait begins with the revocation: who is
        # revoked while waiting, over and over, would wait for ever.
        for sibling in siblings:
            if sibling.stop_reason is not None:
                record.retry_at = max(record.retry_at, sibling.unwanted_at + self.rules.predecessor_wait)
        self._by_key[launch.key] = (*siblings, record)
        record.arrival = next(self._order)
        self.records[record.id] = self.unsettled[record.id] = record
        self._carry_out(record, effects, now)

    def _rename(self, record: Record, now: float) -> None:
        """
        Make room for another launch under the same identity; nobody waits for this one any more.

        A revoked launch is here until its container has stopped, and Airflow need not have assigned another
        identity by then.
        """
        old, record.id = record.id, f"{record.launch.launch_id}/{next(self._order)}"
        del self.records[old]
        self.records[record.id] = record
        for some in (self.active, self.unsettled):
            if old in some:
                some[record.id] = some.pop(old)
        if record.phase in _SENDABLE:
            self._enqueue(record, now)
        elif record.phase is Phase.UNRESOLVED:
            self.look_up_again(record, record.retry_at)

    def dispatch(self, record: Record, event: Event, now: float) -> None:
        """Let an event happen to a record, and do the bookkeeping that follows from it."""
        self._carry_out(record, lifecycle.step(record, event, now, self.rules), now)
        if record.phase is not Phase.ACTIVE and self.active.pop(record.id, None) is not None:
            self.unsettled[record.id] = record

    def abandon(self, record: Record, reason: str, now: float) -> None:
        """End a launch that an event could not be applied to: it has failed, which is told if it still matters."""
        launch = record.launch
        if record.id in self.records:
            if record.outcome is not None:
                self._emit(record, record.outcome, now)  # perhaps again, which does no harm
            elif not record.muted:
                self.outbox.append(
                    Finished(launch.launch_id, launch.key, success=False, reason=reason, notable=True)
                )
            if record.handle is not None:
                self.stops.add(StopRequest(record, record.handle, reason))
            record.phase = Phase.DONE
            self._forget(record, now)

    def _carry_out(self, record: Record, effects: list[lifecycle.Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case lifecycle.Enqueue():
                    self._enqueue(record, now)
                case lifecycle.LookUp():
                    self.look_up_again(record, record.retry_at)
                case lifecycle.Poll():
                    self._settle(record)
                case lifecycle.SendStop(reason):
                    if record.handle is not None:
                        self.stops.add(StopRequest(record, record.handle, reason))
                case lifecycle.Emit(report):
                    self._emit(record, report, now)
                case lifecycle.Forget():
                    self._forget(record, now)

    def active_since(self, then: float) -> list[Record]:
        """Return the records whose containers were learnt after a time."""
        found = []
        for record in reversed(self.active.values()):  # in the order in which they were learnt
            if record.since <= then:
                break
            found.append(record)
        return found

    def _settle(self, record: Record) -> None:
        self.active[record.id] = record
        self.unsettled.pop(record.id, None)

    def _emit(self, record: Record, report: Report, now: float) -> None:
        if isinstance(report, Finished) and not report.success and self._sibling_lives(record):
            # The key's other container may be the one that does the work: its end decides when this is told.
            self._held[record.launch.key] = (now + HOLD_SECONDS, report)
            return
        self.outbox.append(report)

    def _sibling_lives(self, record: Record) -> bool:
        return any(
            sibling is not record and sibling.phase is Phase.ACTIVE and sibling.seen_at is not None
            for sibling in self._by_key.get(record.launch.key, ())
        )

    def _forget(self, record: Record, now: float) -> None:
        key = record.launch.key
        self.records.pop(record.id, None)
        self.active.pop(record.id, None)
        self.unsettled.pop(record.id, None)
        known = self._by_key.get(key, ())
        if record not in known:
            return
        siblings = tuple(sibling for sibling in known if sibling is not record)
        if siblings:
            self._by_key[key] = siblings
        else:
            del self._by_key[key]
        revoked = any(sibling.stop_reason is not None for sibling in siblings)
        for sibling in siblings:
            if not revoked and sibling.phase is Phase.WAITING and sibling.retry_at > now and not sibling.errors:
                sibling.retry_at = now
                self._enqueue(sibling, now)
        held = self._held.get(key)
        if held is not None and not self._key_lives(key):
            self.outbox.append(held[1])
            del self._held[key]

    def _release_held(self, now: float) -> None:
        """Report failures that were held back for long enough."""
        for key, (until, report) in list(self._held.items()):
            if until > now:
                break  # in the order of their deadlines
            self.outbox.append(report)
            del self._held[key]

    def _key_lives(self, key: Hashable) -> bool:
        return any(r.phase is Phase.ACTIVE for r in self._by_key.get(key, ()))

    # --- the launch queue ------------------------------------------------------------------------------------

    def _enqueue(self, record: Record, now: float) -> None:
        ticket = record.ticket = next(self._order)
        if record.retry_at > now:
            heapq.heappush(self._delayed, (record.retry_at, ticket, record.id))
            return
        placement = record.placement or self._routes.get(record.launch.route)
        lane = self.lanes.get(placement)
        if lane is None:
            lane = self.lanes[None]
        place = (record.probed, -record.launch.priority, record.arrival, ticket, record.id)
        heapq.heappush(lane.heap, place)

    def requeue(self, record: Record, now: float) -> None:
        """Give a record that was popped but not sent its place back."""
        self._enqueue(record, now)

    def learn_route(self, record: Record, placement: str, bucket: str) -> None:
        """Remember which limits a launch, and those like it, fall under."""
        lane = self.lanes.get(placement)
        if lane is None:
            self.lanes[placement] = Lane(placement, bucket)
        else:
            lane.bucket = bucket
        record.placement = placement
        if len(self._routes) >= ROUTES_KEPT:
            self._routes.clear()
        self._routes[record.launch.route] = placement

    def advance(self, now: float) -> None:
        """Bring launches whose delay is over into their lanes, and drop lanes that are empty."""
        while self._delayed and self._delayed[0][0] <= now:
            _, ticket, name = heapq.heappop(self._delayed)
            record = self.records.get(name)
            if record is not None and record.ticket == ticket:
                self._enqueue(record, now)
        if self._held:
            self._release_held(now)

    def head(self, lane: Lane) -> Record | None:
        """Return the launch that is next in a lane, and drop void places before it."""
        while lane.heap:
            _, _, _, ticket, name = lane.heap[0]
            record = self.records.get(name)
            if record is not None and record.ticket == ticket and record.phase in _SENDABLE:
                return record
            heapq.heappop(lane.heap)
        return None

    def pop(self, lane: Lane) -> None:
        """Take the head of a lane out of it."""
        heapq.heappop(lane.heap)

    def queued(self, lane: Lane) -> list[Record]:
        """Return every launch of a lane, in no order, and drop void places: nothing else does at a closed gate."""
        places, records = [], []
        for place in lane.heap:
            record = self.records.get(place[4])
            if record is not None and record.ticket == place[3] and record.phase in _SENDABLE:
                places.append(place)
                records.append(record)
        if len(places) < len(lane.heap):
            heapq.heapify(places)
            lane.heap = places
        return records

    def drop_lane(self, lane: Lane) -> None:
        """Forget a lane that nothing waits in."""
        if lane.placement is not None and not lane.heap:
            self.lanes.pop(lane.placement, None)
            for route, placement in list(self._routes.items()):
                if placement == lane.placement:
                    del self._routes[route]

    def has_queued(self) -> bool:
        """Tell if anything waits to be launched, or to be told, now or later."""
        return bool(self._delayed or self._held) or any(lane.heap for lane in self.lanes.values())

    def next_delayed(self) -> float | None:
        """When :meth:`advance` is due; None if nothing waits for a time."""
        times = [until for until, _ in itertools.islice(self._held.values(), 1)]
        times += [place[0] for place in self._delayed[:1]]
        return min(times, default=None)

    # --- look-ups --------------------------------------------------------------------------------------------

    def due_look_ups(self, now: float) -> list[Record]:
        """Take out every record that has to be looked up now."""
        due = []
        while self._look_ups and self._look_ups[0][0] <= now:
            _, ticket, name = heapq.heappop(self._look_ups)
            record = self.records.get(name)
            if record is not None and record.ticket == ticket and record.phase is Phase.UNRESOLVED:
                due.append(record)
        return due

    def look_up_again(self, record: Record, at: float) -> None:
        """Put a record back whose look-up got no answer."""
        ticket = record.ticket = next(self._order)
        heapq.heappush(self._look_ups, (at, ticket, record.id))

    def next_look_up(self) -> float | None:
        """When the next look-up is due."""
        return self._look_ups[0][0] if self._look_ups else None

    def is_a_later_ones(self, record: Record, observation: Observation) -> bool:
        """
        Tell if a container that carries a launch's mark is that of a later launch of its key.

        A launch that nobody waits for any more sends nothing from then on, and must not stop another's container.
        Its age tells that, unless it was found by a mark that the launches of a workload do not share. One that
        is listed but not described has none.
        """
        if not record.muted:
            return False
        at, margin = observation.created_at, self.rules.created_margin
        own = record.sought is not None and record.sought.own
        return any(
            sibling.handle == observation.handle
            or observation.handle.id in sibling.past
            or (at is None and not own and sibling.phase is not Phase.WAITING)
            or (
                at is not None
                and at >= sibling.launch.queued_at + margin
                and not (own and sibling.launch.launch_id != record.launch.launch_id)
            )
            for sibling in self._by_key.get(record.launch.key, ())
            if sibling.arrival > record.arrival
        )

    # --- recovery --------------------------------------------------------------------------------------------

    def recover(self, now: float) -> None:
        """Make every record reachable again after the loop thread died at any statement."""
        self.stops.recover()
        owed = self.stops.records()
        self.active.clear()
        self.unsettled = dict(self.records)
        for record in list(self.records.values()):
            if record.phase is Phase.SENDING:
                self.dispatch(record, lifecycle.Interrupted(), now)
            elif record.phase in _SENDABLE:
                self._enqueue(record, now)
            elif record.phase is Phase.UNRESOLVED:
                self.look_up_again(record, max(now, record.retry_at))
            elif record.phase is Phase.ACTIVE:
                self._settle(record)
                if record.stop_reason is not None and record.handle is not None and record not in owed:
                    self.stops.add(StopRequest(record, record.handle, record.stop_reason))
            else:
                if record.outcome is not None:
                    self._emit(record, record.outcome, now)  # perhaps again, which does no harm
                self._forget(record, now)


_SENDABLE = (Phase.WAITING, Phase.AMBIGUOUS)
