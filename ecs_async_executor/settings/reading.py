"""
Reading the sections from Airflow's configuration: everything that is wrong with them is reported at once.

May import the rest of ``settings`` and :mod:`ecs_async_executor.core.errors`. It imports no Airflow: the
configuration comes in as a :class:`ConfReader`.
"""

from __future__ import annotations

import configparser
import contextlib
import difflib
import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, Protocol, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.settings.aws import AwsSettings, BatchSettings, EcsSettings
from ecs_async_executor.settings.describing import describe_option
from ecs_async_executor.settings.options import Conflict, Section
from ecs_async_executor.settings.rule_parsing import Given, Service, WrongParameters
from ecs_async_executor.settings.rule_reading import RULE_OPTIONS, read_rules
from ecs_async_executor.settings.rule_words import shown
from ecs_async_executor.settings.rules import NO_RULES, ExecutorRules
from ecs_async_executor.settings.tuning import BatchTuning, Tuning
from ecs_async_executor.settings.values import RULE, UNREADABLE


class ConfReader(Protocol):
    """What settings need of a configuration; Airflow's ``conf`` and a team's ``ExecutorConf`` have it."""

    def get(self, section: str, key: str, *, fallback: Any = ...) -> Any:
        """Return the value of an option, or ``fallback`` if it has none."""
        ...


def _none_are_set(_: str) -> Mapping[str, str]:
    return {}


@dataclass(frozen=True, slots=True)
class Source:
    """
    What a configuration does not tell when it is asked for one option after the other.

    :param team: Airflow's team, whose options stand in sections of their own
    :param options_set: returns the options that are set in a section, each with the place where it is set
    """

    team: str | None = None
    options_set: Callable[[str], Mapping[str, str]] = _none_are_set

    def section(self, name: str) -> str:
        """Return a section as it is headed in ``airflow.cfg``."""
        return f"[{self.team}={name}]" if self.team else f"[{name}]"


NO_SOURCE: Final = Source()
"""Nothing but what the configuration tells."""


def _no_rules() -> ExecutorRules:
    return NO_RULES


@dataclass(frozen=True)
class _WithRules:
    """
    Settings whose rules are read when they are first needed.

    The api-server hardly needs them, and may have no file of rules.
    """

    read_rules: Callable[[], ExecutorRules] = field(default=_no_rules, kw_only=True, compare=False, repr=False)

    @cached_property
    def rules(self) -> ExecutorRules:
        """
        The rules of the options and of the file.

        :raises ConfigurationError: if any of them is not valid; names them all
        """
        return self.read_rules()


@dataclass(frozen=True)
class Settings(_WithRules):
    """
    The settings for ECS.

    :param doubts: sentences about settings that work, though hardly as they are meant
    """

    tuning: Tuning
    ecs: EcsSettings
    doubts: tuple[str, ...] = ()


@dataclass(frozen=True)
class SettingsForBatch(_WithRules):
    """The settings for Batch; ``doubts`` as in :class:`Settings`."""

    tuning: Tuning
    batch: BatchSettings
    doubts: tuple[str, ...] = ()


def load(conf: ConfReader, wrong: WrongParameters, source: Source = NO_SOURCE) -> Settings:
    """
    Read both sections for ECS.

    :param wrong: checks the RunTask parameters of all launches, and those of rules
    :raises ConfigurationError: if any option of either section is not valid, or if our own has one that does not
        exist; names them all, and what is wrong with the rules. Rules alone raise when they are first needed.
    """
    tuning, ecs, doubts, read = _load(conf, Tuning, EcsSettings, wrong, source)
    return Settings(tuning, ecs, doubts, read_rules=read)


def load_for_batch(conf: ConfReader, wrong: WrongParameters, source: Source = NO_SOURCE) -> SettingsForBatch:
    """
    Read both sections for Batch.

    :param wrong: checks the SubmitJob parameters of all launches, and those of rules
    :raises ConfigurationError: as :func:`load` does
    """
    tuning, batch, doubts, read = _load(conf, BatchTuning, BatchSettings, wrong, source)
    return SettingsForBatch(tuning, batch, doubts, read_rules=read)


_Section = TypeVar("_Section", bound=Section)
_Tuning = TypeVar("_Tuning", bound=Tuning)
_Aws = TypeVar("_Aws", bound=AwsSettings)


def _load(
    conf: ConfReader,
    tuning_model: type[_Tuning],
    aws_model: type[_Aws],
    wrong: WrongParameters,
    source: Source,
) -> tuple[_Tuning, _Aws, tuple[str, ...], Callable[[], ExecutorRules]]:
    tuning, usable, ours = _read(conf, tuning_model, source)
    ours += _unknown(tuning_model, source)

    def read() -> ExecutorRules:
        rules, wrongs = _rules(usable, source, Service(aws_model, wrong, _amazon_provider_is_installed()))
        if wrongs:
            raise ConfigurationError(wrongs)
        return rules

    aws, _, theirs = _read(conf, aws_model, source)
    if aws is not None:
        subject = _subject(aws_model, source, aws_model.parameters_option, "")
        wrongs = wrong(getattr(aws, aws_model.parameters_option))
        theirs += [f"{subject} is not valid: {problem}" for problem in wrongs]
    if tuning is None or aws is None or ours or theirs:
        try:
            read()
        except ConfigurationError as error:
            ours += error.problems
        raise ConfigurationError(ours + theirs)
    # The section is the provider's: another version of it, or a subclass, may have options that this one lacks.
    doubts = [f"{source.section(aws_model.section)} {doubt}" for doubt in aws.doubts()]
    return tuning, aws, (*_unknown(aws_model, source), *doubts), read


def _rules(tuning: Tuning, source: Source, service: Service) -> tuple[ExecutorRules, list[str]]:
    """
    Return the rules of the options and of the file, and a sentence for everything that is wrong with them.

    :param tuning: without the options that are not valid
    """
    section = f"{source.section(tuning.section)} "
    values = {name: getattr(tuning, name) for name in RULE_OPTIONS}
    sources = [Given({name: value for name, value in values.items() if value is not None}, lambda _: section)]
    problems: list[str] = []
    in_order: Callable[[list[str]], list[str]] = list
    if tuning.executor_rules is not None:
        from ecs_async_executor.settings.rule_files import UnusableFile, read_rule_file

        try:
            file = read_rule_file(tuning.executor_rules)
        except UnusableFile as error:
            problems.append(f"{section}executor_rules = {shown(tuning.executor_rules)} {error}")
        else:
            sources.append(Given(file.values, file.where))
            problems += file.problems
            in_order = file.in_order
    rules, more = read_rules(sources, service)
    return rules, in_order(problems + more)


def _unknown(model: type[Section], source: Source) -> list[str]:
    """Name the options that are set and do not exist."""
    options = list(model.model_fields)
    found = []
    for name, place in source.options_set(model.section).items():
        if name in options:
            continue
        meant = difflib.get_close_matches(name.lower(), options, 1)
        way_out = f"did you mean {meant[0]}?" if meant else f"the options are {', '.join(options)}"
        found.append(f"{source.section(model.section)} {name} ({place}) is not an option: {way_out}")
    return found


def _read(conf: ConfReader, model: type[_Section], source: Source) -> tuple[_Section | None, _Section, list[str]]:
    """
    Return the section, and a sentence for each problem.

    The section comes twice: None if an option is not valid, and without the options that are not.
    """
    raw: dict[str, Any] = {}
    problems: dict[str, str] = {}
    bad: set[str] = set()
    for name in model.model_fields:
        value = _text(conf, model, name)
        if value is _NOT_READABLE:
            problems[name] = f"{source.section(model.section)} {name} (value not shown) has a single %: write %%"
            bad.add(name)
        elif value is not None:
            raw[name] = value

    def collect(conflict: Conflict) -> None:
        if bad.isdisjoint(conflict.names):
            problems[conflict.text] = f"{source.section(model.section)} {conflict.text}"

    context = {"conflict": collect}
    usable = model.model_construct()
    try:
        usable = model.model_validate(raw, context=context)
    except ValidationError as error:
        for details in error.errors(include_url=False):
            name = str(details["loc"][0])
            if name not in bad:
                problems[name] = _problem(model, source, raw, details)
            bad.add(name)
        # Conflicts are only looked for when each option is valid: look again without the invalid ones, so that one
        # start reports everything.
        rest: dict[str, Any] = {name: value for name, value in raw.items() if name not in bad}
        rest |= {name: "x" for name in bad if model.model_fields[name].is_required()}
        with contextlib.suppress(ValidationError):  # a moved parameter is not valid, which is reported already
            usable = model.model_validate(rest, context=context)
    if (connection := raw.get("conn_id")) and not _amazon_provider_is_installed():
        problems["provider"] = (
            f"{_subject(model, source, 'conn_id', connection)} is a connection, which needs the amazon provider: "
            "install it (pip install 'ecs-async-executor[amazon]'), or unset conn_id"
        )
    return None if bad else usable, usable, list(problems.values())


_NOT_READABLE: Final = object()


def _text(conf: ConfReader, model: type[Section], name: str) -> Any:
    try:
        return conf.get(model.section, name, fallback=None)
    except configparser.InterpolationError:  # its text quotes the value, which may hold secrets
        return _NOT_READABLE


def _problem(model: type[Section], source: Source, raw: Mapping[str, Any], error: ErrorDetails) -> str:
    """Return what is wrong with an option, as a sentence that names it, its value and the way out."""
    name, inside = str(error["loc"][0]), error["loc"][1:]
    allowed = describe_option(model, name).allowed
    if error["type"] == "missing":
        own = " (a team has options of its own)" if source.team else ""
        return f"{source.section(model.section)} {name} is not set: set it to {allowed}{own}"
    value = raw.get(name, error["input"]) if inside else error["input"]
    subject = _subject(model, source, name, value)
    if issubclass(model, AwsSettings) and model.parameters_option in raw:
        is_moved = name in model.options_of_parameters.values() and raw.get(name) != value
        subject += f" (from {model.parameters_option})" if is_moved else ""
    if error["type"] == RULE:
        return f"{subject} is not valid: {error['msg']}"
    if error["type"] == UNREADABLE:
        return f"{subject} is not valid: it must be {allowed}, but {error['msg']}"
    where = f" (at {'.'.join(str(part) for part in inside)}: {error['msg']})" if inside else ""
    return f"{subject} is not valid: it must be {allowed}{where}"


def _subject(model: type[Section], source: Source, name: str, value: Any) -> str:
    """Return an option with its value, unless that may hold secrets."""
    section = source.section(model.section)
    if not model.model_fields[name].repr:
        return f"{section} {name} (value not shown)"
    return f"{section} {name} = {shown(value)}"


def _amazon_provider_is_installed() -> bool:
    try:
        importlib.metadata.distribution("apache-airflow-providers-amazon")
    except importlib.metadata.PackageNotFoundError:
        return False
    return True
