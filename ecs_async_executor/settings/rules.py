"""
The executor's rules: which queue goes where, which placements there are, and what the next try gets.

May import the rest of ``settings`` and :mod:`ecs_async_executor.core.errors`. The rules come from the options
``queues``, ``placements`` and ``retries``, and from the file that ``executor_rules`` names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Destination:
    """
    Where containers go, if not where the executor's own section says; None for what that section decides.

    :param role_arn: the role that is assumed there
    :param events_queue_url: the queue of its events; it does not tell destinations apart
    """

    region_name: str | None = None
    conn_id: str | None = None
    role_arn: str | None = None
    events_queue_url: str | None = field(default=None, compare=False)

    @property
    def name(self) -> str:
        """The name of it: the same for the same destination, safe in messages, tags and metrics; "" is home."""
        return "/".join(one for one in (self.conn_id, self.role_arn, self.region_name) if one)


AT_HOME: Final = Destination()


@dataclass(frozen=True, slots=True)
class Retry:
    """
    What the next try gets after an end of a kind.

    :param when: ``oom``, ``spot``, ``host``, ``image``, ``start``, ``any``, or ``exit N``
    :param changes: what changes: ``memory`` and ``cpu`` as a size or a factor (``x2``), ``up_to``, ``capacity`` or
        ``placements``, or any parameter of a request
    """

    when: str
    changes: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Placement:
    """
    A named set of request parameters to choose from.

    :param parameters: size and request parameters, in the API's spelling
    """

    name: str
    parameters: Mapping[str, Any] = field(repr=False)
    destination: Destination | None = None


@dataclass(frozen=True, slots=True)
class Queue:
    """
    What an Airflow queue stands for; None for what the rules for all launches decide.

    :param parameters: size and request parameters, in the API's spelling
    :param placements: names, best first
    :param placement_patience: seconds
    """

    parameters: Mapping[str, Any] = field(default_factory=dict, repr=False)
    destination: Destination | None = None
    placements: tuple[str, ...] | None = None
    placement_patience: float | None = None
    retries: tuple[Retry, ...] | None = None


@dataclass(frozen=True, slots=True)
class ExecutorRules:
    """
    All rules of one executor.

    :param placements: by name; the built-in ones included
    :param order: the placements of a launch whose queue and task name none
    :param placement_patience: seconds for which a placement has to be full before the next one is used
    :param doubts: sentences about rules that work, though hardly as they are meant
    """

    queues: Mapping[str, Queue] = field(default_factory=dict)
    placements: Mapping[str, Placement] = field(default_factory=dict)
    order: tuple[str, ...] = ()
    placement_patience: float = 60.0
    retries: tuple[Retry, ...] = ()
    doubts: tuple[str, ...] = ()

    def parameters_of(self, queue: str | None) -> Mapping[str, Any] | None:
        """Return the size and request parameters of a queue; None if it has none."""
        found = self.queues.get(queue) if queue is not None else None
        return found.parameters if found is not None else None

    @property
    def destinations(self) -> Mapping[str, Destination]:
        """Every destination that a rule names, by its name; home is not among them."""
        found: dict[str, Destination] = {}
        for one in self._named:
            if one.name not in found or one.events_queue_url is not None:
                found[one.name] = one
        return found

    @property
    def events_queues(self) -> Mapping[str, Sequence[str]]:
        """The queues of events that rules name for each destination; more than one is a mistake."""
        found: dict[str, list[str]] = {}
        for one in self._named:
            urls = found.setdefault(one.name, [])
            if one.events_queue_url is not None and one.events_queue_url not in urls:
                urls.append(one.events_queue_url)
        return found

    @property
    def _named(self) -> Iterator[Destination]:
        named = [one.destination for one in self.queues.values()]
        named += [one.destination for one in self.placements.values()]
        return (one for one in named if one is not None and one != AT_HOME)


NO_RULES: Final = ExecutorRules()
