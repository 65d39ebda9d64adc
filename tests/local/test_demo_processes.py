"""The processes of the demo: started, looked after and ended."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ecs_async_executor.local.demo.interrupts import Interrupts
from ecs_async_executor.local.demo.processes import MARK, DiedError, Processes

FOREVER = (sys.executable, "-ISc", "import time; time.sleep(600)")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    made = Processes(tmp_path, {**os.environ, MARK: tmp_path.name}, Interrupts())
    yield made
    made.stop(patience=0)


def test_a_process_that_dies_while_another_is_run_to_its_end_is_named(processes: Processes) -> None:
    processes.start("server", sys.executable, "-ISc", "raise SystemExit(3)")
    with pytest.raises(DiedError, match="The server ended unexpectedly with status 3"):
        processes.run("client", *FOREVER)


def test_a_process_that_is_run_has_settings_of_its_own_and_can_be_told_of(processes: Processes) -> None:
    looks: list[int] = []
    script = "import os, time; time.sleep(0.2); print(os.environ['OWN'])"
    processes.run("one", sys.executable, "-c", script, settings={"OWN": "yes"}, meanwhile=lambda: looks.append(1))
    assert processes.log("one").read_text() == "yes\n"
    assert looks
    assert "OWN" not in processes.environment


def test_a_process_that_fails_is_named(processes: Processes) -> None:
    with pytest.raises(DiedError, match="The one ended unexpectedly with status 4"):
        processes.run("one", sys.executable, "-ISc", "raise SystemExit(4)")


def test_while_processes_end_those_that_still_run_are_named(processes: Processes) -> None:
    asked = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('ready', flush=True); "
    processes.start("deaf", sys.executable, "-ISc", asked + "import time; time.sleep(600)")
    while "ready" not in processes.log("deaf").read_text():
        processes.check()
    named: list[str] = []
    processes.stop(("deaf",), patience=0.2, meanwhile=named.append)
    assert set(named) == {"deaf"}
