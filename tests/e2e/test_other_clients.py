"""Other clients, as docs/local.md has them, find their way about on the local ECS."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from tests.e2e.shell import Shell, commands_of

pytestmark = pytest.mark.e2e

Typed = Callable[[str, str], str]

PAGE = (Path(__file__).parents[2] / "docs" / "local.md").read_text()


@pytest.fixture
def typed(tmp_path: Path) -> Iterator[Typed]:
    """Types the block of the page with some words, and returns what it prints."""
    with closing(Shell(tmp_path)) as shell:

        def run(client: str, words: str) -> str:
            if shutil.which(client) is None:
                pytest.skip(f"{client} is not there")
            (commands,) = (block for block in commands_of(PAGE) if words in block)
            return shell.type(commands)

        yield run


def test_the_aws_cli_runs_a_task_and_its_waiter_sees_the_end(typed: Typed) -> None:
    assert "main\tSTOPPED\t3\n" in typed("aws", "aws ecs wait")


def test_a_run_of_dagster_succeeds_in_a_container(typed: Typed) -> None:
    printed = typed("dagster", "dagster job launch").splitlines()
    assert {"hello from a container", "RunStatus.SUCCESS"} <= set(printed)


def test_flows_of_prefect_succeed_and_fail_in_containers(typed: Typed) -> None:
    printed = typed("prefect", "prefect worker start")
    assert "finished successfully in 'Completed'" in printed
    assert "finished in state 'Failed'" in printed
    entries = json.loads(next(line for line in printed.splitlines() if line.startswith('{"entries"')))["entries"]
    assert [(one["command"], one["exit_code"]) for one in entries] == [(["prefect", "flow-run", "execute"], 0)] * 2
