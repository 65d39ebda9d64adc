"""
The options in words: for Airflow's provider info, for error messages, and for the tables of ``docs/settings.md``.

May import :mod:`.options`, :mod:`.tuning` and :mod:`.aws`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from ecs_async_executor.settings.aws import BatchSettings, EcsSettings
from ecs_async_executor.settings.options import Section
from ecs_async_executor.settings.tuning import BatchTuning, Tuning

_VERSION_ADDED: Final = "1.0.0"
"""Airflow shows it beside each option."""


@dataclass(frozen=True, slots=True)
class Option:
    """
    The description of an option.

    :param default: as text for ``airflow.cfg``; None if the option is unset by default
    :param kind: Airflow's name of its type: string, integer, float or boolean
    :param allowed: the values that it takes, as a noun
    """

    name: str
    kind: str
    default: str | None
    example: str
    description: str
    allowed: str


def describe_option(model: type[Section], name: str) -> Option:
    """Describe one option of a section."""
    field = model.model_fields[name]
    extra = field.json_schema_extra
    assert isinstance(extra, dict)
    default: str | None
    if field.is_required() or field.default in (None, (), {}):
        # Empty objects too: Airflow expands variables in defaults, and fails at braces.
        default = None
    elif isinstance(field.default, float):
        default = f"{field.default:g}"
    else:
        default = str(field.default)
    return Option(
        name=name,
        kind=str(extra["kind"]),
        default=default,
        example=str(extra["example"]),
        description=field.description or "",
        allowed=str(extra["allowed"]),
    )


def describe(model: type[Section]) -> tuple[Option, ...]:
    """Describe every option of a section, in the order of declaration."""
    return tuple(describe_option(model, name) for name in model.model_fields)


def provider_config() -> dict[str, Any]:
    """Return our own sections as Airflow's providers manager wants them; ``provider_config.json`` holds this."""
    return {
        model.section: {
            "description": (
                f"How {executor} launches and watches containers. "
                f"What it launches is configured in ``[{aws.section}]``, as for {providers}.\n"
            ),
            "options": {option.name: _declared(option) for option in describe(model)},
        }
        for model, executor, aws, providers in (
            (Tuning, "AsyncEcsExecutor", EcsSettings, "AwsEcsExecutor"),
            (BatchTuning, "AsyncBatchExecutor", BatchSettings, "AwsBatchExecutor"),
        )
    }


def _declared(option: Option) -> dict[str, Any]:
    return {
        "description": f"{option.description}\nAllowed: {option.allowed}.\n",
        "version_added": _VERSION_ADDED,
        "type": option.kind,
        "example": option.example,
        "default": option.default,
    }


def settings_table() -> str:
    """Return the options of ``[ecs_async_executor]`` as a Markdown table."""
    return _table(describe(Tuning))


def batch_differences() -> str:
    """Return the options of ``[batch_async_executor]`` that differ from those, as a Markdown table."""
    same = describe(Tuning)
    return _table(tuple(option for option in describe(BatchTuning) if option not in same))


def aws_ecs_table() -> str:
    """Return the options of ``[aws_ecs_executor]`` as a Markdown table."""
    return _table(describe(EcsSettings))


def aws_batch_table() -> str:
    """Return the options of ``[aws_batch_executor]`` as a Markdown table."""
    return _table(describe(BatchSettings))


def _table(rows: tuple[Option, ...]) -> str:
    with_examples = any(option.example for option in rows)
    titles = ["Option", "Default", "Allowed", "What it does", *(["Example"] if with_examples else [])]
    lines = [_line(titles), _line(["---"] * len(titles))]
    for option in rows:
        default = "unset" if option.default is None else f"`{option.default}`"
        cells = [f"`{option.name}`", default, option.allowed, option.description]
        example = f"`{option.example}`" if option.example else ""
        lines.append(_line([*cells, *([example] if with_examples else [])]))
    return "\n".join(lines) + "\n"


def _line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
