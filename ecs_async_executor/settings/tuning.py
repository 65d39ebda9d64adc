"""
The options of our own sections: how the engine launches and watches containers.

May import :mod:`.options` and :mod:`.values`. Here, and only here, stand the defaults.
"""

from __future__ import annotations

from typing import Annotated, Any, Final

from ecs_async_executor.settings.options import Conflict, Section, flag, option, per_second, seconds, whole
from ecs_async_executor.settings.values import (
    COMMAND,
    ENVIRONMENT_FILE,
    QUEUE_URL,
    QUEUE_URL_ALLOWED,
    QUEUE_URL_EXAMPLE,
    BucketPath,
    Delivery,
    DeliveryOfJob,
    NoBucket,
    RawPlacements,
    RawRules,
)

_SHUTDOWN_MARGIN: Final = 2.0
"""Seconds that a shutdown needs besides the longest possible request."""
WRITING_TIMEOUT: Final = 3.0
"""Seconds that it may take to write a workload's environment file, before its launch request leaves."""
_SHUTDOWN_MAX: Final = 29.9
"""Below 30, the default of Airflow's ``scheduler_health_check_threshold``: from then on others adopt."""

_PERMANENT_ERROR_GRACE: Final = 120.0


def _permanent_error_grace(mendable: str) -> Any:
    return seconds(
        f"How long AWS may refuse launches for something that a person can fix ({mendable}). After that, the "
        "workloads concerned fail with AWS's words.",
        example="300",
        low=0,
        high=86400,
    )


def _container_tags(container: str, permission: str, more: str = "") -> Any:
    return flag(
        f"Whether each {container} gets the tags `dag_id`, `run_id`, `task_id`, `map_index` and `try_number`, to "
        f"allocate costs by.{more} Tags of the same names in a request's own parameters win. The scheduler's role "
        f"needs `{permission}`.",
        example="True",
    )


def _queues(operation: str, parameters: str, *, example: str) -> Any:
    return option(
        f"{operation} parameters for each Airflow queue, its size, destination, placements and retries. They win "
        f"over `{parameters}`, and a task's `executor_config` wins over them. Airflow's callbacks have no queue.",
        example=example,
        allowed="a JSON object that gives each queue an object of request parameters and other keys of a queue",
    )


class Tuning(Section):
    """The options of ``[ecs_async_executor]``; ``Tuning()`` has the defaults."""

    section = "ecs_async_executor"
    unset_words = {
        "capacity_timeout": {"", "off", "none"},
        "launch_rate": {"", "off", "none"},
        "status_port": {"", "off", "none"},
        "events_queue_url": {"", "off", "none"},
    }

    max_concurrent_launches: Annotated[
        int,
        whole(
            "How many launch requests may be in flight at once. Also sizes the connection pool.",
            example="128",
            low=1,
            high=1000,
        ),
    ] = 64
    launch_rate: Annotated[
        float | None,
        per_second(
            "Launch requests per second at the start; the rate adapts from there. Unset: AWS's default quota for "
            "the launch type (20 for Fargate, 40 for EC2), approached from a quarter of it.",
            example="20",
        ),
    ] = None
    launch_burst: Annotated[
        int,
        whole(
            "How many launch requests may be sent at once after a pause. Large bursts collide where several "
            "schedulers share an account's quota.",
            example="20",
            low=1,
            high=100,
        ),
    ] = 10
    launch_rate_max: Annotated[
        float, per_second("The highest launch rate that the executor adapts to.", example="50")
    ] = 100.0
    max_concurrent_describes: Annotated[
        int,
        whole(
            "How many status requests may be in flight at once. Each asks for up to 100 containers.",
            example="16",
            low=1,
            high=100,
        ),
    ] = 8
    describe_rate: Annotated[
        float,
        per_second("Status requests per second. AWS's default quota is 20 for a whole account.", example="40"),
    ] = 20.0
    poll_interval: Annotated[
        float,
        seconds(
            "Pause between two status checks of a container. It grows when checks would take more than a quarter "
            "of `describe_rate`.",
            example="5",
            low=0.01,
            high=300,
        ),
    ] = 1.0
    missing_grace: Annotated[
        float,
        seconds(
            "How long AWS may answer that it does not know a container that it has just started. After that, the "
            "container counts as lost. AWS answers so for some seconds after a launch.",
            example="120",
            low=1,
            high=3600,
        ),
    ] = 60.0
    lost_container_grace: Annotated[
        float,
        seconds(
            "How long AWS may answer that it does not know a container that it has described as running. After "
            "that, the executor asks AWS to stop it, and the task instance fails. The default is shorter than "
            "Airflow's `task_instance_heartbeat_timeout` (300 s), which knows no reason.",
            example="600",
            low=1,
            high=86400,
        ),
    ] = 240.0
    permanent_error_grace: Annotated[float, _permanent_error_grace("permissions, cluster, task definition")] = (
        _PERMANENT_ERROR_GRACE
    )
    capacity_timeout: Annotated[
        float | None,
        seconds(
            "How long a workload waits for capacity. After that, it fails with AWS's reason, so that Airflow's "
            "retries apply. Unset or `off`: it waits without a limit.",
            example="900",
            low=1,
            high=86400,
            off=True,
        ),
    ] = None
    shutdown_timeout: Annotated[
        float,
        seconds(
            "How long a scheduler that ends waits for requests in flight and for stops that it still has to send. "
            f"At least `connect_timeout` + `read_timeout` + {_SHUTDOWN_MARGIN:g} "
            f"({_SHUTDOWN_MARGIN + WRITING_TIMEOUT:g} with environment files), and below 30: from then on other "
            "schedulers adopt its task instances.",
            example="25",
            low=0.1,
            high=_SHUTDOWN_MAX,
        ),
    ] = 20.0
    adopt_task_instances: Annotated[
        bool,
        flag(
            "Whether a scheduler that ends leaves its running containers to the next one. False: it stops them.",
            example="False",
        ),
    ] = True
    container_log_lines: Annotated[
        int,
        whole(
            "How many of a failed container's last lines are read from CloudWatch Logs: 20 for Airflow's event "
            "log, all for a file beside the task's log. 0: none.",
            example="200",
            low=0,
            high=1000,
        ),
    ] = 50
    connect_timeout: Annotated[
        float,
        seconds("How long it may take to open a connection to AWS.", example="3", low=0.1, high=_SHUTDOWN_MAX),
    ] = 5.0
    read_timeout: Annotated[
        float, seconds("How long AWS may take to answer a request.", example="8", low=0.1, high=_SHUTDOWN_MAX)
    ] = 10.0
    gc_freeze: Annotated[
        bool,
        flag(
            "Whether the executor, once it has started, exempts what the scheduler has loaded by then from "
            "Python's garbage collection (`gc.freeze()`). Otherwise each full collection looks at all of it, and "
            "stops the scheduler for 150 ms and more.",
            example="False",
        ),
    ] = True
    read_service_quotas: Annotated[
        bool,
        flag(
            "Whether the executor asks AWS's Service Quotas, once after its start, how many vCPUs the account may "
            "use on Fargate, and how many tasks per second it may launch there. The first stands beside AWS's "
            "reason when no vCPUs are left; the second limits the rate that launches begin with, if `launch_rate` "
            "is unset. It takes `servicequotas:ListServiceQuotas`; without that permission, the log says so once.",
            example="True",
        ),
    ] = False
    container_tags: Annotated[bool, _container_tags("ECS task", "ecs:TagResource")] = False
    container_executors: Annotated[
        bool,
        flag(
            "Whether containers get the scheduler's `[core] executor`, as `AIRFLOW__CORE__EXECUTOR`, if it has an "
            "alias or several executors. Airflow in a container refuses a DAG of which a task names an executor "
            "that is not configured there. The variable in a request's own parameters wins. False: the image or "
            "the definition has to set it.",
            example="False",
        ),
    ] = True
    events_queue_url: Annotated[
        str | None,
        option(
            "An SQS queue with the events of containers, from EventBridge, as `docs/push.md` has it. While "
            "they arrive, ends are seen within seconds, and all containers are polled but once a minute. Unset or "
            "`off`: polling alone.",
            allowed=f"{QUEUE_URL_ALLOWED}, or `off`",
            example=QUEUE_URL_EXAMPLE,
            pattern=f"^{QUEUE_URL}$",
        ),
    ] = None
    status_port: Annotated[
        int | None,
        whole(
            "The port at which the executor shows what it does, over HTTP and without authentication: "
            "`GET /status` (JSON) and `GET /health`. `airflow ecs-async status` and the page in Airflow's UI read "
            "it. Nothing can be changed there, and no command or secret is shown. Each executor of a scheduler "
            "needs a port of its own, and so does each team's. Unset or `off`: no port.",
            example="8796",
            low=1,
            high=65535,
            off=True,
        ),
    ] = None
    status_host: Annotated[
        str,
        option(
            "The address at which `status_port` listens. With the default only programs on the scheduler's own "
            "machine can read it; `0.0.0.0` lets the api-server and commands on other machines do so.",
            allowed="an address of the scheduler's machine",
            example="10.0.0.12",
        ),
    ] = "127.0.0.1"
    task_log_lines: Annotated[
        int,
        whole(
            "How many of the last lines that a running container has printed Airflow's UI shows. They are read "
            "from CloudWatch Logs, unless Airflow's own remote logging does that. 0: none.",
            example="200",
            low=0,
            high=10000,
        ),
    ] = 1000
    workload_delivery: Annotated[
        Delivery,
        option(
            "How a container gets its workload, which has a JWT. `command`: in the container's command, as with "
            "the amazon provider; whoever may describe ECS tasks can read it. `environment_file`: in an object in "
            "S3, `workload_bucket`, that ECS reads for the container and the executor deletes. The execution role "
            "of the tasks needs `s3:GetObject` and `s3:GetBucketLocation`, the scheduler's `s3:PutObject` and "
            "`s3:DeleteObject`.",
            allowed=f"`{COMMAND}` or `{ENVIRONMENT_FILE}`",
            example=ENVIRONMENT_FILE,
        ),
    ] = COMMAND
    workload_bucket: Annotated[
        BucketPath | None,
        option(
            "Where environment files go: a bucket without versioning, in the Region of the section, with a "
            "lifecycle rule that deletes what is a day old. Required with `environment_file`.",
            allowed="an S3 bucket and a prefix of keys, as `s3://bucket/prefix`",
            example="s3://airflow-workloads/prod",
        ),
    ] = None
    queues: Annotated[
        RawRules,
        _queues(
            "RunTask",
            "run_task_kwargs",
            example='{"gpu": {"cluster": "gpu", "taskDefinition": "airflow-gpu"}}',
        ),
    ] = None
    placements: Annotated[
        RawPlacements,
        option(
            "Where launches go, best first: the next one is used while the one before it is full. An object with "
            "one name defines a placement by its request parameters.",
            example="spot, on-demand",
            allowed="a comma-separated list of placements, or a JSON list of names and objects",
        ),
    ] = None
    placement_patience: Annotated[
        float | None,
        seconds(
            "How long a placement has to be full before the next one is used. Unset: 60.",
            example="300",
            low=0,
            high=86400,
        ),
    ] = None
    retries: Annotated[
        RawRules,
        option(
            "What the next try of a task gets, by the end of the last one. Airflow decides whether there is one.",
            example='[{"when": "oom", "memory": "x2", "up to": "30 GB"}]',
            allowed="a JSON list of retry rules",
        ),
    ] = None

    executor_rules: Annotated[
        str | None,
        option(
            "A file with rules: `queues`, `placements`, `placement_patience` and `retries`, as in the options of "
            "these names. What is in one place cannot be in the other. It is read when the scheduler starts.",
            example="/opt/airflow/config/rules.yaml",
            allowed="the absolute path of a .yaml, .yml or .json file",
        ),
    ] = None

    def conflicts(self) -> list[Conflict]:
        """Return a shutdown too short for a launch, a start above the highest rate, and files without a place."""
        found: list[Conflict] = []
        by_file = self.workload_delivery == ENVIRONMENT_FILE
        margin = _SHUTDOWN_MARGIN + (WRITING_TIMEOUT if by_file else 0.0)
        least = self.connect_timeout + self.read_timeout + margin
        if self.shutdown_timeout < least:
            found.append(
                Conflict(
                    ("connect_timeout", "read_timeout", "shutdown_timeout"),
                    f"shutdown_timeout = {self.shutdown_timeout:g} is below connect_timeout + read_timeout + "
                    f"{margin:g} = {least:g}: lower connect_timeout or read_timeout, or raise "
                    f"shutdown_timeout (to at most {_SHUTDOWN_MAX:g})",
                )
            )
        if by_file and self.workload_bucket is None:
            found.append(
                Conflict(
                    ("workload_delivery", "workload_bucket"),
                    f"workload_delivery = {ENVIRONMENT_FILE} needs a place for the files: set workload_bucket to "
                    "an S3 bucket and a prefix of keys, as s3://bucket/prefix",
                )
            )
        if self.launch_rate is not None and self.launch_rate > self.launch_rate_max:
            found.append(
                Conflict(
                    ("launch_rate", "launch_rate_max"),
                    f"launch_rate = {self.launch_rate:g} is above launch_rate_max = {self.launch_rate_max:g}: "
                    "lower launch_rate or raise launch_rate_max",
                )
            )
        return found


class BatchTuning(Tuning):
    """The options of ``[batch_async_executor]``: the same, for the quotas and parameters of AWS Batch."""

    section = "batch_async_executor"

    launch_rate: Annotated[
        float | None,
        per_second(
            "Launch requests per second at the start; the rate adapts from there. Unset: 40, approached from a "
            "quarter of it. AWS Batch allows an account 50 SubmitJob requests per second.",
            example="20",
        ),
    ] = None
    launch_rate_max: Annotated[
        float,
        per_second(
            "The highest launch rate that the executor adapts to. AWS Batch allows an account 50 SubmitJob "
            "requests per second.",
            example="30",
        ),
    ] = 40.0
    describe_rate: Annotated[
        float,
        per_second(
            "Status requests per second. AWS publishes no quota for those of Batch; a throttle lowers the rate.",
            example="10",
        ),
    ] = 20.0
    permanent_error_grace: Annotated[float, _permanent_error_grace("permissions, job queue, job definition")] = (
        _PERMANENT_ERROR_GRACE
    )
    container_tags: Annotated[
        bool,
        _container_tags(
            "Batch job",
            "batch:TagResource",
            " Batch passes them on to the job's ECS task if `propagateTags` is set in `submit_job_kwargs`.",
        ),
    ] = False
    workload_delivery: Annotated[
        DeliveryOfJob,
        option(
            "How a container gets its workload: in its command, where whoever may describe Batch jobs can read "
            "its JWT. There is no other way: SubmitJob takes no environment files.",
            allowed=f"`{COMMAND}`",
            example=COMMAND,
        ),
    ] = COMMAND
    workload_bucket: Annotated[NoBucket, option("Not supported.", allowed="unset", example="")] = None
    queues: Annotated[
        RawRules,
        _queues(
            "SubmitJob",
            "submit_job_kwargs",
            example='{"gpu": {"jobQueue": "gpu", "jobDefinition": "airflow-gpu"}}',
        ),
    ] = None
