"""
The SDK's own data, which describes AWS's services: read from disk once for all sessions of the process.

To read it again for each client takes ten megabytes, twenty times the rest of the client. Imports nothing of ours.
"""

from __future__ import annotations

from typing import Any

_loaders: dict[str | None, Any] = {}
"""By the path that AWS's configuration sets for data of one's own; None: none."""


def shared_loader(session: Any) -> Any:
    """Have a session of the SDK read its data with the process's loader, which keeps what it reads; return it."""
    path = session.get_config_variable("data_path")
    if path not in _loaders:
        _loaders[path] = session.get_component("data_loader")
    session.register_component("data_loader", _loaders[path])
    return _loaders[path]
