"""Users, tokens and grants of a server, and its audit trail, which no statement changes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sparkscore.stores.sql.column_types import long_text, text

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_REFUSAL = "the audit trail is only ever added to"
_REFUSE_IN_SQLITE = tuple(
    f"CREATE TRIGGER audit_stays_on_{verb} BEFORE {verb} ON audit "
    f"BEGIN SELECT RAISE(ABORT, '{_REFUSAL}'); END"
    for verb in ("UPDATE", "DELETE")
)
_REFUSE_IN_POSTGRES = (
    f"""
    CREATE FUNCTION sparkscore_audit_stays() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN RAISE EXCEPTION '{_REFUSAL}'; END $$
    """,
    """
    CREATE TRIGGER audit_stays BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION sparkscore_audit_stays()
    """,
)


def upgrade() -> None:
    """Add the tables."""
    op.create_table(
        "users",
        sa.Column("name", text(100), primary_key=True),
        sa.Column("password_hash", text(300), nullable=False),
        sa.Column("is_admin", sa.Boolean, nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("token_id", text(32), primary_key=True),
        _user(),
        sa.Column("secret_hash", text(64), nullable=False),
        sa.Column("role", sa.Integer, nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_tokens_user", "tokens", ["user_name"])
    op.create_table(
        "grants",
        _user(primary_key=True),
        sa.Column("resource", text(20), primary_key=True),
        sa.Column("resource_name", text(500), primary_key=True),
        sa.Column("role", sa.Integer, nullable=False),
    )
    op.create_index("ix_grants_resource", "grants", ["resource", "resource_name"])
    op.create_table(
        "audit",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("time_ms", sa.BigInteger, nullable=False),
        sa.Column("actor", text(100), nullable=False),
        sa.Column("action", text(100), nullable=False),
        sa.Column("subject", long_text(), nullable=False),
        sa.Column("status", sa.Integer, nullable=False),
        sa.Column("chain", text(64), nullable=False),
    )
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    for statement in _REFUSE_IN_SQLITE if is_sqlite else _REFUSE_IN_POSTGRES:
        op.execute(statement)


def _user(*, primary_key: bool = False) -> sa.Column[str]:
    key = sa.ForeignKey("users.name", ondelete="CASCADE")
    return sa.Column("user_name", text(100), key, primary_key=primary_key, nullable=False)
