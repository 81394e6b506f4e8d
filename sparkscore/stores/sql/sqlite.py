"""All that is particular to SQLite; `postgres` is its neighbour.

Files are in write-ahead mode with `synchronous = NORMAL`: a commit is in the operating system's
hands when it is acknowledged, so that a process that is killed loses none; a machine that loses
power may lose the last ones, and never the file.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from urllib.parse import quote

from filelock import FileLock, Timeout
from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, QueuePool

from sparkscore.errors import (
    SparkscoreError,
    StoreSchemaError,
    StoreUnavailableError,
)

_WRITE_OPTION = "sparkscore_writes"
_FILE = "file"
_OPEN_TIMEOUT_S = 60.0
# Kept open between calls; more are opened as they are needed, and closed again.
_POOL_SIZE = 8


class SqliteFile:
    """A database in one file.

    Args:
        url: `sqlite:///FILE`.
        busy_timeout_s: How long a transaction waits for another process's, or thread's.
    """

    def __init__(self, url: URL, busy_timeout_s: float) -> None:
        self._path = Path(str(url.database)).absolute()
        self._busy_timeout_s = busy_timeout_s
        self._turn = Lock()

    @property
    def where(self) -> str:
        """See Backend."""
        return str(self._path)

    def open_engines(self) -> tuple[Engine, Engine]:
        """See Backend."""
        self._turn = Lock()  # one that was held when the process forked stays held in the child
        engine = create_engine(
            "sqlite://",
            creator=self._connect,
            poolclass=QueuePool,
            pool_size=_POOL_SIZE,
            max_overflow=-1,
            pool_use_lifo=True,
        )
        event.listen(engine, "connect", self._remember_file)
        event.listen(engine, "checkout", self._check_file)
        event.listen(engine, "begin", _begin)
        return engine, engine.execution_options(**{_WRITE_OPTION: True})

    def is_there(self) -> bool:
        """See Backend."""
        return self._path.exists()

    @contextmanager
    def creating(self, writes: Engine) -> Iterator[Connection]:
        """See Backend."""
        if not self._path.parent.is_dir():
            raise StoreUnavailableError(
                f"the folder {str(self._path.parent)!r} of the store database does not exist: "
                "create or mount it, or set another store URL"
            )
        try:
            with FileLock(f"{self._path}.lock", timeout=_OPEN_TIMEOUT_S, mode=0o600):
                # Not where it is there: to close a file, by whatever descriptor, gives up the locks
                # that this process's connections have on it. The next process that closes it would
                # then remove the log to which we still write, and what we acknowledge with it.
                if not self._path.exists():
                    # Nobody but its owner shall read it.
                    os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
                if self._path.stat().st_size == 0:
                    _let_readers_and_writer_overlap(writes)
                with self.writing(), writes.begin() as connection:
                    yield connection
        except Timeout as exc:
            raise self._unavailable("another process is opening it") from exc
        except OSError as exc:
            raise self._unavailable(exc.strerror or str(exc)) from exc

    @contextmanager
    def writing(self) -> Iterator[None]:
        """See Backend; SQLite's own waiting is by sleep, and lets some wait for ever."""
        if not self._turn.acquire(timeout=self._busy_timeout_s):
            raise self._unavailable("other threads are writing")
        try:
            yield
        finally:
            self._turn.release()

    def is_worth_another_try(self, error: DBAPIError) -> bool:  # noqa: ARG002 - writers queue
        """See Backend."""
        return False

    def explained(self, error: DBAPIError) -> SparkscoreError:
        """See Backend."""
        if getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB:
            return StoreSchemaError(
                f"{str(self._path)!r} is not an SQLite database: set another store URL, "
                "or move the file away"
            )
        return self._unavailable(str(error.orig))

    def _connect(self) -> sqlite3.Connection:
        # mode=rw: a file that was moved away must not come back as a new, empty one.
        connection = sqlite3.connect(
            f"file:{quote(str(self._path))}?mode=rw",
            uri=True,
            timeout=self._busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")
        return connection

    def _remember_file(self, _: object, entry: ConnectionPoolEntry) -> None:
        entry.info[_FILE] = self._identity()

    def _check_file(self, _: object, entry: ConnectionPoolEntry, __: object) -> None:
        # A connection to a file that was moved or replaced still works, on the old one.
        if entry.info.get(_FILE) != self._identity():
            raise DisconnectionError

    def _identity(self) -> tuple[int, int] | None:
        try:
            status = self._path.stat()
        except OSError:
            return None
        return status.st_dev, status.st_ino

    def _unavailable(self, why: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the store database {str(self._path)!r} did not answer: {why}. Check that the file "
            "and its folder exist, are writable and not full, and run again"
        )


def _let_readers_and_writer_overlap(engine: Engine) -> None:
    """Switch the file to write-ahead logging, for good."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails under load with "database is
    # locked", whatever the timeout; an immediate one waits for its turn.
    writes = connection.get_execution_options().get(_WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
