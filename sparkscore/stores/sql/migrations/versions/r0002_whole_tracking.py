"""Datasets, inputs and outputs, logged models, stages; metric points of models and datasets.

Tables of keys, values and points are written anew: without SQLite's row ids they are half as large
and quicker to write and to search, and a point's value keeps the sign of a zero.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from sparkscore.stores.sql.column_types import exact_double, long_text, text

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_NOTHING = "''"


def upgrade() -> None:
    """Bring the tables of 0001 to this revision, with their rows."""
    _create_logged_models()
    _widen_runs()
    _rewrite_run_data()
    _create_inputs()
    _widen_versions()


def _create_logged_models() -> None:
    op.create_table(
        "logged_models",
        sa.Column("model_id", text(256), primary_key=True),
        _experiment_id(),
        sa.Column("name", text(500), nullable=False),
        sa.Column("model_type", text(500), nullable=False),
        sa.Column("source_run_id", text(500), nullable=False),
        sa.Column("status", text(40), nullable=False),
        sa.Column("status_message", long_text(), nullable=False),
        sa.Column("artifact_uri", long_text(), nullable=False),
        sa.Column("creation_time_ms", sa.BigInteger, nullable=False),
        sa.Column("last_update_time_ms", sa.BigInteger, nullable=False),
        sa.Column("lifecycle_stage", text(20), nullable=False),
    )
    op.create_index(
        "ix_logged_models_experiment_creation",
        "logged_models",
        ["experiment_id", "creation_time_ms"],
    )
    for table in ("logged_model_params", "logged_model_tags"):
        op.create_table(table, _logged_model_id(), *_key_and_value(), sqlite_with_rowid=False)
    op.create_table(
        "logged_model_metrics", _logged_model_id(), *_point_key(), sqlite_with_rowid=False
    )


def _widen_runs() -> None:
    op.add_column(
        "runs",
        sa.Column("is_gone_with_experiment", sa.Boolean, nullable=False, server_default=sa.false()),
    )


def _rewrite_run_data() -> None:
    pairs = ["run_id", "key", "value"]
    points = ["run_id", "key", "step", "timestamp_ms", "is_nan", "value"]
    for table in ("params", "run_tags"):
        old = _move_away(table)
        op.create_table(table, _run_id(), *_key_and_value(), sqlite_with_rowid=False)
        _bring_over(old, table, pairs)
        _create_value_index(table)
    old = _move_away("metrics")
    op.create_table(
        "metrics",
        _run_id(),
        *_point_key(),
        sa.Column("model_id", text(256), nullable=False),
        sqlite_with_rowid=False,
    )
    _bring_over(old, "metrics", points, "dataset_name", "dataset_digest", "model_id")
    old = _move_away("latest_metrics")
    op.create_table(
        "latest_metrics",
        _run_id(),
        sa.Column("key", text(250), primary_key=True),
        sa.Column("step", sa.BigInteger, nullable=False),
        sa.Column("timestamp_ms", sa.BigInteger, nullable=False),
        sa.Column("is_nan", sa.Boolean, nullable=False),
        sa.Column("value", exact_double(), nullable=False),
        sa.Column("dataset_name", text(500), nullable=False),
        sa.Column("dataset_digest", text(64), nullable=False),
        sa.Column("model_id", text(256), nullable=False),
        sqlite_with_rowid=False,
    )
    _bring_over(old, "latest_metrics", points, "dataset_name", "dataset_digest", "model_id")
    op.create_index(
        "ix_latest_metrics_key_value", "latest_metrics", ["key", "is_nan", "value", "run_id"]
    )


def _create_inputs() -> None:
    op.create_table(
        "datasets",
        sa.Column("dataset_id", sa.Integer, primary_key=True, autoincrement=True),
        _experiment_id(),
        sa.Column("name", text(500), nullable=False),
        sa.Column("digest", text(64), nullable=False),
        sa.Column("source_type", text(500), nullable=False),
        sa.Column("source", long_text(), nullable=False),
        sa.Column("schema", long_text(), nullable=False),
        sa.Column("profile", long_text(), nullable=False),
        sa.UniqueConstraint("experiment_id", "name", "digest", name="uq_datasets_of_experiment"),
    )
    dataset = sa.ForeignKey("datasets.dataset_id", ondelete="CASCADE")
    op.create_table(
        "run_datasets",
        _run_id(),
        sa.Column("dataset_id", sa.Integer, dataset, primary_key=True),
    )
    op.create_index("ix_run_datasets_dataset", "run_datasets", ["dataset_id"])
    op.create_table(
        "run_dataset_tags",
        sa.Column("run_id", text(256), primary_key=True),
        sa.Column("dataset_id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("key", text(255), primary_key=True),
        sa.Column("value", long_text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id", "dataset_id"],
            ["run_datasets.run_id", "run_datasets.dataset_id"],
            ondelete="CASCADE",
        ),
    )
    op.create_table(
        "run_model_inputs", _run_id(), sa.Column("model_id", text(256), primary_key=True)
    )
    op.create_table(
        "run_model_outputs",
        _run_id(),
        sa.Column("model_id", text(256), primary_key=True),
        sa.Column("step", sa.BigInteger, nullable=False),
    )


def _widen_versions() -> None:
    for name, type_, default in (
        ("stage", text(20), "None"),
        ("run_link", long_text(), ""),
        ("model_id", text(256), ""),
        ("user_id", text(500), ""),
    ):
        column = sa.Column(name, type_, nullable=False, server_default=default)
        op.add_column("model_versions", column)
    op.create_index("ix_model_versions_last_update", "model_versions", ["last_update_time_ms"])
    op.create_index("ix_model_versions_run", "model_versions", ["run_id"])
    op.create_index("ix_model_versions_source", "model_versions", [_indexed("source")])


def _move_away(table: str) -> str:
    old = f"{table}_of_0001"
    op.rename_table(table, old)
    return old


def _bring_over(old: str, table: str, columns: list[str], *empty: str) -> None:
    kept = ", ".join(columns)
    into = ", ".join([*columns, *empty])
    values = ", ".join([kept, *[_NOTHING] * len(empty)])
    op.execute(f"INSERT INTO {table} ({into}) SELECT {values} FROM {old}")  # noqa: S608 - our names
    op.drop_table(old)


def _create_value_index(table: str) -> None:
    op.create_index(f"ix_{table}_key_value", table, ["key", _indexed("value"), "run_id"])


def _indexed(column: str) -> str | sa.TextClause:
    # An entry of PostgreSQL's holds 2.7 kB at most.
    is_sqlite = op.get_bind().dialect.name == "sqlite"
    return column if is_sqlite else sa.text(f"left({column}, 250)")


def _point_key() -> tuple[sa.Column[object], ...]:
    return (
        sa.Column("key", text(250), primary_key=True),
        sa.Column("step", sa.BigInteger, primary_key=True),
        sa.Column("timestamp_ms", sa.BigInteger, primary_key=True),
        sa.Column("is_nan", sa.Boolean, primary_key=True),
        sa.Column("value", exact_double(), primary_key=True),
        sa.Column("dataset_name", text(500), primary_key=True),
        sa.Column("dataset_digest", text(64), primary_key=True),
    )


def _key_and_value() -> tuple[sa.Column[str], sa.Column[str]]:
    return (
        sa.Column("key", text(250), primary_key=True),
        sa.Column("value", long_text(), nullable=False),
    )


def _run_id() -> sa.Column[str]:
    key = sa.ForeignKey("runs.run_id", ondelete="CASCADE")
    return sa.Column("run_id", text(256), key, primary_key=True)


def _logged_model_id() -> sa.Column[str]:
    key = sa.ForeignKey("logged_models.model_id", ondelete="CASCADE")
    return sa.Column("model_id", text(256), key, primary_key=True)


def _experiment_id() -> sa.Column[int]:
    key = sa.ForeignKey("experiments.experiment_id", ondelete="CASCADE")
    return sa.Column("experiment_id", sa.Integer, key, nullable=False)
