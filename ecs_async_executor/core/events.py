"""
What can happen to a launch, and what has to be done about it.

May import ``backend``, ``errors``, ``messages`` and ``phases``. Both are values: the engine's lanes make
events, and the ledger carries effects out, in the order in which they are returned.
"""

from __future__ import annotations

import enum
from typing import TypeAlias

import msgspec

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Report
from ecs_async_executor.core.phases import Demand

# --- events ---------------------------------------------------------------------------------------------------


class Requested(msgspec.Struct, frozen=True, gc=False):
    """
    The request is about to be sent.

    :param instead: why it is not made for the best placement of the launch, as a sentence for people
    """

    spec: LaunchSpec
    instead: str = ""


class Unrenderable(msgspec.Struct, frozen=True, gc=False):
    """The workload cannot be turned into a request."""

    reason: str


class Replied(msgspec.Struct, frozen=True, gc=False):
    """The service named the container."""

    observation: Observation


class Refused(msgspec.Struct, frozen=True, gc=False):
    """
    The request brought no container.

    :param jitter: 0 to 1
    :param pause: seconds for which requests like it were held back before it
    :param probe: it was the probe of a closed gate
    :param elsewhere: the launch goes to another placement at once: nobody need read of this one
    :param named_in: the scope of the container that the error names, as far as its identifier tells; a scheduler
        that had the launch meanwhile can have sent it to another place than this request
    :param unanswered: no launch has had a definite answer for so long that Airflow's event log should say so
    """

    error: BackendError
    jitter: float = 0.5
    pause: float = 0.0
    probe: bool = False
    elsewhere: bool = False
    named_in: str | None = None
    unanswered: bool = False


class Interrupted(msgspec.Struct, frozen=True, gc=False):
    """The loop thread died: what was in flight has no answer any more."""


class Barred(msgspec.Struct, frozen=True, gc=False):
    """
    The launch waits at a closed gate.

    :param kind: why the gate is closed: ``CAPACITY`` or ``REFUSED``
    :param reason: the service's words
    :param since: when the gate closed for that
    :param refused_at: when a probe was last refused
    :param pause: seconds for which the gate held that probe back
    :param placement: whose gate it is
    :param elsewhere: the launch goes to another placement soon: the time at this one does not count
    """

    kind: Kind
    reason: str
    since: float
    refused_at: float
    pause: float
    placement: str | None = None
    elsewhere: bool = False


class Because(enum.Enum):
    """Why a request that may have been carried out is not sent again."""

    TOO_OLD = "the service may have forgotten the client token"
    ELSEWHERE = "the request made anew is for another place, where the client token means nothing"
    DRAINING = "nothing is sent any more"


class LookInstead(msgspec.Struct, frozen=True, gc=False):
    """The request must not be sent again: only a search can tell what became of it."""

    why: Because


class Doubted(msgspec.Struct, frozen=True, gc=False):
    """Another scheduler may have adopted and launched this, while this one was silent."""


class Unblocked(msgspec.Struct, frozen=True, gc=False):
    """The revoked container of the same key, for which the launch was held back, has ended."""


class Observed(msgspec.Struct, frozen=True, gc=False):
    """
    The service described the container.

    :param jitter: 0 to 1
    :param pause: seconds that the sweep meant to let pass since the one before, and those that the call took
    """

    observation: Observation
    jitter: float = 0.5
    pause: float = 0.0


class StopTargetMissing(msgspec.Struct, frozen=True, gc=False):
    """
    The service says that there is no such container to stop.

    :param pause: seconds that the stop was meant to wait since it was sent before
    """

    pause: float = 0.0


class Checked(msgspec.Struct, frozen=True, gc=False):
    """
    The service described the container that was asked about by its identifier.

    :param took: seconds from the start of the search to this answer
    """

    observation: Observation
    took: float = 0.0


class Found(msgspec.Struct, frozen=True, gc=False):
    """
    A search by mark has ended.

    :param observation: None: the service lists no container of this launch
    :param took: seconds from the start of the search to this answer
    :param places: in how many it was looked for
    """

    observation: Observation | None
    took: float = 0.0
    places: int = 1


class SearchRefused(msgspec.Struct, frozen=True, gc=False):
    """
    Which container is the launch's cannot be found out until somebody mends something.

    :param place_unknown: it is not the service that refuses: what says where the container would be fails, and
        the default place has none
    :param named: the container that Airflow named, if it was asked about
    :param took: seconds from the start of the search to this answer
    """

    reason: str
    place_unknown: bool = False
    named: Handle | None = None
    took: float = 0.0


class Demanded(msgspec.Struct, frozen=True, gc=False):
    """Airflow's demand has changed: revoked, superseded or released."""

    demand: Demand


Event: TypeAlias = (
    Requested
    | Unrenderable
    | Replied
    | Refused
    | Interrupted
    | Barred
    | LookInstead
    | Doubted
    | Unblocked
    | Observed
    | StopTargetMissing
    | Checked
    | Found
    | SearchRefused
    | Demanded
)


# --- effects --------------------------------------------------------------------------------------------------


class Enqueue(msgspec.Struct, frozen=True, gc=False):
    """Give the launch a place in a launch queue, from the phase's ``not_before`` on."""


class Search(msgspec.Struct, frozen=True, gc=False):
    """Find out which container is the launch's, from the phase's ``not_before`` on."""


class Poll(msgspec.Struct, frozen=True, gc=False):
    """Have the container described from now on."""


class SendStop(msgspec.Struct, frozen=True, gc=False):
    """Ask the service to stop a container."""

    handle: Handle
    reason: str


class Emit(msgspec.Struct, frozen=True, gc=False):
    """Tell the executor."""

    report: Report


class Forget(msgspec.Struct, frozen=True, gc=False):
    """Drop the launch from the ledger."""


Effect: TypeAlias = Enqueue | Search | Poll | SendStop | Emit | Forget
