"""Tests in virtual time, and what a run of the walks comes to."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.virtual_time import VirtualTimeLoop
from tests.engine.walk import STEPS


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run every ``async def`` test that is marked ``anyio`` on a loop of its own, in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many steps were walked, so that a long run has a figure."""
    if STEPS:
        each = ", ".join(f"{name} {steps:,}" for name, steps in STEPS.items())
        terminalreporter.write_line(f"{sum(STEPS.values()):,} steps at random: {each}")
