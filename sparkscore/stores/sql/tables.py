"""The tables as queries see them; `migrations` holds how a database gets them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Double,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
)

metadata = MetaData()


def _run_id() -> Column[str]:
    return Column(
        "run_id", String(256), ForeignKey("runs.run_id", ondelete="CASCADE"), primary_key=True
    )


def _model_name() -> Column[str]:
    return Column(
        "name",
        String(500),
        ForeignKey("registered_models.name", ondelete="CASCADE", onupdate="CASCADE"),
        primary_key=True,
    )


def _version_key() -> ForeignKeyConstraint:
    return ForeignKeyConstraint(
        ["name", "version"],
        ["model_versions.name", "model_versions.version"],
        ondelete="CASCADE",
        onupdate="CASCADE",
    )


experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", Integer, primary_key=True, autoincrement=True),
    Column("name", String(500), nullable=False, unique=True),
    Column("artifact_location", Text, nullable=False),
    Column("lifecycle_stage", String(20), nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    Column(
        "experiment_id",
        Integer,
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", String(256), primary_key=True),
    Column(
        "experiment_id",
        Integer,
        ForeignKey("experiments.experiment_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("run_name", String(500), nullable=False),
    Column("user_id", String(500), nullable=False),
    Column("status", String(20), nullable=False),
    Column("start_time_ms", BigInteger, nullable=False),
    Column("end_time_ms", BigInteger),
    Column("artifact_uri", Text, nullable=False),
    Column("lifecycle_stage", String(20), nullable=False),
    Index("ix_runs_experiment_start", "experiment_id", "start_time_ms"),
    Index("ix_runs_start", "start_time_ms"),
)

run_params = Table(
    "params",
    metadata,
    _run_id(),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

run_tags = Table(
    "run_tags",
    metadata,
    _run_id(),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

# SQLite turns NaN into NULL, so NaN is the pair (0.0, is_nan).
metric_points = Table(
    "metrics",
    metadata,
    _run_id(),
    Column("key", String(250), primary_key=True),
    Column("step", BigInteger, primary_key=True),
    Column("timestamp_ms", BigInteger, primary_key=True),
    Column("is_nan", Boolean, primary_key=True),
    Column("value", Double, primary_key=True),
)

# The latest point of each key, kept beside the history: lists of runs must not read histories.
latest_metrics = Table(
    "latest_metrics",
    metadata,
    _run_id(),
    Column("key", String(250), primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("value", Double, nullable=False),
)

registered_models = Table(
    "registered_models",
    metadata,
    Column("name", String(500), primary_key=True),
    Column("description", Text, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    # Counts up and never down, so that a number is not given twice even after a deletion.
    Column("last_version", Integer, nullable=False),
)

registered_model_tags = Table(
    "registered_model_tags",
    metadata,
    _model_name(),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    _model_name(),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("source", Text, nullable=False),
    Column("status", String(20), nullable=False),
    Column("status_message", Text, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("run_id", String(256), nullable=False),
    Column("description", Text, nullable=False),
)

model_version_tags = Table(
    "model_version_tags",
    metadata,
    Column("name", String(500), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("key", String(250), primary_key=True),
    Column("value", Text, nullable=False),
    _version_key(),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    _model_name(),
    Column("alias", String(255), primary_key=True),
    Column("version", Integer, nullable=False),
    _version_key(),
)
