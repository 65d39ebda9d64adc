output "scheduler_role_arn" {
  description = "For the scheduler; in a second account or Region, the role_arn of the destination"
  value       = aws_iam_role.scheduler.arn
}

output "api_server_role_arn" {
  description = "For the API server"
  value       = one(aws_iam_role.api_server[*].arn)
}

output "operator_policy_arn" {
  description = "For the roles of people who use airflow ecs-async"
  value       = one(aws_iam_policy.operator[*].arn)
}

output "task_definition_family" {
  description = "task_definition in [aws_ecs_executor]"
  value       = aws_ecs_task_definition.tasks.family
}

output "task_security_group_id" {
  description = "security_groups in [aws_ecs_executor]"
  value       = one(aws_security_group.tasks[*].id)
}

output "events_queue_url" {
  description = "events_queue_url in [ecs_async_executor]"
  value       = one(aws_sqs_queue.events[*].url)
}
