"""What is installed: every module can be imported, and the files that are no modules are there."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.metadata import metadata
from importlib.resources import files

import pytest

IMPORTS = """
import importlib, pkgutil, ecs_async_executor as package
names = [one.name for one in pkgutil.walk_packages(package.__path__, "ecs_async_executor.")]
names = [name for name in names if not name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
print(len(names))
"""


def test_every_module_can_be_imported() -> None:
    pytest.importorskip("airflow")
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.splitlines()[-1]) > 200


@pytest.mark.parametrize(
    "name",
    [
        "py.typed",
        "provider_config.json",
        "settings/rules-batch.schema.json",
        "settings/rules-ecs.schema.json",
        "adapter/ui/static/page.css",
        "adapter/ui/templates/base.html",
        "local/demo/dags",
    ],
)
def test_what_is_no_module_is_installed_too(name: str) -> None:
    there = files("ecs_async_executor").joinpath(name)
    assert there.is_file() or there.is_dir()


def test_the_text_for_an_index_of_packages_leads_nowhere_that_an_index_does_not_have() -> None:
    text = metadata("ecs-async-executor")["Description"]
    assert text.startswith("# ecs-async-executor")
    assert "AsyncEcsExecutor" in text
    assert "<img" not in text
    assert [link for link in re.findall(r"\]\(([^)]*)\)", text) if not link.startswith("https://")] == []
