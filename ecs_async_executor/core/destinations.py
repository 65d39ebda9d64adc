"""
Destinations: where else containers can go, in names that the engine can tell apart.

May import ``backend`` only. A destination is a Region, an account, or both, with credentials of its own. Its name
stands before whatever belongs to it: the scope of a container, the rate bucket and the placement of a request. So
launches of two destinations share neither a rate nor a gate, and the engine finds the session for a call in the
scope that the call names.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from ecs_async_executor.core.backend import LaunchSpec

HOME: Final = ""
"""The name of the destination that the executor's own section configures: its scopes have no prefix."""
_MARK: Final = "|"
"""No AWS identifier has it."""


def scoped(destination: str, name: str) -> str:
    """Return the name of what belongs to a destination: a scope, a bucket."""
    return f"{destination}{_MARK}{name}" if destination else name


def destination_of(scope: str) -> str:
    """Return the destination that a scope or a bucket belongs to."""
    return scope.rpartition(_MARK)[0]


def within(scope: str) -> str:
    """Return a scope or a bucket as the destination itself names it."""
    return scope.rpartition(_MARK)[2]


def for_people(scope: str) -> str:
    """Return a scope as people read it."""
    destination = destination_of(scope)
    return f"{within(scope)} in {destination}" if destination else scope


def sent_to(destination: str, spec: LaunchSpec) -> LaunchSpec:
    """Return a request as one for a destination."""
    if not destination:
        return spec
    return replace(
        spec,
        scope=scoped(destination, spec.scope),
        bucket=scoped(destination, spec.bucket),
        placement=f"destination={destination} {spec.placement}",
    )
