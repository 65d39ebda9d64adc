"""
Identities: the form of the UUIDs that name launches and task instances, and of the marks made of them.

Imports nothing of this project.
"""

from __future__ import annotations

import re
from typing import Final

UUID_PATTERN: Final = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
"""By its looks: parsing costs ten times as much, and the scheduler's thread would pay it for every workload."""

is_uuid: Final = re.compile(UUID_PATTERN).fullmatch
