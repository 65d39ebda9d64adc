# The queue of events, optional; docs/push.md says what the executor does with it.

locals {
  events = "arn:${local.partition}:sqs:${local.region}:${local.account}:${var.name}-events"

  event_pattern = {
    source      = ["aws.ecs"]
    detail-type = ["ECS Task State Change"]
    detail = {
      clusterArn = [local.cluster]
      group      = [{ prefix = "family:" }]
      lastStatus = ["RUNNING", "DEACTIVATING", "STOPPING", "DEPROVISIONING", "STOPPED"]
    }
  }

  # An event has the command of its container, with a JWT. This lets nothing of it through.
  event_paths = {
    container = "$.detail.taskArn"
    cluster   = "$.detail.clusterArn"
    status    = "$.detail.lastStatus"
    at        = "$.time"
  }
  event_template = "{\"container\": \"<container>\", \"cluster\": \"<cluster>\", \"status\": \"<status>\", \"at\": \"<at>\"}"
}

resource "aws_sqs_queue" "events" {
  count                      = var.create_events ? 1 : 0
  name                       = "${var.name}-events"
  message_retention_seconds  = 300
  visibility_timeout_seconds = 30
  sqs_managed_sse_enabled    = true
}

# Events that could not be delivered. They can be whole, with the commands of containers.
resource "aws_sqs_queue" "undelivered" {
  count                     = var.create_events ? 1 : 0
  name                      = "${var.name}-events-undelivered"
  message_retention_seconds = 86400
  sqs_managed_sse_enabled   = true
}

resource "aws_cloudwatch_event_rule" "tasks" {
  count         = var.create_events ? 1 : 0
  name          = "${var.name}-tasks"
  description   = "Tasks of ${var.cluster} that run or end, for ecs-async-executor"
  event_pattern = jsonencode(local.event_pattern)
}

resource "aws_cloudwatch_event_target" "events" {
  count     = var.create_events ? 1 : 0
  rule      = aws_cloudwatch_event_rule.tasks[0].name
  target_id = "queue"
  arn       = aws_sqs_queue.events[0].arn

  input_transformer {
    input_paths    = local.event_paths
    input_template = local.event_template
  }

  retry_policy {
    maximum_event_age_in_seconds = 60
    maximum_retry_attempts       = 10
  }

  dead_letter_config {
    arn = aws_sqs_queue.undelivered[0].arn
  }
}

data "aws_iam_policy_document" "let_events_in" {
  count = var.create_events ? 1 : 0
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.events[0].arn, aws_sqs_queue.undelivered[0].arn]
    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }
    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.tasks[0].arn]
    }
  }
}

resource "aws_sqs_queue_policy" "events" {
  count     = var.create_events ? 1 : 0
  queue_url = aws_sqs_queue.events[0].url
  policy    = data.aws_iam_policy_document.let_events_in[0].json
}

resource "aws_sqs_queue_policy" "undelivered" {
  count     = var.create_events ? 1 : 0
  queue_url = aws_sqs_queue.undelivered[0].url
  policy    = data.aws_iam_policy_document.let_events_in[0].json
}
