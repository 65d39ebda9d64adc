"""These tests need the dependency group ``infrastructure``, as in `nox -s tests`; elsewhere they are left out."""

from __future__ import annotations

from importlib.util import find_spec

TOOLS = ("cfnlint", "check_jsonschema", "hcl2", "policy_sentry", "yaml")

collect_ignore_glob = [] if all(find_spec(tool) for tool in TOOLS) else ["test_*.py"]
