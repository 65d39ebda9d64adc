"""What the local services share on the wire: refusals, names, page tokens. Imports nothing of this package."""

from __future__ import annotations

import base64
from typing import Any


class AwsError(Exception):
    """
    An error reply of an AWS API.

    :param code: the error code, e.g. ``ClientException``
    :param message: AWS's words
    :param status: the HTTP status
    :param fields: further members of the reply, e.g. ``resourceIds``
    """

    def __init__(self, code: str, message: str, status: int = 400, **fields: Any) -> None:
        self.code = code
        self.message = message
        self.status = status
        self.fields = fields
        super().__init__(f"{code}: {message}")


def name_of(reference: str) -> str:
    """Give the last part of an ARN, or the name or id itself."""
    return reference.rsplit("/", 1)[-1]


def encode_page(after: int) -> str:
    """Make the token that :func:`decode_page` reads."""
    return base64.urlsafe_b64encode(f"after:{after}".encode()).decode()


def decode_page(token: str) -> int:
    """
    Read a page token.

    :raises ValueError: if it is not one of ours
    """
    word, _, number = base64.urlsafe_b64decode(token.encode()).decode().partition(":")
    if word != "after" or not number.isdecimal():
        raise ValueError(token)
    return int(number)
