"""
A hook of MkDocs: the site shows the same Markdown that a forge shows.

A forge and Python-Markdown differ in how they read lists, and a link on a forge may lead out of ``docs``. So lists
are written as Python-Markdown wants them, and whatever outside of ``docs`` is linked to becomes a page.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT: Final = Path(__file__).parents[2]

PAGES: Final = {
    "CHANGELOG.md": "changelog.md",
    "CODE_OF_CONDUCT.md": "code-of-conduct.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "reporting.md",
    "benchmarks/results/NOTES.md": "performance-notes.md",
}
"""Markdown outside of ``docs``, and the pages that it becomes."""

FOLDERS: Final = ("benchmarks/results", "docs/monitoring", "infrastructure")
"""Folders of which each file becomes a page that shows it, and each folder one that lists it."""

LANGUAGES: Final = {".tf": "terraform", ".dockerignore": "text", "": "docker"}
"""Languages of files whose suffix is not the name of one."""

_LINK: Final = re.compile(r"(?<=\]\()([^()\s#:]+)(?=[#)])")
_FILE_NAME: Final = re.compile(r"\[[\w./-]+\.md\]\(([^()\s#:]+)(?=[#)])")
_FENCE: Final = re.compile(r" *(`{3,})")
_ITEM: Final = re.compile(r"( *)([-*+]|\d+\.)( +)(?=\S)")
_TABS: Final = 4


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages whose sources stand outside of ``docs``."""
    for source, uri in PAGES.items():
        files.append(File.generated(config, uri, content=(ROOT / source).read_text()))
    for folder in FOLDERS:
        paths = [path for path in (ROOT / folder).rglob("*") if "__pycache__" not in path.parts]
        for path in [ROOT / folder, *paths]:
            name = path.relative_to(ROOT).as_posix()
            if name not in PAGES and (uri := _uri(name)) not in files.src_uris:
                content = _listing(path, name) if path.is_dir() else _shown(path, name)
                files.append(File.generated(config, uri, content=content))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001
    """Let links lead to pages of the site by their titles, and indent lists as Python-Markdown wants them."""
    uri = page.file.src_uri
    if uri.startswith("files/"):
        return markdown
    origin = next((path for path, name in PAGES.items() if name == uri), f"docs/{uri}")
    linked = _LINK.sub(lambda found: _relink(found[1], origin, uri), markdown)
    titles = dict(_titles(config.nav))

    def titled(found: re.Match[str]) -> str:
        there = posixpath.normpath(posixpath.join(posixpath.dirname(uri), found[1]))
        return f"[{titles[there]}]({found[1]}" if there in titles else found[0]

    return "\n".join(_with_lists(_FILE_NAME.sub(titled, linked).splitlines()))


def _titles(nav: Any) -> Iterator[tuple[str, str]]:
    """Give each page of the navigation with its title."""
    for entry in nav:
        for title, there in entry.items():
            if isinstance(there, str):
                yield there, title
            else:
                yield from _titles(there)


def _relink(link: str, origin: str, uri: str) -> str:
    """Return a link of a file as one of the page that the file becomes."""
    path = posixpath.normpath(posixpath.join(posixpath.dirname(origin), link))
    if not (ROOT / path).exists():
        return link  # an error, which MkDocs reports as it is written
    return posixpath.relpath(_uri(path), posixpath.dirname(uri) or ".")


def _uri(path: str) -> str:
    """Return the page that a file or folder becomes, or the file of the site that it is."""
    if path in PAGES:
        return PAGES[path]
    if path == "README.md":
        return "README.md"  # that of docs, which has the same and more
    if path.startswith("docs/") and (ROOT / path).is_file():
        return path.removeprefix("docs/")
    return f"files/{path}.md"


def _shown(path: Path, name: str) -> str:
    language = LANGUAGES.get(path.suffix, path.suffix.removeprefix("."))
    return f"---\nsearch:\n  exclude: true\n---\n# {name}\n\n````{language}\n{path.read_text().rstrip()}\n````\n"


def _listing(folder: Path, name: str) -> str:
    lines = [f"# {name}", ""]
    for path in sorted(folder.iterdir(), key=lambda path: (path.is_file(), path.name)):
        if path.name != "__pycache__":
            there = path.relative_to(ROOT).as_posix()
            link = posixpath.relpath(_uri(there), posixpath.dirname(_uri(name)))
            lines.append(f"- [{path.name}]({link})")
    return "---\nsearch:\n  exclude: true\n---\n" + "\n".join(lines) + "\n"


@dataclass
class _Item:
    """An item of a list that is open: where its text begins, and whether it has an empty line."""

    column: int
    loose: bool = False


def _with_lists(lines: list[str]) -> list[str]:
    """Return lines with four spaces for each level of a list, and empty lines where Python-Markdown needs them."""
    found: list[str] = []
    items: list[_Item] = []
    fence = ""
    for line in lines:
        text = line.lstrip(" ")
        indent = len(line) - len(text)
        before = found[-1] if found else ""
        if not text:
            found.append("")
            for one in items:
                one.loose = True
            continue
        marks = _FENCE.match(line)
        item = None if fence else _ITEM.match(line)
        ended: list[_Item] = []
        # Text right below an item belongs to it, whatever its indent.
        if not fence and (item or marks or not before or text.startswith(("#", "|"))):
            while items and indent < items[-1].column:
                ended.append(items.pop())
        beyond = max(indent - (items[-1].column if items else 0), 0)
        if item:
            first = not ended and before and not _ITEM.match(before)
            if first or (before and any(one.loose for one in ended)):
                found.append("")
            found.append(" " * (_TABS * len(items)) + text)
            items.append(_Item(item.end()))
        else:
            found.append(" " * (_TABS * len(items) + beyond) + text)
        if marks:
            fence = "" if fence and marks[1].startswith(fence) else fence or marks[1]
    return found
