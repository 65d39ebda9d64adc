"""Parameters that the SDK would refuse, or has refused."""

from __future__ import annotations

import math
from typing import Any

import pytest
from botocore import exceptions as boto
from botocore.session import get_session
from botocore.validate import ParamValidator

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.services.errors import classify
from ecs_async_executor.services.parameters import with_numbers_as_text, wrong_parameters


def param_error(parameters: dict[str, Any]) -> Exception:
    shape: Any = get_session().get_service_model("ecs").operation_model("RunTask").input_shape
    report = ParamValidator().validate(parameters, shape)
    assert report.has_errors()
    return boto.ParamValidationError(report=report.generate_report())


SECRET = "hunter2\nInvalid type for parameter"


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        (
            {"taskDefinition": "f", "overrides": {"containerOverrides": [{"cpu": SECRET}]}},
            "overrides.containerOverrides[0].cpu must be int, not str",
        ),
        ({"taskDefinition": "f", "tags": {"k": SECRET}}, "tags must be list or tuple, not dict"),
        (
            {"taskDefinition": "f", "capacityProviderStrategy": SECRET},
            "capacityProviderStrategy must be list or tuple",
        ),
        ({"taskDefinition": "f", "podOverride": SECRET}, "podOverride is no parameter of the request"),
        ({"taskDefinition": "f", "overrides": {"x_y": SECRET}}, "x_y is no parameter of overrides"),
        ({}, "taskDefinition is missing in the request"),
        ({"taskDefinition": "f", SECRET: SECRET}, "a parameter has a wrong name or type"),
        (
            {"taskDefinition": 7, "overrides": {"containerOverrides": [{"cpu": SECRET, "memory": SECRET}]}},
            "taskDefinition must be str, not int; overrides.containerOverrides[0].cpu must be int",
        ),
    ],
)
def test_a_refused_parameter_is_named_with_its_type_but_not_its_value(
    parameters: dict[str, Any], said: str
) -> None:
    error = classify(param_error(parameters), "RunTask")
    assert error.kind is Kind.INVALID
    assert error.message.startswith("the request is malformed: ")
    assert said in error.message
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("what", ["length", "range"])
def test_a_parameter_out_of_bounds_is_named(what: str) -> None:
    report = f"Invalid {what} for parameter a.b[0], value: hunter2, valid min {what}: 1"
    error = classify(boto.ParamValidationError(report=report), "RunTask")
    assert error.message == f"the request is malformed: a.b[0] has the wrong {what}"


@pytest.mark.parametrize(
    ("parameters", "problems"),
    [
        ({}, []),
        ({"taskDefinition": "f", "tags": [{"key": "a", "value": SECRET}]}, []),
        ({"cluster": True}, ["cluster must be a string, not bool"]),
        ({"overrides": {"cpu": 1024, "memory": 0.5}, "tags": [{"key": "a", "value": 5}]}, []),
        ({"overrides": {"cpu": math.nan}}, ["overrides.cpu must be a string, not float"]),
        ({"launchType": 2}, ["launchType must be a string, not int"]),
        ({"count": None}, ["count must be a whole number, not nothing"]),
        ({"enableExecuteCommand": "yes"}, ["enableExecuteCommand must be true or false, not str"]),
        ({"overrides": {"containerOverrides": {}}}, ["overrides.containerOverrides must be a list, not dict"]),
        ({"taskDefintion": SECRET}, ["RunTask has no taskDefintion; did you mean taskDefinition?"]),
        ({"taskRoleArn": SECRET}, ["RunTask has no taskRoleArn; did you mean overrides.taskRoleArn?"]),
    ],
)
def test_a_parameter_that_would_be_refused_is_named_but_not_its_value(
    parameters: dict[str, Any], problems: list[str]
) -> None:
    assert list(wrong_parameters("ecs", "RunTask", parameters)) == problems


def test_where_nothing_similar_exists_the_possible_names_are_told() -> None:
    [problem] = wrong_parameters("ecs", "RunTask", {"overrides": {"zzz": SECRET}})
    assert problem.startswith("RunTask has no overrides.zzz; overrides takes containerOverrides, cpu, ")


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"overrides": {"cpu": 1024}}, {"overrides": {"cpu": "1024"}}),
        (
            {
                "overrides": {
                    "containerOverrides": [{"cpu": 256, "environment": [{"name": "N", "value": 0.5}]}, {}]
                }
            },
            {
                "overrides": {
                    "containerOverrides": [{"cpu": 256, "environment": [{"name": "N", "value": "0.5"}]}, {}]
                }
            },
        ),
        ({"tags": ({"key": "team", "value": 7},)}, {"tags": [{"key": "team", "value": "7"}]}),
    ],
)
def test_a_number_becomes_text_where_the_api_wants_text(given: dict[str, Any], sent: dict[str, Any]) -> None:
    before = repr(given)
    assert with_numbers_as_text("ecs", "RunTask", given) == sent
    assert repr(given) == before


def test_the_values_of_a_map_become_text_too() -> None:
    given = {"parameters": {"size": 5}, "retryStrategy": {"attempts": 2}}
    sent = {"parameters": {"size": "5"}, "retryStrategy": {"attempts": 2}}
    assert with_numbers_as_text("batch", "SubmitJob", given) == sent


def test_what_is_right_or_unknown_stays_what_it_is() -> None:
    class Weird(dict[str, Any]):
        def items(self) -> Any:
            raise RuntimeError

    given = {"count": 1, "cluster": True, "launchType": 2, "zone": 5, "overrides": Weird(cpu=1), "tags": {"a": 1}}
    assert with_numbers_as_text("ecs", "RunTask", given) is given
