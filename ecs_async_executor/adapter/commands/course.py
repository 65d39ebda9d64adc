"""
What was seen of the container that ``airflow ecs-async check --launch`` starts, and what a first task would meet.

May import ``core``, ``services.redaction`` and ``in_container``. Pure: values in, sentences out.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ecs_async_executor.adapter.commands.in_container import NO_AIRFLOW, NO_API, NO_FILE
from ecs_async_executor.core.backend import Observation, Seen, Service
from ecs_async_executor.core.errors import BackendError, Kind
from ecs_async_executor.services.redaction import redacted

_FOUND_IN_CONTAINER = {
    NO_AIRFLOW: "The image cannot import Airflow's task runner, so every task would fail. Install the scheduler's "
    "version of Airflow in the image.",
    NO_API: "The container cannot reach Airflow's execution API, so every task would fail. Set [core] "
    "execution_api_server_url in the container, or open the network to it.",
    NO_FILE: "The variable of the environment file is not there, so every task would fail. Let the image's "
    "entrypoint pass on all variables, or set workload_delivery = command.",
}
_WOULD = {
    Kind.CAPACITY: "A first task would wait for capacity, {capacity_timeout}.",
    Kind.THROTTLED: "A first task would wait.",
    Kind.CONCURRENT: "A first task would wait.",
    Kind.AMBIGUOUS: "A first task would wait for an answer.",
    Kind.UNSENT: "A first task would wait until {service} can be reached.",
    Kind.CREDENTIALS: "A first task would wait until the credentials work.",
    Kind.REFUSED: "A first task would wait {permanent_error_grace:g} s for a mending, and then fail.",
}
"""What each kind of refusal means for a task; with any other kind it fails at once."""

_BEFORE_START = frozenset({"PROVISIONING", "PENDING", "ACTIVATING", "SUBMITTED", "RUNNABLE", "STARTING"})
"""The states of ECS and of Batch in which no user code can have run."""
_SHORTEST = 0.05
"""Seconds; a shorter state would be shown as 0.0."""


@dataclass(frozen=True, slots=True)
class Limits:
    """
    The settings that say how long a first task would wait, and for how many containers.

    :param timeout: seconds that the check takes
    """

    timeout: float
    max_attempts: int
    permanent_error_grace: float
    capacity_timeout: float | None

    def of_capacity(self) -> str:
        """Return in words how long a task waits for capacity."""
        timeout = self.capacity_timeout
        return "without a limit" if timeout is None else f"{timeout:g} s at most, and then fail"


@dataclass(slots=True)
class Course:
    """
    What was seen of a container, in seconds since its request.

    :param states: the service's words for its states, each with the time at which it was first seen
    :param last: the last observation, None without a container
    :param refusal: why there is no container, or why it could no longer be followed
    :param ended_at: when its end was seen, or the watching ended
    """

    service: Service
    states: list[tuple[str, float]] = field(default_factory=list)
    last: Observation | None = None
    refusal: BackendError | None = None
    lost: bool = False
    ended_at: float = 0.0

    def note(self, observation: Observation, at: float) -> bool:
        """Take an observation in; return whether its state is a new one."""
        self.last = observation
        self.ended_at = at
        if self.states and self.states[-1][0] == observation.status:
            return False
        self.states.append((observation.status, at))
        return True

    @property
    def over(self) -> bool:
        """Return whether the container has ended, by the rule of a task's outcome."""
        return self.last is not None and (self.last.exit_code is not None or self.last.seen is Seen.STOPPED)

    def durations(self) -> str:
        """Return how long each state lasted, as far as it was seen."""
        ends = [at for _, at in self.states[1:]] + [self.ended_at] * bool(self.states)
        lasted = [
            f"{status} {end - begun:.1f} s"
            for (status, begun), end in zip(self.states, ends, strict=True)
            if end - begun >= _SHORTEST
        ]
        return ", ".join(lasted)

    def verdict(self, limits: Limits) -> tuple[bool, str]:
        """Return whether a first task would run, and what it would meet."""
        last, name = self.last, self.service.name
        if self.refusal is not None and last is None:
            would = _WOULD.get(self.refusal.kind, "A first task would fail.").format(
                service=name,
                permanent_error_grace=limits.permanent_error_grace,
                capacity_timeout=limits.of_capacity(),
            )
            return False, f"{name} started no container: {_sentence(str(self.refusal))} {would}"
        if last is None:
            return False, f"No container was known to have started within {limits.timeout:g} s."
        if self.lost:
            return False, _sentence(last.reason or f"{name} does not know the container any more")
        if self.refusal is not None:
            return False, f"The container could not be followed: {_sentence(str(self.refusal))}"
        if not self.over:
            begins = f"The container was not done within {limits.timeout:g} s: it is {last.status}"
            if not last.reason:
                return False, f"{begins}."
            then = self._would_wait(limits) if last.seen is Seen.PENDING else ""
            return False, f"{begins}, and waits: {_sentence(last.reason)}{then}"
        if last.exit_code == 0:
            return True, f"The container ran and exited 0. A first task would start {self._start()}."
        reason = _sentence(last.reason or f"The container exited {last.exit_code}")
        if last.exit_code in _FOUND_IN_CONTAINER:
            return False, f"{reason} {_FOUND_IN_CONTAINER[last.exit_code]}"
        if last.started:
            return False, f"{reason} A first task would start {self._start()}, and fail like this."
        if last.unplaced:
            return False, f"{reason}{self._would_wait(limits)}"
        after = "" if last.by_hand else f", after {limits.max_attempts} containers"
        return False, f"{reason} A first task would fail like this{after}."

    def _would_wait(self, limits: Limits) -> str:
        """Return how long a task waits whose container the service lets wait."""
        how = "for capacity" if self.last is not None and self.last.unplaced else "like this"
        return f" A first task would wait {how}, {limits.of_capacity()}."

    def _start(self) -> str:
        """Return after how long the container was seen to run."""
        waited = [at for status, at in self.states if status not in _BEFORE_START]
        return f"after about {waited[0]:.0f} s" if waited else "at once"


def _sentence(words: str) -> str:
    text = redacted(words)
    return text if text.endswith((".", "!", "?")) else f"{text}."
