"""The sizes of Fargate: what is asked for becomes the smallest that has it."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_async_executor.services import fargate

EVERY = [(cpu, memory) for cpu, memories in fargate.SIZES.items() for memory in memories]
cpus = st.integers(1, 32768)
memories = st.integers(1, 249856)


def test_the_table_is_that_of_the_ecs_developer_guide() -> None:
    gib = {cpu: [one / 1024 for one in memories] for cpu, memories in fargate.SIZES.items()}
    assert gib[256] == [0.5, 1, 2]
    assert gib[512] == [1, 2, 3, 4]
    assert gib[1024] == [2, 3, 4, 5, 6, 7, 8]
    assert (gib[2048][0], gib[2048][1], gib[2048][-1], len(gib[2048])) == (4, 5, 16, 13)
    assert (gib[4096][0], gib[4096][1], gib[4096][-1], len(gib[4096])) == (8, 9, 30, 23)
    assert (gib[8192][0], gib[8192][1], gib[8192][-1], len(gib[8192])) == (16, 20, 60, 12)
    assert (gib[16384][0], gib[16384][1], gib[16384][-1], len(gib[16384])) == (32, 40, 120, 12)
    assert gib[32768] == [60, 120, 244]


@given(cpus, memories)
def test_a_size_that_fits_is_valid_and_nothing_smaller_would_do(cpu: int, memory: int) -> None:
    fit = fargate.fitting(cpu, memory)
    assert fit is not None
    assert fit in EVERY
    assert fit[0] >= cpu
    assert fit[1] >= memory
    enough = [one for one in EVERY if one[0] >= cpu and one[1] >= memory]
    assert fit == min(enough)


@pytest.mark.parametrize("size", EVERY)
def test_a_valid_size_stays(size: tuple[int, int]) -> None:
    assert fargate.fitting(*size) == size


@given(memories)
def test_memory_alone_becomes_one_that_some_task_can_have(memory: int) -> None:
    fit = fargate.fitting(None, memory)
    assert fit is not None
    assert fit[0] is None
    assert fit[1] == min(one for _, one in EVERY if one >= memory)


@given(cpus)
def test_cpu_alone_becomes_one_that_some_task_can_have(cpu: int) -> None:
    assert fargate.fitting(cpu, None) == (min(one for one, _ in EVERY if one >= cpu), None)


@pytest.mark.parametrize("size", [(32769, None), (None, 249857), (256, 249857), (32769, 1024)])
def test_more_than_the_largest_does_not_fit(size: tuple[int | None, int | None]) -> None:
    assert fargate.fitting(*size) is None


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ((1024, 2500), ["1 vCPU with 2 GB", "1 vCPU with 3 GB"]),
        ((1000, 2500), ["0.5 vCPU with 2 GB", "1 vCPU with 3 GB"]),
        ((256, 3072), ["0.25 vCPU with 2 GB", "0.5 vCPU with 3 GB"]),
        ((1024, 1024), ["0.5 vCPU with 1 GB", "1 vCPU with 2 GB"]),
        ((256, 100), ["0.25 vCPU with 512 MB"]),
        ((3072, None), ["2 vCPU", "4 vCPU"]),
        ((100, None), ["0.25 vCPU"]),
        ((None, 31000), ["30 GB", "32 GB"]),
        ((None, 300), ["512 MB"]),
        ((None, 250000), ["244 GB"]),
    ],
)
def test_the_sizes_next_to_one_that_is_not_are_named(
    size: tuple[int | None, int | None], words: list[str]
) -> None:
    assert fargate.nearest(*size) == words


@given(st.none() | cpus, st.none() | memories)
def test_only_what_is_in_the_table_is_valid(cpu: int | None, memory: int | None) -> None:
    matching = [one for one in EVERY if cpu in {None, one[0]} and memory in {None, one[1]}]
    assert fargate.is_valid(cpu, memory) is bool(matching)


def test_the_disk_that_a_task_can_ask_for_is_21_to_200_gib() -> None:
    assert (fargate.DISK[0], fargate.DISK[-1]) == (21, 200)
    assert all(a + 1 == b for a, b in itertools.pairwise(fargate.DISK))
