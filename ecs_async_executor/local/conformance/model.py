"""What a check is, and what comes of it. Imports nothing of this package but :class:`Bench`, for its type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecs_async_executor.local.conformance.bench import Bench


class Known(str, Enum):
    """How well a belief is founded before anybody asks."""

    DOCUMENTED = "documented"
    REPORTED = "reported"
    OPEN = "open"


class Verdict(str, Enum):
    """What an answer makes of a belief."""

    HOLDS = "holds"
    DIFFERS = "differs"
    UNANSWERED = "no answer"
    SKIPPED = "skipped"


class Unanswered(Exception):
    """A check could not find out: something that it needs did not come about."""


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the service did.

    :param text: in words
    :param holds: whether the belief holds
    :param facts: figures and raw members worth keeping
    """

    text: str
    holds: bool
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Check:
    """
    One belief, and how to ask for it.

    :param belief: a sentence; of an open question, the answers that clients stand
    :param ask: asks the service
    :param containers: how many it starts for itself at most
    :param looks_at: the name of a container of the bench's that it looks at, as other checks may
    :param needs: what the target must have: ``ec2``, ``batch``
    """

    name: str
    belief: str
    known: Known
    ask: Callable[[Bench], Answer]
    containers: int = 0
    looks_at: str | None = None
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Result:
    """
    What came of a check.

    :param containers: how many it has started
    :param calls: how many requests it has sent
    """

    name: str
    belief: str
    known: Known
    verdict: Verdict
    answer: str
    facts: Mapping[str, Any]
    containers: int
    calls: int
    seconds: float
