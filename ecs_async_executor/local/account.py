"""
The AWS account of the local services: what ECS and Batch share in it and its Regions, and moto's side of it.

May import moto and the modules below. Knows the services by the :class:`Service` protocol only. A client that
assumes a role of another account works in that account, on the same host.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count as counter
from typing import Any, Protocol

from moto.core.base_backend import BackendDict
from moto.s3.models import s3_backends

from ecs_async_executor.local.behaviour import DEFAULT, Behaviour
from ecs_async_executor.local.errors import AwsError
from ecs_async_executor.local.faults import Fault
from ecs_async_executor.local.host import Host
from ecs_async_executor.local.ledger import Ledger, Record, digest
from ecs_async_executor.local.life import Job
from ecs_async_executor.local.outputs import Outputs
from ecs_async_executor.local.place import Limits, Place, assumed_by, signed_by
from ecs_async_executor.local.quotas import DEFAULT_QUOTAS
from ecs_async_executor.local.runners import SubprocessRunner

DEFAULT_ACCOUNT = "123456789012"

_accounts: set[str] = set()
_accounts_lock = threading.Lock()


def acquire_account() -> str:
    """Reserve one of moto's AWS accounts, so that servers in one process share nothing."""
    with _accounts_lock:
        fixed = os.environ.get("MOTO_ACCOUNT_ID")
        if fixed:
            return fixed
        candidates = (DEFAULT_ACCOUNT, *(f"{100000000000 + n}" for n in range(1, len(_accounts) + 2)))
        account = next(a for a in candidates if a not in _accounts)
        _accounts.add(account)
        return account


def release_account(account: str, worked_in: Iterable[str]) -> None:
    """Release an account, and drop everything that moto holds for those that clients have worked in."""
    with _accounts_lock:
        _accounts.discard(account)
        for one in worked_in:
            wipe_account(one)


def wipe_account(account: str) -> None:
    """Drop everything that moto holds for an account, in every service."""
    # moto has no public list of its backends; its own reset uses this one.
    for backends in list(BackendDict._instances):  # type: ignore[misc]  # noqa: SLF001
        dict.pop(backends, account, None)
    # A bucket's name is known in every account, which moto keeps apart.
    owners = s3_backends.bucket_accounts
    for name in [name for name, (_, owner) in owners.items() if owner == account]:
        del owners[name]


class Service(Protocol):
    """
    One service of an account. Safe to use from any thread.

    :param name: the name in a client's credential scope: ``ecs``, ``batch``
    :param operations: the operations that it answers itself; moto answers the others
    :param causes: ways to lose a host, each with its stop code and reason
    """

    name: str
    operations: frozenset[str]
    causes: Mapping[str, tuple[str, str]]

    def prepare(self, place: Place) -> None:
        """Replace moto's backend by ours before moto answers a request of this service."""

    def call(self, operation: str, params: Mapping[str, Any], place: Place, fault: Fault | None = None) -> str:
        """
        Carry out an operation and return the reply's JSON.

        :param fault: what happens to the containers that the operation starts
        :raises AwsError: if AWS would refuse it
        """

    def without(
        self, operation: str, kind: str, params: Mapping[str, Any], place: Place, fault: Fault
    ) -> str | None:
        """Return the reply's JSON for a fault that replaces the work, None if the operation has no such fault."""

    def buckets(self, operation: str, params: Mapping[str, Any], place: Place) -> Sequence[str]:
        """Return the names of the rate limits that a call counts against."""

    def throttled(self) -> AwsError:
        """Return the error for a call above the rate limit."""

    def expired(self) -> AwsError:
        """Return the error for a call with expired credentials."""

    def knows(self, reference: str) -> bool:
        """Return whether a task or job, by id or ARN, belongs to this service."""

    def show(self, reference: str) -> dict[str, Any]:
        """
        Return a task or job as the service's API shows it.

        :raises KeyError: if there is no such task or job
        """

    def states(self, now: float) -> Mapping[str, object]:
        """Return what an event is sent for when it changes, by the ids of all tasks or jobs."""

    def event(self, reference: str, now: float) -> tuple[Place, str, str]:
        """Return where a task or job is, its ARN, and the detail of its event as JSON."""

    def lose(self, reference: str, *, stop_code: str, reason: str, notice: float = 0.0) -> bool:
        """
        Take the host of a task or job away; its containers get no exit codes.

        :param notice: seconds until the host is gone
        :return: False if no container of it ran any more
        :raises KeyError: if there is no such task or job
        """

    def limits_changed(self) -> None:
        """Note that the account has other limits now."""

    def interrupt(self, reference: str) -> None:
        """
        Interrupt a running task or job, as Spot does.

        :raises KeyError: if there is no such task or job
        """

    def ended(self, job: Job, at: float) -> None:
        """Note that no container of a group runs any more."""

    def expire(self, job: Job) -> None:
        """Forget a container group."""

    def reset(self) -> None:
        """Kill all running containers and forget everything."""


class Account:
    """
    The parts that the services of one account share: host, ledger, containers' output and numbers.

    :param host: makes the host, given the functions to call when a job has ended and when it is to be forgotten
    :param home: where requests go that are not signed, and what has a name of its own in the limits
    :param capacity: how many containers may run, by launch type, capacity provider or job queue, in each Region on
        its own; ``<Region>/<name>`` is for one Region
    :param visible_after: seconds after its creation during which a container is not described
    :param listed_after: seconds after its creation during which it is not listed; None: as ``visible_after``
    :param realistic: make answers as large as AWS's
    :param quotas: what Service Quotas shows, by the names of the quotas; None: those of a new account
    :param behaviour: what the services do where AWS may do it in more than one way; may be set at any time
    """

    def __init__(
        self,
        host: Callable[[Callable[[Job, float], None], Callable[[Job], None]], Host],
        home: Place,
        *,
        capacity: Mapping[str, int] | None = None,
        visible_after: float = 0.0,
        listed_after: float | None = None,
        realistic: bool = True,
        behaviour: Behaviour = DEFAULT,
        ledger_path: str | os.PathLike[str] | None = None,
        quotas: Mapping[str, float] | None = None,
    ) -> None:
        self.home = home
        self.limits = Limits(capacity or {}, home)
        self.host = host(self._ended, self._expired)
        self.lock = self.host.lock
        self.ledger = Ledger(self.lock, self.host.settle, self.host.clock, ledger_path)
        self.visible_after = visible_after
        self.listed_after = visible_after if listed_after is None else listed_after
        self.realistic = realistic
        self.behaviour = behaviour
        self.quotas = dict(DEFAULT_QUOTAS if quotas is None else quotas)
        self.services: dict[str, Service] = {}
        runner = self.host.runner
        self.outputs = Outputs(runner.log_path if isinstance(runner, SubprocessRunner) else None)
        self._clear()

    def _clear(self) -> None:
        self._assumed: dict[str, str] = {}
        self._sequence = counter(1)
        self._attempts: dict[str, int] = {}
        self._owners: dict[str, Service] = {}

    @property
    def accounts(self) -> set[str]:
        """Every account that a client has worked in, or could with the credentials that it was given."""
        return {self.home.account, *self._assumed.values()}

    def place(self, authorization: str) -> Place:
        """Return where a request goes that is signed like this."""
        key, region = signed_by(authorization)
        return Place(self._assumed.get(key, self.home.account), region or self.home.region)

    def assumed(self, reply: bytes) -> None:
        """Note for which account the credentials in a reply of STS are."""
        given = assumed_by(reply)
        if given is not None:
            self._assumed[given[0]] = given[1]

    def limit(self, limits: Mapping[str, object]) -> None:
        """
        Change how many containers may run, by the names of ``capacity``; None lifts a limit.

        :raises ValueError: if a limit is no number
        """
        changed: dict[str, int | None] = {}
        for name, n in limits.items():
            if n is not None and not isinstance(n, int):
                msg = f"the capacity of {name} must be a number of tasks or jobs, or null, not {n!r}"
                raise ValueError(msg)
            changed[name] = n
        with self.lock:
            self.limits.change(changed)
            for service in self.services.values():
                service.limits_changed()

    def number(self, mark: str, command: Sequence[str]) -> tuple[int, int]:
        """Return a new container's number in this account, and among those with its mark (or else its command)."""
        identity = mark or digest(command)
        attempt = self._attempts[identity] = self._attempts.get(identity, 0) + 1
        return next(self._sequence), attempt

    def accept(self, owner: Service, record: Record) -> None:
        """Record a container that a service has accepted; the service is told of its end."""
        self._owners[record.job.id] = owner
        self.ledger.accept(record)

    def sight(self, now: float, fault: Fault | None) -> tuple[float, float]:
        """Return when a container that is accepted now begins to be described, and to be listed."""
        until = now + fault.seconds if fault is not None and fault.kind in ("hidden", "unlisted") else now
        hidden = until if fault is not None and fault.kind == "hidden" else now
        return max(hidden, now + self.visible_after), max(until, now + self.listed_after)

    def hold(self, now: float, fault: Fault | None) -> float:
        """Return when a container that is accepted now may be placed."""
        return now + fault.seconds if fault is not None and fault.kind == "stuck" else now

    def owner(self, reference: str) -> Service:
        """
        Return the service of a task or job, by id or ARN.

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
        Take the host of a task or job away.

        :param cause: one of the service's causes
        :param notice: seconds until the host is gone; until then the task runs on, but ECS shows its stop code
        :param stop_code: replaces that of the cause
        :param reason: replaces that of the cause
        :return: False if no container of it ran any more
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
        """Kill all running containers and forget every container."""
        with self.lock:
            for service in self.services.values():
                service.reset()
            self.ledger.clear()
            self.outputs.clear()
            self._clear()

    def wipe(self, accounts: Iterable[str]) -> None:
        """Drop everything that moto holds for accounts; call it in moto's thread, between two requests."""
        with self.lock:
            for account in accounts:
                wipe_account(account)
            for service in self.services.values():
                service.prepare(self.home)

    def _ended(self, job: Job, at: float) -> None:
        self.ledger.ended(job)
        owner = self._owners.get(job.id)
        if owner is not None:
            owner.ended(job, at)

    def _expired(self, job: Job) -> None:
        owner = self._owners.pop(job.id, None)
        if owner is not None:
            owner.expire(job)
