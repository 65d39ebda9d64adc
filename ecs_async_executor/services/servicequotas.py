"""
What AWS's Service Quotas says of an account's use of Fargate. Imports ``core``, ``calls`` and ``links``.

Of what executors need, it lists the vCPUs on Fargate and how many tasks may be launched there per second, but not
the rates of RunTask and of other calls. Quotas are found by the names that AWS documents, so that the code that
people are shown is the one that AWS gave.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from ecs_async_executor.core.account import AccountQuota, AccountQuotas
from ecs_async_executor.services.calls import Calls, Operation

if TYPE_CHECKING:
    from ecs_async_executor.services.clients import ClientFactory

FARGATE: Final = "fargate"
PERMISSION: Final = "servicequotas:ListServiceQuotas"
_OPERATIONS: Final = {"ListServiceQuotas": Operation("list_service_quotas", frozenset({"Quotas"}))}
_NAMES: Final = re.compile(
    r"Fargate (?:On-Demand|Spot) (?:vCPU resource count|(?:Burst|Sustained) Launch Rate)", re.IGNORECASE
)
_SUSTAINED: Final = re.compile(r"Sustained Launch Rate", re.IGNORECASE)
_MOST_PAGES: Final = 10


async def account_quotas(clients: ClientFactory) -> AccountQuotas:
    """
    Read the quotas of the account and Region that the clients are for.

    :raises BackendError: if AWS refuses, or does not answer
    """
    call = Calls(clients, "service-quotas", operations=_OPERATIONS, decoders={})
    quotas: list[AccountQuota] = []
    async with call.open():
        region, more = call.region_name, None
        for _ in range(_MOST_PAGES):
            parameters = {"ServiceCode": FARGATE, "MaxResults": 100, **({"NextToken": more} if more else {})}
            reply = await call("ListServiceQuotas", **parameters)
            quotas += _known(reply.get("Quotas") or ())
            if not (more := reply.get("NextToken")):
                break
    return AccountQuotas(region, tuple(sorted(quotas, key=lambda quota: quota.name)), _launch_rates(quotas))


def _known(listed: Sequence[Mapping[str, Any]]) -> Iterator[AccountQuota]:
    for one in listed:
        name, value = str(one.get("QuotaName") or ""), one.get("Value")
        if _NAMES.fullmatch(name) and isinstance(value, int | float):
            yield AccountQuota(
                name,
                str(one.get("QuotaCode") or ""),
                float(value),
                adjustable=bool(one.get("Adjustable")),
                of_vcpus="vCPU" in name,
            )


def _launch_rates(quotas: Sequence[AccountQuota]) -> Mapping[str, float]:
    """Return the launches per second, by bucket: a launch can be On-Demand or on Spot, each with a quota."""
    sustained = [quota.value for quota in quotas if _SUSTAINED.search(quota.name) and quota.value > 0]
    return {"FARGATE": max(sustained)} if sustained else {}
