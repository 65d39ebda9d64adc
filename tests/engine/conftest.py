"""What a run of the walks comes to."""

from __future__ import annotations

import pytest

from tests.engine.walk import STEPS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how many steps were walked, so that a long run has a figure."""
    if STEPS:
        each = ", ".join(f"{name} {steps:,}" for name, steps in STEPS.items())
        terminalreporter.write_line(f"{sum(STEPS.values()):,} steps at random: {each}")
