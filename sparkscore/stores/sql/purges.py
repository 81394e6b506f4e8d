"""What was deleted and purged, in SQL tables."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    Table,
    case,
    delete,
    func,
    insert,
    or_,
    select,
)

from sparkscore.records import DeletedRecord, LifecycleStage, RecordKind, Removal
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.statements import in_slices
from sparkscore.stores.sql.tables import (
    datasets,
    experiment_tags,
    experiments,
    latest_metrics,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    metric_points,
    removals,
    run_dataset_tags,
    run_datasets,
    run_model_inputs,
    run_model_outputs,
    run_params,
    run_tags,
    runs,
)

_OF_RUNS = (
    run_params,
    run_tags,
    metric_points,
    latest_metrics,
    run_datasets,
    run_dataset_tags,
    run_model_inputs,
    run_model_outputs,
)
_OF_LOGGED_MODELS = (logged_model_params, logged_model_tags, logged_model_metrics)
_OF_EXPERIMENTS = (experiment_tags, datasets)
_DELETED = LifecycleStage.DELETED


class SqlPurgeStore:
    """Beside a SqlRunStore and a SqlLoggedModelStore, whose tables it reads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def list_deleted(self, before_ms: int) -> Sequence[DeletedRecord]:
        """See PurgeStore."""
        with self._database.read() as connection:
            return [
                *_deleted_runs(connection, before_ms),
                *_deleted_logged_models(connection, before_ms),
                *_deleted_experiments(connection, before_ms),
            ]

    def list_removals(self) -> Sequence[Removal]:
        """See PurgeStore."""
        query = select(removals).order_by(removals.c.removal_id)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Removal(row.removal_id, row.record_id, row.artifact_uri) for row in rows]

    def forget_removal(self, removal_id: int) -> None:
        """See PurgeStore."""

        def work(connection: Connection) -> None:
            connection.execute(delete(removals).where(removals.c.removal_id == removal_id))

        self._database.write(work)


def note_removals(connection: Connection, key: Column[str], are_they: ColumnElement[bool]) -> None:
    """Note the files of runs or logged models that the same transaction removes.

    Args:
        connection: An open transaction.
        key: The column of their ids.
        are_they: Which.
    """
    places = select(key, key.table.c.artifact_uri).where(are_they).order_by(key)
    connection.execute(insert(removals).from_select(["record_id", "artifact_uri"], places))


def _deleted_runs(connection: Connection, before_ms: int) -> Iterator[DeletedRecord]:
    deleted_ms = runs.c.deletion_time_ms
    query = (
        select(runs.c.run_id, runs.c.experiment_id, runs.c.artifact_uri, deleted_ms)
        .where(runs.c.lifecycle_stage == _DELETED, deleted_ms <= before_ms)
        .order_by(deleted_ms, runs.c.run_id)
    )
    rows = connection.execute(query).all()
    n_rows = _counts(connection, _OF_RUNS, "run_id", [row.run_id for row in rows])
    for row in rows:
        yield DeletedRecord(
            kind=RecordKind.RUN,
            record_id=row.run_id,
            experiment_id=str(row.experiment_id),
            artifact_uri=row.artifact_uri,
            deletion_time_ms=row.deletion_time_ms,
            n_rows=1 + n_rows[row.run_id],
        )


def _deleted_logged_models(connection: Connection, before_ms: int) -> Iterator[DeletedRecord]:
    it, holder = logged_models.c, experiments.c
    deleted_ms = case(
        (it.lifecycle_stage == _DELETED, it.last_update_time_ms),
        else_=holder.last_update_time_ms,
    )
    is_deleted = or_(it.lifecycle_stage == _DELETED, holder.lifecycle_stage == _DELETED)
    query = (
        select(it.model_id, it.experiment_id, it.artifact_uri, deleted_ms.label("deleted_ms"))
        .join(experiments, holder.experiment_id == it.experiment_id)
        .where(is_deleted, deleted_ms <= before_ms)
        .order_by(deleted_ms, it.model_id)
    )
    rows = connection.execute(query).all()
    n_rows = _counts(connection, _OF_LOGGED_MODELS, "model_id", [row.model_id for row in rows])
    for row in rows:
        yield DeletedRecord(
            kind=RecordKind.LOGGED_MODEL,
            record_id=row.model_id,
            experiment_id=str(row.experiment_id),
            artifact_uri=row.artifact_uri,
            deletion_time_ms=row.deleted_ms,
            n_rows=1 + n_rows[row.model_id],
        )


def _deleted_experiments(connection: Connection, before_ms: int) -> Iterator[DeletedRecord]:
    it = experiments.c
    query = (
        select(it.experiment_id, it.last_update_time_ms)
        .where(it.lifecycle_stage == _DELETED, it.last_update_time_ms <= before_ms)
        .order_by(it.last_update_time_ms, it.experiment_id)
    )
    rows = connection.execute(query).all()
    ids = [row.experiment_id for row in rows]
    n_rows = _counts(connection, _OF_EXPERIMENTS, "experiment_id", ids)
    for row in rows:
        yield DeletedRecord(
            kind=RecordKind.EXPERIMENT,
            record_id=str(row.experiment_id),
            experiment_id=str(row.experiment_id),
            artifact_uri="",
            deletion_time_ms=row.last_update_time_ms,
            n_rows=1 + n_rows[row.experiment_id],
        )


def _counts(
    connection: Connection, tables: Sequence[Table], owner: str, ids: Sequence[object]
) -> Counter[object]:
    """How many rows of these tables each owner has."""
    found: Counter[object] = Counter()
    for table in tables:
        key = table.c[owner]
        query = select(key.label("owner"), func.count().label("n_rows")).group_by(key)
        for row in in_slices(connection, query, key, ids):
            found[row.owner] += row.n_rows
    return found
