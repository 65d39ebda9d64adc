"""Fixtures for tests in virtual time and on a real loop thread, and the number of steps that the walks took."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ecs_async_executor.engine import loop_thread
from tests.engine.bridged import Scheduler
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.virtual_time import VirtualTimeLoop
from tests.engine.walk import STEPS


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run every ``async def`` test that is marked ``anyio`` on a loop of its own, in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


@pytest.fixture
def cloud() -> FakeCloud:
    """Make a cloud whose containers live for moments, for tests in real time."""
    return FakeCloud(latency=0.02, plan=lambda label, nth: Plan(start_after=0.05, duration=0.1))


@pytest.fixture
def scheduler(cloud: FakeCloud) -> Iterator[Scheduler]:
    """Make a scheduler that is ended after the test."""
    scheduler = Scheduler(cloud)
    yield scheduler
    scheduler.bridge.stop(5, stop_containers=False, reason="")


@pytest.fixture
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a dead loop thread replaced at once."""
    monkeypatch.setattr(loop_thread, "RESTART_DELAYS", (0.0, 0.1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many steps were walked, so that a long run has a figure."""
    if STEPS:
        each = ", ".join(f"{name} {steps:,}" for name, steps in STEPS.items())
        terminalreporter.write_line(f"{sum(STEPS.values()):,} steps at random: {each}")
