"""
Where a launch goes: the placements that it may choose from, and what the chosen one changes in its request.

May import ``core``, the settings, ``retrying``, and ``requests`` of the services. A request is made in layers:
what all launches share, the queue's parameters, the chosen placement's, the task's ``executor_config``, and what
the retry rules change. The last three become one ``executor_config`` here, so that a hook which a subclass
overrides sees what it always has.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final

from ecs_async_executor.adapter.retrying import RETRIES, Retrying
from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.destinations import HOME
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.requests import Layered, layers_in, type_name
from ecs_async_executor.settings.rules import Destination, ExecutorRules, Queue

PLACEMENTS: Final = "placements"
PATIENCE: Final = "placement_patience"
DESTINATION: Final = "destination"
_ADDRESS: Final = ("region_name", "conn_id", "role_arn")
STEERING_KEYS: Final = frozenset({PLACEMENTS, PATIENCE, RETRIES, DESTINATION, *_ADDRESS})
"""The keys of an ``executor_config`` that say where a launch goes; no request has a parameter of these names."""

_NO_QUEUE: Final = Queue()


@dataclass(frozen=True, slots=True)
class Course:
    """
    What one request is made with.

    :param config: takes the place of the task's ``executor_config``
    :param destination: the name of the place that it is sent to; see :mod:`~ecs_async_executor.core.destinations`
    """

    config: Any = field(repr=False)
    destination: str = HOME


def no_size(_: str | None, __: Any) -> Size:
    """Return that nothing is known of a request's size."""
    return Size()


class Steering:
    """
    Applies an executor's rules to its launches.

    :param retrying: applies the retry rules; None: there are none
    :param size: returns the size that the request of a queue with an ``executor_config`` asks for
    """

    def __init__(
        self,
        rules: ExecutorRules,
        retrying: Retrying | None = None,
        size: Callable[[str | None, Any], Size] = no_size,
    ) -> None:
        self._rules = rules
        self._retrying = retrying
        self._size = size

    # --- launches --------------------------------------------------------------------------------------------

    def choices(self, launch: Launch) -> Choices:
        """
        Return the placements that a launch may choose from.

        :raises Rejected: if its ``executor_config`` names what no rule defines
        """
        queue, config = asked_for(launch.workload)
        choices = self.choices_of(queue, config)
        retrying = self._retrying
        if retrying is None or not retrying.applies(launch, queue, config):
            return choices
        names = retrying.placements(launch, queue, config)
        chosen = Choices(choices.names if names is None else names, choices.patience)
        # A scheduler that knew of other ends, or of none, may have sent it elsewhere.
        others = dict.fromkeys((*choices.everywhere, *retrying.named_by_rules(queue, config)))
        return replace(chosen, elsewhere=tuple(one for one in others if one not in chosen.everywhere))

    def course(self, launch: Launch, choice: str | None) -> Course:
        """
        Return what a launch's request is made with.

        :param choice: one of :meth:`choices`; None if there are none
        :raises Rejected: if its ``executor_config`` names what no rule defines, or cannot be copied
        """
        queue, config = asked_for(launch.workload)
        course = self.course_of(queue, config, choice)
        retrying = self._retrying
        if retrying is None or not retrying.applies(launch, queue, config):
            return course
        changes = retrying.parameters(launch, queue, config, lambda: self._size(queue, course.config))
        if not changes or not isinstance(course.config or {}, Mapping):
            return course
        return replace(course, config=self._laid_over(course.config or {}, changes))

    def is_changed_by_rules(self, launch: Launch, queue: str | None, config: Any) -> bool:
        """
        Return whether retry rules could change a launch's request.

        :raises Rejected: if its own rules cannot be used
        """
        return self._retrying is not None and self._retrying.applies(launch, queue, config)

    def lacks(self, launch: Launch) -> bool:
        """Return whether :meth:`choices` and :meth:`course` would wait for the database."""
        return self._retrying is not None and self._retrying.lacks(launch, *asked_for(launch.workload))

    # --- queues and configs ----------------------------------------------------------------------------------

    def choices_of(self, queue: str | None, config: Any) -> Choices:
        """
        Return the placements that a task with this queue and ``executor_config`` may choose from.

        :raises Rejected: likewise
        """
        rules, of_queue = self._rules, self._queue(queue)
        names = rules.order if of_queue.placements is None else of_queue.placements
        patience = of_queue.placement_patience
        if patience is None:
            patience = rules.placement_patience
        if isinstance(config, Mapping) and not config.keys().isdisjoint(STEERING_KEYS):
            if PLACEMENTS in config:
                names = self._names(config[PLACEMENTS])
            if PATIENCE in config:
                patience = _seconds(config[PATIENCE])
        return Choices(names, patience) if names else NO_CHOICES

    def course_of(self, queue: str | None, config: Any, choice: str | None) -> Course:
        """
        Return what the request of a task with this queue and ``executor_config`` is made with.

        :raises Rejected: likewise
        """
        destination = self._queue(queue).destination
        steers = isinstance(config, Mapping) and not config.keys().isdisjoint(STEERING_KEYS)
        own = {key: value for key, value in config.items() if key not in STEERING_KEYS} if steers else config
        if choice is not None:
            placement = self._rules.placements[choice]
            own = self._laid_over(placement.parameters, own)
            destination = placement.destination or destination
        if steers:
            destination = self._named_destination(config) or destination
        return Course(own, HOME if destination is None else destination.name)

    def _queue(self, queue: str | None) -> Queue:
        return _NO_QUEUE if queue is None else self._rules.queues.get(queue, _NO_QUEUE)

    @staticmethod
    def _laid_over(below: Mapping[str, Any], above: Any) -> Any:
        """Put one layer on top of others; what is no set of parameters is refused later, in the hook's words."""
        if not isinstance(above or {}, Mapping):
            return above
        try:
            return Layered(*layers_in(below), above or {})
        except Exception as error:  # noqa: BLE001 - the DAG author's own objects can raise anything
            raise Rejected(f"executor_config cannot be copied: {type(error).__name__}") from None

    def _names(self, value: Any) -> tuple[str, ...]:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list | tuple) or not all(isinstance(name, str) for name in names):
            raise Rejected(
                f"executor_config: {PLACEMENTS} must be a list of names, or one name, not {type_name(value)}. "
                f"{_allowed(self._rules.placements)}"
            )
        for name in names:
            if name not in self._rules.placements:
                raise Rejected(
                    f"executor_config: {PLACEMENTS}: there is no placement {name[:64]!r}. "
                    f"{_allowed(self._rules.placements)}"
                )
        return tuple(dict.fromkeys(names))

    def _named_destination(self, config: Mapping[str, Any]) -> Destination | None:
        """
        Return the destination that a task names; None if it names none.

        It has to be one of the rules': a DAG's author does not choose the scheduler's credentials.
        """
        known = self._rules.destinations
        asked = {key: config[key] for key in (DESTINATION, *_ADDRESS) if config.get(key) is not None}
        if not asked:
            return None
        for key, value in asked.items():
            if not isinstance(value, str):
                raise Rejected(f"executor_config: {key} must be a string, not {type_name(value)}")
        address = {key: value for key, value in asked.items() if key != DESTINATION}
        found = [
            one
            for name, one in known.items()
            if asked.get(DESTINATION, name) == name
            and all(getattr(one, key) == value for key, value in address.items())
        ]
        if len(found) > 1:  # one that is fully named, among others with a part of its names in common
            found = [one for one in found if _names_given(one) == len(address)]
        if len(found) != 1:
            what = "are several destinations" if found else "is no destination"
            named = ", ".join(f"{key} = {value[:128]!r}" for key, value in asked.items())
            raise Rejected(
                f"executor_config: among the rules of this executor there {what} with {named}: a queue or a "
                f"placement has to name it first. {_allowed(known)}"
            )
        return found[0]


def asked_for(workload: Any) -> tuple[str | None, Any]:
    """Return the queue and the ``executor_config`` of a workload; Airflow sets none for a callback."""
    ti = getattr(workload, "ti", None)  # first: of most it is there, and a model's lack of a field takes long
    if ti is not None:
        return ti.queue, ti.executor_config
    callback = getattr(workload, "callback", None)
    if callback is not None:
        queue = callback.data.get("queue")  # as the provider's executor for Batch does
        return (queue if isinstance(queue, str) else None), None
    return workload.queue, workload.executor_config  # of an adopted one


def _names_given(destination: Destination) -> int:
    return sum(getattr(destination, key) is not None for key in _ADDRESS)


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value < math.inf:
        raise Rejected(f"executor_config: {PATIENCE} must be a number of seconds from 0 on, not {_shown(value)}")
    return float(value)


def _shown(value: Any) -> str:
    return repr(value) if isinstance(value, int | float) else type_name(value)


def _allowed(names: Collection[str]) -> str:
    return f"Allowed: {', '.join(sorted(names))}" if names else "The rules of this executor define none"
