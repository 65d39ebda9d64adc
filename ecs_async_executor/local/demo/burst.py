"""The burst: how fast executors launched the same number of containers, and how long their schedulers waited."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.console import Group
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType

    from ecs_async_executor.local.demo.heartbeats import Beat

NUMBER = 200
DAG, TASK = "burst", "order"
LATENCY_SECONDS = 0.05
"""How long the local server takes for every answer."""
LAUNCH_RATE = 200
"""Launches a second that our executor may begin with: the local server has no quotas."""
QUOTAS = {"ecs": "20 a second on Fargate by default", "batch": "50 requests a second"}
"""Of an account."""

COLUMNS = 66
"""The width of the plot, without what stands beside it."""
STEP_SECONDS = (0.01, 0.02, 0.025, 0.05, 0.1, 0.2, 0.25, 0.3, 0.4, 0.5, 1.0, 2.0, 5.0)
STEPS = "▁▂▃▄▅▆▇█"
WAITS, BEATS = "█", "·"
_INDENT = 25
_SOON = 0.01
"""Seconds below which a time is told in milliseconds with a decimal place."""


@dataclass(frozen=True, slots=True)
class Burst:
    """
    How an executor launched the containers of a burst.

    :param executor: the name of its class, and what else tells it from others
    :param where: what made the heartbeats
    :param launched: when the service had accepted each container, in seconds since the burst was queued
    :param beats: the heartbeats until then, their ends in the same seconds
    """

    executor: str
    where: str
    launched: Sequence[float]
    beats: Sequence[Beat]

    @classmethod
    def since(
        cls, began: float, executor: str, where: str, *, accepted: Sequence[float], beats: Sequence[Beat]
    ) -> Burst:
        """Make one of moments in seconds since the epoch; leave out heartbeats after the last launch."""
        last = max(accepted)
        return cls(
            executor,
            where,
            sorted(moment - began for moment in accepted),
            [type(beat)(beat.ended - began, beat.seconds) for beat in beats if beat.began <= last],
        )

    @property
    def seconds(self) -> float:
        """How long it took to launch all of them."""
        return self.launched[-1]

    @property
    def rate(self) -> float:
        """Launches per second."""
        return len(self.launched) / self.seconds

    @property
    def longest(self) -> float:
        """Seconds that the scheduler waited at a stretch."""
        return max((beat.seconds for beat in self.beats), default=math.nan)


def table(bursts: Sequence[Burst], service: str) -> RenderableType:
    """Lay out what each executor did with the burst: figures, and below them a plot over time."""
    number = len(bursts[0].launched)
    title = f"A burst: {number} workloads at once; the service answers after {LATENCY_SECONDS * 1000:.0f} ms"
    found = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    found.add_column("executor", no_wrap=True)
    found.add_column("heartbeats are made by", no_wrap=True)
    for heading in ("launched in", "launches/s", "longest heartbeat"):
        found.add_column(heading, justify="right", no_wrap=True)
    for burst in bursts:
        found.add_row(
            burst.executor,
            burst.where,
            duration(burst.seconds),
            f"{burst.rate:.0f}",
            duration(burst.longest),
        )
    notes = (
        f"{WAITS} the scheduler waits in a heartbeat, and does nothing else   {BEATS} a short heartbeat",
        f"The local server has no quotas: launch_rate = {LAUNCH_RATE}. AWS allows {QUOTAS[service]}.",
    )
    parts = [Text(line) for line in plot(bursts)]
    return Group(found, *parts, "", *(Padding(Text(note, style="dim"), (0, 0, 0, 1)) for note in notes), "")


def plot(bursts: Sequence[Burst]) -> list[str]:
    """Draw for each executor how many containers were launched over time, and when its scheduler waited."""
    longest = max(burst.seconds for burst in bursts)
    step = _step(longest)
    lines = []
    for burst in bursts:
        lines += [
            f" {burst.executor}",
            "   launched".ljust(_INDENT) + _launched(burst, step) + f" all after {duration(burst.seconds)}",
            "   scheduler waits".ljust(_INDENT) + _waiting(burst, step),
        ]
    return [*lines, " " * _INDENT + _axis(longest, step)]


def duration(seconds: float) -> str:
    """Return a duration as people write it."""
    if math.isnan(seconds):
        return "–"
    if seconds < _SOON:
        return f"{seconds * 1000:.1f} ms"
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{seconds:.1f} s"


def _step(longest: float) -> float:
    """Return the seconds of a column: a round number, for every tenth column has a tick."""
    wanted = longest / (COLUMNS - len(" all after 100.0 s"))
    return next((step for step in STEP_SECONDS if step >= wanted), wanted)


def _launched(burst: Burst, step: float) -> str:
    columns = math.ceil(burst.seconds / step)
    shares = (
        sum(moment <= column * step for moment in burst.launched) / len(burst.launched)
        for column in range(1, columns + 1)
    )
    return "".join(STEPS[min(len(STEPS) - 1, int(share * len(STEPS)))] if share else " " for share in shares)


def _waiting(burst: Burst, step: float) -> str:
    """Draw the columns of which a heartbeat takes more than half, and those in which one begins."""
    columns = [(column * step, (column + 1) * step) for column in range(math.ceil(burst.seconds / step))]
    drawn = []
    for since, until in columns:
        within = [max(0.0, min(beat.ended, until) - max(beat.began, since)) for beat in burst.beats]
        begun = any(since <= beat.began < until for beat in burst.beats)
        drawn.append(WAITS if sum(within) > step / 2 else BEATS if begun else " ")
    return "".join(drawn)


def _axis(longest: float, step: float) -> str:
    ticks = (f"{column * step:.10g} s" for column in range(0, math.ceil(longest / step) + 1, 10))
    return "".join(tick.ljust(10) for tick in ticks).rstrip()
