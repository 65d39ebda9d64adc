"""
What the figures of rates mean: who uses a quota, and which setting to change. Pure.

May import ``usage`` only. Rates are calls per second. A bucket is AWS's, of one account in one Region:
every executor of ours there draws from it, and everybody else in the account.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterator
from dataclasses import dataclass

from ecs_async_executor.core.usage import RECENT_SECONDS

NEAR = 0.8
"""Whoever has sent less than this part of a quota was not refused for their own rate."""
MANY = 0.01
"""A smaller part of refused calls is what finding the rate costs."""
FEW = 5
"""Fewer refused calls tell nothing."""
_FAR = 2.0
"""A rate is far from another if it is so many times as high, or as low."""
_AT = 0.95
_MORE = 1.1
"""AWS has raised a quota if it lets so many times as much through, for ten minutes: no burst explains more."""
_LASTS = 3600.0
"""Seconds after which a rate that others leave is no passing matter."""
_SLOW_SWEEP = 3.0
"""Seconds between two looks at a container that are worth a word."""


class By(enum.Enum):
    """By whom a bucket is emptied when calls are refused; the value is for people."""

    NOBODY = "-"
    OURS = "ours"
    OTHERS = "others, or AWS"
    UNSEEN = "not seen here"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Draw:
    """
    What one executor draws from a bucket.

    :param who: for people
    :param rate: calls per second that it allows itself at present
    :param begins_at: the rate that it began with
    :param used: calls per second of late
    :param calls: of the last ten minutes
    :param refused: of those, for their rate
    :param refused_for: seconds since the series of refusals began; None: there is none
    :param sent_when_refused: calls in the second before a refusal, as a mean
    :param background: the part of calls that is refused whatever the rate, as far as the executor has learnt it
    """

    who: str
    rate: float
    begins_at: float
    used: float = 0.0
    calls: int = 0
    refused: int = 0
    refused_for: float | None = None
    sent_when_refused: float | None = None
    background: float = 0.0


@dataclass(frozen=True, slots=True)
class Bucket:
    """
    One bucket of AWS's, and what ours draw from it.

    :param call: the calls that draw from it, for people
    :param operation: launch, stop or read
    :param quota: AWS's default, calls per second; None: AWS publishes none
    :param raised_by: how a higher quota is got, a clause; empty: AWS raises it for nobody
    :param unseen: how many executors of ours draw from it that do not show what they do
    :param beside: what ours use of a wider quota that these calls count against too, but for these calls
    :param wider: that quota; None: there is none
    """

    call: str
    operation: str
    quota: float | None
    raised_by: str
    draws: tuple[Draw, ...]
    unseen: int = 0
    beside: float = 0.0
    wider: float | None = None

    @property
    def used(self) -> float:
        """What all of ours use."""
        return sum(draw.used for draw in self.draws)

    @property
    def rate(self) -> float:
        """What all of ours allow themselves."""
        return sum(draw.rate for draw in self.draws)

    @property
    def calls(self) -> int:
        """The calls of the last ten minutes. One whose refusal took a second is forgotten that much before it."""
        return max(sum(draw.calls for draw in self.draws), self.refused)

    @property
    def refused(self) -> int:
        """The refused calls of the last ten minutes."""
        return sum(draw.refused for draw in self.draws)

    @property
    def refused_for(self) -> float | None:
        """Seconds since the oldest series of refusals began; None: there is none."""
        return max((draw.refused_for for draw in self.draws if draw.refused_for is not None), default=None)

    @property
    def sent_when_refused(self) -> float:
        """About what all of ours sent per second when calls were refused."""
        return sum(draw.used if draw.sent_when_refused is None else draw.sent_when_refused for draw in self.draws)

    @property
    def background(self) -> float:
        """The part of calls that is refused whatever the rate: the least that any of ours has learnt."""
        return min((draw.background for draw in self.draws if draw.calls), default=0.0)

    @property
    def is_raised(self) -> bool:
        """Whether AWS has let more through in the last ten minutes than the quota that it gives by default."""
        return self.quota is not None and self.calls - self.refused > _MORE * RECENT_SECONDS * self.quota

    @property
    def is_refused(self) -> bool:
        """Whether so much is refused that it matters."""
        return self.refused >= FEW and self.refused >= MANY * self.calls

    @property
    def by(self) -> By:
        """By whom the bucket is emptied, as far as that can be seen."""
        if not self.refused:
            return By.NOBODY
        if self.refused <= _FAR * self.background * self.calls:
            return By.OTHERS
        if self.quota is None or self.is_raised:
            return By.UNKNOWN
        sent = self.sent_when_refused
        if sent >= NEAR * self.quota or (self.wider is not None and sent + self.beside >= NEAR * self.wider):
            return By.OURS
        return By.UNSEEN if self.unseen else By.OTHERS


@dataclass(frozen=True, slots=True)
class Settings:
    """
    The settings of an executor that rates depend on.

    :param section: of the configuration
    :param launch_rate: None: unset
    :param launching: requests in flight at present
    :param pending: launches that wait at present
    :param sweep_seconds: about the time between two looks at a container
    """

    section: str
    launch_rate: float | None
    launch_rate_max: float
    describe_rate: float
    max_concurrent_launches: int
    launching: int = 0
    pending: int = 0
    sweep_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Advice:
    """
    What a figure means, and what to do.

    :param subject: what it is about
    :param text: what is so, a sentence without a full stop
    :param way_out: what to do, likewise; empty: nothing
    :param setting: the option with its new value, if an option is to be changed
    :param url: the page where it is done, if there is one
    """

    subject: str
    text: str
    way_out: str = ""
    setting: str = ""
    url: str = ""

    def __str__(self) -> str:
        """Return it as one paragraph."""
        sentences = [f"{self.subject}: {self.text}."]
        if self.way_out:
            sentences.append(f"{self.way_out[0].upper()}{self.way_out[1:]}{f': {self.url}' if self.url else '.'}")
        return " ".join(sentences)


def advise(bucket: Bucket, settings: Settings) -> Iterator[Advice]:
    """Yield what the figures of a bucket mean."""
    if bucket.is_refused:
        yield from _about_refusals(bucket, settings)
    if bucket.operation == "launch":
        yield from _about_launches(bucket, settings)
    elif bucket.operation == "read" and settings.sweep_seconds >= _SLOW_SWEEP:
        yield _about_sweeps(bucket, settings)


# --- refusals ---------------------------------------------------------------------------------------------------


def _about_refusals(bucket: Bucket, settings: Settings) -> Iterator[Advice]:
    share = f"{percent(bucket.refused / bucket.calls)} of {bucket.calls} calls in ten minutes were refused"
    by = bucket.by
    if by is By.OURS:
        yield _ours(bucket, settings, share)
    elif by is By.UNKNOWN:
        why = "AWS publishes no quota for them"
        if bucket.quota is not None:
            why = f"AWS lets more through than the {bucket.quota:g}/s that an account has by default"
        yield Advice(
            bucket.call,
            f"{share}; {why}, and ours sent {bucket.sent_when_refused:.1f}/s",
            "nothing has to be done: the executors keep to what AWS lets through",
        )
    elif by is By.UNSEEN:
        yield Advice(
            bucket.call,
            f"{share}, when the executors seen here sent {bucket.sent_when_refused:.1f}/s of {bucket.quota:g}/s; "
            f"{_executors(bucket.unseen)} of ours cannot be seen",
            "set status_port for all of them, to tell them from others in the account",
        )
    else:
        yield _others(bucket, share)


def _others(bucket: Bucket, share: str) -> Advice:
    quota = f" of the {bucket.quota:g}/s that an account has by default" if bucket.quota is not None else ""
    text = f"{share}, when ours sent {bucket.sent_when_refused:.1f}/s{quota}"
    if bucket.background:
        text += f"; {percent(bucket.background)} of calls are refused whatever the rate"
    text += ": others in the account use the quota, or AWS refuses without regard to it"
    way_out = "CloudTrail shows who else makes these calls in this Region"
    if bucket.raised_by:
        way_out += f"; {bucket.raised_by}"
    return Advice(bucket.call, text, way_out)


def _ours(bucket: Bucket, settings: Settings, share: str) -> Advice:
    quota = bucket.quota or 0.0
    executors = len(bucket.draws) + bucket.unseen
    fair = _rounded_down(quota / executors)
    text = f"{share}, when ours sent {bucket.sent_when_refused:.1f}/s; an account has {quota:g}/s by default"
    if bucket.operation == "launch" and settings.launch_rate is not None:
        if settings.launch_rate * executors > quota:
            return Advice(
                bucket.call,
                f"{text}, and {_executors(executors, 'begin')} with launch_rate = {settings.launch_rate:g}",
                f"unset it, so that each begins gently, or set {settings.section} launch_rate = {fair:g}",
                f"launch_rate = {fair:g}",
            )
    elif bucket.operation == "read" and settings.describe_rate * executors > quota:
        return Advice(
            bucket.call,
            f"{text}, and {_executors(executors, 'poll')} with describe_rate = {settings.describe_rate:g}",
            f"set {settings.section} describe_rate = {fair:g}",
            f"describe_rate = {fair:g}",
        )
    more = bucket.raised_by or "AWS raises this quota for nobody: another Region or account has its own"
    return Advice(bucket.call, text, f"no setting gives more; {more}")


# --- launches ---------------------------------------------------------------------------------------------------


def _about_launches(bucket: Bucket, settings: Settings) -> Iterator[Advice]:
    draws = [draw for draw in bucket.draws if draw.calls]
    if not draws:
        return
    fastest = max(draw.rate for draw in draws)
    begins_at = max(draw.begins_at for draw in draws)
    section = settings.section
    most_of_all = math.inf if bucket.raised_by or bucket.quota is None else bucket.quota
    is_reached = fastest >= _AT * settings.launch_rate_max and _is_all_used(draws)
    if not bucket.refused and is_reached and settings.launch_rate_max < most_of_all:
        higher = _rounded_down(min(_FAR * settings.launch_rate_max, most_of_all))
        yield Advice(
            bucket.call,
            f"launch_rate_max = {settings.launch_rate_max:g} is reached, and AWS refuses nothing",
            f"set {section} launch_rate_max = {higher:g}",
            f"launch_rate_max = {higher:g}",
        )
    elif min(draw.used for draw in draws) >= _FAR * begins_at:
        kept = _rounded_down(NEAR * min(draw.used for draw in draws))
        yield Advice(
            bucket.call,
            f"each executor begins with {begins_at:g}/s, and AWS lets {bucket.used / len(draws):.0f}/s through",
            f"set {section} launch_rate = {kept:g}, so that a restart begins there",
            f"launch_rate = {kept:g}",
        )
    elif bucket.is_refused and _FAR * fastest <= begins_at and (bucket.refused_for or 0.0) >= _LASTS:
        kept = max(0.5, _rounded_down(fastest))
        yield Advice(
            bucket.call,
            f"each executor begins with {begins_at:g}/s, and for an hour AWS lets {fastest:.1f}/s through at most",
            f"set {section} launch_rate = {kept:g}, so that a restart does not begin above it",
            f"launch_rate = {kept:g}",
        )
    most = settings.max_concurrent_launches
    if settings.pending and settings.launching >= most and bucket.used < NEAR * bucket.rate:
        more = 2 * most
        yield Advice(
            bucket.call,
            f"max_concurrent_launches = {most} are in flight, and {settings.pending} wait, though the rate allows "
            f"{bucket.rate:.0f}/s and {bucket.used:.0f}/s are sent",
            f"set {section} max_concurrent_launches = {more}",
            f"max_concurrent_launches = {more}",
        )


def _is_all_used(draws: list[Draw]) -> bool:
    return sum(draw.used for draw in draws) >= NEAR * sum(draw.rate for draw in draws)


# --- reads ------------------------------------------------------------------------------------------------------


def _about_sweeps(bucket: Bucket, settings: Settings) -> Advice:
    executors = len(bucket.draws) + bucket.unseen
    text = f"so many containers run that each is looked at every {settings.sweep_seconds:.0f} s"
    if bucket.is_refused or bucket.quota is None or settings.describe_rate * executors * _FAR > bucket.quota:
        way_out = f"set events_queue_url, or raise {settings.section} describe_rate with a higher quota"
        return Advice(bucket.call, text, f"{way_out}; {bucket.raised_by}" if bucket.raised_by else way_out)
    more = _rounded_down(bucket.quota / executors)
    way_out = f"set events_queue_url, or {settings.section} describe_rate = {more:g}"
    return Advice(bucket.call, text, way_out, f"describe_rate = {more:g}")


# --- words ------------------------------------------------------------------------------------------------------


def percent(share: float) -> str:
    """Return a part of a whole for people, such as ``12 %``."""
    value = 100.0 * share
    return f"{value:.0f} %" if value >= 10.0 or value == 0.0 else f"{value:.1f} %"  # noqa: PLR2004


def _executors(count: int, does: str = "") -> str:
    if count == 1:
        return f"one executor {does}s" if does else "one executor"
    return f"each of {count} executors {does}s" if does else f"{count} executors"


def _rounded_down(rate: float) -> float:
    """Return a rate that a person would write."""
    if rate >= 10.0:  # noqa: PLR2004
        return float(int(rate))
    return max(0.1, int(rate * 10.0) / 10.0)
