"""
What goes over the wire: how a request names its operation, and how replies and errors of each service look.

May import aiohttp, :mod:`errors` and the :class:`Service` protocol.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any
from uuid import uuid4
from xml.sax.saxutils import escape

from aiohttp import web

from ecs_async_executor.local.account import Service
from ecs_async_executor.local.errors import AwsError

TARGET = "AmazonEC2ContainerServiceV20141113"
BATCH_PATH = "/v1/"
BATCH_OPERATIONS = {
    name.lower(): name
    for name in (
        "CancelJob",
        "CreateComputeEnvironment",
        "CreateJobQueue",
        "CreateSchedulingPolicy",
        "DeleteComputeEnvironment",
        "DeleteJobQueue",
        "DeleteSchedulingPolicy",
        "DeregisterJobDefinition",
        "DescribeComputeEnvironments",
        "DescribeJobDefinitions",
        "DescribeJobQueues",
        "DescribeJobs",
        "DescribeSchedulingPolicies",
        "ListJobs",
        "ListSchedulingPolicies",
        "RegisterJobDefinition",
        "SubmitJob",
        "TerminateJob",
        "UpdateComputeEnvironment",
        "UpdateJobQueue",
        "UpdateSchedulingPolicy",
    )
}
"""The operations of Batch by the last part of their path, the only place where a client names them."""
JSON_TYPES = {"ecs": "application/x-amz-json-1.1", "batch": "application/json"}

S3_OPERATIONS = {
    ("DELETE", True): "DeleteObject",
    ("GET", True): "GetObject",
    ("HEAD", True): "HeadObject",
    ("PUT", True): "PutObject",
    ("PUT", False): "CreateBucket",
}
"""The operations of S3 that faults are about, by their method and whether they name an object."""


def is_about_s3(request: web.BaseRequest) -> bool:
    """Return whether a request goes to S3."""
    return "/s3/aws4_request" in request.headers.get("Authorization", "")


def s3_error_reply(error: AwsError) -> web.Response:
    """Return an error as S3 does."""
    text = f"<Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message></Error>"
    return web.Response(body=text.encode(), status=error.status, content_type="application/xml")


def operation_of(request: web.BaseRequest, body: bytes) -> tuple[str, str]:
    """Return the service, or an empty text if it is none of ours, and the operation."""
    target, _, operation = request.headers.get("X-Amz-Target", "").rpartition(".")
    if operation:
        return ("ecs" if target == TARGET else ""), operation
    if request.method == "POST" and request.path.startswith(BATCH_PATH):
        operation = BATCH_OPERATIONS.get(request.path[len(BATCH_PATH) :], "")
        if operation:
            return "batch", operation
    if is_about_s3(request):
        of_object = "/" in request.path.strip("/")
        return "", S3_OPERATIONS.get((request.method, of_object), f"{request.method} {request.path}")
    for part in body[:2048].split(b"&") if body.startswith((b"Action=", b"Version=")) else ():
        if part.startswith(b"Action="):
            return "", part[7:].decode()
    return "", f"{request.method} {request.path}"


def params_of(body: bytes) -> dict[str, Any]:
    """
    Return the parameters of a request.

    :raises AwsError: if they are not a JSON object
    """
    try:
        params = json.loads(body or b"{}")
    except ValueError:
        params = None
    if not isinstance(params, dict):
        raise AwsError("SerializationException", "The request is not a JSON object.")
    return params


def json_reply(text: str, status: int = 200, *, service: Service | None = None) -> web.Response:
    """Reply with JSON text, of the service's content type."""
    content_type = JSON_TYPES[service.name if service is not None else "ecs"]
    return web.Response(
        body=text.encode(),
        status=status,
        headers={"Content-Type": content_type, "x-amzn-RequestId": str(uuid4())},
    )


def error_reply(error: AwsError, service: Service | None) -> web.Response:
    """Return an error in the service's format: Batch has the code in a header."""
    fields = {"message": error.message, **error.fields}
    if service is not None and service.name == "batch":
        response = json_reply(json.dumps(fields), error.status, service=service)
        response.headers["x-amzn-ErrorType"] = error.code
        return response
    return json_reply(json.dumps({"__type": error.code, **fields}), error.status)


def spoilt(response: web.Response, kind: str) -> web.Response:
    """Return an answer with implausible tasks or jobs."""
    content = json.loads(response.body) if isinstance(response.body, bytes) else {}
    status = "lastStatus" if "tasks" in content else "status"
    records = content.get("tasks") or content.get("jobs") or content.get("jobSummaryList") or []
    if kind == "unknown_status":
        for record in records:
            record[status] = "UNHEARD_OF"
    elif records:
        names = {
            name: records[0][name] for name in ("taskArn", "jobId", "jobArn", "jobName") if name in records[0]
        }
        odd = {status: 7, "createdAt": "yesterday", "container": "none", "containers": "none", "attempts": 7}
        records[0] = names | odd
    response.body = json.dumps(content).encode()
    return response


def code_of(response: web.Response) -> str:
    """Return the error code of a reply, ``HTTP <status>`` where it has none."""
    code = response.headers.get("x-amzn-ErrorType")
    if code is not None:
        return code
    try:
        return str(json.loads(response.body)["__type"]).rsplit("#", 1)[-1]  # type: ignore[arg-type]
    except (KeyError, TypeError, ValueError):
        return f"HTTP {response.status}"


def break_off(request: web.BaseRequest, *, reset: bool) -> web.Response:
    """End the connection without an answer; aiohttp drops the response returned here."""
    transport = request.transport
    if transport is not None:
        if reset:
            transport.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
            )
            transport.abort()
        else:
            transport.close()
    return web.Response()
