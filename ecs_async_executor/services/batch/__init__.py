"""AWS Batch: requests, replies, and the backend that the engine works with."""

from ecs_async_executor.services.batch.backend import SERVICE as SERVICE
from ecs_async_executor.services.batch.backend import BatchBackend as BatchBackend
from ecs_async_executor.services.batch.checking import look_at_definitions as look_at_definitions
from ecs_async_executor.services.batch.console import BatchConsole as BatchConsole
from ecs_async_executor.services.batch.details import inspecting as inspecting
from ecs_async_executor.services.batch.names import job_name as job_name
from ecs_async_executor.services.batch.requests import BatchTemplate as BatchTemplate
from ecs_async_executor.services.batch.requests import base_request as base_request
from ecs_async_executor.services.batch.requests import launch_spec as launch_spec
from ecs_async_executor.services.batch.requests import workload_request as workload_request
from ecs_async_executor.services.batch.requests import wrong_parameters as wrong_parameters
from ecs_async_executor.services.batch.sizes import about_size as about_size
from ecs_async_executor.services.batch.sizes import size_of as size_of
from ecs_async_executor.services.batch.sizes import wrong_sizes as wrong_sizes
