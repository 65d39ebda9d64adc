"""
The keys of rules: which there are for a queue, a placement and a retry, and what each of them takes.

May import pydantic and :mod:`ecs_async_executor.core`. All other keys are parameters of the service's request. The
service checks these, and the size keys. Documentation and JSON Schema are made of these models.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from ecs_async_executor.core import sizes
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.settings.values import QUEUE_URL, QUEUE_URL_ALLOWED, QUEUE_URL_EXAMPLE

ENDS: Final = tuple(one.value for one in (Ending.OOM, Ending.SPOT, Ending.HOST, Ending.IMAGE, Ending.START))
ANY: Final = "any"
PLACEMENT_NAME: Final = "[A-Za-z0-9][A-Za-z0-9_.-]{0,62}"
PLACEMENT_NAME_RULE: Final = "1 to 63 letters, digits, hyphens, underscores and dots, a letter or digit first"
_MOST_SECONDS: Final = 86400

# --- how a key is declared ----------------------------------------------------------------------------------


def _key(
    description: str, *, allowed: str, example: Any, schema: Mapping[str, Any], only: str = "", **constraints: Any
) -> Any:
    """
    Describe a key; ``constraints`` are pydantic's.

    :param allowed: the values that it takes, as a noun: messages say "it must be ..."
    :param example: a value
    :param schema: the values that it takes, in JSON Schema
    :param only: the service that has a place for it, if not both have
    """
    extra: Any = {"allowed": allowed, "example": example, "schema": dict(schema), "only": only}
    return Field(description=description, json_schema_extra=extra, **constraints)


STRUCTURE: Final = "structure"
"""The type of an error about a value that is not shown: it has the wrong kind."""


def _refusal(kind: str = "not_allowed") -> PydanticCustomError:
    return PydanticCustomError(kind, "not allowed")  # the words are the key's allowed values


def _matching(pattern: str, description: str, *, allowed: str, example: str) -> Any:
    """Describe a key that takes text of one form; JSON Schema and Python read the pattern alike."""
    schema = {"type": "string", "pattern": f"^{pattern}$"}
    return _key(description, allowed=allowed, example=example, schema=schema, pattern=f"^{pattern}$", strict=True)


# --- what several keys take ---------------------------------------------------------------------------------

_NUMBER: Final = r"([0-9]+(\.[0-9]*)?|\.[0-9]+)"
_FACTOR: Final = {"type": "string", "pattern": f"^ *([xX*×] *{_NUMBER}|{_NUMBER} *[xX×]) *$"}


def _amount(units: str, *numbers: Mapping[str, Any]) -> dict[str, Any]:
    """
    Return JSON Schema for a number, or text of a number and one of these units.

    :param numbers: kinds of bare numbers; if there are none, all above 0
    """
    text = {"type": "string", "pattern": f"^ *{_NUMBER} *({units})? *$"}
    return {"anyOf": [*(numbers or ({"type": "number", "exclusiveMinimum": 0},)), text]}


_BYTES: Final = "[mMgGtT]([iI]?[bB])?"
_DISK: Final = _amount(_BYTES)
_MEMORY: Final = _amount(_BYTES, {"type": "integer", "minimum": sizes.LEAST_BARE_MIB})
_CPU: Final = _amount(
    "[vV]?[cC][pP][uU][sS]?|([cC][pP][uU] )?[uU][nN][iI][tT][sS]?",
    {"type": "number", "exclusiveMinimum": 0, "maximum": sizes.MOST_VCPUS},
    {"type": "integer", "minimum": sizes.LEAST_UNITS},
)
_NAMES_SCHEMA: Final = {
    "anyOf": [
        {"$ref": "#/definitions/placement_name"},
        {"type": "array", "items": {"$ref": "#/definitions/placement_name"}, "uniqueItems": True},
    ]
}
_NAMES_ALLOWED: Final = "the name of a placement, or a list of different names"


def _one_or_more(value: Any) -> Any:
    """Take one name for a list of it."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(one, str) and one for one in names):
        raise _refusal(STRUCTURE)
    if len(set(names)) < len(names):
        raise _refusal()
    return tuple(names)


def _list(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _refusal(STRUCTURE)
    return tuple(value)


_EXIT: Final = re.compile(r"exit ([1-9]\d{0,2})")
_MOST_EXIT_CODE: Final = 255
WHEN: Final = f"one of {', '.join((*ENDS, ANY))}, or `exit N` with N from 1 to {_MOST_EXIT_CODE}"


def plain_words(value: Any) -> str:
    """Return text with single spaces, in lower case; anything else is none."""
    return " ".join(value.split()).lower() if isinstance(value, str) else ""


def _check_when(value: Any) -> str:
    words = plain_words(value)
    code = _EXIT.fullmatch(words)
    if words not in {*ENDS, ANY} and not (code and int(code[1]) <= _MOST_EXIT_CODE):
        raise _refusal()
    return words


# --- the keys -----------------------------------------------------------------------------------------------


class Keys(BaseModel):
    """The keys of one rule; what is not among them is a parameter of a request."""

    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    def set_keys(self) -> dict[str, Any]:
        """Return the keys that are set, in the order of their declaration."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class SizeKeys(Keys):
    """How big a container is and what else it gets: for queues, placements, retries and tasks alike."""

    cpu: Annotated[
        Any,
        _key(
            "CPU. A bare number up to 32 counts vCPUs, one from 128 on CPU units, as the API does.",
            allowed='vCPUs (0.5, "2 vCPU") or CPU units (512, "512 units")',
            example=2,
            schema=_CPU,
        ),
    ] = None
    memory: Annotated[
        Any,
        _key(
            "Memory; GB means GiB, as it does for AWS. A bare number counts MiB.",
            allowed='a number with its unit ("4 GB", "512 MB"), or a whole number of MiB',
            example="4 GB",
            schema=_MEMORY,
        ),
    ] = None
    gpu: Annotated[
        Any,
        _key("GPUs.", allowed="a whole number", example=1, schema={"type": "integer", "minimum": 0}),
    ] = None
    disk: Annotated[
        Any,
        _key(
            "Ephemeral storage, on Fargate. A bare number counts GiB.",
            allowed='a number with its unit ("100 GB"), or a whole number of GiB',
            example="100 GB",
            schema=_DISK,
            only="ECS",
        ),
    ] = None
    environment: Annotated[
        Any,
        _key(
            "Environment variables of Airflow's container. Those of a later layer are added, and win.",
            allowed="an object of names and texts",
            example={"STAGE": "prod"},
            schema={"type": "object", "additionalProperties": {"type": ["string", "number", "boolean"]}},
        ),
    ] = None
    command_timeout: Annotated[
        Any,
        _key(
            "How long the container may run.",
            allowed='seconds, or a number with its unit ("90 min", "2 h")',
            example="2 h",
            only="Batch",
            schema=_amount("s|sec|seconds?|m|min|minutes?|h|hours?|d|days?"),
        ),
    ] = None
    round_up: Annotated[
        Any,
        _key(
            "Whether a size that Fargate does not have becomes the next larger one; otherwise it is an error.",
            allowed="true or false",
            example=False,
            schema={"type": "boolean"},
        ),
    ] = None
    image: Annotated[
        Any,
        _key(
            "Refused, because no request can change it.",
            allowed="unset",
            example="",
            schema={},
            only="neither",
        ),
    ] = None


class DestinationKeys(Keys):
    """Where containers go, if not where the executor's own section says."""

    region_name: Annotated[
        str,
        _matching(
            r"[a-z]{2,}(-[a-z]+)+-[0-9]+",
            "AWS Region.",
            allowed="the name of a Region, such as eu-west-1",
            example="eu-west-1",
        ),
    ] = ""
    conn_id: Annotated[
        str,
        _matching(
            r"[A-Za-z0-9_#!().:/-]+",
            "Airflow connection for AWS; needs the amazon provider.",
            allowed="the ID of a connection",
            example="aws_eu",
        ),
    ] = ""
    role_arn: Annotated[
        str,
        _matching(
            r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[^ |]+",
            "Role that the scheduler assumes there.",
            allowed="the ARN of a role, such as arn:aws:iam::111122223333:role/airflow",
            example="arn:aws:iam::111122223333:role/airflow",
        ),
    ] = ""
    events_queue_url: Annotated[
        str,
        _matching(
            QUEUE_URL,
            "SQS queue of the events of containers there, as `docs/push.md` has it.",
            allowed=QUEUE_URL_ALLOWED,
            example=QUEUE_URL_EXAMPLE,
        ),
    ] = ""


class PlacementKeys(DestinationKeys, SizeKeys):
    """The keys of a placement."""


class QueueKeys(DestinationKeys, SizeKeys):
    """The keys of a queue."""

    placements: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_more),
        _key(
            "Placements of its launches, best first. They replace those of all launches.",
            allowed=_NAMES_ALLOWED,
            example=["spot", "on-demand"],
            schema=_NAMES_SCHEMA,
        ),
    ] = ()
    placement_patience: Annotated[
        float,
        _key(
            "How long a placement has to be full before the next one is used.",
            allowed=f"a number of seconds from 0 to {_MOST_SECONDS}",
            example=300,
            schema={"type": "number", "minimum": 0, "maximum": _MOST_SECONDS},
            strict=True,
            ge=0,
            le=_MOST_SECONDS,
            allow_inf_nan=False,
        ),
    ] = 0.0
    retries: Annotated[
        tuple[Any, ...],
        BeforeValidator(_list),
        _key(
            "What the next try gets. They replace those of all launches.",
            allowed="a list of retry rules",
            example=[{"when": "oom", "memory": "x2"}],
            schema={"$ref": "#/definitions/retries"},
        ),
    ] = ()


class RetryKeys(SizeKeys):
    """The keys of a retry rule."""

    when: Annotated[
        Any,
        AfterValidator(_check_when),
        _key(
            "The end of a try that the rule is about: it ran out of memory (oom), its spot capacity was taken "
            "back (spot), its host was lost (host), its image could not be had (image), it did not start for "
            "another reason (start), it exited with a code (exit N), or any end. The first that fits applies.",
            allowed=WHEN,
            example="oom",
            schema={
                "anyOf": [
                    {"enum": [*ENDS, ANY]},
                    {"type": "string", "pattern": "^exit ([1-9]|[1-9][0-9]|1[0-9][0-9]|2[0-4][0-9]|25[0-5])$"},
                ]
            },
        ),
    ]
    cpu: Annotated[
        Any,
        _key(
            "CPU of the next try, or a factor of what the last one had.",
            allowed='a factor ("x2", "x1.5"), or CPU as above',
            example="x2",
            schema={"anyOf": [_FACTOR, *_CPU["anyOf"]]},
        ),
    ] = None
    memory: Annotated[
        Any,
        _key(
            "Memory of the next try, or a factor of what the last one had.",
            allowed='a factor ("x2", "x1.5"), or memory as above',
            example="x2",
            schema={"anyOf": [_FACTOR, *_MEMORY["anyOf"]]},
        ),
    ] = None
    up_to: Annotated[
        Any,
        _key(
            "The most that a factor makes: of memory, or of CPU if the rule changes no memory. Also `up to`.",
            allowed="an amount",
            example="30 GB",
            schema={"anyOf": [*_MEMORY["anyOf"], *_CPU["anyOf"]]},
        ),
    ] = None
    placements: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_more),
        _key(
            "Placements of the next try, best first. Also `capacity`.",
            allowed=_NAMES_ALLOWED,
            example="on-demand",
            schema=_NAMES_SCHEMA,
        ),
    ] = ()


OTHER_NAMES: Final = {"up to": "up_to", "capacity": "placements"}
"""Keys of a retry rule that can be written in two ways."""
SIZE_KEYS: Final = tuple(SizeKeys.model_fields)
DESTINATION_KEYS: Final = tuple(DestinationKeys.model_fields)
KEYS_ELSEWHERE: Final = {
    **dict.fromkeys(DESTINATION_KEYS, "a queue or a placement"),
    **dict.fromkeys(("placements", "placement_patience", "retries"), "a queue"),
    **dict.fromkeys(("when", "up_to"), "a retry rule"),
}
"""Keys that not every rule can have, with those that can."""


def attribute(model: type[Keys], name: str, what: str) -> Any:
    """Return what a key's declaration says: ``allowed``, ``example``, ``schema`` or ``only``."""
    extra = model.model_fields[name].json_schema_extra
    assert isinstance(extra, dict)
    return extra[what]
