"""docs/try-it.md works: its files are written, its commands run in one shell, in their order."""

from __future__ import annotations

import re
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from tests.e2e.shell import PATIENCE, Shell, commands_of

pytestmark = pytest.mark.e2e

PAGE = (Path(__file__).parents[2] / "docs" / "try-it.md").read_text()
FILES = dict(
    re.findall(r"^`([\w./-]+)`[^`]*\n\n```(?:ini|json|python)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
)


def states(folder: Path) -> dict[str, str | None]:
    with closing(sqlite3.connect(f"{(folder / 'airflow.db').as_uri()}?mode=ro", uri=True)) as database:
        return dict(database.execute("SELECT task_id, state FROM task_instance").fetchall())


def ends(shell: Shell) -> dict[str, str | None]:
    """Wait until both tasks have ended; return their states."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = states(shell.folder)
        if len(found) == 2 and set(found.values()) <= {"success", "failed"}:
            return found
        assert time.monotonic() < deadline, f"{found}\n{shell.logs()}"
        time.sleep(0.5)


def test_the_page_leads_to_a_task_that_ran_and_to_the_reason_of_one_that_failed(tmp_path: Path) -> None:
    assert sorted(FILES) == ["airflow.cfg", "dags/hello.py", "task-definition.json"]
    start, run, look, why, end = commands_of(PAGE)
    with closing(Shell(tmp_path)) as shell:
        for name, text in FILES.items():
            path = tmp_path / name
            path.parent.mkdir(exist_ok=True)
            path.write_text(shell.here(text))

        checked = shell.type(start)
        assert "task definition 'airflow': good" in checked
        assert "\nWarning: " not in checked
        shell.type(run)
        assert ends(shell) == {"greets": "success", "devours": "failed"}
        assert re.search(r"devours +\| failed", shell.type(look))
        said = shell.type(why)
        assert re.search(r"^exit code +\| 137", said, re.MULTILINE)
        assert "OutOfMemoryError" in said
        assert re.search(r"^hint +\| \w", said, re.MULTILINE)
        assert "50 MB are in memory" in said
        shell.type(end)
        _, alive = psutil.wait_procs(shell.left(), timeout=60)
        assert [process.cmdline() for process in alive] == []
