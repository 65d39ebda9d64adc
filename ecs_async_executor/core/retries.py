"""
What the next try of a task instance gets, by how the tries before it ended: rules, folded over ends.

May import ``endings`` and ``sizes``. An end is kept as a line for people and programs; see :func:`line_of`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any, Final, TypeAlias

from ecs_async_executor.core import sizes
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.sizes import Size

# --- ends ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class End:
    """
    How a try ended, if not by success.

    :param exit_code: of the Airflow container, if it exited
    :param size: what the container had, as far as that is known
    :param choice: the placement that it was launched with, if there was a choice
    """

    try_number: int
    ending: Ending
    exit_code: int | None = None
    size: Size | None = None
    choice: str | None = None


_FIRST: Final = "ending"
_LINE = re.compile(rf"{_FIRST}=\w+( |$)")
_FIELD = re.compile(r'(\w+)=(?:"((?:[^"\\]|\\.)*)"|([^\s"]*))(?= |$)')
_ESCAPED = re.compile(r"\\(.)")
_BARE = re.compile(r"[\w./:+-]+")


def line_of(end: End) -> str:
    """Return an end as a line of words like ``ending=oom exit_code=137 cpu=1024 memory=4096 placement=spot``."""
    size = end.size or Size()
    fields: dict[str, object] = {
        _FIRST: end.ending.value,
        "exit_code": end.exit_code,
        "cpu": size.cpu,
        "memory": size.memory,
        "placement": end.choice,
    }
    return " ".join(f"{name}={_quoted(str(value))}" for name, value in fields.items() if value is not None)


def _quoted(value: str) -> str:
    if _BARE.fullmatch(value):
        return value
    escaped = " ".join(value.split()).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def end_in(text: str, try_number: int) -> End | None:
    """
    Return the end that a text's last line of that kind tells of; None if there is none.

    Fields with other names are left out: another version of this package may have written them.
    """
    line = next((one for one in reversed(text.splitlines()) if _LINE.match(one)), None)
    if line is None:
        return None
    found = _FIELD.findall(line)
    fields = {name: _ESCAPED.sub(r"\1", quoted) if quoted else bare for name, quoted, bare in found}
    try:
        ending = Ending(fields[_FIRST])
    except ValueError:
        return None
    size = Size(_number(fields.get("cpu")), _number(fields.get("memory")))
    return End(
        try_number,
        ending,
        _number(fields.get("exit_code")),
        None if size == Size() else size,
        fields.get("placement") or None,
    )


def without_line(text: str) -> str:
    """Return a text without its last line, if that is for programs: what it says is in the lines above."""
    above, _, last = text.rpartition("\n")
    return above if _LINE.match(last) else text


def _number(value: str | None) -> int | None:
    return int(value) if value and value.isdecimal() else None


# --- rules --------------------------------------------------------------------------------------------------

Amount: TypeAlias = Fraction | int
"""A factor of what the container had, or so much."""
_ANY: Final = "any"
_EXIT: Final = "exit "
_KINDS: Final[Mapping[str, Ending]] = {
    "oom": Ending.OOM,
    "spot": Ending.SPOT,
    "host": Ending.HOST,
    "image": Ending.IMAGE,
    "start": Ending.START,
}


@dataclass(frozen=True, slots=True)
class Rule:
    """
    What the next try gets after an end.

    :param when: ``oom``, ``spot``, ``host``, ``image``, ``start``, ``any``, or ``exit N``
    :param up_to: the most that a factor makes: in MiB of memory, or, if the rule changes no memory, in CPU units
    :param placements: names to choose from, best first; None: the rule says nothing of them
    :param parameters: size and request parameters
    """

    when: str
    cpu: Amount | None = None
    memory: Amount | None = None
    up_to: int | None = None
    placements: tuple[str, ...] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def matches(self, end: End) -> bool:
        """Return whether the rule is about an end; ``exit N`` is about the code, whatever AWS says beside it."""
        if self.when.startswith(_EXIT):
            return end.exit_code == int(self.when.removeprefix(_EXIT))
        return self.when == _ANY or _KINDS[self.when] is end.ending


def rule_of(when: str, changes: Mapping[str, Any]) -> Rule:
    """
    Return a rule with its sizes read.

    :param changes: by the names of the parameters of :class:`Rule`, everything else a parameter
    :raises WrongSize: if a size is none
    """
    rest = dict(changes)
    cpu, memory, up_to = (rest.pop(name, None) for name in ("cpu", "memory", "up_to"))
    placements = rest.pop("placements", None)
    most = None
    if up_to is not None:
        reads_cpu = memory is None and cpu is not None
        most = sizes.cpu_units(up_to, "up_to") if reads_cpu else sizes.memory_mib(up_to, "up_to")
    return Rule(
        when,
        cpu=_amount(cpu, "cpu", sizes.cpu_units),
        memory=_amount(memory, "memory", sizes.memory_mib),
        up_to=most,
        placements=None if placements is None else tuple(placements),
        parameters=rest,
    )


def _amount(value: object, key: str, read: Callable[[object, str], int]) -> Amount | None:
    if value is None:
        return None
    factor = sizes.factor(value, key)
    return read(value, key) if factor is None else factor


# --- what they come to --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Changes:
    """
    What a try gets because of the ends before it; None and empty where they change nothing.

    :param cpu: in CPU units
    :param memory: in MiB
    :param placements: names to choose from, best first
    :param parameters: size and request parameters
    :param reasons: for people: each change and the end that has caused it
    """

    cpu: int | None = None
    memory: int | None = None
    placements: tuple[str, ...] | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    reasons: tuple[str, ...] = ()


NO_CHANGES: Final = Changes()


def changes_after(
    ends: Iterable[End],
    rules: Sequence[Rule],
    asked: Size,
    merge: Callable[[Mapping[str, Any], Mapping[str, Any]], Mapping[str, Any]],
) -> Changes:
    """
    Return what the next try gets: for each end, in the order of the tries, what the first rule about it says.

    What an end has called for stays for all tries after it. CPU and memory never become less than a container had
    or than the configuration asks for; of all else the latest end decides.

    :param ends: of the tries so far, in any order
    :param asked: what the configuration asks for, as far as that is known
    :param merge: puts parameters on top of others
    """
    cpu, memory = _Growth("CPU", sizes.cpu_in_words), _Growth("memory", sizes.memory_in_words, " of memory")
    placements: tuple[str, ...] | None = None
    parameters: Mapping[str, Any] = {}
    why_placements = ""
    why_parameters: dict[str, End] = {}
    for end in sorted(ends, key=lambda one: one.try_number):
        rule = next((one for one in rules if one.matches(end)), None)
        if rule is None:
            continue
        size = end.size or Size()
        memory.grow(rule.memory, rule.up_to, end, size.memory, asked.memory)
        cpu.grow(rule.cpu, rule.up_to if rule.memory is None else None, end, size.cpu, asked.cpu)
        if rule.placements is not None:
            placements = rule.placements
            why_placements = f"with placement {' or '.join(placements)}: {_ended(end)}"
        if rule.parameters:
            parameters = merge(parameters, rule.parameters)
            why_parameters |= dict.fromkeys(rule.parameters, end)
    memory.compare_with(asked.memory)
    cpu.compare_with(asked.cpu)
    reasons = [memory.reason, cpu.reason, why_placements, *_parameter_reasons(why_parameters)]
    return Changes(cpu.amount, memory.amount, placements, parameters, tuple(one for one in reasons if one))


class _Growth:
    """How much of one thing the next try gets, as far as the ends looked at tell."""

    def __init__(self, word: str, in_words: Callable[[int], str], of: str = "") -> None:
        self._word = word
        self._in_words = in_words
        self._of = of
        self.amount: int | None = None
        self.reason = ""

    def grow(self, by: Amount | None, up_to: int | None, end: End, had: int | None, asked: int | None) -> None:
        """
        Let an end change it.

        :param had: what the container of that end had; if that is not known, it counts as what it was to have
        """
        if by is None:
            return
        had = had or self.amount or asked
        if isinstance(by, Fraction) and had is None:
            self.reason = f"with {self._word} as before: a rule multiplies it, and nothing tells how much it was"
            return
        amount = sizes.multiplied(had or 0, by) if isinstance(by, Fraction) else by
        amount = max(had or 0, amount if up_to is None else min(amount, up_to))
        if amount < (self.amount or 0):
            return
        self.amount = amount
        given = f"with {self._in_words(amount)}{self._of}"
        if had is not None and amount > had:
            given += f" instead of {self._in_words(had)}"
        elif up_to is not None and amount >= up_to:
            given += ", the most that its rule allows"
        self.reason = f"{given}: {_ended(end)}"

    def compare_with(self, asked: int | None) -> None:
        """Let the configuration have its way if it asks for as much anyway."""
        if asked is not None and self.amount is not None and asked >= self.amount:
            self.amount, self.reason = None, ""


def _parameter_reasons(ends: Mapping[str, End]) -> Iterator[str]:
    """Yield which parameters changed, by the end that has caused it; their values can be secret."""
    for end in dict.fromkeys(ends.values()):
        names = ", ".join(name for name, cause in ends.items() if cause == end)
        yield f"with {names} from a retry rule: {_ended(end)}"


_WORDS: Final[Mapping[Ending, str]] = {
    Ending.OOM: "running out of memory",
    Ending.IMAGE: "an image that it could not get",
    Ending.START: "a failed start",
    Ending.CAPACITY: "a lack of capacity",
    Ending.SPOT: "a spot interruption",
    Ending.HOST: "the loss of its host",
    Ending.STOPPED: "a stop from outside",
    Ending.REFUSED: "a refused request",
    Ending.LOST: "a cause that nobody knows",
}


def _ended(end: End) -> str:
    how = _WORDS.get(end.ending) or ("an exit" if end.exit_code is None else f"exit code {end.exit_code}")
    return f"try {end.try_number} ended by {how}"


def told(changes: Changes, try_number: int) -> str:
    """Return what people read when a try is launched differently from the tries before it; "" if it is not."""
    if not changes.reasons:
        return ""
    return f"Try {try_number} is launched {'; '.join(changes.reasons)}."
