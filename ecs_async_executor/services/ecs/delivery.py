"""
The workload in an environment file instead of the command: what the file says, and what the container runs.

Pure functions. Imports ``core``, ``requests`` beside it, and ``redaction`` and ``requests`` of the folder above.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.services.ecs.requests import container_for
from ecs_async_executor.services.redaction import without_tokens
from ecs_async_executor.services.requests import copied, type_name

VARIABLE: Final = "ECS_ASYNC_EXECUTOR_WORKLOAD"
"""The variable that the file sets."""
LINE_LIMIT: Final = 60_000
"""Characters of the file's line. ECS's agent and Docker read lines of less than 65,536 bytes."""

_LIKE_A_JWT: Final = ".workload"
"""Ends the value, so that it has the form of a JWT, and everything that hides JWTs hides it."""
_RUN: Final = f"""\
import base64, os, sys
workload = os.environ.pop("{VARIABLE}", None)
if not workload:
    sys.exit("no {VARIABLE}: ECS has read no environment file, or the image's entrypoint drops variables")
source, sink = os.pipe()
os.write(sink, base64.urlsafe_b64decode(workload.partition(".")[0] + "=="))
os.close(sink)
del workload
sys.argv[1:] = ["--json-path", "/dev/fd/%d" % source]
from airflow.sdk.execution_time.execute_workload import main
main()
"""
"""
Runs the workload of the variable.

Neither the environment nor the arguments of what it starts, the task among them, have the workload any more.
"""


def set_apart(
    request: Mapping[str, Any], container_name: str, command: Sequence[str]
) -> tuple[dict[str, Any], str | None]:
    """
    Return a request without its workload, and the text of the environment file that has it.

    A command without a JWT, which a hook has made, stays as it is, and there is no file.

    :param command: runs the workload that follows as JSON
    :raises Rejected: if the request has a JWT elsewhere, or the workload is too long for a file
    """
    request = dict(request)
    container = container_for(request, container_name)
    words, length = container.get("command"), len(command)
    words = list(words) if isinstance(words, (list, tuple)) else []
    start = next((n for n in range(len(words) - length) if words[n : n + length] == list(command)), None)
    file = token = None
    if start is not None:
        workload = str(words[start + length])
        file, token = file_of(workload), token_in(workload)
        if not isinstance(own := container.get("environmentFiles", []), list):
            raise Rejected(f"environmentFiles of {container_name!r} must be a list, not {type_name(own)}")
        container = {**container, "command": [*words[:start], "python", "-c", _RUN, *words[start + length + 1 :]]}
        overrides = request["overrides"]
        containers = [
            container if one.get("name") == container_name else one for one in overrides["containerOverrides"]
        ]
        request["overrides"] = {**overrides, "containerOverrides": containers}
    if _shows(request, token):
        raise Rejected(
            "workload_delivery = environment_file, but the request has a JWT: _serialize_workload_to_command must "
            f"return {' '.join(command)} and the workload, each as a word of its own, with anything but the "
            "workload's words around them; else set workload_delivery = command"
        )
    return request, file


def _shows(request: Mapping[str, Any], token: str | None) -> bool:
    """
    Return whether Airflow's JWT is anywhere in a request.

    :param token: None if it is not known: then any JWT counts
    """
    text = json.dumps(request, default=str, ensure_ascii=False)
    return without_tokens(text) != text if token is None else bool(token) and token in text


def token_in(workload: str) -> str | None:
    """Return the JWT of a workload; empty if it has none, None if it cannot be read."""
    try:
        return str(json.loads(workload)["token"])
    except (KeyError, TypeError, ValueError):
        return None


def file_of(workload: str) -> str:
    """
    Return the environment file that hands a workload over.

    Of a line ``VARIABLE=VALUE`` ECS takes no quotes, no escapes and, on some hosts, no second ``=``.

    :raises Rejected: if it is too long
    """
    value = base64.urlsafe_b64encode(workload.encode()).decode().rstrip("=")
    line = f"{VARIABLE}={value}{_LIKE_A_JWT}"
    if len(line) > LINE_LIMIT:
        raise Rejected(
            f"the workload takes {len(line)} characters of an environment file, and the executor hands over "
            f"at most {LINE_LIMIT}"
        )
    return f"{line}\n"


def workload_in(file: str) -> str:
    """Return the workload of an environment file."""
    value = file.partition("=")[2].partition(".")[0]
    return base64.urlsafe_b64decode(value + "==").decode()


def file_entry(arn: str) -> dict[str, str]:
    """Return what a request names a file by."""
    return {"type": "s3", "value": arn}


def with_file(request: Mapping[str, Any], container_name: str, arn: str) -> dict[str, Any]:
    """Return a request that names an environment file, after those that it names already."""
    whole: dict[str, Any] = copied(dict(request))
    container_for(whole, container_name).setdefault("environmentFiles", []).append(file_entry(arn))
    return whole
