"""
Does a task instance wait for this container? Values in, a verdict out.

May import ``core``, ``tries`` and ``services.console``. The mark of a container does not say which deployment of
Airflow has made it. So a container whose mark and identifier this database has never had proves nothing: it may be
another deployment's.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass

from ecs_async_executor.adapter.tries import Try
from ecs_async_executor.core.policy import CREATED_MARGIN
from ecs_async_executor.services.console import Marked

_ENDED = frozenset({"success", "failed"})
"""States of a callback for which nobody waits."""


class Verdict(enum.Enum):
    """What a container is to this deployment of Airflow."""

    WAITED_FOR = "waited for"
    YOUNG = "young"
    """Nobody waits for it, but not for long enough: Airflow and its containers do not end at the same moment."""
    ORPHAN = "orphan"
    UNKNOWN = "unknown"
    """Its database has never known it: it is another deployment's, or its rows were deleted."""


@dataclass(frozen=True, slots=True)
class Judged:
    """
    A container with its verdict.

    :param of: the latest try that it was made for; None if there is none
    :param since: since when nobody waits for it, in wall-clock seconds; None if that is not known
    """

    container: Marked
    verdict: Verdict
    of: Try | None = None
    since: float | None = None


def judge(
    container: Marked, related: Iterable[Try], callback: str | None, *, known: bool, now: float, older_than: float
) -> Judged:
    """
    Judge a container by the rows that name its mark or its identifier.

    The rows have to be read after the container was listed: what was queued in between is then among them.

    :param related: tries whose id is the container's mark, or whose ``external_executor_id`` names it
    :param callback: the state of the callback whose id is the container's mark
    :param known: there is such a callback
    :param now: wall-clock seconds
    :param older_than: seconds that nobody must have waited for it
    """
    tries = sorted(related, key=lambda one: (not one.earlier, one.number))
    latest = tries[-1] if tries else None
    if any(_waits(one, container) for one in tries) or (known and callback not in _ENDED):
        return Judged(container, Verdict.WAITED_FOR, latest)
    created_at = container.created_at
    if created_at is None or now - created_at < older_than:
        return Judged(container, Verdict.YOUNG, latest)
    if latest is None and not known:
        return Judged(container, Verdict.UNKNOWN)
    moments = [at.timestamp() for one in tries for at in (one.ended_at, one.changed_at) if at is not None]
    since = max(moments, default=None)
    if since is not None and now - since < older_than:
        return Judged(container, Verdict.YOUNG, latest, since)
    return Judged(container, Verdict.ORPHAN, latest, since)


def _waits(one: Try, container: Marked) -> bool:
    """Return whether a task instance waits for a container, or may do so."""
    if not one.holds:
        return False
    if one.external_id in {None, container.mark, container.handle.id}:
        return True
    # Airflow knows another container of it, which can be that of an earlier queueing: only one that is older than
    # the queueing is surely not the one that it waits for.
    if container.created_at is None or one.queued_at is None:
        return True
    return container.created_at >= one.queued_at.timestamp() - CREATED_MARGIN
