"""The sessions of nox: those that are named anywhere exist, and each corner tests what it can change."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NOXFILE = ast.parse((ROOT / "noxfile.py").read_text())


def sessions() -> set[str]:
    found = set()
    for one in NOXFILE.body:
        if isinstance(one, ast.FunctionDef):
            for decorator in map(ast.unparse, one.decorator_list):
                if decorator.startswith("nox.session"):
                    named = re.search(r"name='(\w+)'", decorator)
                    found.add(named[1] if named else one.name)
    return found


def folders_of(selection: str) -> set[str]:
    """Return the folders of tests that a constant of the noxfile names."""
    (found,) = (
        one.value
        for one in NOXFILE.body
        if isinstance(one, ast.Assign) and ast.unparse(one.targets[0]) == selection
    )
    texts = (one.value for one in ast.walk(found) if isinstance(one, ast.Constant))
    return {text.removeprefix("tests/") for text in map(str, texts) if text.startswith("tests/")}


def places() -> list[Path]:
    found = [*sorted(ROOT.glob(".github/**/*.yml")), ROOT / ".ci" / "run", ROOT / "README.md"]
    return [path for path in [*found, ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/*.md"))] if path.exists()]


@pytest.mark.parametrize("path", places(), ids=lambda path: path.name)
def test_the_sessions_that_are_named_exist(path: Path) -> None:
    text = path.read_text()
    named = set(re.findall(r"\bnox -s \"?(\w+)", text))
    for line in re.findall(r"\bcheck -s (.+?)(?: --|;| \|\||$)", text, re.MULTILINE):
        named.update(re.findall(r"\b[a-z]\w*", re.sub(r"\(.*?\)", "", line)))
    assert named - sessions() == set()


@pytest.mark.parametrize("path", places(), ids=lambda path: path.name)
def test_the_constraints_that_are_named_exist(path: Path) -> None:
    named = set(re.findall(r"\bconstraints/[\w.-]+\.txt", path.read_text()))
    assert {name for name in named if not (ROOT / name).exists()} == set()


def test_every_session_is_in_the_table_of_sessions() -> None:
    table = (ROOT / "CONTRIBUTING.md").read_text()
    assert {name for name in sessions() if f"| `nox -s {name}` |" not in table} == set()


IMPORTS = {
    "OF_AIRFLOW": r"^\s*(?:from|import) airflow\b",
    "OF_THE_SDK": r"^\s*(?:from|import) (?:aiobotocore|botocore)\b|\blocal_ecs\(",
}


@pytest.mark.parametrize("selection", IMPORTS)
def test_a_corner_runs_the_folders_that_import_what_it_changes(selection: str) -> None:
    wanted = {
        path.relative_to(ROOT / "tests").parts[0]
        for path in (ROOT / "tests").rglob("*.py")
        if re.search(IMPORTS[selection], path.read_text(), re.MULTILINE)
    }
    elsewhere = {"chaos", "e2e", "infrastructure", "local"}  # sessions of their own, or not about it
    assert wanted
    assert wanted - elsewhere <= folders_of(selection)
