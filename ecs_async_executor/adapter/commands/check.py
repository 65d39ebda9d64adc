"""
``airflow ecs-async check``: everything that can be known before the first task.

May import everything of this package.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.configured import executor_of
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.example import KEY, default_queue, example_workload, try_spec
from ecs_async_executor.adapter.commands.named import judge_of
from ecs_async_executor.adapter.commands.output import quiet, say
from ecs_async_executor.adapter.commands.surroundings import look_around
from ecs_async_executor.adapter.reports import in_words
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.adapter.steering import Steering
from ecs_async_executor.adapter.workloads import COMMAND
from ecs_async_executor.core.backend import Backend, LaunchSpec, Trial
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import Rule, rule_of
from ecs_async_executor.services.definitions import JudgeExecutors
from ecs_async_executor.services.findings import Finding, Verdict, good, problem
from ecs_async_executor.services.logs import LogReader
from ecs_async_executor.settings import ExecutorRules

if TYPE_CHECKING:
    import argparse

TIMEOUT = 15.0
"""Seconds that the service has by default to answer all requests that start no container."""
_MARGIN = 1.0
USAGE = 2
"""The exit code for arguments that make no sense together."""
_FOR_ALL = frozenset({Kind.CREDENTIALS, Kind.UNSENT})
"""Errors that every other request would meet too."""
_SILENCE = frozenset({"ReadTimeoutError"})
"""Codes of errors that say that nobody answers; to wait for each other request as long would show no more."""


@command
def check(args: argparse.Namespace) -> None:
    """
    Check the settings, and make every request that starts no container; with ``--launch``, then start one.

    :raises SystemExit: with each problem, if there is any; code 1, or 2 for arguments that make no sense
    """
    if not args.launch and (args.queue or args.executor_config):
        _refuse("--queue and --executor-config are about the container that --launch starts.")
    if args.launch and args.output == "json":
        _refuse("--launch shows what happens as it happens: it has no JSON.")
    try:
        with quiet():
            executor = executor_of(args)
    except SystemExit as error:
        _conclude(args, "", [problem("Settings", str(error.code))])
        return
    adapter = executor.adapter
    with quiet():
        findings = list(look_around(executor))
        usable = all(one.verdict is not Verdict.PROBLEM for one in findings)
        judge = judge_of(executor)
        findings += _look_at_requests(adapter, judge, _seconds(args), launching=args.launch, usable=usable)
    _conclude(args, f"{adapter.service.name}: ", list(_grouped(findings)))
    if args.launch:
        from ecs_async_executor.adapter.commands.launch import launch

        launch(adapter, args.queue, args.executor_config, args.timeout)


def _conclude(args: argparse.Namespace, service: str, findings: Sequence[Finding]) -> None:
    """Print the findings; end with 1 if they are bad enough."""
    as_json = args.output == "json"
    if as_json:
        say(json.dumps([{**asdict(one), "verdict": one.verdict.value} for one in findings], indent=2))
    else:
        _print(findings)
    if problems := [one for one in findings if one.verdict is Verdict.PROBLEM]:
        sys.exit(1 if as_json else "\n".join(f"{service}{_line(one)}" for one in problems))
    if args.strict and any(one.verdict is Verdict.WARNING for one in findings):
        sys.exit(1 if as_json else "There are warnings, and --strict counts them as problems.")


def _refuse(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.exit(USAGE)


def _seconds(args: argparse.Namespace) -> float:
    """Return how long the requests may take that start no container."""
    return TIMEOUT if args.launch or args.timeout is None else float(args.timeout)


# --- what is looked at ------------------------------------------------------------------------------------------


def _look_at_requests(
    adapter: ServiceAdapter, judge: JudgeExecutors, seconds: float, *, launching: bool, usable: bool
) -> Iterator[Finding]:
    """
    Yield what is found of the requests for every queue and placement, and of all that start no container.

    Of the requests after an end only those are named that would be refused.

    :param judge: is told what containers have as ``[core] executor``
    :param usable: no problem is known that every request would meet
    """
    specs: list[LaunchSpec] = []
    steering = Steering(adapter.rules)
    launch = Launch("launch-id", KEY, None, 0, "launch-id", 0.0)
    for queue in (None, *adapter.rules.queues):
        command = [*COMMAND, example_workload(KEY, queue or default_queue())]
        names = steering.choices_of(queue, None).names
        tries: list[tuple[str, Any, str | None]] = [("", None, choice) for choice in names or (None,)]
        for rule in _retries(adapter.rules, queue):
            placements = names if rule.placements is None else rule.placements
            tries += [(rule.when, _asked_by(rule), choice) for choice in placements or (None,)]
        known: set[str] = set()  # what fails a first try is not the rule's fault
        for when, config, choice in tries:
            words = [
                "Request",
                f"queue {queue!r}" if queue else "",
                f"placement {choice}" if choice else "",
                f"after {when}" if when else "",
            ]
            name = ", ".join(word for word in words if word)
            spec, problems = try_spec(adapter, launch, command, queue, config, choice)
            text = "; ".join(problems)
            if not problems and not when:
                yield good(name)
            elif problems and not (when and text in known):
                yield problem(name, text)
            known.add(text)
            if spec is not None:
                specs.append(spec)
    if not usable:
        yield Finding("Requests", Verdict.NOT_TRIED, "because of the problems with the settings")
        return
    try:
        backend = adapter.make_backend(launches=True)
        yield from run_bounded(partial(_ask, adapter, backend, specs, judge, seconds), seconds + _MARGIN)
    except Exception as error:  # noqa: BLE001 - said, with the exit code
        yield problem("Client", in_words(error))
        return
    if not launching:
        yield Finding("Requests", Verdict.NOT_TRIED, backend.untried)


def _retries(rules: ExecutorRules, queue: str | None) -> list[Rule]:
    """Return the retry rules of a queue's launches."""
    own = rules.queues[queue].retries if queue is not None else None
    return [rule_of(one.when, one.changes) for one in (rules.retries if own is None else own)]


def _asked_by(rule: Rule) -> dict[str, Any]:
    """Return what a retry rule asks for, whatever a container had before."""
    asked = dict(rule.parameters)
    if isinstance(rule.cpu, int):
        asked["cpu"] = f"{rule.cpu} units"
    if isinstance(rule.memory, int):
        asked["memory"] = f"{rule.memory} MB"
    return asked


async def _ask(
    adapter: ServiceAdapter,
    backend: Backend,
    specs: Sequence[LaunchSpec],
    judge: JudgeExecutors,
    seconds: float,
) -> list[Finding]:
    """Try every destination, each on its own: one that does not answer says nothing of the others."""
    findings: dict[str, list[Finding]] = {name: [] for name in adapter.destinations}
    async with backend.open(), adapter.log_reader().open() as reader, anyio.create_task_group() as group:
        trials = backend.trials(specs)
        for name, found in findings.items():
            theirs = [one for one in trials if one.destination == name]
            group.start_soon(_ask_there, adapter, reader, theirs, specs, judge, name, seconds, found)
    return [one for found in findings.values() for one in found]


async def _ask_there(
    adapter: ServiceAdapter,
    reader: LogReader,
    trials: Sequence[Trial],
    specs: Sequence[LaunchSpec],
    judge: JudgeExecutors,
    destination: str,
    seconds: float,
    found: list[Finding],
) -> None:
    """Add what is found in a destination, as far as it answers in time."""
    there = f", destination {destination}" if destination else ""
    try:
        with anyio.move_on_after(seconds) as limit:
            for number, trial in enumerate(trials):
                try:
                    await trial.make()
                except BackendError as error:  # noqa: PERF203
                    if trial.decides or error.kind in _FOR_ALL or error.code in _SILENCE:
                        these = trials[number : number + 1] if trial.decides else trials[number:]
                        found.append(problem(", ".join(one.name for one in these), in_words(error)))
                        return
                    found.append(problem(trial.name, in_words(error)))
                else:
                    found.append(good(trial.name))
            try:
                async for finding in adapter.look_at_definitions(reader, specs, judge, destination):
                    found.append(replace(finding, name=f"{finding.name}{there}"))  # noqa: PERF401 - each counts
            except BackendError as error:
                found.append(problem(f"Definitions{there}", in_words(error)))
            async for finding in adapter.look_at_events(destination):
                found.append(replace(finding, name=f"{finding.name}{there}"))  # noqa: PERF401 - likewise
        if limit.cancelled_caught:
            found.append(problem(f"Client{there}", f"no answer within {seconds:g} s"))
    except Exception as error:  # noqa: BLE001 - said, with the exit code
        found.append(problem(f"Client{there}", in_words(error)))


def _grouped(findings: Iterable[Finding]) -> Iterator[Finding]:
    """Make one finding of those that have one cause."""
    of_cause: dict[object, Finding] = {}
    for number, one in enumerate(findings):
        alone = one.verdict not in {Verdict.PROBLEM, Verdict.WARNING}
        cause = number if alone else (one.verdict, one.text, one.hint)
        known = of_cause.get(cause)
        of_cause[cause] = one if known is None else replace(known, name=f"{known.name}, {one.name}")
    return iter(of_cause.values())


# --- what is printed --------------------------------------------------------------------------------------------


def _print(findings: Iterable[Finding]) -> None:
    for one in findings:
        if one.verdict is Verdict.GOOD:
            say(f"{one.name}: good{f' ({one.text})' if one.text else ''}.")
        elif one.verdict is Verdict.WARNING:
            say(f"Warning: {_line(one)}")
        elif one.verdict is Verdict.INFO:
            say(f"{one.name}: {one.text}.")
        elif one.verdict is Verdict.NOT_TRIED:
            say(f"Not tried: {one.text}.")


def _line(finding: Finding) -> str:
    text = finding.text.rstrip(".")
    return f"{finding.name}: {text}; {finding.hint}." if finding.hint else f"{finding.name}: {finding.text}"
