"""
What the lanes and the bridge read of a record, and the few things that they note in it themselves.

May import ``core``. No other module of the engine knows a field of a record: a lane asks here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ecs_async_executor.core import lifecycle
from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation
from ecs_async_executor.core.errors import Kind
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.lifecycle import Phase, Record, Sought
from ecs_async_executor.core.messages import Launch, Notice
from ecs_async_executor.core.placements import Closed
from ecs_async_executor.core.policy import Rules

_WAITS_FOR = {
    Kind.REFUSED: "refuses it",
    Kind.CAPACITY: "has no capacity for it",
    Kind.AMBIGUOUS: "gives no answer",
}


# --- any phase ----------------------------------------------------------------------------------------------


def launch_of(record: Record) -> Launch:
    """Return the launch of a record."""
    return record.launch


def handle_of(record: Record) -> Handle | None:
    """Return the container that a launch has, or None."""
    return record.handle


def is_revoked(record: Record) -> bool:
    """Return whether Airflow revoked the launch: its container has to be stopped."""
    return record.stop_reason is not None


def has_lost_its_container(record: Record) -> bool:
    """Return whether a launch has ended without a container: after a reply, only a bug does that."""
    return record.phase is Phase.DONE and record.handle is None


def can_need_a_container(record: Record) -> bool:
    """Return whether a launch can still need a container, its first or another."""
    return not (record.seen_running or record.muted)


# --- launching ----------------------------------------------------------------------------------------------


def request_of(record: Record) -> LaunchSpec | None:
    """Return the request that was rendered and has no definite answer yet, or None."""
    return record.spec


def client_token_of(record: Record) -> str:
    """Return the client token of the present attempt."""
    return record.token


def placement_of(record: Record) -> str | None:
    """Return the placement of a launch; None before its first rendering."""
    return record.placement


def is_sending(record: Record) -> bool:
    """Return whether a request of the launch is in flight."""
    return record.phase is Phase.SENDING


def is_in_doubt(record: Record) -> bool:
    """Return whether a request of the launch may have been carried out, and the same one will be sent again."""
    return record.phase is Phase.AMBIGUOUS


def ticket_of(record: Record) -> int:
    """Return the number of the record's present place in a queue; another number later means another place."""
    return record.ticket


def is_still_to_be_sent(record: Record, ticket: int) -> bool:
    """Return whether nothing has happened to a launch since it left the launch queue with ``ticket``."""
    return record.ticket == ticket and record.phase in (Phase.WAITING, Phase.AMBIGUOUS)


def note_refused_probe(record: Record) -> None:
    """Note that a closed gate refused this launch; the reason may be its own, so the next probe is another's."""
    record.probed += 1


def waited_at(closed: Closed, record: Record) -> float:
    """
    Return for how many seconds a launch has waited at a closed gate, and note them in the record.

    Only answers count: the reason of the latest refusal can have been removed since.
    """
    begun = max(closed.since, record.waiting_since)
    if closed.kind is Kind.REFUSED:
        if (record.barred.last_at or 0.0) < begun:
            record.barred = NOT_YET  # the gate was open in between, or closed for another reason
        record.barred = _at_closed_gate(record.barred, begun, closed)
        return record.barred.counted
    # Occasional capacity goes to other launches, so count the wait per launch, not per gate.
    record.short = _at_closed_gate(record.short, begun, closed)
    return record.short.counted


def _at_closed_gate(grace: Grace, begun: float, closed: Closed) -> Grace:
    counts_from = begun if grace.last_at is None else max(begun, grace.last_at)
    return Grace(grace.counted, counts_from).answered(closed.refused_at, closed.pause)


def topic_of(kind: Kind, reason: str) -> str:
    """Return what a refusal of a launch is about, without what differs each time."""
    return lifecycle.topic("refused" if kind is Kind.REFUSED else "no capacity", reason)


def notice_of(record: Record, kind: Kind, reason: str, about: str, rules: Rules) -> Notice | None:
    """
    Return what Airflow's event log is told about a launch that waits, or None if it has been told before.

    :param about: see :func:`topic_of`
    """
    if not lifecycle.is_to_be_told(record, about):
        return None
    launch = record.launch
    text = f"The container waits: {rules.service} {_WAITS_FOR[kind]}: {reason}"
    return Notice(launch.launch_id, launch.key, "container waits", text, unlaunched=True)


# --- polling ------------------------------------------------------------------------------------------------


def is_followed(record: Record) -> bool:
    """Return whether the launch has a container, which is polled."""
    return record.phase is Phase.ACTIVE


def is_news(record: Record, observation: Observation) -> bool:
    """Return whether an observation is of the launch's container and can change anything."""
    return (
        record.phase is Phase.ACTIVE
        and record.handle == observation.handle
        and lifecycle.is_news(record, observation)
    )


# --- searching ----------------------------------------------------------------------------------------------


def is_searched_for(record: Record) -> bool:
    """Return whether it is not known yet whether the launch has a container."""
    return record.phase is Phase.UNRESOLVED


def named_container_of(record: Record) -> str | None:
    """Return the identifier of the container that may be the launch's, or None if only a mark leads to it."""
    return record.lookup


def search_place_of(record: Record) -> Sought | None:
    """Return where a request of our own may have started the container; None if another scheduler's did."""
    return record.sought


def earlier_containers_of(record: Record) -> tuple[str, ...]:
    """Return the identifiers of the launch's earlier containers, which are known to be over."""
    return record.past


def begins_to_miss_its_place(record: Record) -> bool:
    """Return whether nothing says for the first time where the launch's container would be."""
    if record.place_unknown:
        return False
    record.place_unknown = True
    return True


# --- for people ---------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Backlog:
    """
    The launches without a container, by what they wait for.

    :param since: when the oldest of those that are waiting or in doubt first wanted a container; now if none is
    """

    since: float
    waiting: int = 0
    in_doubt: int = 0
    sending: int = 0
    searched_for: int = 0


def backlog_of(unsettled: Iterable[Record], now: float) -> Backlog:
    """Count the launches without a container."""
    backlog = Backlog(since=now)
    for record in unsettled:
        phase = record.phase
        if phase is Phase.SENDING:
            backlog.sending += 1
        elif phase is Phase.UNRESOLVED:
            backlog.searched_for += 1
        else:
            if phase is Phase.WAITING:
                backlog.waiting += 1
            else:
                backlog.in_doubt += 1
            backlog.since = min(backlog.since, record.waiting_since)
    return backlog


def shown(record: Record, now: float) -> dict[str, object]:
    """Return what the engine knows of a launch, for people: no command, no secret."""
    return {
        "launch_id": record.launch.launch_id,
        "workload": str(record.launch),
        "phase": record.phase.value,
        "attempt": record.attempt,
        "errors": record.errors,
        "handle_id": record.handle.id if record.handle else None,
        "waits_for": round(record.retry_at - now, 1) if record.retry_at > now else 0.0,
        "stop_reason": record.stop_reason,
    }
