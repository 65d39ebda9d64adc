"""
From rules as people write them, wherever, to :class:`~.rules.ExecutorRules`.

May import :mod:`.rules`, :mod:`.rule_keys`, :mod:`.rule_words` and :mod:`.rule_parsing`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ecs_async_executor.settings.rule_parsing import Given, Report, RuleParser, Service, Use
from ecs_async_executor.settings.rule_words import Path, meant, shown
from ecs_async_executor.settings.rules import ExecutorRules, Placement, Queue, Retry

RULE_OPTIONS: Final = ("queues", "placements", "placement_patience", "retries")
"""The options of which rules consist; a file of rules has the same names."""
MOST_DESTINATIONS: Final = 20


def read_rules(sources: Sequence[Given], service: Service) -> tuple[ExecutorRules, list[str]]:
    """Return the rules as far as they are right, and a sentence for everything that is wrong."""
    reader = _Reader(service)
    try:
        return reader.read(sources), reader.report.problems
    except RecursionError:
        return ExecutorRules(), [
            *reader.report.problems,
            f"{sources[-1].where(())}the rules are nested too deeply",
        ]


def read_retries(
    raw: Any, where: str, service: Service, placements: Mapping[str, Placement]
) -> tuple[tuple[Retry, ...], list[str]]:
    """
    Return the retry rules of a task, and a sentence for everything that is wrong with them.

    :param where: stands before ``retries`` in the sentences
    :param placements: those that there are
    """
    reader = _Reader(service)
    parser = RuleParser(Given({"retries": raw}, lambda _: where), service, reader.report)
    try:
        retries = parser.retries(("retries",), raw)
    except RecursionError:
        return (), [f"{where}retries are nested too deeply"]
    reader.check_uses(placements)
    return retries, reader.report.problems


@dataclass(slots=True)
class _Reader:
    """Puts the rules of several sources together; the same name in two of them is a problem."""

    service: Service
    report: Report = field(default_factory=Report)
    _places: dict[Path, str] = field(default_factory=dict)
    _queues: dict[str, Queue] = field(default_factory=dict)
    _defined: dict[str, Placement] = field(default_factory=dict)
    _rest: dict[str, Any] = field(default_factory=dict)

    def read(self, sources: Sequence[Given]) -> ExecutorRules:
        for given in sources:
            self._read(given)
        placements = {**self.service.aws.built_in_placements, **self._defined}
        self.check_uses(placements)
        rules = ExecutorRules(self._queues, placements, **self._rest, doubts=tuple(self._doubts()))
        if len(there := rules.destinations) > MOST_DESTINATIONS:
            self._say(
                f"The rules name {len(there)} destinations, and an executor has at most {MOST_DESTINATIONS}: "
                "leave some to another executor"
            )
        for name, urls in rules.events_queues.items():
            if len(urls) > 1:
                self._say(f"The rules name two queues of events for the destination {name}: keep one")
        return rules

    def _read(self, given: Given) -> None:
        parser = RuleParser(given, self.service, self.report)
        for name in given.values:
            if name not in RULE_OPTIONS:
                near = meant(name, RULE_OPTIONS)
                way_out = f"did you mean {near}?" if near else f"the keys are {', '.join(RULE_OPTIONS)}"
                self._say(f"{given.place((name,))} is no key of rules: {way_out}")
        for path, _, raw in _members(given, parser, "queues", "an object that gives each queue an object"):
            self._add(self._queues, given.place(path), path, parser.queue(path, raw))
        for path, name, raw in self._placements(given, parser):
            self._add(self._defined, given.place(path), ("placements", name), parser.placement(path, name, raw))
        for name, read in (("placement_patience", parser.patience), ("retries", parser.retries)):
            path = (name,)
            if name in given.values:
                self._add(self._rest, given.place(path), path, read(path, given.values[name]))

    def _placements(self, given: Given, parser: RuleParser) -> Iterator[tuple[Path, str, Any]]:
        """Yield each definition with its path; keep the order of all launches, if there is one."""
        path: Path = ("placements",)
        raw = given.values.get("placements", {})
        if not isinstance(raw, (list, tuple)):
            yield from _members(
                given, parser, "placements", "a list of placements, or an object that defines some"
            )
            return
        order: list[str] = []
        for number, one in enumerate(raw):
            at = (*path, number)
            if isinstance(one, str):
                name = one
            elif isinstance(one, Mapping) and len(one) == 1 and isinstance(name := next(iter(one)), str):
                yield (*at, name), name, one[name]
            else:
                parser.must_be(at, one, "the name of a placement, or an object with one name, which it defines")
                continue
            if name in order:
                self._say(f"{given.place(at)} = {shown(name)} is in the list a second time: remove one of them")
            order.append(name)
            self.report.uses.append(Use(given.place(at), name))
        self._add(self._rest, given.place(path), ("order",), tuple(order))

    def _add(self, known: dict[str, Any], place: str, path: Path, rule: object) -> None:
        """Keep a rule under the last part of a path; a second one there is a problem."""
        before = self._places.setdefault(path, place)
        if before is not place:
            self._say(f"{place} is set in another place too, {before}: remove one of them")
            return
        known[str(path[-1])] = rule

    def check_uses(self, placements: Mapping[str, Placement]) -> None:
        """Report what is used and no placement."""
        for use in self.report.uses:
            if use.name in placements:
                continue
            if near := meant(use.name, placements):
                way_out = f"did you mean {near}?"
            elif placements:
                way_out = f"there are {', '.join(placements)}; define others in placements"
            else:
                way_out = "define it in placements, as the service has none of its own"
            self._say(f"{use.place}: there is no placement {shown(use.name)}; {way_out}")

    def _doubts(self) -> Iterator[str]:
        used = {use.name for use in self.report.uses}
        for name in self._defined:
            if name not in used:
                place = self._places["placements", name]
                yield f"{place} is in no list of placements: only tasks that name it use it"

    def _say(self, problem: str) -> None:
        self.report.problems.append(problem)


def _members(given: Given, parser: RuleParser, name: str, allowed: str) -> Iterator[tuple[Path, str, Any]]:
    """Yield path, name and value of each of an object's members."""
    raw = given.values.get(name, {})
    if not isinstance(raw, Mapping):
        parser.must_be((name,), raw, allowed)
        return
    for key, value in raw.items():
        if isinstance(key, str) and key:
            yield (name, key), key, value
        else:
            parser.say((name,), f"has the name {shown(key)}, which is no text: write it in quotes")
