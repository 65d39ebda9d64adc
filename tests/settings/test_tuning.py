from __future__ import annotations

import json
import re

import pytest

from ecs_async_executor.settings import Tuning
from tests.settings.conf import OURS, problems_of, problems_of_batch, rules, tuning


def test_an_empty_configuration_gives_the_defaults() -> None:
    assert tuning() == Tuning()


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("max_concurrent_launches", " 128 ", 128),
        ("launch_rate", "2.5", 2.5),
        ("launch_rate", "", None),
        ("launch_rate", "none", None),
        ("capacity_timeout", "900", 900.0),
        ("capacity_timeout", "off", None),
        ("capacity_timeout", "Off", None),
        ("capacity_timeout", "", None),
        ("poll_interval", "", 1.0),
        ("shutdown_timeout", "29.5", 29.5),
        *[
            ("adopt_task_instances", text, True)
            for text in ("true", "True", "TRUE", "1", "yes", "YES", "on", " On ")
        ],
        *[("adopt_task_instances", text, False) for text in ("false", "False", "FALSE", "0", "no", "No", "off")],
        ("queues", '{"gpu": {"cluster": "g", "overrides": {}}}', {"gpu": {"cluster": "g", "overrides": {}}}),
        ("queues", "", None),
    ],
)
def test_an_option_is_read_from_text(key: str, text: str, value: object) -> None:
    assert getattr(tuning(**{key: text}), key) == value


@pytest.mark.parametrize(
    ("key", "text", "allowed"),
    [
        ("max_concurrent_launches", "0", "a whole number from 1 to 1000"),
        ("max_concurrent_launches", "many", "a whole number from 1 to 1000"),
        ("max_concurrent_launches", "1.5", "a whole number from 1 to 1000"),
        ("launch_rate", "-1", "a number of requests per second, above 0 and at most 1000"),
        ("launch_rate", "0", "above 0"),
        ("launch_burst", "1000", "from 1 to 100"),
        ("describe_rate", "inf", "requests per second"),
        ("poll_interval", "nan", "seconds from 0.01 to 300"),
        ("missing_grace", "-1", "seconds from 1 to 3600"),
        ("missing_grace", "0", "seconds from 1 to 3600"),
        ("lost_container_grace", "0", "seconds from 1 to 86400"),
        ("capacity_timeout", "0", "seconds from 1 to 86400, or `off`"),
        ("shutdown_timeout", "30", "seconds from 0.1 to 29.9"),
        ("adopt_task_instances", "perhaps", "true or false"),
        ("read_timeout", "soon", "seconds"),
    ],
)
def test_a_bad_option_is_named_with_its_value_and_what_is_allowed(key: str, text: str, allowed: str) -> None:
    (problem,) = problems_of({key: text})
    assert problem.startswith(f"[{OURS}] {key} = {text!r} is not valid: it must be ")
    assert allowed in problem


def test_a_shutdown_has_to_outlast_a_request() -> None:
    assert problems_of({"connect_timeout": "9", "read_timeout": "9.5"}) == (
        (
            "[ecs_async_executor] shutdown_timeout = 20 is below connect_timeout + read_timeout + 2 = 20.5: lower "
            "connect_timeout or read_timeout, or raise shutdown_timeout (to at most 29.9)"
        ),
    )
    assert tuning(connect_timeout="9", read_timeout="9").shutdown_timeout == 20


def test_the_rate_cannot_begin_above_its_maximum() -> None:
    assert problems_of({"launch_rate": "20", "launch_rate_max": "10"}) == (
        (
            "[ecs_async_executor] launch_rate = 20 is above launch_rate_max = 10: lower launch_rate or raise "
            "launch_rate_max"
        ),
    )


QUEUES = "it must be a JSON object that gives each queue an object of request parameters and other keys of a queue"


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        ('{"a": 1}', ".a must be an object with the keys of a queue, not a number"),
        ("[1]", " must be an object that gives each queue an object, not a list"),
        (
            '{"a": {',
            f" (value not shown) is not valid: {QUEUES}, but it is not JSON: the error is in line 1, column 8",
        ),
        (
            '{"a": {"count": 2}}',
            ".a.count cannot be set, because one workload is one container",
        ),
        (
            '{"a": {"clientToken": "t"}}',
            ".a.clientToken cannot be set, because the executor sets it",
        ),
    ],
)
def test_bad_queues_are_named_without_their_values(queues: str, said: str) -> None:
    (problem,) = problems_of({"queues": queues})
    assert problem.startswith(f"[ecs_async_executor] queues{said}")


def test_queues_are_spelled_as_run_task_kwargs_may_be() -> None:
    queues = {"gpu": {"task_definition": "g", "overrides": {"task_role_arn": "r"}, "tags": {"cost_center": "1"}}}
    assert rules(queues=json.dumps(queues)).parameters_of("gpu") == {
        "taskDefinition": "g",
        "overrides": {"taskRoleArn": "r"},
        "tags": {"cost_center": "1"},
    }


@pytest.mark.parametrize("key", ["client_token", "ClientToken"])
def test_what_a_queue_cannot_set_it_cannot_set_in_another_spelling(key: str) -> None:
    (problem,) = problems_of({"queues": json.dumps({"a": {key: "t"}})})
    assert f"queues.a.{key} cannot be set" in problem


@pytest.mark.parametrize("key", ["arrayProperties", "nodeOverrides", "eksPropertiesOverride"])
def test_a_queue_of_batchs_runs_one_container_per_workload(key: str) -> None:
    for spelling in (key, re.sub("[A-Z]", lambda capital: f"_{capital[0].lower()}", key)):
        (problem,) = problems_of_batch({"queues": json.dumps({"a": {spelling: {}}})})
        assert f"queues.a.{spelling} cannot be set, because " in problem


def test_a_queue_of_batchs_cannot_name_jobs_as_batch_does_not() -> None:
    assert problems_of_batch({"queues": '{"a": {"job_name": "a b"}}'}) == (
        (
            "[batch_async_executor] queues.a.job_name must be 1 to 128 "
            "letters, digits, hyphens and underscores, starting with a letter or a digit"
        ),
    )


# --- how workloads are handed over --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "bucket", "key"),
    [
        ("s3://workloads", "s3://workloads", "x.env"),
        ("s3://workloads/", "s3://workloads", "x.env"),
        ("s3://work-loads.eu/prod/airflow/", "s3://work-loads.eu/prod/airflow", "prod/airflow/x.env"),
    ],
)
def test_a_bucket_is_read_with_its_prefix(text: str, bucket: str, key: str) -> None:
    read = tuning(workload_delivery="environment_file", workload_bucket=text).workload_bucket
    assert read is not None
    assert (str(read), read.key("x.env")) == (bucket, key)
    assert read.key_in(f"arn:aws-cn:s3:::{read.name}/{key}") == key
    assert read.key_in(f"arn:aws:s3:::other/{key}") is None


@pytest.mark.parametrize("text", ["workloads", "s3://", "s3://Upper/x", "https://s3/x", "s3://a/b", "s3://abc//x"])
def test_what_is_no_bucket_is_refused(text: str) -> None:
    (problem,) = problems_of({"workload_bucket": text})
    assert problem.endswith("is not valid: it must be an S3 bucket and a prefix of keys, as `s3://bucket/prefix`")


def test_environment_files_need_a_bucket_and_time_to_be_written() -> None:
    (problem,) = problems_of({"workload_delivery": "environment_file"})
    assert problem.startswith(f"[{OURS}] workload_delivery = environment_file needs a place for the files: set ")
    by_file = {"workload_delivery": "environment_file", "workload_bucket": "s3://workloads"}
    assert not tuning(**by_file).conflicts()
    (problem,) = problems_of({**by_file, "shutdown_timeout": "19"})
    assert "connect_timeout + read_timeout + 5 = 20" in problem


def test_a_way_to_hand_over_that_does_not_exist_is_refused() -> None:
    (problem,) = problems_of({"workload_delivery": "carrier pigeon"})
    assert problem.endswith("it must be `command` or `environment_file`")


def test_batch_says_that_it_has_no_environment_files() -> None:
    (problem,) = problems_of_batch({"workload_delivery": "environment_file"})
    assert "SubmitJob takes no environment files" in problem
    (problem,) = problems_of_batch({"workload_bucket": "s3://workloads"})
    assert "SubmitJob takes no environment files" in problem


# --- a queue of events ------------------------------------------------------------------------------------


@pytest.mark.parametrize("url", ["off", "", "none"])
def test_without_a_queue_of_events_there_is_none(url: str) -> None:
    assert tuning(events_queue_url=url).events_queue_url is None


@pytest.mark.parametrize("url", ["https://sqs.eu-west-1.amazonaws.com/1/q", "airflow-events", "arn:aws:sqs:x:1:q"])
def test_what_is_no_url_of_a_queue_is_refused(url: str) -> None:
    (problem,) = problems_of({"events_queue_url": url})
    assert "the URL of a standard queue" in problem
