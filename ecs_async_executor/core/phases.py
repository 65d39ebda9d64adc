"""
A launch as types: what Airflow wants, where the launch is, how long we have been patient.

May import ``backend``, ``errors``, ``grace``, ``messages`` and ``policy``. A phase is frozen and has the fields
that mean something in it and no others, so that nothing stale survives a change of phase. :class:`Tracked` is
the only mutable thing, and only :func:`~ecs_async_executor.core.table.step` changes it. All times are seconds
of the loop's clock.

::

                 definite refusal
              ┌─────────────────────┐
              ▼                     │   no definite answer
    ───▶ Waiting ── Requested ──▶ Sending ───────────────▶ InDoubt ◀── adopted, none found
              ▲                     │  ▲ ▲                 │  │
              │                     │  │ └── Requested ────┘  │ too old to send again, or it cannot be
              │             Replied │  │                      ▼
              │                     │  │ the token is used  Searching ◀──▶ Checking ◀── adopted, named by Airflow
              │                     │  └─────────────────▶ Checking          │
              │                     ▼                         │  found       │
              ├── never started ─ Starting ◀──────────────────┴──────────────┤
              │                     │                                        │
              │                     ▼                                        │
              │                   Running ◀──────────────────────────────────┤
              │                     │                                        │
              └─────────────────────┼──────────── proven absent ─────────────┘
                                    ▼
                                  Ended
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TypeAlias

import msgspec

from ecs_async_executor.core.backend import Handle, LaunchSpec
from ecs_async_executor.core.grace import NOT_YET, Grace
from ecs_async_executor.core.messages import AirflowState, Launch, Report

# --- what Airflow wants ---------------------------------------------------------------------------------------


class Wanted(msgspec.Struct, frozen=True, gc=False):
    """Airflow waits for the outcome."""


class Revoked(msgspec.Struct, frozen=True, gc=False):
    """
    Airflow no longer wants the launch: its container has to be stopped, and nothing is reported.

    :param reason: goes to the service with the stop
    :param since: when Airflow said so
    """

    reason: str
    since: float


class Superseded(msgspec.Struct, frozen=True, gc=False):
    """Airflow queued the key again: what this launch ran has ended as far as Airflow is concerned."""


class Released(msgspec.Struct, frozen=True, gc=False):
    """Another scheduler has adopted the launch, with whatever container it has."""


Demand: TypeAlias = Wanted | Revoked | Superseded | Released
WANTED, SUPERSEDED, RELEASED = Wanted(), Superseded(), Released()


# --- how long we have been patient ----------------------------------------------------------------------------


class Patience(msgspec.Struct, frozen=True, gc=False):
    """
    What a launch without a container has met so far.

    :param errors: calls in a row that brought no container
    :param probes: how often the launch was the probe of a closed gate, and was refused
    :param refused: how long its own requests have been refused for what somebody may be mending
    :param barred: how long its closed gate has been refusing for that
    :param short: how long in all its closed gates had no capacity
    """

    errors: int = 0
    probes: int = 0
    refused: Grace = NOT_YET
    barred: Grace = NOT_YET
    short: Grace = NOT_YET


FRESH = Patience()


# --- where the launch is --------------------------------------------------------------------------------------


class Doubt(msgspec.Struct, frozen=True, gc=False):
    """
    Something that was sent under the current client token may have made a container.

    :param since: when it was first sent; of another scheduler's sends, when this one adopted the launch
    :param spec: the request of ours; None if only the scheduler before us can have sent one
    :param inherited: the scheduler before us may have sent one
    """

    since: float
    spec: LaunchSpec | None = None
    inherited: bool = False

    @property
    def ours(self) -> bool:
        """Whether a request of this scheduler's own is in doubt: the same request then settles it."""
        return self.spec is not None


class Why(enum.Enum):
    """Why one container is asked about by its identifier."""

    NAMED = "named by Airflow"
    TOKEN = "made by the client token"  # noqa: S105 - words
    """Only its age is in question: Airflow need not assign an identity anew with every queueing."""


@dataclass(frozen=True, slots=True)
class SearchPlace:
    """
    Where to look for what a request may have started.

    :param mark: what the container carries; None if that is the user's own, which is no identity
    :param own: the mark is that of this launch alone
    """

    scope: str
    mark: str | None
    own: bool = False

    @classmethod
    def of(cls, spec: LaunchSpec) -> SearchPlace:
        """Return where to look for what this request may have started."""
        if spec.own_mark is not None:
            return cls(spec.scope, spec.own_mark, own=True)
        return cls(spec.scope, spec.started_by)


class Waiting(msgspec.Struct, frozen=True, gc=False):
    """Wants a container; nothing was sent under the current client token."""

    not_before: float
    patience: Patience = FRESH


class InDoubt(msgspec.Struct, frozen=True, gc=False):
    """Wants a container and may have one: the request that is sent next finds out."""

    not_before: float
    doubt: Doubt
    patience: Patience = FRESH


Unlaunched: TypeAlias = Waiting | InDoubt
"""The launch has a place in a launch queue."""


class Sending(msgspec.Struct, frozen=True, gc=False):
    """
    A request is in flight. Recorded before the call.

    :param doubt: what was in doubt before this request
    """

    spec: LaunchSpec
    doubt: Doubt | None = None
    patience: Patience = FRESH


class Checking(msgspec.Struct, frozen=True, gc=False):
    """
    The service is asked about one container, which may be the launch's. Nothing may be sent.

    :param container: its identifier
    :param adopted: Airflow's state of the launch when this scheduler adopted it; None: its own launch
    :param missing: how long the service has not known it
    :param refused: how long the service has refused to answer
    """

    container: str
    why: Why
    adopted: AirflowState | None
    not_before: float
    missing: Grace = NOT_YET
    refused: Grace = NOT_YET
    patience: Patience = FRESH


class Searching(msgspec.Struct, frozen=True, gc=False):
    """
    The container is looked for by its mark. Nothing may be sent.

    :param place: where a request of ours may have started it; None: where one that is made anew says
    :param adopted: Airflow's state of the launch when this scheduler adopted it; None: its own launch
    :param sent: a request of ours may have been carried out
    :param fallback: the container that Airflow named and the service does not know
    :param onward: as what the launch goes on if no container is found; None:
        :func:`~ecs_async_executor.core.searches.is_launchable` decides
    :param absent: how long the answers have named no container
    :param missing: how long the service has not known the container that is listed
    :param refused: how long the service has refused to answer
    """

    place: SearchPlace | None
    adopted: AirflowState | None
    not_before: float
    sent: bool = False
    fallback: Handle | None = None
    onward: Unlaunched | None = None
    absent: Grace = NOT_YET
    missing: Grace = NOT_YET
    refused: Grace = NOT_YET
    patience: Patience = FRESH


class Starting(msgspec.Struct, frozen=True, gc=False):
    """
    Has a container, in which user code has not run as far as anybody knows.

    :param since: when this scheduler learnt the handle
    :param placement: what its request shares capacity with; None if that is not known
    :param seen: the service has told of it
    :param inherited: the scheduler before us may have launched it, and another after it
    :param unplaced: there has been no room for it so far
    :param missing: how long the service has not known it
    :param held: how long the service has said why it has to wait, the launch's earlier waits for capacity included
    """

    handle: Handle
    since: float
    placement: str | None = None
    seen: bool = False
    inherited: bool = False
    unplaced: bool = False
    missing: Grace = NOT_YET
    held: Grace = NOT_YET


class Running(msgspec.Struct, frozen=True, gc=False):
    """
    Has a container in which user code can have run: it is never launched again.

    :param since: when this scheduler learnt the handle
    :param confirmed: the service has told of it; until then it runs by Airflow's word
    :param missing: how long the service has not known it
    :param held: how long the service has said why it has to wait (a job that the service tries again)
    """

    handle: Handle
    since: float
    confirmed: bool = True
    missing: Grace = NOT_YET
    held: Grace = NOT_YET


class Ended(msgspec.Struct, frozen=True, gc=False):
    """
    Over.

    :param report: the outcome, kept until it is known to be told; None if nobody is told
    :param unstopped: the container that has to be stopped all the same, and why: kept until the stop is owed
    """

    report: Report | None = None
    unstopped: tuple[Handle, str] | None = None


Unlocated: TypeAlias = Checking | Searching
"""The launch's container is looked for."""
Located: TypeAlias = Starting | Running
"""The launch has a container, which is polled."""
Phase: TypeAlias = Unlaunched | Sending | Unlocated | Located | Ended

UNLAUNCHED, UNLOCATED, LOCATED = (Waiting, InDoubt), (Checking, Searching), (Starting, Running)


class Tracked(msgspec.Struct, eq=False, gc=False):
    """
    One launch, as the ledger keeps it. A key that is queued again gets a new one, and the old one falls silent.

    Nothing that it refers to refers back, so the garbage collector need not go through it.

    :param number: the ledger's name for it: a ``launch_id`` can come twice
    :param since: when it first wanted a container, for the age of the backlog
    :param attempt: which container this is for the launch, from 1
    :param used: client tokens before the present one that are used up without a container of this launch's: they
        are those of an earlier queueing, or the service has answered that there is no room
    :param past: identifiers of its containers that never started
    :param told: what Airflow's event log has been told that this attempt waits for
    :param choice: the placement that its latest request was made for, see :mod:`.choices`; None if it has none
    :param instead: why that was not its best one, until Airflow's event log is told
    :param continued: the mark is the identity that the client tokens are made of: Airflow's own knowledge of it
        was overwritten with the identifier of a container
    """

    launch: Launch
    number: int
    since: float
    phase: Phase
    demand: Demand = WANTED
    attempt: int = 1
    used: int = 0
    past: tuple[str, ...] = ()
    told: tuple[str, ...] = ()
    choice: str | None = None
    instead: str = ""
    continued: bool = False

    @property
    def wanted(self) -> bool:
        """Whether Airflow waits for the outcome: nothing is reported otherwise."""
        return isinstance(self.demand, Wanted)

    @property
    def handle(self) -> Handle | None:
        """The container, if the launch has one."""
        return self.phase.handle if isinstance(self.phase, LOCATED) else None

    def client_token(self, spec: LaunchSpec) -> str:
        """Return the client token of the current attempt."""
        launch = self.launch
        # A mark of the user's own is shared by others: it is nobody's identity.
        ours = self.continued and spec.started_by == launch.started_by
        return f"{launch.started_by if ours else launch.launch_id}-{self.attempt + self.used}"

    def __str__(self) -> str:
        """Name the launch for people."""
        return str(self.launch)
