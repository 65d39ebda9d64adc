"""
The health check of ``start()``, worded as the provider's.

May import ``compat``, ``core``, the bridge and the service-free adapter.
"""

from __future__ import annotations

import structlog

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.core.backend import Service
from ecs_async_executor.core.errors import NO_ANSWER, BackendError, Kind
from ecs_async_executor.engine.bridge import Bridge

log = structlog.get_logger(__name__)

_TRANSIENT = NO_ANSWER | {Kind.THROTTLED, Kind.CONCURRENT, Kind.CAPACITY}
"""Errors that may be over by the first launch."""


def check_health(bridge: Bridge, service: Service, timeout: float) -> None:
    """
    Have the service answer one harmless call; log an answer that may be another one soon.

    :param timeout: seconds
    :raises AirflowException: if the service definitely refuses the call, or there can be no client
    """
    log.info(service.event("health_check.started"), service=service.name, timeout=timeout)
    try:
        bridge.check(timeout)
    except Exception as error:
        reason = in_words(error)
        if _may_pass(error):
            log.warning(service.event("health_check.inconclusive"), service=service.name, reason=reason)
            return
        log.error(service.event("health_check.failed"), service=service.name, reason=reason)  # noqa: TRY400
        text = (
            f"{service.name} Executor health check has failed because: {reason.rstrip('.')}. "
            f"The {service.name} executor will not be able to run Airflow tasks until the issue is addressed."
        )
        if isinstance(error, BackendError) and "health check has failed" in error.message:
            text = error.message  # the backend words it as the provider does
        raise compat.AirflowException(text) from error
    log.info(service.event("health_check.succeeded"), service=service.name)


def _may_pass(error: Exception) -> bool:
    if isinstance(error, BackendError):
        return error.kind in _TRANSIENT or error.unavailable
    return isinstance(error, TimeoutError)
