"""A scheduler that drives a bridge over a service, as the executor would."""

from __future__ import annotations

import time
import uuid
from typing import Any

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.messages import Finished, Launch, Report
from ecs_async_executor.engine.bridge import Bridge
from tests.contract.services import TUNING, Elsewhere, Local


class Scheduler:
    """A scheduler's main thread."""

    def __init__(self, service: Local | Elsewhere, life: str = "quick", **options: Any) -> None:
        self.service = service
        self.life = life
        self.reports: list[Report] = []
        self.bridge = Bridge(
            service=service.facts,
            backend=service.backend,
            render=self.render,
            **{"tuning": TUNING, **options},
            max_attempts=3,
            destinations=service.destinations,
        )
        self.bridge.start()

    def render(self, launch: Launch) -> LaunchSpec:
        return self.service.spec(
            self.life, started_by=launch.started_by, launch_id=launch.launch_id, jwt=str(time.time())
        )

    def launches(self, count: int) -> list[Launch]:
        return [
            Launch(identity, identity, None, 0, identity, time.time(), identity, tokened=True)
            for identity in (str(uuid.uuid4()) for _ in range(count))
        ]

    def heartbeat(self, *launches: Launch) -> None:
        for launch in launches:
            self.bridge.submit(launch)
        self.bridge.drain(self.reports.append)
        self.bridge.heartbeat()

    def run_until_finished(self, count: int, timeout: float = 60.0) -> None:
        deadline = time.monotonic() + timeout
        while len(self.outcomes()) < count:
            assert time.monotonic() < deadline, f"{len(self.outcomes())} of {count}: {self.bridge.statistics()}"
            self.heartbeat()
            time.sleep(0.02)

    def outcomes(self) -> list[Finished]:
        return [r for r in self.reports if isinstance(r, Finished)]

    def stop(self, *, containers: bool = False) -> bool:
        return self.bridge.stop(10, stop_containers=containers, reason="the test has ended")
