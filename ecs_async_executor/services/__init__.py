"""
AWS: everything that knows a service's API.

``ecs`` and ``batch`` are the two backends; a third service is a package like them, with an adapter of its own. The
modules beside them serve both. :mod:`~ecs_async_executor.services.errors` is the place for a new error of AWS's.
"""
