"""
What all tests share: each worker of pytest-xdist has an Airflow home of its own, and the long tests begin first.

The tests of a file share servers and go to one worker; those that are marked as slow need none but their own.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

worker = os.environ.get("PYTEST_XDIST_WORKER")
if worker and "AIRFLOW_HOME" in os.environ:
    os.environ["AIRFLOW_HOME"] = str(Path(os.environ["AIRFLOW_HOME"]) / worker)

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Say what ``--dist loadgroup`` may send to different workers, and put what is slow before the rest."""
    if worker is None:
        return
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    apart = 0
    for item in items:
        group = item.path.relative_to(HERE).as_posix()
        if item.get_closest_marker("slow") is not None:
            apart += 1
            group = f"slow-{apart}"
        item.add_marker(pytest.mark.xdist_group(group))
