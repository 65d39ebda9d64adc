"""Values that several tests make requests of."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck
from hypothesis import settings as tried
from hypothesis import strategies as st

COMMAND = ["python", "-m", "x"]
MARK = {"name": "AIRFLOW_IS_EXECUTOR_CONTAINER", "value": "true"}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=4),
    max_leaves=12,
)


json_objects = st.dictionaries(st.sampled_from("abcd"), json_values, max_size=4)


# Time is no part of these properties, and a busy machine has little of it.
patient = tried(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def scribble(value: Any) -> None:
    """Change everything that can be changed."""
    if isinstance(value, dict):
        for inner in value.values():
            scribble(inner)
        value["scribbled"] = True
    elif isinstance(value, list):
        for inner in value:
            scribble(inner)
        value.append("scribbled")


class Uncopyable:
    def __deepcopy__(self, memo: object) -> None:
        raise TypeError("hunter2")
