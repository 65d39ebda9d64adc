"""
What can never be sent: an endpoint that is no address, a CA bundle that is none, a key with a newline in it.

AWS's own settings say all three, in the environment, a profile or an Airflow connection, so the settings of this
package cannot refuse them. Each message names the setting. Imports the standard library only.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Iterator
from typing import Any, Final
from urllib.parse import urlsplit

_SOURCES: Final = {"explicit": "of the connection"}
"""The SDK's words for where keys are from, as people know it."""


def unusable_endpoint(error: ValueError, service: str, connection: tuple[str, str | None]) -> str:
    """
    Return what is wrong with the endpoint that a client refuses.

    :param error: the SDK's
    :param service: the service's name in the SDK
    :param connection: what the connection is called, and its endpoint
    """
    variables = (f"AWS_ENDPOINT_URL_{service.upper()}", "AWS_ENDPOINT_URL")
    source, endpoint = next(
        (one for one in (connection, *((name, os.environ.get(name)) for name in variables)) if one[1]),
        ("endpoint_url", None),
    )
    said = source if endpoint is None else f"{source} = {endpoint!r}"
    return f"{said}: {error}. It needs a scheme and a host, such as http://localhost:4566"


def check_port(endpoint: str) -> None:
    """
    Refuse an endpoint that the SDK refuses only when it sends something, in the SDK's words.

    :raises ValueError: if its port is none
    """
    try:
        _ = urlsplit(endpoint).port
    except ValueError as error:
        msg = f"Invalid endpoint: {endpoint}: {error}"
        raise ValueError(msg) from None


def unusable_bundle(connection: tuple[str, Any], profile: str | None) -> str | None:
    """
    Return what is wrong with the file of CA certificates that a client would read, None if nothing is. Blocks.

    :param connection: what the connection is called, and its ``verify``
    :param profile: ``ca_bundle`` of AWS's configuration
    """
    if connection[1] is not None:
        source, bundle = connection
    elif profile is not None:
        source, bundle = "AWS_CA_BUNDLE" if os.environ.get("AWS_CA_BUNDLE") else "ca_bundle", profile
    else:
        source, bundle = "REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")
    if not isinstance(bundle, str) or not bundle:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(bundle)
    except OSError as error:
        return f"{source} = {bundle!r}: {error}. It has to be a file of CA certificates in PEM form"
    return None


def unusable_keys(keys: Any, method: str) -> str | None:
    """
    Return what is wrong with credentials that no request can carry, None if nothing is. The values are not shown.

    :param keys: frozen credentials
    :param method: the SDK's word for where they are from
    """
    return next((f"{name} {what}" for name, what in _wrong_keys(keys, method)), None)


def _wrong_keys(keys: Any, method: str) -> Iterator[tuple[str, str]]:
    for name, value in (
        ("access_key_id", keys.access_key),
        ("secret_access_key", keys.secret_key),
        ("session_token", keys.token),
    ):
        if not value or (value.isprintable() and value == value.strip()):
            continue
        shown = f"AWS_{name.upper()}" if method == "env" else f"aws_{name} ({_SOURCES.get(method, method)})"
        if value[-1:] in "\r\n" and value.rstrip("\r\n").isprintable():
            yield shown, "ends in a newline"
        else:
            yield shown, "has a blank at an end, or a control character"
