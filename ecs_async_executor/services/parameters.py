"""
Parameters: numbers become the text that an API wants; what the SDK would refuse, or has refused, is named.

No message shows a value.

Imports :mod:`~ecs_async_executor.services.redaction`, and botocore when a request is checked.
"""

from __future__ import annotations

import difflib
import functools
import math
import operator
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ecs_async_executor.services.redaction import redacted

# --- before a request is sent: by the SDK's description of the operation ---------------------------------------


def with_numbers_as_text(service: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """
    Return parameters with text in place of each number that the API wants as text, such as a task's ``cpu``.

    The result shares what it can with the argument. The first call for an operation reads the SDK's description of
    the service, which takes a tenth of a second.

    :param service: the service's name in the SDK
    :param operation: the operation's name in the API
    """
    result: dict[str, Any] = _as_text(_input_shape(service, operation), parameters)
    return result


def _as_text(shape: Any, value: Any) -> Any:
    # Only what JSON has: other objects are the user's, and may do anything when they are read.
    kind = type(value)
    if kind is str:
        return value
    if kind is dict and shape.type_name in {"structure", "map"}:
        changed: dict[str, Any] = {}
        members = shape.members if shape.type_name == "structure" else dict.fromkeys(value, shape.value)
        for key, one in value.items():
            if type(one) is not str and key in members and (new := _as_text(members[key], one)) is not one:
                changed[key] = new
        return {**value, **changed} if changed else value
    if kind in {list, tuple} and shape.type_name == "list":
        items = [_as_text(shape.member, one) for one in value]
        return value if all(map(operator.is_, items, value)) else items
    return str(value) if shape.type_name == "string" and _is_number_for_text(shape, value) else value


def _is_number_for_text(shape: Any, value: Any) -> bool:
    """Return whether a value is a number that can stand for text; no word of an enumeration is a number."""
    return type(value) in {int, float} and math.isfinite(value) and not shape.enum


def wrong_parameters(service: str, operation: str, parameters: Mapping[str, Any]) -> Iterator[str]:
    """
    Yield a sentence for each parameter whose name or type is wrong, as the SDK would refuse it.

    A number is right for text: see :func:`with_numbers_as_text`.

    :param service: the service's name in the SDK
    :param operation: the operation's name in the API
    """
    if not parameters:
        return
    whole = _input_shape(service, operation)
    for path, shape, value in _mismatches(whole, parameters, ""):
        if not _fits(shape, value):
            given = "nothing" if value is None else type(value).__name__
            yield f"{path} must be {_SDK_TYPES[shape.type_name][0]}, not {given}"
            continue
        parent, _, name = path.rpartition(".")
        members = list(shape.members)
        meant = difflib.get_close_matches(name, members, 1)
        if not meant and shape is whole:
            meant = [f"{place}.{name}" for place in _places(whole, name)][:1]
        way_out = f"did you mean {meant[0]}?" if meant else f"{parent or 'it'} takes {', '.join(members)}"
        yield f"{operation} has no {path}; {way_out}"


def check_parameters(service: str, operation: str, parameters: Mapping[str, Any]) -> None:
    """
    Check the parameters of a request with the SDK's own code.

    :raises botocore.exceptions.ParamValidationError: if the SDK refuses them; the text quotes values
    """
    from botocore.exceptions import ParamValidationError
    from botocore.validate import ParamValidator

    report = ParamValidator().validate(parameters, _input_shape(service, operation))
    if report.has_errors():
        raise ParamValidationError(report=report.generate_report())


def fits(service: str, operation: str, parameters: Mapping[str, Any]) -> bool:
    """Return whether the SDK takes parameters."""
    from botocore.exceptions import ParamValidationError

    try:
        check_parameters(service, operation, parameters)
    except ParamValidationError:
        return False
    return True


@functools.cache
def _input_shape(service: str, operation: str) -> Any:
    from botocore.session import get_session

    return get_session().get_service_model(service).operation_model(operation).input_shape


_SDK_TYPES: Final[Mapping[str, tuple[str, tuple[type, ...]]]] = {
    "boolean": ("true or false", (bool,)),
    "double": ("a number", (float, int)),
    "float": ("a number", (float, int)),
    "integer": ("a whole number", (int,)),
    "list": ("a list", (list, tuple)),
    "long": ("a whole number", (int,)),
    "map": ("an object", (Mapping,)),
    "string": ("a string", (str,)),
    "structure": ("an object", (Mapping,)),
}
"""The SDK's names of types, with the words for people and the Python types that it accepts."""


def _fits(shape: Any, value: Any) -> bool:
    if shape.type_name not in _SDK_TYPES:
        return True
    if isinstance(value, bool):
        return bool(shape.type_name == "boolean")
    if shape.type_name == "string" and _is_number_for_text(shape, value):
        return True
    return isinstance(value, _SDK_TYPES[shape.type_name][1])


def _mismatches(shape: Any, value: Any, path: str) -> Iterator[tuple[str, Any, Any]]:
    """
    Yield the path of each member that does not fit, with a shape and a value.

    For a wrong type these are the member's own, for an unknown name those of the structure around it.
    """
    if not _fits(shape, value):
        yield path, shape, value
    elif shape.type_name == "structure":
        for key, member in value.items():
            below = f"{path}.{key}" if path else str(key)
            if key in shape.members:
                yield from _mismatches(shape.members[key], member, below)
            else:
                yield below, shape, value
    elif shape.type_name == "list":
        for index, member in enumerate(value):
            yield from _mismatches(shape.member, member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, member in value.items():
            yield from _mismatches(shape.value, member, f"{path}.{key}")


def _places(shape: Any, name: str) -> Iterator[str]:
    """Yield the structures of a request that have a member of this name; lists are not searched."""
    for key, member in shape.members.items():
        if member.type_name == "structure":
            if name in member.members:
                yield key
            yield from (f"{key}.{place}" for place in _places(member, name))


# --- after the SDK has refused a request: by its report --------------------------------------------------------

_PATH: Final = r"[\w.\[\]-]+"
_TYPES: Final = r"<class '[\w.]+'>(?:, <class '[\w.]+'>)*"
_WRONG_TYPE = re.compile(
    rf"^Invalid type for parameter ({_PATH}), value: .*?, type: <class '([\w.]+)'>, valid types: ({_TYPES})$",
    re.MULTILINE | re.DOTALL,
)
_OUT_OF_BOUNDS = re.compile(rf"^Invalid (length|range) for parameter ({_PATH}), value: ", re.MULTILINE)
_MISSING = re.compile(rf"^Missing required parameter in ({_PATH}): \"(\w+)\"$", re.MULTILINE)
_UNKNOWN = re.compile(rf"^Unknown parameter in ({_PATH}): \"(\w{{1,64}})\", must be one of: ", re.MULTILINE)


def refused_parameters(report: str) -> str:
    """
    Return a sentence with the parameters that botocore has refused, and their types.

    :param report: the text of botocore's ParamValidationError, which quotes values
    """
    found = [
        f"{path} must be {_type_names(valid)}, not {actual}" for path, actual, valid in _WRONG_TYPE.findall(report)
    ]
    found += [f"{path} has the wrong {what}" for what, path in _OUT_OF_BOUNDS.findall(report)]
    found += [f"{name} is missing in {_structure(path)}" for path, name in _MISSING.findall(report)]
    found += [f"{name} is no parameter of {_structure(path)}" for path, name in _UNKNOWN.findall(report)]
    return redacted("the request is malformed: " + ("; ".join(found) or "a parameter has a wrong name or type"))


def _structure(path: str) -> str:
    return "the request" if path == "input" else path


def _type_names(types: str) -> str:
    return " or ".join(re.findall(r"'([\w.]+)'", types))
