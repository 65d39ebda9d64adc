from __future__ import annotations

import pytest

from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.services.places import Places
from ecs_async_executor.settings.rules import AT_HOME, Destination

ROLE = "arn:aws:iam::222222222222:role/airflow"


def arn(region: str, account: str, name: str = "1") -> str:
    return f"arn:aws:ecs:{region}:{account}:task/c/{name}"


PLACES = {
    HOME: Destination(region_name="eu-west-1"),
    "us": Destination(region_name="us-east-1"),
    "other": Destination(region_name="eu-west-1", role_arn=ROLE),
    "conn": Destination(conn_id="aws_conn"),
}


@pytest.mark.parametrize(
    ("handle_id", "names"),
    [
        pytest.param(arn("us-east-1", "111111111111"), ("us", "conn"), id="by the Region"),
        pytest.param(arn("eu-west-1", "222222222222"), ("other", HOME, "conn"), id="the likeliest first"),
        pytest.param(arn("eu-west-1", "111111111111"), (HOME, "conn"), id="not another account's"),
        pytest.param("3f8a1c52-1b2c-4f0e-9a51-0a8f5e6f7a10", tuple(PLACES), id="a job can be anywhere"),
        pytest.param("arn:odd", tuple(PLACES), id="no ARN"),
    ],
)
def test_an_identifier_tells_where_its_container_can_be(handle_id: str, names: tuple[str, ...]) -> None:
    assert Places(PLACES).of(handle_id) == names


def test_what_comes_from_a_destination_tells_it_from_others_in_its_region() -> None:
    places = Places({HOME: AT_HOME, "conn": Destination(conn_id="aws_conn")})
    here, there = arn("eu-west-1", "111111111111"), arn("eu-west-1", "222222222222")
    assert places.of(there) == (HOME, "conn")
    places.learn("conn", there)
    assert places.of(there) == ("conn", HOME)  # home may be the same account, for all that is known
    places.learn(HOME, here)
    assert places.of(there) == ("conn",)
    assert places.of(here) == (HOME,)


def test_an_account_that_a_connection_has_left_is_still_its_own() -> None:
    places = Places({HOME: Destination(region_name="us-east-1"), "conn": Destination(conn_id="aws_conn")})
    before, now = arn("eu-west-1", "111111111111"), arn("eu-west-1", "222222222222")
    for one in (before, now):
        places.learn("conn", one)
    assert places.of(before) == places.of(now) == ("conn",)


def test_a_container_that_fits_no_destination_is_homes() -> None:
    places = Places({HOME: Destination(region_name="us-east-1"), "eu": Destination(region_name="eu-west-1")})
    assert places.of(arn("sa-east-1", "111111111111")) == (HOME,)


def test_where_a_job_was_found_is_remembered_but_not_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ecs_async_executor.services.places._MOST_FOUND", 2)
    places = Places({HOME: AT_HOME, "eu": Destination(region_name="eu-west-1")})
    for job in ("a", "b", "c"):
        places.remember("eu", job)
    assert [places.of(job) for job in ("a", "b", "c")] == [(HOME, "eu"), ("eu",), ("eu",)]
