"""AWS: clients, requests and replies of ECS and Batch."""
