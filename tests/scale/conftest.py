"""Airflow with the settings of a day, and a home of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from typing import Any

import pytest

from tests.engine.virtual_time import VirtualTimeLoop
from tests.scale.settings import SETTINGS

# Airflow reads its home when it is imported, which is before any fixture; the other tests do not need another.
if "AIRFLOW_HOME" not in os.environ:
    os.environ["AIRFLOW_HOME"] = _home = tempfile.mkdtemp(prefix="ecs-async-airflow-")
    atexit.register(shutil.rmtree, _home, ignore_errors=True)
os.environ.setdefault("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
os.environ.setdefault("AIRFLOW__API_AUTH__JWT_SECRET", SETTINGS["AIRFLOW__API_AUTH__JWT_SECRET"])


@pytest.fixture(autouse=True)
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Configure the executor, by environment, for each test."""
    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    """Run every ``async def`` test that is marked ``anyio`` in virtual time."""
    return "asyncio", {"loop_factory": VirtualTimeLoop}
