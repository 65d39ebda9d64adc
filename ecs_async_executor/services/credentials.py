"""
Credentials: from an Airflow connection if the amazon provider is installed, else from AWS's default chain.

The only module of this folder that imports anything of Airflow's: the provider's hook, when a client is opened.
Imports ``core.errors``, ``blocking``, ``errors``, ``redaction``, ``roles``, ``sdk_data`` and ``unusable``; the SDK
when a client is opened.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol, TypeAlias, TypeVar

import structlog

from ecs_async_executor.core.errors import ConfigurationError
from ecs_async_executor.services import blocking
from ecs_async_executor.services.errors import is_unavailable
from ecs_async_executor.services.redaction import redacted
from ecs_async_executor.services.roles import assumed
from ecs_async_executor.services.sdk_data import shared_loader
from ecs_async_executor.services.unusable import unusable_keys

log = structlog.get_logger(__name__)

T = TypeVar("T")

_RELOAD_INTERVAL: Final = 5.0
"""Seconds between two loads of credentials, as long as AWS refuses the loaded ones."""
_LAST_MINUTE: Final = 60
_REFRESH_AGAIN: Final = 10.0
"""Seconds between two early refreshes: the first may have brought nothing new."""
_DEFAULT_CONN_ID: Final = "aws_default"


class AsyncCredentials(Protocol):
    """Credentials as an asyncio client asks for them."""

    async def get_frozen_credentials(self) -> Any:
        """Return access key, secret key and session token as they are now."""
        ...


LoadCredentials: TypeAlias = Callable[[], Awaitable[AsyncCredentials | None]]
"""Finds credentials; None if there are none."""


class ThreadedCredentials:
    """
    boto3's credentials for an asyncio client: a refresh, which can block, runs in a thread.

    A caller waits for a refresh only if the present credentials expire within a minute.

    :param executor: the beginning of log events' names
    :param source: whose credentials they are; one refresh at a time is under way for a source
    :param seconds: how long a caller waits for a refresh
    :param name: of the credentials, for people
    """

    def __init__(
        self,
        credentials: Any,
        executor: str,
        *,
        source: Hashable = None,
        seconds: float = 10.0,
        name: str = "credentials",
    ) -> None:
        self.method = str(getattr(credentials, "method", ""))
        self._credentials = credentials
        self._executor = executor
        self._source = self if source is None else source
        self._seconds = seconds
        self._name = name
        self._frozen: Any = None
        self._refreshing: asyncio.Task[None] | None = None
        self._not_before = 0.0

    async def get_frozen_credentials(self) -> Any:
        """Return access key, secret key and session token as they are now."""
        if self._frozen is not None and not self._expires():
            return self._frozen
        spare_time = self._frozen is not None and not self._expires(_LAST_MINUTE)
        if spare_time and asyncio.get_running_loop().time() < self._not_before:
            return self._frozen
        if self._refreshing is None:
            self._refreshing = asyncio.create_task(self._refresh(), name="refresh AWS credentials")
            self._refreshing.add_done_callback(self._refreshed)
        if not spare_time:
            await asyncio.shield(self._refreshing)
        return self._frozen

    def _expires(self, within: int | None = None) -> bool:
        needed = getattr(self._credentials, "refresh_needed", None)
        return needed is not None and bool(needed(within))

    async def _refresh(self) -> None:
        self._frozen = await blocking.call(
            ("keys", self._source), self._name, self._seconds, self._credentials.get_frozen_credentials
        )

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        self._not_before = task.get_loop().time() + _REFRESH_AGAIN
        if not task.cancelled() and (error := task.exception()) is not None:
            event = f"{self._executor}.credentials.not_refreshed"
            log.warning(event, error=type(error).__name__)


class ReloadedCredentials:
    """
    Credentials that are loaded again after AWS has refused them.

    So changed keys of a connection, or a new credentials file, need no restart. Every error comes out as
    botocore's CredentialRetrievalError: the request was not sent.

    :param load: finds the credentials
    """

    method = "ecs-async-executor"

    def __init__(self, load: LoadCredentials) -> None:
        self._load = load
        self._current: AsyncCredentials | None = None
        self._refused = True
        self._error: Exception | None = None
        self._lock = asyncio.Lock()
        self._not_before = 0.0

    def forget(self) -> None:
        """Load them again before the next request, but no more often than every few seconds."""
        self._refused = True

    async def get_frozen_credentials(self) -> Any:
        """Return access key, secret key and session token as they are now, None if there are none."""
        from botocore.exceptions import CredentialRetrievalError

        try:
            if self._refused:
                async with self._lock:
                    await self._reload()
            frozen = None if self._current is None else await self._current.get_frozen_credentials()
        except CredentialRetrievalError:
            raise
        except Exception as error:  # noqa: BLE001 - from STS, files, a database
            raise CredentialRetrievalError(
                provider=self.method,
                error_msg=redacted(f"{type(error).__name__}: {error}"),
                unavailable=is_unavailable(error),
            ) from None
        if frozen is not None and (problem := unusable_keys(frozen, getattr(self._current, "method", ""))):
            raise CredentialRetrievalError(provider=self.method, error_msg=problem)
        return frozen

    async def _reload(self) -> None:
        now = asyncio.get_running_loop().time()
        if self._refused and now >= self._not_before:
            self._not_before = now + _RELOAD_INTERVAL
            self._error = None
            try:
                self._current = await self._load()
            except Exception as error:
                self._error = error
                self._not_before = asyncio.get_running_loop().time() + _RELOAD_INTERVAL  # it may have taken long
                raise
            self._refused = False
        elif self._refused and self._error is not None:
            raise self._error.with_traceback(None)  # more useful than "no credentials"

    def get_deferred_property(self, _name: str) -> Callable[[], None]:
        """Return no account id; botocore asks for one for endpoints that neither ECS nor Batch has."""
        return lambda: None

    def get_account_id(self) -> None:
        """Return no account id."""


# --- where they come from -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ClientDefaults:
    """What an Airflow connection says about a client: its credentials, and the rest if the settings name none."""

    load_credentials: LoadCredentials
    region_name: str | None = None
    endpoint_url: str | None = None
    verify: bool | str | None = None
    profile_name: str | None = None
    config: Any = None


class Connection:
    """
    An Airflow connection to AWS, or AWS's default chain.

    :param conn_id: Airflow's connection; None: the provider's default if it is installed; "": none
    :param region_name: None: the connection's, or that of AWS's own configuration
    :param section: the section of the configuration, for people
    :param role_arn: a role that is assumed with the credentials; None: none beside the connection's own
    :param connect_timeout: seconds that a connection to STS may take
    :param read_timeout: seconds that STS, Airflow or whatever else is asked may take
    """

    def __init__(
        self,
        conn_id: str | None,
        region_name: str | None,
        *,
        section: str,
        role_arn: str | None = None,
        connect_timeout: float,
        read_timeout: float,
    ) -> None:
        self._conn_id = conn_id
        self._region_name = region_name
        self._section = section
        self._connect_timeout = connect_timeout
        self._read_timeout = read_timeout
        self._role_arn = role_arn
        self._name = _DEFAULT_CONN_ID if conn_id is None else conn_id
        self._source = (section, conn_id, region_name, role_arn)

    async def resolve(self, service: str) -> ClientDefaults:
        """
        Return what the connection says.

        :param service: the service's name in the SDK
        :raises ConfigurationError: if a connection is configured and the amazon provider is not installed
        :raises CredentialRetrievalError: if Airflow's secrets backends and database do not say
        """
        from botocore.exceptions import CredentialRetrievalError

        what = f"answer of Airflow's about the connection {self._name!r}"
        try:
            return await self._blocking("connection", what, partial(self._resolve, service))
        except TimeoutError as error:
            raise CredentialRetrievalError(
                provider=ReloadedCredentials.method, error_msg=str(error), unavailable=True
            ) from None

    def _resolve(self, service: str) -> ClientDefaults:
        hook_class = _hook_class()
        if hook_class is None:
            if self._conn_id:
                raise ConfigurationError(
                    [
                        (
                            f"[{self._section}] conn_id = {self._conn_id!r}: Airflow connections for AWS need the "
                            "amazon provider (pip install 'ecs-async-executor[amazon]')"
                        )
                    ]
                )
            return ClientDefaults(
                load_credentials=lambda: self._load(self._default_chain), region_name=self._region_name
            )
        hook = self._hook(hook_class, service)
        connection = hook.conn_config
        return ClientDefaults(
            load_credentials=lambda: self._load(partial(self._of_connection, hook_class, service)),
            region_name=hook.region_name,
            endpoint_url=connection.get_service_endpoint_url(service),
            verify=hook.verify,
            profile_name=connection.profile_name,
            config=hook.config,
        )

    def _hook(self, hook_class: Any, service: str, config: Any = None) -> Any:
        return hook_class(
            aws_conn_id=self._name or None, region_name=self._region_name, client_type=service, config=config
        )

    async def _load(self, find: Callable[[], Any]) -> AsyncCredentials | None:
        credentials = await self._blocking("credentials", "credentials", find)
        if credentials is None:
            return None
        executor = self._section.removeprefix("aws_")  # the provider's name for it
        name = "credentials" if self._role_arn is None else f"credentials of role_arn {self._role_arn}"
        return ThreadedCredentials(
            credentials, executor, source=self._source, seconds=self._read_timeout, name=name
        )

    async def _blocking(self, question: str, what: str, function: Callable[[], T]) -> T:
        return await blocking.call((question, self._source), what, self._read_timeout, function)

    def _of_connection(self, hook_class: Any, service: str) -> Any:
        """Return a connection's credentials. Blocks: this assumes the connection's role, if it has one."""
        config = self._hook(hook_class, service).config.merge(self._one_attempt())
        hook = self._hook(hook_class, service, config)
        session = hook.get_session(region_name=hook.region_name)
        base = session.get_credentials()
        if self._role_arn is None or base is None:
            return base
        shared_loader(session._session)  # noqa: SLF001 - boto3 has no other way to it
        endpoint = hook.conn_config.get_service_endpoint_url("sts", sts_connection_assume=True)
        create = partial(session.client, config=config, endpoint_url=endpoint, verify=hook.verify)
        return assumed(self._role_arn, base, create)

    def _default_chain(self) -> Any:
        """Return the credentials of AWS's default chain. Blocks: a profile can name a process or a role."""
        from botocore.session import Session

        session = Session()
        shared_loader(session)
        session.set_default_client_config(self._one_attempt())
        base = session.get_credentials()
        if self._role_arn is None or base is None:
            return base
        return assumed(self._role_arn, base, partial(session.create_client, region_name=self._region_name))

    def _one_attempt(self) -> Any:
        """Return settings for clients of STS: a thread that waits for it cannot be interrupted."""
        from botocore.config import Config

        return Config(
            connect_timeout=self._connect_timeout,
            read_timeout=self._read_timeout,
            retries={"mode": "standard", "total_max_attempts": 1},  # the next caller repeats it
        )


def _hook_class() -> Any:
    """Return the amazon provider's hook, None if the provider is not installed."""
    with contextlib.suppress(ModuleNotFoundError):
        from airflow.providers.amazon.aws.hooks.base_aws import AwsBaseHook

        return AwsBaseHook
    return None
