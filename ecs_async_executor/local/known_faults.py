"""
Faults by name: what AWS says in the moments that clients tend to take for something else.

The texts are AWS's, from its documentation and from replies in public reports; where only the gist is known the
comment says so. ``Fault.from_json({"known": "assume_role", "count": 3})`` makes one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

ROLE = "arn:aws:iam::123456789012:role/task"
INSTANCE = "arn:aws:ecs:us-east-1:123456789012:container-instance/default/{:032x}"
SUBNET = "Error retrieving subnet information for [subnet-1]: "


FARGATE_FULL = "Capacity is unavailable at this time. Please try again later or in a different availability zone"


def _refused(code: str, message: str, status: int = 400) -> dict[str, Any]:
    return {"kind": "error", "operation": "RunTask", "code": code, "message": message, "status": status}


def _ec2(code: str, message: str) -> dict[str, Any]:
    return _refused("InvalidParameterException", f"{SUBNET}{message} (ErrorCode: {code})")


def _failures(*reasons: str | None) -> dict[str, Any]:
    failures = tuple(
        {"arn": INSTANCE.format(number)} | ({"reason": reason} if reason else {})
        for number, reason in enumerate(reasons, start=1)
    )
    return {"kind": "failures", "operation": "RunTask", "failures": failures}


KNOWN: Mapping[str, Mapping[str, Any]] = {
    # A role that was made half a minute ago is not everywhere yet.
    "assume_role": _refused(
        "ClientException",
        f"ECS was unable to assume the role '{ROLE}' that was provided for this task. Please verify that the role "
        "being passed has the proper trust relationship and permissions and that your IAM user has permissions to "
        "pass this role.",
    ),
    "service_linked_role": _refused(
        "InvalidParameterException",
        "Unable to assume the service linked role. Please verify that the ECS service linked role exists.",
    ),
    "provider_not_associated": _refused(
        "InvalidParameterException",
        "The specified capacity provider strategy cannot contain a capacity provider that is not associated with "
        "the cluster. Associate the capacity provider with the cluster or specify a valid capacity provider and "
        "try again.",
    ),
    # EC2 in trouble behind ECS: the ErrorCode is what counts, the sentence before it is the gist.
    "ec2_throttled": _ec2("Throttling", "Rate exceeded"),
    "ec2_request_limit": _ec2("RequestLimitExceeded", "Request limit exceeded."),
    "ec2_unavailable": _ec2("Unavailable", "The service is unavailable. Please try again shortly."),
    "ec2_internal_error": _ec2("InternalError", "An internal error has occurred"),
    "ec2_unauthorized": _ec2("UnauthorizedOperation", "You are not authorized to perform this operation."),
    "ec2_subnet_not_found": _ec2("InvalidSubnetID.NotFound", "The subnet ID 'subnet-1' does not exist"),
    "ec2_connect_timeout": _refused(
        "InvalidParameterException",
        f"{SUBNET}Connect to ec2.us-east-1.amazonaws.com:443 failed: connect timed out",
    ),
    # An answer of the load balancer's kind: nothing is said about the work.
    "request_timeout": {
        "kind": "error",
        "code": "RequestTimeoutException",
        "message": "Request timed out.",
        "status": 408,
    },
    "too_many_concurrent": _refused(
        "ClientException", "Too many concurrent attempts to create a new revision of the specified family."
    ),
    "provisioning_limit": _refused(
        "ClientException", "You've reached the limit on the number of tasks in the PROVISIONING state."
    ),
    "no_container_instances": _refused(
        "InvalidParameterException", "No Container Instances were found in your cluster."
    ),
    "no_active_instances": _failures("NO ACTIVE INSTANCES"),
    "empty_capacity_provider": _failures("EMPTY CAPACITY PROVIDER"),
    "agent": _failures("AGENT"),
    "mixed_instances": _failures("ATTRIBUTE", "RESOURCE:MEMORY"),
    "attribute": _failures("ATTRIBUTE", "ATTRIBUTE"),
    "failure_without_reason": _failures(None),
    "fargate_full": {
        "kind": "failures",
        "operation": "RunTask",
        "failures": ({"reason": FARGATE_FULL},),
    },
    # Fargate Spot, while on-demand has room.
    "spot_full": {
        "kind": "failures",
        "operation": "RunTask",
        "contains": '"FARGATE_SPOT"',
        "failures": ({"reason": FARGATE_FULL},),
    },
    "spot_interruption": {
        "kind": "interrupted",
        "operation": "RunTask",
        "contains": '"FARGATE_SPOT"',
        "seconds": 30.0,
    },
    # A capacity provider that gives up: minutes in PROVISIONING, then the end.
    "unplaced": {"kind": "unplaced", "operation": "RunTask", "seconds": 600.0},
    "unplaced_agent": {"kind": "unplaced", "operation": "RunTask", "seconds": 600.0, "reason": "AGENT"},
    "unplaced_no_instances": {
        "kind": "unplaced",
        "operation": "RunTask",
        "seconds": 600.0,
        "reason": "NO ACTIVE INSTANCES",
    },
    "unplaced_empty_provider": {
        "kind": "unplaced",
        "operation": "RunTask",
        "seconds": 600.0,
        "reason": "EMPTY CAPACITY PROVIDER",
    },
    # A queue's jobStateTimeLimitActions.
    "time_limit": {"kind": "unplaced", "operation": "SubmitJob", "seconds": 600.0},
}
"""The members of a :class:`~ecs_async_executor.local.faults.Fault` for each name."""
