"""The limits of decisions that tests begin with: those of ECS under the default settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ecs_async_executor.core.policy import Rules
from ecs_async_executor.engine.options import rules_from
from ecs_async_executor.services import ecs
from ecs_async_executor.settings import Tuning


def rules(**changes: Any) -> Rules:
    """Return the limits at ECS under the default settings, but for these."""
    return replace(rules_from(ecs.SERVICE, Tuning(), max_attempts=3), **changes)
