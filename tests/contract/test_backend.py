"""What the engine relies on in a backend: the same tests over the scripted cloud, the local ECS and Batch."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from ecs_async_executor.core.backend import Backend, Handle, Observation, Seen
from ecs_async_executor.core.errors import BackendError, Kind
from tests.contract.services import SERVICES, Elsewhere, Service


@pytest.fixture(params=SERVICES)
def service(request: pytest.FixtureRequest) -> Iterator[Service]:
    with SERVICES[request.param]() as service:
        yield service


def token() -> str:
    return f"{uuid.uuid4()}-1"


def mark() -> str:
    return str(uuid.uuid4())


@asynccontextmanager
async def opened(service: Service) -> AsyncIterator[Backend]:
    backend = service.backend()
    async with backend.open():
        yield backend


def within(service: Service, test: Callable[[Backend], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        with anyio.fail_after(30):
            async with opened(service) as backend:
                return await test(backend)

    return anyio.run(main)


async def seen(
    backend: Backend, handle: Handle, condition: Callable[[Observation], Any], timeout: float = 10.0
) -> Observation:
    with anyio.fail_after(timeout):
        while True:
            [observation] = await backend.describe(handle.scope, [handle.id])
            assert observation.handle == handle
            if condition(observation):
                return observation
            await anyio.sleep(0.05)


def test_a_container_goes_from_pending_to_its_exit_code(service: Service) -> None:
    async def main(backend: Backend) -> None:
        began, me = time.time(), mark()
        launched = await backend.launch(service.spec("quick", started_by=me), token())
        assert launched.seen is Seen.PENDING
        assert launched.exit_code is None
        stopped = await seen(backend, launched.handle, lambda o: o.seen is Seen.STOPPED)
        assert (stopped.exit_code, stopped.started) == (0, True)
        # The scripted cloud keeps what the spec says, which is the mark there.
        assert stopped.started_by == me
        if service.name != "fake":
            assert stopped.created_at == pytest.approx(began, abs=5)

    within(service, main)


def test_a_failed_containers_exit_code_and_reason(service: Service) -> None:
    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("fails", started_by="me"), token())
        stopped = await seen(backend, launched.handle, lambda o: o.exit_code is not None)
        assert stopped.exit_code == 3
        assert "exited 3" in stopped.reason

    within(service, main)


def test_a_failed_container_tells_what_size_it_had(service: Service) -> None:
    if service.name == "fake":
        pytest.skip("the scripted cloud's containers have no size")

    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("fails", started_by=mark()), token())
        stopped = await seen(backend, launched.handle, lambda o: o.exit_code is not None)
        assert stopped.size is not None
        assert stopped.size.memory

    within(service, main)


def test_the_exit_code_shows_before_the_container_is_stopped(service: Service) -> None:
    if service.name == "batch":
        pytest.skip("Batch shows it when the job is over")

    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("lingers", started_by="me"), token())
        observed = await seen(backend, launched.handle, lambda o: o.exit_code is not None)
        assert observed.seen is not Seen.STOPPED
        assert observed.exit_code == 0

    within(service, main)


def test_a_container_that_never_started_says_so(service: Service) -> None:
    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("never-starts", started_by="me"), token())
        stopped = await seen(backend, launched.handle, lambda o: o.seen is Seen.STOPPED)
        assert (stopped.exit_code, stopped.started) == (None, False)
        assert stopped.reason

    within(service, main)


@pytest.mark.parametrize("by_hand", [True, False])
def test_a_container_that_was_stopped_before_it_started_says_if_a_person_did_it(
    service: Service, by_hand: bool
) -> None:
    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("waits", started_by="me"), token())
        if by_hand:
            await service.stop_by_hand(backend, launched.handle)
        else:
            await backend.stop(launched.handle, "revoked")
        stopped = await seen(backend, launched.handle, lambda o: o.seen is Seen.STOPPED)
        assert (stopped.exit_code, stopped.started, stopped.by_hand) == (None, False, by_hand)
        if service.name != "fake":
            assert ("not wanted" if by_hand else "revoked") in stopped.reason

    within(service, main)


def test_a_lost_host_leaves_no_exit_code_on_a_started_container(service: Service) -> None:
    async def main(backend: Backend) -> None:
        launched = await backend.launch(service.spec("host-lost", started_by="me"), token())
        stopped = await seen(backend, launched.handle, lambda o: o.seen is Seen.STOPPED)
        assert (stopped.exit_code, stopped.started) == (None, True)

    within(service, main)


def test_the_same_request_under_the_same_token_is_the_same_container_if_the_service_says_so(
    service: Service,
) -> None:
    async def main(backend: Backend) -> None:
        spec, one = service.spec("long", started_by="me"), token()
        first = await backend.launch(spec, one)
        again = await backend.launch(spec, one)
        assert (again.handle == first.handle) is service.facts.repeatable
        assert service.containers() == (1 if service.facts.repeatable else 2)

    within(service, main)


def test_another_request_under_the_same_token_conflicts_and_names_the_container(service: Service) -> None:
    if not service.facts.repeatable:
        pytest.skip("it has no tokens")

    async def main(backend: Backend) -> None:
        one = token()
        first = await backend.launch(service.spec("long", started_by="me"), one)
        with pytest.raises(BackendError) as conflict:
            await backend.launch(service.spec("long", started_by="me", jwt="second"), one)
        assert conflict.value.kind is Kind.CONFLICT
        assert conflict.value.resource_ids == (first.handle.id,)
        assert service.containers() == 1

    within(service, main)


def test_another_token_is_another_container(service: Service) -> None:
    async def main(backend: Backend) -> None:
        spec = service.spec("long", started_by="me")
        first, second = [await backend.launch(spec, token()) for _ in range(2)]
        assert first.handle != second.handle

    within(service, main)


def test_unknown_containers_are_missing_and_do_not_spoil_known_ones(service: Service) -> None:
    async def main(backend: Backend) -> None:
        known = (await backend.launch(service.spec("long", started_by="me"), token())).handle
        unknown = known.id[:-6] + "abcdef"
        observations = {o.handle.id: o for o in await backend.describe(known.scope, [unknown, known.id])}
        assert observations[unknown].seen is Seen.MISSING
        assert observations[known.id].seen is not Seen.MISSING

    within(service, main)


def test_a_full_batch_is_described_in_one_call(service: Service) -> None:
    async def main(backend: Backend) -> None:
        handles = []
        async with anyio.create_task_group() as tasks:

            async def launch() -> None:
                handles.append((await backend.launch(service.spec("long", started_by="me"), token())).handle)

            for _ in range(backend.describe_batch):
                tasks.start_soon(launch)
        observations = await backend.describe(handles[0].scope, [h.id for h in handles])
        assert {o.handle for o in observations} == set(handles)

    within(service, main)


def test_find_lists_what_carries_the_mark_stopped_ones_included(service: Service) -> None:
    async def main(backend: Backend) -> None:
        one, other = mark(), mark()
        running = (await backend.launch(service.spec("long", started_by=one), token())).handle
        stopped = (await backend.launch(service.spec("quick", started_by=one), token())).handle
        await backend.launch(service.spec("long", started_by=other), token())
        await seen(backend, stopped, lambda o: o.seen is Seen.STOPPED)
        assert set(await backend.search(running.scope, one)) == {running, stopped}
        assert list(await backend.search(running.scope, mark())) == []

    within(service, main)


def test_stop_ends_a_container_and_may_be_repeated(service: Service) -> None:
    async def main(backend: Backend) -> None:
        handle = (await backend.launch(service.spec("long", started_by="me"), token())).handle
        await seen(backend, handle, lambda o: o.seen is Seen.RUNNING)
        await backend.stop(handle, "not wanted any more")
        await backend.stop(handle, "not wanted any more")
        stopped = await seen(backend, handle, lambda o: o.seen is Seen.STOPPED)
        assert stopped.exit_code not in (0, None)

    within(service, main)


def test_stopping_what_does_not_exist_is_not_found(service: Service) -> None:
    async def main(backend: Backend) -> None:
        handle = (await backend.launch(service.spec("long", started_by="me"), token())).handle
        with pytest.raises(BackendError) as problem:
            await backend.stop(Handle(handle.scope, handle.id[:-6] + "abcdef"), "nothing")
        assert problem.value.kind is Kind.NOT_FOUND

    within(service, main)


def test_check_passes_where_requests_would(service: Service) -> None:
    if isinstance(service, Elsewhere):
        pytest.skip("it is home that is checked")

    async def main(backend: Backend) -> None:
        await backend.check()

    within(service, main)


@pytest.mark.parametrize("kind", [Kind.THROTTLED, Kind.AMBIGUOUS, Kind.CAPACITY, Kind.CREDENTIALS, Kind.REFUSED])
def test_a_launch_that_fails_says_what_that_means_and_starts_nothing(service: Service, kind: Kind) -> None:
    if service.name == "batch" and kind is Kind.CAPACITY:
        pytest.skip("Batch takes every job, and lets it wait")

    async def main(backend: Backend) -> None:
        service.fail("launch", kind, times=1)
        one = token()
        with pytest.raises(BackendError) as problem:
            await backend.launch(service.spec("long", started_by="me"), one)
        assert problem.value.kind is kind
        assert service.containers() == 0
        await backend.launch(service.spec("long", started_by="me"), one)
        assert service.containers() == 1

    within(service, main)


def test_a_reply_lost_after_the_work_was_done_is_found_under_the_token(service: Service) -> None:
    if not service.facts.repeatable:
        pytest.skip("it has no tokens")

    async def main(backend: Backend) -> None:
        service.fail("launch:after", Kind.AMBIGUOUS, times=1)
        spec, one = service.spec("long", started_by="me"), token()
        with pytest.raises(BackendError) as problem:
            await backend.launch(spec, one)
        assert problem.value.kind is Kind.AMBIGUOUS
        assert service.containers() == 1
        await backend.launch(spec, one)
        assert service.containers() == 1

    within(service, main)


def test_a_reply_lost_after_the_work_was_done_is_found_by_the_mark(service: Service) -> None:
    async def main(backend: Backend) -> None:
        service.fail("launch:after", Kind.AMBIGUOUS, times=1)
        me = mark()
        spec = service.spec("long", started_by=me)
        with pytest.raises(BackendError):
            await backend.launch(spec, token())
        assert spec.started_by is not None
        found = await backend.search(spec.scope, spec.started_by)
        assert len(found) == 1
        # As one who does not know the request looks for it.
        assert list(await backend.search(service.default_scope, me)) == list(found)
        [observation] = await backend.describe(spec.scope, [found[0].id])
        assert observation.started_by == me

    within(service, main)


def test_a_container_knows_the_scope_of_its_identifier(service: Service) -> None:
    async def main(backend: Backend) -> None:
        handle = (await backend.launch(service.spec("long", started_by="me"), token())).handle
        assert handle.scope == service.default_scope
        assert handle.scope in backend.scopes_of(handle.id)
        if len(backend.scopes_of(handle.id)) == 1:
            assert backend.scope_of(handle.id) == handle.scope
        else:
            assert isinstance(service, Elsewhere)
            assert service.name == "batch"
            assert backend.scope_of(handle.id) is None
        assert backend.scope_of(None) == ("home" if isinstance(service, Elsewhere) else "default")

    within(service, main)
