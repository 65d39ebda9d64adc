"""Launches in any phase, and short names for what tables of them say."""

from __future__ import annotations

from typing import Any

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.events import Effect, Emit, Refused
from ecs_async_executor.core.messages import AirflowState, Launch, Notice
from ecs_async_executor.core.phases import (
    WANTED,
    Checking,
    Demand,
    Doubt,
    InDoubt,
    Phase,
    Revoked,
    Running,
    Searching,
    Sending,
    Starting,
    Tracked,
    Waiting,
    Why,
)
from tests.rules import rules

NOW = 1000.0
QUEUED_AT = 5000.0
RULES = rules()
LAUNCH = Launch("id", "key", None, priority=0, started_by="mark", queued_at=QUEUED_AT, label="a")
SPEC = LaunchSpec({}, "default", "main", "FARGATE", "mark")
HANDLE = Handle("default", "arn")
REVOKED = Revoked("revoked", NOW - 1.0)
QUEUED, RUNNING, RESTARTING = AirflowState.QUEUED, AirflowState.RUNNING, AirflowState.RESTARTING


def seen(what: Seen, **fields: Any) -> Observation:
    return Observation(HANDLE, what, **{"status": what.name, "created_at": QUEUED_AT + 1.0, **fields})


RUNS = seen(Seen.RUNNING, started=True)
PENDING = seen(Seen.PENDING)
MISSING = seen(Seen.MISSING, created_at=None)
OLD = seen(Seen.RUNNING, started=True, created_at=QUEUED_AT - 60.0)
FAILED = seen(Seen.RUNNING, exit_code=1, started=True, reason="The container exited 1")
LOST = seen(Seen.STOPPED, started=True)
NEVER_STARTED = seen(Seen.STOPPED, reason="CannotPullContainerError")


def waiting() -> Waiting:
    return Waiting(NOW)


def in_doubt(since: float = NOW - 1.0, *, inherited: bool = False) -> InDoubt:
    """A request of ours is in doubt."""
    return InDoubt(NOW, Doubt(since, SPEC, inherited))


def inherited(since: float = NOW - 1.0) -> InDoubt:
    """Only the scheduler before us can have sent one."""
    return InDoubt(NOW, Doubt(since, inherited=True))


def sending(doubt: Doubt | None = None) -> Sending:
    return Sending(SPEC, doubt)


def checking(adopted: AirflowState | None = QUEUED, **fields: Any) -> Checking:
    return Checking("arn", fields.pop("why", Why.NAMED), adopted, NOW, **fields)


def searching(adopted: AirflowState | None = None, **fields: Any) -> Searching:
    return Searching(None, adopted, NOW, **fields)


def starting(**fields: Any) -> Starting:
    return Starting(HANDLE, **{"since": NOW - 1.0, **fields})


def running(**fields: Any) -> Running:
    return Running(HANDLE, **{"since": NOW - 1.0, **fields})


def tracked(phase: Phase, demand: Demand = WANTED, **fields: Any) -> Tracked:
    launch = fields.pop("launch", LAUNCH)
    return Tracked(launch, 1, NOW - 1.0, phase, demand, **fields)


def refusal(kind: Kind, *resource_ids: str, token_used: bool = False, **fields: Any) -> Refused:
    return Refused(BackendError(kind, "Code", "words", resource_ids, token_used=token_used), **fields)


def kinds(effects: list[Effect]) -> list[type]:
    """Return the types of effects, and of the reports among them; notices are a subject of their own."""
    named = [type(effect.report) if isinstance(effect, Emit) else type(effect) for effect in effects]
    return [kind for kind in named if kind is not Notice]


def notices(effects: list[Effect]) -> list[str]:
    """Return what Airflow's event log is told."""
    return [e.report.text for e in effects if isinstance(e, Emit) and isinstance(e.report, Notice)]
