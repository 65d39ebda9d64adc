"""The session with the service: what it counts, when it pauses, and since when launches get no answer."""

from __future__ import annotations

from collections.abc import Awaitable

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.engine.meters import Meters
from ecs_async_executor.engine.session import UNANSWERED_SECONDS, Session
from ecs_async_executor.engine.statistics import percentiles
from tests.engine.cloud import FakeCloud

pytestmark = pytest.mark.anyio

SPEC = LaunchSpec({"label": "a"}, "default", "main", "FARGATE", "ti")


class Calls:
    """A session over a cloud whose next answer the test sets."""

    def __init__(self) -> None:
        self.answer: Exception | None = None
        self.resumed = 0
        self.meters = Meters()
        cloud = FakeCloud(fault=self.fault, latency=0.5)
        self.session = Session(cloud, self.meters, event="cloud.{}".format, resumed=self.resume)

    def fault(self, operation: str, _: FakeCloud) -> BackendError | None:
        if isinstance(self.answer, BackendError) or self.answer is None:
            return None if operation.endswith(":after") else self.answer
        raise self.answer

    def resume(self) -> None:
        self.resumed += 1

    async def fail(self, call: Awaitable[object], kind: Kind, answer: Exception | None = None) -> None:
        self.answer = answer or BackendError(kind, kind.name, "words")
        with pytest.raises(BackendError) as caught:
            await call
        assert caught.value.kind is kind
        self.answer = None


async def test_calls_errors_throttles_and_latencies_are_counted() -> None:
    calls = Calls()
    assert percentiles(calls.session.latencies) == (None, None)
    await calls.session.launch(SPEC, "1")
    await calls.session.check()
    await calls.fail(calls.session.describe("default", ["1"]), Kind.THROTTLED)
    meters = calls.meters
    assert (meters.launches, meters.api_calls, meters.api_errors, meters.throttles) == (1, 3, 1, 1)
    assert percentiles(calls.session.latencies) == (0.5, 0.5)


async def test_refused_credentials_pause_all_calls_and_one_at_a_time_probes() -> None:
    calls = Calls()
    session = calls.session
    await calls.fail(session.check(), Kind.CREDENTIALS)
    now = anyio.current_time()
    paused = session.paused
    assert paused == "AWS credentials: CREDENTIALS: words"
    assert not session.may_call(now)
    assert session.next_probe_at == now + 5.0
    await anyio.sleep(5.0)
    assert session.begins_call(anyio.current_time())
    assert not session.begins_call(anyio.current_time())
    await session.check()
    assert session.paused is None
    assert calls.resumed == 1


async def test_a_probe_that_is_refused_for_another_reason_shows_that_the_credentials_work() -> None:
    calls = Calls()
    await calls.fail(calls.session.check(), Kind.CREDENTIALS)
    await anyio.sleep(5.0)
    assert calls.session.begins_call(anyio.current_time())
    await calls.fail(calls.session.check(), Kind.THROTTLED)
    paused = calls.session.paused
    assert paused, "a throttle comes before the credentials are looked at"
    await anyio.sleep(5.0)
    assert calls.session.begins_call(anyio.current_time())
    await calls.fail(calls.session.check(), Kind.REFUSED)
    assert calls.session.paused is None


async def test_an_exception_of_the_backend_is_a_call_without_an_answer() -> None:
    calls = Calls()
    await calls.fail(calls.session.launch(SPEC, "1"), Kind.AMBIGUOUS, KeyError("a bug"))
    assert calls.meters.api_errors == 1


async def test_only_launches_tell_whether_launches_are_answered() -> None:
    calls = Calls()
    await calls.fail(calls.session.launch(SPEC, "1"), Kind.AMBIGUOUS)
    begun = anyio.current_time()
    await calls.session.check()
    await calls.fail(calls.session.launch(SPEC, "1"), Kind.AMBIGUOUS)
    assert not calls.session.is_unanswered(begun + UNANSWERED_SECONDS - 0.1)
    assert calls.session.is_unanswered(begun + UNANSWERED_SECONDS)
    await calls.fail(calls.session.launch(SPEC, "1"), Kind.CAPACITY)
    assert not calls.session.is_unanswered(begun + UNANSWERED_SECONDS)
