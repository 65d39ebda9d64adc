"""
Links into the AWS console. Pure functions; imports the standard library only.

The forms are the console's own, in the partitions ``aws``, ``aws-cn`` and ``aws-us-gov``; a region tells its
partition.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

_DOMAINS: Final = {"cn-": "console.amazonaws.cn", "us-gov-": "console.amazonaws-us-gov.com"}
_DOMAIN: Final = "console.aws.amazon.com"


def ecs_task(region: str, cluster: str, task_id: str) -> str:
    """
    Return the page of an ECS task.

    :param cluster: its name or ARN
    :param task_id: the last part of the task's ARN, or the ARN
    """
    name, task = quote(cluster.rpartition("/")[2], safe=""), quote(task_id.rpartition("/")[2], safe="")
    return f"{_console(region)}/ecs/v2/clusters/{name}/tasks/{task}?region={quote(region, safe='')}"


def batch_job(region: str, job_id: str) -> str:
    """Return the page of a Batch job."""
    return f"{_console(region)}/batch/home?region={quote(region, safe='')}#jobs/detail/{quote(job_id, safe='')}"


def log_stream(region: str, group: str, name: str) -> str:
    """Return the page of a stream of CloudWatch Logs."""
    where = f"log-group/{quote(group, safe='')}/log-events/{quote(name, safe='')}"
    return f"{_console(region)}/cloudwatch/home?region={quote(region, safe='')}#logsV2:log-groups/{where}"


def service_quota(region: str | None, service: str, code: str) -> str:
    """
    Return the page on which a higher quota is requested.

    :param region: None: it is that of the person's console
    """
    console = f"https://{_DOMAIN}" if region is None else _console(region)
    return f"{console}/servicequotas/home/services/{quote(service, safe='')}/quotas/{quote(code, safe='')}"


def _console(region: str) -> str:
    domain = next((domain for prefix, domain in _DOMAINS.items() if region.startswith(prefix)), _DOMAIN)
    return f"https://{quote(region, safe='')}.{domain}"
