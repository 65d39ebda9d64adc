"""
Hints: what an end means and what to do about it, for the person who looks at the task instance.

Each is worded here once, for the event log, the commands and the pages alike. May import ``endings`` only.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from ecs_async_executor.core.endings import Ending

Clue: TypeAlias = tuple[re.Pattern[str], str]


def _clue(pattern: str, *sentences: str) -> Clue:
    return re.compile(pattern, re.IGNORECASE), " ".join(sentences)


# --- what the container printed -----------------------------------------------------------------------------

_OUTPUT: Final = (
    _clue(
        r"No module named '?airflow\.sdk",
        "The image has an Airflow without airflow.sdk.",
        "Use an image with the Airflow version of the scheduler.",
    ),
    _clue(
        r"No module named '?airflow'?(?![\w.])",
        "The python that the container runs has no Airflow.",
        "Use an image with Airflow, or put the python that has it first in the image's PATH.",
    ),
    _clue(
        # A connection of the task's own that fails is no unhandled exception of Airflow's supervisor.
        # Both are looked for from the line's start, once: a line can have 256 KB.
        r"^(?=.*?Unhandled exception\b).*\bConnect(Error|Timeout)\b|^httpx\.Connect(Error|Timeout)\b",
        "Airflow in the container could not reach the execution API.",
        "Check [core] execution_api_server_url as the container sees it,",
        "and the security groups and routes from the container to the api-server.",
    ),
)
_EXEC_FORMAT: Final = (
    _clue(
        r"exec format error",
        "The image is for another CPU architecture than its host, or its entrypoint has no #! line.",
        "Build it for the cpuArchitecture of the task definition.",
    ),
)

# --- what AWS says ------------------------------------------------------------------------------------------

_IMAGE: Final = (
    _clue(
        r"toomanyrequests|rate limit|too many requests",
        "The registry limits how often images may be pulled.",
        "Pull from ECR, for example through a pull-through cache, or give the registry's credentials.",
    ),
    _clue(
        r"no space left", "The host has no room for the image.", "Give it more disk, or make the image smaller."
    ),
    _clue(
        r"matching platform|no matching manifest",
        "The image was not built for this CPU architecture.",
        "Build it for the cpuArchitecture of the task definition.",
    ),
    _clue(
        r"denied|not authorized|unauthorized|no basic auth|forbidden|\b40[13]\b",
        "The registry does not let the execution role have the image, or has no image of this name.",
        "Check the name, the role's ECR permissions and the repository's policy.",
    ),
    _clue(
        r"not ?found|manifest unknown|no such image|does not exist|invalid reference",
        "The registry has no image of this name and tag.",
        "Check the image in the task or job definition.",
    ),
    _clue(
        r"time(d )?-?out|refused|no route|unreachable|dial tcp|deadline exceeded|lookup|reset",
        "The registry could not be reached.",
        "Check subnets, security groups and the route:",
        "a NAT gateway, a public IP address, or VPC endpoints for ECR and S3.",
    ),
    _clue(
        "",
        "The image could not be pulled.",
        "Check its name in the task or job definition, and that network and execution role reach its registry.",
    ),
)
_START: Final = (
    *_EXEC_FORMAT,
    _clue(
        r"\benv(ironment)? ?files?\b|\benvfile",
        "The environment file with the workload could not be read.",
        "Check that the execution role may s3:GetObject and s3:GetBucketLocation in workload_bucket,",
        "and the network's route to S3: a NAT gateway, a public IP address, or a VPC endpoint.",
    ),
    _clue(
        r"logg(er|ing)\b|log group|log stream|\bawslogs\b|log driver|firelens",
        "The container's log driver could not start.",
        "Create its log group, or allow the execution role logs:CreateLogStream and logs:PutLogEvents,",
        "and logs:CreateLogGroup with awslogs-create-group.",
    ),
    _clue(
        r"secret|registry auth|\bssm\b|GetParameter",
        "A secret or the registry's credentials could not be read.",
        "Check the execution role's permissions (secretsmanager, ssm, kms),",
        "and the network's route to these services.",
    ),
    _clue(
        r"\b(efs|EphemeralStorage|volumes?|mount)\b",
        "A volume could not be mounted.",
        "Check that it exists, its mount targets and security groups, and the task's role.",
    ),
    _clue(
        r"network interface|\bENI\b|\bsubnet|\bsecurity group|IP address",
        "The container got no network interface.",
        "Check that the subnets have free addresses, and that subnets and security groups exist.",
    ),
    _clue(
        r"executable file not found|no such file or directory",
        "The image has no such command.",
        "The executor runs python: check the image's PATH and entrypoint.",
    ),
    _clue(
        r"permission denied",
        "The image's user may not run the command.",
        "Check the file mode of the command, and the user of the image.",
    ),
    _clue(
        r"\bATTRIBUTE\b",
        "No container instance has what the task definition asks for.",
        "Check its placement constraints, network mode and CPU architecture.",
    ),
)
_STOPPED: Final = (
    _clue(
        r"duration exceeded timeout",
        "It ran longer than the job's timeout allows.",
        "Raise the timeout, or make the task shorter.",
    ),
    _clue(
        r"JobStateTimeLimit",
        "A limit of the job queue has cancelled it.",
        "The reason says what the job has waited for.",
    ),
    _clue("", "A person, a deployment or another program has stopped it: the task did not fail by itself."),
)
_REFUSED: Final = (
    _clue(
        r"\brefused\b",
        "Nothing ran.",
        "The command airflow ecs-async check tries the requests of the executor, and names what is missing.",
    ),
)
_BY_REASON: Final[Mapping[Ending, Sequence[Clue]]] = {
    Ending.OOM: (
        _clue(
            "",
            "The container needed more memory than it had.",
            "Raise its memory in the task or job definition, or for this task in executor_config.",
        ),
    ),
    Ending.IMAGE: _IMAGE,
    Ending.START: _START,
    Ending.CAPACITY: (
        _clue(
            "",
            "There was no room for the container.",
            "Try again later, or allow more: instance types, zones, capacity providers, quotas.",
        ),
    ),
    Ending.SPOT: (
        _clue(
            "",
            "AWS took the spot capacity back, which is no fault of the task.",
            "Give the task retries, or run it on demand.",
        ),
    ),
    Ending.HOST: (
        _clue("", "The container's host is gone, which is no fault of the task.", "Give the task retries."),
    ),
    Ending.STOPPED: _STOPPED,
    Ending.REFUSED: _REFUSED,
    Ending.LOST: (
        _clue(
            "",
            "Nothing shows how it ended.",
            "If the task must not run twice, look at its own log before you run it again.",
        ),
    ),
}

# --- exit codes ---------------------------------------------------------------------------------------------

_SIGKILL: Final = 137
_NOT_IN_TIME: Final = "It did not end within stopTimeout and was killed."
_EXIT_CODES: Final[Mapping[int, Sequence[str]]] = {
    125: (
        "Exit code 125: the container runtime did not run the command.",
        "Check entrypoint and user of the image.",
    ),
    126: (
        "Exit code 126: the command cannot be run.",
        "Check its file mode in the image, and the image's CPU architecture.",
    ),
    127: (
        "Exit code 127: the image has no such command.",
        "The executor runs python: check the image's PATH and entrypoint.",
    ),
    134: ("Exit code 134: native code of a library or of the interpreter has aborted (SIGABRT).",),
    _SIGKILL: (
        "Exit code 137: it was killed (SIGKILL), and AWS does not say why.",
        "Mostly it needed more memory than it had; else it had not ended within stopTimeout after a SIGTERM.",
    ),
    139: ("Exit code 139: native code of a library or of the interpreter has crashed (SIGSEGV).",),
    143: ("Exit code 143: something asked it to stop (SIGTERM), and AWS does not say what.",),
}


def hint(
    ending: Ending | None, exit_code: int | None = None, reason: str | None = None, lines: Sequence[str] = ()
) -> str | None:
    """
    Return one or two sentences about an end: what it means, and what to do. None if there is nothing to add.

    :param exit_code: of Airflow's container, if it exited
    :param reason: AWS's words
    :param lines: the last lines that the container has printed, as far as they are known
    """
    reason = reason or ""
    if ending is None:
        return None
    if ending is Ending.EXIT:
        printed = _first(_OUTPUT, lines) or _first(_EXEC_FORMAT, [*lines, reason])
        sentences = () if exit_code is None else _EXIT_CODES.get(exit_code, ())
        return printed or " ".join(sentences) or None
    said = _of_reason(ending, reason)
    return f"{said} {_NOT_IN_TIME}" if ending is Ending.STOPPED and exit_code == _SIGKILL else said


@functools.lru_cache(maxsize=128)  # where many fail at once, they fail for the same reason
def _of_reason(ending: Ending, reason: str) -> str | None:
    return _first(_BY_REASON[ending], [reason])


def _first(clues: Sequence[Clue], texts: Sequence[str]) -> str | None:
    return next((said for pattern, said in clues if any(map(pattern.search, texts))), None)
