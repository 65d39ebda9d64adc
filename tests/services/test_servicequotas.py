"""What AWS's Service Quotas says of an account: which quotas count, and what comes of a refusal."""

from __future__ import annotations

from typing import Any

import pytest

from ecs_async_executor.core.account import AccountQuota
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.servicequotas import account_quotas
from tests.services.fakes import FakeClient, FakeFactory, refusal

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def quota(name: str, value: float, code: str = "L-1", **more: Any) -> dict[str, Any]:
    return {"QuotaName": name, "QuotaCode": code, "Value": value, "Adjustable": True, **more}


def answering(*replies: Any) -> tuple[Any, FakeClient]:
    answers = iter(replies)
    client = FakeClient(list_service_quotas=lambda **_: next(answers))
    return FakeFactory(client, "service-quotas"), client


async def test_the_quotas_for_fargate_are_known_by_their_names() -> None:
    clients, client = answering(
        {
            "Quotas": [
                quota("Fargate Spot vCPU resource count", 12.0, "L-36FBB829"),
                quota("Fargate On-Demand vCPU resource count", 6.0, "L-3032A538", Adjustable=False),
                quota("Something that comes later", 1.0),
                quota("Fargate On-Demand vCPU resource count of something else", 1.0),
                {"QuotaName": "Fargate Spot Burst Launch Rate"},
            ]
        }
    )
    found = await account_quotas(clients)
    assert found.quotas == (
        AccountQuota("Fargate On-Demand vCPU resource count", "L-3032A538", 6.0, adjustable=False, of_vcpus=True),
        AccountQuota("Fargate Spot vCPU resource count", "L-36FBB829", 12.0, of_vcpus=True),
    )
    assert found.launch_rates == {}
    assert found.region == client.meta.region_name
    assert [call["ServiceCode"] for _, call in client.calls] == ["fargate"]


@pytest.mark.parametrize(
    ("rates", "most"),
    [
        ({"On-Demand": 5.0, "Spot": 5.0}, 5.0),
        ({"On-Demand": 5.0, "Spot": 20.0}, 20.0),
        ({"On-Demand": 7.0}, 7.0),
        ({"On-Demand": 0.0}, None),
    ],
)
async def test_launches_may_be_as_fast_as_the_faster_of_the_two_kinds(
    rates: dict[str, float], most: float | None
) -> None:
    listed = [quota(f"Fargate {kind} Sustained Launch Rate", value) for kind, value in rates.items()]
    clients, _ = answering({"Quotas": listed})
    assert (await account_quotas(clients)).launch_rates.get("FARGATE") == most


async def test_a_list_of_several_pages_is_read_to_its_end() -> None:
    clients, client = answering(
        {"Quotas": [quota("Fargate Spot vCPU resource count", 1.0)], "NextToken": "more"},
        {"Quotas": [quota("Fargate On-Demand vCPU resource count", 2.0)]},
    )
    assert [one.value for one in (await account_quotas(clients)).quotas] == [2.0, 1.0]
    assert [call.get("NextToken") for _, call in client.calls] == [None, "more"]


async def test_a_refusal_says_what_aws_says() -> None:
    clients, _ = answering(refusal("AccessDeniedException", "User is not authorized", "ListServiceQuotas"))
    with pytest.raises(BackendError, match="not authorized") as caught:
        await account_quotas(clients)
    assert caught.value.kind is Kind.REFUSED
