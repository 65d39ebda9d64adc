"""Settings of the executor for a day in virtual time; nothing of Airflow is imported here."""

from __future__ import annotations

SETTINGS = {
    "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    "AIRFLOW__CORE__PARALLELISM": "100000",
    "AIRFLOW__API_AUTH__JWT_SECRET": "a secret that is long enough for every algorithm " * 2,
    "AIRFLOW__ECS_ASYNC_EXECUTOR__GC_FREEZE": "False",  # the day starts many executors
    "AIRFLOW__ECS_ASYNC_EXECUTOR__POLL_INTERVAL": "10",
    "AIRFLOW__AWS_ECS_EXECUTOR__CLUSTER": "main",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONTAINER_NAME": "airflow",
    "AIRFLOW__AWS_ECS_EXECUTOR__TASK_DEFINITION": "family:1",
    "AIRFLOW__AWS_ECS_EXECUTOR__SUBNETS": "subnet-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CONN_ID": "",
    "AIRFLOW__AWS_ECS_EXECUTOR__REGION_NAME": "eu-west-1",
    "AIRFLOW__AWS_ECS_EXECUTOR__CHECK_HEALTH_ON_STARTUP": "False",
}
