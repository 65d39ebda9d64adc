"""
All checks, one after the other: verdicts, a table, a JSON document.

May import the subjects and the modules below. What identifies an account is taken out of every answer.
"""

from __future__ import annotations

import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError

from ecs_async_executor.local.conformance import describing, jobs, life, placement, tokens
from ecs_async_executor.local.conformance.bench import Bench
from ecs_async_executor.local.conformance.model import Answer, Check, Result, Unanswered, Verdict
from ecs_async_executor.local.conformance.target import Target

CHECKS: tuple[Check, ...] = (
    *tokens.CHECKS,
    *placement.CHECKS,
    *describing.CHECKS,
    *life.CHECKS,
    *jobs.CHECKS,
)
DOLLARS_PER_HOUR = 0.0124
"""Of a quarter of a vCPU and half a GiB on Fargate for Linux, in the less expensive Regions."""
MINUTES_PER_CONTAINER = 2.0
WIDTH = 64
_PRIVATE: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"arn:aws[\w-]*:(?:iam|sts):[^\s\"']*"), "arn:aws:iam:..."),
    (re.compile(r"(?<![0-9a-f])\d{12}(?![0-9a-f])"), "0" * 12),
    (re.compile(r"\b(subnet|sg|eni|i|vpc)-[0-9a-f]{8,17}\b"), r"\1-..."),
)


@dataclass(frozen=True, slots=True)
class Report:
    """
    What came of a run.

    :param left: what could not be removed, and why
    """

    results: tuple[Result, ...]
    left: tuple[str, ...]
    about: Mapping[str, Any]

    @property
    def wrong(self) -> tuple[Result, ...]:
        """The results of beliefs that do not hold."""
        return tuple(r for r in self.results if r.verdict is Verdict.DIFFERS)

    @property
    def answered(self) -> tuple[Result, ...]:
        """The results with an answer."""
        return tuple(r for r in self.results if r.verdict in (Verdict.HOLDS, Verdict.DIFFERS))

    def table(self) -> str:
        """Return the results as text, a line each, and what they add up to."""
        rows = [("check", "known", "verdict", "cost", "answer")]
        rows += [(r.name, r.known.value, r.verdict.value, _cost(r), _short(r.answer)) for r in self.results]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
        counts = Counter(r.verdict.value for r in self.results)
        lines += ["", ", ".join(f"{number} {verdict}" for verdict, number in counts.items())]
        lines += [f"belief that does not hold: {r.name}: {r.belief} Answer: {r.answer}" for r in self.wrong]
        lines += [f"left behind: {what}" for what in self.left]
        return "\n".join(lines)

    def to_json(self) -> str:
        """Return the results as a JSON document."""
        results = [asdict(r) | {"known": r.known.value, "verdict": r.verdict.value} for r in self.results]
        document = {**self.about, "results": results, "left": list(self.left)}
        return private(json.dumps(document, indent=2, default=str, ensure_ascii=False))


def estimate(checks: Iterable[Check]) -> tuple[int, float]:
    """Return how many containers some checks start at most, and what that costs in US dollars on Fargate."""
    checks = tuple(checks)
    shared = {check.looks_at for check in checks if check.looks_at}
    containers = len(shared) + sum(check.containers for check in checks)
    return containers, containers * MINUTES_PER_CONTAINER / 60 * DOLLARS_PER_HOUR


def chosen(names: Sequence[str]) -> tuple[Check, ...]:
    """
    Return the checks whose names begin with one of these, all of them without any.

    :raises ValueError: if none does
    """
    found = tuple(c for c in CHECKS if not names or any(c.name.startswith(name) for name in names))
    if not found:
        raise ValueError(f"no check begins with {' or '.join(names)}; known: {', '.join(c.name for c in CHECKS)}")
    return found


def run(bench: Bench, checks: Sequence[Check] = CHECKS, done: Callable[[Result], None] = lambda _: None) -> Report:
    """
    Ask all of this, and clear up.

    :param done: called with each result as soon as it is there
    """
    results: list[Result] = []
    try:
        for check in checks:
            results.append(_ask(bench, check))
            bench.stop()
            done(results[-1])
    finally:
        left = bench.clear()
    return Report(tuple(results), tuple(map(private, left)), about(bench.target))


def about(target: Target) -> dict[str, Any]:
    """Return what a reader of the results has to know of the circumstances, and nothing that names an account."""
    return {
        "what": "ecs-async-executor conformance",
        "version": _version("ecs-async-executor"),
        "botocore": _version("botocore"),
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "endpoint": target.endpoint or "AWS",
        "region": target.region,
        "launch_type": target.launch_type,
        "capacity_provider": target.capacity_provider is not None,
        "interval": target.interval,
    }


def private(text: str) -> str:
    """Return a text without the numbers of accounts, the names of roles, and the ids of networks and instances."""
    for pattern, instead in _PRIVATE:
        text = pattern.sub(instead, text)
    return text


def _ask(bench: Bench, check: Check) -> Result:
    calls, containers, begun = bench.calls, bench.containers, time.monotonic()
    facts: Mapping[str, Any] = {}
    if not bench.target.has(check.needs) or (check.needs == "batch" and bench.batch is None):
        verdict, text = Verdict.SKIPPED, f"needs {check.needs}"
    else:
        try:
            answer: Answer = check.ask(bench)
        except (Unanswered, ClientError, BotoCoreError) as error:
            verdict, text = Verdict.UNANSWERED, str(error)
        else:
            verdict = Verdict.HOLDS if answer.holds else Verdict.DIFFERS
            text, facts = answer.text, answer.facts
    return Result(
        name=check.name,
        belief=check.belief,
        known=check.known,
        verdict=verdict,
        answer=private(text),
        facts=facts,
        containers=bench.containers - containers,
        calls=bench.calls - calls,
        seconds=round(time.monotonic() - begun, 3),
    )


def _cost(result: Result) -> str:
    return f"{result.containers} run, {result.calls} calls"


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= WIDTH else f"{line[: WIDTH - 3]}..."


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
