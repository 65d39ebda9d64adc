"""Where launches go: the placements they may choose from, the layers of their requests, and their destinations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from ecs_async_executor.adapter import compat
from ecs_async_executor.adapter.aws import AwsAdapter
from ecs_async_executor.adapter.steering import Course, Steering, asked_for
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.settings.rules import NO_RULES, Destination, ExecutorRules, Placement, Queue
from tests.adapter.scripted import ScriptedExecutor, make_callback, make_workload, queue

EU = Destination(region_name="eu-west-1", conn_id="aws_eu")
US = Destination(region_name="us-east-2")
OTHER = Destination(region_name="us-east-2", role_arn="arn:aws:iam::2:role/airflow")
SPOT = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
RULES = ExecutorRules(
    queues={
        "eu": Queue({"cluster": "eu"}, EU),
        "patient": Queue(placements=("spot", "on-demand"), placement_patience=300.0),
        "fixed": Queue(placements=()),
    },
    placements={
        "spot": Placement("spot", SPOT),
        "on-demand": Placement("on-demand", {"launchType": "FARGATE"}),
        "ohio": Placement("ohio", {"cluster": "ohio", "environment": {"PLACE": "ohio", "A": "0"}}, US),
        "other": Placement("other", {}, OTHER),
    },
    order=("spot", "ohio"),
    placement_patience=30.0,
)
STEERING = Steering(RULES)


@pytest.mark.parametrize(
    ("asked", "config", "choices"),
    [
        (None, None, Choices(("spot", "ohio"), 30.0)),
        ("unknown", {"cpu": "1 vCPU"}, Choices(("spot", "ohio"), 30.0)),
        ("eu", {}, Choices(("spot", "ohio"), 30.0)),
        ("patient", {}, Choices(("spot", "on-demand"), 300.0)),
        ("fixed", {}, NO_CHOICES),
        ("patient", {"placements": "on-demand"}, Choices(("on-demand",), 300.0)),
        ("fixed", {"placements": ["ohio", "spot", "ohio"]}, Choices(("ohio", "spot"), 30.0)),
        ("patient", {"placement_patience": 5}, Choices(("spot", "on-demand"), 5.0)),
        ("patient", {"placement_patience": 0}, Choices(("spot", "on-demand"), 0.0)),
        ("patient", {"placements": []}, NO_CHOICES),
    ],
)
def test_a_task_asks_before_its_queue_and_that_before_the_executor(
    asked: str | None, config: Any, choices: Choices
) -> None:
    assert STEERING.choices_of(asked, config) == choices


@pytest.mark.parametrize("config", [None, {}, {"cpu": "1 vCPU"}, {"overrides": {"cpu": "512"}}, ["no mapping"]])
def test_without_rules_the_very_same_config_reaches_the_hook(config: Any) -> None:
    steering = Steering(NO_RULES)
    assert steering.choices_of("default", config) is NO_CHOICES
    course = steering.course_of("default", config, None)
    assert course.config is config
    assert course.destination == ""


@pytest.mark.parametrize(
    ("config", "choice", "laid"),
    [
        ({}, "spot", SPOT),
        (None, "spot", SPOT),
        ({"placements": ["spot"], "tags": {"a": "b"}}, "spot", {**SPOT, "tags": {"a": "b"}}),
        ({"launchType": "EC2"}, "spot", {"launchType": "EC2"}),
        (SPOT, "on-demand", SPOT),
        (
            {"environment": {"A": "1"}, "cluster": "mine"},
            "ohio",
            {"cluster": "mine", "environment": {"PLACE": "ohio", "A": "1"}},
        ),
        (["no mapping"], "spot", ["no mapping"]),
    ],
)
def test_the_tasks_config_lies_over_the_placements_parameters(config: Any, choice: str, laid: Any) -> None:
    assert STEERING.course_of(None, config, choice).config == laid


def test_a_hook_may_change_what_it_is_given_and_the_rules_stay() -> None:
    course = STEERING.course_of(None, {}, "ohio")
    course.config["environment"]["A"] = "changed"
    assert RULES.placements["ohio"].parameters["environment"]["A"] == "0"
    own = {"placements": "spot", "tags": {"a": "b"}}
    assert STEERING.course_of(None, own, None).config == {"tags": {"a": "b"}}
    assert own == {"placements": "spot", "tags": {"a": "b"}}


@pytest.mark.parametrize(
    ("asked", "config", "choice", "destination"),
    [
        (None, {}, None, ""),
        ("eu", {}, None, EU.name),
        ("eu", {}, "spot", EU.name),
        ("eu", {}, "ohio", US.name),
        ("eu", {"destination": US.name}, None, US.name),
        ("eu", {"destination": EU.name}, "ohio", EU.name),
        (None, {"conn_id": "aws_eu"}, None, EU.name),
        (None, {"conn_id": "aws_eu", "region_name": "eu-west-1"}, None, EU.name),
        (None, {"region_name": "us-east-2"}, None, US.name),
        (None, {"region_name": "us-east-2", "role_arn": OTHER.role_arn}, None, OTHER.name),
        (None, {"region_name": None}, None, ""),
    ],
)
def test_a_task_decides_before_its_placement_and_that_before_its_queue_where_it_goes(
    asked: str | None, config: Mapping[str, Any], choice: str | None, destination: str
) -> None:
    assert STEERING.course_of(asked, config, choice) == Course(
        STEERING.course_of(None, {}, choice).config, destination
    )


ALLOWED = "Allowed: ohio, on-demand, other, spot"
UNKNOWN = (
    "executor_config: among the rules of this executor there is no destination with {}: a queue or a placement "
    f"has to name it first. Allowed: {OTHER.name}, {EU.name}, {US.name}"
)
NO_NAMES = "executor_config: placements must be a list of names, or one name, not {}. " + ALLOWED
NO_SECONDS = "executor_config: placement_patience must be a number of seconds from 0 on, not {}"


class Uncopiable:
    def __deepcopy__(self, _: Any) -> Any:
        raise RuntimeError("the author's own")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"placements": "spto"}, f"executor_config: placements: there is no placement 'spto'. {ALLOWED}"),
        ({"placements": {"spot": {}}}, NO_NAMES.format("dict")),
        ({"placements": ["spot", 1]}, NO_NAMES.format("list")),
        ({"placement_patience": -1}, NO_SECONDS.format("-1")),
        ({"placement_patience": True}, NO_SECONDS.format("True")),
        ({"placement_patience": "1 min"}, NO_SECONDS.format("str")),
        ({"placement_patience": float("nan")}, NO_SECONDS.format("nan")),
        ({"region_name": "eu-west-2"}, UNKNOWN.format("region_name = 'eu-west-2'")),
        (
            {"conn_id": "aws_eu", "region_name": "us-east-2"},
            UNKNOWN.format("region_name = 'us-east-2', conn_id = 'aws_eu'"),
        ),
        ({"destination": 7}, "executor_config: destination must be a string, not int"),
        ({"tags": Uncopiable()}, "executor_config cannot be copied: RuntimeError"),
    ],
)
def test_a_config_that_no_rule_allows_is_rejected_with_what_is_allowed(config: Any, words: str) -> None:
    with pytest.raises(Rejected) as rejected:
        STEERING.course_of(None, config, STEERING.choices_of(None, config).names[0])
    assert rejected.value.reason == words


def test_without_rules_a_task_can_choose_nothing() -> None:
    steering = Steering(NO_RULES)
    with pytest.raises(Rejected, match=r"no placement 'spot'[.] The rules of this executor define none"):
        steering.choices_of(None, {"placements": "spot"})
    with pytest.raises(Rejected, match=r"has to name it first[.] The rules of this executor define none"):
        steering.course_of(None, {"destination": "eu"}, None)


@pytest.mark.skipif(compat.AIRFLOW_VERSION < (3, 2), reason="Airflow 3.1 has no callbacks")
def test_a_callback_has_the_queue_of_its_data_and_no_config() -> None:
    assert asked_for(make_callback(queue="eu")) == ("eu", None)
    assert asked_for(make_callback()) == (None, None)


def test_a_launch_is_rendered_for_its_choice_and_its_destination(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsAdapter, "rules", RULES)
    executor = make_executor(ScriptedExecutor)
    queue(executor, make_workload(executor_config={"placements": ["spot", "ohio"]}, queue="eu"))
    executor.heartbeat()
    launch, workloads = executor.scripted.launches[-1], executor.workloads
    assert executor.scripted.arguments["choices"](launch) == Choices(("spot", "ohio"), 30.0)
    spot, ohio = (workloads.render(launch, choice) for choice in ("spot", "ohio"))
    assert (spot.choice, ohio.choice) == ("spot", "ohio")
    assert spot.request["capacityProviderStrategy"] == [{"capacityProvider": "FARGATE_SPOT"}]
    assert spot.scope.startswith(f"{EU.name}|")
    assert ohio.scope == f"{US.name}|ohio"
    assert "placements" not in ohio.request


def test_a_config_that_no_rule_allows_fails_its_task_alone(
    make_executor: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(AwsAdapter, "rules", RULES)
    executor = make_executor(ScriptedExecutor)
    queue(executor, make_workload("bad", executor_config={"placements": "spto"}), make_workload("good"))
    executor.heartbeat()
    bad, good = executor.scripted.launches
    with pytest.raises(Rejected, match="there is no placement 'spto'"):
        executor.workloads.choices(bad)
    assert executor.workloads.render(good, executor.workloads.choices(good).names[0]).choice == "spot"
