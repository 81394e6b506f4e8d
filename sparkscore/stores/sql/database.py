"""One database: opened, brought to this release's schema and guarded at its edge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

from filelock import FileLock, Timeout
from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from sparkscore.errors import SparkscoreError, StoreSchemaError, StoreUnavailableError
from sparkscore.stores.sql import schema, sqlite

_OPEN_TIMEOUT_S = 60.0


class Database:
    """Read and write transactions on one database; safe between threads and processes.

    Args:
        url: `sqlite:///FILE`.
        busy_timeout_s: How long a transaction waits for another process's.
        fill_new: Writes the first rows of a new database, in the transaction that creates it.
    """

    def __init__(
        self, url: str, busy_timeout_s: float, fill_new: Callable[[Connection], None]
    ) -> None:
        self._fill_new = fill_new
        self._path = sqlite.database_file(url)
        self._reads = sqlite.file_engine(self._path, busy_timeout_s)
        self._writes = self._reads.execution_options(**{sqlite.WRITE_OPTION: True})
        self._opening = Lock()
        self._is_open = False

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            StoreUnavailableError: The database did not answer.
            StoreSchemaError: It is not a database of this release.
        """
        with self._guarded():
            self._open()
            with self._reads.begin() as connection:
                yield connection

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that no other writer overlaps; rolled back on any error.

        Raises:
            StoreUnavailableError: The database did not answer; nothing was kept.
            StoreSchemaError: It is not a database of this release.
        """
        with self._guarded():
            self._open()
            with self._writes.begin() as connection:
                yield connection

    def _open(self) -> None:
        with self._opening:
            if not self._is_open:
                if self._revision() != schema.HEAD:
                    self._create_or_upgrade()
                self._is_open = True

    def _revision(self) -> str | None:
        if not self._path.exists():
            return None
        with self._reads.begin() as connection:
            return schema.found_revision(connection, str(self._path))

    def _create_or_upgrade(self) -> None:
        if not self._path.parent.is_dir():
            raise StoreUnavailableError(
                f"the folder {str(self._path.parent)!r} of the store database does not exist: "
                "create or mount it, or set another store URL"
            )
        with FileLock(_lock_path(self._path), timeout=_OPEN_TIMEOUT_S, mode=0o600):
            sqlite.create_file(self._path)
            revision = self._revision()
            if revision == schema.HEAD:
                return
            sqlite.let_readers_and_writer_overlap(self._reads)
            with self._writes.begin() as connection:
                schema.upgrade(connection)
                if revision is None:
                    self._fill_new(connection)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        try:
            yield
        except SparkscoreError:
            raise
        except DBAPIError as exc:
            if sqlite.is_foreign_file(exc):
                raise StoreSchemaError(
                    f"{str(self._path)!r} is not an SQLite database: set another store URL, "
                    "or move the file away"
                ) from exc
            raise self._unavailable(str(exc.orig)) from exc
        except Timeout as exc:
            raise self._unavailable("another process is opening it") from exc
        except OSError as exc:
            raise self._unavailable(exc.strerror or str(exc)) from exc

    def _unavailable(self, why: str) -> StoreUnavailableError:
        return StoreUnavailableError(
            f"the store database {str(self._path)!r} did not answer: {why}. Check that the file "
            "and its folder exist, are writable and not full, and run again"
        )


def _lock_path(path: Path) -> Path:
    return path.with_name(path.name + ".lock")
