"""What the errors mean that the local ECS knows by name: AWS's own words, from real replies."""

from __future__ import annotations

import pytest

pytest.importorskip("moto", reason="needs the extra 'local'")

from ecs_async_executor.core.errors import Kind
from ecs_async_executor.local.known_faults import KNOWN
from ecs_async_executor.services.errors import classify
from tests.services.fakes import refusal

MEANT = {
    "assume_role": Kind.REFUSED,
    "service_linked_role": Kind.REFUSED,
    "provider_not_associated": Kind.REFUSED,
    "ec2_throttled": Kind.THROTTLED,
    "ec2_request_limit": Kind.THROTTLED,
    "ec2_unavailable": Kind.AMBIGUOUS,
    "ec2_internal_error": Kind.AMBIGUOUS,
    "ec2_unauthorized": Kind.REFUSED,
    "ec2_subnet_not_found": Kind.INVALID,
    "ec2_connect_timeout": Kind.AMBIGUOUS,
    "request_timeout": Kind.AMBIGUOUS,
    "too_many_concurrent": Kind.CONCURRENT,
    "provisioning_limit": Kind.CAPACITY,
    "no_container_instances": Kind.CAPACITY,
}


def test_each_error_with_a_name_has_a_meaning_here() -> None:
    assert MEANT.keys() == {name for name, fault in KNOWN.items() if fault["kind"] == "error"}


@pytest.mark.parametrize("name", MEANT)
def test_what_somebody_is_mending_waits_and_what_ec2_answers_ecs_has_its_own_meaning(name: str) -> None:
    fault = KNOWN[name]
    error = refusal(fault["code"], fault["message"], status=fault["status"])
    assert classify(error, "RunTask").kind is MEANT[name]
