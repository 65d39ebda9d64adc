"""Which container is a launch's, where several carry its mark, or the one that Airflow names is unknown."""

from __future__ import annotations

from dataclasses import replace

import anyio
import pytest

from ecs_async_executor.core.backend import LaunchSpec, Observation
from ecs_async_executor.core.errors import BackendError, Kind, Rejected
from ecs_async_executor.core.messages import Launch, Was
from tests.engine.cloud import FakeCloud, Plan
from tests.engine.harness import RULES, Harness, launch_id, make_launch
from tests.engine.test_engine import TIMED_OUT, in_virtual_time

INVALID = BackendError(Kind.INVALID, "InvalidParameterException", "no")


@in_virtual_time
@pytest.mark.parametrize("hidden_for", [0.0, 10.0])
async def test_a_revoked_search_does_not_stop_the_next_launchs_container_that_is_not_described_yet(
    hidden_for: float,
) -> None:
    """Its request has no answer, then is refused; it is looked for, revoked, and queued again."""

    def fault(operation: str, cloud: FakeCloud) -> BackendError | None:
        if operation == "launch" and cloud.calls["launch"] <= 2:
            return TIMED_OUT if cloud.calls["launch"] == 1 else INVALID
        if operation == "launch:after":  # the next launch's answers are lost, for a quarter of a minute
            return TIMED_OUT if anyio.current_time() < 140 else None
        return TIMED_OUT if operation == "find" and anyio.current_time() < 65 else None

    cloud = FakeCloud(fault=fault, plan=lambda label, nth: Plan(hidden_for=hidden_for, duration=300))
    async with Harness(cloud).running() as engine:
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await anyio.sleep(3)
        engine.stop(first.launch_id)
        again = make_launch("a", started_by="ti-1")
        engine.submit(again)
        [finished] = await engine.until(lambda: engine.finished("a"))
    [container] = cloud.of("a")
    assert container.stop_reasons == []
    assert (finished.success, finished.launch_id) == (True, again.launch_id)


@in_virtual_time
@pytest.mark.parametrize("was", [Was.RUNNING, Was.RESTARTING])
@pytest.mark.parametrize("hidden_for", [0.0, 1e6])
async def test_a_running_ones_known_container_that_is_forgotten_does_not_hide_the_one_that_runs(
    was: Was, hidden_for: float
) -> None:
    """A deferral of more than an hour: the service has forgotten the first container, Airflow knows only that."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 1000))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        [old] = await first.until(lambda: first.launched("a"))
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(7200)
        cloud.containers[old.handle_id].forgotten_until = anyio.current_time() + hidden_for
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until(lambda: len(first.launched("a")) == 2)
        await anyio.sleep(5)
    if hidden_for:
        cloud.unlisted = lambda container: container.handle.id == old.handle_id
    async with Harness(cloud).running() as second:
        second.adopt(replace(resumed, launch_id=launch_id()), was, old.handle_id)
        [finished] = await second.until(lambda: second.finished("a"))
        await anyio.sleep(5)
    assert (finished.success, finished.handle_id) == (True, cloud.of("a")[1].handle.id)


@in_virtual_time
@pytest.mark.parametrize("hidden_for", [30.0, 100.0, 1e6])
async def test_a_listed_container_that_is_not_described_weighs_more_than_one_of_an_earlier_queueing_that_is_over(
    hidden_for: float,
) -> None:
    """A deferral; the container after it is listed, but not described for longer than the grace."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5 if nth == 1 else 1e6))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(20)
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until(lambda: len(first.launched("a")) == 2)
        await anyio.sleep(5)
    old, runs = cloud.of("a")
    runs.forgotten_until = anyio.current_time() + hidden_for
    async with Harness(cloud).running() as second:
        second.adopt(replace(resumed, launch_id=launch_id()), Was.RUNNING)
        await anyio.sleep(RULES.missing_grace + 10)
        finished = second.finished("a")
    assert not any(f.success for f in finished)
    assert not any(f.handle_id == old.handle.id for f in finished)
    if finished:
        assert cloud.asked_to_stop == {runs.handle.id}


@in_virtual_time
@pytest.mark.parametrize("what", ["conflict", "terminated first"])
async def test_what_is_released_in_flight_is_not_stopped_whatever_the_answer_is(what: str) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), latency=2.0)
    launch = make_launch("a", tokened=True)
    async with Harness(cloud).running() as engine, Harness(cloud).running() as adopter:
        adopter.rendered.append("make the JWT differ")
        if what == "conflict":
            adopter.adopt(launch, Was.QUEUED)
            await anyio.sleep(0.1)
            engine.submit(launch)
            await anyio.sleep(0.5)
            engine.release(launch)
            await adopter.until(lambda: adopter.launched("a"))
            await anyio.sleep(10)
            engine.engine.drain("terminated")
        else:
            engine.submit(launch)
            await engine.until(lambda: cloud.of("a"))
            engine.release(launch)
            await anyio.sleep(0.1)
            engine.engine.drain("terminated")
        await anyio.sleep(20)
    assert [container.stop_reasons for container in cloud.of("a")] == [[]]


@in_virtual_time
async def test_a_launch_that_was_never_sent_does_not_fail_for_an_earlier_queueings_container() -> None:
    """After a silence what waits is looked for; an earlier queueing's container is listed, but not described."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5))
    async with Harness(cloud, rules=RULES).running() as first:
        first.launch("a", started_by="ti-1")
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(20)
    [old] = cloud.of("a")
    old.forgotten_until = 1e9
    async with Harness(cloud, options=replace(first.options, stall_timeout=20.0)).running() as engine:
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(1)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(5)
        engine.silent_since = None
        engine.silences += 1
        [finished] = await engine.until(lambda: engine.finished("a"))
    assert finished.success


@in_virtual_time
async def test_a_container_that_appears_just_before_the_patience_ends_gets_its_grace() -> None:
    """It is missing for 8 s, and its search had found nothing before: not "MISSING for 60 s"."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1, duration=1e5))
    async with Harness(cloud).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        await first.until(lambda: cloud.of("a"))
        await anyio.sleep(5)
    [runs] = cloud.of("a")
    began = anyio.current_time()
    cloud.unlisted = lambda container: anyio.current_time() <= began + 56
    runs.forgotten_until = began + 64
    async with Harness(cloud).running() as second:
        second.adopt(replace(original, launch_id=launch_id()), Was.RUNNING)
        await anyio.sleep(90)
        assert not second.finished("a")


@in_virtual_time
@pytest.mark.parametrize("frozen", [False, True])
async def test_what_is_released_in_flight_and_adopted_back_at_once_is_not_launched_under_other_tokens(
    frozen: bool,
) -> None:
    """A process is frozen with a request in flight; a peer adopts, launches and dies; this one adopts it back."""
    hang = [frozen]

    class Hanging(FakeCloud):
        async def launch(self, spec: LaunchSpec, token: str) -> Observation:
            if hang[0]:
                hang[0] = False
                await anyio.sleep(30)
                raise TIMED_OUT
            return await super().launch(spec, token)

    cloud = Hanging(plan=lambda label, nth: Plan(start_after=100, duration=300))
    launch = make_launch("a", tokened=True)
    async with Harness(cloud).running() as engine:
        engine.submit(launch)
        await anyio.sleep(1)
        async with Harness(cloud).running() as peer:
            peer.adopt(launch, Was.QUEUED)
            await peer.until(lambda: peer.launched("a"))
        engine.release(launch)
        engine.adopt(launch, Was.QUEUED)
        await engine.until(lambda: engine.launched("a"))
        await anyio.sleep(100)
    assert len(cloud.of("a")) == 1


@in_virtual_time
@pytest.mark.parametrize("dies", [False, True])
async def test_what_waits_for_a_revoked_container_after_a_silence_does_so_although_the_loop_dies(
    dies: bool,
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e4, lingers=60))
    cloud.fault = lambda operation, cloud: TIMED_OUT if operation == "stop" else None
    engine = Harness(cloud)
    engine.options = replace(engine.options, stall_timeout=20.0)
    engine.new_loop()
    async with engine.running():
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await engine.until(lambda: engine.launched("a"))
        await anyio.sleep(20)
        engine.stop(first.launch_id)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(2)
        engine.silent_since = None
        engine.silences += 1
        await anyio.sleep(3)
        if not dies:
            await engine.until(lambda: len(cloud.of("a")) == 2)
    if dies:
        engine.new_loop()
        async with engine.running():
            await engine.until(lambda: len(cloud.of("a")) == 2)
    assert cloud.of("a")[1].created >= 20 + RULES.predecessor_wait


@in_virtual_time
@pytest.mark.parametrize("lingers", [0.0, 100.0])
async def test_a_container_that_is_over_but_still_stopping_weighs_no_more_than_one_that_is_over(
    lingers: float,
) -> None:
    cloud = FakeCloud(
        plan=lambda label, nth: Plan(duration=5, lingers=lingers) if nth == 1 else Plan(duration=5, exit_code=3)
    )
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(20)
        resumed = make_launch("a", started_by="ti-1")
        first.submit(resumed)
        await first.until(lambda: len(first.launched("a")) == 2)
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        second.adopt(replace(resumed, launch_id=launch_id()), Was.RUNNING)
        [finished] = await second.until(lambda: second.finished("a"))
    assert (finished.exit_code, finished.handle_id) == (3, cloud.of("a")[1].handle.id)


@in_virtual_time
async def test_what_a_person_stopped_is_not_launched_again_for_an_older_container_that_is_not_described() -> None:
    """Adopted while queued: the first container is an earlier queueing's, the second one a person has stopped."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5) if nth == 1 else Plan(start_after=1e5))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await first.until(lambda: first.finished("a"))
        await anyio.sleep(20)
        again = make_launch("a", started_by="ti-1")
        first.submit(again)
        await first.until(lambda: len(first.launched("a")) == 2)
    old, new = cloud.of("a")
    old.forgotten_until = 1e9
    new.stop_by_hand()
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        second.adopt(replace(again, launch_id=launch_id()), Was.QUEUED)
        await second.until(lambda: second.finished("a") or len(cloud.of("a")) > 2)
    assert len(cloud.of("a")) == 2
    assert [f.handle_id for f in second.finished("a")] == [new.handle.id]


@in_virtual_time
async def test_a_stuck_launchs_container_that_the_service_never_knew_is_not_taken_for_the_next_launchs() -> None:
    """The ledger itself knows whose it is: it was named in the answer to the revoked launch's request."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(hidden_for=1e9) if nth == 1 else Plan())
    engine = Harness(cloud, rules=replace(RULES, missing_grace=1000.0))
    engine.options = replace(engine.options, stall_timeout=20.0)
    engine.new_loop()
    async with engine.running():
        first = make_launch("a", started_by="ti-1")
        engine.submit(first)
        await engine.until(lambda: engine.launched("a"))
        await anyio.sleep(600)
        engine.stop(first.launch_id)
        engine.launch("a", started_by="ti-1")
        await anyio.sleep(1)
        engine.silent_since = anyio.current_time() - 30
        await anyio.sleep(2)
        engine.silent_since = None
        engine.silences += 1
        [finished] = await engine.until(lambda: engine.finished("a"))
    assert finished.success


@in_virtual_time
@pytest.mark.parametrize("was", [Was.RUNNING, Was.QUEUED])
async def test_a_mark_of_the_users_own_that_a_known_container_carries_leads_to_nobody_elses(was: Was) -> None:
    """The known container never started, what says where another would be fails, and "team" is on everything."""

    def render(launch: Launch) -> LaunchSpec:
        return LaunchSpec({"label": launch.label}, "default", "main", "FARGATE", None)

    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=label != "a", duration=1000))
    rules = replace(RULES, max_attempts=1)
    async with Harness(cloud, rules=rules, render=render).running() as first:
        original = make_launch("a", started_by="ti-1")
        first.submit(original)
        [known] = await first.until(lambda: first.launched("a"))
        first.launch("b")
        await first.until(lambda: first.launched("b"))
        await anyio.sleep(5)
    for container in cloud.containers.values():
        container.started_by = "team"

    def fails(launch: Launch) -> LaunchSpec:
        raise Rejected("the hook has failed")

    async with Harness(cloud, rules=rules, render=fails).running() as second:
        second.adopt(replace(original, launch_id=launch_id()), was, known.handle_id)
        await anyio.sleep(30)
        for record in second.ledger.records.values():
            second.stop(record.launch.launch_id)
        await anyio.sleep(30)
    assert cloud.of("b")[0].stop_reasons == []
    assert not any(one.handle_id == cloud.of("b")[0].handle.id for one in second.launched("a"))


@in_virtual_time
@pytest.mark.parametrize("marked", [False, True])
async def test_adopted_launches_share_no_token_after_the_users_own_mark_was_taken_out_of_the_configuration(
    marked: bool,
) -> None:
    """A startedBy "team" was configured until the scheduler was restarted; the first containers never started."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(starts=nth > 1, start_after=5, duration=100))
    originals = []
    async with Harness(cloud).running() as first:
        for label in "ab":
            originals.append(replace(make_launch(label), started_by=f"ti-{label}"))
            first.submit(originals[-1])
            await first.until(lambda: first.launched(label))  # noqa: B023
    for container in cloud.containers.values():
        if marked:
            container.started_by = "team"
    await anyio.sleep(10)
    async with Harness(cloud).running() as second:
        for original in originals:
            known = cloud.of(original.label)[0].handle.id
            second.adopt(replace(original, launch_id=launch_id()), Was.QUEUED, known)
        await second.until(lambda: second.finished("a") and second.finished("b"))
    assert [len(cloud.of(label)) for label in "ab"] == [2, 2]
    for label in "ab":
        assert [f.handle_id for f in second.finished(label)] == [cloud.of(label)[1].handle.id]


@in_virtual_time
@pytest.mark.parametrize("named", [True, False])
async def test_a_running_one_is_not_the_older_container_that_has_never_started(named: bool) -> None:
    """The stop of a revoked queueing's container died with its scheduler; the next one's is over by now."""
    cloud = FakeCloud(plan=lambda label, nth: Plan(start_after=1e6) if nth == 1 else Plan(duration=5))
    async with Harness(cloud).running() as first:
        first.launch("a", started_by="ti-1")
        await first.until(lambda: first.launched("a"))
    await anyio.sleep(60)
    again = make_launch("a", started_by="ti-1")
    async with Harness(cloud).running() as second:
        second.submit(again)
        await second.until(lambda: second.launched("a"))
    await anyio.sleep(10)
    old, new = cloud.of("a")
    async with Harness(cloud).running() as third:
        adopted = replace(again, launch_id=launch_id())
        third.adopt(adopted, Was.RUNNING, old.handle.id if named else None)
        [finished] = await third.until(lambda: third.finished("a"), timeout=300)
    assert (finished.success, finished.handle_id) == (True, new.handle.id)
