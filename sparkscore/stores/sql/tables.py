"""The tables as queries see them; `migrations` holds how a database gets them."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    MetaData,
    Table,
    UniqueConstraint,
    func,
)

from sparkscore.stores.sql.column_types import exact_double, long_text, text, wide_id

N_INDEXED_CHARS = 250
"""How much of a value PostgreSQL's indices hold, whose entries must stay below 2.7 kB."""

metadata = MetaData()


def _run_id() -> Column[str]:
    key = ForeignKey("runs.run_id", ondelete="CASCADE")
    return Column("run_id", text(256), key, primary_key=True)


def _model_name() -> Column[str]:
    return Column(
        "name",
        text(500),
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


def _experiment_id(*, primary_key: bool = False) -> Column[int]:
    key = ForeignKey("experiments.experiment_id", ondelete="CASCADE")
    return Column("experiment_id", wide_id(), key, primary_key=primary_key, nullable=False)


def _logged_model_id() -> Column[str]:
    key = ForeignKey("logged_models.model_id", ondelete="CASCADE")
    return Column("model_id", text(256), key, primary_key=True)


def _pairs(table: str, owner: Column[str]) -> Table:
    """A table of keys and values, kept in the order of its primary key."""
    return Table(
        table,
        metadata,
        owner,
        Column("key", text(250), primary_key=True),
        Column("value", long_text(), nullable=False),
        sqlite_with_rowid=False,
    )


def _value_indices(table: Table, owner: str) -> None:
    """Find owners by key and value; PostgreSQL cannot index a value of any length."""
    name = f"ix_{table.name}_key_value"
    key, value, owned_by = table.c.key, table.c.value, table.c[owner]
    Index(name, key, value, owned_by).ddl_if(dialect="sqlite")
    short = func.left(value, N_INDEXED_CHARS)
    Index(name, key, short, owned_by).ddl_if(dialect="postgresql")


experiments = Table(
    "experiments",
    metadata,
    Column("experiment_id", wide_id(), primary_key=True, autoincrement=True),
    Column("name", text(500), nullable=False, unique=True),
    Column("artifact_location", long_text(), nullable=False),
    Column("lifecycle_stage", text(20), nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    sqlite_autoincrement=True,
)

experiment_tags = Table(
    "experiment_tags",
    metadata,
    _experiment_id(primary_key=True),
    Column("key", text(250), primary_key=True),
    Column("value", long_text(), nullable=False),
)

runs = Table(
    "runs",
    metadata,
    Column("run_id", text(256), primary_key=True),
    _experiment_id(),
    Column("run_name", text(500), nullable=False),
    Column("user_id", text(500), nullable=False),
    Column("status", text(20), nullable=False),
    Column("start_time_ms", BigInteger, nullable=False),
    Column("end_time_ms", BigInteger),
    Column("artifact_uri", long_text(), nullable=False),
    Column("lifecycle_stage", text(20), nullable=False),
    # Deleted because its experiment was, and to be restored with it.
    Column("is_gone_with_experiment", Boolean, nullable=False),
    Column("deletion_time_ms", BigInteger),
    Index("ix_runs_experiment_start", "experiment_id", "start_time_ms"),
    Index("ix_runs_start", "start_time_ms"),
)

run_params = _pairs("params", _run_id())
run_tags = _pairs("run_tags", _run_id())
_value_indices(run_params, "run_id")
_value_indices(run_tags, "run_id")


def _points(table: str, owner: Column[str], *more: Column[str]) -> Table:
    """A table of metric points, each kept once; NaN is the pair (0.0, is_nan)."""
    return Table(
        table,
        metadata,
        owner,
        Column("key", text(250), primary_key=True),
        Column("step", BigInteger, primary_key=True),
        Column("timestamp_ms", BigInteger, primary_key=True),
        Column("is_nan", Boolean, primary_key=True),
        Column("value", exact_double(), primary_key=True),
        Column("dataset_name", text(500), primary_key=True),
        Column("dataset_digest", text(64), primary_key=True),
        *more,
        sqlite_with_rowid=False,
    )


metric_points = _points("metrics", _run_id(), Column("model_id", text(256), nullable=False))

# The latest point of each key, kept beside the history: lists of runs must not read histories.
latest_metrics = Table(
    "latest_metrics",
    metadata,
    _run_id(),
    Column("key", text(250), primary_key=True),
    Column("step", BigInteger, nullable=False),
    Column("timestamp_ms", BigInteger, nullable=False),
    Column("is_nan", Boolean, nullable=False),
    Column("value", exact_double(), nullable=False),
    Column("dataset_name", text(500), nullable=False),
    Column("dataset_digest", text(64), nullable=False),
    Column("model_id", text(256), nullable=False),
    Index("ix_latest_metrics_key_value", "key", "is_nan", "value", "run_id"),
    sqlite_with_rowid=False,
)

datasets = Table(
    "datasets",
    metadata,
    Column("dataset_id", Integer, primary_key=True, autoincrement=True),
    _experiment_id(),
    Column("name", text(500), nullable=False),
    Column("digest", text(64), nullable=False),
    Column("source_type", text(500), nullable=False),
    Column("source", long_text(), nullable=False),
    Column("schema", long_text(), nullable=False),
    Column("profile", long_text(), nullable=False),
    UniqueConstraint("experiment_id", "name", "digest", name="uq_datasets_of_experiment"),
)

run_datasets = Table(
    "run_datasets",
    metadata,
    _run_id(),
    Column(
        "dataset_id",
        Integer,
        ForeignKey("datasets.dataset_id", ondelete="CASCADE"),
        primary_key=True,
    ),
    Index("ix_run_datasets_dataset", "dataset_id"),
)

run_dataset_tags = Table(
    "run_dataset_tags",
    metadata,
    Column("run_id", text(256), primary_key=True),
    Column("dataset_id", Integer, primary_key=True, autoincrement=False),
    Column("key", text(255), primary_key=True),
    Column("value", long_text(), nullable=False),
    ForeignKeyConstraint(
        ["run_id", "dataset_id"],
        ["run_datasets.run_id", "run_datasets.dataset_id"],
        ondelete="CASCADE",
    ),
)

run_model_inputs = Table(
    "run_model_inputs",
    metadata,
    _run_id(),
    Column("model_id", text(256), primary_key=True),
)

run_model_outputs = Table(
    "run_model_outputs",
    metadata,
    _run_id(),
    Column("model_id", text(256), primary_key=True),
    Column("step", BigInteger, nullable=False),
)

logged_models = Table(
    "logged_models",
    metadata,
    Column("model_id", text(256), primary_key=True),
    _experiment_id(),
    Column("name", text(500), nullable=False),
    Column("model_type", text(500), nullable=False),
    Column("source_run_id", text(500), nullable=False),
    Column("status", text(40), nullable=False),
    Column("status_message", long_text(), nullable=False),
    Column("artifact_uri", long_text(), nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("lifecycle_stage", text(20), nullable=False),
    Index("ix_logged_models_experiment_creation", "experiment_id", "creation_time_ms"),
)

logged_model_params = _pairs("logged_model_params", _logged_model_id())
logged_model_tags = _pairs("logged_model_tags", _logged_model_id())

# Apart from the runs' own: a client logs a point of a run again for a model that the run made.
logged_model_metrics = _points("logged_model_metrics", _logged_model_id())

registered_models = Table(
    "registered_models",
    metadata,
    Column("name", text(500), primary_key=True),
    Column("description", long_text(), nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    # Counts up and never down, so that a number is not given twice even after a deletion.
    Column("last_version", Integer, nullable=False),
)

registered_model_tags = Table(
    "registered_model_tags",
    metadata,
    _model_name(),
    Column("key", text(250), primary_key=True),
    Column("value", long_text(), nullable=False),
)

model_versions = Table(
    "model_versions",
    metadata,
    _model_name(),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("source", long_text(), nullable=False),
    Column("status", text(20), nullable=False),
    Column("status_message", long_text(), nullable=False),
    Column("digest", text(64), nullable=False),
    Column("run_id", text(256), nullable=False),
    Column("description", long_text(), nullable=False),
    Column("stage", text(20), nullable=False),
    Column("run_link", long_text(), nullable=False),
    Column("model_id", text(256), nullable=False),
    Column("user_id", text(500), nullable=False),
    Index("ix_model_versions_last_update", "last_update_time_ms"),
    Index("ix_model_versions_run", "run_id"),
)
_source = model_versions.c.source
# Each upload asks for the versions that its file would be of.
Index("ix_model_versions_source", _source).ddl_if(dialect="sqlite")
Index("ix_model_versions_source", func.left(_source, N_INDEXED_CHARS)).ddl_if(dialect="postgresql")

model_version_tags = Table(
    "model_version_tags",
    metadata,
    Column("name", text(500), primary_key=True),
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("key", text(250), primary_key=True),
    Column("value", long_text(), nullable=False),
    _version_key(),
)

model_aliases = Table(
    "model_aliases",
    metadata,
    _model_name(),
    Column("alias", text(255), primary_key=True),
    Column("version", Integer, nullable=False),
    _version_key(),
)

users = Table(
    "users",
    metadata,
    Column("name", text(100), primary_key=True),
    Column("password_hash", text(300), nullable=False),
    Column("is_admin", Boolean, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
)


def _user_name(*, primary_key: bool = False) -> Column[str]:
    key = ForeignKey("users.name", ondelete="CASCADE")
    return Column("user_name", text(100), key, primary_key=primary_key, nullable=False)


tokens = Table(
    "tokens",
    metadata,
    Column("token_id", text(32), primary_key=True),
    _user_name(),
    Column("secret_hash", text(64), nullable=False),
    Column("role", Integer, nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Index("ix_tokens_user", "user_name"),
)

grants = Table(
    "grants",
    metadata,
    _user_name(primary_key=True),
    Column("resource", text(20), primary_key=True),
    Column("resource_name", text(500), primary_key=True),
    Column("role", Integer, nullable=False),
    Index("ix_grants_resource", "resource", "resource_name"),
)

# Triggers of the database refuse to change or remove a row.
audit = Table(
    "audit",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("time_ms", BigInteger, nullable=False),
    Column("actor", text(100), nullable=False),
    Column("action", text(100), nullable=False),
    Column("subject", long_text(), nullable=False),
    Column("status", Integer, nullable=False),
    Column("chain", text(64), nullable=False),
)

webhooks = Table(
    "webhooks",
    metadata,
    Column("webhook_id", text(36), primary_key=True),
    Column("name", text(500), nullable=False),
    Column("url", long_text(), nullable=False),
    # Such as "MODEL_VERSION.CREATED MODEL_VERSION_TAG.SET".
    Column("events", long_text(), nullable=False),
    Column("status", text(20), nullable=False),
    Column("creation_time_ms", BigInteger, nullable=False),
    Column("last_update_time_ms", BigInteger, nullable=False),
    Column("description", long_text(), nullable=False),
    # Encrypted by the server, whose key is not in the database.
    Column("sealed_secret", long_text(), nullable=False),
)

deliveries = Table(
    "deliveries",
    metadata,
    Column("delivery_id", text(36), primary_key=True),
    Column(
        "webhook_id",
        text(36),
        ForeignKey("webhooks.webhook_id", ondelete="CASCADE"),
        nullable=False,
    ),
    Column("event", text(100), nullable=False),
    Column("body", long_text(), nullable=False),
    Column("n_failed", Integer, nullable=False),
    Column("due_ms", BigInteger, nullable=False),
    Index("ix_deliveries_due", "due_ms"),
    Index("ix_deliveries_webhook", "webhook_id"),
)

# Files whose records are gone: written with the purge of these, removed once the files are.
removals = Table(
    "removals",
    metadata,
    Column("removal_id", Integer, primary_key=True, autoincrement=True),
    Column("record_id", text(256), nullable=False),
    Column("artifact_uri", long_text(), nullable=False),
)
