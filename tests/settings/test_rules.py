from __future__ import annotations

import json

import pytest

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.settings import Destination, EcsSettings, Placement, Queue, Retry
from ecs_async_executor.settings.rule_parsing import Service
from ecs_async_executor.settings.rule_reading import read_retries
from tests.settings.conf import any_parameters, rules


@pytest.mark.usefixtures("with_connections")
def test_the_options_are_read_into_rules() -> None:
    found = rules(
        queues=json.dumps(
            {
                "eu": {
                    "region_name": "eu-west-1",
                    "conn_id": "aws_eu",
                    "cluster": "eu",
                    "memory": "4 GB",
                    "environment": {"some_name": "x"},
                    "placements": "ec2",
                    "placement_patience": 5,
                    "retries": [{"when": "exit 75", "cpu": "x2"}],
                }
            }
        ),
        placements='["spot", {"gpu": {"capacity_provider_strategy": [{"capacityProvider": "g5"}]}}, "on-demand"]',
        placement_patience="300",
        retries='[{"when": "oom", "memory": "x2", "up to": "30 GB"}, {"when": "spot", "capacity": "on-demand"}]',
    )
    destination = Destination("eu-west-1", "aws_eu")
    assert found.queues == {
        "eu": Queue(
            parameters={"memory": "4 GB", "environment": {"some_name": "x"}, "cluster": "eu"},
            destination=destination,
            placements=("ec2",),
            placement_patience=5.0,
            retries=(Retry("exit 75", {"cpu": "x2"}),),
        )
    }
    assert found.placements["gpu"] == Placement("gpu", {"capacityProviderStrategy": [{"capacityProvider": "g5"}]})
    assert found.placements.keys() == {"spot", "on-demand", "ec2", "gpu"}
    assert (found.order, found.placement_patience) == (("spot", "gpu", "on-demand"), 300.0)
    assert found.retries == (
        Retry("oom", {"memory": "x2", "up_to": "30 GB"}),
        Retry("spot", {"placements": ("on-demand",)}),
    )
    assert found.destinations == {"aws_eu/eu-west-1": destination}


QUEUE_URL = "https://sqs.us-east-1.amazonaws.com/123456789012/far-events"


def test_a_destination_has_the_queue_of_events_that_one_of_its_rules_names() -> None:
    far = {"region_name": "us-east-1"}
    found = rules(queues=json.dumps({"a": {**far, "events_queue_url": QUEUE_URL}, "b": far}))
    (one,) = found.destinations.values()
    assert (one, one.name, one.events_queue_url) == (Destination("us-east-1"), "us-east-1", QUEUE_URL)


@pytest.mark.parametrize(
    ("queues", "said"),
    [
        (
            {"a": {"events_queue_url": QUEUE_URL}},
            "is for another Region or account, and this rule names none: set the option of this name",
        ),
        (
            {
                "a": {"region_name": "us-east-1", "events_queue_url": QUEUE_URL},
                "b": {"region_name": "us-east-1", "events_queue_url": f"{QUEUE_URL}-2"},
            },
            "The rules name two queues of events for the destination us-east-1: keep one",
        ),
    ],
    ids=["of home", "two"],
)
def test_a_queue_of_events_belongs_to_one_destination(queues: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        rules(queues=json.dumps(queues))
    (problem,) = caught.value.problems
    assert said in problem


def test_placements_can_be_named_without_json() -> None:
    assert rules(placements="spot, on-demand").order == ("spot", "on-demand")


def test_without_options_there_are_only_the_placements_that_every_executor_has() -> None:
    found = rules()
    assert (found.queues, found.order, found.placement_patience, found.retries) == ({}, (), 60.0, ())
    assert found.placements.keys() == {"spot", "on-demand", "ec2"}


def test_a_task_can_have_retry_rules_of_its_own() -> None:
    service = Service(EcsSettings, any_parameters)
    placements = {"big": Placement("big", {})}
    right = [{"when": "oom", "memory": "x2", "up to": "8 GB"}, {"when": "spot", "capacity": "big"}]
    assert read_retries(right, "executor_config: ", service, placements) == (
        (Retry("oom", {"memory": "x2", "up_to": "8 GB"}), Retry("spot", {"placements": ("big",)})),
        [],
    )
    wrong = [{"when": "oom", "memory": "x1"}, {"when": "spot", "capacity": "bgi"}]
    assert read_retries(wrong, "executor_config: ", service, placements)[1] == [
        "executor_config: retries[0].memory = 'x1' makes nothing larger: write a factor above 1, such as \"x2\"",
        "executor_config: retries[1].capacity: there is no placement 'bgi'; did you mean big?",
    ]
    assert read_retries("oom", "executor_config: ", service, {})[1] == [
        "executor_config: retries must be a list of retry rules, not text"
    ]
