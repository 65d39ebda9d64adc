"""
The keys of rules: which there are for a queue, a placement and a retry, and what each of them takes.

May import :mod:`.options` and :mod:`.values`. Every other key is a parameter of the service's request.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict
from pydantic_core import PydanticCustomError

from ecs_async_executor.settings.options import option, seconds

WHEN_WORDS: Final = ("oom", "spot", "host", "image", "start", "any")
"""The ends that a retry rule can be about, besides ``exit N``."""
WHEN_RULE: Final = f"one of {', '.join(WHEN_WORDS)}, or `exit N` with N from 1 to 255"
_EXIT: Final = re.compile(r"exit ([1-9]\d{0,2})")
_MOST_EXIT_CODE: Final = 255
_REGION: Final = re.compile(r"[a-z]{2,}(-[a-z]+)+-\d+")
_CONNECTION: Final = re.compile(r"[\w#!()\-.:/\\]+")
_ROLE: Final = re.compile(r"arn:aws[a-z-]*:iam::\d{12}:role/\S+")
_REFUSED: Final = "not_allowed"
"""The type of an error for which the key's allowed values say it all."""


def _refusal() -> PydanticCustomError:
    return PydanticCustomError(_REFUSED, "not allowed")


def _matching(pattern: re.Pattern[str]) -> AfterValidator:
    def check(value: str) -> str:
        if not pattern.fullmatch(value):
            raise _refusal()
        return value

    return AfterValidator(check)


def _one_or_more(value: Any) -> Any:
    """Take one name for a list of it; refuse a name that comes twice."""
    names = (value,) if isinstance(value, str) else value
    if not isinstance(names, (list, tuple)) or not all(isinstance(one, str) and one for one in names):
        raise _refusal()
    if len(set(names)) < len(names):
        raise _refusal()
    return tuple(names)


def _check_when(value: str) -> str:
    words = " ".join(value.split()).lower()
    code = _EXIT.fullmatch(words)
    if words not in WHEN_WORDS and not (code and int(code[1]) <= _MOST_EXIT_CODE):
        raise _refusal()
    return words


def _list(value: Any) -> Any:
    if not isinstance(value, (list, tuple)):
        raise _refusal()
    return tuple(value)


NAMES: Final = "the name of a placement, or a list of different ones"


class _Keys(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow", hide_input_in_errors=True)

    def changes(self) -> dict[str, Any]:
        """Return what is set, without what is not."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class SizeKeys(_Keys):
    """How big a container is, and what else it gets."""

    cpu: Annotated[Any, option("vCPUs; 256 and more are CPU units.", allowed="a number", example="2")] = None
    memory: Annotated[Any, option("Memory.", allowed="a size", example="4 GB")] = None
    gpu: Annotated[Any, option("GPUs.", allowed="a whole number", example="1")] = None
    disk: Annotated[Any, option("Ephemeral storage.", allowed="a size", example="100 GB")] = None
    environment: Annotated[
        Mapping[str, Any],
        option("Variables.", allowed="an object of names and values", example='{"STAGE": "prod"}', repr=False),
    ] = {}
    image: Annotated[Any, option("Image.", allowed="an image", example="repo:tag")] = None
    command_timeout: Annotated[Any, option("Time limit.", allowed="seconds", example="3600")] = None


class PlacementKeys(SizeKeys):
    """The keys of a placement."""

    region_name: Annotated[
        str,
        _matching(_REGION),
        option("AWS Region of the containers.", allowed="the name of a Region", example="eu-west-1"),
    ] = ""
    conn_id: Annotated[
        str,
        _matching(_CONNECTION),
        option("Airflow connection for AWS.", allowed="the ID of a connection", example="aws_eu"),
    ] = ""
    role_arn: Annotated[
        str,
        _matching(_ROLE),
        option(
            "Role that is assumed.",
            allowed="the ARN of a role",
            example="arn:aws:iam::111122223333:role/airflow",
        ),
    ] = ""


class QueueKeys(PlacementKeys):
    """The keys of a queue."""

    placements: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_more),
        option("Placements of its launches, best first.", allowed=NAMES, example="spot, on-demand"),
    ] = ()
    placement_patience: Annotated[
        float,
        seconds("How long a placement has to be full.", low=0, high=86400, example="300"),
    ] = 0.0
    retries: Annotated[
        tuple[Any, ...],
        BeforeValidator(_list),
        option("What the next try gets.", allowed="a list of retry rules", example="[]"),
    ] = ()


class RetryKeys(SizeKeys):
    """The keys of a retry rule."""

    when: Annotated[
        str, AfterValidator(_check_when), option("The end that it is about.", allowed=WHEN_RULE, example="oom")
    ]
    up_to: Annotated[Any, option("The most memory.", allowed="a size", example="30 GB")] = None
    placements: Annotated[
        tuple[str, ...],
        BeforeValidator(_one_or_more),
        option("Placements of the next try, best first.", allowed=NAMES, example="on-demand"),
    ] = ()
