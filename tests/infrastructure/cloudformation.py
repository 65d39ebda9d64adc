"""The CloudFormation template, with its functions carried out for some parameters: as much as it uses of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from cfnlint.decode import decode

from tests.infrastructure.policies import INFRASTRUCTURE, Statements, normal

PATH: Final = INFRASTRUCTURE / "cloudformation.yaml"
_GONE: Final = object()
_PSEUDO: Final = {
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::AccountId": "123456789012",
    "AWS::NoValue": _GONE,
}


class Template:
    """
    The template.

    :param given: parameters; the others have their defaults
    """

    def __init__(self, **given: str) -> None:
        self.source, problems = decode(str(PATH))
        assert not problems
        defaults = {name: one.get("Default", "") for name, one in self.source["Parameters"].items()}
        assert given.keys() <= defaults.keys()
        self._values = {
            name: value.split(",") if self.source["Parameters"][name]["Type"] == "CommaDelimitedList" else value
            for name, value in (defaults | given).items()
        }
        self.resources: dict[str, Mapping[str, Any]] = {
            name: self._done(one["Properties"])
            for name, one in self.source["Resources"].items()
            if "Condition" not in one or self._holds(one["Condition"])
        }

    def _holds(self, condition: Any) -> bool:
        if isinstance(condition, str):
            return self._holds(self.source["Conditions"][condition])
        ((function, value),) = condition.items()
        if function == "Condition":
            return self._holds(value)
        if function == "Fn::Not":
            return not self._holds(value[0])
        if function == "Fn::And":
            return all(self._holds(one) for one in value)
        assert function == "Fn::Equals"
        return bool(self._done(value[0]) == self._done(value[1]))

    def _done(self, value: Any) -> Any:
        if isinstance(value, dict):
            if len(value) == 1 and (function := next(iter(value))) in {
                "Ref",
                "Fn::Sub",
                "Fn::GetAtt",
                "Fn::If",
                "Fn::Join",
            }:
                return self._call(function, value[function])
            done = {str(key): self._done(one) for key, one in value.items()}
            return {key: one for key, one in done.items() if one is not _GONE}
        if isinstance(value, list):
            return [one for one in map(self._done, value) if one is not _GONE]
        return str(value) if isinstance(value, str) else value

    def _call(self, function: str, value: Any) -> Any:
        if function == "Fn::If":
            return self._done(value[1] if self._holds(value[0]) else value[2])
        if function == "Fn::Sub":
            return re.sub(r"\$\{([\w:]+)\}", lambda found: str(self._refer(found[1])), value)
        if function == "Fn::Join":
            return value[0].join(self._done(value[1]))
        if function == "Fn::GetAtt":
            name, attribute = value
            properties = self.source["Resources"][name]["Properties"]
            if attribute == "Arn" and "RoleName" in properties:
                return f"arn:aws:iam::123456789012:role/{self._done(properties['RoleName'])}"
            return f"{name}.{attribute}"
        return self._refer(value)

    def _refer(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        if name in _PSEUDO:
            return _PSEUDO[name]
        assert name in self.source["Resources"]
        named = {"AWS::Logs::LogGroup": "LogGroupName"}.get(self.source["Resources"][name]["Type"])
        return self._done(self.source["Resources"][name]["Properties"][named]) if named else name

    def statements(self, name: str) -> Statements:
        """Return all statements of a role, or of a managed policy."""
        resource = self.resources[name]
        documents = [one["PolicyDocument"] for one in resource.get("Policies", [resource])]
        return normal(statement for document in documents for statement in document["Statement"])

    def trust(self, name: str) -> Any:
        """Return the one statement that says who may take a role."""
        (statement,) = self.resources[name]["AssumeRolePolicyDocument"]["Statement"]
        return statement
