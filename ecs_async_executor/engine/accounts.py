"""
What the accounts of the destinations may use, read once: the lane that has it read, and what that changes.

May import ``core``, anyio and structlog. Nothing waits for the answer; until it is there, AWS's defaults apply.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, TypeAlias

import anyio
import structlog

from ecs_async_executor.core.account import AccountQuota, AccountQuotas, is_about_vcpus, vcpus_in_words
from ecs_async_executor.core.errors import BackendError, Kind

log = structlog.get_logger(__name__)

Reading: TypeAlias = Callable[[str], Awaitable[AccountQuotas]]
"""Reads the quotas of a destination's account; raises BackendError, or whatever keeps a client from being made."""

TIMEOUT: Final = 30.0
"""Seconds that the answer about one destination may take."""


class Accounts:
    """
    The quotas of the accounts, by destination.

    :param reading: None: they are not read
    :param destinations: the names of all of them, home included
    :param event: makes the full name of a log event
    """

    def __init__(self, reading: Reading | None, destinations: Iterable[str], event: Callable[[str], str]) -> None:
        self._reading = reading
        self._destinations = tuple(destinations)
        self._event = event
        self._known: dict[str, AccountQuotas] = {}

    async def run(self) -> None:
        """Read the quotas of all destinations; return once there is an answer, or a reason for none, from each."""
        if self._reading is not None:
            async with anyio.create_task_group() as reads:
                for name in self._destinations:
                    reads.start_soon(self._read, self._reading, name)

    async def _read(self, reading: Reading, name: str) -> None:
        named = {"destination": name} if name else {}
        try:
            with anyio.fail_after(TIMEOUT):
                known = self._known[name] = await reading(name)
        except Exception as error:  # noqa: BLE001 - nothing depends on it, and it is said
            reason = str(error) or f"no answer within {TIMEOUT:g} s"
            log.warning(self._event("quotas.unread"), reason=reason, **named)
            return
        values = {quota.name: quota.value for quota in known.quotas}
        log.info(self._event("quotas.read"), region=known.region, quotas=values, **named)

    def quotas_of(self, destination: str) -> tuple[AccountQuota, ...]:
        """Return what is known of a destination's account."""
        known = self._known.get(destination)
        return () if known is None else known.quotas

    def most(self, destination: str, bucket: str) -> float | None:
        """Return the launches per second that the account allows of a bucket, None if that is not known."""
        known = self._known.get(destination)
        return None if known is None else known.launch_rates.get(bucket)

    def explained(self, destination: str, error: BackendError) -> BackendError:
        """Return an error with the quota that it is about, where that is known."""
        if error.kind is not Kind.CAPACITY or not is_about_vcpus(error.message):
            return error
        words = vcpus_in_words(self.quotas_of(destination))
        if not words:
            return error
        return BackendError(
            error.kind,
            error.code,
            f"{error.message.rstrip('.')} ({words})",
            error.resource_ids,
            unavailable=error.unavailable,
            token_used=error.token_used,
        )
