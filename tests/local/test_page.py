"""docs/local.md says what is so: its code runs."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "local.md").read_text()
PYTHON = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("number", range(3))
def test_the_code_of_the_page_runs(number: int) -> None:
    assert len(PYTHON) == 3
    exec(compile(PYTHON[number], "local.md", "exec"), {})  # noqa: S102 - the page is ours


def test_the_program_of_the_page_runs(tmp_path: Path) -> None:
    (program,) = (
        block
        for block in re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
        if "_local/faults" in block
    )
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    here = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)))
    done = subprocess.run(
        ["bash", "-ec", program.replace("5055", str(port))],  # noqa: S607 - as a person starts it
        cwd=tmp_path,
        env={**os.environ, "PATH": here, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    health, added, faults, ledger = (json.loads(part) for part in re.findall(r"\{.*?\}(?=\{|$)", done.stdout))
    assert health["status"] == "ok"
    assert added == {"ids": [1]}
    assert [one["kind"] for one in faults["faults"]] == ["throttle"]
    assert ledger == {"entries": []}
