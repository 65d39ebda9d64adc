"""What RunTask refuses, and what it answers with failures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecs_async_executor.local.conformance.bench import LONG, Bench, refusal
from ecs_async_executor.local.conformance.model import Answer, Check, Known

IMPOSSIBLE = "99999999"
TOO_LARGE = "4000000"
"""More memory, in MiB, than any container instance has."""


def _refused(bench: Bench, params: dict[str, Any], code: str | None, words: str = "") -> Answer:
    """Send a RunTask that is to be refused."""
    replies: list[dict[str, Any]] = []
    found = refusal(lambda: replies.append(bench.run_task(**params)))
    if found is None:
        (reply,) = replies
        return Answer(f"accepted: {len(reply['tasks'])} tasks, failures {reply['failures']}", holds=False)
    got, message, status, _ = found
    holds = code in (None, got) and words.lower() in message.lower()
    return Answer(f"{got}: {message}", holds=holds, facts={"status": status})


def impossible_size(bench: Bench) -> Answer:
    """Ask for more CPU than there is."""
    params = bench.request(LONG)
    params["overrides"] |= {"cpu": IMPOSSIBLE}
    return _refused(bench, params, None)


def _of_size(bench: Bench, **size: Any) -> dict[str, Any]:
    params = bench.request(LONG)
    params["overrides"] |= size
    return params


def no_configuration(bench: Bench) -> Answer:
    """Ask for CPU and memory that Fargate does not have together."""
    params = _of_size(bench, cpu="1024", memory="512")
    return _refused(bench, params, "InvalidParameterException", "no fargate configuration exists for given values")


def small_disk(bench: Bench) -> Answer:
    """Ask for as much ephemeral storage as there is without asking."""
    params = _of_size(bench, ephemeralStorage={"sizeInGiB": 20})
    return _refused(bench, params, "InvalidParameterException", "at least 21")


def large_container(bench: Bench) -> Answer:
    """Ask for more memory for a container than for its task."""
    params = _of_size(bench, cpu="256", memory="512")
    params["overrides"]["containerOverrides"][0] |= {"memory": 1024}
    return _refused(bench, params, "InvalidParameterException", "greater than for")


def size_shown(bench: Bench) -> Answer:
    """Ask for a size, and look which one the task shows."""
    (task,) = bench.run_task(**_of_size(bench, cpu="512", memory="1024"))["tasks"]
    shown = task.get("cpu"), task.get("memory")
    return Answer(f"cpu {shown[0]}, memory {shown[1]}", holds=shown == ("512", "1024"))


def overrides_limit(bench: Bench) -> Answer:
    """Override with more than 8,192 characters."""
    return _refused(bench, bench.request("x" * 8192), "InvalidParameterException", "at most 8192")


def count_limit(bench: Bench) -> Answer:
    """Ask for eleven tasks."""
    return _refused(bench, bench.request(LONG, count=11), "InvalidParameterException")


def type_and_strategy(bench: Bench) -> Answer:
    """Return a launch type and a capacity provider strategy."""
    params = bench.request(LONG, launchType="FARGATE", capacityProviderStrategy=[{"capacityProvider": "FARGATE"}])
    return _refused(bench, params, "InvalidParameterException", "both")


def managed_instances(bench: Bench) -> Answer:
    """Return MANAGED_INSTANCES as the launch type."""
    params = bench.request(LONG, launchType="MANAGED_INSTANCES", capacityProviderStrategy=None)
    return _refused(bench, params, None)


def unknown_provider(bench: Bench) -> Answer:
    """Use a capacity provider that the cluster does not have."""
    strategy = [{"capacityProvider": "FARGATE_SPOT"}]
    params = bench.request(LONG, launchType=None, capacityProviderStrategy=strategy, cluster=bench.other_cluster)
    return _refused(bench, params, "InvalidParameterException", "not associated with the cluster")


def _ec2(bench: Bench, cluster: str | None) -> dict[str, Any]:
    return bench.request(
        LONG,
        cluster=cluster,
        taskDefinition=bench.ec2_definition,
        launchType="EC2",
        networkConfiguration=None,
        capacityProviderStrategy=None,
    )


def no_instances(bench: Bench) -> Answer:
    """Ask for EC2 in a cluster without container instances."""
    return _refused(
        bench, _ec2(bench, bench.other_cluster), "InvalidParameterException", "no container instances were found"
    )


def each_instance(bench: Bench) -> Answer:
    """Ask for more memory than any container instance has."""
    cluster = bench.target.ec2_cluster
    params = _ec2(bench, cluster)
    params["overrides"] |= {"memory": TOO_LARGE}
    instances = bench.ecs.list_container_instances(cluster=cluster, status="ACTIVE")["containerInstanceArns"]
    reply = bench.run_task(**params)
    failures = reply["failures"]
    reasons = [failure.get("reason") for failure in failures]
    arns = {failure.get("arn") for failure in failures}
    holds = not reply["tasks"] and arns == set(instances) and "RESOURCE:MEMORY" in reasons
    return Answer(
        f"{len(failures)} failures for {len(instances)} container instances: {', '.join(map(str, reasons))}",
        holds=holds,
        facts={"failures": failures},
    )


_CHECKS: tuple[tuple[str, str, Known, Callable[[Bench], Answer]], ...] = (
    ("size-impossible", "A size that does not exist is refused, not a failure.", Known.OPEN, impossible_size),
    (
        "size-combination",
        "CPU and memory that Fargate does not have together are refused, in these words.",
        Known.REPORTED,
        no_configuration,
    ),
    ("size-disk", "Ephemeral storage below 21 GiB is refused, in these words.", Known.REPORTED, small_disk),
    ("size-container", "A container with more memory than its task is refused.", Known.REPORTED, large_container),
    ("size-shown", "A task shows the size that its override asks for.", Known.OPEN, size_shown),
    ("overrides-limit", "Overrides of more than 8,192 characters are refused.", Known.DOCUMENTED, overrides_limit),
    ("count-limit", "A count above 10 is refused.", Known.DOCUMENTED, count_limit),
    (
        "type-and-strategy",
        "A launch type together with a capacity provider strategy is refused.",
        Known.DOCUMENTED,
        type_and_strategy,
    ),
    (
        "managed-instances",
        "MANAGED_INSTANCES is refused as a launch type of RunTask.",
        Known.DOCUMENTED,
        managed_instances,
    ),
    (
        "provider-unknown",
        "A capacity provider that is not associated with the cluster is refused, in these words.",
        Known.REPORTED,
        unknown_provider,
    ),
    (
        "instances-none",
        "EC2 in a cluster without container instances is refused, not a failure.",
        Known.REPORTED,
        no_instances,
    ),
)
CHECKS = (
    *(Check(name, belief, known, ask) for name, belief, known, ask in _CHECKS),
    Check(
        "failures-each-instance",
        "What fits nowhere gets one failure for each container instance.",
        Known.REPORTED,
        each_instance,
        needs="ec2",
    ),
)
