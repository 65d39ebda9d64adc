"""
What AWS Batch refuses and how it says so, and when it tries a job again.

Pure functions over request parameters. The limits are those of the Batch API reference (SubmitJob, DescribeJobs,
ListJobs, RetryStrategy).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from ecs_async_executor.local.errors import AwsError, decode_page

MAX_DESCRIBE = 100
MAX_LIST = 100
MAX_PAYLOAD = 30 * 1024
MAX_OVERRIDES = 8192
MAX_ATTEMPTS = 10
MAX_CONDITIONS = 5
MAX_TAGS = 50
MIN_TIMEOUT = 60
STATUSES = ("SUBMITTED", "PENDING", "RUNNABLE", "STARTING", "RUNNING", "SUCCEEDED", "FAILED")
FILTERS = ("JOB_NAME", "JOB_DEFINITION", "BEFORE_CREATED_AT", "AFTER_CREATED_AT", "SHARE_IDENTIFIER")
UNSUPPORTED = ("arrayProperties", "dependsOn", "nodeOverrides", "eksPropertiesOverride", "ecsPropertiesOverride")
"""Of SubmitJob, what the local Batch does not play."""

_JOB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")


def refused(message: str) -> AwsError:
    """Make a ``ClientException`` as Batch words it."""
    return AwsError("ClientException", f"Error executing request, Exception : {message}, RequestId: {uuid4()}")


def size_of(value: Any) -> int:
    """Give the length of something as JSON."""
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))


def check_submit(params: Mapping[str, Any]) -> None:
    """
    Check what can be checked of a SubmitJob without looking anything up.

    :raises AwsError: if AWS would refuse it, or it asks for what the local Batch does not play
    """
    if not _JOB_NAME.fullmatch(params.get("jobName") or ""):
        raise refused("Job name should match valid pattern")
    for name in ("jobQueue", "jobDefinition"):
        if not params.get(name):
            raise refused(f"{name} can not be blank")
    unsupported = [name for name in UNSUPPORTED if params.get(name)]
    if unsupported:
        raise refused(f"The local Batch does not support {', '.join(unsupported)}")
    size = size_of(params)
    if size > MAX_PAYLOAD:
        raise refused(f"Job size must be less than {MAX_PAYLOAD // 1024} KiB, got {-(-size // 1024)} KiB")
    strategy = params.get("retryStrategy") or {}
    if not 1 <= strategy.get("attempts", 1) <= MAX_ATTEMPTS:
        raise refused(f"Retry attempts must be between 1 and {MAX_ATTEMPTS}")
    if len(strategy.get("evaluateOnExit") or ()) > MAX_CONDITIONS:
        raise refused(f"evaluateOnExit can not have more than {MAX_CONDITIONS} conditions")
    seconds = (params.get("timeout") or {}).get("attemptDurationSeconds")
    if seconds is not None and seconds < MIN_TIMEOUT:
        raise refused(f"Timeout attemptDurationSeconds must be at least {MIN_TIMEOUT} seconds")
    if len(params.get("tags") or ()) > MAX_TAGS:
        raise refused(f"Tags can not be more than {MAX_TAGS}")


def overrides_are_too_long(overrides: Mapping[str, Any], added: Mapping[str, str]) -> bool:
    """
    Return whether ECS would refuse container overrides that Batch itself has accepted.

    :param added: the variables that Batch adds, as far as they count
    """
    environment = [*(overrides.get("environment") or ()), *({"name": k, "value": v} for k, v in added.items())]
    sent = {"name": "default", **overrides} | ({"environment": environment} if environment else {})
    return size_of({"containerOverrides": [sent]}) > MAX_OVERRIDES


def check_describe(jobs: Sequence[str]) -> None:
    """
    Check the ids of a DescribeJobs.

    :raises AwsError: if there are none, or more than AWS takes
    """
    if not jobs:
        raise refused("At least one job id must be given")
    if len(jobs) > MAX_DESCRIBE:
        raise refused(f"Maximum number of jobs supported is  {MAX_DESCRIBE} .")


def check_list(params: Mapping[str, Any]) -> tuple[int | None, int]:
    """
    Check a ListJobs and give the sequence number to go on before, None to begin, and the page size.

    :raises AwsError: if AWS would refuse it
    """
    if sum(bool(params.get(key)) for key in ("jobQueue", "arrayJobId", "multiNodeJobId")) != 1:
        raise refused("Exactly one of jobQueue, arrayJobId and multiNodeJobId must be given")
    filters = params.get("filters") or ()
    if len(filters) > 1:
        raise refused("Only one filter can be used at a time")
    if any(f.get("name") not in FILTERS or not f.get("values") for f in filters):
        raise refused(f"A filter needs values, and one of the names {', '.join(FILTERS)}")
    if any(f["name"].endswith("_CREATED_AT") and not all(v.isdecimal() for v in f["values"]) for f in filters):
        raise refused("The value of the filter must be a number of milliseconds")
    status = params.get("jobStatus")
    if status and status not in STATUSES:
        raise refused(f"jobStatus must be one of {', '.join(STATUSES)}")
    size = params.get("maxResults") or MAX_LIST
    if not 1 <= size <= MAX_LIST:
        raise refused(f"maxResults must be between 1 and {MAX_LIST}")
    token = params.get("nextToken")
    try:
        return (decode_page(token) if token else None), size
    except ValueError as error:
        raise refused("nextToken is invalid") from error


def named(pattern: str, name: str) -> bool:
    """Match a name as the filters of ListJobs do: exactly, or by what comes before a final ``*``."""
    return name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern


def tries_again(
    strategy: Mapping[str, Any], attempts: int, *, exit_code: int | None, reason: str, status_reason: str
) -> bool:
    """
    Return whether a job goes back to RUNNABLE after an attempt that has failed.

    The first condition of ``evaluateOnExit`` whose patterns all match decides; with none, it is tried again.

    :param attempts: how many there were
    :param reason: the container's
    :param status_reason: the attempt's
    """
    if attempts >= strategy.get("attempts", 1):
        return False
    seen = {
        "onExitCode": None if exit_code is None else str(exit_code),
        "onReason": reason,
        "onStatusReason": status_reason,
    }
    for condition in strategy.get("evaluateOnExit") or ():
        patterns = [(condition[key], text) for key, text in seen.items() if condition.get(key)]
        if all(text is not None and named(pattern, text) for pattern, text in patterns):
            return str(condition["action"]).upper() == "RETRY"
    return True
