"""The documentation site, as it is built: links lead somewhere, and no page asks another server for anything."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

import pytest

pytest.importorskip("material", reason="needs the dependency group 'docs'")

ROOT = Path(__file__).parents[2]
LOADED_BY_LINKS = {"stylesheet", "icon", "shortcut icon", "preconnect", "preload", "modulepreload", "dns-prefetch"}
_NO_TEXT = {"nav", "pre", "code", "script", "style", "title"}


@dataclass
class Html(HTMLParser):
    """What a page loads, where it leads, which anchors it has, and the text that is no code."""

    loads: list[str] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    ids: set[str] = field(default_factory=set)
    text: list[str] = field(default_factory=list)
    classes: set[str] = field(default_factory=set)
    _inside: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        self.ids.add(found.get("id", ""))
        self.classes.update(found.get("class", "").split())
        if tag == "a" and "href" in found:
            self.links.append(found["href"])
        elif tag == "link" and found.get("rel") in LOADED_BY_LINKS:
            self.loads.append(found["href"])
        elif tag != "a" and "src" in found:
            self.loads.append(found["src"])
        if tag in _NO_TEXT:
            self._inside.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in _NO_TEXT and self._inside:
            self._inside.pop()

    def handle_data(self, data: str) -> None:
        if not self._inside:
            self.text.append(data)


def build(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder), *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if built_before := os.environ.get("ECS_ASYNC_TESTS_SITE"):
        return Path(built_before)
    folder = tmp_path_factory.mktemp("built") / "site"
    built = build(folder)
    assert built.returncode == 0, built.stderr
    return folder


@cache
def read(path: Path) -> Html:
    page = Html()
    page.feed(path.read_text())
    return page


def pages(site: Path) -> Iterator[tuple[str, Html]]:
    found = sorted(site.rglob("*.html"))
    assert len(found) > 30
    for path in found:
        yield path.relative_to(site).as_posix(), read(path)


def is_foreign(address: str) -> bool:
    return bool(urlsplit(address).netloc)


def test_no_page_loads_anything_from_another_server(site: Path) -> None:
    assert [(name, one) for name, page in pages(site) for one in page.loads if is_foreign(one)] == []


def test_no_style_loads_anything_from_another_server(site: Path) -> None:
    styles = [*site.rglob("*.css"), *site.rglob("*.html")]
    addresses = [
        one
        for path in styles
        for one in re.findall(r"(?:url\(|@import\s+)[\"']?([^)\"';]+)", path.read_text())
        if is_foreign(one)
    ]
    assert addresses == []


def test_no_page_has_what_the_theme_fetches_a_program_for(site: Path) -> None:
    # It draws diagrams with a program that it loads from another server, as soon as a page has one.
    assert [name for name, page in pages(site) if "mermaid" in page.classes] == []


def test_every_link_within_the_site_leads_to_a_page_and_an_anchor(site: Path) -> None:
    dead = []
    for name, page in pages(site):
        if name == "404.html":  # can be shown at any address
            continue
        for link in {*page.links, *page.loads}:
            address, anchor = urldefrag(link)
            if urlsplit(link).scheme or link == "#":
                continue
            there = (site / name).parent / unquote(address) if address else site / name
            there = there / "index.html" if there.is_dir() else there
            if not there.exists() or (anchor and unquote(anchor) not in read(there).ids):
                dead.append((name, link))
    assert dead == []


def test_no_page_shows_markdown_that_was_not_understood(site: Path) -> None:
    marks = re.compile(r"(?:^|\n)\s*(?:[-*] |#{1,6} )|\n\s*\d+\. |\| *---|```|\*\*\S")
    shown = [(name, text.strip()[:80]) for name, page in pages(site) for text in page.text if marks.search(text)]
    assert shown == []


def test_no_link_to_a_page_is_called_by_the_name_of_its_file(site: Path) -> None:
    called = [
        (name, text)
        for name, _ in pages(site)
        if not name.startswith("files/")
        for text in re.findall(r"<a [^>]*>([^<]*\.md)</a>", (site / name).read_text())
    ]
    assert called == []


def test_a_list_goes_on_after_a_table_or_code_in_an_item(site: Path) -> None:
    """A forge takes any indent for that, Python-Markdown four spaces only."""
    after = (site / "operations.html").read_text().partition('id="a-task-stays-queued-or-scheduled"')[2]
    steps = after[after.index("<ol>") : after.index("</ol>")]
    assert steps.count("<li>") == 5
    assert steps.count("<table>") == 1
    after = (site / "placement.html").read_text().partition('id="where-rules-stand"')[2]
    rules = after[after.index("<ul>") : after.index("</ul>")]
    assert rules.count("<li>") == 5
    assert rules.count("<pre>") == 1


def test_the_search_finds_an_option_a_command_and_an_alert(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())["docs"]
    found = {one["location"].partition("#")[0] for one in index}
    assert {"settings.html", "commands.html", "operations.html", "changelog.html"} <= found
    by_title = {one["title"]: one["location"] for one in index}
    assert by_title["ExecutorNoCapacity"] == "operations.html#executornocapacity"
    assert any("lost_container_grace" in one["text"] for one in index if one["location"].startswith("settings"))


def test_a_template_that_a_page_links_to_is_shown_as_it_is(site: Path) -> None:
    page = site / "files" / "infrastructure" / "cloudformation.yaml.html"
    assert "files/infrastructure/cloudformation.yaml.html" in read(site / "infrastructure.html").links
    assert "AWSTemplateFormatVersion" in page.read_text()


def test_a_link_to_a_page_or_an_anchor_that_is_not_there_fails_the_build(tmp_path: Path) -> None:
    configuration = (ROOT / "mkdocs.yml").read_text()
    alone = re.sub(r"(?ms)^(nav|hooks|not_in_nav|exclude_docs|extra_css):.*?(?=^\S|\Z)", "", configuration)
    (tmp_path / "mkdocs.yml").write_text(alone)
    (tmp_path / "docs").mkdir()
    page = tmp_path / "docs" / "README.md"
    outcomes = []
    for link in ("#there", "#gone", "gone.md"):
        page.write_text(f"# Page\n\n## There\n\n[link]({link})\n")
        outcomes.append(build(tmp_path / "site", "--config-file", str(tmp_path / "mkdocs.yml")).returncode)
    assert outcomes == [0, 1, 1]
