# The roles. Their policies are those in ../iam/.

data "aws_iam_policy_document" "trust_airflow" {
  statement {
    # EKS Pod Identity tags its sessions, and is refused without the second action.
    actions = local.is_home ? ["sts:AssumeRole", "sts:TagSession"] : ["sts:AssumeRole"]
    principals {
      type        = local.is_home ? "Service" : "AWS"
      identifiers = local.is_home ? [var.airflow_runs_on] : var.trusted_role_arns
    }
  }
}

data "aws_iam_policy_document" "trust_ecs" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type        = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
    condition {
      test     = "StringEquals"
      variable = "aws:SourceAccount"
      values   = [local.account]
    }
    condition {
      test     = "ArnLike"
      variable = "aws:SourceArn"
      values   = ["${local.ecs}:*"]
    }
  }
}

# --- scheduler

data "aws_iam_policy_document" "scheduler" {
  statement {
    sid       = "Launch"
    actions   = ["ecs:RunTask"]
    resources = ["${local.ecs}:task-definition/${var.name}:*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "GiveTasksTheirRoles"
    actions   = ["iam:PassRole"]
    resources = [aws_iam_role.execution.arn, aws_iam_role.task.arn]
    condition {
      test     = "StringEquals"
      variable = "iam:PassedToService"
      values   = ["ecs-tasks.amazonaws.com"]
    }
  }
  statement {
    sid       = "FollowAndStop"
    actions   = ["ecs:DescribeTasks", "ecs:StopTask"]
    resources = [local.tasks]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "FindByMark"
    actions   = ["ecs:ListTasks"]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "ReadClusterDefaults"
    actions   = ["ecs:DescribeClusters"]
    resources = [local.cluster]
  }
  dynamic "statement" {
    for_each = var.container_tags ? [1] : []
    content {
      sid       = "TagLaunches"
      actions   = ["ecs:TagResource"]
      resources = [local.tasks]
      condition {
        test     = "StringEquals"
        variable = "ecs:CreateAction"
        values   = ["RunTask"]
      }
    }
  }
  statement {
    sid       = "ReadTaskDefinitions"
    actions   = ["ecs:DescribeTaskDefinition"]
    resources = ["*"]
  }
  statement {
    sid       = "ReadContainerLogs"
    actions   = ["logs:GetLogEvents"]
    resources = [local.streams]
  }
  statement {
    sid       = "ReadAccountQuotas"
    actions   = ["servicequotas:ListServiceQuotas"]
    resources = ["*"]
  }
  dynamic "statement" {
    for_each = local.hands_over_files ? [1] : []
    content {
      sid       = "HandWorkloadsOver"
      actions   = ["s3:DeleteObject", "s3:PutObject"]
      resources = ["${local.workloads}/*"]
    }
  }
  dynamic "statement" {
    for_each = length(var.destination_role_arns) > 0 ? [1] : []
    content {
      sid       = "GoToDestinations"
      actions   = ["sts:AssumeRole"]
      resources = var.destination_role_arns
    }
  }
  dynamic "statement" {
    for_each = var.create_events ? [1] : []
    content {
      sid = "ReceiveEvents"
      actions = [
        "sqs:ChangeMessageVisibility",
        "sqs:DeleteMessage",
        "sqs:GetQueueAttributes",
        "sqs:ReceiveMessage",
      ]
      resources = [local.events]
    }
  }
  # The scheduler puts a failed container's last lines beside the log of its task.
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "WriteRemoteLogs"
      actions   = ["s3:GetObject", "s3:PutObject"]
      resources = ["${local.bucket}/*"]
    }
  }
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "ListRemoteLogs"
      actions   = ["s3:ListBucket"]
      resources = [local.bucket]
    }
  }
}

resource "aws_iam_role" "scheduler" {
  name               = "${var.name}-scheduler"
  assume_role_policy = data.aws_iam_policy_document.trust_airflow.json
}

resource "aws_iam_role_policy" "scheduler" {
  name   = "ecs-async-executor"
  role   = aws_iam_role.scheduler.id
  policy = data.aws_iam_policy_document.scheduler.json
}

# --- API server

data "aws_iam_policy_document" "api_server" {
  statement {
    sid       = "Follow"
    actions   = ["ecs:DescribeTasks"]
    resources = [local.tasks]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "ReadTaskDefinitions"
    actions   = ["ecs:DescribeTaskDefinition"]
    resources = ["*"]
  }
  statement {
    sid       = "ReadContainerLogs"
    actions   = ["logs:GetLogEvents"]
    resources = [local.streams]
  }
  dynamic "statement" {
    for_each = length(var.destination_role_arns) > 0 ? [1] : []
    content {
      sid       = "GoToDestinations"
      actions   = ["sts:AssumeRole"]
      resources = var.destination_role_arns
    }
  }
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "ReadRemoteLogs"
      actions   = ["s3:GetObject"]
      resources = ["${local.bucket}/*"]
    }
  }
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "ListRemoteLogs"
      actions   = ["s3:ListBucket"]
      resources = [local.bucket]
    }
  }
}

resource "aws_iam_role" "api_server" {
  count              = local.is_home ? 1 : 0
  name               = "${var.name}-api-server"
  assume_role_policy = data.aws_iam_policy_document.trust_airflow.json
}

resource "aws_iam_role_policy" "api_server" {
  count  = local.is_home ? 1 : 0
  name   = "ecs-async-executor"
  role   = aws_iam_role.api_server[0].id
  policy = data.aws_iam_policy_document.api_server.json
}

# --- people

data "aws_iam_policy_document" "operator" {
  statement {
    sid       = "FollowAndStop"
    actions   = ["ecs:DescribeTasks", "ecs:StopTask"]
    resources = [local.tasks]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "FindByMark"
    actions   = ["ecs:ListTasks"]
    resources = ["*"]
    condition {
      test     = "ArnEquals"
      variable = "ecs:cluster"
      values   = [local.cluster]
    }
  }
  statement {
    sid       = "ReadTaskDefinitions"
    actions   = ["ecs:DescribeTaskDefinition"]
    resources = ["*"]
  }
  statement {
    sid       = "ReadContainerLogs"
    actions   = ["logs:GetLogEvents"]
    resources = [local.streams]
  }
  dynamic "statement" {
    for_each = var.execute_command ? [1] : []
    content {
      sid       = "OpenShells"
      actions   = ["ecs:ExecuteCommand"]
      resources = [local.cluster, local.tasks]
      condition {
        test     = "StringEquals"
        variable = "ecs:container-name"
        values   = ["airflow"]
      }
    }
  }
  statement {
    sid       = "ReadAccountQuotas"
    actions   = ["servicequotas:ListServiceQuotas"]
    resources = ["*"]
  }
  dynamic "statement" {
    for_each = length(var.destination_role_arns) > 0 ? [1] : []
    content {
      sid       = "GoToDestinations"
      actions   = ["sts:AssumeRole"]
      resources = var.destination_role_arns
    }
  }
}

resource "aws_iam_policy" "operator" {
  count       = local.is_home ? 1 : 0
  name        = "${var.name}-operator"
  description = "For the roles of people who use airflow ecs-async"
  policy      = data.aws_iam_policy_document.operator.json
}

# --- containers

data "aws_iam_policy_document" "execution" {
  statement {
    sid       = "SignInToRegistry"
    actions   = ["ecr:GetAuthorizationToken"]
    resources = ["*"]
  }
  statement {
    sid       = "PullImage"
    actions   = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    resources = ["arn:${local.partition}:ecr:${local.region}:${local.account}:repository/${var.repository}"]
  }
  statement {
    sid       = "WriteContainerLogs"
    actions   = ["logs:CreateLogStream", "logs:PutLogEvents"]
    resources = [local.streams]
  }
  dynamic "statement" {
    for_each = local.hands_over_files ? [1] : []
    content {
      sid       = "ReadWorkloads"
      actions   = ["s3:GetObject"]
      resources = ["${local.workloads}/*"]
    }
  }
  dynamic "statement" {
    for_each = local.hands_over_files ? [1] : []
    content {
      sid       = "FindWorkloads"
      actions   = ["s3:GetBucketLocation"]
      resources = [local.workloads]
    }
  }
}

resource "aws_iam_role" "execution" {
  name               = "${var.name}-execution"
  assume_role_policy = data.aws_iam_policy_document.trust_ecs.json
}

resource "aws_iam_role_policy" "execution" {
  name   = "start-containers"
  role   = aws_iam_role.execution.id
  policy = data.aws_iam_policy_document.execution.json
}

data "aws_iam_policy_document" "task" {
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "WriteRemoteLogs"
      actions   = ["s3:GetObject", "s3:PutObject"]
      resources = ["${local.bucket}/*"]
    }
  }
  dynamic "statement" {
    for_each = local.has_remote_logs ? [1] : []
    content {
      sid       = "ListRemoteLogs"
      actions   = ["s3:ListBucket"]
      resources = [local.bucket]
    }
  }
  dynamic "statement" {
    for_each = var.execute_command ? [1] : []
    content {
      sid = "AllowShells"
      actions = [
        "ssmmessages:CreateControlChannel",
        "ssmmessages:CreateDataChannel",
        "ssmmessages:OpenControlChannel",
        "ssmmessages:OpenDataChannel",
      ]
      resources = ["*"]
    }
  }
}

# What the DAGs need of AWS is added to this role.
resource "aws_iam_role" "task" {
  name               = "${var.name}-task"
  assume_role_policy = data.aws_iam_policy_document.trust_ecs.json
}

resource "aws_iam_role_policy" "task" {
  count  = local.has_remote_logs || var.execute_command ? 1 : 0
  name   = "logs-and-shells"
  role   = aws_iam_role.task.id
  policy = data.aws_iam_policy_document.task.json
}
