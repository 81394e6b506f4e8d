"""Webhooks of a server."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sparkscore.stores.sql.column_types import long_text, text

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add the table."""
    op.create_table(
        "webhooks",
        sa.Column("webhook_id", text(36), primary_key=True),
        sa.Column("name", text(500), nullable=False),
        sa.Column("url", long_text(), nullable=False),
        sa.Column("events", long_text(), nullable=False),
        sa.Column("status", text(20), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("description", long_text(), nullable=False),
        sa.Column("sealed_secret", long_text(), nullable=False),
    )
