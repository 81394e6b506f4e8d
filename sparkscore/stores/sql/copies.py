"""Records of another store, put into SQL tables as they are, many at once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from sqlalchemy import Connection, Table, insert, select, text, tuple_, update

from sparkscore.records import (
    DatasetInput,
    Experiment,
    LifecycleStage,
    LoggedModel,
    LoggedModelStatus,
    Metric,
    ModelVersion,
    Run,
    RunStatus,
)
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.copies_base import KnownCopy, ModelCopy, RunPoint
from sparkscore.stores.sql import tables
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.experiments import experiment_number, whole_experiments
from sparkscore.stores.sql.points import point_columns
from sparkscore.stores.sql.runs import run_columns
from sparkscore.stores.sql.statements import (
    add_rows,
    in_slices,
    put_latest_points,
    put_pairs,
    put_rows,
)

_RUNNING = (RunStatus.RUNNING, RunStatus.SCHEDULED)
_CACHE_KIB = 128 * 1024
Row = dict[str, object]


class SqlCopyStore:
    """Takes copies into a SQL database; see CopyStore."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def put_experiment(self, experiment: Experiment, artifact_root: str) -> tuple[Experiment, bool]:
        """See CopyStore."""

        def work(connection: Connection) -> tuple[Experiment, bool]:
            query = select(tables.experiments)
            rows = connection.execute(query.where(tables.experiments.c.name == experiment.name))
            for found in whole_experiments(connection, rows.all()):
                owner = {"experiment_id": int(found.experiment_id)}
                new = {key: it for key, it in experiment.tags.items() if key not in found.tags}
                put_pairs(connection, tables.experiment_tags, owner, new)
                return found, False
            number = _insert_experiment(connection, experiment)
            owner = {"experiment_id": number}
            where = tables.experiments.c.experiment_id == number
            location = f"{artifact_root.rstrip('/')}/{number}"
            connection.execute(
                update(tables.experiments).where(where).values(artifact_location=location)
            )
            put_pairs(connection, tables.experiment_tags, owner, experiment.tags)
            rows = connection.execute(query.where(where))
            return whole_experiments(connection, rows.all())[0], True

        return self._database.write(work)

    def known_runs(self, run_ids: Sequence[str]) -> Mapping[str, KnownCopy]:
        """See CopyStore."""
        it = tables.runs.c
        query = select(it.run_id, it.status, it.lifecycle_stage, it.artifact_uri)
        with self._database.read() as connection:
            return {
                row.run_id: KnownCopy(
                    row.status not in _RUNNING or row.lifecycle_stage == LifecycleStage.DELETED,
                    row.artifact_uri,
                )
                for row in in_slices(connection, query, it.run_id, run_ids)
            }

    def known_logged_models(self, model_ids: Sequence[str]) -> Mapping[str, KnownCopy]:
        """See CopyStore."""
        it = tables.logged_models.c
        query = select(it.model_id, it.status, it.artifact_uri)
        with self._database.read() as connection:
            return {
                row.model_id: KnownCopy(row.status != LoggedModelStatus.PENDING, row.artifact_uri)
                for row in in_slices(connection, query, it.model_id, model_ids)
            }

    def put_runs(self, runs: Sequence[Run], points: Sequence[RunPoint]) -> int:
        """See CopyStore."""

        def work(connection: Connection) -> int:
            _cache_more(connection)
            gone = _deleted_experiments(connection, runs)
            rows = [_run_columns(run, gone, self._clock()) for run in runs]
            put_rows(connection, tables.runs, rows)
            _put_all_pairs(connection, tables.run_params, [(it.run_id, it.params) for it in runs])
            _put_all_pairs(connection, tables.run_tags, [(it.run_id, it.tags) for it in runs])
            n_new = _put_points(connection, points)
            _put_datasets(connection, runs)
            inputs = [{"run_id": r.run_id, "model_id": it} for r in runs for it in r.model_inputs]
            add_rows(connection, tables.run_model_inputs, inputs)
            made = [
                {"run_id": r.run_id, "model_id": it.model_id, "step": it.step}
                for r in runs
                for it in r.model_outputs
            ]
            put_rows(connection, tables.run_model_outputs, made)
            return n_new

        return self._database.write(work)

    def put_logged_models(self, models: Sequence[LoggedModel]) -> None:
        """See CopyStore."""

        def work(connection: Connection) -> None:
            put_rows(connection, tables.logged_models, [_model_columns(it) for it in models])
            _put_all_pairs(
                connection, tables.logged_model_params, [(it.model_id, it.params) for it in models]
            )
            _put_all_pairs(
                connection, tables.logged_model_tags, [(it.model_id, it.tags) for it in models]
            )
            rows = {
                (it.model_id, point.key, rules.point_key(point)): point
                for it in models
                for point in it.metrics
            }
            points = [{"model_id": key[0], **point_columns(point)} for key, point in rows.items()]
            add_rows(connection, tables.logged_model_metrics, points)

        self._database.write(work)

    def known_versions(self, name: str) -> Mapping[int, int]:
        """See CopyStore."""
        it = tables.model_versions.c
        query = select(it.version, it.creation_time_ms).where(it.name == name)
        with self._database.read() as connection:
            return {row.version: row.creation_time_ms for row in connection.execute(query)}

    def put_model(self, copy: ModelCopy) -> bool:
        """See CopyStore."""
        model = copy.model
        it = tables.registered_models.c

        def work(connection: Connection) -> bool:
            query = select(it.last_version).where(it.name == model.name)
            known = connection.scalar(query.with_for_update())
            if known is None:
                row = {
                    "name": model.name,
                    "description": model.description,
                    "creation_time_ms": model.creation_time_ms,
                    "last_update_time_ms": model.last_update_time_ms,
                    "last_version": copy.last_version,
                }
                connection.execute(insert(tables.registered_models).values(row))
                owner = {"name": model.name}
                put_pairs(connection, tables.registered_model_tags, owner, model.tags)
            elif known < copy.last_version:
                connection.execute(
                    update(tables.registered_models)
                    .where(it.name == model.name)
                    .values(last_version=copy.last_version)
                )
            versions = _new_versions(connection, copy)
            add_rows(connection, tables.model_versions, [_version_columns(v) for v in versions])
            for version in versions:
                of_version = {"name": version.name, "version": version.version}
                put_pairs(connection, tables.model_version_tags, of_version, version.tags)
            kept = _numbers_of(connection, model.name)
            aliases = [
                {"name": model.name, "alias": alias, "version": number}
                for alias, number in model.aliases.items()
                if number in kept
            ]
            add_rows(connection, tables.model_aliases, aliases)
            return known is None

        return self._database.write(work)


def _cache_more(connection: Connection) -> None:
    """Keep SQLite's indices in memory: rows of many runs fall on all of their pages."""
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql(f"PRAGMA cache_size = -{_CACHE_KIB}")


def _insert_experiment(connection: Connection, experiment: Experiment) -> int:
    """Insert a row under its own id if that is free, else under the next one; returns the id."""
    it = tables.experiments
    row = {
        "name": experiment.name,
        "artifact_location": "",
        "lifecycle_stage": experiment.lifecycle_stage,
        "creation_time_ms": experiment.creation_time_ms,
        "last_update_time_ms": experiment.last_update_time_ms,
    }
    number = experiment_number(experiment.experiment_id)
    query = select(it.c.experiment_id).where(it.c.experiment_id == number)
    if number is not None and connection.execute(query).first() is None:
        row["experiment_id"] = number
    done = connection.execute(insert(it).values(row))
    assert done.inserted_primary_key is not None
    if connection.dialect.name == "postgresql":
        # Its sequence does not see the ids that are chosen.
        connection.execute(
            text(
                "SELECT setval(pg_get_serial_sequence('experiments', 'experiment_id'), "
                "GREATEST(1, MAX(experiment_id))) FROM experiments"
            )
        )
    return int(done.inserted_primary_key[0])


def _deleted_experiments(connection: Connection, runs: Sequence[Run]) -> set[str]:
    it = tables.experiments.c
    ids = sorted({int(run.experiment_id) for run in runs})
    query = select(it.experiment_id).where(it.lifecycle_stage == LifecycleStage.DELETED)
    return {str(row.experiment_id) for row in in_slices(connection, query, it.experiment_id, ids)}


def _run_columns(run: Run, deleted_experiments: set[str], now_ms: int) -> Row:
    is_deleted = run.lifecycle_stage is LifecycleStage.DELETED
    return {
        **run_columns(run),
        "is_gone_with_experiment": is_deleted and run.experiment_id in deleted_experiments,
        # Deleted here as of now, so that nothing is removed for good too early.
        "deletion_time_ms": now_ms if is_deleted else None,
    }


def _put_all_pairs(
    connection: Connection, table: Table, owners: Sequence[tuple[str, Mapping[str, str]]]
) -> None:
    column = table.primary_key.columns[0].name
    rows = [
        {column: owner, "key": key, "value": value}
        for owner, pairs in owners
        for key, value in pairs.items()
    ]
    put_rows(connection, table, rows)


def _put_points(connection: Connection, points: Sequence[RunPoint]) -> int:
    by_run: dict[str, list[Metric]] = defaultdict(list)
    for it in points:
        by_run[it.run_id].append(it.point)
    rows = [
        {"run_id": run_id, "model_id": point.model_id, **point_columns(point)}
        for run_id, of_run in by_run.items()
        for point in of_run
    ]
    n_new = add_rows(connection, tables.metric_points, rows)
    latest = [
        {"run_id": run_id, "model_id": point.model_id, **point_columns(point)}
        for run_id, of_run in by_run.items()
        for point in rules.latest_points(of_run).values()
    ]
    put_latest_points(connection, latest)
    return n_new


def _put_datasets(connection: Connection, runs: Sequence[Run]) -> None:
    used = [(run, item) for run in runs for item in run.datasets]
    if not used:
        return
    new = {_dataset_key(run, item): _dataset_columns(run, item) for run, item in used}
    add_rows(connection, tables.datasets, list(new.values()))
    it = tables.datasets.c
    key = tuple_(it.experiment_id, it.name, it.digest)
    ids = {
        (row.experiment_id, row.name, row.digest): row.dataset_id
        for row in in_slices(connection, select(tables.datasets), key, list(new))
    }
    owners = [
        ({"run_id": run.run_id, "dataset_id": ids[_dataset_key(run, item)]}, item.tags)
        for run, item in used
    ]
    add_rows(connection, tables.run_datasets, [owner for owner, _ in owners])
    tags: list[Row] = [
        {**owner, "key": key, "value": value}
        for owner, pairs in owners
        for key, value in pairs.items()
    ]
    put_rows(connection, tables.run_dataset_tags, tags)


def _dataset_key(run: Run, item: DatasetInput) -> tuple[int, str, str]:
    return int(run.experiment_id), item.dataset.name, item.dataset.digest


def _dataset_columns(run: Run, item: DatasetInput) -> Row:
    dataset = item.dataset
    return {
        "experiment_id": int(run.experiment_id),
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        "schema": dataset.schema,
        "profile": dataset.profile,
    }


def _model_columns(model: LoggedModel) -> Row:
    return {
        "model_id": model.model_id,
        "experiment_id": int(model.experiment_id),
        "name": model.name,
        "model_type": model.model_type,
        "source_run_id": model.source_run_id,
        "status": model.status,
        "status_message": model.status_message,
        "artifact_uri": model.artifact_uri,
        "creation_time_ms": model.creation_time_ms,
        "last_update_time_ms": model.last_update_time_ms,
        "lifecycle_stage": model.lifecycle_stage,
    }


def _new_versions(connection: Connection, copy: ModelCopy) -> list[ModelVersion]:
    known = _numbers_of(connection, copy.model.name)
    return [version for version in copy.versions if version.version not in known]


def _numbers_of(connection: Connection, name: str) -> set[int]:
    it = tables.model_versions.c
    return {row.version for row in connection.execute(select(it.version).where(it.name == name))}


def _version_columns(version: ModelVersion) -> Row:
    return {
        "name": version.name,
        "version": version.version,
        "creation_time_ms": version.creation_time_ms,
        "last_update_time_ms": version.last_update_time_ms,
        "source": version.source,
        "status": version.status,
        "status_message": version.status_message,
        "digest": version.digest,
        "run_id": version.run_id,
        "description": version.description,
        "stage": version.stage,
        "run_link": version.run_link,
        "model_id": version.model_id,
        "user_id": version.user_id,
    }
