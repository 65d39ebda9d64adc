"""Configurations for the tests of settings: a few options, all others unset."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.settings import BatchSettings, EcsSettings, ExecutorRules, Tuning, load, load_for_batch

OURS = "ecs_async_executor"
THEIRS = "aws_ecs_executor"
REQUIRED = {"cluster": "c", "container_name": "airflow"}
BATCH_REQUIRED: dict[str, Any] = {"job_name": "airflow", "job_queue": "q"}


class Conf:
    """The two sections for ECS; what is required is set unless ``theirs`` says otherwise."""

    def __init__(self, ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> None:
        self.values = {OURS: ours or {}, THEIRS: REQUIRED if theirs is None else theirs}

    def get(self, section: str, key: str, *, fallback: Any = None) -> Any:
        return self.values[section].get(key, fallback)


class BatchConf(Conf):
    """Those for Batch."""

    def __init__(self, ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> None:
        super().__init__()
        self.values |= {
            "batch_async_executor": ours or {},
            "aws_batch_executor": BATCH_REQUIRED if theirs is None else theirs,
        }


def any_parameters(_: Mapping[str, Any]) -> Iterable[str]:
    """Take every request parameter for right."""
    return ()


def tuning(**options: str) -> Tuning:
    return load(Conf(options), any_parameters).tuning


def rules(**options: str) -> ExecutorRules:
    return load(Conf(options), any_parameters).rules


def ecs(**options: str) -> EcsSettings:
    return load(Conf(theirs={**REQUIRED, **options}), any_parameters).ecs


def batch(**options: str) -> BatchSettings:
    return load_for_batch(BatchConf(theirs={**BATCH_REQUIRED, **options}), any_parameters).batch


def problems_of(ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        _ = load(Conf(ours, theirs), any_parameters).rules
    return caught.value.problems


def problems_of_batch(ours: dict[str, Any] | None = None, theirs: dict[str, Any] | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigurationError) as caught:
        _ = load_for_batch(BatchConf(ours, theirs), any_parameters).rules
    return caught.value.problems
