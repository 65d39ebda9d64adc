"""A scripted cloud behind the backend protocol: containers follow a plan, calls follow a programme of faults."""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field

import anyio

from ecs_async_executor.core.backend import Handle, LaunchSpec, Observation, Paced, Seen, Trial, unpaced
from ecs_async_executor.core.destinations import HOME, destination_of, scoped
from ecs_async_executor.core.errors import BackendError, Kind
from tests.engine.virtual_time import EPOCH


@dataclass
class Plan:
    """
    How a container's life goes; times in seconds from its launch.

    :param exit_code: None: it ends without one (its host was lost)
    :param starts: False: it stops before user code could run
    :param unplaced: there is no room for it for so long; if it stops by then, that is why
    :param queued: it has no place for so long, and the service does not say why
    :param hidden_for: the service does not know it for so long
    :param lingers: so long after its exit it is still stopping
    """

    start_after: float = 1.0
    duration: float = 5.0
    exit_code: int | None = 0
    starts: bool = True
    unplaced: float = 0.0
    queued: float = 0.0
    hidden_for: float = 0.0
    lingers: float = 0.0


@dataclass
class Container:
    """One container, of which everything follows from its plan and the clock."""

    handle: Handle
    label: str
    token: str
    started_by: str | None
    own_mark: str | None
    created: float
    plan: Plan
    stopped: float | None = None
    stop_reasons: list[str] = field(default_factory=list)
    by_hand: bool = False
    forgotten_until: float = 0.0
    placement: str = ""

    @property
    def starts_at(self) -> float:
        return self.created + self.plan.start_after

    @property
    def ends_at(self) -> float:
        natural = self.starts_at + (self.plan.duration if self.plan.starts else 0.0)
        return natural if self.stopped is None else min(natural, self.stopped)

    def ran_user_code(self, now: float) -> bool:
        return self.plan.starts and self.starts_at <= now and self.starts_at < self.ends_at

    def alive(self, now: float) -> bool:
        return now < self.ends_at

    def succeeded(self, now: float) -> bool:
        to_the_end = self.stopped is None or self.stopped >= self.starts_at + self.plan.duration
        return self.ran_user_code(now) and not self.alive(now) and to_the_end and self.plan.exit_code == 0

    def unknown(self, now: float) -> bool:
        """The service does not know it: not yet, or for a time."""
        return now < max(self.created + self.plan.hidden_for, self.forgotten_until)

    def observe(self, now: float) -> Observation:
        if self.unknown(now):
            return Observation(self.handle, Seen.MISSING, status="MISSING")
        created_at, ends_at = EPOCH + self.created, self.ends_at
        starts_at = self.created + self.plan.start_after
        started = self.plan.starts and starts_at <= now and starts_at < ends_at
        if now < ends_at:
            seen = Seen.RUNNING if started else Seen.PENDING
            unplaced = not started and now < self.created + self.plan.unplaced
            return Observation(
                self.handle,
                seen,
                status=seen.name,
                created_at=created_at,
                started_by=self.started_by,
                started=started,
                reason="PROVISIONING" if unplaced else "",
                unplaced=unplaced,
                queued=unplaced or (not started and now < self.created + self.plan.queued),
            )
        exit_code = None
        if started:
            natural = self.stopped is None or self.stopped >= self.starts_at + self.plan.duration
            exit_code = self.plan.exit_code if natural else 143
        return Observation(
            self.handle,
            Seen.PENDING if now < ends_at + self.plan.lingers else Seen.STOPPED,
            status="STOPPED",
            exit_code=exit_code,
            reason=f"The container exited {exit_code}" if exit_code is not None else "It stopped",
            unplaced=self.stopped is None
            and not self.plan.starts
            and 0.0 < self.plan.start_after <= self.plan.unplaced,
            by_hand=self.by_hand,
            created_at=created_at,
            started_by=self.started_by,
            started=started,
            stopped_at=EPOCH + ends_at,
        )

    def stop_by_hand(self) -> None:
        """Do what a person does with the service's own tools."""
        self.stopped = anyio.current_time()
        self.by_hand = True


Fault = Callable[[str, "FakeCloud"], "BackendError | None"]
"""Asked before a call is carried out, with the operation, and after it with ``<operation>:after``."""
THROTTLED = BackendError(Kind.THROTTLED, "ThrottlingException", "Rate exceeded")
NO_ANSWER = BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout")


def again(error: BackendError) -> BackendError:
    """Return the same error anew: one that is raised keeps every frame it ever passed, and all that they hold."""
    return BackendError(
        error.kind,
        error.code,
        error.message,
        error.resource_ids,
        unavailable=error.unavailable,
        token_used=error.token_used,
    )


@dataclass
class There:
    """
    One destination of a cloud: its own weather, and the calls that it got.

    :param fault: asked after that of the whole cloud
    :param hangs_for: calls get no answer, and their callers give up after so many seconds; they change nothing
    :param hangs_until: seconds of virtual time
    :param quota: launches per second, and at once after a rest, of which more are throttled; None: any number
    """

    fault: Fault = lambda operation, cloud: None
    hangs_for: float = 0.0
    hangs_until: float = float("inf")
    quota: float | None = None
    calls: Counter[str] = field(default_factory=Counter)
    call_times: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    in_flight: Counter[str] = field(default_factory=Counter)
    peak: Counter[str] = field(default_factory=Counter)
    permits: float = 0.0
    permits_at: float = -1e9

    def begins(self, operation: str, now: float) -> None:
        self.calls[operation] += 1
        self.call_times[operation].append(now)
        self.in_flight[operation] += 1
        self.peak[operation] = max(self.peak[operation], self.in_flight[operation])

    def ends(self, operation: str) -> None:
        self.in_flight[operation] -= 1

    def is_hanging(self, now: float) -> bool:
        return self.hangs_for > 0.0 and now < self.hangs_until

    def is_over_quota(self, now: float) -> bool:
        """Take a launch from the quota; return whether there was none left."""
        if self.quota is None:
            return False
        self.permits = min(self.quota, self.permits + (now - self.permits_at) * self.quota)
        self.permits_at = now
        if self.permits < 1.0:
            return True
        self.permits -= 1.0
        return False


class FakeCloud:
    """
    A cloud, of one account and Region unless scopes name other destinations.

    :param latency: of every call, in seconds
    :param plan: how the n-th container of a workload goes
    :param repeatable: a token makes one container, however often it is sent
    :param elsewhere: the other destinations that there are
    :param arns: an identifier tells where its container is
    :param failure_memory: what a token remembers of an answer that used it up: the switch of that name in
        :class:`~ecs_async_executor.local.behaviour.Behaviour`

    ``full`` has the answer to requests for a placement without room; ``no_place`` the plan of the containers of
    one that accepts them all the same. ``unreadable`` says of which containers a description comes without sense,
    so that none of it is left; ``unlisted`` which ones a listing leaves out.
    """

    describe_batch = 100

    def __init__(
        self,
        *,
        latency: float = 0.05,
        plan: Callable[[str, int], Plan] = lambda label, nth: Plan(),
        fault: Fault = lambda operation, cloud: None,
        repeatable: bool = True,
        failure_memory: str = "forget",
        elsewhere: Sequence[str] = (),
        arns: bool = True,
    ) -> None:
        self.latency = latency
        self.plan = plan
        self.fault = fault
        self.repeatable = repeatable
        self.failure_memory = failure_memory
        self.elsewhere = tuple(elsewhere)
        self.arns = arns
        self.there: defaultdict[str, There] = defaultdict(There)
        """By the names of the destinations; ``""`` is home."""
        self.failures: dict[str, tuple[BackendError, object]] = {}
        self.containers: dict[str, Container] = {}
        self.by_token: dict[str, Container] = {}
        self.by_label: defaultdict[str, list[Container]] = defaultdict(list)
        self.parameters: dict[str, object] = {}
        self.full: dict[str, BackendError] = {}
        self.no_place: dict[str, Plan] = {}
        self.unreadable: Callable[[Container], bool] = lambda container: False
        self.unlisted: Callable[[Container], bool] = lambda container: False
        self.asked_to_stop: set[str] = set()
        self.calls: Counter[str] = Counter()
        self.call_times: defaultdict[str, list[float]] = defaultdict(list)
        self.in_flight: Counter[str] = Counter()
        self.peak: Counter[str] = Counter()
        self._ids = itertools.count(1)

    def of(self, label: str) -> list[Container]:
        """Every container that a workload ever had."""
        return list(self.by_label[label])

    def scope_of(self, handle_id: str | None) -> str:
        container = self.containers.get(handle_id or "")
        return "default" if container is None else container.handle.scope

    def scopes_of(self, handle_id: str) -> Sequence[str]:
        if self.arns or not self.elsewhere:
            return [self.scope_of(handle_id)]
        return [scoped(name, "default") for name in (HOME, *self.elsewhere)]

    def open(self) -> AbstractAsyncContextManager[None]:
        return nullcontext()

    @asynccontextmanager
    async def _call(self, operation: str, scope: str = "") -> AsyncIterator[BackendError | None]:
        """Give the answer that is made only after the token was looked at; raise any other error."""
        there = self.there[destination_of(scope)]
        there.begins(operation, anyio.current_time())
        self.calls[operation] += 1
        self.call_times[operation].append(anyio.current_time())
        self.in_flight[operation] += 1
        self.peak[operation] = max(self.peak[operation], self.in_flight[operation])
        try:
            await anyio.sleep(self.latency / 2)
            if there.is_hanging(anyio.current_time()):
                await anyio.sleep(there.hangs_for)
                raise again(NO_ANSWER)
            if operation == "launch" and there.is_over_quota(anyio.current_time()):
                raise again(THROTTLED)
            error = self.fault(operation, self) or there.fault(operation, self)
            if error is not None and not error.token_used:
                raise again(error)
            yield error
            await anyio.sleep(self.latency / 2)
            if error := self.fault(f"{operation}:after", self) or there.fault(f"{operation}:after", self):
                raise again(error)
        finally:
            there.ends(operation)
            self.in_flight[operation] -= 1

    async def launch(self, spec: LaunchSpec, client_token: str) -> Observation:
        async with self._call("launch", spec.scope) as failure:
            now = anyio.current_time()
            sent = client_token
            client_token = f"{spec.scope} {client_token}"  # each cluster remembers its own
            known = self.by_token.get(client_token)
            if known is not None and self.repeatable:
                if self.parameters[client_token] != spec.request:
                    raise BackendError(
                        Kind.CONFLICT, "ConflictException", "client token in use", [known.handle.id]
                    )
                return known.observe(now)
            self._recall(client_token, spec.request)
            no = failure or self.full.get(spec.placement)
            if no is not None:
                if self.failure_memory != "forget" and no.token_used and no.kind is not Kind.CONFLICT:
                    self.failures[client_token] = (no, spec.request)
                raise again(no)
            label = spec.request["label"]
            handle = Handle(spec.scope, f"container-{next(self._ids)}")
            plan = self.no_place.get(spec.placement) or self.plan(label, len(self.of(label)) + 1)
            container = Container(handle, label, sent, spec.started_by, spec.own_mark, now, plan)
            container.placement = spec.placement
            self.containers[handle.id] = self.by_token[client_token] = container
            self.by_label[label].append(container)
            self.parameters[client_token] = spec.request
        return Observation(handle, Seen.PENDING, status="PROVISIONING", created_at=EPOCH + now)

    def _recall(self, token: str, request: object) -> None:
        """Raise what a token remembers of an earlier answer."""
        if token not in self.failures:
            return
        failure, same = self.failures[token]
        if request == same:
            raise again(failure)
        if self.failure_memory == "conflict":
            raise BackendError(Kind.CONFLICT, "ConflictException", "token in use")

    async def describe(self, scope: str, ids: Sequence[str]) -> Sequence[Observation]:
        assert 0 < len(ids) <= self.describe_batch
        async with self._call("describe", scope):
            now = anyio.current_time()
            return [
                self.containers[i].observe(now)
                if i in self.containers and self.containers[i].handle.scope == scope
                else Observation(Handle(scope, i), Seen.MISSING, status="MISSING")
                for i in ids
                if i not in self.containers or not self.unreadable(self.containers[i])
            ]

    async def search(self, scope: str, started_by: str, paced: Paced = unpaced) -> Sequence[Handle]:
        async with self._call("search", scope):
            return [
                c.handle
                for c in self.containers.values()
                if started_by in (c.started_by, c.own_mark) and c.handle.scope == scope and not self.unlisted(c)
            ]

    async def stop(self, handle: Handle, reason: str) -> None:
        self.asked_to_stop.add(handle.id)
        assert handle.id not in self.containers or self.containers[handle.id].handle.scope == handle.scope
        async with self._call("stop", handle.scope):
            container = self.containers.get(handle.id)
            if container is None or anyio.current_time() < container.forgotten_until:
                raise BackendError(Kind.NOT_FOUND, "InvalidParameterException", "The task was not found.")
            container.stop_reasons.append(reason)
            if container.stopped is None:
                container.stopped = anyio.current_time()

    async def check(self) -> None:
        async with self._call("check"):
            pass

    untried = "launch"

    def trials(self, specs: Sequence[LaunchSpec] = ()) -> Sequence[Trial]:
        return [Trial("check", self.check)]
