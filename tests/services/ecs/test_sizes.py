"""What a launch on ECS asks for with cpu, memory and so on, as RunTask gets it."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services import ecs, fargate
from ecs_async_executor.services.ecs.sizes import size_of
from ecs_async_executor.services.requests import Layered
from tests.services.ecs.samples import container, request, settings, spec
from tests.services.samples import COMMAND, MARK, patient

FARGATE: dict[str, Any] = {"launch_type": "FARGATE"}
EC2: dict[str, Any] = {"launch_type": "EC2"}
IMAGE = (
    "image: RunTask cannot change it: register a task definition with that image, and name that in "
    "taskDefinition, for a queue or for the task"
)


def sent(executor_config: Any, queue: dict[str, Any] | None = None, **options: Any) -> tuple[Any, Any]:
    """Return the overrides of the task and those of Airflow's container; the SDK takes what is sent."""
    made = request(executor_config, queue, **options)
    assert not list(ecs.wrong_parameters(ecs.launch_spec(made, started_by="mark").request))
    task = {key: value for key, value in made["overrides"].items() if key != "containerOverrides"}
    own = dict(ecs.container_for(made, "airflow"))
    assert (own.pop("name"), own.pop("command")) == ("airflow", COMMAND)
    assert own["environment"].pop() == MARK
    if not own["environment"]:
        del own["environment"]
    return task, own


def reason(executor_config: Any, queue: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(Rejected) as caught:
        request(executor_config, queue, **{**FARGATE, **options})
    return caught.value.reason


# --- by launch type --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor_config", "task"),
    [
        ({"cpu": 1, "memory": "4 GB"}, {"cpu": "1024", "memory": "4096"}),
        ({"cpu": 256, "memory": 512}, {"cpu": "256", "memory": "512"}),  # as for airflow-aws-executors
        ({"cpu": "0.5 vCPU", "memory": "2.5 GB"}, {"cpu": "512", "memory": "3072"}),
        ({"cpu": 1, "memory": "1 GB"}, {"cpu": "1024", "memory": "2048"}),
        ({"cpu": 0.25, "memory": "8 GB"}, {"cpu": "1024", "memory": "8192"}),
        ({"cpu": 3}, {"cpu": "4096"}),
        ({"memory": "2500 MB"}, {"memory": "3072"}),
        ({"cpu": 32, "memory": "200 GB"}, {"cpu": "32768", "memory": "249856"}),
        ({"disk": "50 GB"}, {"ephemeralStorage": {"sizeInGiB": 50}}),
        ({"disk": 5}, {"ephemeralStorage": {"sizeInGiB": 21}}),
        ({"gpu": 0}, {}),
        ({"round_up": False, "cpu": 2, "memory": "16 GB"}, {"cpu": "2048", "memory": "16384"}),
    ],
)
@pytest.mark.parametrize(
    "options",
    [
        FARGATE,
        {},  # what the cluster's default is, is not known: Fargate, as for everything else
        {"capacity_provider_strategy": ({"capacityProvider": "FARGATE_SPOT"}, {"capacityProvider": "FARGATE"})},
    ],
)
def test_on_fargate_the_task_has_the_size(executor_config: Any, task: Any, options: Any) -> None:
    assert sent(executor_config, **options) == (task, {})


@pytest.mark.parametrize(
    ("executor_config", "own"),
    [
        ({"cpu": 1, "memory": "4 GB"}, {"cpu": 1024, "memory": 4096}),
        ({"cpu": 3, "memory": "2500 MB"}, {"cpu": 3072, "memory": 2500}),
        ({"cpu": 256, "memory": 512}, {"cpu": 256, "memory": 512}),
        ({"gpu": 2}, {"resourceRequirements": [{"type": "GPU", "value": "2"}]}),
        ({"gpu": 0}, {}),
        ({"memory": "4 GB", "round_up": False}, {"memory": 4096}),
    ],
)
@pytest.mark.parametrize(
    "options",
    [EC2, {"launch_type": "EXTERNAL"}, {"capacity_provider_strategy": ({"capacityProvider": "mine"},)}],
)
def test_elsewhere_the_container_has_it(executor_config: Any, own: Any, options: Any) -> None:
    assert sent(executor_config, **options) == ({}, own)


def test_the_launch_type_that_counts_is_that_of_the_last_layer() -> None:
    sized = {"cpu": 1, "memory": "4 GB"}
    assert sent({**sized, "launchType": "EC2", "taskDefinition": "other"}, **FARGATE) == (
        {},
        {"cpu": 1024, "memory": 4096},
    )
    assert sent(sized, {"launchType": "FARGATE"}, **EC2) == ({"cpu": "1024", "memory": "4096"}, {})
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    assert sent(spot, sized, **EC2) == ({"cpu": "1024", "memory": "4096"}, {})


@pytest.mark.parametrize(
    "launch", [{"launchType": "EC2"}, {"capacityProviderStrategy": [{"capacityProvider": "m"}]}]
)
def test_on_an_instance_the_task_has_the_size_if_its_definition_is_one_for_fargate(launch: dict[str, Any]) -> None:
    """Such a definition has a size for the whole task, which no container may exceed."""
    config = {"cpu": 3, "memory": "2500 MB", "gpu": 1, **launch}
    gpu = {"resourceRequirements": [{"type": "GPU", "value": "1"}]}
    assert sent(config, **FARGATE) == ({"cpu": "3072", "memory": "2500"}, gpu)
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    assert sent(config, spot, **EC2) == ({"cpu": "3072", "memory": "2500"}, gpu)
    assert sent({"memory": "4 GB", **launch}, container(memory=2048), **FARGATE) == (
        {"memory": "4096"},
        {"memory": 4096},
    )
    # Nothing says that this definition is for Fargate too.
    assert sent(config, **EC2) == ({}, {"cpu": 3072, "memory": 2500, **gpu})
    # Here the cluster's default may be Fargate.
    assert sent(config) == ({"cpu": "3072", "memory": "2500"}, {"cpu": 3072, "memory": 2500, **gpu})
    assert sent({**config, "taskDefinition": "other"}, **FARGATE) == ({}, {"cpu": 3072, "memory": 2500, **gpu})


cpus = st.one_of(st.integers(1, 32), st.decimals("0.01", "32", places=2).map(lambda one: f"{one} vCPU"))
memories = st.one_of(st.integers(128, 249856), st.decimals("0.1", "244", places=1).map(lambda one: f"{one} GB"))


@patient
@given(cpus, memories, st.integers(1, 200))
def test_a_task_on_fargate_has_at_least_what_is_asked_for_and_a_size_that_exists(
    cpu: Any, memory: Any, disk: int
) -> None:
    asked = size_of(request({"cpu": cpu, "memory": memory}, **EC2), "airflow")[1]
    size, _ = size_of(request({"cpu": cpu, "memory": memory, "disk": disk}, **FARGATE), "airflow")
    assert asked.cpu is not None
    assert asked.memory is not None
    assert size.cpu is not None
    assert size.memory is not None
    assert size.cpu >= asked.cpu
    assert size.memory >= asked.memory
    assert fargate.is_valid(size.cpu, size.memory)
    assert size.disk == max(21, disk)


# --- layers ----------------------------------------------------------------------------------------------------


def test_a_later_layer_wins_however_it_says_it() -> None:
    in_words, by_api = {"cpu": 1, "memory": "4 GB"}, {"overrides": {"cpu": "2048", "memory": "8192"}}
    assert sent(in_words, by_api, **FARGATE)[0] == {"cpu": "1024", "memory": "4096"}
    assert sent(by_api, in_words, **FARGATE)[0] == {"cpu": "2048", "memory": "8192"}
    assert sent({"memory": "3 GB"}, in_words, **FARGATE)[0] == {"cpu": "1024", "memory": "3072"}
    assert sent({}, in_words, **FARGATE, run_task_kwargs=by_api)[0] == {"cpu": "1024", "memory": "4096"}


def test_a_size_for_all_tasks_can_stand_in_the_section_itself() -> None:
    kwargs = {"cpu": 1, "memory": "4 GB", "environment": {"STAGE": "prod"}}
    assert sent({}, run_task_kwargs=kwargs, **FARGATE) == (
        {"cpu": "1024", "memory": "4096"},
        {"environment": [{"name": "STAGE", "value": "prod"}]},
    )


def test_units_that_ecs_takes_in_overrides_are_read() -> None:
    by_api = {"overrides": {"cpu": "1 vCPU", "memory": "4 GB"}}
    assert sent(by_api, **FARGATE)[0] == by_api["overrides"]
    assert sent({"cpu": 1, "memory": "4 GB", **by_api}, **FARGATE)[0] == {"cpu": "1024", "memory": "4096"}
    assert sent({"memory": "8 GB"}, **FARGATE, run_task_kwargs={"overrides": {"cpu": "0.25 vCPU"}})[0] == {
        "cpu": "1024",
        "memory": "8192",
    }


def test_what_the_request_already_says_of_the_rest_counts_for_the_size() -> None:
    assert sent({"memory": "8 GB"}, **FARGATE, run_task_kwargs={"overrides": {"cpu": "256"}})[0] == {
        "cpu": "1024",
        "memory": "8192",
    }


def test_the_layers_of_placements_and_retries_are_layers_too() -> None:
    task = {"overrides": {"memory": "4096", "cpu": "1024"}, "launchType": "FARGATE"}
    more = {"memory": "8 GB"}
    assert sent(Layered(task, more))[0] == {"cpu": "1024", "memory": "8192"}
    spot = {"capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}]}
    made = request(Layered(spot, task, more))
    assert (made["launchType"], "capacityProviderStrategy" in made) == ("FARGATE", False)
    assert Layered(spot, task, more) == {**task, **more}


@pytest.mark.parametrize(
    ("executor_config", "options", "place"),
    [
        ({"cpu": 1, "overrides": {"cpu": "512"}}, FARGATE, "cpu = 1 vCPU, but overrides.cpu = 0.5 vCPU"),
        (
            {"memory": "1 GB", "overrides": {"memory": "512"}},
            FARGATE,
            "memory = 1 GB, but overrides.memory = 512 MB",
        ),
        (
            {"disk": 30, "overrides": {"ephemeralStorage": {"sizeInGiB": 40}}},
            FARGATE,
            "disk = 30 GB, but overrides.ephemeralStorage = 40 GB",
        ),
        (
            {"memory": "1 GB", "overrides": {"memory": "2GB"}},
            FARGATE,
            "memory = 1 GB, but overrides.memory = 2 GB",
        ),
        ({"cpu": 1, "overrides": {"cpu": ".5 vCPU"}}, FARGATE, "cpu = 1 vCPU, but overrides.cpu = 0.5 vCPU"),
        ({"cpu": 1, "overrides": {"cpu": "hunter2"}}, FARGATE, "cpu = 1 vCPU, but overrides.cpu = str"),
        (
            {"memory": "1 GB", "overrides": {"memory": ["hunter2"]}},
            FARGATE,
            "memory = 1 GB, but overrides.memory = list",
        ),
        ({"cpu": 1} | container(cpu=512), EC2, "cpu = 1 vCPU, but cpu of container 'airflow' = 0.5 vCPU"),
        (
            {"gpu": 1} | container(resourceRequirements=[{"type": "GPU", "value": "2"}]),
            EC2,
            "gpu = 1, but resourceRequirements of container 'airflow' = 2",
        ),
    ],
)
def test_a_layer_that_contradicts_itself_is_rejected(executor_config: Any, options: Any, place: str) -> None:
    assert reason(executor_config, **options) == f"{place}: remove one of them"


def test_a_layer_may_say_the_same_twice() -> None:
    assert sent({"cpu": 1, "overrides": {"cpu": "1024"}}, **FARGATE)[0] == {"cpu": "1024"}


def test_on_fargate_the_share_of_a_container_is_no_contradiction() -> None:
    config = {"cpu": 1, "memory": "4 GB"} | container(cpu=512, memory=2048)
    assert sent(config, **FARGATE) == ({"cpu": "1024", "memory": "4096"}, {"cpu": 512, "memory": 2048})


def test_a_limit_from_an_earlier_layer_does_not_keep_the_container_below_what_is_asked_for() -> None:
    assert sent({"memory": "4 GB"}, container(memory=2048), **FARGATE)[1] == {"memory": 4096}
    assert sent({"memory": "1 GB"}, container(memory=2048), **FARGATE)[1] == {"memory": 2048}
    assert sent(container(memory=2048), {"memory": "4 GB"}, **FARGATE)[1] == {"memory": 2048}
    whole = {"overrides": {"cpu": "256", "memory": "512"}}
    assert sent({"cpu": 1, "memory": "4 GB"}, whole, **EC2)[0] == {"cpu": "1024", "memory": "4096"}
    assert sent({"memory": "256 MB"}, whole, **EC2)[0] == {"cpu": "256", "memory": "512"}
    assert sent({"memory": "512 MB"}, container(memoryReservation=600), **EC2)[1] == {"memory": 512}


def test_gpus_replace_gpus_and_nothing_else() -> None:
    accelerator = {"type": "InferenceAccelerator", "value": "device_1"}
    queue = container(resourceRequirements=[{"type": "GPU", "value": "1"}, accelerator])
    assert sent({"gpu": 4}, queue, **EC2)[1]["resourceRequirements"] == [
        accelerator,
        {"type": "GPU", "value": "4"},
    ]
    assert sent({"gpu": 0}, queue, **EC2)[1]["resourceRequirements"] == [accelerator]
    assert sent({"gpu": 0}, queue, **FARGATE)[1]["resourceRequirements"] == [accelerator]


# --- environment -----------------------------------------------------------------------------------------------


def test_an_environment_is_an_object_of_names_and_values() -> None:
    values = {"TEXT": "v", "COUNT": 3, "RATE": 0.5, "ON": True, "OFF": False, "EMPTY": ""}
    assert sent({"environment": values}, **FARGATE)[1]["environment"] == [
        {"name": "TEXT", "value": "v"},
        {"name": "COUNT", "value": "3"},
        {"name": "RATE", "value": "0.5"},
        {"name": "ON", "value": "true"},
        {"name": "OFF", "value": "false"},
        {"name": "EMPTY", "value": ""},
    ]


def test_variables_are_merged_by_name() -> None:
    listed = container(environment=[{"name": "A", "value": "kwargs"}, {"name": "B", "value": "kwargs"}])
    assert sent({"environment": {"C": "task"}}, {"environment": {"B": "q", "C": "q"}}, run_task_kwargs=listed)[
        1
    ] == {
        "environment": [
            {"name": "A", "value": "kwargs"},
            {"name": "B", "value": "q"},
            {"name": "C", "value": "task"},
        ]
    }
    # A list replaces the list before it, as always, and gives its variables the last word.
    assert sent(container(environment=[{"name": "C", "value": "task"}]), {"environment": {"B": "q", "C": "q"}})[
        1
    ] == {"environment": [{"name": "C", "value": "task"}, {"name": "B", "value": "q"}]}


def test_the_form_of_the_api_is_an_environment_too() -> None:
    listed = [{"name": "A", "value": "1"}]
    assert sent({"environment": listed})[1] == {"environment": listed}


@pytest.mark.parametrize(
    ("environment", "said"),
    [
        ("hunter2", 'environment must be an object such as {"NAME": "value"}, not str'),
        (["hunter2"], "environment must be an object"),
        (None, 'environment must be an object such as {"NAME": "value"}, not nothing'),
        ({"A": None}, "environment: A must be text, a number, true or false, not nothing"),
        ({"A": ["hunter2"]}, "environment: A must be text, a number, true or false, not list; write a structure"),
        ({"A": float("nan")}, "environment: A must be text"),
        ({"": "hunter2"}, "environment: each name must be text without =, and not empty"),
        ({"A=B": "hunter2"}, "environment: each name must be"),
        ({1: "hunter2"}, "environment: each name must be"),
        (
            {"AIRFLOW_IS_EXECUTOR_CONTAINER": "hunter2"},
            "environment: AIRFLOW_IS_EXECUTOR_CONTAINER is set by the executor; remove it",
        ),
    ],
)
def test_a_wrong_environment_is_rejected_without_its_values(environment: Any, said: str) -> None:
    found = reason({"environment": environment})
    assert said in found
    assert "hunter2" not in found


def test_one_variable_with_two_values_is_a_contradiction() -> None:
    both = {"environment": {"A": "hunter2"}} | container(environment=[{"name": "A", "value": "hunter3"}])
    assert reason(both) == "environment and the list of variables give A different values"


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor_config", "said"),
    [
        ({"image": "repo:tag"}, IMAGE),
        (
            {"command_timeout": 60},
            "command_timeout: RunTask has no time limit: set execution_timeout of the Airflow task",
        ),
        ({"command_timeout": timedelta(hours=1)}, "command_timeout: RunTask has no time limit"),
        (
            {"gpu": 1},
            "gpu = 1: Fargate has no GPUs; use the launch type EC2, or a capacity provider of GPU instances",
        ),
        (
            {"cpu": 1, "memory": "2.5 GB", "round_up": False},
            (
                "cpu and memory = 1 vCPU with 2.5 GB: Fargate has no such size; the nearest are 1 vCPU with 2 GB "
                "and 1 vCPU with 3 GB, or leave round_up out to get the larger one"
            ),
        ),
        (
            {"cpu": 3, "round_up": False},
            "cpu = 3 vCPU: Fargate has no such size; the nearest are 2 vCPU and 4 vCPU",
        ),
        (
            {"memory": "300 GB"},
            "memory = 300 GB: Fargate has at most 32 vCPU and 244 GB; ask for less, or use the launch type EC2",
        ),
        ({"cpu": "64 vCPU"}, "cpu = 64 vCPU: Fargate has at most"),
        ({"disk": 201}, "disk = 201 GB: Fargate has at most 200 GB; ask for less, or add an EBS volume with"),
        ({"disk": 20, "round_up": False}, "disk = 20 GB: the least is 21 GB; write that, or leave disk out"),
        ({"round_up": "yes"}, "round_up must be true or false, not str"),
        ({"cpu": 64}, 'cpu = 64 could mean vCPUs or CPU units: write "64 vCPU" or "64 units"'),
        ({"memory": 4}, 'memory = 4 would be 4 MiB: write "4 GB" or "4 MB"'),
        ({"cpu": "many", "memory": "much"}, "cpu = 'many' cannot be read"),
        ({"cpu": "many", "memory": "much"}, "; memory = 'much' cannot be read"),
        ({"cpu": 1, "bogus": 2, "image": "i"}, "image: RunTask cannot change it"),
    ],
)
def test_what_cannot_be_had_is_rejected_with_the_way_out(executor_config: Any, said: str) -> None:
    assert said in reason(executor_config)


def test_disk_is_for_fargate_alone() -> None:
    assert reason({"disk": "50 GB"}, launch_type="EC2") == (
        "disk = 50 GB: only Fargate takes it from a request; elsewhere a container has the disk of its instance, "
        "or a volume of its task definition"
    )


def test_the_parameters_of_a_rule_are_checked_before_any_launch() -> None:
    rule = {"cpu": 64, "image": "i", "environment": {"A": []}, "roundUp": 1, "memory": "4 GB", "bogus": 1}
    assert list(ecs.wrong_parameters(rule)) == [
        'cpu = 64 could mean vCPUs or CPU units: write "64 vCPU" or "64 units"',
        IMAGE,
        "environment: A must be text, a number, true or false, not list; write a structure as JSON text",
        "round_up must be true or false, not int",
        *list(ecs.wrong_parameters({"bogus": 1})),
    ]
    assert not list(ecs.wrong_parameters({"cpu": 1, "memory": "4 GB", "roundUp": False, "environment": {"A": 1}}))


# --- the rest --------------------------------------------------------------------------------------------------


def test_nothing_that_is_given_is_changed() -> None:
    base = ecs.base_request(
        settings(**FARGATE, run_task_kwargs=container(environment=[{"name": "A", "value": "1"}]))
    )
    queue: dict[str, Any] = {"cpu": 1, "environment": {"B": "2"}}
    config: dict[str, Any] = {"memory": "4 GB", "environment": {"A": "3"}, "gpu": 0}
    before = copy.deepcopy((base, queue, config))
    for _ in range(2):
        ecs.workload_request(base, queue, config, "airflow", COMMAND)
        assert (base, queue, config) == before


def test_each_size_has_a_gate_of_its_own() -> None:
    configs = [{}, {"cpu": 1}, {"cpu": 1, "memory": "4 GB"}, {"cpu": 1, "memory": "5 GB"}]
    assert len({spec(one).placement for one in configs}) == len(configs)
    assert spec({"cpu": 1}).placement == spec({"overrides": {"cpu": "1024"}}).placement


@pytest.mark.parametrize(
    ("executor_config", "options", "lines"),
    [
        (
            {"cpu": 1, "memory": "4 GB"},
            FARGATE,
            [
                "Size of the task: 1 vCPU, 4 GB.",
                (
                    "An hour costs $0.0583 on x86, $0.0466 on ARM: list prices of August 2026, us-east-1, on "
                    "demand, without tax and network."
                ),
            ],
        ),
        (
            {
                "cpu": 1,
                "memory": "4 GB",
                "disk": 120,
                "capacityProviderStrategy": [{"capacityProvider": "FARGATE_SPOT"}],
            },
            {},
            [
                "Size of the task: 1 vCPU, 4 GB, 120 GB disk.",
                (
                    "An hour costs $0.0694 on x86, $0.0577 on ARM: list prices of August 2026, us-east-1, on "
                    "demand, without tax and network. On Spot it is less, and varies."
                ),
            ],
        ),
        (
            {"memory": "4 GB"},
            FARGATE,
            [
                "Size of the task: 4 GB; the task definition decides the rest.",
                "No price: the task definition decides a part of the size.",
            ],
        ),
        (
            {"cpu": 1, "gpu": 2},
            EC2,
            [
                "Size of container 'airflow': 1 vCPU, 2 GPU.",
                "A container instance runs it: it has no price of its own.",
            ],
        ),
        ({}, FARGATE, ["Size: that of the task definition."]),
    ],
)
def test_what_a_request_asks_for_is_said_in_words_with_its_price(
    executor_config: Any, options: Any, lines: list[str]
) -> None:
    assert ecs.about_size(request(executor_config, **options), "airflow", "us-east-1") == lines


def test_the_size_of_a_request_is_that_of_its_task_and_that_of_its_container() -> None:
    made = request({"cpu": 1, "memory": "4 GB", "disk": 50} | container(memory=2048), **FARGATE)
    assert size_of(made, "airflow") == (Size(1024, 4096, None, 50), Size(memory=2048))
    assert size_of(request({"cpu": 1, "gpu": 1}, **EC2), "airflow") == (Size(), Size(cpu=1024, gpu=1))
    assert size_of(request({}), "airflow") == (Size(), Size())
