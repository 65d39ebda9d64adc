"""Where a session promises these tests, one that cannot be run has failed."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import TypeVar

import pytest

NO_SKIPS = "ECS_ASYNC_TESTS_NO_SKIPS"
"""The environment variable that says so."""

AnyReport = TypeVar("AnyReport", pytest.CollectReport, pytest.TestReport)


def _promised(report: AnyReport) -> AnyReport:
    if report.skipped and os.environ.get(NO_SKIPS):
        why = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{NO_SKIPS} is set. {why}"
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return _promised((yield))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return _promised((yield))
