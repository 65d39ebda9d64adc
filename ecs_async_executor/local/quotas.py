"""
Service Quotas, as far as it is about Fargate: what it shows; no quota limits the local ECS.

Imports :mod:`errors` and :mod:`place`. moto has Service Quotas for VPCs only, and cannot list applied quotas.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from ecs_async_executor.local.errors import AwsError
from ecs_async_executor.local.place import Place

QUOTAS_TARGET: Final = "ServiceQuotasV20190624."
_CODES: Final = {
    "Fargate On-Demand vCPU resource count": "L-3032A538",
    "Fargate Spot vCPU resource count": "L-36FBB829",
}
"""AWS's; the other quotas get codes that AWS does not use."""
DEFAULT_QUOTAS: Final[Mapping[str, float]] = {
    "Fargate On-Demand vCPU resource count": 6.0,
    "Fargate Spot vCPU resource count": 6.0,
    "Fargate On-Demand Burst Launch Rate": 100.0,
    "Fargate On-Demand Sustained Launch Rate": 20.0,
    "Fargate Spot Burst Launch Rate": 100.0,
    "Fargate Spot Sustained Launch Rate": 20.0,
}
"""Of a new account."""


def listed(operation: str, params: Mapping[str, Any], quotas: Mapping[str, float], place: Place) -> str:
    """
    Return the reply to ListServiceQuotas, in pages of ``MaxResults``.

    :param quotas: by name
    :raises AwsError: for another operation, or a service without quotas here
    """
    if operation != "ListServiceQuotas":
        raise AwsError("IllegalArgumentException", f"The local Service Quotas knows no {operation}.")
    service = params.get("ServiceCode")
    if service != "fargate":
        raise AwsError("NoSuchResourceException", f"The request failed because service {service} does not exist.")
    begin, size = int(params.get("NextToken") or 0), int(params.get("MaxResults") or 100)
    records = [_record(number, name, value, place) for number, (name, value) in enumerate(quotas.items(), 1)]
    reply: dict[str, Any] = {"Quotas": records[begin : begin + size]}
    if begin + size < len(records):
        reply["NextToken"] = str(begin + size)
    return json.dumps(reply)


def _record(number: int, name: str, value: float, place: Place) -> dict[str, Any]:
    code = _CODES.get(name, f"L-LOCAL{number:03}")
    return {
        "ServiceCode": "fargate",
        "ServiceName": "AWS Fargate",
        "QuotaArn": f"arn:aws:servicequotas:{place.region}:{place.account}:fargate/{code}",
        "QuotaCode": code,
        "QuotaName": name,
        "Value": value,
        "Unit": "None",
        "Adjustable": True,
        "GlobalQuota": False,
    }
