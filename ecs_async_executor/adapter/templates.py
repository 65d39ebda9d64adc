"""
The requests of launches that ask for the same: made once, and then taken over with another command and mark.

May import ``core``, ``naming``, ``service``, ``steering``, and ``requests`` and ``templates`` of the services.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Final

from ecs_async_executor.adapter.naming import tags_of
from ecs_async_executor.adapter.service import RequestTemplate, ServiceAdapter
from ecs_async_executor.adapter.steering import Steering, asked_for
from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.destinations import sent_to
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.services.requests import copied
from ecs_async_executor.services.templates import STAND_IN

KINDS_KEPT: Final = 512
"""So many kinds of launches are remembered; then all are forgotten. A DAG can make one of each of its tasks."""
_FORMAT: Final = 2
"""Of ``marshal``: the latest that writes equal values alike, whatever they share."""


class Templates:
    """
    Templates by what launches ask for: queue, ``executor_config`` and choice.

    A request that one launch alone asks for is not worth a template: it is made for the second that asks for the
    same. A user's code that shapes requests may look at more than that: this is for executors without such code.
    """

    def __init__(self, adapter: ServiceAdapter, steering: Steering) -> None:
        self._adapter = adapter
        self._steering = steering
        self._base: Any = None
        self._seen: set[object] = set()
        self._templates: dict[object, RequestTemplate | None] = {}

    def spec(
        self, launch: Launch, choice: str | None, command: Sequence[str], expires_at: float | None
    ) -> LaunchSpec | None:
        """Return the request of a launch; None if it has to be made for the launch itself."""
        queue, config = asked_for(launch.workload)
        try:
            # Equal bytes are equal values of equal types; what marshal does not take is the author's own object.
            words = marshal.dumps(config, _FORMAT) if config else b""
            if self._steering.is_changed_by_rules(launch, queue, config):
                return None
        except (Rejected, ValueError):
            return None
        self._forget_what_is_old()
        kind = (queue, choice, words)
        template = self._templates.get(kind)
        if template is None:
            if kind in self._templates:
                return None
            if kind not in self._seen:
                self._seen.add(kind)
                return None
            template = self._templates[kind] = self._made(launch, queue, config, choice)
            if template is None:
                return None
        return template.spec_for(command, launch, expires_at, tags_of(self._adapter.tuning, launch))

    def _forget_what_is_old(self) -> None:
        base = self._adapter.base_request
        if base != self._base:  # subclasses may change it, or compute it anew
            self._base = copied(base)
        elif len(self._seen) < KINDS_KEPT:
            return
        self._seen.clear()
        self._templates.clear()

    def _made(self, launch: Launch, queue: str | None, config: Any, choice: str | None) -> RequestTemplate | None:
        adapter = self._adapter
        try:
            course = self._steering.course_of(queue, config, choice)
            request = adapter.request(launch.key, list(STAND_IN), queue, course.config or {})

            def placed(spec: LaunchSpec) -> LaunchSpec:
                return sent_to(course.destination, replace(spec, choice=choice))

            return adapter.template(request, launch, placed)
        except (Rejected, LookupError):
            return None  # the launch is refused, in words about itself
