# The bucket of workloads. An object lives for as long as its container takes to start; the lifecycle rule has what a
# crash leaves behind.

resource "aws_s3_bucket" "workloads" {
  count  = local.makes_workload_bucket ? 1 : 0
  bucket = var.workload_bucket
}

resource "aws_s3_bucket_server_side_encryption_configuration" "workloads" {
  count  = local.makes_workload_bucket ? 1 : 0
  bucket = aws_s3_bucket.workloads[0].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_public_access_block" "workloads" {
  count                   = local.makes_workload_bucket ? 1 : 0
  bucket                  = aws_s3_bucket.workloads[0].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "workloads" {
  count  = local.makes_workload_bucket ? 1 : 0
  bucket = aws_s3_bucket.workloads[0].id

  rule {
    id     = "leftovers"
    status = "Enabled"

    filter {}

    expiration {
      days = 1
    }
  }
}

data "aws_iam_policy_document" "workloads" {
  # Also whoever may read every bucket of the account is kept out; a second account's execution role goes here.
  statement {
    sid       = "OnlyContainersGetWorkloads"
    effect    = "Deny"
    actions   = ["s3:GetObject"]
    resources = ["${local.workloads}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "ArnNotEquals"
      variable = "aws:PrincipalArn"
      values   = [aws_iam_role.execution.arn]
    }
  }
  statement {
    sid       = "NothingWithoutTls"
    effect    = "Deny"
    actions   = ["s3:*"]
    resources = [local.workloads, "${local.workloads}/*"]
    principals {
      type        = "*"
      identifiers = ["*"]
    }
    condition {
      test     = "Bool"
      variable = "aws:SecureTransport"
      values   = ["false"]
    }
  }
}

resource "aws_s3_bucket_policy" "workloads" {
  count  = local.makes_workload_bucket ? 1 : 0
  bucket = aws_s3_bucket.workloads[0].id
  policy = data.aws_iam_policy_document.workloads.json
}
