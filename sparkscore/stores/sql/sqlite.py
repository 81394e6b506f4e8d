"""All that is particular to SQLite, so that another database has one file to stand beside."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from sqlalchemy import Connection, Engine, Table, create_engine, event
from sqlalchemy.dialects.sqlite import Insert, insert
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, DBAPIError
from sqlalchemy.pool import NullPool

from sparkscore.errors import ConfigError, shown

WRITE_OPTION = "sparkscore_writes"


def database_file(url: str) -> Path:
    """The file that a `sqlite:///...` URL names.

    Raises:
        ConfigError: The URL is of another database, or names no file.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as exc:
        raise ConfigError(f"store URL {shown(url)} does not parse: use sqlite:///FILE") from exc
    if parsed.get_backend_name() != "sqlite" or parsed.database in (None, "", ":memory:"):
        raise ConfigError(
            f"store URL {parsed.render_as_string()!r} names no SQLite file: use sqlite:///FILE"
        )
    return Path(str(parsed.database)).absolute()


def file_engine(path: Path, busy_timeout_s: float) -> Engine:
    """An engine over an existing file that begins transactions itself."""

    def connect() -> sqlite3.Connection:
        # mode=rw: a file that was moved away must not come back as a new, empty one.
        connection = sqlite3.connect(
            f"file:{quote(str(path))}?mode=rw",
            uri=True,
            timeout=busy_timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    # No pool: a connection survives neither a fork nor a file that was moved and restored.
    engine = create_engine("sqlite://", creator=connect, poolclass=NullPool)
    event.listen(engine, "begin", _begin)
    return engine


def create_file(path: Path) -> None:
    """Create an empty database file that only its owner can read, unless there is one."""
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def let_readers_and_writer_overlap(engine: Engine) -> None:
    """Switch the file to write-ahead logging, for good."""
    connection = engine.raw_connection()
    try:
        connection.cursor().execute("PRAGMA journal_mode = WAL")
    finally:
        connection.close()


def insert_new(table: Table) -> Insert:
    """An INSERT that leaves rows whose primary key exists as they are."""
    return insert(table).on_conflict_do_nothing()


def is_foreign_file(error: DBAPIError) -> bool:
    """Whether the error says that the file is no SQLite database at all."""
    return getattr(error.orig, "sqlite_errorcode", None) == sqlite3.SQLITE_NOTADB


def _begin(connection: Connection) -> None:
    # A deferred transaction that reads first and writes later fails under load with "database is
    # locked", whatever the timeout; an immediate one waits for its turn.
    writes = connection.get_execution_options().get(WRITE_OPTION, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")
