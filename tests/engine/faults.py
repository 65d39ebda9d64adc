"""What the scripted cloud can be told to answer."""

from __future__ import annotations

import anyio

from ecs_async_executor.core.errors import BackendError, Kind
from tests.engine.cloud import FakeCloud, Fault

THROTTLED = BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded")
TIMED_OUT = BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout")
UNSENT = BackendError(Kind.UNSENT, "EndpointConnectionError", "Could not connect to the endpoint URL")
NO_MEMORY = BackendError(
    Kind.CAPACITY, "RESOURCE:MEMORY", "no container instance met all of its requirements", token_used=True
)
EXPIRED = BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "The security token is expired")
DENIED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:RunTask")
STOP_DENIED = BackendError(Kind.REFUSED, "AccessDeniedException", "not authorized to perform: ecs:StopTask")
NO_SUCH = BackendError(Kind.NOT_FOUND, "InvalidParameterException", "The task was not found.")
INVALID = BackendError(Kind.INVALID, "InvalidParameterException", "Identifier is for another region")


def failing(
    operation: str, error: BackendError, *, until: float = float("inf"), times: int | None = None
) -> Fault:
    """
    Make a fault of one operation.

    :param until: seconds of virtual time at which the fault is over
    :param times: how often the operation fails before it works again
    """
    left = [times]

    def fault(asked: str, cloud: FakeCloud) -> BackendError | None:
        if asked != operation or anyio.current_time() >= until or left[0] == 0:
            return None
        if left[0] is not None:
            left[0] -= 1
        return error

    return fault
