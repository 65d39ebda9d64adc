"""
How the engine works - rates, numbers of concurrent calls, intervals - and what it takes from the settings.

May import ``core`` and ``settings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ecs_async_executor.core.backend import Service
from ecs_async_executor.core.policy import Rules
from ecs_async_executor.settings import Tuning


@dataclass(frozen=True, slots=True)
class Options:
    """
    How the engine works; limits are those of each destination. Rates are calls per second, times seconds.

    :param launch_rate: returns the rate to start with, by bucket
    :param change_rate: launches and stops together, or stops alone
    :param shares_changes: see :class:`~ecs_async_executor.core.backend.Service`
    :param gently: begin below the launch rate: it is a guess, and other schedulers may start at the same time
    :param stall_timeout: launch nothing once the scheduler has been silent for so long; None: do not watch
    :param stop_permission: see :class:`~ecs_async_executor.core.backend.Service`
    :param destinations: the names of those that launches can go to besides home
    """

    launch_rate: Callable[[str], float]
    launch_burst: float
    launch_rate_max: float
    max_concurrent_launches: int
    max_concurrent_describes: int
    describe_rate: float
    describe_burst: float
    poll_interval: float
    change_rate: float
    change_burst: float
    shares_changes: bool = True
    gently: bool = False
    stall_timeout: float | None = None
    stop_permission: str = ""
    destinations: tuple[str, ...] = ()


def options_from(
    service: Service, tuning: Tuning, stall_timeout: float | None, destinations: Iterable[str] = ()
) -> Options:
    """Return the options for a service under the user's settings."""

    def launch_rate(bucket: str) -> float:
        return tuning.launch_rate or service.rate_of(bucket)

    return Options(
        launch_rate=launch_rate,
        launch_burst=tuning.launch_burst,
        launch_rate_max=tuning.launch_rate_max,
        gently=tuning.launch_rate is None,
        max_concurrent_launches=tuning.max_concurrent_launches,
        max_concurrent_describes=tuning.max_concurrent_describes,
        describe_rate=tuning.describe_rate,
        describe_burst=max(1.0, tuning.describe_rate),
        poll_interval=tuning.poll_interval,
        change_rate=service.change_rate,
        change_burst=service.change_burst,
        shares_changes=service.shares_changes,
        stall_timeout=stall_timeout,
        stop_permission=service.stop_permission,
        destinations=tuple(destinations),
    )


def rules_from(service: Service, tuning: Tuning, max_attempts: int) -> Rules:
    """
    Return the limits of all decisions for a service under the user's settings.

    :param max_attempts: containers that may be tried for one launch, as long as none of them started
    """
    return Rules(
        service=service.name,
        repeatable=service.repeatable,
        absent_grace=service.absent_grace,
        max_attempts=max_attempts,
        missing_grace=tuning.missing_grace,
        lost_container_grace=tuning.lost_container_grace,
        permanent_error_grace=tuning.permanent_error_grace,
        capacity_timeout=tuning.capacity_timeout,
    )
