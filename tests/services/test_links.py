"""Links into the AWS console."""

from __future__ import annotations

import pytest

from ecs_async_executor.services import links

ARN = "arn:aws:ecs:eu-west-1:123456789012:task/main/0123"


def test_a_task_has_a_page() -> None:
    page = "https://eu-west-1.console.aws.amazon.com/ecs/v2/clusters/main/tasks/0123?region=eu-west-1"
    assert links.ecs_task("eu-west-1", "main", "0123") == page
    assert links.ecs_task("eu-west-1", "arn:aws:ecs:eu-west-1:123456789012:cluster/main", ARN) == page


def test_a_job_has_a_page() -> None:
    assert links.batch_job("us-east-1", "876da822-4198") == (
        "https://us-east-1.console.aws.amazon.com/batch/home?region=us-east-1#jobs/detail/876da822-4198"
    )


def test_a_log_stream_has_a_page_whatever_its_name() -> None:
    assert links.log_stream("us-east-1", "/aws/batch/job", "d/default/1 a#b") == (
        "https://us-east-1.console.aws.amazon.com/cloudwatch/home?region=us-east-1"
        "#logsV2:log-groups/log-group/%2Faws%2Fbatch%2Fjob/log-events/d%2Fdefault%2F1%20a%23b"
    )


@pytest.mark.parametrize(
    ("region", "host"),
    [
        ("eu-west-1", "eu-west-1.console.aws.amazon.com"),
        ("cn-north-1", "cn-north-1.console.amazonaws.cn"),
        ("us-gov-west-1", "us-gov-west-1.console.amazonaws-us-gov.com"),
    ],
)
def test_each_partition_has_its_own_console(region: str, host: str) -> None:
    pages = [links.ecs_task(region, "c", "1"), links.batch_job(region, "1"), links.log_stream(region, "g", "s")]
    pages.append(links.service_quota(region, "fargate", "L-1"))
    assert all(page.startswith(f"https://{host}/") for page in pages)


def test_a_quota_has_a_page_even_where_the_region_is_not_known() -> None:
    page = "console.aws.amazon.com/servicequotas/home/services/fargate/quotas/L-3032A538"
    assert links.service_quota("eu-west-1", "fargate", "L-3032A538") == f"https://eu-west-1.{page}"
    assert links.service_quota(None, "fargate", "L-3032A538") == f"https://{page}"
