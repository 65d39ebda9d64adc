"""
The rules as they apply, in words, for ``airflow ecs-async check``.

May import the settings, ``services.findings`` and the service-free adapter. Of an environment only the names are
shown, of other structures only the parameter's name.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.services.findings import Finding, info
from ecs_async_executor.settings import Destination, ExecutorRules, Retry
from ecs_async_executor.settings.rule_reading import RULE_OPTIONS


def rules_in_words(adapter: ServiceAdapter, section: str) -> Iterator[Finding]:
    """
    Yield what applies to all launches, to each queue, and what each placement is that somebody defined.

    :param section: our own, as it is headed in the configuration
    """
    rules, tuning = adapter.rules, adapter.tuning
    own = [name for name in RULE_OPTIONS if getattr(tuning, name) is not None]
    sources = ([tuning.executor_rules] if tuning.executor_rules else []) + [f"{section} {name}" for name in own]
    if not sources:
        return
    yield info("Rules", f"from {', '.join(sources)}{_for_all(rules)}")
    for name, queue in rules.queues.items():
        said = [*_changes(queue.parameters, queue.destination)]
        if queue.placements is not None:
            said.append(f"placements {', '.join(queue.placements) or 'none'}")
        if queue.placement_patience is not None:
            said.append(f"the next placement after {queue.placement_patience:g} s")
        if queue.retries is not None:
            said += [_retry(one) for one in queue.retries] or ["no retry rules"]
        yield info(f"Rules, queue {name!r}", "; ".join(said) or "as all launches")
    used = _used(rules)
    for name, placement in rules.placements.items():
        said = _changes(placement.parameters, placement.destination)
        if name in used:
            yield info(f"Rules, placement {name!r}", "; ".join(said) or "as all launches")


def _used(rules: ExecutorRules) -> set[str]:
    """Return the placements that a rule names."""
    lists = [rules.order, *(queue.placements or () for queue in rules.queues.values())]
    for retries in (rules.retries, *(queue.retries or () for queue in rules.queues.values())):
        lists += [one.changes.get("placements", ()) for one in retries]
    return {name for names in lists for name in names}


def _for_all(rules: ExecutorRules) -> str:
    said = []
    if rules.order:
        patience = f", the next one after {rules.placement_patience:g} s" if len(rules.order) > 1 else ""
        said.append(f"placements {', '.join(rules.order)}{patience}")
    said += [_retry(one) for one in rules.retries]
    return f"; for all launches: {'; '.join(said)}" if said else ""


def _retry(retry: Retry) -> str:
    changes = dict(retry.changes)
    up_to = changes.pop("up_to", None)
    placements = changes.pop("placements", None)
    said = _changes(changes, None)
    if up_to is not None:
        said.append(f"up to {up_to}")
    if placements is not None:
        said.append(f"placements {', '.join(placements)}")
    return f"after {retry.when}: {', '.join(said)}"


def _changes(parameters: Mapping[str, Any], destination: Destination | None) -> list[str]:
    said = [] if destination is None else [f"in {destination.name}"]
    return said + [_parameter(name, value) for name, value in parameters.items()]


def _parameter(name: str, value: Any) -> str:
    if name == "environment" and isinstance(value, Mapping):
        return f"environment {', '.join(map(str, value))}"
    if name == "capacityProviderStrategy" and isinstance(value, (list, tuple)):
        providers = (one.get("capacityProvider") for one in value if isinstance(one, Mapping))
        return f"{name}={'+'.join(map(str, providers))}"
    return f"{name}={value}" if isinstance(value, (str, int, float)) else name
