"""
Events as hints: what a message means, when it is of no use, and how far sweeps may stretch meanwhile. Pure.

May import ``backend`` only. An event says which container to describe next, and nothing else: no launch
changes because of one. So a forged, late, doubled or lost event does no harm but to the time at which an end is
seen. Every ``now`` is in seconds of one monotonic clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from typing import Final, Protocol

import msgspec

from ecs_async_executor.core.backend import Seen

STRETCHED_SECONDS: Final = 60.0
"""The longest time from one sweep to the next while events arrive."""
LATE_SECONDS: Final = 30.0
"""An end that a sweep has seen is missed if its event does not come within so many seconds."""
SILENT_ENDS: Final = 8
SILENT_SECONDS: Final = 5.0
"""So many ends, and no event for so long since the first of them: the queue is silent."""
QUIET_SECONDS: Final = 5.0
QUIET_GAPS: Final = 2.0
"""No event for so many times the longest of the latest gaps between events: a sweep looks why."""
GAPS_KEPT: Final = 100
ENDS_KEPT: Final = 500
"""The share of missed ends is that of the latest so many."""
MISSED_SHARE: Final = 0.01
"""From this share of missed ends on, sweeps do not stretch."""
ENDS_PER_DOUBLING: Final = 8
"""After so many ends with an event, the time between two sweeps doubles."""
REMEMBERED_SECONDS: Final = 300.0
"""A container that has ended is known for so long, so that its late events are told from those of strangers."""
REMEMBERED: Final = 20_000
EARLY_SECONDS: Final = 5.0
"""An event about an unknown container is kept for so long: the answer to its launch can still be under way."""
EARLY_KEPT: Final = 1000
OLD_SECONDS: Final = 30.0
"""An event as old as that is of no use: by then, the scheduler that it concerns has it, or never will."""
MOST_RECEIVES: Final = 16
FREE_RECEIVES: Final = 6
"""With three schedulers and a random receiver each time, one event in 300 does not reach the right one."""
UNREADABLE_SECONDS: Final = 600.0
"""A message that is no event is left for so long. It is not ours to delete; the queue's retention ends it."""

# --- messages ---------------------------------------------------------------------------------------------------


class Hint(msgspec.Struct, frozen=True, gc=False):
    """
    What an event says.

    :param handle_id: the container to describe
    :param seen: its state then; None: unknown
    """

    handle_id: str
    seen: Seen | None = None

    @property
    def is_useless(self) -> bool:
        """Whether no scheduler can learn anything from it: nothing has run yet."""
        return self.seen is Seen.PENDING

    @property
    def runs(self) -> bool:
        """Whether it is no more than that the container runs."""
        return self.seen is Seen.RUNNING

    @property
    def is_final(self) -> bool:
        """Whether the container is at its end by now."""
        return self.seen is Seen.STOPPED


class Message(msgspec.Struct, frozen=True, gc=False):
    """
    A message of a queue, without its body, which can be anything.

    :param receipt: by which it is deleted or left
    :param hint: what it says; None: it is no event
    :param whole: it is a whole event, with the container's command in it
    :param receives: how often it was received, this time included
    :param age: seconds since it was sent
    """

    receipt: str
    hint: Hint | None
    whole: bool = False
    receives: int = 1
    age: float = 0.0


class EventQueue(Protocol):
    """A queue of events; each method raises :class:`~ecs_async_executor.core.errors.BackendError` if it fails."""

    def open(self) -> AbstractAsyncContextManager[None]:
        """Hold the client open, on the running loop."""
        ...

    async def receive(self) -> Sequence[Message]:
        """Wait for messages, some seconds at most; return them, or none."""
        ...

    async def delete(self, receipts: Sequence[str]) -> None:
        """Delete messages."""
        ...

    async def leave(self, receipts: Mapping[str, float]) -> None:
        """Leave messages for others, each after so many seconds."""
        ...


def left_for_others(message: Message) -> float | None:
    """
    Return after how many seconds a message about a stranger's container may be received again.

    None: it is of no use any more; delete it. Several schedulers share a queue, and the next receiver may be the
    right one. At first it is left at once, then for longer and longer, so that an event that concerns nobody
    costs a handful of requests.
    """
    if message.age >= OLD_SECONDS or message.receives >= MOST_RECEIVES:
        return None
    further = message.receives - FREE_RECEIVES
    return 0.0 if further <= 0 else 2.0 ** ((further - 1) // 2)


# --- how well events come ---------------------------------------------------------------------------------------


class Hearing:
    """
    How well the events of one destination come, and what follows from that for its sweeps.

    :ivar trouble: why no events can be received, or None
    :ivar missed: ends that came without an event, in all
    :ivar unknown: containers that the service did not know of late, to be asked about again soon
    """

    def __init__(self, now: float) -> None:
        self.unknown: set[str] = set()
        self.trouble: str | None = None
        self.missed = 0
        self._on_since = now
        self._latest: deque[bool] = deque(maxlen=ENDS_KEPT)
        self._missed_lately = 0
        self._heard_since = 0  # the latest reason to distrust
        self._told: dict[str, float] = {}
        self._unheard: dict[str, float] = {}
        self._over: dict[str, float] = {}
        self._silent = 0
        self._silent_since = now
        self._gaps: deque[float] = deque(maxlen=GAPS_KEPT)
        self._came_at: float | None = None  # None: a sweep has looked why none comes
        self._doubts_since: float | None = None

    # --- what happens

    def answered(self, now: float) -> None:
        """Note that the queue has answered."""
        if self.trouble is not None:
            self.trouble, self._on_since = None, now

    def failed(self, reason: str) -> None:
        """Note that the queue cannot be read; no end counts as missed meanwhile."""
        self.trouble = reason
        self._unheard.clear()
        self._silent = 0

    def came(self, now: float) -> None:
        """Note an event, whosever it is."""
        if self._came_at is not None and now - self._came_at < STRETCHED_SECONDS:
            self._gaps.append(now - self._came_at)  # in a longer pause, there is little to tell
        self._came_at, self._doubts_since = now, None

    def swept(self, began: float) -> None:
        """Note that a whole sweep is over; after one without an end that has no event, no event was due."""
        if self._doubts_since is not None and began >= self._doubts_since and not self._unheard:
            self._came_at = self._doubts_since = None

    def heard(self, hint: Hint, now: float) -> None:
        """Note an event about a container that is ours, or was."""
        self._silent = 0
        if hint.runs:
            return  # it says nothing about the event of the end
        if self._unheard.pop(hint.handle_id, None) is not None:
            self._count(heard=True)
        elif hint.handle_id not in self._over:
            _remember(self._told, hint.handle_id, now)

    def not_known(self, handle_id: str) -> None:
        """Note that the service did not know a container. An answer a minute must not decide about it."""
        if self.is_stretched:
            self.unknown.add(handle_id)

    def was_ours(self, handle_id: str) -> bool:
        """Return whether a container is one of ours that has ended not long ago."""
        return handle_id in self._over

    def ended(self, handle_id: str, now: float) -> None:
        """Note that an end was seen, whether for an event or by a sweep."""
        _remember(self._over, handle_id, now)
        if self._told.pop(handle_id, None) is not None:
            self._count(heard=True)
        elif self.trouble is None and now >= self._on_since + LATE_SECONDS:
            # Before that, the event can have gone to the scheduler before this one.
            self._unheard[handle_id] = now + LATE_SECONDS
            if not self._silent:
                self._silent_since = now
            self._silent += 1

    def advance(self, now: float) -> None:
        """Count the ends whose event has not come in time, notice that no event comes, and forget what is old."""
        if self._doubts_since is None and self._came_at is not None:
            quiet = max(QUIET_SECONDS, QUIET_GAPS * max(self._gaps, default=0.0))
            if now >= self._came_at + quiet:
                self._doubts_since = now
        if self._silent >= SILENT_ENDS and now >= self._silent_since + SILENT_SECONDS:
            self._heard_since = 0
        for handle_id, until in list(self._unheard.items()):
            if until > now:
                break  # in the order of their times
            del self._unheard[handle_id]
            self._count(heard=False)
        for memory in (self._told, self._over):
            while memory and next(iter(memory.values())) <= now - REMEMBERED_SECONDS:
                del memory[next(iter(memory))]

    def _count(self, *, heard: bool) -> None:
        if len(self._latest) == ENDS_KEPT and not self._latest[0]:
            self._missed_lately -= 1
        self._latest.append(heard)
        if heard:
            self._heard_since += 1
            return
        self.missed += 1
        self._missed_lately += 1
        if not self.is_trusted:
            # From here on a hundred ends with their events have to come; how bad it was before does not matter.
            self._latest.clear()
            self._latest.append(False)
            self._missed_lately, self._heard_since = 1, 0

    # --- what follows

    @property
    def is_trusted(self) -> bool:
        """Whether the queue answers and so few ends are missed that sweeps may stretch."""
        few = self._missed_lately == 0 or self._missed_lately < MISSED_SHARE * len(self._latest)
        return few and self.trouble is None

    @property
    def is_stretched(self) -> bool:
        """Whether sweeps are stretched at present."""
        return self.is_trusted and self._doubts_since is None and self._heard_since >= ENDS_PER_DOUBLING

    def interval(self, shortest: float, longest: float = STRETCHED_SECONDS) -> float:
        """
        Return the seconds from one sweep to the next.

        :param shortest: what they would be without events
        :param longest: what they are at most, unless ``shortest`` is longer
        """
        if not self.is_stretched:
            return shortest
        doublings = min(self._heard_since // ENDS_PER_DOUBLING, 16)
        return max(shortest, min(longest, shortest * 2.0**doublings))


def _remember(memory: dict[str, float], handle_id: str, now: float) -> None:
    memory.pop(handle_id, None)
    memory[handle_id] = now
    if len(memory) > REMEMBERED:
        del memory[next(iter(memory))]


class Early:
    """Events about containers that nobody here knows yet."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[float, Hint]] = {}

    def __len__(self) -> int:
        return len(self._since)

    def add(self, hint: Hint, now: float) -> None:
        """Keep an event for :data:`EARLY_SECONDS`."""
        self._since.setdefault(hint.handle_id, (now, hint))
        if len(self._since) > EARLY_KEPT:
            del self._since[next(iter(self._since))]

    def take(self, is_known: Mapping[str, object], now: float) -> list[Hint]:
        """Return the events whose containers are known by now, and forget those that are old."""
        found = [hint for handle_id, (_, hint) in self._since.items() if handle_id in is_known]
        for hint in found:
            del self._since[hint.handle_id]
        while self._since and next(iter(self._since.values()))[0] <= now - EARLY_SECONDS:
            del self._since[next(iter(self._since))]
        return found
