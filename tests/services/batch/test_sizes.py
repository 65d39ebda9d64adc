"""What a launch on Batch asks for with cpu, memory and so on, as SubmitJob gets it."""

from __future__ import annotations

import copy
from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ecs_async_executor.core.errors import Rejected
from ecs_async_executor.core.sizes import Size
from ecs_async_executor.services import batch, fargate
from ecs_async_executor.services.batch.sizes import size_of
from ecs_async_executor.services.requests import Layered
from tests.services.batch.samples import container, request, settings, spec
from tests.services.samples import COMMAND, MARK, patient


def needs(**amounts: str) -> dict[str, Any]:
    return {"resourceRequirements": [{"type": kind, "value": value} for kind, value in amounts.items()]}


def several(**parameters: Any) -> dict[str, Any]:
    side = {"name": "side", **needs(MEMORY="128")}
    return {
        "ecsPropertiesOverride": {"taskProperties": [{"containers": [{"name": "airflow", **parameters}, side]}]}
    }


def sent(executor_config: Any, queue: dict[str, Any] | None = None, **options: Any) -> dict[str, Any]:
    """Return the override of the container; the SDK takes what is sent."""
    made = request(executor_config, queue, **options)
    assert not list(batch.wrong_parameters(batch.launch_spec(made, started_by="a").request))
    own = dict(made["containerOverrides"])
    assert own.pop("command") == COMMAND
    assert own["environment"].pop() == MARK
    if not own["environment"]:
        del own["environment"]
    return own


def reason(executor_config: Any, queue: dict[str, Any] | None = None, **options: Any) -> str:
    with pytest.raises(Rejected) as caught:
        request(executor_config, queue, **options)
    return caught.value.reason


@pytest.mark.parametrize(
    ("executor_config", "own"),
    [
        ({"cpu": 2, "memory": "4 GB"}, needs(VCPU="2", MEMORY="4096")),
        ({"cpu": 2048, "memory": 4096}, needs(VCPU="2", MEMORY="4096")),
        ({"cpu": 3, "memory": "2500 MB"}, needs(VCPU="3", MEMORY="2500")),  # an instance has it
        ({"cpu": 1.5}, needs(VCPU="2")),
        ({"memory": "7 GB"}, needs(MEMORY="7168")),
        ({"gpu": 1}, needs(GPU="1")),
        ({"gpu": 0}, {}),
        # Less than a vCPU is for Fargate alone.
        ({"cpu": 0.25, "memory": "2 GB"}, needs(VCPU="0.25", MEMORY="2048")),
        ({"cpu": 256, "memory": 512}, needs(VCPU="0.25", MEMORY="512")),
        ({"cpu": 0.3, "memory": "1.5 GB"}, needs(VCPU="0.5", MEMORY="2048")),
        ({"cpu": 0.25, "memory": "8 GB"}, needs(VCPU="1", MEMORY="8192")),
        # So are these, because somebody says so.
        ({"cpu": 3, "memory": "2500 MB", "round_up": True}, needs(VCPU="4", MEMORY="8192")),
        ({"memory": "2500 MB", "round_up": True}, needs(MEMORY="3072")),
        ({"cpu": 20, "memory": "61 GB", "round_up": True}, needs(VCPU="32", MEMORY="122880")),
        ({"cpu": 3, "memory": "2500 MB", "round_up": False}, needs(VCPU="3", MEMORY="2500")),
    ],
)
def test_the_container_asks_for_resources(executor_config: Any, own: Any) -> None:
    assert sent(executor_config) == own


def test_a_queue_can_say_that_its_job_queue_is_on_fargate() -> None:
    queue = {"jobQueue": "fargate", "round_up": True}
    assert sent({"cpu": 3, "memory": "2500 MB"}, queue) == needs(VCPU="4", MEMORY="8192")
    assert sent({"cpu": 3, "memory": "2500 MB"}, {**queue, "round_up": False}) == needs(VCPU="3", MEMORY="2500")


@pytest.mark.parametrize(
    ("timeout", "seconds"), [(60, 60), ("2 h", 7200), (timedelta(minutes=90), 5400), ("90", 90), (90.5, 91)]
)
def test_a_command_has_a_limit_of_time(timeout: Any, seconds: int) -> None:
    made = request({"command_timeout": timeout})
    assert made["timeout"] == {"attemptDurationSeconds": seconds}
    assert not list(batch.wrong_parameters(batch.launch_spec(made, started_by="a").request))


def test_of_several_containers_airflows_gets_what_is_asked_for() -> None:
    made = request({"cpu": 2, "memory": "4 GB", "environment": {"A": 1}}, submit_job_kwargs=several())
    airflow, side = made["ecsPropertiesOverride"]["taskProperties"][0]["containers"]
    assert airflow == {
        "name": "airflow",
        **needs(VCPU="2", MEMORY="4096"),
        "environment": [{"name": "A", "value": "1"}, MARK],
        "command": COMMAND,
    }
    assert side == {"name": "side", **needs(MEMORY="128")}
    assert "containerOverrides" not in made
    assert size_of(made) == Size(2048, 4096)


cpus = st.one_of(st.integers(1, 32), st.decimals("0.01", "32", places=2).map(lambda one: f"{one} vCPU"))
memories = st.one_of(st.integers(128, 249856), st.decimals("0.1", "244", places=1).map(lambda one: f"{one} GB"))


@patient
@given(cpus, memories, st.sampled_from([None, True]))
def test_a_job_has_at_least_what_is_asked_for_and_what_batch_can_have(
    cpu: Any, memory: Any, round_up: bool | None
) -> None:
    config = {"cpu": cpu, "memory": memory} | ({} if round_up is None else {"round_up": round_up})
    size = size_of(request(config))
    assert not list(batch.wrong_parameters(config))
    assert size.cpu is not None
    assert size.memory is not None
    least = size_of(request({"memory": memory, "cpu": 32}))
    assert size.memory >= (least.memory or 0)
    assert size.cpu % 1024 == 0 or fargate.is_valid(size.cpu, size.memory)
    assert not round_up or fargate.is_valid(size.cpu, size.memory)


# --- layers ----------------------------------------------------------------------------------------------------


def test_a_later_layer_wins_however_it_says_it() -> None:
    in_words, by_api = {"cpu": 1, "memory": "4 GB"}, container(**needs(VCPU="2", MEMORY="8192"))
    old = container(vcpus=2, memory=8192)
    assert sent(in_words, by_api) == needs(VCPU="1", MEMORY="4096")
    assert sent(in_words, old) == needs(VCPU="1", MEMORY="4096")
    assert sent(by_api, in_words) == needs(VCPU="2", MEMORY="8192")
    assert sent(old, in_words) == {"vcpus": 2, "memory": 8192}
    assert sent({"memory": "3 GB"}, in_words, submit_job_kwargs=by_api) == needs(VCPU="1", MEMORY="3072")
    assert sent(Layered(by_api, {"memory": "16 GB"})) == needs(VCPU="2", MEMORY="16384")
    limits = {"timeout": {"attemptDurationSeconds": 100}}
    assert request({"command_timeout": 200}, limits)["timeout"] == {"attemptDurationSeconds": 200}
    assert request(limits, {"command_timeout": 200})["timeout"] == {"attemptDurationSeconds": 100}


def test_what_the_request_says_of_the_other_counts_for_a_size_of_fargate() -> None:
    assert sent({"memory": "8 GB"}, container(**needs(VCPU="0.25"))) == needs(VCPU="1", MEMORY="8192")


def test_a_size_for_all_tasks_can_stand_in_the_section_itself() -> None:
    kwargs = {"cpu": 1, "memory": "4 GB", "command_timeout": "2 h", "round_up": True, "environment": {"MY_VAR": 1}}
    assert sent({}, submit_job_kwargs=kwargs) == {
        **needs(VCPU="1", MEMORY="4096"),
        "environment": [{"name": "MY_VAR", "value": "1"}],
    }


@pytest.mark.parametrize(
    ("executor_config", "said"),
    [
        (
            {"cpu": 1} | container(**needs(VCPU="2")),
            "cpu = 1 vCPU, but the VCPU in resourceRequirements = 2 vCPU: remove one of them",
        ),
        ({"cpu": 1} | container(vcpus=2), "cpu = 1 vCPU, but the VCPU in resourceRequirements = 2 vCPU: remove"),
        (
            {"memory": "1 GB"} | container(memory=2),
            "memory = 1 GB, but the MEMORY in resourceRequirements = 2 MB: ",
        ),
        ({"gpu": 1} | container(**needs(GPU="2")), "gpu = 1, but the GPU in resourceRequirements = 2: remove one"),
        (
            {"command_timeout": 60, "timeout": {"attemptDurationSeconds": 61}},
            "command_timeout = 60 s, but timeout.attemptDurationSeconds = 61 s: remove one of them",
        ),
    ],
)
def test_a_layer_that_contradicts_itself_is_rejected(executor_config: Any, said: str) -> None:
    assert said in reason(executor_config)


def test_a_layer_may_say_the_same_twice() -> None:
    config = {"cpu": 0.5, "command_timeout": "1 min", "timeout": {"attemptDurationSeconds": 60}}
    assert sent(config | container(**needs(VCPU="0.50"))) == needs(VCPU="0.5")


# --- what is refused -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("executor_config", "said"),
    [
        ({"image": "repo:tag"}, "image: SubmitJob cannot change it: register a job definition with that image"),
        (
            {"disk": "50 GB"},
            "disk: SubmitJob cannot change it: register a job definition with ephemeralStorage or a volume",
        ),
        (
            {"command_timeout": 59},
            "command_timeout = 59 s: Batch takes at least 60 s; for a shorter limit set execution_timeout of the",
        ),
        (
            {"cpu": 1.5, "round_up": False},
            "cpu = 1.5 vCPU: Batch has no such size; the nearest are 1 vCPU and 2 vCPU, or leave round_up out",
        ),
        (
            {"cpu": 0.3, "round_up": False},
            "cpu = 308 CPU units: Batch has no such size; the nearest are 0.25 vCPU and 0.5",
        ),
        (
            {"cpu": 0.25, "memory": "3 GB", "round_up": False},
            "= 0.25 vCPU with 3 GB: Batch has no such size; the nearest are 0.25 vCPU with 2 GB and 0.5 vCPU with",
        ),
        (
            {"cpu": "33 vCPU", "round_up": True},
            "cpu = 33 vCPU: Fargate has at most 32 vCPU and 244 GB; ask for less, or leave round_up out",
        ),
        ({"gpu": 1, "round_up": True}, "gpu = 1: Fargate, whose sizes round_up asks for, has no GPUs"),
        (
            {"environment": {"AWS_BATCH_JOB_ID": "hunter2"}},
            "environment: AWS_BATCH_JOB_ID begins with AWS_BATCH, which Batch keeps for itself; choose another",
        ),
        ({"environment": "hunter2"}, "environment must be an object"),
        ({"cpu": 64}, "cpu = 64 could mean vCPUs or CPU units"),
        ({"memory": "x"}, "memory = 'x' cannot be read"),
    ],
)
def test_what_cannot_be_had_is_rejected_with_the_way_out(executor_config: Any, said: str) -> None:
    found = reason(executor_config)
    assert said in found
    assert "hunter2" not in found


def test_the_parameters_of_a_rule_are_checked_before_any_launch() -> None:
    rule = {"cpu": 64, "image": "i", "bogus": 1}
    [cpu, image, bogus] = batch.wrong_parameters(rule)
    assert cpu.startswith("cpu = 64 could mean")
    assert image.startswith("image: SubmitJob cannot change it")
    assert bogus.startswith("SubmitJob has no bogus")
    assert not list(batch.wrong_parameters({"cpu": 1, "memory": "4 GB", "commandTimeout": "2 h", "roundUp": True}))


def test_what_a_request_asks_for_is_said_in_words_with_its_price_on_fargate() -> None:
    def said(config: Any) -> list[str]:
        return batch.about_size(request(config), "eu-central-1")

    assert said({}) == ["Size: that of the job definition."]
    assert said({"memory": "4 GB"}) == ["Size of the container: 4 GB; the job definition decides the rest."]
    assert said({"cpu": 3, "memory": "5 GB"}) == ["Size of the container: 3 vCPU, 5 GB."]
    assert said({"cpu": 2, "memory": "4 GB"}) == [
        "Size of the container: 2 vCPU, 4 GB.",
        (
            "If the job queue is on Fargate: An hour costs $0.1136 on x86: list prices of August 2026, "
            "eu-central-1, on demand, without tax and network."
        ),
    ]


def test_nothing_that_is_given_is_changed() -> None:
    base = batch.base_request(settings(submit_job_kwargs=container(**needs(VCPU="2"))))
    queue: dict[str, Any] = {"cpu": 1, "environment": {"B": "2"}}
    config: dict[str, Any] = {"memory": "4 GB", "environment": {"A": "3"}, "gpu": 0}
    before = copy.deepcopy((base, queue, config))
    for _ in range(2):
        batch.workload_request(base, queue, config, COMMAND)
        assert (base, queue, config) == before


def test_each_size_has_a_gate_of_its_own() -> None:
    configs: list[Any] = [{}, {"cpu": 1}, {"cpu": 1, "memory": "4 GB"}, {"cpu": 1, "memory": "5 GB"}]
    assert len({spec(one).placement for one in configs}) == len(configs)
