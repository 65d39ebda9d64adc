"""Client tokens of RunTask: what is repeated, what is refused, and what a token remembers that started nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ecs_async_executor.local.conformance.bench import LONG, Bench, refusal
from ecs_async_executor.local.conformance.model import Answer, Check, Known, Unanswered
from ecs_async_executor.local.conformance.placement import IMPOSSIBLE, TOO_LARGE

CONFLICT = "ConflictException"


def _arns(reply: dict[str, Any]) -> list[str]:
    return [task["taskArn"] for task in reply["tasks"]]


def _used(bench: Bench) -> tuple[dict[str, Any], str]:
    """Start a task under a token; give the request and the ARN."""
    request = bench.request(LONG, clientToken=bench.token())
    return request, bench.start(**request)


def repeated(bench: Bench) -> Answer:
    """Send one request twice."""
    request, arn = _used(bench)
    second = bench.run_task(**request)
    if _arns(second) == [arn] and not second["failures"]:
        return Answer("the same task", holds=True)
    return Answer(f"{len(second['tasks'])} tasks, failures {second['failures']}", holds=False)


def other_request(bench: Bench) -> Answer:
    """Send another request under the token of a task that runs."""
    request, arn = _used(bench)
    other = bench.request(f"true; {LONG}", clientToken=request["clientToken"])
    started: list[str] = []
    refused = refusal(lambda: started.extend(_arns(bench.run_task(**other))))
    if refused is None:
        return Answer("the same task" if started == [arn] else "another task", holds=False)
    code, message, status, reply = refused
    named = reply.get("resourceIds")
    return Answer(
        f"{code}, resourceIds {'name the task' if named == [arn] else named}",
        holds=code == CONFLICT and named == [arn],
        facts={"message": message, "status": status},
    )


def other_cluster(bench: Bench) -> Answer:
    """Send a request with a used token to another cluster."""
    request, arn = _used(bench)
    other = {**request, "cluster": bench.other_cluster}
    if "capacityProviderStrategy" in other:
        raise Unanswered("the other cluster has no capacity provider")
    started = _arns(bench.run_task(**other))
    return Answer(
        "another task" if arn not in started else "the same task", holds=bool(started) and arn not in started
    )


def stopped(bench: Bench) -> Answer:
    """Repeat the request of a task that has stopped."""
    story = bench.finished
    reply = bench.run_task(**story.request)
    if _arns(reply) != [story.id]:
        return Answer("another task" if reply["tasks"] else f"failures {reply['failures']}", holds=False)
    (task,) = reply["tasks"]
    return Answer(
        f"the task that has stopped, with {len(task)} members", holds=True, facts={"members": sorted(task)}
    )


def refused(bench: Bench) -> Answer:
    """Send a request with the token of one that was refused."""
    token = bench.token()
    impossible = bench.request(LONG, clientToken=token)
    impossible["overrides"] |= {"cpu": IMPOSSIBLE}
    if refusal(lambda: bench.run_task(**impossible)) is None:
        raise Unanswered("the impossible request was not refused")
    return _tried(lambda: bench.run_task(**bench.request(LONG, clientToken=token)), ("a task",))


def _tried(call: Callable[[], dict[str, Any]], stood: tuple[str, ...]) -> Answer:
    """Say what comes of a request whose token has started nothing."""
    replies: list[dict[str, Any]] = []
    found = refusal(lambda: replies.append(call()))
    if found is not None:
        code, message, status, reply = found
        named = "with resourceIds" if reply.get("resourceIds") else "without resourceIds"
        text = f"{code} {named}" if code == CONFLICT else code
        return Answer(text, holds=text in stood, facts={"message": message, "status": status})
    (reply,) = replies
    text = "a task" if reply["tasks"] else "the failures again" if reply["failures"] else "nothing"
    return Answer(text, holds=text in stood, facts={"failures": reply["failures"]})


def _on_ec2(bench: Bench, **params: Any) -> dict[str, Any]:
    return bench.request(
        LONG,
        cluster=bench.target.ec2_cluster,
        taskDefinition=bench.ec2_definition,
        launchType="EC2",
        networkConfiguration=None,
        capacityProviderStrategy=None,
        **params,
    )


def failures(bench: Bench) -> Answer:
    """Repeat a request that failed for want of an attribute, once a container instance has it."""
    cluster = bench.target.ec2_cluster
    constraint = {"type": "memberOf", "expression": f"attribute:{bench.name} == yes"}
    request = _on_ec2(bench, clientToken=bench.token(), placementConstraints=[constraint])
    first = bench.run_task(**request)
    if first["tasks"] or not first["failures"]:
        raise Unanswered("a request that no instance can satisfy did not fail")
    arns = bench.ecs.list_container_instances(cluster=cluster)["containerInstanceArns"]
    attributes = [{"name": bench.name, "value": "yes", "targetId": arn} for arn in arns]
    bench.ecs.put_attributes(cluster=cluster, attributes=attributes)
    bench.undo("attributes", lambda: bench.ecs.delete_attributes(cluster=cluster, attributes=attributes))
    fresh = bench.run_task(**{**request, "clientToken": bench.token()})
    if not fresh["tasks"]:
        raise Unanswered(f"the request fails under a new token too: {fresh['failures']}")
    return _tried(lambda: bench.run_task(**request), ("a task", "the failures again"))


def failures_other_request(bench: Bench) -> Answer:
    """Send another request under the token of one that failed."""
    token = bench.token()
    impossible = _on_ec2(bench, clientToken=token)
    impossible["overrides"] |= {"memory": TOO_LARGE}
    first = bench.run_task(**impossible)
    if first["tasks"] or not first["failures"]:
        raise Unanswered("a request that fits nowhere did not fail")
    stood = ("a task", f"{CONFLICT} without resourceIds")
    return _tried(lambda: bench.run_task(**_on_ec2(bench, clientToken=token)), stood)


CHECKS = (
    Check(
        "token-repeated", "The same request under one token gives the same task.", Known.DOCUMENTED, repeated, 1
    ),
    Check(
        "token-other-request",
        "Another request under the token is a ConflictException whose resourceIds name the task.",
        Known.DOCUMENTED,
        other_request,
        1,
    ),
    Check(
        "token-other-cluster",
        "A token is known in its cluster only.",
        Known.DOCUMENTED,
        other_cluster,
        2,
    ),
    Check(
        "token-stopped",
        "The token of a task that has stopped within the hour gives that task, and starts none.",
        Known.DOCUMENTED,
        stopped,
        looks_at="finished",
    ),
    Check("token-refused", "The token of a refused request is not used up.", Known.OPEN, refused, 1),
    Check(
        "token-failures",
        "The token of a request that failed gives the failures again, or is not used up.",
        Known.OPEN,
        failures,
        2,
        needs="ec2",
    ),
    Check(
        "token-failures-other-request",
        "Another request under it is a ConflictException without resourceIds, or starts a task.",
        Known.OPEN,
        failures_other_request,
        1,
        needs="ec2",
    ),
)
