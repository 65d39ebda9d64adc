"""
Reading the sections from Airflow's configuration: everything that is wrong with them is reported at once.

May import the rest of ``settings`` and :mod:`ecs_async_executor.core.errors`. It imports no Airflow: the
configuration comes in as a :class:`ConfReader`.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.settings.aws import AwsSettings, BatchSettings, EcsSettings
from ecs_async_executor.settings.describing import describe_option
from ecs_async_executor.settings.options import Conflict, Section
from ecs_async_executor.settings.tuning import BatchTuning, Tuning
from ecs_async_executor.settings.values import QUEUE, RULE, UNREADABLE

_SHOWN_CHARACTERS: Final = 200
"""The length at which a message cuts a value off."""


class ConfReader(Protocol):
    """What settings need of a configuration; Airflow's ``conf`` and a team's ``ExecutorConf`` have it."""

    def get(self, section: str, key: str, *, fallback: Any = ...) -> Any:
        """Return the value of an option, or ``fallback`` if it has none."""
        ...


WrongParameters: TypeAlias = Callable[[Mapping[str, Any]], Iterable[str]]
"""Says what is wrong with request parameters: which of them the service's API does not accept, and why."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings for ECS."""

    tuning: Tuning
    ecs: EcsSettings


@dataclass(frozen=True, slots=True)
class SettingsForBatch:
    """The settings for Batch."""

    tuning: Tuning
    batch: BatchSettings


def load(conf: ConfReader, wrong: WrongParameters) -> Settings:
    """
    Read both sections for ECS.

    :param wrong: checks the RunTask parameters of all launches, and those of each queue
    :raises ConfigurationError: if any option of either section is not valid; names them all
    """
    return Settings(*_load(conf, Tuning, EcsSettings, wrong))


def load_for_batch(conf: ConfReader, wrong: WrongParameters) -> SettingsForBatch:
    """
    Read both sections for Batch.

    :param wrong: checks the SubmitJob parameters of all launches, and those of each queue
    :raises ConfigurationError: if any option of either section is not valid; names them all
    """
    return SettingsForBatch(*_load(conf, BatchTuning, BatchSettings, wrong))


_Section = TypeVar("_Section", bound=Section)
_Tuning = TypeVar("_Tuning", bound=Tuning)
_Aws = TypeVar("_Aws", bound=AwsSettings)


def _load(
    conf: ConfReader, tuning_model: type[_Tuning], aws_model: type[_Aws], wrong: WrongParameters
) -> tuple[_Tuning, _Aws]:
    tuning, problems = _read(conf, tuning_model)
    if tuning is not None:
        subject = _subject(tuning_model, "queues", "")
        problems += [
            f"{subject} is not valid for queue {queue}: {problem}"
            for queue, overrides in tuning.queues.items()
            for problem in wrong(overrides)
        ]
    aws, more = _read(conf, aws_model)
    problems += more
    if aws is not None:
        subject = _subject(aws_model, aws_model.parameters_option, "")
        wrongs = wrong(getattr(aws, aws_model.parameters_option))
        problems += [f"{subject} is not valid: {problem}" for problem in wrongs]
    conn_id = conf.get(aws_model.section, "conn_id", fallback=None)
    if conn_id and not _amazon_provider_is_installed():
        problems.append(
            f"{_subject(aws_model, 'conn_id', conn_id)} is a connection, which needs the amazon provider: install "
            "it (pip install 'ecs-async-executor[amazon]'), or unset conn_id"
        )
    if tuning is None or aws is None or problems:
        raise ConfigurationError(problems)
    return tuning, aws


def _read(conf: ConfReader, model: type[_Section]) -> tuple[_Section | None, list[str]]:
    """Return the section, None if an option is not valid, and a sentence for each problem."""
    raw = {name: conf.get(model.section, name, fallback=None) for name in model.model_fields}
    raw = {name: value for name, value in raw.items() if value is not None}
    problems: dict[str, str] = {}
    bad: set[str] = set()

    def collect(conflict: Conflict) -> None:
        if bad.isdisjoint(conflict.names):
            problems[conflict.text] = f"[{model.section}] {conflict.text}"

    context = {"conflict": collect}
    try:
        settings = model.model_validate(raw, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            name = str(details["loc"][0])
            if name not in bad:
                problems[name] = _problem(model, raw, details)
            bad.add(name)
        # Conflicts are only looked for when each option is valid: look again without the invalid ones, so that one
        # start reports everything.
        rest: dict[str, Any] = {name: value for name, value in raw.items() if name not in bad}
        rest |= {name: "x" for name in bad if model.model_fields[name].is_required()}
        with contextlib.suppress(ValidationError):  # a moved parameter is not valid, which is reported already
            model.model_validate(rest, context=context)
        return None, list(problems.values())
    return settings, list(problems.values())


def _problem(model: type[Section], raw: Mapping[str, Any], error: ErrorDetails) -> str:
    """Return what is wrong with an option, as a sentence that names it, its value and the way out."""
    name, inside = str(error["loc"][0]), error["loc"][1:]
    allowed = describe_option(model, name).allowed
    if error["type"] == "missing":
        return f"[{model.section}] {name} is not set: set it to {allowed}"
    value = raw.get(name, error["input"]) if inside else error["input"]
    subject = _subject(model, name, value)
    if issubclass(model, AwsSettings) and model.parameters_option in raw:
        is_moved = name in model.options_of_parameters.values() and raw.get(name) != value
        subject += f" (from {model.parameters_option})" if is_moved else ""
    if error["type"] == QUEUE:
        return f"{subject} is not valid for {error['msg']}"
    if error["type"] == RULE:
        return f"{subject} is not valid: {error['msg']}"
    if error["type"] == UNREADABLE:
        return f"{subject} is not valid: it must be {allowed}, but {error['msg']}"
    where = f" (at {'.'.join(str(part) for part in inside)}: {error['msg']})" if inside else ""
    return f"{subject} is not valid: it must be {allowed}{where}"


def _subject(model: type[Section], name: str, value: Any) -> str:
    """Return an option with its value, unless that may hold secrets."""
    if not model.model_fields[name].repr:
        return f"[{model.section}] {name} (value not shown)"
    shown = repr(value)
    if len(shown) > _SHOWN_CHARACTERS:
        shown = f"{shown[:_SHOWN_CHARACTERS]}..."
    return f"[{model.section}] {name} = {shown}"


def _amazon_provider_is_installed() -> bool:
    try:
        importlib.metadata.distribution("apache-airflow-providers-amazon")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
