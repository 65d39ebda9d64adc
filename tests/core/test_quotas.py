"""What the figures of rates and gates mean, as a table."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ecs_async_executor.core.quotas import (
    Advice,
    Bucket,
    By,
    Draw,
    Settings,
    advise,
    percent,
)

SETTINGS = Settings(
    section="[ecs_async_executor]",
    launch_rate=None,
    launch_rate_max=100.0,
    describe_rate=20.0,
    max_concurrent_launches=64,
)
QUIET = Draw("a", rate=20.0, begins_at=20.0, used=12.0, calls=7200)
REFUSED = replace(QUIET, refused=100, refused_for=300.0, sent_when_refused=20.0)
RARER = replace(REFUSED, calls=2400)
LAUNCHES = Bucket("RunTask on Fargate", "launch", 20.0, "AWS Support raises this quota on request", (QUIET,))
READS = Bucket("DescribeTasks, ListTasks", "read", 20.0, "AWS Support raises this quota on request", (QUIET,))


def launches(*draws: Draw, **changes: object) -> Bucket:
    return replace(LAUNCHES, draws=draws, **changes)  # type: ignore[arg-type]


def reads(*draws: Draw, **changes: object) -> Bucket:
    return replace(READS, draws=draws, **changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("bucket", "by"),
    [
        (launches(QUIET), By.NOBODY),
        (launches(REFUSED), By.OURS),
        (launches(replace(REFUSED, sent_when_refused=10.0)), By.OTHERS),
        (launches(replace(REFUSED, sent_when_refused=16.0)), By.OURS),
        # What an executor that was not refused uses was sent at that time, too.
        (launches(replace(REFUSED, sent_when_refused=10.0), replace(QUIET, used=9.0, calls=5400)), By.OURS),
        (launches(replace(REFUSED, sent_when_refused=10.0), unseen=1), By.UNSEEN),
        (launches(replace(REFUSED, sent_when_refused=10.0), unseen=1, beside=25.0, wider=40.0), By.OURS),
        (launches(replace(REFUSED, sent_when_refused=10.0), beside=5.0, wider=40.0), By.OTHERS),
        (launches(REFUSED, quota=None), By.UNKNOWN),
        (launches(replace(REFUSED, calls=30_000, refused=900, sent_when_refused=55.0)), By.UNKNOWN),
        (launches(replace(REFUSED, background=0.01)), By.OTHERS),
        (launches(replace(REFUSED, refused=1000, background=0.01)), By.OURS),
    ],
)
def test_it_is_told_who_uses_a_quota(bucket: Bucket, by: By) -> None:
    assert bucket.by is by


@pytest.mark.parametrize(
    ("bucket", "settings", "setting", "says"),
    [
        (
            launches(replace(REFUSED, sent_when_refused=8.0)),
            {},
            "",
            "1.4 % of 7200 calls in ten minutes were refused, when ours sent 8.0/s of the 20/s",
        ),
        (
            launches(replace(REFUSED, sent_when_refused=18.0, background=0.012)),
            {},
            "",
            "1.2 % of calls are refused whatever the rate: others in the account use the quota, or AWS",
        ),
        (
            launches(replace(REFUSED, sent_when_refused=8.0), unseen=2),
            {},
            "",
            "2 executors of ours cannot be seen",
        ),
        (launches(REFUSED), {}, "", "No setting gives more; AWS Support raises this quota on request"),
        (launches(REFUSED, raised_by=""), {}, "", "another Region or account has its own"),
        (
            launches(RARER, RARER),
            {"launch_rate": 20.0},
            "launch_rate = 10",
            "each of 2 executors begins with launch_rate = 20",
        ),
        (launches(REFUSED), {"launch_rate": 60.0}, "launch_rate = 20", "Unset it"),
        (
            launches(replace(REFUSED, calls=30_000, refused=900, sent_when_refused=55.0)),
            {"launch_rate": 80.0},
            "",
            "AWS lets more through than the 20/s that an account has by default, and ours sent 55.0/s. Nothing",
        ),
        (reads(replace(REFUSED, calls=0)), {}, "", "100 % of 100 calls in ten minutes were refused"),
        (launches(REFUSED), {"launch_rate": 20.0}, "", "No setting gives more"),
        (reads(RARER, RARER, RARER), {}, "describe_rate = 6.6", "each of 3 executors polls with"),
        (reads(REFUSED, quota=None), {}, "", "AWS publishes no quota for them"),
        (
            launches(replace(QUIET, rate=100.0, used=95.0)),
            {},
            "launch_rate_max = 200",
            "launch_rate_max = 100 is reached, and AWS refuses nothing",
        ),
        (
            launches(replace(QUIET, rate=30.0, used=29.0), quota=50.0, raised_by=""),
            {"launch_rate_max": 30.0},
            "launch_rate_max = 50",
            "launch_rate_max = 30 is reached",
        ),
        (
            launches(replace(QUIET, rate=70.0, used=60.0)),
            {},
            "launch_rate = 48",
            "each executor begins with 20/s, and AWS lets 60/s through",
        ),
        (
            launches(replace(REFUSED, rate=4.8, sent_when_refused=5.0, refused_for=4000.0)),
            {},
            "launch_rate = 4.8",
            "for an hour AWS lets 4.8/s through at most. Set [ecs_async_executor] launch_rate = 4.8",
        ),
        (
            launches(replace(REFUSED, rate=4.8, sent_when_refused=5.0)),
            {},
            "",
            "others in the account use the quota",
        ),
        (
            launches(replace(QUIET, rate=50.0, begins_at=50.0)),
            {"launching": 64, "pending": 300},
            "max_concurrent_launches = 128",
            "max_concurrent_launches = 64 are in flight, and 300 wait",
        ),
        (reads(QUIET), {"sweep_seconds": 12.0}, "", "each is looked at every 12 s"),
        (
            reads(QUIET),
            {"sweep_seconds": 12.0, "describe_rate": 5.0},
            "describe_rate = 20",
            "each is looked at every 12 s",
        ),
    ],
)
def test_it_is_said_what_a_figure_means_and_what_to_set(
    bucket: Bucket, settings: dict[str, object], setting: str, says: str
) -> None:
    advices = list(advise(bucket, replace(SETTINGS, **settings)))  # type: ignore[arg-type]
    assert says in " ".join(map(str, advices))
    assert [one.setting for one in advices if one.setting] == ([setting] if setting else [])


@pytest.mark.parametrize(
    ("bucket", "settings"),
    [
        (launches(QUIET), {}),
        (reads(QUIET), {"sweep_seconds": 1.0}),
        (launches(replace(QUIET, calls=100, refused=4)), {}),
        (launches(replace(REFUSED, refused=50)), {}),
        (launches(replace(QUIET, rate=100.0, used=10.0, begins_at=60.0)), {}),
        (launches(QUIET), {"launching": 64, "pending": 0}),
        (launches(replace(QUIET, rate=70.0, used=39.0)), {}),
        (launches(replace(QUIET, rate=0.5, calls=0)), {}),
    ],
    ids=[
        "works",
        "polls",
        "few",
        "a small part",
        "at most, unused",
        "nobody waits",
        "a rate that is not used",
        "idle",
    ],
)
def test_nothing_is_said_where_nothing_is_to_be_done(bucket: Bucket, settings: dict[str, object]) -> None:
    assert list(advise(bucket, replace(SETTINGS, **settings))) == []  # type: ignore[arg-type]


def test_an_advice_is_a_paragraph() -> None:
    assert str(Advice("a", "b")) == "a: b."
    assert str(Advice("a", "b", "do it")) == "a: b. Do it."
    assert str(Advice("a", "b", "do it", url="https://c")) == "a: b. Do it: https://c"


@pytest.mark.parametrize(
    ("share", "words"), [(0.0, "0 %"), (0.0042, "0.4 %"), (0.05, "5.0 %"), (0.123, "12 %"), (1.0, "100 %")]
)
def test_a_part_of_a_whole_has_no_more_digits_than_mean_something(share: float, words: str) -> None:
    assert percent(share) == words


def test_no_rate_is_recommended_above_a_quota_that_aws_raises_for_nobody() -> None:
    bucket = launches(replace(QUIET, rate=50.0, used=50.0, begins_at=40.0), quota=50.0, raised_by="")
    assert not list(advise(bucket, replace(SETTINGS, launch_rate_max=50.0)))
