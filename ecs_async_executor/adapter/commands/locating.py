"""
Containers of one executor, asked for in whichever destination they can be.

May import ``core`` and the service-free adapter.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import anyio

from ecs_async_executor.adapter.service import ServiceAdapter
from ecs_async_executor.core.backend import Backend, Observation, Seen
from ecs_async_executor.core.destinations import destination_of

AT_ONCE: Final = 4
"""Requests in flight: the scheduler draws on the same quota."""


@dataclass(slots=True)
class Located:
    """
    What the service says of containers.

    :ivar seen: by their identifiers
    :ivar errors: what prevented an answer, each once; each destination has its own
    """

    seen: dict[str, Observation] = field(default_factory=dict)
    errors: dict[str, Exception] = field(default_factory=dict)


def scopes_of(adapter: ServiceAdapter, backend: Backend, handle_id: str, queue: str | None) -> Sequence[str]:
    """
    Return every scope that a container can be in, the likeliest first, and never none.

    :param queue: its task instance's, which tells where it was sent
    """
    scopes = backend.scopes_of(handle_id)
    of_queue = adapter.rules.queues.get(queue) if queue is not None else None
    sent_to = of_queue.destination.name if of_queue is not None and of_queue.destination is not None else ""
    return sorted(scopes, key=lambda scope: destination_of(scope) != sent_to)


async def locate(
    adapter: ServiceAdapter,
    backend: Backend,
    queues: Mapping[str, str | None],
    done: Callable[[int], None] = lambda _: None,
) -> Located:
    """
    Describe containers; those that are unknown where they are likeliest are asked for elsewhere.

    :param backend: open
    :param queues: the queue of each container's task instance, None if there is none
    :param done: is told how many are described
    """
    located = Located()
    limiter = anyio.CapacityLimiter(AT_ONCE)
    in_doubt: set[str] = set()

    async def describe(scope: str, ids: Sequence[str]) -> None:
        try:
            async with limiter:
                observations = await backend.describe(scope, ids)
        except Exception as error:  # noqa: BLE001 - told, once the others are done
            located.errors.setdefault(str(error), error)
            in_doubt.update(ids)
            return
        for one in observations:
            if one.seen is not Seen.MISSING or one.handle.id not in located.seen:
                located.seen[one.handle.id] = one
        done(len(located.seen))

    async def ask(places: Iterable[tuple[str, str]]) -> None:
        in_scope: dict[str, list[str]] = defaultdict(list)
        for scope, handle_id in places:
            in_scope[scope].append(handle_id)
        async with anyio.create_task_group() as group:
            for scope, ids in in_scope.items():
                for first in range(0, len(ids), backend.describe_batch):
                    group.start_soon(describe, scope, ids[first : first + backend.describe_batch])

    scopes = {one: scopes_of(adapter, backend, one, queue) for one, queue in queues.items()}
    await ask((these[0], one) for one, these in scopes.items())
    unknown = [one for one in scopes if _is_unknown(located.seen.get(one))]
    await ask([(scope, one) for one in unknown for scope in scopes[one][1:]])
    for one in in_doubt:
        # Unknown to some of its places, and another has not answered.
        if (seen := located.seen.get(one)) is not None and seen.seen is Seen.MISSING:
            del located.seen[one]
    return located


def _is_unknown(observation: Observation | None) -> bool:
    return observation is None or observation.seen is Seen.MISSING
