"""Records kept in a SQL database, through SQLAlchemy; the schema is alembic's."""

from __future__ import annotations

from dataclasses import dataclass

from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.models import SqlModelStore
from sparkscore.stores.sql.runs import SqlRunStore, default_experiment

__all__ = ["SqlModelStore", "SqlRunStore", "SqlStores", "open_sql"]


@dataclass(frozen=True)
class SqlStores:
    """The two record stores of one database."""

    runs: SqlRunStore
    models: SqlModelStore


def open_sql(
    url: str,
    artifact_root: str,
    clock: Clock = system_clock,
    busy_timeout_s: float = 15.0,
) -> SqlStores:
    """The record stores in the database at `url`.

    Nothing is touched before the first call of a store, so that a database that is away delays
    the records of a job and not the job. The first call creates or upgrades the schema.

    Args:
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`; the folder must exist.
        artifact_root: URI below which experiments without a location of their own keep files.
        clock: Milliseconds since the epoch.
        busy_timeout_s: How long a call waits for another process's transaction.

    Raises:
        ConfigError: The URL is not of a database that is supported.
    """
    database = Database(url, busy_timeout_s, default_experiment(artifact_root, clock))
    return SqlStores(SqlRunStore(database, artifact_root, clock), SqlModelStore(database, clock))
