"""The Terraform module, with its expressions carried out for some variables: as much as it uses of them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Final

import hcl2

from tests.infrastructure.policies import INFRASTRUCTURE, Statements, normal

PATHS: Final = sorted((INFRASTRUCTURE / "terraform").glob("*.tf"))
_NOTES: Final = {"__is_block__", "__comments__", "__inline_comments__"}
_KNOWN: Final = {
    "data.aws_partition.current.partition": "aws",
    "data.aws_region.current.region": "eu-west-1",
    "data.aws_caller_identity.current.account_id": "123456789012",
}


def _bare(text: str) -> str:
    """Return a name or a text without HCL's quotation marks."""
    return text[1:-1].replace('\\"', '"') if len(text) > 1 and text[0] == text[-1] == '"' else text


@cache
def _parsed() -> list[Any]:
    parsed = []
    for path in PATHS:
        with path.open() as file:
            parsed.append(hcl2.load(file))
    return parsed


def _blocks(kind: str) -> Iterator[Any]:
    return (block for file in _parsed() for block in file.get(kind, ()))


def _of_kind(kind: str) -> dict[str, Any]:
    """Return blocks with a type and a name as ``type.name``, those with a name alone by it."""
    found = {}
    for block in _blocks(kind):
        for first, inner in block.items():
            if inner.get("__is_block__"):
                found[_bare(first)] = inner
            else:
                found |= {f"{_bare(first)}.{_bare(second)}": body for second, body in inner.items()}
    return found


class Module:
    """
    The module.

    :param given: variables; the others have their defaults
    """

    def __init__(self, **given: Any) -> None:
        self.variables = _of_kind("variable")
        self.outputs = _of_kind("output")
        self._resources = _of_kind("resource")
        self._data = _of_kind("data")
        defaults = {name: self._plain(one.get("default", "")) for name, one in self.variables.items()}
        assert given.keys() <= defaults.keys()
        self._values: dict[str, Any] = defaults | given
        self._locals = {
            name: value for block in _blocks("locals") for name, value in block.items() if name not in _NOTES
        }

    def _plain(self, value: Any) -> Any:
        if isinstance(value, str):
            return _bare(value)
        return [self._plain(one) for one in value] if isinstance(value, list) else value

    def done(self, value: Any) -> Any:
        """Carry a value out; an expression that is not understood stays as it is."""
        if isinstance(value, dict):
            return {_bare(key): self.done(one) for key, one in value.items() if key not in _NOTES}
        if isinstance(value, list):
            return [self.done(one) for one in value]
        if not isinstance(value, str):
            return value
        if value.startswith("${"):  # not a text with quotation marks
            return self._expression(value[2:-1])
        return re.sub(r"\$\{([^{}]+)\}", lambda found: str(self._expression(found[1])), _bare(value))

    def _expression(self, text: str) -> Any:
        if text in _KNOWN:
            return _KNOWN[text]
        if choice := re.fullmatch(r"(.+?) \? (.+) : (.+)", text):
            return self._expression(choice[2] if self._holds(choice[1]) else choice[3])
        kind, _, name = text.partition(".")
        if kind == "var" and name in self._values:
            return self._values[name]
        if kind == "local" and name in self._locals:
            return self.done(self._locals[name])
        if role := re.fullmatch(r"aws_iam_role\.(\w+)\.arn", text):
            return f"arn:aws:iam::123456789012:role/{self.resource(f'aws_iam_role.{role[1]}')['name']}"
        if attribute := re.fullmatch(r"(\w+\.\w+)\.(name|family)", text):
            return self.done(self._resources[attribute[1]][attribute[2]])
        if items := re.fullmatch(r"\[(.*)\]", text):
            return [self._expression(one.strip()) for one in items[1].split(",") if one.strip()]
        if text == "{}":
            return {}
        return int(text) if text.isdigit() else _bare(text)

    def _holds(self, condition: str) -> bool:
        if " || " in condition:
            return any(self._holds(one) for one in condition.split(" || "))
        if " && " in condition:
            return all(self._holds(one) for one in condition.split(" && "))
        if length := re.fullmatch(r"length\(([\w.]+)\) (==|>) 0", condition):
            return (len(self._expression(length[1])) == 0) is (length[2] == "==")
        if comparison := re.fullmatch(r'([\w.]+) (==|!=) ""', condition):
            return (self._expression(comparison[1]) == "") is (comparison[2] == "==")
        found = self._expression(condition)
        if isinstance(found, str):
            return self._holds(found)
        assert isinstance(found, bool), condition
        return found

    def has(self, name: str) -> bool:
        """Return whether a resource is made at all."""
        body = self._resources[name]
        return "count" not in body or self.done(body["count"]) == 1

    def resource(self, name: str) -> Any:
        return self.done(self._resources[name])

    def local(self, name: str) -> Any:
        return self.done(self._locals[name])

    def statements(self, name: str) -> Statements:
        """Return the statements of a policy document."""
        body = self._data[f"aws_iam_policy_document.{name}"]
        found = list(body.get("statement", ()))
        for block in body.get("dynamic", ()):
            ((kind, dynamic),) = ((key, one) for key, one in block.items() if key not in _NOTES)
            assert _bare(kind) == "statement"
            found += [content for _ in self.done(dynamic["for_each"]) for content in dynamic["content"]]
        return normal(self._statement(one) for one in found)

    def _statement(self, block: Mapping[str, Any]) -> dict[str, Any]:
        done = self.done(block)
        condition: dict[str, dict[str, Any]] = {}
        for one in done.get("condition", ()):
            condition.setdefault(one["test"], {})[one["variable"]] = one["values"]
        return {
            "Sid": done["sid"],
            "Effect": done.get("effect", "Allow"),
            "Action": done["actions"],
            "Resource": done["resources"],
            "Condition": condition,
        }

    def trust(self, name: str) -> Any:
        """Return the one statement of a document about who may take a role."""
        (block,) = self._data[f"aws_iam_policy_document.{name}"]["statement"]
        return self.done(block)
