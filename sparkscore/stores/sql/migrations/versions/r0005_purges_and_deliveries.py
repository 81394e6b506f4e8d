"""When runs were deleted, files that are still to be removed, and deliveries to webhooks."""

from __future__ import annotations

import time

import sqlalchemy as sa
from alembic import op

from sparkscore.stores.sql.column_types import long_text, text

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add a column and two tables."""
    op.add_column("runs", sa.Column("deletion_time_ms", sa.BigInteger))
    # Nobody noted when these were deleted: they count as deleted now, so that none goes too early.
    now_ms = time.time_ns() // 1_000_000
    runs = sa.table("runs", sa.column("deletion_time_ms"), sa.column("lifecycle_stage"))
    op.execute(
        sa.update(runs).where(runs.c.lifecycle_stage == "deleted").values(deletion_time_ms=now_ms)
    )
    op.create_table(
        "removals",
        sa.Column("removal_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("record_id", text(256), nullable=False),
        sa.Column("artifact_uri", long_text(), nullable=False),
    )
    op.create_table(
        "deliveries",
        sa.Column("delivery_id", text(36), primary_key=True),
        sa.Column(
            "webhook_id",
            text(36),
            sa.ForeignKey("webhooks.webhook_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("event", text(100), nullable=False),
        sa.Column("body", long_text(), nullable=False),
        sa.Column("n_failed", sa.Integer, nullable=False),
        sa.Column("due_ms", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_deliveries_due", "deliveries", ["due_ms"])
    op.create_index("ix_deliveries_webhook", "deliveries", ["webhook_id"])
