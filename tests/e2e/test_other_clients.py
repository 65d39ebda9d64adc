"""The AWS CLI, as docs/local.md has it, finds its way about on the local ECS."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from tests.e2e.shell import Shell, commands_of

pytestmark = pytest.mark.e2e

PAGE = (Path(__file__).parents[2] / "docs" / "local.md").read_text()


@pytest.mark.skipif(shutil.which("aws") is None, reason="the AWS CLI is not there")
def test_the_aws_cli_runs_a_task_and_its_waiter_sees_the_end(tmp_path: Path) -> None:
    (commands,) = (block for block in commands_of(PAGE) if "aws ecs" in block)
    with closing(Shell(tmp_path)) as shell:
        assert "main\tSTOPPED\t3\n" in shell.type(commands)
