"""
From rules as people write them to :class:`~.rules.ExecutorRules`: every problem is named with its place.

May import :mod:`.rules`, :mod:`.rule_keys`, :mod:`.values`, :mod:`.aws` and :mod:`.describing`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

from pydantic import ValidationError

from ecs_async_executor.settings.aws import AwsSettings
from ecs_async_executor.settings.rule_keys import PlacementKeys, QueueKeys, RetryKeys, SizeKeys
from ecs_async_executor.settings.rules import AT_HOME, Destination, ExecutorRules, Placement, Queue, Retry
from ecs_async_executor.settings.values import camelize

RULE_OPTIONS: Final = ("queues", "placements", "placement_patience", "retries")
"""The options of which rules consist; a file of rules has the same names."""
SIZE_KEYS: Final = tuple(SizeKeys.model_fields)
"""Keys that are no parameters of a request, yet stay with them: the service's request understands them."""
DESTINATION_KEYS: Final = tuple(name for name in PlacementKeys.model_fields if name not in SIZE_KEYS)
_OTHER_NAMES: Final = {"up to": "up_to", "capacity": "placements"}
"""Keys of a retry rule that may be written in two ways."""
_SHOWN_CHARACTERS: Final = 200

WrongParameters: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]
"""Says what is wrong with request parameters: which of them the service's API does not accept, and why."""
Path: TypeAlias = tuple[str | int, ...]
"""The keys that lead to a value, from one of the four names on."""
_Keys = TypeVar("_Keys", bound=SizeKeys)


def dotted(path: Path) -> str:
    """Return a path as people write it: ``queues.gpu.retries[1].memory``."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


@dataclass(frozen=True, slots=True)
class Given:
    """
    Rules as somebody wrote them: an option's, or those of a file.

    :param values: by the names of the options; only those that are set
    :param place: returns where a path stands, for people
    """

    values: Mapping[str, Any]
    place: Callable[[Path], str]


class RuleReader:
    """
    Makes rules of what is given.

    :param wrong: checks request parameters
    :ivar problems: a sentence for everything that is wrong
    """

    def __init__(self, aws: type[AwsSettings], wrong: WrongParameters) -> None:
        self._aws = aws
        self._wrong = wrong
        self.problems: list[str] = []

    def read(self, sources: Iterable[Given]) -> ExecutorRules:
        """Return the rules, as far as they are right."""
        queues: dict[str, Queue] = {}
        placements: dict[str, Placement] = dict(self._aws.built_in_placements)
        rest: dict[str, Any] = {}
        for given in sources:
            one = _OneSource(self, given)
            queues |= one.queues()
            defined, order = one.placements()
            placements |= defined
            if order is not None:
                rest["order"] = order
            if (patience := given.values.get("placement_patience")) is not None:
                rest["placement_patience"] = patience
            if (retries := given.values.get("retries")) is not None:
                rest["retries"] = one.retries(("retries",), retries)
        return ExecutorRules(queues, placements, **rest)

    def check_parameters(self, parameters: Mapping[str, Any]) -> Iterable[str]:
        """Name what a rule's request parameters cannot have."""
        yield from self._aws.refused_in_rules(parameters)
        yield from self._wrong(parameters)


class _OneSource:
    """The rules of one source."""

    def __init__(self, reader: RuleReader, given: Given) -> None:
        self._reader = reader
        self._given = given

    def queues(self) -> dict[str, Queue]:
        raw = self._given.values.get("queues", {})
        if not isinstance(raw, Mapping):
            self._wrong(("queues",), raw, "an object that gives each queue an object")
            return {}
        return {name: self._queue(("queues", name), one) for name, one in raw.items()}

    def placements(self) -> tuple[dict[str, Placement], tuple[str, ...] | None]:
        """Return the placements that are defined, and the order of all if there is one."""
        path: Path = ("placements",)
        raw = self._given.values.get("placements", {})
        if isinstance(raw, Mapping):
            return {name: self._placement((*path, name), name, one) for name, one in raw.items()}, None
        if not isinstance(raw, (list, tuple)):
            self._wrong(path, raw, "a list of placements, or an object that defines some")
            return {}, None
        defined: dict[str, Placement] = {}
        order: list[str] = []
        for number, one in enumerate(raw):
            name = one
            if isinstance(one, Mapping) and len(one) == 1:
                ((name, definition),) = one.items()
                defined[name] = self._placement((*path, number, name), name, definition)
            if isinstance(name, str):
                order.append(name)
            else:
                self._wrong(
                    (*path, number), one, "the name of a placement, or an object with one, which it defines"
                )
        return defined, tuple(order)

    def retries(self, path: Path, raw: Any) -> tuple[Retry, ...]:
        if not isinstance(raw, (list, tuple)):
            self._wrong(path, raw, "a list of retry rules")
            return ()
        found = (self._retry((*path, number), one) for number, one in enumerate(raw))
        return tuple(one for one in found if one is not None)

    def _queue(self, path: Path, raw: Any) -> Queue:
        keys = self._keys(QueueKeys, path, raw)
        if keys is None:
            return Queue()
        set_ = keys.changes()
        return Queue(
            parameters=self._parameters(path, keys),
            destination=_destination(set_),
            placements=set_.get("placements"),
            placement_patience=set_.get("placement_patience"),
            retries=self.retries((*path, "retries"), set_["retries"]) if "retries" in set_ else None,
        )

    def _placement(self, path: Path, name: str, raw: Any) -> Placement:
        keys = self._keys(PlacementKeys, path, raw)
        if keys is None:
            return Placement(name, {})
        return Placement(name, self._parameters(path, keys), _destination(keys.changes()))

    def _retry(self, path: Path, raw: Any) -> Retry | None:
        if isinstance(raw, Mapping):
            raw = {_OTHER_NAMES.get(key, key): value for key, value in raw.items()}
        keys = self._keys(RetryKeys, path, raw)
        if keys is None:
            return None
        changes = keys.changes()
        del changes["when"]
        return Retry(keys.when, {**changes, **self._parameters(path, keys)})

    def _keys(self, model: type[_Keys], path: Path, raw: Any) -> _Keys | None:
        if not isinstance(raw, Mapping):
            self._wrong(path, raw, "an object")
            return None
        try:
            return model.model_validate(raw)
        except ValidationError as error:
            for details in error.errors(include_url=False):
                name = str(details["loc"][0])
                extra = model.model_fields[name].json_schema_extra
                assert isinstance(extra, dict)
                if details["type"] == "missing":
                    self._say((*path,), f"has no {name}: it must be {extra['allowed']}")
                else:
                    self._wrong((*path, name), raw[name], str(extra["allowed"]))
            return None

    def _parameters(self, path: Path, keys: SizeKeys) -> Mapping[str, Any]:
        """Return the request parameters, in the API's spelling, and the size keys."""
        parameters = camelize(keys.model_extra or {})
        for text in self._reader.check_parameters(parameters):
            self._say(path, f"is not valid: {text}")
        return {**{name: value for name, value in keys.changes().items() if name in SIZE_KEYS}, **parameters}

    def _wrong(self, path: Path, value: Any, allowed: str) -> None:
        shown = repr(value)
        if isinstance(value, (Mapping, list, tuple)):
            shown = ""
        elif len(shown) > _SHOWN_CHARACTERS:
            shown = f"{shown[:_SHOWN_CHARACTERS]}..."
        self._say(path, f"{f'= {shown} ' if shown else ''}is not valid: it must be {allowed}")

    def _say(self, path: Path, text: str) -> None:
        self._reader.problems.append(f"{self._given.place(path)} {text}")


def _destination(keys: Mapping[str, Any]) -> Destination | None:
    found = Destination(**{name: keys[name] for name in DESTINATION_KEYS if name in keys})
    return None if found == AT_HOME else found
