from __future__ import annotations

import importlib.metadata
import json

import pytest
from pydantic import ValidationError

from ecs_async_executor.settings import BatchSettings, BatchTuning, EcsSettings, SettingsForBatch, load_for_batch
from tests.settings.conf import (
    BATCH_REQUIRED,
    OURS,
    REQUIRED,
    BatchConf,
    any_parameters,
    ecs,
    problems_of,
    problems_of_batch,
    tuning,
)


def test_every_problem_of_both_sections_is_reported_at_once() -> None:
    problems = problems_of(
        {
            "launch_burst": "x",
            "poll_interval": "-1",
            "read_timeout": "28",
            "launch_rate": "50",
            "launch_rate_max": "5",
        },
        {"launch_type": "X", "assign_public_ip": "yes", "run_task_kwargs": '{"cluster": "c"}'},
    )
    assert [problem.split(" = ")[0].split(" is ")[0] for problem in problems] == [
        "[ecs_async_executor] launch_burst",
        "[ecs_async_executor] poll_interval",
        "[ecs_async_executor] shutdown_timeout",
        "[ecs_async_executor] launch_rate",
        "[aws_ecs_executor] container_name",
        "[aws_ecs_executor] launch_type",
        "[aws_ecs_executor] assign_public_ip",
    ]


def test_what_is_missing_is_named() -> None:
    assert problems_of(theirs={"cluster": " "}) == (
        "[aws_ecs_executor] cluster is not set: set it to the name or ARN of a cluster",
        "[aws_ecs_executor] container_name is not set: set it to the name of a container in the task definition",
    )


def test_a_value_that_may_hold_secrets_is_never_shown() -> None:
    secret = "hunter2"
    broken = json.dumps(
        {"overrides": {"containerOverrides": [{"environment": [{"name": "P", "value": secret}]}]}}
    )[:-1]
    problems = problems_of({"queues": broken}, {**REQUIRED, "run_task_kwargs": broken})
    assert len(problems) == 2
    assert secret not in str(problems)
    kwargs = ecs(run_task_kwargs=json.dumps({"overrides": {"x": secret}}))
    assert secret not in repr(kwargs)
    assert secret not in repr(tuning(queues=json.dumps({"q": {"group": secret}})))
    with pytest.raises(ValidationError) as wrong:
        EcsSettings(cluster="c", container_name="a", run_task_kwargs=[secret])  # type: ignore[arg-type]
    assert secret not in str(wrong.value)


def test_a_connection_needs_the_provider(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_there(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", not_there)
    (problem,) = problems_of(theirs={**REQUIRED, "conn_id": "aws_prod"})
    assert problem == (
        "[aws_ecs_executor] conn_id = 'aws_prod' is a connection, which needs the amazon provider: install it "
        "(pip install 'ecs-async-executor[amazon]'), or unset conn_id"
    )
    assert ecs().conn_id is None
    assert ecs(conn_id="").conn_id == ""


def test_batch_has_sections_of_its_own() -> None:
    conf = BatchConf({"launch_rate": "7"}, {**BATCH_REQUIRED, "max_submit_job_attempts": "5"})
    conf.values[OURS]["launch_rate"] = "not read"
    found = load_for_batch(conf, any_parameters)
    assert (found.tuning.launch_rate, found.batch.max_submit_job_attempts) == (7, 5)
    assert load_for_batch(BatchConf(), any_parameters) == SettingsForBatch(
        BatchTuning(), BatchSettings(**BATCH_REQUIRED)
    )


def test_problems_of_both_sections_for_batch_are_named_at_once() -> None:
    assert problems_of_batch({"launch_rate": "50"}, {"job_name": "a b"}) == (
        (
            "[batch_async_executor] launch_rate = 50 is above launch_rate_max = 40: lower launch_rate or raise "
            "launch_rate_max"
        ),
        (
            "[aws_batch_executor] job_name = 'a b' is not valid: it must be 1 to 128 letters, digits, hyphens and "
            "underscores, starting with a letter or a digit"
        ),
        "[aws_batch_executor] job_queue is not set: set it to the name or ARN of a job queue",
    )
