"""All that is particular to PostgreSQL; `sqlite` is its neighbour.

Writers do not queue: each locks the row that owns what it writes (a run, a model) before it looks,
and one that met another all the same (two new experiments of a name) is tried again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from sqlalchemy import URL, Connection, Engine, create_engine, text
from sqlalchemy.exc import DBAPIError

from sparkscore.errors import (
    MissingExtraError,
    SparkscoreError,
    StoreSchemaError,
    StoreUnavailableError,
    UsageError,
)

_CONNECT_TIMEOUT_S = 10
_IDLE_TIMEOUT_S = 60
_POOL_SIZE = 8
_MAX_OVERFLOW = 24
# Any number that other programs on the server do not lock; "sparkscore" on a telephone's keys.
_SCHEMA_LOCK = 7727572673
# SQLSTATE classes and codes, as PostgreSQL's appendix A lists them.
_IN_EACH_OTHERS_WAY = ("23", "40")
_NO_SUCH_TABLE_OR_COLUMN = ("3F000", "42P01", "42703")
_NOT_ALLOWED = ("28", "42501")
_TOO_LONG_FOR_AN_INDEX = "54000"


class PostgresDatabase:
    """A database of a PostgreSQL server.

    Args:
        url: `postgresql://USER:PASSWORD@HOST/DATABASE`; what follows `?` is libpq's.
        lock_timeout_s: How long a statement waits for another transaction's lock.

    Raises:
        MissingExtraError: psycopg is not installed.
    """

    def __init__(self, url: URL, lock_timeout_s: float) -> None:
        try:
            import psycopg  # noqa: F401 - only whether it is there
        except ImportError as exc:
            raise MissingExtraError(
                "a PostgreSQL store needs psycopg: pip install 'sparkscore[postgres]'"
            ) from exc
        self._url = url.set(drivername="postgresql+psycopg")
        self._lock_timeout_s = lock_timeout_s

    @property
    def where(self) -> str:
        """See Backend."""
        return self._url.set(drivername="postgresql", query={}).render_as_string()

    def open_engines(self) -> tuple[Engine, Engine]:
        """See Backend."""
        options = (
            f"-c lock_timeout={int(self._lock_timeout_s * 1000)}",
            f"-c idle_in_transaction_session_timeout={_IDLE_TIMEOUT_S * 1000}",
        )
        engine = create_engine(
            self._url,
            pool_size=_POOL_SIZE,
            max_overflow=_MAX_OVERFLOW,
            pool_timeout=self._lock_timeout_s,
            pool_use_lifo=True,
            # A server that was started again must not cost a call per connection.
            pool_pre_ping=True,
            connect_args={
                "connect_timeout": _CONNECT_TIMEOUT_S,
                "application_name": "sparkscore",
                "options": " ".join(options),
            },
        )
        reads = engine.execution_options(
            isolation_level="REPEATABLE READ", postgresql_readonly=True
        )
        return reads, engine

    def is_there(self) -> bool:
        """See Backend."""
        return True

    @contextmanager
    def creating(self, writes: Engine) -> Iterator[Connection]:
        """See Backend."""
        with writes.begin() as connection:
            connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _SCHEMA_LOCK})
            yield connection

    def writing(self) -> AbstractContextManager[None]:
        """See Backend."""
        return nullcontext()

    def is_worth_another_try(self, error: DBAPIError) -> bool:
        """See Backend."""
        return _state(error).startswith(_IN_EACH_OTHERS_WAY)

    def explained(self, error: DBAPIError) -> SparkscoreError:
        """See Backend."""
        state = _state(error)
        why = str(error.orig).strip().splitlines()[0] if str(error.orig).strip() else "no reason"
        if state == _TOO_LONG_FOR_AN_INDEX:
            return UsageError(f"a name or key is too long for {self.where!r} ({why}): shorten it")
        if state.startswith(_NO_SUCH_TABLE_OR_COLUMN):
            return StoreSchemaError(
                f"the database {self.where!r} has other tables than this release of sparkscore "
                f"expects ({why}); nothing was changed. Set a store URL of its own"
            )
        if state.startswith(_NOT_ALLOWED):
            return StoreUnavailableError(
                f"the store database {self.where!r} refused: {why}. Check the user, the password "
                "and what the user may do, and run again"
            )
        return StoreUnavailableError(
            f"the store database {self.where!r} did not answer: {why}. Check that the server runs, "
            "can be reached and is not full, and run again"
        )


def _state(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""
