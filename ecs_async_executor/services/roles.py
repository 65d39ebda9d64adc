"""
Roles that the executor's rules name: assumed by the SDK, with an error that says what to allow.

Imports ``core.errors``, ``errors`` and ``redaction``; the SDK when a role is assumed. No Airflow.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from ecs_async_executor.services.errors import is_unavailable
from ecs_async_executor.services.redaction import redacted

_SESSION: Final = "ecs-async-executor"
"""The end of the caller's ARN in CloudTrail, and in AWS's refusals."""


def assumed(role_arn: str, base: Any, create_client: Callable[..., Any]) -> Any:
    """
    Return the credentials of a role: asked for at their first use, and again before they expire, which blocks.

    :param base: the credentials that assume it
    :param create_client: makes a client of STS, as a session of the SDK does
    """
    from botocore.credentials import AssumeRoleCredentialFetcher, DeferredRefreshableCredentials
    from botocore.exceptions import CredentialRetrievalError

    fetcher = AssumeRoleCredentialFetcher(create_client, base, role_arn, extra_args={"RoleSessionName": _SESSION})

    def fetch() -> Any:
        try:
            return fetcher.fetch_credentials()
        except Exception as error:  # noqa: BLE001 - from STS, and from the source of the base credentials
            raise CredentialRetrievalError(
                provider=_SESSION, error_msg=_words(role_arn, error), unavailable=is_unavailable(error)
            ) from None

    return DeferredRefreshableCredentials(refresh_using=fetch, method="assume-role")


def _words(role_arn: str, error: Exception) -> str:
    """Return why a role is not assumed, and the way out if AWS refuses it."""
    from botocore.exceptions import ClientError

    why = redacted(str(error) if isinstance(error, ClientError) else f"{type(error).__name__}: {error}")
    words = f"role_arn {role_arn} could not be assumed: {why.rstrip('.')}"
    if isinstance(error, ClientError) and error.response.get("Error", {}).get("Code") == "AccessDenied":
        words += (
            ". The caller needs sts:AssumeRole on the role, and the trust policy of the role has to name "
            "the caller"
        )
    return words
