"""What AWS documents of quotas, and what a closed gate has to do with them."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.account import AccountQuota, vcpus_in_words
from ecs_async_executor.core.backend import Service
from ecs_async_executor.services import batch, ecs
from ecs_async_executor.services.quotas import CHANGES, about_gate, published

VCPUS = "You've reached the limit on the number of vCPUs you can run concurrently"
ACCOUNT = (
    AccountQuota("Fargate On-Demand vCPU resource count", "L-3032A538", 6.0, of_vcpus=True),
    AccountQuota("Fargate On-Demand Sustained Launch Rate", "L-X", 20.0),
)


@pytest.mark.parametrize(
    ("placement", "reason", "says"),
    [
        ("main FARGATE", VCPUS, "request more of Fargate On-Demand vCPU resource count (L-3032A538)"),
        (
            "capacity=FARGATE_SPOT+FARGATE",
            VCPUS,
            "Fargate Spot vCPU resource count (L-36FBB829) or Fargate On-Demand vCPU resource count (L-3032A538)",
        ),
        ("main FARGATE_SPOT", VCPUS.replace("'", "\u2019"), "Fargate Spot vCPU resource count (L-36FBB829)"),
        ("main EC2", "ClientException: too many tasks in the PROVISIONING state", "use more than one cluster"),
        ("main EC2", "RESOURCE:MEMORY", "this is no quota"),
    ],
)
def test_a_closed_gate_is_about_a_quota_or_about_room(placement: str, reason: str, says: str) -> None:
    advice = about_gate("here", placement, reason, (), "https://page/{}".format)
    assert says in advice.way_out
    assert reason in advice.text
    assert bool(advice.url) == ("vCPUs" in reason)


def test_what_is_known_of_the_vcpus_of_an_account_stands_beside_the_reason() -> None:
    assert vcpus_in_words(ACCOUNT) == "Fargate On-Demand vCPU resource count (L-3032A538) is 6"
    assert vcpus_in_words(()) == ""
    advice = about_gate("here", "main", VCPUS, ACCOUNT, "https://page/{}".format)
    assert advice.text == f"{VCPUS} (Fargate On-Demand vCPU resource count (L-3032A538) is 6)"
    assert about_gate("here", "main", advice.text, ACCOUNT, str).text == advice.text  # the executor had read it


@pytest.mark.parametrize("service", [ecs.SERVICE, batch.SERVICE])
def test_launches_begin_no_faster_than_the_documented_quota(service: Service) -> None:
    for bucket in ("FARGATE", "EC2", "EXTERNAL", "another"):
        quota = published(service.name, "launch", bucket).per_second
        assert quota is not None
        assert service.rate_of(bucket) <= quota
    assert (service.name in CHANGES) == service.shares_changes


def test_no_quota_is_made_up_where_none_is_documented() -> None:
    assert published("Batch", "read", "").per_second is None
    assert published("Batch", "launch", "anything") == published("Batch", "launch", "")
    assert not published("Batch", "launch", "").raised_by
