from __future__ import annotations

import pytest

from ecs_async_executor.services import batch
from ecs_async_executor.services.batch.names import job_name, mark_in, name_prefix
from ecs_async_executor.settings import JOB_NAME
from tests.services.batch.samples import LAUNCH, TI, request


def test_every_attempt_has_a_name_of_its_own_that_begins_with_the_launchs() -> None:
    prefix = name_prefix("airflow", TI)
    names = [job_name(prefix, f"{LAUNCH}-{n}") for n in (1, 2)] + [job_name(prefix, f"{TI}-1")]
    assert names == [f"airflow-{TI}-5b2f7f2e-1", f"airflow-{TI}-5b2f7f2e-2", f"airflow-{TI}-1"]
    assert {mark_in(name) for name in names} == {TI}


def test_a_launch_has_a_mark_that_its_names_begin_with_and_no_other_launchs() -> None:
    made = batch.launch_spec(request(), started_by=TI, launch_id=LAUNCH)
    assert made.started_by is not None
    names = {one: job_name(made.started_by, f"{one}-12") for one in (LAUNCH, TI, "0badcafe-1")}
    assert all(name.startswith(f"{made.started_by}-") for name in names.values())
    assert [one for one, name in names.items() if name.startswith(f"{made.own_mark}-")] == [LAUNCH]


def test_a_launch_that_has_the_workloads_identity_has_no_mark_of_its_own() -> None:
    assert batch.launch_spec(request(), started_by=TI, launch_id=TI).own_mark is None


def test_a_long_name_is_cut_so_that_the_mark_and_a_hundred_attempts_fit() -> None:
    made = batch.launch_spec(request({"jobName": "n" * 128}), started_by=TI)
    name = job_name(made.request["jobName"], f"{LAUNCH}-100100")
    assert len(name) <= 128
    assert JOB_NAME.fullmatch(name)
    assert mark_in(name) == TI


@pytest.mark.parametrize("name", [None, 7, "airflow", f"airflow-{TI}", f"airflow-{TI}-x", f"{TI}-1"])
def test_the_name_of_a_job_that_is_not_ours_has_no_mark(name: object) -> None:
    assert mark_in(name) is None
