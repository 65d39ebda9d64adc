"""How tasks end: exit codes, stop codes, reasons, and StopTask."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from ecs_async_executor.local.conformance.bench import EXIT_CODE, REASON, Bench, Sight, refusal
from ecs_async_executor.local.conformance.model import Answer, Check, Known, Unanswered

FINISHED = "finished"
BY_SIGNAL = (143, 137)


def _exit_code(record: Mapping[str, Any] | None) -> int | None:
    code: int | None = _container(record).get("exitCode")
    return code


def _container(record: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """Return the container, an empty record if a task shows none."""
    containers: list[Mapping[str, Any]] = (record or {}).get("containers") or []
    return containers[0] if containers else {}


def exit_code(bench: Bench) -> Answer:
    """Look at when the exit code of a container is shown."""
    story = bench.finished

    def shown(sight: Sight) -> bool:
        return _exit_code(sight.record) is not None

    running = story.since(lambda s: s.status == "RUNNING")
    seen, stopped = story.since(shown), story.sights[-1].at
    code = _exit_code(story.last)
    early = [s.status for s in story.sights if shown(s)]
    facts = {"running": running, "exit_code": seen, "stopped": stopped, "first_status": next(iter(early), None)}
    if seen is None:
        return Answer("never shown", holds=False, facts=facts)
    text = f"{code}, {stopped - seen:.1f} s before the look that saw STOPPED, while {early[0]}"
    return Answer(text, holds=code == EXIT_CODE, facts=facts)


def reasons(bench: Bench) -> Answer:
    """Look at why a task has stopped whose container has exited."""
    last = bench.finished.last
    code, reason = last.get("stopCode"), last.get("stoppedReason")
    return Answer(
        f"{code}: {reason}",
        holds=code == "EssentialContainerExited" and reason == "Essential container in task exited",
        facts={"container": _container(last).get("reason")},
    )


def stopped(bench: Bench) -> Answer:
    """Look at a task that StopTask has ended."""
    story = bench.stopped
    code, reason, exit_ = (
        story.last.get("stopCode"),
        story.last.get("stoppedReason", ""),
        _exit_code(story.last),
    )
    return Answer(
        f"{code}: {reason}; exit code {exit_}",
        holds=code == "UserInitiated" and REASON in reason and exit_ in BY_SIGNAL,
    )


def desired(bench: Bench) -> Answer:
    """Look at the desired status of a task that is on its way out."""
    leaving = [
        s
        for s in (*bench.stopped.sights, *bench.finished.sights)
        if s.record is not None and s.record.get("stopCode")
    ]
    if not leaving:
        raise Unanswered("no look has a stop code")
    wrong = sorted({f"{s.status} desired {s.record['desiredStatus']}" for s in leaving if s.record is not None})
    holds = all(s.record is not None and s.record["desiredStatus"] == "STOPPED" for s in leaving)
    return Answer(", ".join(wrong), holds=holds)


def stop_again(bench: Bench) -> Answer:
    """Stop a task that has stopped."""
    story = bench.finished
    found = refusal(
        lambda: bench.ecs.stop_task(cluster=bench.target.cluster, task=story.id, reason="conformance: again")
    )
    if found is not None:
        return Answer(f"{found[0]}: {found[1]}", holds=False)
    now = bench.described(story.id)
    reason = None if now is None else now.get("stoppedReason")
    kept = reason == story.last.get("stoppedReason")
    return Answer(f"accepted, the reason is {'the old one' if kept else reason}", holds=kept)


def stop_unknown(bench: Bench) -> Answer:
    """Stop a task that never was."""
    stranger = f"{bench.finished.id.rpartition('/')[0]}/{uuid4().hex}"
    found = refusal(lambda: bench.ecs.stop_task(cluster=bench.target.cluster, task=stranger))
    if found is None:
        return Answer("accepted", holds=False)
    holds = found[0] == "InvalidParameterException" and found[1] == "The referenced task was not found."
    return Answer(f"{found[0]}: {found[1]}", holds=holds)


def not_started(bench: Bench) -> Answer:
    """Look at a task whose command does not exist."""
    last = bench.failed_to_start.last
    code, reason = last.get("stopCode"), last.get("stoppedReason")
    exit_ = _exit_code(last)
    return Answer(
        f"{code}: {reason}; exit code {exit_}",
        holds=code == "TaskFailedToStart" and exit_ is None and "startedAt" not in last,
        facts={"container": _container(last).get("reason"), "started": "startedAt" in last},
    )


CHECKS = (
    Check(
        "exit-code",
        "The exit code is shown with STOPPED or before.",
        Known.DOCUMENTED,
        exit_code,
        looks_at=FINISHED,
    ),
    Check(
        "exit-reasons",
        "A container that exits by itself is EssentialContainerExited.",
        Known.DOCUMENTED,
        reasons,
        looks_at=FINISHED,
    ),
    Check(
        "stop",
        "What StopTask ends is UserInitiated, has the reason that was given, and exits by the signal.",
        Known.DOCUMENTED,
        stopped,
        looks_at="stopped",
    ),
    Check(
        "stop-desired",
        "What has a stop code has the desired status STOPPED.",
        Known.DOCUMENTED,
        desired,
        looks_at="stopped",
    ),
    Check(
        "stop-again",
        "StopTask of what has stopped is accepted, and changes nothing.",
        Known.REPORTED,
        stop_again,
        looks_at=FINISHED,
    ),
    Check(
        "stop-unknown",
        "StopTask of what never was says that it was not found.",
        Known.DOCUMENTED,
        stop_unknown,
        looks_at=FINISHED,
    ),
    Check(
        "start-failed",
        "A command that does not exist is TaskFailedToStart, without an exit code.",
        Known.REPORTED,
        not_started,
        looks_at="failed_to_start",
    ),
)
