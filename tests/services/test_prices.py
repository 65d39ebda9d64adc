"""What a size costs an hour on Fargate."""

from __future__ import annotations

import pytest

from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.prices import PRICES, an_hour

ONE = Size(cpu=1024, memory=2048)


def test_the_price_is_that_of_cpu_memory_and_the_disk_beyond_the_first_20_gb() -> None:
    assert an_hour(ONE, "us-east-1").startswith("An hour costs $0.0494 on x86, $0.0395 on ARM: ")
    assert an_hour(Size(1024, 2048, None, 20), "us-east-1") == an_hour(ONE, "us-east-1")
    assert an_hour(Size(1024, 2048, None, 120), "us-east-1").startswith(
        "An hour costs $0.0605 on x86, $0.0506 on ARM"
    )


def test_what_the_list_does_not_have_is_left_out_and_said() -> None:
    assert "ARM" not in an_hour(ONE, "us-west-2")
    assert an_hour(Size(1024, 2048, None, 120), "eu-central-1").endswith("without disk, tax and network.")
    assert an_hour(ONE, "mars-north-1") == "No price: the bundled list has none for mars-north-1."
    assert an_hour(ONE, None) == "No price: the Region is not known; set region_name."
    assert an_hour(Size(cpu=1024), "us-east-1") == an_hour(Size(memory=2048), "us-east-1") == ""


@pytest.mark.parametrize("region", PRICES)
def test_the_prices_of_a_region_are_near_those_of_the_others(region: str) -> None:
    """A slip of the decimal point would show."""
    rates = PRICES[region]
    assert 0.03 < rates.x86[0] < 0.08
    assert 0.003 < rates.x86[1] < 0.009
    if rates.arm is not None:
        assert rates.arm[0] / rates.x86[0] == pytest.approx(0.8, abs=0.01)
        assert rates.arm[1] / rates.x86[1] == pytest.approx(0.8, abs=0.01)
    assert rates.disk is None or 0.0001 < rates.disk < 0.0002
