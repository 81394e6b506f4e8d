"""Records kept in a SQL database, through SQLAlchemy; the schema is alembic's."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from sparkscore.errors import ConfigError, shown
from sparkscore.stores.base import Clock, system_clock
from sparkscore.stores.sql import schema
from sparkscore.stores.sql.accounts import SqlAccountStore
from sparkscore.stores.sql.copies import SqlCopyStore
from sparkscore.stores.sql.database import Backend, Database
from sparkscore.stores.sql.experiments import default_experiment
from sparkscore.stores.sql.logged_models import SqlLoggedModelStore
from sparkscore.stores.sql.models import SqlModelStore
from sparkscore.stores.sql.postgres import PostgresDatabase
from sparkscore.stores.sql.purges import SqlPurgeStore
from sparkscore.stores.sql.runs import SqlRunStore
from sparkscore.stores.sql.sqlite import SqliteFile
from sparkscore.stores.sql.webhooks import SqlWebhookStore

__all__ = [
    "SqlAccountStore",
    "SqlCopyStore",
    "SqlLoggedModelStore",
    "SqlModelStore",
    "SqlPurgeStore",
    "SqlRunStore",
    "SqlStores",
    "SqlWebhookStore",
    "open_sql",
]

_FORMS = "use sqlite:///FILE or postgresql://USER:PASSWORD@HOST/DATABASE"


@dataclass(frozen=True)
class SqlStores:
    """The record stores of one database."""

    runs: SqlRunStore
    models: SqlModelStore
    logged_models: SqlLoggedModelStore
    accounts: SqlAccountStore
    webhooks: SqlWebhookStore
    copies: SqlCopyStore
    purges: SqlPurgeStore
    _database: Database

    @property
    def newest_revision(self) -> str:
        """The schema of this release."""
        return schema.HEAD

    def revision(self) -> str | None:
        """See Database.revision."""
        return self._database.revision()

    def upgrade(self) -> None:
        """See Database.upgrade."""
        self._database.upgrade()

    def close(self) -> None:
        """Close the connections to the database; a later call opens them anew."""
        self._database.close()


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
        url: `sqlite:///relative.db` or `sqlite:////absolute.db`, in a folder that exists; or
            `postgresql://user:password@host:port/database`, a database that exists.
        artifact_root: URI below which experiments without a location of their own keep files.
        clock: Milliseconds since the epoch.
        busy_timeout_s: How long a call waits for another's transaction.

    Raises:
        ConfigError: The URL is not of a database that is supported.
        MissingExtraError: The database's driver is not installed.
    """
    backend = _backend(url, busy_timeout_s)
    database = Database(backend, default_experiment(artifact_root, clock))
    return SqlStores(
        SqlRunStore(database, artifact_root, clock),
        SqlModelStore(database, clock),
        SqlLoggedModelStore(database, clock),
        SqlAccountStore(database, clock),
        SqlWebhookStore(database),
        SqlCopyStore(database, clock),
        SqlPurgeStore(database),
        database,
    )


def _backend(url: str, busy_timeout_s: float) -> Backend:
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError) as exc:
        raise ConfigError(f"store URL {shown(url)} does not parse: {_FORMS}") from exc
    kind = parsed.get_backend_name()
    if kind == "sqlite" and parsed.database not in (None, "", ":memory:"):
        return SqliteFile(parsed, busy_timeout_s)
    if kind in ("postgresql", "postgres") and parsed.database:
        return PostgresDatabase(parsed, busy_timeout_s)
    raise ConfigError(
        f"store URL {parsed.render_as_string()!r} names no database of ours: {_FORMS}"
    )
