"""DescribeTasks and ListTasks: what they find, when, and what spoils a call."""

from __future__ import annotations

from uuid import uuid4

from ecs_async_executor.local.conformance.bench import MARK, Bench, refusal
from ecs_async_executor.local.conformance.model import Answer, Check, Known, Unanswered

FINISHED = "finished"
MISSING_GRACE = 60.0
"""Seconds that a new task may be missing or unlisted before clients take it for gone."""


def _seconds(since: float | None) -> str:
    return "never" if since is None else f"after {since:.1f} s"


def missing(bench: Bench) -> Answer:
    """Describe a task from the moment that it was accepted."""
    story = bench.finished
    since = story.since(lambda sight: sight.record is not None)
    gaps = sum(sight.record is None for sight in story.sights if since is not None and sight.at > since)
    text = f"described {_seconds(since)}" + (f", then missing {gaps} times" if gaps else "")
    holds = since is not None and since <= MISSING_GRACE and not gaps
    return Answer(text, holds=holds, facts={"seconds": since, "missing_later": gaps})


def echoed(bench: Bench) -> Answer:
    """Compare the mark and the overrides of a task with what was sent."""
    story = bench.finished
    sent = story.request["overrides"]["containerOverrides"][0]
    overrides: list[dict[str, object]] = story.last["overrides"].get("containerOverrides") or [{}]
    found = overrides[0]
    mark = story.last.get("startedBy") == story.request["startedBy"]
    same = found.get("environment") == sent["environment"] and found.get("command") == sent["command"]
    text = f"startedBy {'same' if mark else 'differs'}, {MARK} and command {'same' if same else 'differ'}"
    return Answer(text, holds=mark and same)


def _beside(bench: Bench, stranger: str) -> Answer:
    """Describe a task together with one that is not there."""
    own = bench.finished.id
    cluster = bench.target.cluster
    found = refusal(lambda: bench.ecs.describe_tasks(cluster=cluster, tasks=[own, stranger]))
    if found is not None:
        return Answer(f"the whole call: {found[0]}: {found[1]}", holds=False, facts={"status": found[2]})
    reply = bench.ecs.describe_tasks(cluster=cluster, tasks=[own, stranger])
    reasons = [failure.get("reason") for failure in reply["failures"]]
    described = [task["taskArn"] for task in reply["tasks"]]
    text = f"failures {reasons}, the other task is {'described' if described == [own] else 'not described'}"
    return Answer(text, holds=reasons == ["MISSING"] and described == [own])


def unknown(bench: Bench) -> Answer:
    """Describe a task of this cluster that never was."""
    return _beside(bench, f"{bench.finished.id.rpartition('/')[0]}/{uuid4().hex}")


def foreign(bench: Bench) -> Answer:
    """Describe a task of another cluster."""
    base, _, _ = bench.finished.id.partition(":task/")
    return _beside(bench, f"{base}:task/{bench.other_cluster}/{uuid4().hex}")


def foreign_region(bench: Bench) -> Answer:
    """Describe a task of another Region."""
    parts = bench.finished.id.split(":")
    parts[3] = "eu-west-1" if parts[3] != "eu-west-1" else "us-east-1"
    return _beside(bench, f"{':'.join(parts).rpartition('/')[0]}/{uuid4().hex}")


def describe_limit(bench: Bench) -> Answer:
    """Describe 101 tasks."""
    arns = [f"{bench.finished.id.rpartition('/')[0]}/{uuid4().hex}" for _ in range(101)]
    found = refusal(lambda: bench.ecs.describe_tasks(cluster=bench.target.cluster, tasks=arns))
    if found is None:
        return Answer("accepted", holds=False)
    return Answer(f"{found[0]}: {found[1]}", holds=found[0] == "InvalidParameterException")


def list_lag(bench: Bench) -> Answer:
    """List by the mark from the moment that a task was accepted."""
    story = bench.finished
    since = story.since(lambda sight: sight.listed)
    return Answer(
        f"listed {_seconds(since)}",
        holds=since is not None and since <= MISSING_GRACE,
        facts={"seconds": since},
    )


def list_waiting(bench: Bench) -> Answer:
    """List while a task has not begun to run."""
    waiting = [s for s in bench.finished.sights if s.status in ("PROVISIONING", "PENDING", "ACTIVATING")]
    later = [s for s in waiting if s.at > waiting[0].at]
    if not later:
        raise Unanswered("the task ran before it was seen to wait")
    listed = sum(s.listed for s in later)
    return Answer(f"listed in {listed} of {len(later)} looks", holds=later[-1].listed, facts={"looks": len(later)})


def _listing(bench: Bench, *, family: bool, mark: bool, status: str) -> Answer:
    """List a task that has stopped."""
    story = bench.finished
    params = {"cluster": bench.target.cluster, "desiredStatus": status}
    if family:
        params["family"] = story.last["taskDefinitionArn"].rpartition("/")[2].partition(":")[0]
    if mark:
        params["startedBy"] = story.request["startedBy"]
    arns: list[str] = []

    def listed() -> None:
        for page in bench.ecs.get_paginator("list_tasks").paginate(**params):
            arns.extend(page["taskArns"])

    found = refusal(listed)
    if found is not None:
        return Answer(f"{found[0]}: {found[1]}", holds=False, facts={"code": found[0]})
    return Answer("listed" if story.id in arns else "not listed", holds=story.id in arns)


def list_family(bench: Bench) -> Answer:
    """List by the family what has stopped."""
    return _listing(bench, family=True, mark=False, status="STOPPED")


def list_mark_running(bench: Bench) -> Answer:
    """List by the mark what runs, with the desired status said."""
    found = _listing(bench, family=False, mark=True, status="RUNNING")
    text = "accepted, without the stopped task" if found.text == "not listed" else found.text
    return Answer(text, holds=found.text == "not listed")


def list_mark_stopped(bench: Bench) -> Answer:
    """List by the mark what has stopped."""
    found = _listing(bench, family=False, mark=True, status="STOPPED")
    holds = found.holds or found.facts.get("code") == "InvalidParameterException"
    return Answer(found.text, holds=holds, facts=found.facts)


def list_mark_family(bench: Bench) -> Answer:
    """List by the mark and by the family."""
    found = _listing(bench, family=True, mark=True, status="STOPPED")
    return Answer(found.text, holds=found.facts.get("code") == "InvalidParameterException", facts=found.facts)


CHECKS = (
    Check(
        "missing-after-launch",
        "A task is described within a minute after RunTask, and is never missing again.",
        Known.DOCUMENTED,
        missing,
        looks_at=FINISHED,
    ),
    Check(
        "mark-echoed",
        "DescribeTasks gives startedBy and the overrides as they were sent.",
        Known.OPEN,
        echoed,
        looks_at=FINISHED,
    ),
    Check(
        "describe-unknown",
        "An unknown ARN is MISSING and spoils no other.",
        Known.DOCUMENTED,
        unknown,
        looks_at=FINISHED,
    ),
    Check(
        "describe-foreign",
        "The ARN of another cluster is MISSING and spoils no other.",
        Known.OPEN,
        foreign,
        looks_at=FINISHED,
    ),
    Check(
        "describe-foreign-region",
        "The ARN of another Region is MISSING and spoils no other.",
        Known.OPEN,
        foreign_region,
        looks_at=FINISHED,
    ),
    Check(
        "describe-limit", "More than 100 ARNs are refused.", Known.DOCUMENTED, describe_limit, looks_at=FINISHED
    ),
    Check(
        "list-lag",
        "A task is listed by its startedBy within a minute after RunTask.",
        Known.OPEN,
        list_lag,
        looks_at=FINISHED,
    ),
    Check(
        "list-waiting",
        "A task that does not run yet is listed as RUNNING.",
        Known.DOCUMENTED,
        list_waiting,
        looks_at=FINISHED,
    ),
    Check(
        "list-family-stopped",
        "Family and STOPPED list what has stopped.",
        Known.DOCUMENTED,
        list_family,
        looks_at=FINISHED,
    ),
    Check(
        "list-mark-running",
        "startedBy goes with the desired status RUNNING.",
        Known.REPORTED,
        list_mark_running,
        looks_at=FINISHED,
    ),
    Check(
        "list-mark-stopped",
        "startedBy with STOPPED lists what has stopped, or is refused as one filter too many.",
        Known.OPEN,
        list_mark_stopped,
        looks_at=FINISHED,
    ),
    Check(
        "list-mark-family",
        "startedBy and family together are refused.",
        Known.DOCUMENTED,
        list_mark_family,
        looks_at=FINISHED,
    ),
)
