"""
One rule, as people write it: a queue, a placement, a retry. Every problem is named, with its place.

May import :mod:`.rules`, :mod:`.rule_keys`, :mod:`.rule_words`, :mod:`.values`, :mod:`.aws` and
:mod:`ecs_async_executor.core`. No message shows an environment, or a parameter of a request.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from types import NoneType
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar

from pydantic import ValidationError

from ecs_async_executor.core import sizes
from ecs_async_executor.core.sizes import WrongSize
from ecs_async_executor.settings.aws import AwsSettings
from ecs_async_executor.settings.rule_keys import (
    ANY,
    DESTINATION_KEYS,
    KEYS_ELSEWHERE,
    OTHER_NAMES,
    PLACEMENT_NAME,
    PLACEMENT_NAME_RULE,
    SIZE_KEYS,
    STRUCTURE,
    Keys,
    PlacementKeys,
    QueueKeys,
    RetryKeys,
    attribute,
    plain_words,
)
from ecs_async_executor.settings.rule_words import Path, dotted, kind_of, meant, shown
from ecs_async_executor.settings.rules import AT_HOME, Destination, Placement, Queue, Retry
from ecs_async_executor.settings.values import camelize

_PLACEMENT: Final = re.compile(PLACEMENT_NAME)
_LIMITED: Final = ("cpu", "memory", "up_to")
_AMOUNTS: Final[Mapping[str, Callable[[object, str], int]]] = {"cpu": sizes.cpu_units, "memory": sizes.memory_mib}
_SLIP: Final = 0.8
"""How near a name has to be to one of our keys to be taken for that, if the API too has a parameter like it."""
_PATH_IN_TEXT: Final = re.compile(r"(?:\w+ has no )?([\w.\[\]]+)")
_WHAT: Final[Mapping[type[Keys], str]] = {
    QueueKeys: "a queue",
    PlacementKeys: "a placement",
    RetryKeys: "a retry rule",
}

WrongParameters: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]
"""
Says what is wrong with request parameters and size keys: which of them the service does not accept, and why.

A sentence begins with the path of the parameter, or names it after "has no".
"""
_Keys = TypeVar("_Keys", bound=Keys)


@dataclass(frozen=True, slots=True)
class Given:
    """
    Rules as somebody wrote them: the options', or a file's.

    :param values: by the names of the options; only those that are set
    :param where: returns what stands before a path, for people: ``rules.yaml line 12, ``
    """

    values: Mapping[str, Any]
    where: Callable[[Path], str]

    def place(self, path: Path, inside: Path = ()) -> str:
        """
        Return where a key stands, for people.

        :param inside: leads to the culprit within the key, to name its line
        """
        return f"{self.where((*path, *inside))}{dotted(path)}"


class Use(NamedTuple):
    """A placement's name, and where it is used."""

    place: str
    name: str


@dataclass(frozen=True, slots=True)
class Service:
    """
    What rules have to know of a service.

    :param wrong: checks request parameters and size keys
    :param has_connections: the amazon provider is installed, which resolves Airflow's connections
    """

    aws: type[AwsSettings]
    wrong: WrongParameters
    has_connections: bool = True


@dataclass(frozen=True, slots=True)
class Report:
    """
    What is found on the way.

    :param problems: sentences about what is wrong
    :param uses: of placements; whether there are such is known in the end
    """

    problems: list[str] = field(default_factory=list)
    uses: list[Use] = field(default_factory=list)


class RuleParser:
    """Makes rules of what one source has; as far as a rule is wrong, the result lacks it."""

    def __init__(self, given: Given, service: Service, report: Report) -> None:
        self._place = given.place
        self._service = service
        self._report = report

    # --- rules -----------------------------------------------------------------------------------------------

    def queue(self, path: Path, raw: Any) -> Queue:
        """Return what a queue stands for."""
        keys = self._keys(QueueKeys, path, raw)
        if keys is None:
            return Queue()
        there = keys.set_keys()
        self._use((*path, "placements"), there.get("placements", ()))
        retries = self.retries((*path, "retries"), there["retries"], there) if "retries" in there else None
        return Queue(
            parameters=self._parameters(path, keys, there),
            destination=self._destination(path, there),
            placements=there.get("placements"),
            placement_patience=there.get("placement_patience"),
            retries=retries,
        )

    def placement(self, path: Path, name: str, raw: Any) -> Placement:
        """Return the placement that is defined."""
        if not _PLACEMENT.fullmatch(name):
            self.say(path, f"is no name of a placement: it must be {PLACEMENT_NAME_RULE}")
        keys = self._keys(PlacementKeys, path, raw)
        if keys is None:
            return Placement(name, {})
        there = keys.set_keys()
        return Placement(name, self._parameters(path, keys, there), self._destination(path, there))

    def patience(self, path: Path, raw: Any) -> float:
        """Return seconds."""
        keys = self._keys(QueueKeys, path[:-1], {path[-1]: raw})
        return 0.0 if keys is None else keys.placement_patience

    def retries(self, path: Path, raw: Any, asked: Mapping[str, Any] | None = None) -> tuple[Retry, ...]:
        """
        Return a list of retry rules.

        :param asked: the size keys of the queue that they are for
        """
        if not isinstance(raw, (list, tuple)):
            self.must_be(path, raw, "a list of retry rules")
            return ()
        found: list[Retry] = []
        first: dict[str, Path] = {}
        for number, one in enumerate(raw):
            at = (*path, number)
            retry = self._retry(at, one, asked or {})
            if retry is None or plain_words(one.get("when")) != retry.when:
                continue  # its end is wrong
            if (before := first.get(ANY) or first.get(retry.when)) is not None:
                about = "every end" if ANY in first else repr(retry.when)
                words = f"{dotted(before)} is about {about} and comes first"
                self.say(at, f"can never apply, because {words}: remove one of them")
            first.setdefault(retry.when, at)
            found.append(retry)
        return tuple(found)

    def _retry(self, path: Path, raw: Any, asked: Mapping[str, Any]) -> Retry | None:
        names: dict[str, str] = {}
        for key in raw if isinstance(raw, Mapping) else ():
            name = str(OTHER_NAMES.get(key, key))
            if name in names:
                self.say((*path, key), f"means the same as {names[name]}: remove one of them")
            names[name] = key
        keys = self._keys(RetryKeys, path, raw, names)
        if keys is None:
            return None
        there = keys.set_keys()
        del there["when"]
        if not there and not keys.model_extra:
            self.say(path, "changes nothing: give it memory, placements or another key")
        amounts: dict[str, Any] = {name: there.pop(name) for name in _LIMITED if name in there}
        self._check_amounts(path, names, amounts, asked)
        placements = {"placements": there.pop("placements")} if "placements" in there else {}
        if placements:
            self._use((*path, names["placements"]), placements["placements"])
        return Retry(keys.when, {**amounts, **placements, **self._parameters(path, keys, there)})

    def _check_amounts(
        self, path: Path, names: Mapping[str, str], amounts: Mapping[str, Any], asked: Mapping[str, Any]
    ) -> None:
        """Check what a retry rule makes of CPU and memory, and its limit: of memory, or else of CPU."""
        found = {
            name: self._amount((*path, name), read, amounts[name])
            for name, read in _AMOUNTS.items()
            if name in amounts
        }
        if "up_to" not in amounts:
            return
        limited = "cpu" if found.keys() == {"cpu"} else "memory"
        read, at = _AMOUNTS[limited], (*path, names["up_to"])
        try:
            most = read(amounts["up_to"], "")
        except WrongSize as error:
            self._report.problems.append(f"{self._place(at)}{error}")
            return
        if not isinstance(found.get(limited, 0), (Fraction, NoneType)):
            self.say(at, f'limits a factor, and there is none: write {limited}: "x2", or remove {names["up_to"]}')
            return
        with contextlib.suppress(WrongSize, KeyError):
            if most < read(asked[limited], ""):
                words = f"is below the {limited} of the queue, {shown(asked[limited])}"
                self.say(at, f"= {shown(amounts['up_to'])} {words}: raise it")

    def _amount(self, path: Path, read: Callable[[object, str], int], value: Any) -> Fraction | int | None:
        """Return an amount, or the factor that stands for one; None if it is neither."""
        place, way_out = self._place(path), ""
        try:
            factor = sizes.factor(value, "")
            way_out = ', or a factor, such as "x2"'
            return read(value, "") if factor is None else factor
        except WrongSize as error:
            self._report.problems.append(f"{place}{error}{way_out}")
            return None

    # --- keys ------------------------------------------------------------------------------------------------

    def _keys(
        self, model: type[_Keys], path: Path, raw: Any, names: Mapping[str, str] | None = None
    ) -> _Keys | None:
        """
        Return the keys of a rule, without those that cannot be used; None if it has none at all.

        What a rule needs and has not right, its end, is :data:`ANY`.

        :param names: the keys as they are written, by the names that the model has for them
        """
        if not isinstance(raw, Mapping):
            self.must_be(path, raw, f"an object with the keys of {_WHAT[model]}")
            return None
        if not all(isinstance(key, str) for key in raw):
            self.say(path, "has a key that is no text: write it in quotes")
            return None
        names = dict(zip(raw, raw, strict=True)) if names is None else names
        values = {name: raw[key] for name, key in names.items()}
        needed = {name: ANY for name, field in model.model_fields.items() if field.is_required()}
        try:
            return model.model_validate(values)
        except ValidationError as error:
            wrong = {str(details["loc"][0]): details["type"] for details in error.errors(include_url=False)}
            for name, kind in wrong.items():
                allowed = attribute(model, name, "allowed")
                if kind == "missing":
                    self.say(path, f"has no {name}: it must be {allowed}")
                elif kind == STRUCTURE:
                    self.must_be((*path, names[name]), values[name], allowed)
                else:
                    self.say((*path, names[name]), f"= {shown(values[name])} is not valid: it must be {allowed}")
            return model.model_validate(
                needed | {name: value for name, value in values.items() if name not in wrong}
            )

    def _parameters(self, path: Path, keys: Keys, there: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the request parameters, in the API's spelling, and the size keys as they are written."""
        parameters = {name: there[name] for name in SIZE_KEYS if name in there}
        written = dict(zip(parameters, parameters, strict=True))
        for key, value in (keys.model_extra or {}).items():
            ((name, one),) = camelize({key: value}).items()
            if key in KEYS_ELSEWHERE:
                self.say((*path, key), f"is a key of {KEYS_ELSEWHERE[key]}, not of {_WHAT[type(keys)]}: remove it")
            elif name == self._service.aws.place_parameter and isinstance(keys, RetryKeys):
                self.say(
                    (*path, key), "cannot be a retry rule's: define a placement with it, and name that instead"
                )
            elif name in written:
                self.say((*path, key), f"means the same as {written[name]}: remove one of them")
            else:
                parameters[name], written[name] = one, key
        for name, value in parameters.items():
            for text in self._service.wrong({name: value}):
                self._say_of_parameter(keys, path, written[name], name, text)
        for text in self._service.aws.refused_in_rules(parameters):
            name = text.partition(" ")[0]
            self._say_of_parameter(keys, path, written.get(name, name), name, text)
        return parameters

    def _say_of_parameter(self, keys: Keys, path: Path, key: str, name: str, text: str) -> None:
        """
        Report what the service says of a parameter.

        :param key: as it is written
        :param name: in the API's spelling, as the text has it
        :param text: says what is wrong with which member
        """
        model = type(keys)
        slip = _SLIP if "did you mean" in text else 0.6
        if f" has no {name};" in text and (near := meant(key, model.model_fields, slip)):
            words = f"is no key of {_WHAT[model]}, nor a parameter of the request: did you mean {near}?"
            self.say((*path, key), words)
            return
        found = _PATH_IN_TEXT.match(text)
        culprit = _inside(keys.model_extra, found[1]) if found else ()
        place = self._place((*path, key), culprit)
        self._report.problems.append(f"{place}{text[len(name) :] if text.startswith(name) else f': {text}'}")

    def _destination(self, path: Path, there: Mapping[str, Any]) -> Destination | None:
        found = Destination(**{name: there[name] for name in DESTINATION_KEYS if name in there})
        if found.conn_id is not None and not self._service.has_connections:
            words = "is a connection, which needs the amazon provider: install it"
            way_out = "(pip install 'ecs-async-executor[amazon]'), or remove it"
            self.say((*path, "conn_id"), f"= {shown(found.conn_id)} {words} {way_out}")
        if found == AT_HOME and found.events_queue_url is not None:
            words = "is for another Region or account, and this rule names none: set the option of this name"
            self.say((*path, "events_queue_url"), words)
        return None if found == AT_HOME else found

    def _use(self, path: Path, names: Iterable[str]) -> None:
        self._report.uses.extend(Use(self._place(path), name) for name in names)

    # --- words -----------------------------------------------------------------------------------------------

    def say(self, path: Path, words: str) -> None:
        """Report a problem; its words continue the place."""
        self._report.problems.append(f"{self._place(path)} {words}")

    def must_be(self, path: Path, value: Any, allowed: str) -> None:
        """Report a value of the wrong kind."""
        self.say(path, f"must be {allowed}, not {kind_of(value)}")


def _inside(parameters: Any, api_path: str) -> Path:
    """Return what leads to a member, below its parameter, as it is written; the path has the API's spelling."""
    path: list[str | int] = []
    value = parameters
    for word in re.findall(r"\w+", api_path):
        if isinstance(value, Mapping):
            key = next((one for one in value if word in (one, *camelize({one: None}))), None)
            if key is None:
                break
            path.append(key)
            value = value[key]
        elif isinstance(value, (list, tuple)) and word.isdecimal() and int(word) < len(value):
            path.append(int(word))
            value = value[int(word)]
        else:
            break
    return tuple(path[1:])
