"""The weather of destinations in random walks: one may hang, refuse, throttle, and come back."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import rule

from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import BackendError
from tests.engine.cloud import FakeCloud
from tests.engine.walk import ERRORS, Walk

FAR = ("eu", "us")
EVERYWHERE = (HOME, *FAR)


def no_fault(operation: str, cloud: FakeCloud) -> BackendError | None:
    return None


class Weather(Walk):
    """With several destinations, each of which has its own weather."""

    ELSEWHERE = FAR

    @rule(
        name=st.sampled_from(EVERYWHERE),
        how=st.sampled_from(["hangs", "hangs", "expired", "throttled", "denied", "comes back"]),
        seconds=st.sampled_from([30.0, 300.0, 1e9]),
    )
    def destination_goes_down_or_comes_back(self, name: str, how: str, seconds: float) -> None:
        self.turn(name, how, self.loop.time() + seconds)

    def turn(self, name: str, how: str, until: float) -> None:
        there = self.cloud.there[name]
        there.hangs_for, there.hangs_until, there.fault = 0.0, until, no_fault
        if how == "hangs":
            there.hangs_for = 15.0
        elif how != "comes back":
            error = ERRORS[how]

            def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
                return None if operation.endswith(":after") or self.loop.time() >= until else error

            there.fault = fault

    def all_is_well_since(self, then: float) -> bool:
        well = all(there.hangs_for == 0.0 and there.fault is no_fault for there in self.cloud.there.values())
        return well and super().all_is_well_since(then)

    def all_come_back(self) -> None:
        for name in EVERYWHERE:
            self.turn(name, "comes back", 0.0)

    def only_one_is_down(self, *ways: str) -> str:
        """Have one destination go down for good, and all others be well; return its name."""
        self.faults.clear()
        self.unreadable_until = 0.0
        down = self.random.choice(EVERYWHERE)
        self.all_come_back()
        self.turn(down, self.random.choice(ways), 1e9)
        return down
