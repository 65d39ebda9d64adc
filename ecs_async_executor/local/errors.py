"""The wire format that the local services share: refusals, names, page tokens. Imports nothing of this package."""

from __future__ import annotations

import base64
from typing import Any


class AwsError(Exception):
    """
    An error reply of an AWS API.

    :param code: the error code, such as ``ClientException``
    :param message: AWS's words
    :param status: the HTTP status
    :param fields: further members of the reply, such as ``resourceIds``
    """

    def __init__(self, code: str, message: str, status: int = 400, **fields: Any) -> None:
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields
        super().__init__(f"{code}: {message}")


def name_of(reference: str) -> str:
    """Return the last part of an ARN; a name or id stays as it is."""
    return reference.rsplit("/", 1)[-1]


def encode_page(after: int) -> str:
    """Return the page token that :func:`decode_page` reads."""
    return base64.urlsafe_b64encode(f"after:{after}".encode()).decode()


def decode_page(token: str) -> int:
    """
    Return the position that a page token holds.

    :raises ValueError: if :func:`encode_page` did not make the token
    """
    word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
    if word != "after" or not number.isdecimal():
        raise ValueError(token)
    return int(number)
