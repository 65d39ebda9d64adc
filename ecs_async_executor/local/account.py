"""
An AWS account of the local services: what ECS and Batch share in it, and moto's side of it.

May import moto and the modules below. Knows the services by the :class:`Service` protocol only.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping, Sequence
from itertools import count as counter
from typing import Any, Protocol

from moto.core.base_backend import BackendDict

from ecs_async_executor.local.behaviour import DEFAULT, Behaviour
from ecs_async_executor.local.errors import AwsError
from ecs_async_executor.local.faults import Fault
from ecs_async_executor.local.host import Host
from ecs_async_executor.local.ledger import Ledger, Record, digest
from ecs_async_executor.local.life import Job

DEFAULT_ACCOUNT = "123456789012"

_accounts: set[str] = set()
_accounts_lock = threading.Lock()


def acquire_account() -> str:
    """Reserve an AWS account of moto's, so that servers in one process share nothing."""
    with _accounts_lock:
        fixed = os.environ.get("MOTO_ACCOUNT_ID")
        if fixed:
            return fixed
        candidates = (DEFAULT_ACCOUNT, *(f"{100000000000 + n}" for n in range(1, len(_accounts) + 2)))
        account = next(a for a in candidates if a not in _accounts)
        _accounts.add(account)
        return account


def release_account(account: str) -> None:
    """Give an account back, and drop everything moto holds for it."""
    with _accounts_lock:
        _accounts.discard(account)
        wipe_account(account)


def wipe_account(account: str) -> None:
    """Drop everything that moto holds for an account, in every service."""
    # moto keeps no public list of its backends; this is the one that its own reset uses.
    for backends in list(BackendDict._instances):  # type: ignore[misc]  # noqa: SLF001
        dict.pop(backends, account, None)


class Service(Protocol):
    """
    One service of an account. Safe to use from any thread.

    :param name: as in a client's credential scope: ``ecs``, ``batch``
    :param operations: what it answers itself; everything else of the service is moto's
    :param causes: ways to lose a host: stop code and reason
    """

    name: str
    operations: frozenset[str]
    causes: Mapping[str, tuple[str, str]]

    def prepare(self, region: str) -> None:
        """Put our backend in place of moto's, before moto answers a request of this service."""

    def call(self, operation: str, params: Mapping[str, Any], region: str, fault: Fault | None = None) -> str:
        """
        Carry out an operation and give the reply's JSON.

        :param fault: what is to become of the containers that it starts
        :raises AwsError: if AWS would refuse it
        """

    def without(
        self, operation: str, kind: str, params: Mapping[str, Any], region: str, fault: Fault
    ) -> str | None:
        """Give the reply's JSON of a fault that does no work, None if the operation knows no such fault."""

    def buckets(self, operation: str, params: Mapping[str, Any], region: str) -> Sequence[str]:
        """Name the rate limits that a call counts against."""

    def throttled(self) -> AwsError:
        """Make the error of a call that came too fast."""

    def expired(self) -> AwsError:
        """Make the error of a call with credentials that have expired."""

    def knows(self, reference: str) -> bool:
        """Tell whether a task or job, by id or ARN, is one of this service."""

    def show(self, reference: str) -> dict[str, Any]:
        """
        Show a task or job as the service's API does.

        :raises KeyError: if there is no such task or job
        """

    def lose(self, reference: str, *, stop_code: str, reason: str, notice: float = 0.0) -> bool:
        """
        Let the host of a task or job vanish: no exit codes.

        :param notice: seconds until it does
        :return: False if nothing of it ran any more
        :raises KeyError: if there is no such task or job
        """

    def ended(self, job: Job, at: float) -> None:
        """Learn that nothing of a container group runs any more."""

    def expire(self, job: Job) -> None:
        """Forget a container group."""

    def reset(self) -> None:
        """Forget everything; what runs is killed first."""


class Account:
    """
    What the services of one account share: the host, the ledger, and the numbering of containers.

    :param host: makes the host, given what to call when a job has ended and when it is to be forgotten
    :param visible_after: seconds after its creation during which a container is not described
    :param listed_after: seconds after its creation during which it is not listed; None for the same
    :param realistic: answers as large as AWS's
    :param behaviour: what the services do where they can do it in more than one way; may be set at any time
    """

    def __init__(
        self,
        host: Callable[[Callable[[Job, float], None], Callable[[Job], None]], Host],
        account_id: str,
        *,
        visible_after: float = 0.0,
        listed_after: float | None = None,
        realistic: bool = True,
        behaviour: Behaviour = DEFAULT,
        ledger_path: str | os.PathLike[str] | None = None,
    ) -> None:
        self.id = account_id
        self.host = host(self._ended, self._expired)
        self.lock = self.host.lock
        self.ledger = Ledger(self.lock, self.host.settle, self.host.clock, ledger_path)
        self.visible_after = visible_after
        self.listed_after = visible_after if listed_after is None else listed_after
        self.realistic = realistic
        self.behaviour = behaviour
        self.services: dict[str, Service] = {}
        self._clear()

    def _clear(self) -> None:
        self._sequence = counter(1)
        self._attempts: dict[str, int] = {}
        self._owners: dict[str, Service] = {}

    def number(self, mark: str, command: Sequence[str]) -> tuple[int, int]:
        """Count a new container: of this account, and of those with its mark (without one: its command)."""
        identity = mark or digest(command)
        attempt = self._attempts[identity] = self._attempts.get(identity, 0) + 1
        return next(self._sequence), attempt

    def accept(self, owner: Service, record: Record) -> None:
        """Write down a container that a service has accepted; it is told of its end."""
        self._owners[record.job.id] = owner
        self.ledger.accept(record)

    def sight(self, now: float, fault: Fault | None) -> tuple[float, float]:
        """Say from when on a container that is accepted now is described, and listed."""
        until = now + fault.seconds if fault is not None and fault.kind in ("hidden", "unlisted") else now
        hidden = until if fault is not None and fault.kind == "hidden" else now
        return max(hidden, now + self.visible_after), max(until, now + self.listed_after)

    def hold(self, now: float, fault: Fault | None) -> float:
        """Say from when on a container that is accepted now may be placed."""
        return now + fault.seconds if fault is not None and fault.kind == "stuck" else now

    def owner(self, reference: str) -> Service:
        """
        Name the service of a task or job, by id or ARN.

        :raises KeyError: if there is no such task or job
        """
        with self.lock:
            found = next((s for s in self.services.values() if s.knows(reference)), None)
        if found is None:
            raise KeyError(reference)
        return found

    def kill(
        self,
        reference: str,
        *,
        cause: str = "host",
        notice: float = 0.0,
        stop_code: str | None = None,
        reason: str | None = None,
    ) -> bool:
        """
        Let the host of a task or job vanish.

        :param cause: one of the service's causes
        :param notice: seconds until it does; until then it runs on, but ECS shows its stop code
        :param stop_code: instead of the cause's
        :param reason: instead of the cause's
        :return: False if nothing of it ran any more
        :raises KeyError: if there is no such task or job
        :raises ValueError: if there is no such cause
        """
        known = next(iter(self.services.values())).causes
        if cause not in known:
            msg = f"unknown cause: {cause!r}; known: {', '.join(known)}"
            raise ValueError(msg)
        service = self.owner(reference)
        code, sentence = service.causes[cause]
        return service.lose(reference, stop_code=stop_code or code, reason=reason or sentence, notice=notice)

    def reset(self) -> None:
        """Forget every container; what runs is killed first."""
        with self.lock:
            for service in self.services.values():
                service.reset()
            self.ledger.clear()
            self._clear()

    def wipe(self, region: str) -> None:
        """Drop everything that moto holds for this account; runs where moto's requests run, between two."""
        with self.lock:
            wipe_account(self.id)
            for service in self.services.values():
                service.prepare(region)

    def _ended(self, job: Job, at: float) -> None:
        self.ledger.ended(job)
        owner = self._owners.get(job.id)
        if owner is not None:
            owner.ended(job, at)

    def _expired(self, job: Job) -> None:
        owner = self._owners.pop(job.id, None)
        if owner is not None:
            owner.expire(job)
