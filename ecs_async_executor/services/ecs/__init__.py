"""Amazon ECS: requests, replies, and the backend that the engine works with."""

from ecs_async_executor.services.ecs.backend import SERVICE as SERVICE
from ecs_async_executor.services.ecs.backend import EcsBackend as EcsBackend
from ecs_async_executor.services.ecs.checking import look_at_definitions as look_at_definitions
from ecs_async_executor.services.ecs.console import EcsConsole as EcsConsole
from ecs_async_executor.services.ecs.delivery import VARIABLE as VARIABLE
from ecs_async_executor.services.ecs.delivery import file_entry as file_entry
from ecs_async_executor.services.ecs.delivery import file_of as file_of
from ecs_async_executor.services.ecs.delivery import set_apart as set_apart
from ecs_async_executor.services.ecs.details import console_url as console_url
from ecs_async_executor.services.ecs.details import inspecting as inspecting
from ecs_async_executor.services.ecs.files import WorkloadFiles as WorkloadFiles
from ecs_async_executor.services.ecs.requests import EcsTemplate as EcsTemplate
from ecs_async_executor.services.ecs.requests import about_size as about_size
from ecs_async_executor.services.ecs.requests import base_request as base_request
from ecs_async_executor.services.ecs.requests import container_for as container_for
from ecs_async_executor.services.ecs.requests import launch_spec as launch_spec
from ecs_async_executor.services.ecs.requests import workload_request as workload_request
from ecs_async_executor.services.ecs.requests import wrong_parameters as wrong_parameters
from ecs_async_executor.services.ecs.sizes import size_of as size_of
from ecs_async_executor.services.ecs.sizes import wrong_sizes as wrong_sizes
