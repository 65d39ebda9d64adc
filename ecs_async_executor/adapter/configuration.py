"""
Airflow's configuration: what is set in a section, wherever it is set.

May import ``compat`` and the settings. Airflow's own ``getsection()`` fails at an option without a default, and
mixes what is set with the defaults.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow.configuration import conf

from ecs_async_executor.adapter import compat
from ecs_async_executor.settings import Source

_CONFIGURATION: Any = conf
"""Untyped: its class moves between Airflow's versions."""


def source_of(team_name: str | None) -> Source:
    """Return what the settings of an executor come from."""
    return Source(team_name, partial(_options_set, team_name))


def _options_set(team_name: str | None, section: str) -> Mapping[str, str]:
    """Return the options that are set in a section of a team's, each with its place."""
    found = {}
    in_file = compat.section_in_file(team_name, section)
    if in_file is not None and _CONFIGURATION.has_section(in_file):
        shared = _CONFIGURATION.defaults()
        found = {name: "airflow.cfg" for name in _CONFIGURATION.options(in_file) if name not in shared}
    prefix = f"AIRFLOW__{f'{team_name.upper()}___' if team_name else ''}{section.upper()}__"
    variables = [name for name in os.environ if name.startswith(prefix)]
    return found | {name[len(prefix) :].lower(): name for name in variables}
