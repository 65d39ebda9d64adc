"""Several destinations on one loop and one ledger: one that is down holds up no other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest
from structlog.testing import capture_logs

from ecs_async_executor.core.backend import LaunchSpec
from ecs_async_executor.core.destinations import HOME, sent_to
from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.messages import AirflowState, Launch
from tests.engine.cloud import FakeCloud, Plan, There
from tests.engine.faults import EXPIRED, THROTTLED, failing
from tests.engine.harness import OPTIONS, QUOTA, Harness, make_launch, under_a_new_id

pytestmark = pytest.mark.anyio

FAR = replace(OPTIONS, destinations=("eu",))
FAR_QUOTA = replace(QUOTA, destinations=("eu",))
CLIENT_TIMEOUT = 15.0


def render(launch: Launch) -> LaunchSpec:
    """Send a launch to the destination that its route begins with."""
    destination, _, placement = ("" if launch.route is None else str(launch.route)).partition("/")
    spec = LaunchSpec({"label": launch.label}, "default", placement or "main", "FARGATE", launch.started_by)
    return sent_to(destination, spec)


def far_harness(cloud: FakeCloud, **fields: object) -> Harness:
    return Harness(cloud, **{"options": FAR, "render": render, **fields})  # type: ignore[arg-type]


def hang(there: There) -> None:
    there.hangs_for = CLIENT_TIMEOUT


def refuse_credentials(there: There) -> None:
    there.fault = lambda operation, cloud: EXPIRED


def throttle(there: There) -> None:
    there.fault = lambda operation, cloud: None if operation.endswith(":after") else THROTTLED


DOWN = pytest.mark.parametrize("goes_down", [hang, refuse_credentials, throttle])


def started(harness: Harness, prefix: str) -> list[str]:
    return [label for label in harness.handles() if label.startswith(prefix)]


# --- launching -----------------------------------------------------------------------------------------------


@DOWN
@pytest.mark.parametrize("routes", [1, 300])
async def test_launches_to_a_destination_that_is_down_delay_none_to_another(
    goes_down: Callable[[There], None], routes: int
) -> None:
    """With one route they are known to go there, with as many as launches each has to be rendered to know it."""
    cloud = FakeCloud()
    goes_down(cloud.there["eu"])
    async with far_harness(cloud, options=FAR_QUOTA).running() as harness:
        for n in range(300):
            harness.launch(f"eu{n}", route=f"eu/{n % routes}", priority=10)
        await anyio.sleep(30)  # every slot, permit and turn of theirs is taken by now
        for n in range(100):
            harness.launch(f"home{n}")
        began = anyio.current_time()
        await harness.until(lambda: len(started(harness, "home")) == 100, timeout=100)
    # A burst of ten, then 20 a second: as fast as if there were no other destination.
    assert anyio.current_time() - began < 6.0
    assert not started(harness, "eu")
    assert cloud.there["eu"].peak["launch"] <= OPTIONS.max_concurrent_launches


@DOWN
async def test_launches_at_home_that_is_down_delay_none_to_another_destination(
    goes_down: Callable[[There], None],
) -> None:
    cloud = FakeCloud()
    goes_down(cloud.there[HOME])
    async with far_harness(cloud, options=FAR_QUOTA).running() as harness:
        for n in range(300):
            harness.launch(f"home{n}", priority=10)
        await anyio.sleep(30)
        for n in range(100):
            harness.launch(f"eu{n}", route="eu")
        began = anyio.current_time()
        await harness.until(lambda: len(started(harness, "eu")) == 100, timeout=100)
    assert anyio.current_time() - began < 6.0


@DOWN
async def test_what_waited_for_a_destination_is_launched_once_it_is_back(
    goes_down: Callable[[There], None],
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=5))
    goes_down(cloud.there["eu"])
    async with far_harness(cloud).running() as harness:
        for n in range(20):
            harness.launch(f"eu{n}", route="eu")
            harness.launch(f"home{n}")
        await anyio.sleep(600)
        assert len(harness.finished()) == 20
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=120)
    assert all(end.success for end in harness.finished())
    assert {label: len(cloud.of(f"eu{label}")) for label in range(20)} == dict.fromkeys(range(20), 1)


async def test_each_destination_has_its_own_rate() -> None:
    cloud = FakeCloud()
    async with far_harness(cloud, options=replace(FAR_QUOTA, launch_rate_max=20.0)).running() as harness:
        for n in range(200):
            harness.launch(f"home{n}")
            harness.launch(f"eu{n}", route="eu")
        began = anyio.current_time()
        await harness.until(lambda: len(harness.handles()) == 400)
    assert 9.0 < anyio.current_time() - began < 11.0


async def test_each_destination_has_its_own_requests_in_flight() -> None:
    cloud = FakeCloud(latency=10.0)
    async with far_harness(cloud, options=replace(FAR, max_concurrent_launches=7)).running() as harness:
        for n in range(20):
            harness.launch(f"home{n}")
            harness.launch(f"eu{n}", route="eu")
        await anyio.sleep(5)
        assert {name: cloud.there[name].in_flight["launch"] for name in (HOME, "eu")} == {HOME: 7, "eu": 7}
        await harness.until(lambda: len(harness.handles()) == 40)
    assert {name: cloud.there[name].peak["launch"] for name in (HOME, "eu")} == {HOME: 7, "eu": 7}


async def test_a_launch_is_rendered_twice_at_most_to_learn_that_its_destination_is_down() -> None:
    cloud = FakeCloud()
    refuse_credentials(cloud.there["eu"])
    async with far_harness(cloud).running() as harness:
        for n in range(50):
            harness.launch(f"eu{n}", route=f"eu/{n}")
            harness.launch(f"same{n}", route="eu")
        await anyio.sleep(600)
        probes = cloud.there["eu"].calls["launch"]
    assert len(harness.rendered) <= 2 * 50 + probes + 50
    assert len([label for label in harness.rendered if label.startswith("same")]) <= 2 + probes


async def test_the_only_destination_that_is_down_has_nothing_rendered_for_nothing() -> None:
    cloud = FakeCloud(fault=failing("launch", EXPIRED))
    async with Harness(cloud).running() as harness:
        for n in range(50):
            harness.launch(f"w{n}", route=f"r{n}")
        await anyio.sleep(1)
        rendered, calls = len(harness.rendered), cloud.calls["launch"]
        for n in range(50):
            harness.launch(f"v{n}", route=f"q{n}")
        await anyio.sleep(100)
        assert len(harness.rendered) - rendered == cloud.calls["launch"] - calls > 3


# --- polling, searching, stopping ----------------------------------------------------------------------------


@DOWN
async def test_sweeps_over_a_destination_that_is_down_delay_none_over_another(
    goes_down: Callable[[There], None],
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=40))
    options = replace(FAR, max_concurrent_describes=2, describe_rate=20.0, describe_burst=20.0)
    async with far_harness(cloud, options=options).running() as harness:
        for n in range(900):
            harness.launch(f"eu{n}", route="eu")
        for n in range(100):
            harness.launch(f"home{n}")
        await harness.until(lambda: len(harness.handles()) == 1000)
        goes_down(cloud.there["eu"])
        await harness.until(lambda: len(harness.finished()) == 100, timeout=100)
        seen = anyio.current_time()
        ended = max(
            container.ends_at for container in cloud.containers.values() if container.label.startswith("h")
        )
        assert seen - ended < 2.5
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=300)


async def test_a_destination_is_polled_as_long_as_it_has_containers() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=20))
    async with far_harness(cloud).running() as harness:
        harness.launch("a", route="eu")
        await harness.until_finished("a")
        calls = cloud.there["eu"].calls["describe"]
        assert calls > 15
        await anyio.sleep(600)
        assert cloud.there["eu"].calls["describe"] <= calls + 2
        harness.launch("b", route="eu")
        await harness.until_finished("b", timeout=40)


@DOWN
async def test_searches_in_a_destination_that_is_down_delay_none_in_another(
    goes_down: Callable[[There], None],
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1000))
    async with far_harness(cloud).running() as first:
        launches = [make_launch(f"eu{n}", route="eu") for n in range(400)]
        launches += [make_launch(f"home{n}") for n in range(100)]
        first.submit(*launches)
        await first.until(lambda: len(cloud.containers) == 500)
    goes_down(cloud.there["eu"])
    async with far_harness(cloud, options=replace(FAR, describe_rate=200.0)).running() as second:
        for launch in launches:
            second.adopt(launch, AirflowState.QUEUED)
        await second.until(lambda: len(started(second, "home")) == 100, timeout=20)
        assert not started(second, "eu")
        cloud.there["eu"] = There()
        await second.until(lambda: len(second.handles()) == 500, timeout=300)
    assert len(cloud.containers) == 500


@DOWN
async def test_stops_in_a_destination_that_is_down_delay_none_in_another(
    goes_down: Callable[[There], None],
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    async with far_harness(cloud).running() as harness:
        ids = [harness.launch(f"eu{n}", route="eu") for n in range(50)]
        ids += [harness.launch(f"home{n}") for n in range(50)]
        await harness.until(lambda: len(harness.handles()) == 100)
        goes_down(cloud.there["eu"])
        for launch_id in ids:
            harness.stop(launch_id)
        await anyio.sleep(5.0)  # the burst, and 40 a second
        assert all(one.stopped for one in cloud.containers.values() if one.label.startswith("home"))
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=300)


async def test_the_end_stops_the_containers_of_a_destination_while_requests_to_another_hang() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    harness = far_harness(cloud)
    async with harness.running_until_drained():
        for n in range(10):
            harness.launch(f"home{n}")
        await harness.until(lambda: len(harness.handles()) == 10)
        hang(cloud.there["eu"])
        harness.launch("eu", route="eu")
        await anyio.sleep(1.0)
        began = anyio.current_time()
        harness.drain("terminated")
        await harness.until(lambda: all(c.stop_reasons for c in cloud.containers.values()), timeout=2.0)
        assert anyio.current_time() - began < 2.0
        cloud.there["eu"] = There()
    # The request that hung has had its time before anybody looks for what it may have made.
    assert CLIENT_TIMEOUT - 2.0 < anyio.current_time() - began < CLIENT_TIMEOUT + 60.0


async def test_a_new_loop_goes_on_with_every_destination() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=30))
    harness = far_harness(cloud)
    async with harness.running():
        for n in range(5):
            harness.launch(f"home{n}")
            harness.launch(f"eu{n}", route="eu")
        await harness.until(lambda: len(harness.handles()) == 10)
        hang(cloud.there["eu"])
        in_flight = harness.launch("in flight", route="eu")
        await anyio.sleep(1.0)
    cloud.there["eu"] = There()
    harness.new_loop()
    async with harness.running():
        await harness.until(lambda: len(harness.finished()) == 11, timeout=60)
    assert all(end.success for end in harness.finished())
    assert len(cloud.containers) == 11
    assert in_flight in {end.launch_id for end in harness.finished()}


# --- where a container is ------------------------------------------------------------------------------------


async def adopted(
    cloud: FakeCloud, launch: Launch, was: AirflowState, handle_id: str, rendered: Callable[[Launch], LaunchSpec]
) -> Harness:
    """Adopt a launch, and return what knows of it a minute later."""
    async with far_harness(cloud, render=rendered).running() as second:
        second.adopt(launch, was, handle_id)
        await anyio.sleep(60)
        second.take()
        return second


async def launched_far(cloud: FakeCloud) -> tuple[Launch, str]:
    async with far_harness(cloud).running() as first:
        launch = make_launch("a", route="eu")
        first.submit(launch)
        handle_id = (await first.until_launched("a")).handle_id
        await anyio.sleep(5)
    return launch, handle_id


@pytest.mark.parametrize("was", [AirflowState.RUNNING, AirflowState.QUEUED])
@pytest.mark.parametrize("arns", [True, False])
async def test_an_adopted_container_is_found_where_its_identifier_or_its_request_says(
    was: AirflowState, arns: bool
) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), elsewhere=["eu"], arns=arns)
    launch, handle_id = await launched_far(cloud)
    home_reads = cloud.there[HOME].calls["describe"]
    second = await adopted(cloud, launch, was, handle_id, render)
    assert second.phases("a") == ["running"]
    assert cloud.there[HOME].calls["describe"] == home_reads, "nobody asks where it cannot be"
    assert len(cloud.containers) == 1


async def test_a_container_whose_request_cannot_be_made_any_more_is_asked_for_everywhere() -> None:
    def fails(launch: Launch) -> LaunchSpec:
        raise Rejected("the hook has failed")

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), elsewhere=["eu"], arns=False)
    launch, handle_id = await launched_far(cloud)
    second = await adopted(cloud, launch, AirflowState.RUNNING, handle_id, fails)
    assert second.phases("a") == ["running"]


async def test_a_container_that_may_be_in_a_destination_that_is_down_is_not_given_up() -> None:
    def fails(launch: Launch) -> LaunchSpec:
        raise Rejected("the hook has failed")

    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5), elsewhere=["eu"], arns=False)
    launch, handle_id = await launched_far(cloud)
    hang(cloud.there["eu"])
    async with far_harness(cloud, render=fails).running() as second:
        second.adopt(launch, AirflowState.RUNNING, handle_id)
        await anyio.sleep(3600)
        assert second.phases("a") == ["checking"]
        cloud.there["eu"] = There()
        await second.until(lambda: second.phases("a") == ["running"], timeout=60)
    assert not second.finished("a")


@pytest.mark.parametrize("told", [True, False])
async def test_adoption_makes_no_call_before_its_commit_and_finds_what_went_elsewhere(told: bool) -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=100), elsewhere=["eu"])
    launch, handle_id = await launched_far(cloud)
    async with far_harness(cloud).running() as second:
        second.adopt(under_a_new_id(launch), AirflowState.QUEUED, handle_id if told else None)
        assert not second.cloud.there[HOME].calls
        finished = await second.until_finished("a", timeout=300)
    assert (finished.success, finished.handle_id) == (True, handle_id)
    assert len(cloud.containers) == 1


async def test_a_request_in_doubt_is_not_sent_to_another_destination() -> None:
    cloud, moved = FakeCloud(), False

    def moves(launch: Launch) -> LaunchSpec:
        return replace(sent_to("" if moved else "eu", render(launch)), expires_at=0.0)

    async with far_harness(cloud, render=moves).running() as harness:
        hang(cloud.there["eu"])
        harness.launch("a")
        await anyio.sleep(10)
        moved = True
        await anyio.sleep(60)
        assert not cloud.there[HOME].calls["launch"], "the first one may have made a container"
        cloud.there["eu"] = There()
        await harness.until_idle(timeout=300)


# --- what people see -----------------------------------------------------------------------------------------


async def test_a_destination_that_is_down_pauses_nothing_else_and_is_named() -> None:
    cloud = FakeCloud(plan=lambda label, nth: Plan(duration=1e5))
    refuse_credentials(cloud.there["eu"])
    with capture_logs() as logs:
        async with far_harness(cloud).running() as harness:
            far = {harness.launch(f"eu{n}", route="eu") for n in range(5)}
            harness.launch("home")
            await anyio.sleep(120)
    shown = harness.snapshots[-1]
    assert shown.paused is None
    assert shown.stranded == far
    at = {one.name: one for one in shown.destinations}
    assert (at[HOME].trouble, at[HOME].active, at[HOME].pending) == (None, 1, 0)
    assert (at["eu"].active, at["eu"].pending) == (0, 5)
    assert at["eu"].trouble is not None
    assert at["eu"].trouble.startswith("AWS credentials: ExpiredTokenException")
    assert shown.launch_rate == at[HOME].launch_rate
    told = [line["destinations"] for line in logs if line["event"].endswith(".work")]
    assert told[-1] == {"eu": at["eu"].trouble}
    paused = [line for line in logs if line["event"].endswith("credentials.paused")]
    assert [line["destination"] for line in paused] == ["eu"]


async def test_a_destination_that_answers_nothing_or_is_throttled_is_named() -> None:
    cloud = FakeCloud()
    hang(cloud.there["eu"])
    cloud.there["us"].quota = 2.0
    options = replace(FAR_QUOTA, destinations=("eu", "us"))
    async with far_harness(cloud, options=options).running() as harness:
        harness.launch("eu", route="eu")
        for n in range(400):
            harness.launch(f"us{n}", route="us")
        await anyio.sleep(100)
    trouble = {one.name: one.trouble for one in harness.snapshots[-1].destinations}
    assert trouble[HOME] is None
    assert trouble["eu"] == "AWS does not answer: ReadTimeoutError: Read timeout"
    assert trouble["us"] is not None
    assert trouble["us"].startswith("throttled to ")
    assert harness.snapshots[-1].paused is None
    assert len(harness.snapshots[-1].stranded) == 1 + 400 - len(started(harness, "us"))


async def test_everything_is_paused_once_every_destination_is_down() -> None:
    cloud = FakeCloud()
    refuse_credentials(cloud.there["eu"])
    async with far_harness(cloud).running() as harness:
        harness.launch("eu", route="eu")
        await anyio.sleep(10)
        assert harness.snapshots[-1].paused is None
        refuse_credentials(cloud.there[HOME])
        harness.launch("home")
        await anyio.sleep(10)
        assert str(harness.snapshots[-1].paused).startswith("AWS credentials")
        cloud.there["eu"] = There()
        await harness.until_launched("eu", timeout=60)
        await anyio.sleep(1)
        assert harness.snapshots[-1].paused is None


async def test_a_destination_that_no_launch_has_gone_to_yet_can_be_launched_at_while_home_is_down() -> None:
    cloud = FakeCloud()
    refuse_credentials(cloud.there[HOME])
    async with far_harness(cloud).running() as harness:
        harness.launch("home")
        await anyio.sleep(10)
        assert harness.snapshots[-1].paused is None
        harness.launch("eu", route="eu")
        await harness.until_launched("eu", timeout=5)


async def test_with_home_alone_no_destination_is_shown() -> None:
    cloud = FakeCloud(fault=failing("launch", EXPIRED))
    async with Harness(cloud).running() as harness:
        harness.launch("a")
        await anyio.sleep(10)
    assert harness.snapshots[-1].destinations == ()
    assert not harness.snapshots[-1].stranded
    assert str(harness.snapshots[-1].paused).startswith("AWS credentials")
