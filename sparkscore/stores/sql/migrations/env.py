"""Runs revisions on the connection that `schema.upgrade` hands in; alembic executes this file."""

from __future__ import annotations

from alembic import context

from sparkscore.stores.sql.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    version_table=VERSION_TABLE,
    # SQLite alters a table by copying it.
    render_as_batch=True,
)
context.run_migrations()
