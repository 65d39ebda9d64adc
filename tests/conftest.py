"""What all tests share: each worker of pytest-xdist has an Airflow home of its own."""

from __future__ import annotations

import os
from pathlib import Path

if (worker := os.environ.get("PYTEST_XDIST_WORKER")) and "AIRFLOW_HOME" in os.environ:
    os.environ["AIRFLOW_HOME"] = str(Path(os.environ["AIRFLOW_HOME"]) / worker)
