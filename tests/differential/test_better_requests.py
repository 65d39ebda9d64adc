"""
What the provider gets wrong and we get right.

Each case says both: should the provider mend one, its case fails here and moves to the others.
"""

from __future__ import annotations

import asyncio
import copy
import json
from typing import Any, NamedTuple

import pytest

pytest.importorskip("airflow.providers.amazon")

from botocore.exceptions import ParamValidationError

from ecs_async_executor.core.backend import Handle
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.services import ecs
from ecs_async_executor.services.clients import ClientFactory
from ecs_async_executor.settings import Tuning

BASE = {"cluster": "c", "container_name": "airflow", "task_definition": "family:3", "region_name": "eu-west-1"}
FARGATE = {**BASE, "launch_type": "FARGATE", "subnets": "subnet-a"}
EC2 = {**BASE, "launch_type": "EC2"}
SPOT = [{"capacityProvider": "FARGATE_SPOT", "weight": 1}]
OWN = [{"capacityProvider": "my-instances", "weight": 1}]
ABSENT = object()


class Case(NamedTuple):
    """:param theirs: what the provider raises, or has in its request; :param ours: what is in ours instead."""

    options: dict[str, str]
    theirs: type[Exception] | tuple[type[Exception], ...] | dict[str, Any]
    ours: dict[str, Any]
    executor_config: dict[str, Any] | None = None
    default_strategy: tuple[dict[str, Any], ...] = ()


def kwargs(options: dict[str, str], **parameters: Any) -> dict[str, str]:
    return {**options, "run_task_kwargs": json.dumps(parameters)}


def at(body: Any, path: str) -> Any:
    try:
        for part in path.split("."):
            body = body[int(part) if part.isdigit() else part]
    except (KeyError, IndexError):
        return ABSENT
    return body


NETWORK = "networkConfiguration.awsvpcConfiguration"
CONTAINERS = "overrides.containerOverrides"
MARK = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}

CASES = {
    "capacity providers as an option, JSON": Case(
        {**BASE, "capacity_provider_strategy": json.dumps(SPOT)},
        # It goes on from its mistake to another one, in an order that differs between its versions.
        theirs=(ParamValidationError, ValueError),
        ours={"capacityProviderStrategy": SPOT, "launchType": ABSENT, "platformVersion": "LATEST"},
    ),
    "capacity providers as an option, as documented": Case(
        {
            **BASE,
            "capacity_provider_strategy": "[{'capacityProvider': 'cp1', 'weight': 5}, "
            "{'capacityProvider': 'cp2', 'weight': 1}]",
        },
        theirs=ParamValidationError,
        ours={
            "capacityProviderStrategy": [
                {"capacityProvider": "cp1", "weight": 5},
                {"capacityProvider": "cp2", "weight": 1},
            ],
            "platformVersion": ABSENT,
        },
    ),
    "capacity providers in kwargs, camel case": Case(
        kwargs(BASE, capacityProviderStrategy=SPOT),
        theirs={"launchType": "FARGATE", "capacityProviderStrategy": SPOT},
        ours={"launchType": ABSENT, "capacityProviderStrategy": SPOT},
    ),
    "capacity providers in kwargs over a launch type": Case(
        kwargs(FARGATE, capacity_provider_strategy=SPOT),
        theirs=ValueError,
        ours={"launchType": ABSENT, "capacityProviderStrategy": SPOT},
    ),
    "capacity providers of one task": Case(
        FARGATE,
        theirs={"launchType": "FARGATE", "capacityProviderStrategy": SPOT},
        ours={"launchType": ABSENT, "capacityProviderStrategy": SPOT, "platformVersion": "LATEST"},
        executor_config={"capacityProviderStrategy": SPOT},
    ),
    "launch type of one task over capacity providers": Case(
        kwargs(BASE, capacity_provider_strategy=OWN),
        theirs={"launchType": "FARGATE", "capacityProviderStrategy": OWN},
        ours={"launchType": "FARGATE", "capacityProviderStrategy": ABSENT},
        executor_config={"launchType": "FARGATE"},
    ),
    "launch type in kwargs, camel case": Case(
        kwargs(BASE, launchType="EC2"),
        theirs={"launchType": "FARGATE", "platformVersion": "LATEST"},
        ours={"launchType": "EC2", "platformVersion": ABSENT},
    ),
    "launch type in small letters": Case(
        {**FARGATE, "launch_type": "fargate"}, theirs={"launchType": "fargate"}, ours={"launchType": "FARGATE"}
    ),
    "platform version with own capacity providers": Case(
        kwargs(BASE, capacity_provider_strategy=OWN),
        theirs={"platformVersion": "LATEST"},
        ours={"platformVersion": ABSENT, "capacityProviderStrategy": OWN},
    ),
    "platform version with the cluster's own capacity providers": Case(
        BASE,
        theirs={"platformVersion": "LATEST", "launchType": ABSENT},
        ours={"platformVersion": ABSENT, "launchType": ABSENT},
        default_strategy=tuple(OWN),
    ),
    "platform version of a task that goes to EC2": Case(
        FARGATE,
        theirs={"platformVersion": "LATEST", "launchType": "EC2"},
        ours={"platformVersion": ABSENT, "launchType": "EC2"},
        executor_config={"launchType": "EC2"},
    ),
    "platform version of external instances": Case(
        {**BASE, "launch_type": "EXTERNAL"},
        theirs={"platformVersion": "LATEST"},
        ours={"platformVersion": ABSENT, "launchType": "EXTERNAL"},
    ),
    "no public address, in small letters": Case(
        {**EC2, "assign_public_ip": "false"}, theirs=ValueError, ours={"networkConfiguration": ABSENT}
    ),
    "public address, in small letters": Case(
        {**FARGATE, "assign_public_ip": "true"},
        theirs={f"{NETWORK}.assignPublicIp": "DISABLED"},
        ours={f"{NETWORK}.assignPublicIp": "ENABLED"},
    ),
    "public address in kwargs, JSON's true": Case(
        kwargs(FARGATE, assign_public_ip=True),
        theirs={f"{NETWORK}.assignPublicIp": "DISABLED"},
        ours={f"{NETWORK}.assignPublicIp": "ENABLED"},
    ),
    "spaces in lists": Case(
        {**FARGATE, "subnets": "subnet-a, subnet-b", "security_groups": " sg-a ,sg-b "},
        theirs={f"{NETWORK}.subnets": ["subnet-a", " subnet-b"]},
        ours={f"{NETWORK}.subnets": ["subnet-a", "subnet-b"], f"{NETWORK}.securityGroups": ["sg-a", "sg-b"]},
    ),
    "subnets in kwargs as a list": Case(
        kwargs(FARGATE, subnets=["subnet-k", "subnet-l"]),
        theirs={f"{NETWORK}.subnets": ["['subnet-k'", " 'subnet-l']"]},
        ours={f"{NETWORK}.subnets": ["subnet-k", "subnet-l"]},
    ),
    "network in kwargs wins over options": Case(
        kwargs(FARGATE, networkConfiguration={"awsvpcConfiguration": {"subnets": ["subnet-k"]}}),
        theirs={f"{NETWORK}.subnets": ["subnet-a"]},
        ours={f"{NETWORK}.subnets": ["subnet-k"]},
    ),
    "tags as documented": Case(
        kwargs(FARGATE, tags={"key": "schema", "value": "1.0"}),
        theirs=ParamValidationError,
        ours={"tags": [{"key": "schema", "value": "1.0"}]},
    ),
    "tags as a dictionary, with the user's own spelling": Case(
        kwargs(FARGATE, tags={"cost_center": "snake_case", "Team": "data"}),
        theirs=ParamValidationError,
        ours={"tags": [{"key": "cost_center", "value": "snake_case"}, {"key": "Team", "value": "data"}]},
    ),
    "tags of one task as a dictionary": Case(
        FARGATE,
        theirs=ParamValidationError,
        ours={"tags": [{"key": "a_b", "value": "c"}]},
        executor_config={"tags": {"a_b": "c"}},
    ),
    "managed tags in kwargs, snake case": Case(
        kwargs(FARGATE, enable_ecs_managed_tags=True),
        theirs=ParamValidationError,
        ours={"enableECSManagedTags": True},
    ),
    "ephemeral storage in kwargs, snake case": Case(
        kwargs(FARGATE, overrides={"ephemeral_storage": {"size_in_gib": 30}}),
        theirs=ParamValidationError,
        ours={"overrides.ephemeralStorage": {"sizeInGiB": 30}},
    ),
    "containers in kwargs, snake case": Case(
        kwargs(FARGATE, overrides={"container_overrides": [{"cpu": 128}]}),
        theirs={f"{CONTAINERS}.0.cpu": ABSENT},
        ours={f"{CONTAINERS}.0.cpu": 128},
    ),
    "containers in kwargs, none": Case(
        kwargs(FARGATE, overrides={"containerOverrides": []}),
        theirs=IndexError,
        ours={f"{CONTAINERS}.0.name": "airflow"},
    ),
    "sidecar first in kwargs": Case(
        kwargs(
            FARGATE, overrides={"containerOverrides": [{"name": "side", "cpu": 1}, {"name": "airflow", "cpu": 2}]}
        ),
        theirs={f"{CONTAINERS}.0.name": "airflow", f"{CONTAINERS}.1.name": "airflow"},
        ours={f"{CONTAINERS}.0": {"name": "side", "cpu": 1}, f"{CONTAINERS}.1.environment": [MARK]},
    ),
}


WITH_PROVIDERS = [name for name in CASES if "capacity providers" in name]


@pytest.mark.parametrize("name", WITH_PROVIDERS)
def test_capacity_providers_can_be_set_as_an_option_in_kwargs_and_for_one_task(duel: Any, name: str) -> None:
    compare(duel, CASES[name])


@pytest.mark.parametrize("name", [name for name in CASES if name not in WITH_PROVIDERS])
def test_options_may_have_spaces_and_small_letters_and_every_spelling_that_is_documented(
    duel: Any, name: str
) -> None:
    compare(duel, CASES[name])


def compare(duel: Any, case: Case) -> None:
    """Assert that our request is right where the provider's is not."""
    duel.configure(case.options)
    duel.recorder.default_strategy = list(case.default_strategy)

    ours = duel.of_ours(copy.deepcopy(case.executor_config))
    assert {path: at(ours, path) for path in case.ours} == case.ours

    if not isinstance(case.theirs, dict):
        with pytest.raises(case.theirs):
            duel.of_provider(copy.deepcopy(case.executor_config))
    else:
        theirs = duel.of_provider(copy.deepcopy(case.executor_config))
        assert {path: at(theirs, path) for path in case.theirs} == case.theirs


def test_an_executor_config_is_never_changed(duel: Any) -> None:
    duel.configure(FARGATE)
    executor_config = {"overrides": {"containerOverrides": [{"name": "airflow", "environment": []}]}}
    before = copy.deepcopy(executor_config)

    for _ in range(2):
        assert at(duel.of_ours(executor_config), f"{CONTAINERS}.0.environment") == [MARK]
        assert executor_config == before

    executor = duel.provider()
    duel.of_provider(executor_config, executor)
    assert at(duel.of_provider(executor_config, executor), f"{CONTAINERS}.0.environment") == [MARK, MARK]


def test_a_task_is_described_and_stopped_in_its_own_cluster(duel: Any) -> None:
    duel.configure(FARGATE)
    spec = duel.spec({"cluster": "gpu"})

    async def launch_describe_stop(backend: ecs.EcsBackend) -> Handle:
        handle = (await backend.launch(spec, "t-1")).handle
        await backend.describe(handle.scope, [handle.id])
        await backend.stop(handle, "because")
        return handle

    handle = duel.run(launch_describe_stop)
    assert handle.scope == "gpu"
    assert [(call.operation, call.body["cluster"]) for call in duel.recorder.calls] == [
        ("RunTask", "gpu"),
        ("DescribeTasks", "gpu"),
        ("StopTask", "gpu"),
    ]

    executor = duel.provider()
    duel.of_provider({"cluster": "gpu"}, executor)
    executor._AwsEcsExecutor__describe_tasks([handle.id])
    assert duel.recorder.of("DescribeTasks")[-1].body["cluster"] == "c"


def test_the_launch_type_is_asked_for_in_the_configured_region(duel: Any) -> None:
    duel.configure({**BASE, "region_name": "ap-south-1"})
    duel.of_ours()
    assert [(call.operation, call.region) for call in duel.recorder.calls] == [
        ("DescribeClusters", "ap-south-1"),
        ("RunTask", "ap-south-1"),
    ]

    duel.recorder.calls.clear()
    duel.provider()
    assert [call.region for call in duel.recorder.of("DescribeClusters")] == ["eu-west-1"]


def test_the_launch_type_is_asked_for_with_the_configured_connection(
    duel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(
        "AIRFLOW_CONN_OTHER", json.dumps({"conn_type": "aws", "extra": {"region_name": "sa-east-1"}})
    )
    duel.configure({"cluster": "c", "container_name": "airflow", "task_definition": "f", "conn_id": "other"})
    duel.of_ours()
    assert {call.region for call in duel.recorder.calls} == {"sa-east-1"}

    duel.recorder.calls.clear()
    duel.provider()
    assert {call.region for call in duel.recorder.calls} == {"eu-west-1"}


def test_a_cluster_that_does_not_exist_is_a_clear_refusal(duel: Any) -> None:
    duel.configure(BASE)
    duel.recorder.clusters = False

    with pytest.raises(BackendError, match="cluster 'c' was not found in region eu-west-1") as caught:
        duel.of_ours()
    assert caught.value.kind is Kind.REFUSED

    with pytest.raises(IndexError):
        duel.provider()


def test_more_than_one_container_per_workload_is_refused(duel: Any) -> None:
    duel.configure(FARGATE)
    with pytest.raises(Rejected, match="count must be 1"):
        duel.spec({"count": 2})
    assert duel.of_provider({"count": 2})["count"] == 2


def test_a_bad_executor_config_is_refused_for_this_workload_alone(duel: Any) -> None:
    duel.configure(FARGATE)
    with pytest.raises(Rejected, match='never override "name" or "command"'):
        duel.spec({"command": ["x"]})
    with pytest.raises(ValueError, match="should never override"):
        duel.provider().execute_async("key", ["x"], executor_config={"command": ["x"]})


def test_the_cluster_is_asked_for_its_default_once(duel: Any) -> None:
    duel.configure(BASE)
    spec = duel.spec()

    async def launch_many(backend: ecs.EcsBackend) -> None:
        await asyncio.gather(*(backend.launch(spec, f"t-{n}") for n in range(5)))

    duel.run(launch_many)
    assert len(duel.recorder.of("DescribeClusters")) == 1
    assert [call.body["launchType"] for call in duel.recorder.of("RunTask")] == ["FARGATE"] * 5


def test_without_the_provider_the_default_chain_is_used(duel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecs_async_executor.services.credentials._hook_class", lambda: None)
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", "aws://?endpoint_url=http%3A%2F%2F127.0.0.1%3A9")
    duel.configure({**FARGATE, "conn_id": ""})
    assert duel.of_ours()["cluster"] == "c"


def test_the_services_own_endpoint_variable_wins(duel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ENDPOINT_URL_ECS", duel.recorder.url)
    duel.configure(FARGATE)
    assert duel.of_ours()["cluster"] == "c"


def test_the_connections_endpoint_and_settings_are_used(duel: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    extra = {
        "endpoint_url": duel.recorder.url,
        "config_kwargs": {"retries": {"mode": "adaptive", "max_attempts": 9}, "user_agent_extra": "x/1"},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({"conn_type": "aws", "extra": extra}))
    duel.configure(FARGATE)
    assert duel.of_ours()["cluster"] == "c"

    async def settings_of_client() -> Any:
        factory = ClientFactory.from_settings(duel.settings(), Tuning(max_concurrent_launches=200))
        async with factory.client("ecs") as client:
            return client.meta.config

    config = asyncio.run(settings_of_client())
    assert config.retries == {"mode": "standard", "total_max_attempts": 1}
    assert config.max_pool_connections > 200
    assert config.user_agent_extra == "x/1"
    assert (config.connect_timeout, config.read_timeout) == (5.0, 10.0)
