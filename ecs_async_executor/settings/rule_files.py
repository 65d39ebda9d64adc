"""
Files of rules: YAML and JSON, with the line of every key.

May import PyYAML and :mod:`.rule_words`, and is imported when there is a file. Words that YAML 1.1 takes for
something else are text here, as in YAML 1.2, which editors read: ``no``, ``on``, ``012345678901`` and ``12:30``.
Nothing is executed, and nothing is included: tags, anchors and aliases are refused.
"""

from __future__ import annotations

import json
import math
import os
import re
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any, ClassVar, Final

import yaml

from ecs_async_executor.settings.rule_words import Path, dotted, kind_of, shown

ENDINGS: Final = (".yaml", ".yml", ".json")
ALLOWED: Final = f"the absolute path of a {', '.join(ENDINGS[:-1])} or {ENDINGS[-1]} file"
LARGEST: Final = 256 * 1024
"""Bytes. A queue takes about 200; PyYAML reads this much in one or two seconds."""


class UnusableFile(Exception):
    """A file holds no rules that could be looked at; the text continues the name of the file."""


@dataclass(frozen=True, slots=True)
class RuleFile:
    """
    What a file holds.

    :param values: its content: objects, lists, text, numbers, true, false and nothing
    :param lines: the line of each key and of each item of a list; the first line is 1
    :param problems: what is wrong in it, each with its place, whatever it means
    """

    name: str
    values: Any
    lines: Mapping[Path, int]
    problems: tuple[str, ...] = ()

    def where(self, path: Path) -> str:
        """Return the file and the line of a key, or of what it is in, with a comma."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.name} line {self.lines[path]}, " if path else f"{self.name}, "

    def in_order(self, problems: Iterable[str]) -> list[str]:
        """Return problems in the order of the file's lines, after those that are about none."""
        line = re.compile(rf"{re.escape(self.name)} line (\d+)")
        return sorted(problems, key=lambda one: int(found[1]) if (found := line.match(one)) else 0)


def read_rule_file(name: str) -> RuleFile:
    """
    Read a file of rules.

    :raises UnusableFile: if there is none that can be read
    """
    if not PurePath(name).is_absolute() or PurePath(name).suffix.lower() not in ENDINGS:
        raise UnusableFile(f"is not valid: it must be {ALLOWED}")
    text = _text(name)
    if not text.strip():
        raise UnusableFile("is an empty file: write rules into it, or unset the option")
    try:
        found = _json(name, text) if name.lower().endswith(".json") else _yaml(name, text)
    except RecursionError:
        raise UnusableFile("is not valid: the file is nested too deeply") from None
    if found.values is None and not found.problems:
        raise UnusableFile("is a file without rules: write some into it, or unset the option")
    if not isinstance(found.values, Mapping):
        first = f"{name} must have an object with keys, not {kind_of(found.values)}"
        return RuleFile(name, {}, found.lines, (*found.problems, first))
    return found


def _text(name: str) -> str:
    try:
        # Before it is opened: that of a pipe waits for its other end.
        mode = os.stat(name).st_mode  # noqa: PTH116 - the option is text, and so is what people read
        if not stat.S_ISREG(mode):
            what = "a directory" if stat.S_ISDIR(mode) else "no ordinary file"
            raise UnusableFile(f"is not valid: it is {what}, and must be {ALLOWED}")
        with open(name, "rb") as file:  # noqa: PTH123 - likewise
            data = file.read(LARGEST + 1)
    except FileNotFoundError:
        words = "does not exist: the scheduler and the commands read it, and the api-server where it has to"
        raise UnusableFile(words) from None
    except PermissionError:
        raise UnusableFile("cannot be read: let the user of this process read the file") from None
    except (OSError, ValueError) as error:  # a name with a null character is a ValueError
        words = str(error.strerror if isinstance(error, OSError) else error)
        raise UnusableFile(f"cannot be read: {words}") from None
    if len(data) > LARGEST:
        raise UnusableFile(f"is larger than {LARGEST // 1024} KiB: is it the right file?")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UnusableFile(f"is not text in UTF-8: line {line} has the byte 0x{data[error.start]:02x}") from None


# --- JSON ---------------------------------------------------------------------------------------------------


def _json(name: str, text: str) -> RuleFile:
    def refuse(word: str) -> None:
        raise UnusableFile(f"is not JSON: {word} is no number there")

    try:
        values = json.loads(text, parse_constant=refuse)
    except json.JSONDecodeError as error:
        raise UnusableFile(f"is not JSON: line {error.lineno}, column {error.colno}: {error.msg}") from None
    except ValueError:
        raise UnusableFile("is not valid: it has a number with thousands of digits") from None
    # Almost all JSON is YAML; but there a tab is no space, and JSON has none in its texts.
    try:
        placed = _yaml(name, text.replace("\t", " "))
    except UnusableFile:
        return RuleFile(name, values, {})
    return RuleFile(name, values, placed.lines, placed.problems)


# --- YAML ---------------------------------------------------------------------------------------------------


class _Loader(yaml.SafeLoader):  # type: ignore[misc]
    """
    Composes nodes without resolving aliases; plain words mean what they mean in YAML 1.2.

    :ivar refused: lines with what is refused there
    """

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {}

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.refused: list[tuple[int, str]] = []

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()
        if isinstance(event, yaml.AliasEvent):
            self._refuse(event, f"*{event.anchor} is an alias, which is not read: write the value out")
            self.get_event()
            return yaml.ScalarNode("tag:yaml.org,2002:null", "", event.start_mark, event.end_mark)
        if event.anchor is not None:
            self._refuse(event, f"&{event.anchor} is an anchor, which is not read: write values out")
            event.anchor = None  # a second one of the name would be an error of its own
        if event.tag is not None:
            shown = event.tag.replace("tag:yaml.org,2002:", "!!")
            self._refuse(event, f"{shown} is a tag, which is not read: write the value itself")
            event.tag = None
            if isinstance(event, yaml.ScalarEvent):
                event.implicit = (False, True)  # text
        return super().compose_node(parent, index)

    def _refuse(self, event: Any, text: str) -> None:
        self.refused.append((event.start_mark.line + 1, text))


for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("int", r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?", "-+.0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"(?:{_pattern})$"), list(_first))


def _yaml(name: str, text: str) -> RuleFile:
    loader: Any = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
    except yaml.composer.ComposerError as error:
        raise UnusableFile(f"has a second document, which begins in line {_line_of(error)}: remove it") from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise UnusableFile(f"is not text: line {line} has the character {error.character:#04x}") from None
    except yaml.MarkedYAMLError as error:
        raise UnusableFile(f"is not YAML: {_syntax(error, text)}") from None
    walk = _Walk(name, loader)
    values = None if root is None else walk.value(root, ())
    refused = (f"{name} line {line}: {words}" for line, words in loader.refused)
    return RuleFile(name, values, walk.lines, (*refused, *walk.problems))


def _line_of(error: yaml.MarkedYAMLError) -> int:
    mark = error.problem_mark or error.context_mark
    return mark.line + 1 if mark else 1


def _syntax(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return str(error.problem)
    where = f"line {mark.line + 1}, column {mark.column + 1}"
    if text[mark.index : mark.index + 1] == "\t":
        return f"{where} has a tab: indent with spaces"
    begun = f" {error.context}, which begins in line {error.context_mark.line + 1}" if error.context_mark else ""
    return f"{where}: {error.problem}{begun}"


class _Walk:
    """
    Makes values of nodes.

    :ivar lines: of each key and of each item of a list
    """

    def __init__(self, name: str, loader: Any) -> None:
        self._name = name
        self._loader = loader
        self.lines: dict[Path, int] = {}
        self.problems: list[str] = []

    def value(self, node: yaml.Node, path: Path) -> Any:
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            found = []
            for number, one in enumerate(node.value):
                self.lines[(*path, number)] = one.start_mark.line + 1
                found.append(self.value(one, (*path, number)))
            return found
        try:
            value = self._loader.construct_object(node)
        except ValueError:  # Python reads no number with thousands of digits
            value = math.inf
        if isinstance(value, float) and not math.isfinite(value):
            self._say(path, "is a number that is too large")
            return 0
        return value

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            where = f"{self._name} line {line}{f', {dotted(path)}' if path else ''}"
            if not isinstance(key_node, yaml.ScalarNode):
                self.problems.append(f"{where} has a key that is a list or an object: keys are text")
                continue
            if key_node.tag != "tag:yaml.org,2002:str":
                shown_key = shown(key_node.value)
                self.problems.append(f"{where} has the key {shown_key}, which is no text: write it in quotes")
                continue
            key = key_node.value
            if key in found:
                self._say((*path, key), f"is there a second time in line {line}: remove one of them")
                continue
            self.lines[(*path, key)] = line
            found[key] = self.value(value_node, (*path, key))
        return found

    def _say(self, path: Path, text: str) -> None:
        line = self.lines.get(path, 1)
        self.problems.append(f"{self._name} line {line}, {dotted(path)} {text}")
