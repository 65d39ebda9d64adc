"""The cells of a run and their order: the subjects of a comparison take turns, repetition by repetition."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks import eventful
from benchmarks.cells import ALL_OURS, BARE, OURS, OURS_ON_BATCH, PROVIDER, PROVIDER_ON_BATCH, Cell

RAISED = {
    "launch_rate": "1000",
    "launch_rate_max": "1000",
    "launch_burst": "100",
    "max_concurrent_launches": "128",
}
"""No limits of our own where there is no quota, and as many connections as the bare client has."""
NAMES = (
    *("burst", "mixed", "launch", "steady", "memory", "adoption", "beside work"),
    *("quota", "raised quota", "storm", "events", "simulation", "scheduler", "scale"),
)
SERVICES = ("ecs", "batch")
EVENTS = {"events_queue_url": eventful.QUEUE}
EVERY_SECOND = {"describe_rate": "1000", "max_concurrent_describes": "32"}
"""Ends as soon as with events by polling alone, for which no account has the quota by default."""
PUSHED: tuple[tuple[str, dict[str, str]], ...] = (
    ("events", EVENTS),
    ("polling", {}),
    ("polling every second", EVERY_SECOND),
)
BACKLOG_PER_SECOND = 60
"""Launches queued for each second of a measurement with a quota of 20/s."""
CONTAINER = 3.0
"""Seconds that a container runs in a burst."""
RESIDENT, TRACED = "memory", "memory, traced"
"""Notes of cells that measure memory alone. Tracing slows everything, so it has a cell of its own."""
WATCHED = 10.0
"""Seconds of heartbeats after a burst in which containers failed, while their last lines are read."""
DEFAULT_QUOTAS = "AWS's default quotas"
RAISED_QUOTAS = "quotas of 200/s"
MORE_QUEUED = "quotas of 200/s, max_tis_per_query = 128"
ALL_QUEUED = "quotas of 200/s, max_tis_per_query = 0"
SCHEDULERS: dict[str, tuple[int, dict[str, str]]] = {
    DEFAULT_QUOTAS: (1, {}),
    RAISED_QUOTAS: (1, {}),
    MORE_QUEUED: (2, {"SCHEDULER__MAX_TIS_PER_QUERY": "128"}),
    ALL_QUEUED: (1, {"SCHEDULER__MAX_TIS_PER_QUERY": "0"}),
}
"""The conditions of the scenario ``scheduler``: repetitions, and options of Airflow's."""
TOLD = {"launch_rate": "200", "launch_rate_max": "200"}
"""What docs/performance.md says to set for a raised quota."""


def plan(*, smoke: bool, service: str = "ecs") -> list[Cell]:
    """Return the cells of a run."""
    if service == "batch":
        return list(_batch(smoke=smoke))
    return list(_smoke() if smoke else _full())


def _batch(*, smoke: bool) -> Iterator[Cell]:
    subjects = (PROVIDER_ON_BATCH, OURS_ON_BATCH, BARE)
    for repetition in range(1 if smoke else 3):
        for size in (40,) if smoke else (100, 400):
            for subject in _turn(subjects, repetition):
                duration = 1.0 if smoke else CONTAINER
                yield _burst(subject, size, duration=duration, repetition=repetition, service="batch")
    for subject, schedulers in ((PROVIDER_ON_BATCH, 1), (OURS_ON_BATCH, 1), (OURS_ON_BATCH, 2)):
        yield _quota(subject, seconds=2.0 if smoke else 30.0, schedulers=schedulers, service="batch")


def _smoke() -> Iterator[Cell]:
    for subject in (PROVIDER, OURS, BARE):
        yield _burst(subject, 40, duration=1.0)
    yield _burst(OURS_ON_BATCH, 40, duration=1.0, service="batch")
    for subject in (PROVIDER, OURS):
        yield Cell("steady", subject, 0, running=200, seconds=1.5)
    yield Cell("mixed", OURS, 100, running=200, duration=1.0, tuning=RAISED)
    yield _launch(blocks=3)
    yield Cell("beside work", OURS, 20, running=200, seconds=1.0)
    yield _quota(OURS, seconds=2.0)
    yield _events("events", EVENTS, running=200, seconds=2.0, duration=1.0)
    yield Cell("simulation", OURS, 0, running=1000)
    for subject in (PROVIDER, OURS):
        yield _scheduler(subject, 20, MORE_QUEUED, duration=0.5)
    for cell in _scale(500, seconds=1.0):
        if not cell.note or cell.size:
            yield cell


def _full() -> Iterator[Cell]:
    for repetition in range(3):
        for size in (100, 400):
            for subject in _turn((PROVIDER, OURS, BARE), repetition):
                yield _burst(subject, size, repetition=repetition)
    for repetition in range(3):
        for size in (1000, 2000):
            for subject in _turn((OURS, BARE), repetition):
                yield _burst(subject, size, repetition=repetition)
        yield _burst(OURS, 1000, failing=0.1, repetition=repetition)
        yield Cell("mixed", OURS, 1000, running=10_000, duration=CONTAINER, tuning=RAISED, repetition=repetition)
        yield Cell("mixed", OURS, 3000, running=10_000, duration=CONTAINER, tuning=RAISED, repetition=repetition)
    yield _burst(OURS, 1000, algorithm="RS256")
    yield _burst(OURS, 5000)
    yield _launch(blocks=60)
    for running in (1000, 10_000):
        for subject in (PROVIDER, OURS, BARE):
            # Long enough for two sweeps within a quarter of AWS's read quota.
            yield Cell("steady", subject, 0, running=running, seconds=max(10.0, running / 250))
        yield Cell(
            *("steady", OURS, 0),
            running=running,
            seconds=10.0,
            tuning={"describe_rate": "500"},
            note="all polled every second",
        )
    yield Cell("steady", OURS, 0, running=20_000, seconds=80.0)
    for subject in (PROVIDER, OURS):
        yield Cell("memory", subject, 0, running=10_000)
    for subject in (PROVIDER, OURS):
        yield Cell("adoption", subject, 0, running=5000)
    yield Cell("beside work", PROVIDER, 200, running=1000, seconds=10.0)
    yield Cell("beside work", OURS, 200, running=10_000, seconds=10.0)
    yield Cell("beside work", OURS, 400, seconds=3.0, tuning=RAISED)
    yield _quota(PROVIDER, seconds=20.0)
    for schedulers in (1, 2, 4):
        yield _quota(OURS, seconds=40.0, schedulers=schedulers)
    for note, seconds in (("", 40.0), ("raised after 30 s", 70.0)):
        tuning = {"launch_rate_max": "500"}
        yield Cell("raised quota", OURS, 14_000, duration=CONTAINER, seconds=seconds, tuning=tuning, note=note)
    yield Cell("storm", OURS, 2000, duration=CONTAINER, seconds=70.0)
    for note, tuning in PUSHED:
        yield _events(note, tuning, running=20_000, seconds=90.0)
    yield _events("events, then none", EVENTS, running=400, seconds=60.0, size=1)
    for running in (100, 1000, 10_000, 100_000):
        yield Cell("simulation", OURS, 0, running=running)
    for note, (repetitions, _) in SCHEDULERS.items():
        for repetition in range(repetitions):
            for subject in _turn((PROVIDER, OURS), repetition):
                yield _scheduler(subject, 1000, note, repetition=repetition)
    yield from _scale(100_000, seconds=30.0)


def _scheduler(subject: str, size: int, note: str, *, duration: float = CONTAINER, repetition: int = 0) -> Cell:
    return Cell(
        "scheduler",
        subject,
        size,
        duration=duration,
        rate_limits=note == DEFAULT_QUOTAS,
        tuning=TOLD if subject == OURS and note != DEFAULT_QUOTAS else {},
        airflow=SCHEDULERS[note][1],
        note=note,
        repetition=repetition,
    )


def _scale(running: int, *, seconds: float) -> Iterator[Cell]:
    raised = {"describe_rate": "1000", "max_concurrent_describes": "32"}
    # As long as an interval between sweeps within a quarter of AWS's read quota, so that all are polled once.
    yield Cell("scale", OURS, 0, running=running, seconds=max(seconds, running / 500))
    yield Cell("scale", OURS, 0, running=running, seconds=seconds, tuning=raised, note="1,000 reads/s")
    for note in (RESIDENT, TRACED):
        yield Cell("scale", OURS, 0, running=running, tuning=raised, note=note)
    yield Cell("scale", OURS, running // 20, tuning={**raised, **RAISED}, note="launched, traced")


def _burst(
    subject: str,
    size: int,
    *,
    duration: float = CONTAINER,
    repetition: int = 0,
    algorithm: str = "HS512",
    service: str = "ecs",
    failing: float = 0.0,
) -> Cell:
    return Cell(
        "burst",
        subject,
        size,
        duration=duration,
        failing=failing,
        seconds=WATCHED if failing else 0.0,
        tuning=RAISED if subject in ALL_OURS else {},
        repetition=repetition,
        algorithm=algorithm,
        service=service,
        server="stub" if service == "ecs" else "local",
    )


def _launch(*, blocks: int) -> Cell:
    """Return a comparison with the bare client in one process; what is launched ends at once."""
    return Cell("launch", OURS, 100, blocks=blocks, duration=0.0, tuning=RAISED)


def _quota(subject: str, *, seconds: float, schedulers: int = 1, service: str = "ecs") -> Cell:
    return Cell(
        "quota",
        subject,
        int(BACKLOG_PER_SECOND * seconds) if subject in ALL_OURS else int(20 * seconds),
        server="local",
        rate_limits=True,
        seconds=seconds,
        schedulers=schedulers,
        service=service,
    )


def _events(
    note: str,
    tuning: dict[str, str],
    *,
    running: int,
    seconds: float,
    duration: float = 25.0,
    size: int = 0,
) -> Cell:
    return Cell(
        *("events", OURS, size),
        running=running,
        seconds=seconds,
        duration=duration,
        tuning=tuning,
        note=note,
    )


def _turn(subjects: tuple[str, ...], number: int) -> tuple[str, ...]:
    """Return the subjects in rotated order, so another one begins in each repetition."""
    first = number % len(subjects)
    return subjects[first:] + subjects[:first]
