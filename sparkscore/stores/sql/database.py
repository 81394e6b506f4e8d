"""One database: opened, brought to this release's schema and guarded at its edge."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from threading import Lock
from typing import Protocol, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from sparkscore.errors import SparkscoreError, StoreUnavailableError
from sparkscore.stores.sql import schema

Result = TypeVar("Result")

_MAX_TRIES = 8
_MAX_PAUSE_S = 0.02


class Backend(Protocol):
    """What is particular to one kind of database."""

    @property
    def where(self) -> str:
        """The database's name in messages, without a password."""
        ...

    def open_engines(self) -> tuple[Engine, Engine]:
        """Engines for read and for write transactions, over one pool of connections."""
        ...

    def is_there(self) -> bool:
        """Whether there is anything to connect to yet."""
        ...

    def creating(self, writes: Engine) -> AbstractContextManager[Connection]:
        """A write transaction while no other process creates or upgrades the schema.

        Raises:
            StoreUnavailableError: The database cannot be made, or another process keeps on.
        """
        ...

    def writing(self) -> AbstractContextManager[None]:
        """Held through a write transaction, by one thread of the process if writers must queue.

        Raises:
            StoreUnavailableError: The queue did not move.
        """
        ...

    def is_worth_another_try(self, error: DBAPIError) -> bool:
        """Whether a write that was rolled back with this may succeed at once."""
        ...

    def explained(self, error: DBAPIError) -> SparkscoreError:
        """The error of ours for one of the database's."""
        ...


class _Opened:
    """What belongs to one process, and is useless in a child that it forks."""

    def __init__(self, backend: Backend) -> None:
        self.pid = os.getpid()
        self.reads, self.writes = backend.open_engines()
        self.opening = Lock()
        self.is_current = False


# Of parent processes: to close their connections, which a collected object does, is forbidden.
_ABANDONED: list[_Opened] = []


class Database:
    """Read and write transactions on one database; safe between threads, processes and forks.

    Args:
        backend: Which database.
        fill_new: Writes the first rows of a new database, in the transaction that creates it.
    """

    def __init__(self, backend: Backend, fill_new: Callable[[Connection], None]) -> None:
        self._backend = backend
        self._fill_new = fill_new
        self._state: _Opened | None = None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database.

        Raises:
            StoreUnavailableError: The database did not answer.
            StoreSchemaError: It is not a database of this release.
        """
        with self._guarded(), self._opened().reads.begin() as connection:
            yield connection

    def write(self, work: Callable[[Connection], Result]) -> Result:
        """What `work` returns, after its transaction is committed; rolled back on any error.

        `work` may be called again, on a new transaction, where another writer was in its way.

        Raises:
            StoreUnavailableError: The database did not answer; nothing was kept.
            StoreSchemaError: It is not a database of this release.
        """
        with self._guarded():
            opened = self._opened()
            for n_tries in range(1, _MAX_TRIES + 1):
                try:
                    with self._backend.writing(), opened.writes.begin() as connection:
                        return work(connection)
                except DBAPIError as exc:
                    if n_tries == _MAX_TRIES or not self._backend.is_worth_another_try(exc):
                        raise
                # Not all at once again.
                time.sleep(random.uniform(0, _MAX_PAUSE_S * n_tries))  # noqa: S311 - no secret
        raise AssertionError("the last try returns or raises")

    def revision(self) -> str | None:
        """The schema that the database has now; None where it is empty or not there yet.

        Raises:
            StoreUnavailableError: The database did not answer.
            StoreSchemaError: It is of another product, or of a newer release.
        """
        with self._guarded():
            return self._revision(self._of_this_process())

    def upgrade(self) -> None:
        """Bring the database to this release's schema, as any other call does on its way.

        Raises:
            StoreUnavailableError: The database did not answer.
            StoreSchemaError: It is of another product, or of a newer release.
        """
        with self._guarded():
            self._opened()

    def close(self) -> None:
        """Close the connections that no transaction uses; the next one opens them anew."""
        if self._state is not None and self._state.pid == os.getpid():
            self._state.reads.dispose()

    def _of_this_process(self) -> _Opened:
        state = self._state
        if state is None or state.pid != os.getpid():
            if state is not None:
                _ABANDONED.append(state)
            state = self._state = _Opened(self._backend)
        return state

    def _opened(self) -> _Opened:
        state = self._of_this_process()
        if not state.is_current:
            with state.opening:
                if not state.is_current:
                    if self._revision(state) != schema.HEAD:
                        self._create_or_upgrade(state)
                    state.is_current = True
        return state

    def _revision(self, state: _Opened) -> str | None:
        if not self._backend.is_there():
            return None
        with state.reads.begin() as connection:
            return schema.found_revision(connection, self._backend.where)

    def _create_or_upgrade(self, state: _Opened) -> None:
        with self._backend.creating(state.writes) as connection:
            # Asked again, now that no other process is at it.
            revision = schema.found_revision(connection, self._backend.where)
            if revision != schema.HEAD:
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
            # What comes back after a failure may be another database: its schema is asked again.
            # And a connection that was opened while a file was read-only stays so for good.
            if self._state is not None:
                self._state.is_current = False
                self.close()
            raise self._backend.explained(exc) from exc
        except PoolTimeoutError as exc:
            raise StoreUnavailableError(
                f"the store database {self._backend.where!r} did not answer: all connections are "
                "in use. Run again, or with fewer writers"
            ) from exc
