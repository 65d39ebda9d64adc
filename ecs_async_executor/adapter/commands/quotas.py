"""
``airflow ecs-async quotas``: how much of AWS's rates and vCPUs the executors use, who else does, and what to set.

May import everything of this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from airflow.utils.session import create_session

from ecs_async_executor.adapter.bounded import run_bounded
from ecs_async_executor.adapter.commands.configured import executors_or_exit
from ecs_async_executor.adapter.commands.drawn import At, Place, places_of
from ecs_async_executor.adapter.commands.ending import command
from ecs_async_executor.adapter.commands.output import duration, quiet, say, show
from ecs_async_executor.adapter.commands.words import refusal
from ecs_async_executor.adapter.status import ExecutorStatus, statuses
from ecs_async_executor.core.account import AccountQuota
from ecs_async_executor.core.quotas import Advice, Bucket, advise, percent
from ecs_async_executor.services.links import service_quota
from ecs_async_executor.services.quotas import CHANGES, about_gate
from ecs_async_executor.services.servicequotas import FARGATE, PERMISSION

if TYPE_CHECKING:
    import argparse

TIMEOUT: Final = 20.0
"""Seconds that Service Quotas has to answer."""
_DESTINATION: Final = re.compile(r"destination=(\S+) ")


@command
def quotas(args: argparse.Namespace) -> None:
    """
    Print what is used and refused of each quota that executors draw from, by whom, and what to change.

    :raises SystemExit: if none of ours is configured
    """
    executors = executors_or_exit()
    with quiet(), create_session(scoped=False) as session:
        seen = statuses(session)
    at_all = [at for at in places_of(executors, seen) if at.seen or at.unseen]
    accounts = {at.place: _account(at, ask=args.ask_aws) for at in at_all}
    if args.output in {"json", "yaml"}:
        show([_whole(at, *accounts[at.place]) for at in at_all], args.output)
        return
    if not seen:
        say("No scheduler runs.")
        return
    works = [at for at in at_all if at.seen]
    show((row for at in works for row in _rows(at, named=len(works) > 1)), args.output)
    if args.output == "table":
        for line in _lines(works, {place: quotas for place, (quotas, _) in accounts.items()}):
            say(line)
        for place, (_, problem) in accounts.items():
            if problem:
                say(f"Service Quotas, {place}: {problem}")
        for line in _unseen(seen):
            say(line)


def _account(at: At, *, ask: bool) -> tuple[Sequence[AccountQuota], str]:
    """Return what is known of the account's quotas, and why they could not be read."""
    if not ask:
        return at.quotas, ""
    adapter = at.adapter
    try:
        with quiet():
            read = run_bounded(partial(adapter.account_quotas, at.place.destination), TIMEOUT)
    except Exception as error:  # noqa: BLE001 - said, and the rest is shown
        return at.quotas, refusal(error, PERMISSION)
    return read.quotas, ""


# --- the table --------------------------------------------------------------------------------------------------


def _rows(at: At, *, named: bool) -> Iterator[dict[str, object]]:
    buckets = list(at.buckets())
    for bucket in buckets:
        yield {**({"place": str(at.place)} if named else {}), **_row(bucket)}
        changes = CHANGES.get(at.place.service)
        if bucket.operation == "stop" and changes is not None:
            used = bucket.used + bucket.beside
            row = dict.fromkeys(_row(bucket), "") | {"calls": changes.call, "used": f"{used:.1f}/s"}
            yield {**({"place": str(at.place)} if named else {}), **row, "quota": f"{changes.per_second:g}/s"}


def _row(bucket: Bucket) -> dict[str, object]:
    refused = "-"
    if bucket.refused:
        refused = f"{bucket.refused} ({percent(bucket.refused / bucket.calls)})"
    return {
        "calls": bucket.call,
        "used": f"{bucket.used:.1f}/s",
        "rate": f"{bucket.rate:.1f}/s",
        "began": f"{sum(draw.begins_at for draw in bucket.draws):g}/s",
        "quota": "-" if bucket.quota is None else f"{bucket.quota:g}/s",
        "refused": refused,
        "since": "-" if bucket.refused_for is None else duration(bucket.refused_for),
        "by": bucket.by.value,
    }


# --- the whole, for programs ------------------------------------------------------------------------------------


def _whole(at: At, account: Sequence[AccountQuota], problem: str) -> dict[str, object]:
    place = at.place
    return {
        "executor": place.service,
        "destination": place.destination,
        "region": place.region,
        "section": at.section,
        "schedulers": [one.hostname for one in at.seen],
        "unseen": [{"scheduler": one.hostname, "problem": one.problem} for one in at.unseen],
        "buckets": [_figures(bucket) for bucket in at.buckets()],
        "quotas": [asdict(quota) for quota in account],
        "problem": problem or None,
        "advice": [asdict(one) for one in _advice(at, account)],
    }


def _figures(bucket: Bucket) -> dict[str, object]:
    return {
        "calls": bucket.call,
        "operation": bucket.operation,
        "used": round(bucket.used, 2),
        "per_second": round(bucket.rate, 2),
        "quota": bucket.quota,
        "calls_in_ten_minutes": bucket.calls,
        "refused": bucket.refused,
        "refused_for": bucket.refused_for,
        "by": bucket.by.value,
        "draws": [asdict(draw) for draw in bucket.draws],
    }


# --- the lines below the table ----------------------------------------------------------------------------------


def _lines(works: Sequence[At], accounts: Mapping[Place, Sequence[AccountQuota]]) -> Iterator[str]:
    for at in works:
        where = f"{at.place.service}, {at.place}: " if len(works) > 1 else ""
        hosts = ", ".join(one.hostname for one in at.seen)
        yield f"{where}Refused: of the calls in the last ten minutes. Schedulers: {hosts}."
        yield from (f"{where}{quota.name} ({quota.code}): {quota.value:g}." for quota in accounts[at.place])
        for one in _advice(at, accounts[at.place]):
            yield f"- {where}{one}"


def _advice(at: At, account: Sequence[AccountQuota]) -> Iterator[Advice]:
    if not at.seen:
        return
    settings = at.settings()
    for bucket in at.buckets():
        yield from advise(bucket, settings)
    page = partial(service_quota, at.place.region, FARGATE)
    told = set()
    for one in at.seen:
        for gate in (one.status or {})["gates"]:
            there = _DESTINATION.match(gate["placement"])
            if (there[1] if there else "") == at.place.destination and gate["kind"] == "capacity":
                advice = _about(gate, account, page)
                if advice not in told:
                    told.add(advice)
                    yield advice


def _about(gate: Mapping[str, Any], account: Sequence[AccountQuota], page: Callable[[str], str]) -> Advice:
    placement = gate["placement"]
    return about_gate(gate.get("choice") or placement, placement, gate["reason"], account, page)


def _unseen(seen: Iterable[ExecutorStatus]) -> Iterator[str]:
    hosts: dict[str, list[str]] = {}
    for one in seen:
        if one.problem is not None:
            hosts.setdefault(one.problem, []).append(f"{one.executor} on {one.hostname}")
    for problem, places in hosts.items():
        yield f"Not in these figures: {', '.join(places)}: {problem}."
