# The parameters of cloudformation.yaml, under the same names. docs/infrastructure.md says how to use them.

variable "name" {
  description = "Begins the names of all that is made; also the family of the task definition"
  type        = string
  default     = "airflow"
}

variable "image" {
  description = "The image of the tasks, for example 123456789012.dkr.ecr.eu-west-1.amazonaws.com/airflow:1"
  type        = string
}

variable "repository" {
  description = "The name of the ECR repository that has the image"
  type        = string
  default     = "airflow"
}

variable "cpu" {
  description = "CPU units of a task, 1024 for one vCPU"
  type        = string
  default     = "1024"
}

variable "memory" {
  description = "MiB of a task; it has to fit the CPU units"
  type        = string
  default     = "2048"
}

variable "execution_api_url" {
  description = "Airflow's execution API as the containers reach it, for example http://airflow.internal:8080/execution/"
  type        = string

  validation {
    condition     = can(regex("^https?://.+/execution/$", var.execution_api_url))
    error_message = "It is an URL that ends with /execution/."
  }
}

variable "remote_log_bucket" {
  description = "The S3 bucket of Airflow's remote logs; empty for none"
  type        = string
  default     = ""
}

variable "workload_bucket" {
  description = "The S3 bucket to make for workloads (workload_delivery); elsewhere that of home; empty for none"
  type        = string
  default     = ""
}

variable "log_retention_days" {
  description = "How many days CloudWatch Logs keeps what containers print"
  type        = number
  default     = 30
}

variable "cluster" {
  description = "The name of the ECS cluster"
  type        = string
  default     = "airflow"
}

variable "create_cluster" {
  description = "Whether to make the cluster, with Fargate on demand and Spot"
  type        = bool
  default     = false
}

variable "vpc_id" {
  description = "The VPC of the tasks, to make a security group for them; empty for none"
  type        = string
  default     = ""
}

variable "api_server_security_group" {
  description = "The security group of the API server, to let the tasks in; empty to leave it alone"
  type        = string
  default     = ""
}

variable "api_server_port" {
  description = "The port at which the tasks reach the API server"
  type        = number
  default     = 8080
}

variable "create_events" {
  description = "Whether to make a queue of the tasks' events, for events_queue_url; see docs/push.md"
  type        = bool
  default     = false
}

variable "airflow_runs_on" {
  description = "The service that gives scheduler and API server their roles; on EKS this is Pod Identity"
  type        = string
  default     = "ecs-tasks.amazonaws.com"

  validation {
    condition     = contains(["ecs-tasks.amazonaws.com", "pods.eks.amazonaws.com", "ec2.amazonaws.com"], var.airflow_runs_on)
    error_message = "It is ecs-tasks.amazonaws.com, pods.eks.amazonaws.com or ec2.amazonaws.com."
  }
}

variable "trusted_role_arns" {
  description = "In a second account or Region: the scheduler's and API server's roles of the first one"
  type        = list(string)
  default     = []
}

variable "destination_role_arns" {
  description = "In the first account and Region: the scheduler roles of the others"
  type        = list(string)
  default     = []
}

variable "container_tags" {
  description = "Whether the scheduler may tag what it launches (container_tags, or tags of your own)"
  type        = bool
  default     = true
}

variable "execute_command" {
  description = "Whether people can open a shell in a container (airflow ecs-async exec)"
  type        = bool
  default     = true
}

variable "scheduler_log_group" {
  description = "The log group of the scheduler's own log, for alarms; empty for none"
  type        = string
  default     = ""
}

variable "alarm_topic_arn" {
  description = "The SNS topic that alarms notify; empty for none"
  type        = string
  default     = ""
}
