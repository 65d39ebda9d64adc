"""docs/operations.md names every event of the log, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import ecs_async_executor

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PACKAGE = Path(ecs_async_executor.__file__).parent
MADE_OF_PARTS = {"container.failed", "launch.failed", "stop.refused", "stop.gave_up"}
"""Names of which a part is a variable in the code."""


def _literals(call: ast.Call) -> Iterator[str]:
    for argument in call.args:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
            yield argument.value


def _events_in(path: Path) -> Iterator[str]:
    tree = ast.parse(path.read_text())
    names = {node.value for node in ast.walk(tree) if isinstance(node, ast.keyword) and node.arg == "name"}
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or node in names:  # the loop's tasks have names of that form, too
            continue
        function = node.func
        name = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
        if name in {"event", "_event"}:
            yield from _literals(node)
        elif isinstance(function, ast.Attribute) and name in {"add", "_write"}:
            level, *rest = [*_literals(node), ""]
            if level in {"info", "warning", "error"} and rest[0]:
                yield rest[0]


def _events() -> set[str]:
    files = [path for path in PACKAGE.rglob("*.py") if "local" not in path.relative_to(PACKAGE).parts]
    return {event for path in files for event in _events_in(path)} | MADE_OF_PARTS


def _glossary() -> set[str]:
    page = PAGE.read_text()
    table = page[page.index("\n## Log events") :]
    cells = [line.split("|")[1] for line in table.splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`([^`]+)`", cell)}


def test_the_glossary_names_every_event_of_the_log() -> None:
    assert sorted(_events() - _glossary()) == []


def test_the_glossary_names_no_event_that_the_log_never_has() -> None:
    code = "".join(path.read_text() for path in PACKAGE.rglob("*.py"))
    unknown = [name for name in _glossary() - MADE_OF_PARTS if f'"{name}"' not in code and f".{name}" not in code]
    assert sorted(unknown) == []
