"""The audit: compares the containers that the local service ran with the outcomes that Airflow got."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from operator import itemgetter
from typing import Any

from tests.chaos.airflow_db import Outcome
from tests.chaos.regions import HOME, Delays, Outage, delays
from tests.chaos.scheduler import launch_of

MAX_ATTEMPTS = 3

Entry = Mapping[str, Any]


@dataclass
class Audit:
    """
    The result of a run.

    :param lost: launches without an outcome that were not revoked
    :param twice: launches with more than one outcome, or whose user code began more than once
    :param wrong: outcomes that their containers do not bear out
    :param stray: containers of launches that Airflow never asked for
    :param withdrawn: containers that were stopped although Airflow wanted them
    :param grouped: containers in Auto Scaling groups
    :param without_room: of those, the ones that the service gave up for want of room
    :param abroad: containers in the other Region
    :param delays: how long launches at home took while the other Region was down
    """

    launches: int = 0
    revoked: int = 0
    containers: int = 0
    ran: int = 0
    never_started: int = 0
    replays: int = 0
    successes: int = 0
    failures: int = 0
    why: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    twice: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    stray: list[str] = field(default_factory=list)
    withdrawn: list[str] = field(default_factory=list)
    grouped: int = 0
    without_room: int = 0
    abroad: int = 0
    delays: Delays = field(default_factory=Delays)

    @property
    def problems(self) -> list[str]:
        """Return every broken promise, in words."""
        return [
            f"{kind}: {text}"
            for kind, texts in (
                ("lost", self.lost),
                ("twice", self.twice),
                ("wrong", self.wrong),
                ("stray", self.stray),
                ("withdrawn", self.withdrawn),
                ("held up", [self.delays.problem] if self.delays.problem else []),
            )
            for text in texts
        ]

    def compare(
        self, queued_at: Mapping[tuple[str, int], float], entries: Iterable[Entry], outages: Sequence[Outage]
    ) -> None:
        """Look whether outages of the other Region held up launches at home."""
        containers: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
        for entry in entries:
            containers[launch_of(dict(entry))].append(entry)
            self.abroad += entry["region"] != HOME
        self.delays = delays(queued_at, containers, outages)


def audit(
    queueings: Mapping[tuple[str, int], bool], outcomes: Iterable[Outcome], entries: Iterable[Entry]
) -> Audit:
    """
    Compare the outcomes with the containers.

    :param queueings: every launch that Airflow asked for, and whether it was revoked
    :param outcomes: the committed outcomes
    :param entries: the local service's ledger
    """
    result = Audit(launches=len(queueings), revoked=sum(queueings.values()))
    containers: defaultdict[tuple[str, int], list[Entry]] = defaultdict(list)
    told: defaultdict[tuple[str, int], list[Outcome]] = defaultdict(list)
    for entry in entries:
        containers[launch_of(dict(entry))].append(entry)
        result.containers += 1
        result.replays += entry["replays"]
        result.never_started += entry["started_at"] is None
        result.grouped += entry["launch_type"] == "EC2"
        result.without_room += _found_no_room(entry)
    for outcome in outcomes:
        told[outcome.key, outcome.queueing].append(outcome)
        result.successes += outcome.success
        result.failures += not outcome.success
    for launch, revoked in queueings.items():
        mine, ends = containers[launch], told[launch]
        began = [entry for entry in mine if entry["started_at"] is not None]
        result.ran += bool(began)
        words = f"{launch[0]} (queueing {launch[1]}): {_words(mine)}; {ends}"
        if len(began) > 1:
            result.twice.append(f"ran {len(began)} times: {words}")
        if any(_one_too_many(*two) for two in pairwise(sorted(mine, key=itemgetter("created_at")))):
            result.twice.append(f"one container too many: {words}")
        if not revoked and any(entry["stop_code"] == "UserInitiated" for entry in mine):
            result.withdrawn.append(words)
        if len(ends) > 1:
            result.twice.append(f"{len(ends)} outcomes: {words}")
        if not ends and not revoked:
            result.lost.append(words)
        for outcome in ends:
            reason = _justification(outcome, mine, began)
            if reason is None:
                result.wrong.append(words)
            else:
                result.why[reason] += 1
    result.stray += [f"{launch}: {_words(mine)}" for launch, mine in containers.items() if launch not in queueings]
    return result


def _justification(outcome: Outcome, containers: list[Entry], began: list[Entry]) -> str | None:
    """Return the fact that bears an outcome out, or None."""
    by_id = {entry["id"]: entry for entry in containers}
    decided = by_id.get(outcome.handle_id or "")
    if outcome.success:
        return "exited 0" if decided is not None and decided["exit_code"] == 0 else None
    if began:
        if decided is None or decided["started_at"] is None or decided["exit_code"] == 0:
            return None
        return "lost its host" if decided["exit_code"] is None else f"exited {decided['exit_code']}"
    never = sum(entry["stopped_at"] is not None and not _found_no_room(entry) for entry in containers)
    return "never started" if never >= MAX_ATTEMPTS else None


def _found_no_room(entry: Entry) -> bool:
    """Return whether the service gave a container up for want of room: that costs no attempt."""
    return entry["started_at"] is None and (entry["stopped_reason"] or "").startswith("RESOURCE:")


def _one_too_many(first: Entry, second: Entry) -> bool:
    """Return whether the second container was made although the first had run, or could still start."""
    return first["started_at"] is not None or (first["stopped_at"] or math.inf) > second["created_at"]


def _words(containers: list[Entry]) -> str:
    return "; ".join(
        f"{entry['id'][-6:]} token {entry['token']} mark {entry['started_by']} {entry['status']}"
        f" created {entry['created_at']:.2f}"
        + (f" started {entry['started_at']:.2f}" if entry["started_at"] is not None else " never started")
        + f" exit {entry['exit_code']} {entry['stop_code'] or ''} {entry['stopped_reason'] or ''}"
        for entry in containers
    )
