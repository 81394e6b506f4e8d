"""Experiments, runs, registered models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sparkscore.stores.sql.column_types import long_text, text

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables of the first release."""
    _create_experiments()
    _create_runs()
    _create_run_data()
    _create_models()
    _create_versions()


def _create_experiments() -> None:
    op.create_table(
        "experiments",
        sa.Column("experiment_id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("name", text(500), nullable=False, unique=True),
        sa.Column("artifact_location", long_text(), nullable=False),
        sa.Column("lifecycle_stage", text(20), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger, nullable=False),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "experiment_tags",
        sa.Column(
            "experiment_id",
            sa.Integer,
            sa.ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
            primary_key=True,
        ),
        *_key_and_value(),
    )


def _create_runs() -> None:
    op.create_table(
        "runs",
        sa.Column("run_id", text(256), primary_key=True),
        sa.Column(
            "experiment_id",
            sa.Integer,
            sa.ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
            nullable=False,
        ),
        sa.Column("run_name", text(500), nullable=False),
        sa.Column("user_id", text(500), nullable=False),
        sa.Column("status", text(20), nullable=False),
        sa.Column("start_time_ms", sa.BigInteger, nullable=False),
        sa.Column("end_time_ms", sa.BigInteger),
        sa.Column("artifact_uri", long_text(), nullable=False),
        sa.Column("lifecycle_stage", text(20), nullable=False),
    )
    op.create_index("ix_runs_experiment_start", "runs", ["experiment_id", "start_time_ms"])
    op.create_index("ix_runs_start", "runs", ["start_time_ms"])


def _create_run_data() -> None:
    op.create_table("params", _run_id(), *_key_and_value())
    op.create_table("run_tags", _run_id(), *_key_and_value())
    op.create_table(
        "metrics",
        _run_id(),
        sa.Column("key", text(250), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True),
        sa.Column("timestamp_ms", sa.BigInteger, primary_key=True),
        sa.Column("is_nan", sa.Boolean, primary_key=True),
        sa.Column("value", sa.Double, primary_key=True),
    )
    op.create_table(
        "latest_metrics",
        _run_id(),
        sa.Column("key", text(250), primary_key=True),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.Column("is_nan", sa.Boolean, nullable=False),
        sa.Column("value", sa.Double, nullable=False),
    )


def _create_models() -> None:
    op.create_table(
        "registered_models",
        sa.Column("name", text(500), primary_key=True),
        sa.Column("description", long_text(), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_version", sa.Integer, nullable=False),
    )
    op.create_table("registered_model_tags", _model_name(), *_key_and_value())


def _create_versions() -> None:
    op.create_table(
        "model_versions",
        _model_name(),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("source", long_text(), nullable=False),
        sa.Column("status", text(20), nullable=False),
        sa.Column("status_message", long_text(), nullable=False),
        sa.Column("digest", text(64), nullable=False),
        sa.Column("run_id", text(256), nullable=False),
        sa.Column("description", long_text(), nullable=False),
    )
    op.create_table(
        "model_version_tags",
        sa.Column("name", text(500), primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        *_key_and_value(),
        _version_key(),
    )
    op.create_table(
        "model_aliases",
        _model_name(),
        sa.Column("alias", text(255), primary_key=True),
        sa.Column("version", sa.Integer, nullable=False),
        _version_key(),
    )


def _key_and_value() -> tuple[sa.Column[str], sa.Column[str]]:
    return (
        sa.Column("key", text(250), primary_key=True),
        sa.Column("value", long_text(), nullable=False),
    )


def _run_id() -> sa.Column[str]:
    key = sa.ForeignKey("runs.run_id", ondelete="CASCADE")
    return sa.Column("run_id", text(256), key, primary_key=True)


def _model_name() -> sa.Column[str]:
    key = sa.ForeignKey("registered_models.name", ondelete="CASCADE", onupdate="CASCADE")
    return sa.Column("name", text(500), key, primary_key=True)


def _version_key() -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["name", "version"],
        ["model_versions.name", "model_versions.version"],
        ondelete="CASCADE",
        onupdate="CASCADE",
    )
