"""
The ledger: every launch that has not ended, what each waits for, and the outbox. Pure: ``now`` is passed in.

May import the decisions of ``core``. It belongs to the bridge and outlives the loop thread; only the loop thread
changes it. :meth:`Ledger.dispatch` is the one place where an event meets a launch.
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Hashable

from ecs_async_executor.core import beginnings
from ecs_async_executor.core.active import Active
from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation
from ecs_async_executor.core.destinations import destination_of
from ecs_async_executor.core.dictionaries import take_out
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.events import (
    Demanded,
    Effect,
    Emit,
    Enqueue,
    Event,
    Forget,
    Interrupted,
    Poll,
    Search,
    SendStop,
    Unblocked,
)
from ecs_async_executor.core.matching import RUNS, is_of_a_later_launch
from ecs_async_executor.core.messages import Adopt, AirflowState, Command, Finished, Launch, Release, Report, Stop
from ecs_async_executor.core.phases import (
    LOCATED,
    RELEASED,
    SUPERSEDED,
    UNLOCATED,
    Checking,
    Doubt,
    Ended,
    InDoubt,
    Phase,
    Released,
    Revoked,
    Running,
    Searching,
    SearchPlace,
    Sending,
    Starting,
    Tracked,
    Waiting,
)
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.core.queue import LaunchQueues, Timetable
from ecs_async_executor.core.settling import NEEDS
from ecs_async_executor.core.stops import StopRequest, Stops
from ecs_async_executor.core.table import step

HOLD_SECONDS = 300.0
"""How long a failure waits for another container of the same key to end."""


class Ledger:
    """
    Every launch that has not ended, by number, by identity, by key and by what it waits for.

    ``launches`` has them all: those with a container are in ``active`` too, the others in ``unsettled``.
    """

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.launches: dict[int, Tracked] = {}
        self.active = Active()
        self.unsettled: dict[int, Tracked] = {}
        self.outbox: deque[Report] = deque()
        self.queues = LaunchQueues()
        self.searches = Timetable(lambda tracked: isinstance(tracked.phase, UNLOCATED))
        self.stops = Stops()
        self._by_launch_id: dict[str, Tracked] = {}
        self._by_key: dict[Hashable, Tracked | tuple[Tracked, ...]] = {}
        self._held: dict[Hashable, tuple[float, Finished]] = {}
        self._numbers = itertools.count(1)

    def latest(self, launch_id: str) -> Tracked | None:
        """Return the latest launch under an identity; None if it has ended."""
        return self._by_launch_id.get(launch_id)

    def _of_key(self, key: Hashable) -> tuple[Tracked, ...]:
        """Return the launches of a key, in the order in which they came."""
        found = self._by_key.get(key, ())
        return (found,) if isinstance(found, Tracked) else found

    def _keep_of_key(self, key: Hashable, launches: tuple[Tracked, ...]) -> None:
        # Nearly every key has one launch: a tuple around it would take as much as its place in the dictionary.
        if launches:
            self._by_key[key] = launches[0] if len(launches) == 1 else launches
        else:
            self._by_key.pop(key, None)

    # --- commands --------------------------------------------------------------------------------------------

    def command(self, command: Command, now: float) -> None:
        """Take one command of the executor's in; a repeated one changes nothing."""
        match command:
            case Launch():
                self._begin(command, now)
            case Adopt(launch, state, handle_id):
                self._begin(launch, now, adopted=(state, handle_id))
            case Stop(launch_id, reason):
                self._demand(launch_id, Demanded(Revoked(reason, now)), now)
            case Release(launch_id):
                self._demand(launch_id, Demanded(RELEASED), now)

    def _demand(self, launch_id: str, event: Demanded, now: float) -> None:
        for key, (_, report) in list(self._held.items()):
            if report.launch_id == launch_id:
                del self._held[key]
        tracked = self.latest(launch_id)
        if tracked is not None:
            self.dispatch(tracked, event, now)

    def _begin(
        self, launch: Launch, now: float, *, adopted: tuple[AirflowState, str | None] | None = None
    ) -> None:
        known = self.latest(launch.launch_id)
        # What is adopted is what was queued; what is queued at another time is another launch.
        again = adopted is not None or (known is not None and launch.queued_at == known.launch.queued_at)
        if known is not None and known.wanted and again:
            return
        self._held.pop(launch.key, None)
        for sibling in self._of_key(launch.key):
            if not isinstance(sibling.demand, Revoked):
                self.dispatch(sibling, Demanded(SUPERSEDED), now)
        siblings = tuple(one for one in self._of_key(launch.key) if one.number in self.launches)
        not_before = self._not_before(siblings, now)
        phase: Phase
        if adopted is None:
            phase = beginnings.queued(not_before)
        else:
            state, handle_id = adopted
            tokened = launch.tokened and self.rules.repeatable
            phase = beginnings.adopted(state, handle_id, tokened=tokened, now=now, not_before=not_before)
        tracked = Tracked(launch, next(self._numbers), now, phase)
        if known is not None and not (adopted is not None and isinstance(known.demand, Released)):
            # Its client tokens are not this one's, unless it is the very launch, which another scheduler had
            # meanwhile.
            tracked.used = known.used + known.attempt
        # In this order: a thread that dies in between leaves a sibling, which the repeated command supersedes.
        self._keep_of_key(launch.key, (*siblings, tracked))
        self.launches[tracked.number] = self.unsettled[tracked.number] = tracked
        self._by_launch_id[launch.launch_id] = tracked
        self._carry_out(tracked, [*NEEDS[type(phase)]], now)

    def _not_before(self, siblings: tuple[Tracked, ...], now: float) -> float:
        """
        Return when a launch may begin: the revoked container of its key may still run user code.

        The wait begins with the revocation: a launch that is revoked while it waits, over and over, would wait for
        ever.
        """
        waits = [s.demand.since + self.rules.predecessor_wait for s in siblings if isinstance(s.demand, Revoked)]
        return max([now, *waits])

    # --- events ----------------------------------------------------------------------------------------------

    def dispatch(self, tracked: Tracked, event: Event, now: float) -> None:
        """Let an event happen to a launch, and do the bookkeeping that follows from it."""
        self._carry_out(tracked, step(tracked, event, now, self.rules), now)
        if not isinstance(tracked.phase, LOCATED) and self.active.discard(tracked.number):
            self.unsettled[tracked.number] = tracked

    def abandon(self, tracked: Tracked, reason: str, now: float, handle: Handle | None = None) -> None:
        """
        End a launch that an event could not be applied to: it has failed, which is told if it still matters.

        :param handle: the container that it was about to be given
        """
        launch, phase = tracked.launch, tracked.phase
        handle = tracked.handle or handle
        if handle is not None:
            self.stops.add(StopRequest(tracked, handle, reason))
        if tracked.number not in self.launches:
            return
        if not isinstance(phase, Ended):
            report = Finished(launch.launch_id, launch.key, success=False, reason=reason, ending=Ending.LOST)
            phase = tracked.phase = Ended(report if tracked.wanted else None)
        self._finish(tracked, phase, now)

    def _finish(self, tracked: Tracked, phase: Ended, now: float) -> None:
        """Do what an ended launch still owes, perhaps again, which does no harm; then forget it."""
        if phase.unstopped is not None and not self.stops.owes(tracked):
            self.stops.add(StopRequest(tracked, *phase.unstopped))
        if phase.report is not None:
            self._emit(tracked, phase.report, now)
        self._forget(tracked, now)

    def _carry_out(self, tracked: Tracked, effects: list[Effect], now: float) -> None:
        for effect in effects:
            match effect:
                case Enqueue():
                    self.queues.add(tracked, now)
                case Search():
                    self.search_from(tracked)
                case Poll():
                    self._settle(tracked)
                case SendStop(handle, reason):
                    self.stops.add(StopRequest(tracked, handle, reason))
                case Emit(report):
                    self._emit(tracked, report, now)
                case Forget():
                    self._forget(tracked, now)

    def search_from(self, tracked: Tracked, at: float = 0.0) -> None:
        """Have a launch searched for from its phase's ``not_before`` on, or from ``at`` if that is later."""
        phase = tracked.phase
        assert isinstance(phase, Checking | Searching)
        self.searches.add(tracked, max(at, phase.not_before))

    def _settle(self, tracked: Tracked) -> None:
        if tracked.handle is not None:  # else an effect behind this one says how the launch goes on
            self.active.add(tracked, tracked.handle)
            take_out(self.unsettled, tracked.number)
        self.queues.forget(tracked)
        self.searches.forget(tracked)

    def unstarted(self) -> set[str]:
        """Return the ids of the launches that can still need a container. Other threads may call it."""
        return {t.launch.launch_id for t in list(self.launches.values()) if t.wanted and not has_run(t.phase)}

    def destination_of(self, tracked: Tracked) -> str | None:
        """Return where a launch without a container is waited for, None if that is not known yet."""
        match tracked.phase:
            case Sending(spec) | InDoubt(doubt=Doubt(spec=LaunchSpec() as spec)):
                return destination_of(spec.scope)
            case Searching(place=SearchPlace(scope)):
                return destination_of(scope)
        bucket = self.queues.ways_of(tracked)[0].bucket
        return None if bucket is None else destination_of(bucket)

    # --- outcomes --------------------------------------------------------------------------------------------

    def _emit(self, tracked: Tracked, report: Report, now: float) -> None:
        if isinstance(report, Finished) and not report.success and self._sibling_lives(tracked):
            # The key's other container may be the one that does the work: its end decides when this is told.
            self._held[tracked.launch.key] = (now + HOLD_SECONDS, report)
            return
        self.outbox.append(report)

    def _sibling_lives(self, tracked: Tracked) -> bool:
        return any(
            sibling is not tracked and _is_known_to_live(sibling.phase)
            for sibling in self._of_key(tracked.launch.key)
        )

    def _forget(self, tracked: Tracked, now: float) -> None:
        key, number, launch_id = tracked.launch.key, tracked.number, tracked.launch.launch_id
        self.queues.forget(tracked)
        self.searches.forget(tracked)
        siblings = tuple(sibling for sibling in self._of_key(key) if sibling is not tracked)
        if self._by_launch_id.get(launch_id) is tracked:
            del self._by_launch_id[launch_id]
            for sibling in siblings:  # an earlier queueing under the same identity, whose client tokens are used
                if sibling.launch.launch_id == launch_id:
                    self._by_launch_id[launch_id] = sibling
        self._keep_of_key(key, siblings)
        # Last: until then, recover() finds it and does the rest.
        self.active.discard(number)
        for launches in (self.unsettled, self.launches):
            take_out(launches, number)
        if not any(isinstance(sibling.demand, Revoked) for sibling in siblings):
            for sibling in siblings:
                self.dispatch(sibling, Unblocked(), now)
        held = self._held.get(key)
        if held is not None and not any(isinstance(sibling.phase, LOCATED) for sibling in siblings):
            self.outbox.append(held[1])
            del self._held[key]

    # --- what waits for a time -------------------------------------------------------------------------------

    def advance(self, now: float) -> None:
        """Queue launches whose delay is over, and report failures that were held back for long enough."""
        self.queues.advance(now)
        for key, (until, report) in list(self._held.items()):
            if until > now:
                break  # in the order of their deadlines
            self.outbox.append(report)
            del self._held[key]

    def has_queued(self) -> bool:
        """Return whether anything waits to be launched, or to be told, now or later."""
        return bool(self._held) or bool(self.queues)

    def next_delayed(self) -> float | None:
        """Return when :meth:`advance` is due; None if nothing waits for a time."""
        times = [until for until, _ in itertools.islice(self._held.values(), 1)]
        at = self.queues.next_at()
        return min(times if at is None else [*times, at], default=None)

    # --- siblings --------------------------------------------------------------------------------------------

    def is_of_a_later_launch(self, tracked: Tracked, observation: Observation) -> bool:
        """Return whether a container that carries a launch's mark is that of a later launch of its key."""
        siblings = self._of_key(tracked.launch.key)
        later = [sibling for sibling in siblings if sibling.number > tracked.number]
        return is_of_a_later_launch(tracked, observation, later, self.rules)

    # --- recovery --------------------------------------------------------------------------------------------

    def recover(self, now: float) -> None:
        """Make every launch reachable again after the loop thread died at any statement."""
        self.stops.recover()
        self.active.clear()
        self.unsettled = dict(self.launches)
        # In the order in which the containers were learnt, which `active` keeps.
        for tracked in sorted(self.launches.values(), key=lambda one: getattr(one.phase, "since", 0.0)):
            match tracked.phase:
                case Sending():
                    self.dispatch(tracked, Interrupted(), now)
                case Waiting() | InDoubt():
                    self.queues.add(tracked, now)
                case Checking() | Searching():
                    self.search_from(tracked, now)
                case Starting(handle) | Running(handle):
                    self._settle(tracked)
                    if isinstance(tracked.demand, Revoked) and not self.stops.owes(tracked):
                        self.stops.add(StopRequest(tracked, handle, tracked.demand.reason))
                case Ended() as ended:
                    self._finish(tracked, ended, now)


def has_run(phase: Phase) -> bool:
    """Return whether user code has run in a launch's container, as far as anybody knows."""
    return isinstance(phase, Running) or (isinstance(phase, Checking | Searching) and phase.adopted in RUNS)


def _is_known_to_live(phase: Phase) -> bool:
    return (isinstance(phase, Running) and phase.confirmed) or (isinstance(phase, Starting) and phase.seen)
