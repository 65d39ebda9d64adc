"""What a later try is launched with: rules and ends become a request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ecs_async_executor.core.choices import NO_CHOICES, Choices
from ecs_async_executor.core.endings import Ending
from ecs_async_executor.core.errors import ConfigurationError, Rejected
from ecs_async_executor.core.messages import Launch
from ecs_async_executor.core.retries import End
from ecs_async_executor.core.sizes import Size
from tests.adapter.scripted import ScriptedBatchExecutor, ScriptedExecutor, make_callback, make_workload, queue

KINDS = {"ecs": ScriptedExecutor, "batch": ScriptedBatchExecutor}
SMALL = Size(512, 2048)


class Tried:
    """An executor with rules, and task instances whose earlier tries ended as a test says."""

    def __init__(self, service: str, monkeypatch: pytest.MonkeyPatch, **options: Any) -> None:
        for name, value in options.items():
            section = "ECS" if service == "ecs" else "BATCH"
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"AIRFLOW__{section}_ASYNC_EXECUTOR__{name.upper()}", text)
        self.executor = KINDS[service]()
        self.executor.start()

    def launch(self, *ends: End, **of_ti: Any) -> Launch:
        number = max((end.try_number for end in ends), default=0) + 1
        queue(self.executor, make_workload(try_number=number, **of_ti))
        self.executor.heartbeat()
        launch: Launch = self.executor.scripted.launches[-1]
        key: Any = launch.key
        known = {end.try_number: end for end in ends}
        for earlier in range(1, number):
            self.executor.workloads._last_ends.wanted = True
            self.executor.workloads._last_ends.remember(key._replace(try_number=earlier), known.get(earlier))
        return launch

    def request(self, launch: Launch, choice: str | None = None) -> dict[str, Any]:
        return dict(self.executor.workloads.render(launch, choice).request)

    def overrides(self, *ends: End, **of_ti: Any) -> dict[str, Any]:
        """Return what a request changes of its task definition, or its job definition's container."""
        request = self.request(self.launch(*ends, **of_ti))
        if "overrides" in request:
            overrides: dict[str, Any] = request["overrides"]
            return {key: value for key, value in overrides.items() if key != "containerOverrides"}
        needs = request["containerOverrides"].get("resourceRequirements") or ()
        return {one["type"]: one["value"] for one in needs}

    def read(self, launch: Launch) -> str | None:
        """Return what the event log is going to say."""
        note: str | None = self.executor.workloads._last_ends.note_of(launch.launch_id, launch.key)
        return note


def oom(number: int = 1, size: Size | None = SMALL) -> End:
    return End(number, Ending.OOM, 137, size)


DOUBLE = {"when": "oom", "memory": "x2", "up to": "30 GB"}
STAY = {"cpu": "512", "memory": "2048"}
ECS: list[tuple[str, list[Any], dict[str, Any], list[End], dict[str, Any]]] = [
    ("a first try", [DOUBLE], {}, [], {}),
    ("twice, with the CPU that goes with it", [DOUBLE], {}, [oom()], {"cpu": "512", "memory": "4096"}),
    ("its CPU grows where Fargate wants it", [DOUBLE], {}, [oom(size=Size(512, 4096))],
     {"cpu": "1024", "memory": "8192"}),
    ("of a size that nobody knows", [DOUBLE], {}, [oom(size=None)], {}),
    ("of the size that the task asks for", [DOUBLE], {"memory": "1 GB", "cpu": 0.25}, [oom(size=None)],
     {"cpu": "256", "memory": "2048"}),
    ("of what the task asks for in the API's words", [DOUBLE], {"overrides": {"cpu": "256", "memory": "1024"}},
     [oom(size=None)], {"cpu": "256", "memory": "2048"}),
    ("more than the task asks for in the API's words", [DOUBLE], {"overrides": {"cpu": "512", "memory": "2048"}},
     [oom()], {"cpu": "512", "memory": "4096"}),
    ("the task asks for more by now", [DOUBLE], {"memory": "8 GB", "cpu": 2}, [oom()],
     {"cpu": "2048", "memory": "8192"}),
    ("up to", [DOUBLE], {}, [oom(size=Size(4096, 20 * 1024))], {"cpu": "4096", "memory": str(30 * 1024)}),
    ("the most is reached", [DOUBLE], {"cpu": 4}, [oom(size=Size(4096, 30 * 1024))],
     {"cpu": "4096", "memory": str(30 * 1024)}),
    ("twice in a row", [DOUBLE], {}, [oom(), oom(2, Size(512, 4096))], {"cpu": "1024", "memory": "8192"}),
    ("CPU", [{"when": "exit 75", "cpu": "x2"}], {}, [End(1, Ending.EXIT, 75, SMALL)], {"cpu": "1024"}),
    ("another exit code", [{"when": "exit 75", "cpu": "x2"}], {}, [End(1, Ending.EXIT, 76, SMALL)], {}),
    ("disk", [{"when": "any", "disk": "100 GB"}], {}, [End(1, Ending.HOST)],
     {"ephemeralStorage": {"sizeInGiB": 100}}),
    ("a parameter of the API's", [{"when": "image", "overrides": {"executionRoleArn": "arn"}}], {},
     [End(1, Ending.IMAGE)], {"executionRoleArn": "arn"}),
    ("the task's rules replace all others", [DOUBLE], {"retries": [{"when": "oom", "memory": "x1.5"}]}, [oom()],
     {"cpu": "512", "memory": "3072"}),
    ("the task has none", [DOUBLE], {"retries": []}, [oom()], {}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("rules", "config", "ends", "expected"), [row[1:] for row in ECS], ids=[r[0] for r in ECS]
)
def test_what_ecs_is_asked_for(
    rules: Any, config: Any, ends: list[End], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Tried("ecs", monkeypatch, retries=rules)
    assert tried.overrides(*ends, executor_config=config) == expected


@pytest.mark.parametrize(
    ("rules", "config", "ends", "expected"),
    [
        ([DOUBLE], {}, [], {}),
        ([DOUBLE], {}, [oom(size=Size(1024, 2048))], {"VCPU": "1", "MEMORY": "4096"}),
        ([DOUBLE], {"memory": "1 GB"}, [oom(size=None)], {"MEMORY": "2048"}),
        ([DOUBLE], {"containerOverrides": {"memory": 1024}}, [oom(size=None)], {"MEMORY": "2048"}),
        ([{"when": "spot", "cpu": "x2"}], {}, [End(1, Ending.SPOT, None, Size(1024, 2048))], {"VCPU": "2"}),
    ],
)
def test_what_batch_is_asked_for(
    rules: Any, config: Any, ends: list[End], expected: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Tried("batch", monkeypatch, retries=rules)
    assert tried.overrides(*ends, executor_config=config) == expected


def test_without_an_end_the_request_is_that_of_a_first_try(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE])
    launch = tried.launch(End(1, Ending.HOST), executor_config={"memory": "4 GB", "cpu": 1})
    course = tried.executor.workloads._steering.course(launch, None)
    assert course.config is launch.workload.ti.executor_config


def test_a_queues_rules_replace_those_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    queues = {"more": {"retries": [{"when": "oom", "memory": "x4"}]}, "none": {"retries": []}, "plain": {}}
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE], queues=queues)
    memory = {
        name: tried.overrides(oom(), task_id=name, queue=name).get("memory")
        for name in ("more", "none", "plain", "unknown")
    }
    assert memory == {"more": "8192", "none": None, "plain": "4096", "unknown": "4096"}


def test_what_a_queue_asks_for_counts_where_nothing_is_known_of_the_container(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    queues = {"small": {"memory": "1 GB", "cpu": 0.25}}
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE], queues=queues)
    assert tried.overrides(oom(size=None), queue="small") == {"cpu": "256", "memory": "2048"}


def test_on_instances_the_container_gets_more(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE])
    request = tried.request(tried.launch(oom(), executor_config={"launchType": "EC2"}))
    (container,) = request["overrides"]["containerOverrides"]
    assert (container["cpu"], container["memory"]) == (512, 4096)


def test_an_overridden_hook_sees_what_the_rules_change(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Hooked(ScriptedExecutor):
        def _run_task_kwargs(self, task_id: Any, cmd: Any, queue: Any, exec_config: Any) -> Any:
            seen.append(dict(exec_config))
            return super()._run_task_kwargs(task_id, cmd, queue, exec_config)

    monkeypatch.setitem(KINDS, "ecs", Hooked)
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE])
    assert tried.overrides(oom())["memory"] == "4096"
    assert seen == [{"cpu": "512 units", "memory": "4096 MB"}]


# --- placements ----------------------------------------------------------------------------------------------

ELSEWHERE = {"when": "spot", "capacity": "on-demand"}
SPOT = End(1, Ending.SPOT, 143, SMALL, "spot")


def test_a_rule_restricts_the_choices_of_the_next_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, placements="spot, on-demand", retries=[ELSEWHERE, DOUBLE])
    workloads = tried.executor.workloads
    assert workloads.choices(tried.launch()) == Choices(("spot", "on-demand"))
    second = tried.launch(SPOT)
    assert workloads.choices(second) == Choices(("on-demand",), elsewhere=("spot",))
    assert tried.request(second, "on-demand")["launchType"] == "FARGATE"
    assert tried.read(second) == "Try 2 is launched with placement on-demand: try 1 ended by a spot interruption."
    third = tried.launch(SPOT, oom(2))
    assert workloads.choices(third).names == ("on-demand",)
    request = tried.request(third, "on-demand")
    assert (request["launchType"], request["overrides"]["memory"]) == ("FARGATE", "4096")


def test_a_search_looks_wherever_a_scheduler_with_other_knowledge_would_have_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = Tried("ecs", monkeypatch, retries=[ELSEWHERE])
    workloads = tried.executor.workloads
    assert workloads.choices(tried.launch()) == NO_CHOICES
    assert workloads.choices(tried.launch()).everywhere == (None,)
    known = workloads.choices(tried.launch(SPOT, task_id="known"))
    assert (known.names, known.everywhere) == (("on-demand",), ("on-demand", None))
    unknown = workloads.choices(tried.launch(End(1, Ending.HOST), task_id="unknown"))
    assert (unknown.names, unknown.everywhere) == ((), (None, "on-demand"))


def test_a_callback_has_no_tries(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE, ELSEWHERE])
    queue(tried.executor, make_callback())
    tried.executor.heartbeat()
    launch = tried.executor.scripted.launches[-1]
    assert not tried.executor.workloads.lacks(launch)
    assert tried.executor.workloads.choices(launch) == NO_CHOICES
    assert "memory" not in tried.request(launch)["overrides"]


def test_a_later_try_does_not_share_the_route_of_a_first_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, retries=[DOUBLE])
    assert tried.launch().route == tried.launch(task_id="other").route
    routes = [tried.launch(*ends).route for ends in ((), (oom(),), (oom(), oom(2)))]
    assert len(set(routes)) == 3


def test_later_tries_share_no_route_as_each_has_other_ends_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch, retries=[ELSEWHERE])
    stays, moves = tried.launch(oom()), tried.launch(SPOT, task_id="other")
    assert [tried.executor.workloads.choices(one).names for one in (stays, moves)] == [(), ("on-demand",)]
    assert stays.route != moves.route


def test_a_later_try_with_rules_of_its_own_shares_no_route_even_if_it_is_the_first_to_have_some(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = Tried("ecs", monkeypatch)
    config = {"retries": [ELSEWHERE]}
    launches = []
    for name in ("a", "b"):
        queue(tried.executor, make_workload(try_number=2, task_id=name, executor_config=config))
        tried.executor.heartbeat()
        launches.append(tried.executor.scripted.launches[-1])
    assert launches[0].route != launches[1].route


def test_without_rules_every_try_shares_its_route(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = Tried("ecs", monkeypatch)
    queue(tried.executor, make_workload(try_number=3))
    tried.executor.heartbeat()
    assert tried.executor.scripted.launches[-1].route == "default"


# --- rules that cannot be used -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("own", "words"),
    [
        ({"when": "oom"}, "retries"),
        ([{"memory": "x2"}], "when"),
        ([{"when": "sometimes"}], "when"),
        ([{"when": "oom", "memory": "lots"}], "memory = 'lots'"),
        ([{"when": "oom", "memory": "x1"}], "makes nothing larger"),
        ([{"when": "spot", "capacity": "moon"}], "there is no placement 'moon'; there are spot, on-demand, ec2"),
        ([{"when": "spot", "cluster": "other"}], "retries\\[0\\].cluster cannot be a retry rule's"),
        ([{"when": "spot", "clustr": "other"}], "clustr"),
    ],
    ids=str,
)
@pytest.mark.parametrize("number", [1, 2])
def test_wrong_rules_of_a_task_fail_that_task_instance_alone(
    own: Any, words: str, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = Tried("ecs", monkeypatch)
    workloads = tried.executor.workloads
    wrong = tried.launch(*[SPOT][: number - 1], task_id="wrong", executor_config={"retries": own})
    assert not workloads.lacks(wrong)
    with pytest.raises(Rejected, match=rf"(?s)executor_config: .*{words}"):
        workloads.choices(wrong)
    assert workloads.choices(tried.launch()) == NO_CHOICES


def test_an_executors_rule_cannot_name_where_its_placement_should_go(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(
        ConfigurationError, match=r"retries\[0\].cluster cannot be a retry rule's: define a placement"
    ):
        Tried("ecs", monkeypatch, retries=[{"when": "spot", "cluster": "other"}])
