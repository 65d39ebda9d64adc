"""
What the engine keeps of each destination: a session, rates, a read budget, and the calls in flight.

May import ``accounts``, ``core``, ``describing``, ``meters``, ``options``, ``session`` and anyio. Destinations
share nothing but the loop, so that one whose calls hang, or are refused, holds up no other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import anyio

from ecs_async_executor.core.account import AccountQuota
from ecs_async_executor.core.backend import Backend
from ecs_async_executor.core.choosing import Outage
from ecs_async_executor.core.destinations import HOME, destination_of, within
from ecs_async_executor.core.errors import BackendError
from ecs_async_executor.core.limiter import Limiter
from ecs_async_executor.core.listening import Hearing
from ecs_async_executor.engine.accounts import Accounts
from ecs_async_executor.engine.clock import loop_time
from ecs_async_executor.engine.describing import Describing
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.options import Options
from ecs_async_executor.engine.session import Session

CONCURRENT_SEARCHES = 256
"""Searches mostly wait for a listing that they share; the read budget limits how fast they may begin."""


class Destination:
    """
    One destination.

    :ivar buckets: those that launches have drawn from
    :ivar launching: launch requests in flight
    :ivar stopping: stop requests in flight
    :ivar searches: places for searches in flight
    :ivar hearing: how well its events come; None if it has no queue of them
    :ivar sweep_interval: seconds from one sweep over its containers to the next, at present
    """

    def __init__(
        self,
        name: str,
        session: Session,
        options: Options,
        event: Callable[[str], str],
        wall: Callable[[], float],
        accounts: Accounts,
    ) -> None:
        now = loop_time()
        self.name = name
        self.session = session
        self._options = options
        self._accounts = accounts
        self.limiter = Limiter(
            launch_rate=lambda bucket: self._launch_rate(within(bucket)),
            launch_burst=options.launch_burst,
            launch_rate_max=options.launch_rate_max,
            read_rate=options.describe_rate,
            read_burst=options.describe_burst,
            modify_rate=options.change_rate,
            modify_burst=options.change_burst,
            shares_modify=options.shares_changes,
            gently=options.gently,
            now=now,
            wall_offset=wall() - now,
        )
        self.describing = Describing(
            session=session, limiter=self.limiter, calls=options.max_concurrent_describes, event=event
        )
        self.searches = anyio.CapacityLimiter(CONCURRENT_SEARCHES)
        self.buckets: set[str] = set()
        self.launching = 0
        self.stopping = 0
        self.hearing: Hearing | None = None
        self.sweep_interval = options.poll_interval
        self._most_launches = options.max_concurrent_launches

    def begins_at(self, operation: str, bucket: str) -> float:
        """
        Return the calls per second that a bucket began with.

        :param operation: launch, stop or read
        :param bucket: of launches, without the destination
        """
        options = self._options
        if operation == "launch":
            return min(self._launch_rate(bucket), options.launch_rate_max)
        return options.change_rate if operation == "stop" else options.describe_rate

    def _launch_rate(self, bucket: str) -> float:
        """Return the rate to start with: no more than the account allows, unless the settings name one."""
        rate = self._options.launch_rate(bucket)
        most = self._accounts.most(self.name, bucket) if self._options.gently else None
        return rate if most is None else min(rate, most)

    @property
    def quotas(self) -> tuple[AccountQuota, ...]:
        """What is known of the account."""
        return self._accounts.quotas_of(self.name)

    def explained(self, error: BackendError) -> BackendError:
        """Return an error with the quota of the account that it is about, where that is known."""
        return self._accounts.explained(self.name, error)

    def may_launch_at(self, now: float) -> float:
        """
        Return when credentials and the requests in flight allow another launch; ``now`` if they do.

        Infinite: when an answer comes, which wakes the lane.
        """
        if not self.session.may_call(now):
            return self.session.next_probe_at or math.inf
        return now if self.launching < self._most_launches else math.inf

    def outage(self, now: float) -> Outage | None:
        """
        Return why a launch that can go elsewhere does so, or None.

        One request at a time is sent all the same, to find out whether it still is so.
        """
        asked = self.launching or not self.session.may_call(now)
        return self.session.outage(now) if asked else None

    def down(self, now: float, *, asks: bool) -> str | None:
        """
        Return why no launch gets through, or None.

        :param asks: launches without a container are waiting, so that the latest answer, or silence, still counts
        """
        if self.session.paused is not None:
            return self.session.paused
        if asks and self.session.is_unanswered(now):
            return self.session.unanswered
        return None

    @property
    def launch_rate(self) -> float:
        """The launches per second that its rates allow at present."""
        return sum(self.limiter.launch_rate(bucket) for bucket in self.buckets or ("",))


class Destinations:
    """
    Every destination in use, made when the first scope or bucket of it comes up. Iteration begins at home.

    :param wall: the wall clock
    :param resumed: called when the credentials of a destination work again
    :param accounts: what is known of their accounts
    """

    def __init__(
        self,
        backend: Backend,
        options: Options,
        meters: Meters,
        *,
        event: Callable[[str], str],
        wall: Callable[[], float],
        resumed: Callable[[], None],
        accounts: Accounts,
    ) -> None:
        self._backend = backend
        self._accounts = accounts
        self._options = options
        self._meters = meters
        self._event = event
        self._wall = wall
        self._resumed = resumed
        self._known: dict[str, Destination] = {}
        self.home = self[HOME]

    def __getitem__(self, name: str) -> Destination:
        known = self._known.get(name)
        if known is None:
            session = Session(
                self._backend, self._meters, event=self._event, resumed=self._resumed, destination=name
            )
            known = self._known[name] = Destination(
                name, session, self._options, self._event, self._wall, self._accounts
            )
        return known

    def __iter__(self) -> Iterator[Destination]:
        return iter(list(self._known.values()))

    def __len__(self) -> int:
        return len(self._known)

    def of(self, scope: str) -> Destination:
        """Return the destination of a scope or of a bucket."""
        return self[destination_of(scope)]

    @property
    def is_home_alone(self) -> bool:
        """Whether launches can go nowhere but home, so that nothing has to be found out about where they go."""
        return not self._options.destinations and len(self._known) == 1

    def launch_rate(self) -> float:
        """Return the launches per second that the rates of all destinations allow that are not down."""
        used = [destination for destination in self if destination.buckets] or [self.home]
        return sum(one.launch_rate for one in used if self.is_home_alone or one.session.paused is None)

    @property
    def unused(self) -> tuple[str, ...]:
        """The configured destinations that no launch has gone to yet."""
        return tuple(name for name in self._options.destinations if name not in self._known)

    @property
    def default_scope(self) -> str:
        """The scope of launches that name none."""
        return self._backend.scope_of(None)

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        """See :meth:`~ecs_async_executor.core.backend.Backend.scopes_of`."""
        return self._backend.scopes_of(handle_id)
