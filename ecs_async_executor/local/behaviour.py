"""
Switches for what AWS does where the local services can do it in more than one way.

The default of each is what a client has met here so far. :data:`AWS` is what AWS does as far as documentation and
replies in public reports tell; ``python -m ecs_async_executor.local.conformance --real`` asks an account.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ecs_async_executor.local.jsonable import from_json

CHOICES: Mapping[str, tuple[str, ...]] = {
    "failure_memory": ("forget", "replay", "conflict"),
    "foreign_arns": ("missing", "refused"),
    "empty_clusters": ("accepted", "refused"),
    "unassociated_providers": ("accepted", "refused"),
    "started_by_stopped": ("listed", "refused"),
    "batch_variables": ("free", "counted"),
}
"""The values of each switch that is a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """
    What the services do.

    :param failure_memory: what a client token remembers of a RunTask that started nothing. ``forget``: nothing.
        ``replay``: the failures, for the same request. ``conflict``: the same, and another request under the token
        gets a ConflictException without ``resourceIds``. AWS documents the replay for a request that failed partly
    :param foreign_arns: the ARN of a task in another cluster or Region is ``missing`` in DescribeTasks and not
        found in StopTask, or the whole call is ``refused``, as AWS refuses foreign ARNs of services
    :param empty_clusters: RunTask for EC2 in a cluster without container instances is ``accepted`` or ``refused``
    :param unassociated_providers: a capacity provider that the cluster lacks is ``accepted`` or ``refused``
    :param started_by_stopped: ListTasks by ``startedBy`` and the desired status STOPPED is ``listed``, or
        ``refused`` as one filter too many
    :param batch_variables: the variables that Batch adds to a container are ``free`` or ``counted`` in the 8,192
        characters of container overrides
    :param time_limit_cancels: ``isCancelled`` is true of a job that a time limit of its queue has cancelled
    """

    failure_memory: str = "forget"
    foreign_arns: str = "missing"
    empty_clusters: str = "accepted"
    unassociated_providers: str = "accepted"
    started_by_stopped: str = "listed"
    batch_variables: str = "free"
    time_limit_cancels: bool = True

    def __post_init__(self) -> None:
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                msg = f"{name} must be one of {', '.join(choices)}, not {getattr(self, name)!r}"
                raise ValueError(msg)

    @classmethod
    def of(cls, wanted: Behaviour | Mapping[str, object] | str) -> Behaviour:
        """
        Make switches of their JSON object, or of the name of a preset.

        :raises ValueError: if a switch, its value or the preset is unknown
        """
        if isinstance(wanted, Behaviour):
            return wanted
        if isinstance(wanted, str):
            if wanted not in PRESETS:
                msg = f"unknown behaviour: {wanted!r}; known: {', '.join(PRESETS)}, or an object of switches"
                raise ValueError(msg)
            return PRESETS[wanted]
        return from_json(cls, wanted)


DEFAULT = Behaviour()
AWS = Behaviour(
    failure_memory="conflict",
    empty_clusters="refused",
    unassociated_providers="refused",
    batch_variables="counted",
)
"""
What AWS does as far as is known. Unconfirmed: ``failure_memory`` for a count of 1, ``foreign_arns``,
``started_by_stopped``, ``batch_variables``, ``time_limit_cancels``.
"""
PRESETS: Mapping[str, Behaviour] = {"default": DEFAULT, "aws": AWS}
