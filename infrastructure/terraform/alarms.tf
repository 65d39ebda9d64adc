# Alarms on the scheduler's log; docs/operations.md says what each event means.

locals {
  alarms = {
    paused = {
      metric      = "Paused"
      pattern     = "?\"ecs_executor.credentials.paused\" ?\"ecs_executor.client.unavailable\""
      description = "AWS takes no calls from the executor, or it has no client. Nothing is launched."
    }
    launches-fail = {
      metric      = "LaunchesFail"
      pattern     = "\"ecs_executor.launch.failed\""
      description = "Task instances fail without a container, mostly because AWS refuses their launches."
    }
    gate-closed = {
      metric      = "GateClosed"
      pattern     = "\"ecs_executor.gate.closed\""
      description = "AWS has no capacity for launches, or refuses them. They wait."
    }
    engine = {
      metric      = "Engine"
      pattern     = "?\"ecs_executor.engine.stalled\" ?\"ecs_executor.engine.crashed\" ?\"ecs_executor.engine.died\""
      description = "The executor's thread does not answer, or has died and was replaced."
    }
  }
}

resource "aws_cloudwatch_log_metric_filter" "this" {
  for_each       = var.scheduler_log_group == "" ? {} : local.alarms
  name           = "${var.name}-executor-${each.key}"
  log_group_name = var.scheduler_log_group
  pattern        = each.value.pattern

  metric_transformation {
    namespace = "${var.name}-executor"
    name      = each.value.metric
    value     = "1"
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each            = var.scheduler_log_group == "" ? {} : local.alarms
  alarm_name          = "${var.name}-executor-${each.key}"
  alarm_description   = each.value.description
  namespace           = "${var.name}-executor"
  metric_name         = each.value.metric
  statistic           = "Sum"
  period              = 300
  evaluation_periods  = 1
  threshold           = 1
  comparison_operator = "GreaterThanOrEqualToThreshold"
  treat_missing_data  = "notBreaching"
  alarm_actions       = var.alarm_topic_arn == "" ? [] : [var.alarm_topic_arn]
}
