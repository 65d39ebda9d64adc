"""The heartbeats of a scheduler that is nothing but its executor."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from typing import Any


class Heartbeats:
    """A scheduler's heartbeats: how long they took, and which events they brought."""

    def __init__(self, executor: Any) -> None:
        self.executor = executor
        self.states: Counter[str] = Counter()
        self.last: dict[Any, str] = {}
        self.info: dict[Any, Any] = {}
        self.walls: list[float] = []

    def until(self, done: Callable[[], object], timeout: float = 180.0) -> None:
        deadline = time.monotonic() + timeout
        while not done():
            assert time.monotonic() < deadline, (self.states, self.executor.statistics())
            began = time.perf_counter()
            self.executor.heartbeat()
            self.walls.append(time.perf_counter() - began)
            for key, (state, info) in self.executor.get_event_buffer().items():
                self.states[str(state)] += 1
                self.last[key] = str(state)
                self.info[key] = info
            time.sleep(0.01)

    def during(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        self.until(lambda: time.monotonic() >= until, seconds + 30)
