"""Experiments' ids of 64 bits, as MLflow's folders have them; SQLite's hold them already."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None

_TABLES = ("experiments", "experiment_tags", "runs", "datasets", "logged_models")


def upgrade() -> None:
    """Widen the columns, and what counts them up."""
    if op.get_bind().dialect.name != "postgresql":
        return
    for table in _TABLES:
        op.alter_column(table, "experiment_id", type_=sa.BigInteger)
    op.execute("ALTER SEQUENCE experiments_experiment_id_seq AS bigint")
