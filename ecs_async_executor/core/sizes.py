"""How big a container is. Imports nothing of ours."""

from __future__ import annotations

import msgspec


class Size(msgspec.Struct, frozen=True, gc=False):
    """
    The size of a container; None for what is not known or not asked for.

    :param cpu: in CPU units, of which a vCPU has 1024
    :param memory: in MiB
    :param gpu: how many
    :param disk: ephemeral storage in GiB
    """

    cpu: int | None = None
    memory: int | None = None
    gpu: int | None = None
    disk: int | None = None
