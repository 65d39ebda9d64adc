"""Sizes as people write them, and as people read them."""

from __future__ import annotations

from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_async_executor.core import sizes
from ecs_async_executor.core.sizes import Size, WrongSize


@pytest.mark.parametrize(
    ("written", "units"),
    [
        (1, 1024),
        (0.25, 256),
        (0.5, 512),
        (0.3, 308),  # 307.2: nobody gets less
        (16, 16384),
        (32, 32768),
        (128, 128),
        (256, 256),
        (256.0, 256),
        (1024, 1024),
        ("256", 256),
        ("0.5", 512),
        (".5", 512),
        ("2 vCPU", 2048),
        ("2vcpu", 2048),
        ("1.5 vCPUs", 1536),
        ("64 vCPU", 65536),
        ("64 units", 64),
        ("10 CPU units", 10),
        (" 4 ", 4096),
    ],
)
def test_cpu_is_counted_in_vcpus_or_in_cpu_units(written: Any, units: int) -> None:
    assert sizes.cpu_units(written) == units


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (33, 'cpu = 33 could mean vCPUs or CPU units: write "33 vCPU" or "33 units"'),
        ("64", 'cpu = \'64\' could mean vCPUs or CPU units: write "64 vCPU" or "64 units"'),
        (127, "could mean vCPUs or CPU units"),
        (32.5, 'cpu = 32.5 could mean vCPUs or CPU units: write "32.5 vCPU"'),
        (256.5, "cpu = 256.5 must be a whole number of CPU units"),
        ("4 GB", "cpu = '4 GB' has a unit that it cannot have: write vCPUs"),
        ("500m", "has a unit that it cannot have"),
        ("a lot", "cpu = 'a lot' cannot be read"),
        ("", "cpu = '' cannot be read"),
        ("-1", "cannot be read"),
        (-1, "cpu = -1 must be more than nothing"),
        (0, "cpu = 0 must be more than nothing"),
        (True, "cpu must be a number or text, not True"),
        (None, "cpu must be a number or text, not nothing"),
        (float("nan"), "cpu must be a number or text, not nan"),
        (float("inf"), "not inf"),
        ([1], "cpu must be a number or text, not list"),
        ({"secret": 1}, "not dict"),
        ("500 vCPU", "is more than any machine has"),
        ("1" * 100, "cannot be read"),
    ],
)
def test_what_is_no_cpu_is_refused_with_the_way_out(written: Any, reason: str) -> None:
    with pytest.raises(WrongSize) as caught:
        sizes.cpu_units(written)
    assert reason in str(caught.value)
    assert len(str(caught.value)) < 220


@pytest.mark.parametrize(
    ("written", "mib"),
    [
        (512, 512),
        (512.0, 512),
        ("512", 512),
        (128, 128),
        ("4 GB", 4096),
        ("4GB", 4096),
        ("4 gb", 4096),
        ("4 GiB", 4096),
        ("4G", 4096),
        ("4Gi", 4096),
        ("1.5 GB", 1536),
        ("0.1 GB", 103),  # 102.4
        ("512 MB", 512),
        ("512 MiB", 512),
        ("64 MB", 64),
        ("1 TB", 1024 * 1024),
    ],
)
def test_memory_is_counted_in_mib(written: Any, mib: int) -> None:
    assert sizes.memory_mib(written) == mib


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        (4, 'memory = 4 would be 4 MiB: write "4 GB" or "4 MB"'),
        (127, "would be 127 MiB"),
        (1.5, 'memory = 1.5 would be 1.5 MiB: write "1.5 GB"'),
        (1000.5, "would be 1000.5 MiB"),
        (4 * 1024**3, "memory = 4294967296 is more than any machine has: write a number with its unit"),
        ("4 KB", "memory = '4 KB' has a unit that it cannot have"),
        ("2 vCPU", "has a unit that it cannot have"),
        ("x2", "memory = 'x2' cannot be read"),
        ("0 GB", "must be more than nothing"),
        (None, "memory must be a number or text, not nothing"),
    ],
)
def test_what_is_no_memory_is_refused_with_the_way_out(written: Any, reason: str) -> None:
    with pytest.raises(WrongSize) as caught:
        sizes.memory_mib(written)
    assert reason in str(caught.value)


@pytest.mark.parametrize(
    ("written", "gib"),
    [
        (50, 50),
        ("50", 50),
        ("50 GB", 50),
        ("50 GiB", 50),
        (20.5, 21),
        ("1024 MB", 1),
        ("1025 MB", 2),
        ("1 TB", 1024),
    ],
)
def test_disk_is_counted_in_gib(written: Any, gib: int) -> None:
    assert sizes.disk_gib(written) == gib


@pytest.mark.parametrize("written", ["50 vCPU", 0, True, None, "much", 10**9])
def test_what_is_no_disk_is_refused(written: Any) -> None:
    with pytest.raises(WrongSize, match=r"disk .*GB"):
        sizes.disk_gib(written)


@pytest.mark.parametrize(("written", "gpus"), [(0, 0), (1, 1), (2.0, 2), ("4", 4), ("1 GPU", 1), ("2 gpus", 2)])
def test_gpus_are_whole(written: Any, gpus: int) -> None:
    assert sizes.gpu_count(written) == gpus


@pytest.mark.parametrize("written", [0.5, -1, True, None, "one", "1 GB", "a100"])
def test_what_is_no_number_of_gpus_is_refused(written: Any) -> None:
    with pytest.raises(WrongSize, match=r"gpu .*whole number"):
        sizes.gpu_count(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (90, 90),
        ("90", 90),
        (0.5, 1),
        ("90 s", 90),
        ("2 min", 120),
        ("2 m", 120),
        ("1.5 h", 5400),
        ("2 hours", 7200),
        ("1 day", 86400),
        (timedelta(hours=2), 7200),
        (timedelta(milliseconds=1), 1),
    ],
)
def test_a_duration_is_counted_in_seconds(written: Any, expected: int) -> None:
    assert sizes.seconds(written) == expected


@pytest.mark.parametrize("written", [0, -1, timedelta(0), "2 weeks", "1:30", None, True, [5]])
def test_what_is_no_duration_is_refused(written: Any) -> None:
    with pytest.raises(WrongSize, match=r"command_timeout .*90 min"):
        sizes.seconds(written)


@pytest.mark.parametrize(
    ("written", "expected"),
    [("x2", 2), ("X2", 2), ("2x", 2), ("x 1.5", Fraction(3, 2)), ("×3", 3), ("*2", 2)],
)
def test_a_factor_has_an_x(written: str, expected: Fraction) -> None:
    assert sizes.factor(written) == expected


@pytest.mark.parametrize("written", ["4 GB", 2, None, "2", "x", "xx2", "x-1"])
def test_what_has_none_is_no_factor(written: Any) -> None:
    assert sizes.factor(written) is None


@pytest.mark.parametrize("written", ["x1", "x0.5", "0x"])
def test_a_factor_makes_something_larger(written: str) -> None:
    with pytest.raises(WrongSize, match="makes nothing larger"):
        sizes.factor(written)


def test_a_multiple_is_rounded_up() -> None:
    assert sizes.multiplied(4096, Fraction(2)) == 8192
    assert sizes.multiplied(1001, Fraction(3, 2)) == 1502


def test_a_message_names_the_key_that_it_is_about() -> None:
    with pytest.raises(WrongSize, match=r"^up_to = 'big' cannot be read"):
        sizes.memory_mib("big", "up_to")


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (Size(), ""),
        (Size(cpu=256), "0.25 vCPU"),
        (Size(cpu=128), "0.125 vCPU"),
        (Size(cpu=308), "308 CPU units"),
        (Size(cpu=1024, memory=4096), "1 vCPU, 4 GB"),
        (Size(memory=512), "512 MB"),
        (Size(memory=1536), "1.5 GB"),
        (Size(memory=2000), "2000 MB"),
        (Size(memory=124928), "122 GB"),
        (Size(2048, 8192, 1, 50), "2 vCPU, 8 GB, 1 GPU, 50 GB disk"),
        (Size(gpu=0), ""),
    ],
)
def test_a_size_is_shown_in_words(size: Size, words: str) -> None:
    assert sizes.in_words(size) == words


@given(st.integers(1, 192 * 1024))
def test_cpu_in_words_is_read_as_the_same(units: int) -> None:
    assert sizes.cpu_units(sizes.cpu_in_words(units)) == units


@given(st.integers(1, 24 * 1024 * 1024))
def test_memory_in_words_is_read_as_the_same(mib: int) -> None:
    assert sizes.memory_mib(sizes.memory_in_words(mib)) == mib


@given(st.decimals("0.01", "1000", places=2))
def test_nobody_gets_less_memory_than_they_ask_for(gb: Any) -> None:
    mib = sizes.memory_mib(f"{gb} GB")
    assert mib - 1 < Fraction(gb) * 1024 <= mib
