from __future__ import annotations

import pytest
from pydantic import ValidationError

from ecs_async_executor.settings import EcsSettings, Tuning


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Tuning().launch_burst = 3


def test_a_record_made_in_code_is_checked_too() -> None:
    with pytest.raises(ValidationError, match=r"shutdown_timeout = 20 is below .* = 32: lower "):
        Tuning(connect_timeout=10, read_timeout=20)
    with pytest.raises(ValidationError, match="exclude each other"):
        EcsSettings(
            cluster="c",
            container_name="a",
            launch_type="EC2",
            capacity_provider_strategy=({"capacityProvider": "x"},),
        )
