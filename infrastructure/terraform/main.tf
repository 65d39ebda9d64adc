# Everything that ecs-async-executor needs of one account and Region, but Airflow itself: log group, task
# definition, and optionally a cluster and a security group. roles.tf has the roles, events.tf the queue of
# events, alarms.tf the alarms.

data "aws_caller_identity" "current" {}
data "aws_partition" "current" {}
data "aws_region" "current" {}

locals {
  partition = data.aws_partition.current.partition
  region    = data.aws_region.current.region
  account   = data.aws_caller_identity.current.account_id
  ecs       = "arn:${local.partition}:ecs:${local.region}:${local.account}"
  cluster   = "${local.ecs}:cluster/${var.cluster}"
  tasks     = "${local.ecs}:task/${var.cluster}/*"
  streams   = "arn:${local.partition}:logs:${local.region}:${local.account}:log-group:/ecs/${var.name}:log-stream:*"
  bucket    = "arn:${local.partition}:s3:::${var.remote_log_bucket}"
  workloads = "arn:${local.partition}:s3:::${var.workload_bucket}"

  is_home         = length(var.trusted_role_arns) == 0
  has_remote_logs = var.remote_log_bucket != ""

  hands_over_files      = var.workload_bucket != ""
  makes_workload_bucket = local.is_home && local.hands_over_files

  remote_logging = local.has_remote_logs ? [
    { name = "AIRFLOW__LOGGING__REMOTE_LOGGING", value = "True" },
    { name = "AIRFLOW__LOGGING__REMOTE_BASE_LOG_FOLDER", value = "s3://${var.remote_log_bucket}" },
  ] : []

  container = {
    name      = "airflow"
    image     = var.image
    essential = true
    # Between SIGTERM and SIGKILL: on_kill of a task runs in it. 120 is the most that Fargate allows.
    stopTimeout     = 120
    linuxParameters = { initProcessEnabled = true }
    environment = concat(
      [{ name = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL", value = var.execution_api_url }],
      local.remote_logging,
    )
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.containers.name
        awslogs-region        = local.region
        awslogs-stream-prefix = "airflow"
      }
    }
  }
}

resource "aws_ecs_cluster" "this" {
  count = var.create_cluster ? 1 : 0
  name  = var.cluster
}

resource "aws_ecs_cluster_capacity_providers" "this" {
  count              = var.create_cluster ? 1 : 0
  cluster_name       = aws_ecs_cluster.this[0].name
  capacity_providers = ["FARGATE", "FARGATE_SPOT"]
}

resource "aws_cloudwatch_log_group" "containers" {
  name              = "/ecs/${var.name}"
  retention_in_days = var.log_retention_days
}

resource "aws_ecs_task_definition" "tasks" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  container_definitions    = jsonencode([local.container])
}

resource "aws_security_group" "tasks" {
  count       = var.vpc_id == "" ? 0 : 1
  name        = "${var.name}-tasks"
  description = "Containers of ${var.name}: nothing comes in"
  vpc_id      = var.vpc_id
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  count             = var.vpc_id == "" ? 0 : 1
  security_group_id = aws_security_group.tasks[0].id
  ip_protocol       = "-1"
  cidr_ipv4         = "0.0.0.0/0"
}

resource "aws_vpc_security_group_ingress_rule" "tasks_reach_api_server" {
  count                        = var.vpc_id == "" || var.api_server_security_group == "" ? 0 : 1
  security_group_id            = var.api_server_security_group
  description                  = "Containers of ${var.name} to Airflow's execution API"
  ip_protocol                  = "tcp"
  from_port                    = var.api_server_port
  to_port                      = var.api_server_port
  referenced_security_group_id = aws_security_group.tasks[0].id
}
