"""Batch: search by name, ends, and the size of overrides."""

from __future__ import annotations

import json
from collections.abc import Callable
from uuid import uuid4

from ecs_async_executor.local.conformance.bench import EXIT_CODE, REASON, Bench, refusal
from ecs_async_executor.local.conformance.describing import MISSING_GRACE
from ecs_async_executor.local.conformance.model import Answer, Check, Known

LIMIT = 8192
NEAR = 60
"""Characters below the limit: fewer than the variables that Batch adds."""


def name_search(bench: Bench) -> Answer:
    """Search for a job by its name, from SubmitJob to its end."""
    story = bench.finished_job
    since = story.since(lambda sight: sight.listed)
    late = [s.status for s in story.sights if since is not None and s.at >= since and not s.listed]
    ended = bench.named(story.request["jobName"]) == [story.id]
    text = "never found" if since is None else f"found after {since:.1f} s"
    text += f", not while {', '.join(late)}" if late else ""
    text += "" if ended else ", not when it had ended"
    holds = since is not None and since <= MISSING_GRACE and not late and ended
    return Answer(text, holds=holds, facts={"seconds": since})


def name_prefix(bench: Bench) -> Answer:
    """Search for a job by the beginning of its name."""
    story = bench.finished_job
    name: str = story.request["jobName"]
    found = story.id in bench.named(f"{name[:-4]}*")
    exact = bench.named(name[:-4])
    text = f"{'found' if found else 'not found'} with *, {'found' if exact else 'not found'} without"
    return Answer(text, holds=found and not exact)


def name_twice(bench: Bench) -> Answer:
    """Submit two jobs of one name."""
    name, first = bench.submit("true")
    _, second = bench.submit("true", name)
    return Answer("two jobs" if first != second else "the same job", holds=first != second)


def unknown(bench: Bench) -> Answer:
    """Describe a job together with one that never was."""
    own = bench.finished_job.id
    found = [job["jobId"] for job in bench.batch.describe_jobs(jobs=[own, str(uuid4())])["jobs"]]
    return Answer(f"{len(found)} of 2 jobs", holds=found == [own])


def describe_limit(bench: Bench) -> Answer:
    """Describe 101 jobs."""
    found = refusal(lambda: bench.batch.describe_jobs(jobs=[str(uuid4()) for _ in range(101)]))
    if found is None:
        return Answer("accepted", holds=False)
    return Answer(f"{found[0]}: {found[1]}", holds=found[0] == "ClientException", facts={"status": found[2]})


def one_filter(bench: Bench) -> Answer:
    """List with two filters."""
    filters = [{"name": "JOB_NAME", "values": ["a"]}, {"name": "JOB_DEFINITION", "values": ["b"]}]
    found = refusal(lambda: bench.batch.list_jobs(jobQueue=bench.target.job_queue, filters=filters))
    if found is None:
        return Answer("accepted", holds=False)
    return Answer(f"{found[0]}: {found[1]}", holds=found[0] == "ClientException", facts={"status": found[2]})


def exit_code(bench: Bench) -> Answer:
    """Look at a job whose container has exited."""
    last = bench.finished_job.last
    codes = [attempt["container"].get("exitCode") for attempt in last["attempts"]]
    text = f"{last['status']}, {last.get('statusReason')}, exit codes {codes}"
    return Answer(text, holds=last["status"] == "FAILED" and codes == [EXIT_CODE])


def terminated(bench: Bench) -> Answer:
    """Look at a job that TerminateJob has ended."""
    last = bench.terminated_job.last
    flags = {name: last.get(name) for name in ("isTerminated", "isCancelled")}
    text = f"{last['status']}, {last.get('statusReason')}, {flags}"
    holds = last["status"] == "FAILED" and last.get("statusReason") == REASON and bool(flags["isTerminated"])
    return Answer(text, holds=holds, facts=flags)


def _padded(bench: Bench, size: int) -> Answer:
    """Submit a job with overrides of a size, and see whether it ever has a container."""
    script = "true"
    sent = {"name": "default", "command": ["sh", "-c", script], "environment": [{"name": "PAD", "value": ""}]}
    room = size - len(json.dumps({"containerOverrides": [sent]}, separators=(",", ":")))
    refused = None
    last = None

    def follow() -> None:
        nonlocal last
        environment = [{"name": "PAD", "value": "x" * room}]
        last = bench.follow_job(script, environment=environment).last

    refused = refusal(follow)
    if refused is not None or last is None:
        return Answer(f"refused: {refused}", holds=False)
    ran = bool(last["attempts"]) or last["status"] == "SUCCEEDED"
    return Answer(
        "ran" if ran else f"{last['status']} without a container: {last.get('statusReason')}",
        holds=ran,
        facts={"reason": last.get("statusReason"), "ran": ran},
    )


def overrides_limit(bench: Bench) -> Answer:
    """Override with more than 8,192 characters."""
    found = _padded(bench, LIMIT + NEAR)
    return Answer(found.text, holds=found.facts.get("ran") is False, facts=found.facts)


def variables(bench: Bench) -> Answer:
    """Override with just under 8,192 characters: more than that, with the variables that Batch adds."""
    found = _padded(bench, LIMIT - NEAR)
    if found.facts.get("ran") is None:
        return found
    text = "they do not count" if found.holds else f"they count: {found.text}"
    return Answer(text, holds=not found.holds, facts=found.facts)


def _check(
    name: str,
    belief: str,
    known: Known,
    ask: Callable[[Bench], Answer],
    containers: int = 0,
    looks_at: str | None = None,
) -> Check:
    return Check(name, belief, known, ask, containers, looks_at, needs="batch")


CHECKS = (
    _check(
        "job-name-search",
        "JOB_NAME finds a job within a minute, in every status.",
        Known.DOCUMENTED,
        name_search,
        looks_at="finished_job",
    ),
    _check(
        "job-name-prefix",
        "JOB_NAME finds by a beginning only with a final *.",
        Known.DOCUMENTED,
        name_prefix,
        looks_at="finished_job",
    ),
    _check("job-name-twice", "Two jobs can have one name.", Known.DOCUMENTED, name_twice, 2),
    _check(
        "job-unknown",
        "DescribeJobs leaves out what it does not know.",
        Known.DOCUMENTED,
        unknown,
        looks_at="finished_job",
    ),
    _check("job-describe-limit", "More than 100 job ids are refused.", Known.DOCUMENTED, describe_limit),
    _check("job-one-filter", "Two filters of ListJobs are refused.", Known.DOCUMENTED, one_filter),
    _check(
        "job-exit-code",
        "The attempts of a job have their exit codes.",
        Known.DOCUMENTED,
        exit_code,
        looks_at="finished_job",
    ),
    _check(
        "job-terminated",
        "A terminated job has the reason that was given.",
        Known.DOCUMENTED,
        terminated,
        looks_at="terminated_job",
    ),
    _check(
        "job-overrides-limit",
        "Overrides of more than 8,192 characters are accepted, and the job fails without a container.",
        Known.REPORTED,
        overrides_limit,
        1,
    ),
    _check(
        "job-variables", "The variables that Batch adds count in the 8,192 characters.", Known.OPEN, variables, 1
    ),
)
