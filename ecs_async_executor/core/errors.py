"""
The errors, by what they mean for a launch.

May import nothing of this project. :mod:`ecs_async_executor.services.errors` is the one place that turns wire
errors into these; :mod:`ecs_async_executor.core.policy` is the one place that decides what to do about them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence


class Kind(enum.Enum):
    """The meaning of a failed call to the service."""

    THROTTLED = "throttled"
    """A request rate was exceeded; nothing was done. Slow the operation down, then repeat."""
    CONCURRENT = "concurrent"
    """Too many changes at once to one resource; nothing was done. Only this request has to wait."""
    AMBIGUOUS = "ambiguous"
    """No definite answer (timeout, reset, 5xx, garbage, empty reply): it may or may not have been done."""
    UNSENT = "unsent"
    """No answer either, but nothing was done: the request did not leave, because there was no connection."""
    CAPACITY = "capacity"
    """There is no room for the container just now; nothing was done."""
    CREDENTIALS = "credentials"
    """Missing, expired or not yet valid credentials, or a skewed clock; nothing was done."""
    REFUSED = "refused"
    """A definite no that a person may be mending: permissions, cluster, task definition."""
    INVALID = "invalid"
    """A malformed request: repeating it cannot help."""
    CONFLICT = "conflict"
    """The token was used before with other parameters; ``resource_ids`` names what exists, if anything."""
    NOT_FOUND = "not found"
    """The named container does not exist (any more)."""


NO_ANSWER = frozenset({Kind.AMBIGUOUS, Kind.UNSENT})
"""The service has said nothing, neither yes nor no."""


class ExecutorError(Exception):
    """Base class of every error that this package raises."""


class ConfigurationError(ExecutorError):
    """
    The configuration cannot be used; it lists every problem at once.

    :param problems: one sentence per problem, each naming section, key, value and what is allowed
    """

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(("The configuration cannot be used:", *(f"  - {p}" for p in self.problems))))


class Rejected(ExecutorError):
    """
    One workload cannot become a request; it fails alone, with this reason.

    :param reason: a sentence for the person who wrote the DAG; never holds a command or a secret
    """

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


class BackendError(ExecutorError):
    """
    A call to the service failed.

    :param kind: the meaning of the failure
    :param code: the service's error code, or the name of the exception
    :param message: the service's words; never holds a command or a secret
    :param resource_ids: with :attr:`Kind.CONFLICT`, what the token made before
    :param unavailable: with :attr:`Kind.CREDENTIALS`, whether their source gave no answer, which is no refusal
    :param token_used: the service gave this answer after it had taken the request's client token, so that the
        token may give it again, or a conflict, whatever has changed since. A conflict that names nothing says
        the same
    """

    def __init__(
        self,
        kind: Kind,
        code: str,
        message: str,
        resource_ids: Sequence[str] = (),
        *,
        unavailable: bool = False,
        token_used: bool = False,
    ) -> None:
        self.kind = kind
        self.code = code
        self.message = message
        self.resource_ids = tuple(resource_ids)
        self.unavailable = unavailable
        self.token_used = token_used or (kind is Kind.CONFLICT and not resource_ids)
        super().__init__(code if message in {"", code} else f"{code}: {message}")
