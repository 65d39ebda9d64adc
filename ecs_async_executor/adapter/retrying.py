"""
What a launch gets because of how the tries before it ended: an executor's retry rules, applied.

May import ``core``, ``last_ends``, the settings, ``requests`` of the services, and the service-free adapter.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

from ecs_async_executor.adapter.last_ends import LastEnds
from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.errors import ConfigurationError, Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import Changes, Rule, changes_after, rule_of, told
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services.requests import merge
from ecs_async_executor.settings.rules import Retry

RETRIES: Final = "retries"
"""The key of an ``executor_config`` with a task's own rules, in place of those of its queue and of all."""
_NOTHING: Final = Size()


class Retrying:
    """
    Applies retry rules to launches.

    :raises ConfigurationError: if a size in the executor's rules is none
    """

    def __init__(self, adapter: ServiceAdapter, ends: LastEnds) -> None:
        rules = adapter.rules
        self._adapter = adapter
        self._ends = ends
        of_queues = {name: queue.retries for name, queue in rules.queues.items()}
        try:
            self._for_all = self._compiled(rules.retries)
            self._of_queues = {name: self._compiled(own) for name, own in of_queues.items() if own is not None}
        except ValueError as error:
            raise ConfigurationError([f"{RETRIES}: {error}"]) from None
        if self._for_all or any(self._of_queues.values()):
            ends.wanted = True

    def rules_of(self, queue: str | None, config: Any) -> Sequence[Rule]:
        """
        Return the rules of a task: its own, else its queue's, else those for all.

        :raises Rejected: if its own cannot be used; names every problem
        """
        if isinstance(config, Mapping) and RETRIES in config:
            own = self._own(config[RETRIES])
            self._ends.wanted = self._ends.wanted or bool(own)
            return own
        return self._of_queues.get(queue, self._for_all) if queue is not None else self._for_all

    def applies(self, launch: Launch, queue: str | None, config: Any) -> bool:
        """
        Return whether a rule could apply: callbacks have no tries, and a first try has none before it.

        :raises Rejected: if its own rules cannot be used
        """
        return bool(self.rules_of(queue, config)) and getattr(launch.key, "try_number", 1) > 1

    def lacks(self, launch: Launch, queue: str | None, config: Any) -> bool:
        """Return whether :meth:`placements` and :meth:`parameters` would wait for the database."""
        try:
            return self.applies(launch, queue, config) and self._ends.known(launch) is None
        except Rejected:
            return False

    def placements(self, launch: Launch, queue: str | None, config: Any) -> tuple[str, ...] | None:
        """
        Return the placements that a launch may choose from because of the tries before it.

        :returns: None: those that it asks for
        """
        return self._changes(launch, queue, config, _NOTHING).placements

    def parameters(
        self, launch: Launch, queue: str | None, config: Any, asked: Callable[[], Size]
    ) -> Mapping[str, Any]:
        """
        Return the size and request parameters that a launch gets because of the tries before it.

        :param asked: returns what size it asks for without them
        """
        if not self._ends.before(launch).ends:
            return {}
        size = asked()
        changes = self._changes(launch, queue, config, size)
        key: Any = launch.key
        self._ends.note(launch, told(changes, key.try_number))
        cpu, memory = changes.cpu, changes.memory
        if memory is not None and cpu is None and size.cpu is None:
            cpu = self._cpu_before(launch)  # Fargate has memory and CPU in pairs, of which both have to be known
        found = dict(changes.parameters)
        if cpu is not None:
            found["cpu"] = f"{cpu} units"
        if memory is not None:
            found["memory"] = f"{memory} MB"
        return found

    def named_by_rules(self, queue: str | None, config: Any) -> Iterator[str]:
        """Yield the placements that the rules of a task name."""
        for rule in self.rules_of(queue, config):
            yield from rule.placements or ()

    def _changes(self, launch: Launch, queue: str | None, config: Any, asked: Size) -> Changes:
        return changes_after(self._ends.before(launch).ends, self.rules_of(queue, config), asked, merge)

    def _cpu_before(self, launch: Launch) -> int | None:
        """Return the CPU units of the latest container that is known to have had some."""
        ends = sorted(self._ends.before(launch).ends, key=lambda one: one.try_number)
        return next((one.size.cpu for one in reversed(ends) if one.size is not None and one.size.cpu), None)

    def _own(self, raw: Any) -> tuple[Rule, ...]:
        try:
            return self._compiled(self._adapter.retries_of(raw))
        except ValueError as error:
            raise Rejected(f"executor_config: {RETRIES}: {error}") from None

    def _compiled(self, rules: Sequence[Retry]) -> tuple[Rule, ...]:
        """
        Return rules with their sizes read.

        :raises ValueError: if one cannot be used, as a sentence
        """
        return tuple(rule_of(one.when, one.changes) for one in rules)
