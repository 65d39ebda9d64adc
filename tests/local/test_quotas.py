"""Service Quotas of the local ECS: as much of it as tells what an account may use on Fargate."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from botocore.exceptions import ClientError

from ecs_async_executor.local import LocalEcs


def test_the_quotas_for_fargate_are_listed_in_pages(start: Callable[..., LocalEcs]) -> None:
    client = start(quotas={"a": 1.0, "b": 2.0, "c": 3.0}).client("service-quotas")
    pages = client.get_paginator("list_service_quotas").paginate(
        ServiceCode="fargate", PaginationConfig={"PageSize": 2}
    )
    assert [[quota["Value"] for quota in page["Quotas"]] for page in pages] == [[1.0, 2.0], [3.0]]


def test_a_new_account_has_the_codes_that_aws_has(start: Callable[..., LocalEcs]) -> None:
    ecs = start()
    listed = ecs.client("service-quotas").list_service_quotas(ServiceCode="fargate")["Quotas"]
    quotas = {quota["QuotaCode"]: quota["Value"] for quota in listed}
    assert quotas["L-3032A538"] == quotas["L-36FBB829"] == 6.0
    assert ecs.statistics.operation("ListServiceQuotas").calls == 1


def test_another_service_has_none(start: Callable[..., LocalEcs]) -> None:
    client = start().client("service-quotas")
    with pytest.raises(ClientError, match="NoSuchResourceException"):
        client.list_service_quotas(ServiceCode="batch")
    with pytest.raises(ClientError, match="knows no GetServiceQuota"):
        client.get_service_quota(ServiceCode="fargate", QuotaCode="L-3032A538")
