"""The random walk with events: whatever becomes of them on their way, nothing is decided by them."""

from __future__ import annotations

from unittest import mock

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from ecs_async_executor.core import listening
from ecs_async_executor.core.backend import Seen
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.listening import Hint
from ecs_async_executor.core.policy import Rules
from tests.engine.events import FakeQueue
from tests.engine.harness import Harness
from tests.engine.walk import WALK_OPTIONS, Walk

SHARES = st.sampled_from([0.0, 0.5, 1.0])
PROBLEMS = {
    "gone": BackendError(Kind.REFUSED, "QueueDoesNotExist", "The specified queue does not exist."),
    "no answer": BackendError(Kind.AMBIGUOUS, "ReadTimeoutError", "Read timeout"),
    "expired": BackendError(Kind.CREDENTIALS, "ExpiredTokenException", "expired"),
}
STATES = st.sampled_from([Seen.RUNNING, Seen.STOPPED, Seen.PENDING, None])


class Listened(Walk):
    """With a queue of events that all schedulers share. Sweeps stretch after a few ends, to be stretched often."""

    FAILURE_MEMORY = "conflict"

    def __init__(self) -> None:
        self.events = FakeQueue()
        self.share = 1.0
        self.told: dict[str, tuple[bool, bool]] = {}
        self._sooner = mock.patch.object(listening, "ENDS_PER_DOUBLING", 1)
        self._sooner.start()
        super().__init__()

    def make_harness(self, rules: Rules) -> Harness:
        queues = {HOME: self.events}
        return Harness(self.cloud, options=WALK_OPTIONS, rules=rules, render=self.render, events=queues)

    def pass_time(self, seconds: float) -> None:
        super().pass_time(seconds)
        now, hints = self.loop.time(), []
        for container in self.cloud.containers.values():
            state = container.ran_user_code(now), container.alive(now)
            if self.told.get(container.handle.id, (False, True)) != state:
                self.told[container.handle.id] = state
                if self.random.random() < self.share:
                    hints.append(Hint(container.handle.id, Seen.RUNNING if state[1] else Seen.STOPPED))
        self.send(*hints)

    def send(self, *hints: Hint | None) -> None:
        async def main() -> None:
            for hint in hints:
                self.events.send(hint)

        self.loop.run_until_complete(main())

    @rule(share=SHARES)
    def events_come_or_are_lost(self, share: float) -> None:
        self.share = share

    @precondition(lambda self: self.cloud.containers)
    @rule(seen=STATES, times=st.integers(1, 3), data=st.data())
    def an_event_comes_late_twice_or_before_its_time(
        self, seen: Seen | None, times: int, data: st.DataObject
    ) -> None:
        handle_id = data.draw(st.sampled_from(sorted(self.cloud.containers)))
        self.send(*[Hint(handle_id, seen)] * times)

    @rule(hint=st.sampled_from([None, Hint("nobody's", Seen.STOPPED), Hint("nobody's", Seen.RUNNING)]))
    def something_else_comes(self, hint: Hint | None) -> None:
        self.send(hint)

    @rule(problem=st.sampled_from(sorted(PROBLEMS)), seconds=st.sampled_from([1.0, 30.0, 300.0]))
    def queue_fails(self, problem: str, seconds: float) -> None:
        until = self.loop.time() + seconds
        self.events.fault = lambda call: PROBLEMS[problem] if self.loop.time() < until else None

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            self._sooner.stop()
