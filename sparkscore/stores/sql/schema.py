"""Which schema a database has, and how it gets this release's."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import Connection, inspect, text

from sparkscore.errors import StoreSchemaError, listed, shown

if TYPE_CHECKING:
    from alembic.config import Config

HEAD = "0006"
VERSION_TABLE = "sparkscore_schema"


def found_revision(connection: Connection, where: str) -> str | None:
    """The schema revision of a database of ours, or None for a database without tables.

    Args:
        connection: Open connection, inside a transaction.
        where: The database's name in messages.

    Raises:
        StoreSchemaError: The tables are another product's or a newer release's.
    """
    tables = inspect(connection).get_table_names()
    if not tables:
        return None
    if VERSION_TABLE not in tables:
        raise StoreSchemaError(
            f"the database {where!r} has tables that are not sparkscore's ({listed(tables)}); "
            "nothing was changed. Set a store URL of its own, such as sqlite:///sparkscore.db"
        )
    revision = connection.scalar(text(f"SELECT version_num FROM {VERSION_TABLE}"))  # noqa: S608 - our constant
    if revision not in (HEAD, *_older_revisions(revision)):
        raise StoreSchemaError(
            f"the database {where!r} has schema {shown(revision)}, but this release of "
            f"sparkscore knows up to {HEAD!r}; nothing was changed. "
            "Run `pip install --upgrade sparkscore`, or set another store URL"
        )
    return str(revision)


def upgrade(connection: Connection, revision: str = HEAD) -> None:
    """Bring an empty or older database to a revision, in the caller's transaction."""
    from alembic import command

    config = _alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


def _older_revisions(revision: object) -> list[str]:
    if revision == HEAD:
        return []
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_alembic_config())
    return [step.revision for step in script.walk_revisions()]


def _alembic_config() -> Config:
    from alembic.config import Config

    config = Config()
    folder = str(Path(__file__).parent / "migrations")
    config.set_main_option("script_location", folder.replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
