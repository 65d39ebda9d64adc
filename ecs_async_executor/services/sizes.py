"""
What a launch asks for with keys that no API has: ``cpu``, ``memory``, ``environment`` and so on.

Imports ``core`` and ``requests``. The folder of each service puts the result where its API wants it. Of the layers
of a launch's parameters a later one wins, whether it uses these keys or the API's own. Within a layer the two must
not contradict each other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from ecs_async_executor.core import sizes
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.sizes import Size, WrongSize
from ecs_async_executor.services.requests import EXECUTOR_MARK, type_name

_PARSERS: Final[Mapping[str, Callable[[object], int]]] = {
    "cpu": sizes.cpu_units,
    "memory": sizes.memory_mib,
    "gpu": sizes.gpu_count,
    "disk": sizes.disk_gib,
    "command_timeout": sizes.seconds,
}
_SPELLINGS: Final[Mapping[str, str]] = {
    **{key: key for key in (*_PARSERS, "environment", "image", "round_up")},
    "commandTimeout": "command_timeout",
    "roundUp": "round_up",
}
"""The keys, and their names; the options of rules spell them as they do parameters of the API."""
SIZE_KEYS: Final = frozenset(_SPELLINGS)
"""The keys that are no parameters of RunTask or SubmitJob."""
_NOTHING: Final = Size()


@dataclass(frozen=True, slots=True)
class Asked:
    """
    What one layer asks for; None for what it does not say.

    :param timeout: seconds
    :param round_up: whether a size that does not exist becomes the next larger one
    """

    size: Size = _NOTHING
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    timeout: int | None = None
    round_up: bool | None = None


class Layer(NamedTuple):
    """One layer of a launch's parameters: what it asks for with keys of ours, and its parameters of the API."""

    asked: Asked
    parameters: Mapping[str, Any]


class Place(NamedTuple):
    """
    Where the API wants an amount.

    :param name: for people
    :param read: returns what a layer's parameters have there; None for nothing
    """

    name: str
    read: Callable[[Mapping[str, Any]], object]


# --- reading ------------------------------------------------------------------------------------------------


def are_sized(layers: Iterable[Mapping[str, Any]]) -> bool:
    """Return whether any of these parameters has one of the keys; for most launches none has."""
    return not all(map(SIZE_KEYS.isdisjoint, layers))


def layers_of(parameters: Iterable[Mapping[str, Any]], refused: Mapping[str, str]) -> list[Layer]:
    """
    Take the parameters of each layer apart.

    :param refused: the keys that the service has no place for, each with the reason and the way out
    :raises Rejected: if a value cannot be used; names every problem
    """
    layers, problems = [], []
    for one in parameters:
        asked, wrong = _asked(one, refused)
        problems += wrong
        layers.append(Layer(asked, one if SIZE_KEYS.isdisjoint(one) else without_sizes(one)))
    if problems:
        raise Rejected("; ".join(problems))
    return layers


def without_sizes(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that are the API's."""
    return {key: value for key, value in parameters.items() if key not in SIZE_KEYS}


def problems_in(parameters: Mapping[str, Any], refused: Mapping[str, str]) -> Iterator[str]:
    """Yield a sentence for each of the keys whose value cannot be used, whatever the rest of a request is."""
    yield from _asked(parameters, refused)[1]


def _asked(parameters: Mapping[str, Any], refused: Mapping[str, str]) -> tuple[Asked, list[str]]:
    problems: list[str] = []
    found: dict[str, Any] = {}
    for key, value in parameters.items():
        name = _SPELLINGS.get(key)
        if name is None:
            continue
        if name in refused:
            problems.append(f"{name}: {refused[name]}")
        elif name == "environment":
            found[name] = _variables(value, problems)
        elif name == "round_up":
            if isinstance(value, bool):
                found[name] = value
            else:
                problems.append(f"round_up must be true or false, not {type_name(value)}")
        else:
            try:
                found[name] = _PARSERS[name](value)
            except WrongSize as error:
                problems.append(str(error))
    size = Size(*(found.get(name) for name in ("cpu", "memory", "gpu", "disk")))
    asked = Asked(size, found.get("environment", {}), found.get("command_timeout"), found.get("round_up"))
    return asked, problems


def _variables(value: object, problems: list[str]) -> dict[str, str]:
    """Return variables as text: ``{"K": "v"}``, or the API's list of names and values."""
    if isinstance(value, list | tuple) and all(isinstance(one, Mapping) and "name" in one for one in value):
        value = {one["name"]: one.get("value") for one in value}
    if not isinstance(value, Mapping):
        problems.append(f'environment must be an object such as {{"NAME": "value"}}, not {type_name(value)}')
        return {}
    found = {}
    for name, given in value.items():
        if not isinstance(name, str) or not name or "=" in name:
            problems.append("environment: each name must be text without =, and not empty")
        elif name == EXECUTOR_MARK["name"]:
            problems.append(f"environment: {name} is set by the executor; remove it")
        elif (text := _as_text(given)) is None:
            problems.append(
                f"environment: {name} must be text, a number, true or false, not {type_name(given)}; "
                "write a structure as JSON text"
            )
        else:
            found[name] = text
    return found


def _as_text(value: object) -> str | None:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return str(value)
    if isinstance(value, int | float) and math.isfinite(value):
        return str(value)
    return None


_IN_WORDS: Final[Mapping[str, Callable[[int], str]]] = {
    "cpu": sizes.cpu_in_words,
    "memory": sizes.memory_in_words,
    "gpu": str,
    "disk": lambda gib: f"{gib} GB",
    "timeout": lambda seconds: f"{seconds} s",
}

# --- which layer decides ------------------------------------------------------------------------------------


class Resolver:
    """
    Decides between the layers.

    :ivar problems: a sentence for each contradiction within a layer
    """

    def __init__(self, layers: Sequence[Layer]) -> None:
        self._layers = layers
        self.problems: list[str] = []

    def amount(self, key: str, place: Place) -> tuple[int | None, int]:
        """
        Return an amount that a key asks for, and the number of its layer; None if none does, or a later place has.

        :param key: of a size, or ``timeout``
        """
        decided: tuple[int | None, int] = (None, 0)
        for number, layer in enumerate(self._layers):
            asked: int | None = getattr(layer.asked if key == "timeout" else layer.asked.size, key)
            explicit = place.read(layer.parameters)
            if asked is not None:
                decided = asked, number
                if explicit is not None and (other := amount_of(explicit)) != asked:
                    name = "command_timeout" if key == "timeout" else key
                    said = type_name(explicit) if other is None else _IN_WORDS[key](other)
                    self.problems.append(
                        f"{name} = {_IN_WORDS[key](asked)}, but {place.name} = {said}: remove one of them"
                    )
            elif explicit is not None:
                decided = None, number
        return decided

    def is_below(self, place: Place, least: int, layer: int) -> bool:
        """Return whether what earlier layers have at a place would keep the container below what is asked for."""
        for one in reversed(self._layers[layer:]):
            if place.read(one.parameters) is not None:
                return False  # meant by somebody who knew
        for one in reversed(self._layers[:layer]):
            if (explicit := place.read(one.parameters)) is not None:
                amount = amount_of(explicit)
                return amount is not None and amount < least
        return False

    def environment(self, read: Callable[[Mapping[str, Any]], object]) -> dict[str, str]:
        """
        Return the variables that are asked for.

        :param read: returns the list of variables in a layer's parameters
        """
        found: dict[str, str] = {}
        for layer in self._layers:
            own = read(layer.parameters)
            named = {
                one.get("name"): one.get("value")
                for one in (own if isinstance(own, list | tuple) else ())
                if isinstance(one, Mapping) and isinstance(one.get("name"), str)
            }
            for name, value in layer.asked.environment.items():
                if name in named and named[name] != value:
                    self.problems.append(f"environment and the list of variables give {name} different values")
            found = {name: value for name, value in found.items() if name not in named} | dict(
                layer.asked.environment
            )
        return found

    @property
    def round_up(self) -> bool | None:
        """What the last layer that says it says."""
        said = [one.asked.round_up for one in self._layers if one.asked.round_up is not None]
        return said[-1] if said else None

    def finish(self) -> None:
        """
        End the decision.

        :raises Rejected: if there are problems; names them all
        """
        if self.problems:
            raise Rejected("; ".join(dict.fromkeys(self.problems)))


def amount_of(value: object) -> int | None:
    """Return the whole number that a parameter of the API stands for; None if it is none, whatever it is."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return _with_unit(value) if isinstance(value, str) else None
    return int(number) if number.is_integer() else None


def _with_unit(text: str) -> int | None:
    """Return what ECS takes for a task beside bare numbers: ``1 vCPU`` and ``4 GB``."""
    for read in (sizes.cpu_units, sizes.memory_mib):
        with suppress(WrongSize):
            return read(text, "")
    return None


# --- where the API wants it ---------------------------------------------------------------------------------


def put_environment(container: dict[str, Any], variables: Mapping[str, str]) -> None:
    """Add variables to a container's override; each replaces one of its name."""
    own = container.get("environment") or []
    if not variables or not isinstance(own, list):
        return
    kept = [one for one in own if not isinstance(one, Mapping) or one.get("name") not in variables]
    container["environment"] = [*kept, *({"name": name, "value": value} for name, value in variables.items())]


def put_requirement(container: dict[str, Any], kind: str, value: str | None) -> None:
    """Set one of a container's resource requirements; None removes it."""
    own = container.get("resourceRequirements") or []
    if not isinstance(own, list):
        return
    kept = [one for one in own if not isinstance(one, Mapping) or one.get("type") != kind]
    if value is not None:
        kept.append({"type": kind, "value": value})
    if kept or "resourceRequirements" in container:
        container["resourceRequirements"] = kept


def requirement(container: object, kind: str) -> object:
    """Return one of a container's resource requirements; None if it has none."""
    own = container.get("resourceRequirements") if isinstance(container, Mapping) else None
    for one in own if isinstance(own, list | tuple) else ():
        if isinstance(one, Mapping) and one.get("type") == kind:
            value: object = one.get("value")
            return value
    return None
