"""A bridge on a real loop thread, in real time, as a scheduler drives it."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Finished, Launch, Report
from ecs_async_executor.engine.bridge import Bridge
from ecs_async_executor.engine.engine import Engine
from ecs_async_executor.services.ecs import SERVICE as ECS
from ecs_async_executor.settings import Tuning
from tests.engine.cloud import FakeCloud
from tests.engine.harness import launch_id

TUNING = Tuning(poll_interval=0.05, launch_rate=900.0, launch_rate_max=1000.0, launch_burst=100)


def render(launch: Launch) -> LaunchSpec:
    return LaunchSpec({"label": launch.label}, "default", "main", "FARGATE", launch.started_by)


def a_launch(label: str) -> Launch:
    identity = launch_id()
    return Launch(identity, label, None, 0, identity, time.time(), label)


class Scheduler:
    """The scheduler's side of a bridge."""

    def __init__(self, cloud: FakeCloud, **options: Any) -> None:
        self.cloud = cloud
        self.reports: list[Report] = []
        options.setdefault("backend", lambda: cloud)
        options.setdefault("render", render)
        options.setdefault("service", ECS)
        self.bridge = Bridge(tuning=TUNING, max_attempts=3, **options)

    def heartbeat(self) -> None:
        self.bridge.drain(self.reports.append)
        self.bridge.heartbeat()

    def until(self, condition: Callable[[], Any], timeout: float = 20.0) -> None:
        deadline = time.monotonic() + timeout
        while not condition():
            assert time.monotonic() < deadline, "it did not happen"
            self.heartbeat()
            time.sleep(0.01)

    def works(self) -> bool:
        """The loop thread lives, and its engine has started."""
        return self.bridge.loop_thread.is_working()

    def outcomes(self) -> dict[Any, bool]:
        return {r.key: r.success for r in self.reports if isinstance(r, Finished)}


DEADLY = pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
"""For tests whose loop thread dies: what was to run next never begins."""


def die(_: Engine) -> None:
    """Have the loop thread die, for :meth:`LoopThread.tell`."""
    raise SystemExit("the loop thread dies")


class Unopenable(FakeCloud):
    """Has no client: it cannot be opened."""

    def open(self) -> AbstractAsyncContextManager[None]:
        raise RuntimeError("cannot be opened")
