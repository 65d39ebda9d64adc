"""
How an option is declared, and what every section of options has in common.

May import pydantic only. An option is a field of a section's model; its description, the values it allows and an
example stand in the field itself. :mod:`.describing` reads them from there.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, NamedTuple, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError


def option(description: str, *, allowed: str, example: str = "", kind: str = "string", **constraints: Any) -> Any:
    """
    Describe an option; ``constraints`` are pydantic's.

    :param allowed: the values that it takes, as a noun: messages say "it must be ..."
    :param example: a value, for the options that this package documents itself
    :param kind: Airflow's name of its type: string, integer, float or boolean
    """
    return Field(
        description=description,
        json_schema_extra={"example": example, "allowed": allowed, "kind": kind},
        **constraints,
    )


def flag(description: str, *, example: str = "") -> Any:
    """Describe an option that is true or false."""
    return option(description, allowed="true or false", example=example, kind="boolean")


def whole(description: str, *, low: int, high: int, example: str = "", off: bool = False) -> Any:
    """
    Describe an option that is a whole number within limits.

    :param off: the word ``off`` stands for none
    """
    allowed = f"a whole number from {low} to {high}" + (", or `off`" if off else "")
    return option(description, allowed=allowed, example=example, kind="integer", ge=low, le=high)


def seconds(description: str, *, low: float, high: float, example: str, off: bool = False) -> Any:
    """
    Describe an option that is a duration within limits.

    :param off: the word ``off`` stands for no limit
    """
    allowed = f"a number of seconds from {low:g} to {high:g}" + (", or `off`" if off else "")
    return option(
        description, allowed=allowed, example=example, kind="float", ge=low, le=high, allow_inf_nan=False
    )


def per_second(description: str, *, example: str) -> Any:
    """Describe an option that is a rate."""
    allowed = "a number of requests per second, above 0 and at most 1000"
    return option(description, allowed=allowed, example=example, kind="float", gt=0, le=1000, allow_inf_nan=False)


class Conflict(NamedTuple):
    """Options that are valid one by one, but not together."""

    names: tuple[str, ...]
    text: str


class Section(BaseModel):
    """The options of one section of Airflow's configuration."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    section: ClassVar[str]
    unset_words: ClassVar[Mapping[str, Collection[str]]] = {}
    """For some options, the texts that mean "unset"; for all others it is the empty text."""

    @model_validator(mode="before")
    @classmethod
    def _drop_unset(cls, data: Any) -> Any:
        """Treat an empty option as unset: ``airflow.cfg`` has no other way to unset one."""
        if not isinstance(data, Mapping):
            return data
        return {
            name: value.strip() if isinstance(value, str) else value
            for name, value in data.items()
            if value is not None
            and not (isinstance(value, str) and value.strip().lower() in cls.unset_words.get(name, {""}))
        }

    @model_validator(mode="after")
    def _check_together(self, info: ValidationInfo) -> Any:
        found = self.conflicts()
        if info.context is not None:
            collect = cast("Callable[[Conflict], None]", info.context["conflict"])
            for conflict in found:
                collect(conflict)
        elif found:
            raise PydanticCustomError("together", "{text}", {"text": "; ".join(one.text for one in found)})
        return self

    def conflicts(self) -> list[Conflict]:
        """Return the options that exclude each other."""
        return []
