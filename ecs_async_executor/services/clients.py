"""
Clients: aiobotocore's clients, with our credentials, time-outs, parsers and pool.

Imports the settings, ``blocking``, ``credentials``, ``endpoints``, ``parsing``, ``redaction``, ``sdk_data`` and
``unusable``; aiobotocore when a client is opened.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, Final

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.services import blocking
from ecs_async_executor.services.credentials import Connection, ReloadedCredentials
from ecs_async_executor.services.endpoints import settle_endpoint
from ecs_async_executor.services.parsing import Decoder, ParserFactory
from ecs_async_executor.services.redaction import install_log_filter
from ecs_async_executor.services.sdk_data import shared_loader
from ecs_async_executor.services.unusable import check_port, unusable_bundle, unusable_endpoint
from ecs_async_executor.settings import ECS_SECTION, AwsSettings, Tuning
from ecs_async_executor.settings.rules import AT_HOME, Destination

_STOP_CONNECTIONS: Final = 16
_SPARE_CONNECTIONS: Final = 8
_READING: Final = 60.0
"""Seconds that the SDK's description of a service may take to be read from disk."""


class ClientFactory:
    """
    Makes AWS clients.

    The factory itself does nothing: an Airflow connection is resolved when a client is opened, in a thread.

    :param conn_id: see :class:`~ecs_async_executor.services.credentials.Connection`
    :param region_name: None: the connection's, or ``default_region``
    :param default_region: None: that of AWS's own configuration
    :param role_arn: a role that is assumed with the connection's credentials
    :param section: the section of the configuration, for people
    :param connect_timeout: seconds
    :param read_timeout: seconds
    :param connections: how many requests a client can have under way at once
    """

    def __init__(
        self,
        *,
        conn_id: str | None = None,
        region_name: str | None = None,
        default_region: str | None = None,
        role_arn: str | None = None,
        section: str = ECS_SECTION,
        connect_timeout: float = 5.0,
        read_timeout: float = 10.0,
        connections: int = 100,
    ) -> None:
        self._connection = Connection(
            conn_id,
            region_name,
            section=section,
            role_arn=role_arn,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
        )
        self._default_region = default_region
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._connections = connections
        self._credentials: list[ReloadedCredentials] = []

    @classmethod
    def from_settings(
        cls,
        aws: AwsSettings,
        tuning: Tuning,
        destination: Destination = AT_HOME,
        *,
        connections: int | None = None,
    ) -> ClientFactory:
        """
        Return a factory of clients for a destination.

        A destination's own connection brings its Region, which the section's does not replace.

        :param connections: None: one for each request that can be under way at once
        """
        if connections is None:
            connections = tuning.max_concurrent_launches + tuning.max_concurrent_describes
            connections += _STOP_CONNECTIONS + _SPARE_CONNECTIONS
        own_connection = destination.conn_id is not None
        return cls(
            conn_id=destination.conn_id if own_connection else aws.conn_id,
            region_name=destination.region_name or (None if own_connection else aws.region_name),
            default_region=aws.region_name,
            role_arn=destination.role_arn,
            section=aws.section,
            connect_timeout=tuning.connect_timeout,
            read_timeout=tuning.read_timeout,
            connections=connections,
        )

    def forget_credentials(self) -> None:
        """Load the credentials of all open clients again: AWS has refused them."""
        for credentials in self._credentials:
            credentials.forget()

    @asynccontextmanager
    async def client(
        self, service: str, decoders: Mapping[str, Decoder] | None = None, *, lean: bool = False
    ) -> AsyncIterator[Any]:
        """
        Open a client of a service; it belongs to the running loop.

        :param service: the service's name in the SDK
        :param decoders: by the name of a reply's shape in the SDK, the decoder that reads it instead of botocore
        :param lean: do once what is the same for every request: the first settles the endpoint, and parameters are
            not checked, which the caller does (:meth:`~ecs_async_executor.services.calls.Calls.check`)
        :raises ConfigurationError: if a connection is configured and the amazon provider is not installed, or if
            nothing could ever be sent: see :mod:`~ecs_async_executor.services.unusable`
        """
        from aiobotocore.session import AioSession

        install_log_filter()
        defaults = await self._connection.resolve(service)
        session = AioSession()
        if defaults.profile_name:
            session.set_config_variable("profile", defaults.profile_name)
        session.register_component("response_parser_factory", ParserFactory(decoders or {}))
        credentials = ReloadedCredentials(defaults.load_credentials)
        session._credentials = credentials  # noqa: SLF001 - aiobotocore's only way in, and the provider's too
        loader = shared_loader(session)
        # The service's description is most of what a new client reads from disk.
        read = partial(loader.load_service_model, service, "service-2")
        await blocking.call(("description", id(loader), service), "description of the service", _READING, read)
        bundle = ("verify of the connection", defaults.verify), session.get_config_variable("ca_bundle")
        if problem := await asyncio.to_thread(unusable_bundle, *bundle):
            raise ConfigurationError([problem])
        async with AsyncExitStack() as stack:
            self._credentials.append(credentials)
            stack.callback(self._credentials.remove, credentials)
            creating = session.create_client(
                service,
                region_name=defaults.region_name or self._default_region,
                endpoint_url=defaults.endpoint_url,
                verify=defaults.verify,
                config=self._config(defaults.config, session.user_agent(), lean=lean),
            )
            try:
                client = await stack.enter_async_context(creating)
                check_port(client.meta.endpoint_url)
            except ValueError as error:
                if "Invalid endpoint" not in str(error):
                    raise
                endpoint = ("endpoint_url of the connection", defaults.endpoint_url)
                raise ConfigurationError([unusable_endpoint(error, service, endpoint)]) from None
            if lean:
                settle_endpoint(client)
            yield client

    def _config(self, inherited: Any, user_agent: str, *, lean: bool) -> Any:
        from aiobotocore.config import AioConfig

        if inherited is not None and inherited.user_agent is not None:
            user_agent = inherited.user_agent
        ours = AioConfig(
            # The engine decides about retries: exactly one attempt.
            retries={"mode": "standard", "total_max_attempts": 1},
            max_pool_connections=self._connections,
            connect_timeout=self._connect_timeout,
            read_timeout=self._read_timeout,
            tcp_keepalive=True,
            # Without it botocore builds one for each request, at a sixth of the request's cost.
            user_agent=user_agent,
            **({"parameter_validation": False} if lean else {}),
        )
        return ours if inherited is None else AioConfig().merge(inherited).merge(ours)
