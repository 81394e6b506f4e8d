"""Experiments and runs in SQL tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, Table, and_, delete, exists, insert, select, update

from sparkscore.names import ExperimentName, RunId
from sparkscore.records import Experiment, LifecycleStage, Metric, Run, RunStatus
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.sqlite import insert_new
from sparkscore.stores.sql.tables import (
    experiment_tags,
    experiments,
    latest_metrics,
    metric_points,
    run_params,
    run_tags,
    runs,
)

_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,8}")


def default_experiment(artifact_root: str, clock: Clock) -> Callable[[Connection], None]:
    """What puts the experiment `Default` with id 0 into a new database."""

    def fill(connection: Connection) -> None:
        _insert_experiment(
            connection,
            rules.DEFAULT_EXPERIMENT_NAME,
            location=f"{artifact_root.rstrip('/')}/{rules.DEFAULT_EXPERIMENT_ID}",
            now_ms=clock(),
            experiment_id=int(rules.DEFAULT_EXPERIMENT_ID),
        )

    return fill


class SqlRunStore:
    """Experiments and runs in a SQL database; safe between threads and processes."""

    def __init__(self, database: Database, artifact_root: str, clock: Clock) -> None:
        self._database = database
        self._artifact_root = artifact_root.rstrip("/")
        self._clock = clock

    def create_experiment(
        self,
        name: ExperimentName,
        artifact_location: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> Experiment:
        """See RunStore."""
        rules.check_new_experiment(artifact_location, tags)
        with self._database.write() as connection:
            if _find_experiment(connection, name) is not None:
                raise rules.experiment_exists(name)
            number = _insert_experiment(
                connection, name, location=artifact_location or "", now_ms=self._clock()
            )
            if not artifact_location:
                location = f"{self._artifact_root}/{number}"
                connection.execute(
                    update(experiments)
                    .where(experiments.c.experiment_id == number)
                    .values(artifact_location=location)
                )
            _replace_pairs(connection, experiment_tags, {"experiment_id": number}, tags)
            return _get_experiment(connection, str(number))

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        with self._database.read() as connection:
            return _get_experiment(connection, experiment_id)

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore."""
        with self._database.read() as connection:
            return _find_experiment(connection, name)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        query = (
            select(experiments)
            .where(experiments.c.lifecycle_stage == LifecycleStage.ACTIVE)
            .order_by(experiments.c.creation_time_ms.desc(), experiments.c.experiment_id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return _read_experiments(connection, query)

    def create_run(
        self,
        experiment_id: str,
        *,
        run_id: RunId,
        run_name: str,
        user_id: str,
        start_time_ms: int,
        tags: Mapping[str, str] | None = None,
    ) -> Run:
        """See RunStore."""
        rules.check_new_run(run_name, user_id, start_time_ms, tags)
        with self._database.write() as connection:
            experiment = _get_experiment(connection, experiment_id)
            rules.check_active(experiment)
            known = _read_runs(connection, select(runs).where(runs.c.run_id == run_id))
            if known:
                rules.check_same_experiment(known[0], experiment_id)
                return known[0]
            connection.execute(
                insert(runs).values(
                    run_id=run_id,
                    experiment_id=int(experiment_id),
                    run_name=run_name,
                    user_id=user_id,
                    status=RunStatus.RUNNING,
                    start_time_ms=start_time_ms,
                    artifact_uri=f"{experiment.artifact_location}/{run_id}/artifacts",
                    lifecycle_stage=LifecycleStage.ACTIVE,
                )
            )
            _replace_pairs(connection, run_tags, {"run_id": run_id}, tags)
            return _get_run(connection, run_id)

    def get_run(self, run_id: RunId) -> Run:
        """See RunStore."""
        with self._database.read() as connection:
            return _get_run(connection, run_id)

    def list_runs(
        self,
        *,
        experiment_ids: Sequence[str] = (),
        tags: Mapping[str, str] | None = None,
        limit: int = 1000,
    ) -> Sequence[Run]:
        """See RunStore."""
        query = select(runs).where(runs.c.lifecycle_stage == LifecycleStage.ACTIVE)
        if experiment_ids:
            numbers = [number for item in experiment_ids if (number := _number(item)) is not None]
            query = query.where(runs.c.experiment_id.in_(numbers))
        for key, value in (tags or {}).items():
            of_run = run_tags.c.run_id == runs.c.run_id
            query = query.where(
                exists().where(and_(of_run, run_tags.c.key == key, run_tags.c.value == value))
            )
        query = query.order_by(runs.c.start_time_ms.desc(), runs.c.run_id).limit(limit)
        with self._database.read() as connection:
            return _read_runs(connection, query)

    def log_batch(
        self,
        run_id: RunId,
        *,
        metrics: Sequence[Metric] = (),
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """See RunStore."""
        rules.check_batch(metrics, params, tags)
        with self._database.write() as connection:
            run = _get_run(connection, run_id)
            rules.check_active(run)
            rules.check_params_kept(run_id, run.params, params or {})
            new_params = {k: v for k, v in (params or {}).items() if k not in run.params}
            _replace_pairs(connection, run_params, {"run_id": run_id}, new_params)
            _replace_pairs(connection, run_tags, {"run_id": run_id}, tags)
            _insert_metrics(connection, run, metrics)

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore."""
        rules.check_int64(end_time_ms or 0, "end time")
        with self._database.write() as connection:
            rules.check_active(_get_run(connection, run_id))
            connection.execute(
                update(runs)
                .where(runs.c.run_id == run_id)
                .values(status=status, end_time_ms=end_time_ms)
            )
            return _get_run(connection, run_id)

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        query = select(metric_points).where(
            metric_points.c.run_id == run_id, metric_points.c.key == key
        )
        with self._database.read() as connection:
            _get_run(connection, run_id)
            points = [_metric(row) for row in connection.execute(query)]
        return sorted(points, key=rules.metric_order)


def _insert_experiment(
    connection: Connection,
    name: str,
    *,
    location: str,
    now_ms: int,
    experiment_id: int | None = None,
) -> int:
    chosen_id = {} if experiment_id is None else {"experiment_id": experiment_id}
    done = connection.execute(
        insert(experiments).values(
            name=name,
            artifact_location=location,
            lifecycle_stage=LifecycleStage.ACTIVE,
            creation_time_ms=now_ms,
            last_update_time_ms=now_ms,
            **chosen_id,
        )
    )
    assert done.inserted_primary_key is not None
    return int(done.inserted_primary_key[0])


def _number(experiment_id: str) -> int | None:
    # Only the way we write a number: '00' is not the experiment '0'.
    return int(experiment_id) if _EXPERIMENT_ID.fullmatch(experiment_id) else None


def _get_experiment(connection: Connection, experiment_id: str) -> Experiment:
    query = select(experiments).where(experiments.c.experiment_id == _number(experiment_id))
    for experiment in _read_experiments(connection, query):
        return experiment
    raise rules.no_experiment(experiment_id)


def _find_experiment(connection: Connection, name: str) -> Experiment | None:
    query = select(experiments).where(experiments.c.name == name)
    return next(iter(_read_experiments(connection, query)), None)


def _read_experiments(connection: Connection, query: Select[Any]) -> list[Experiment]:
    ids = query.with_only_columns(experiments.c.experiment_id)
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    for tag in connection.execute(
        select(experiment_tags).where(experiment_tags.c.experiment_id.in_(ids))
    ):
        tags[tag.experiment_id][tag.key] = tag.value
    return [
        Experiment(
            experiment_id=str(row.experiment_id),
            name=row.name,
            artifact_location=row.artifact_location,
            lifecycle_stage=LifecycleStage(row.lifecycle_stage),
            creation_time_ms=row.creation_time_ms,
            last_update_time_ms=row.last_update_time_ms,
            tags=tags[row.experiment_id],
        )
        for row in connection.execute(query)
    ]


def _get_run(connection: Connection, run_id: str) -> Run:
    for run in _read_runs(connection, select(runs).where(runs.c.run_id == run_id)):
        return run
    raise rules.no_run(run_id)


def _read_runs(connection: Connection, query: Select[Any]) -> list[Run]:
    ids = query.with_only_columns(runs.c.run_id)
    params = _pairs_of_runs(connection, run_params, ids)
    tags = _pairs_of_runs(connection, run_tags, ids)
    latest: dict[str, dict[str, Metric]] = defaultdict(dict)
    for row in connection.execute(select(latest_metrics).where(latest_metrics.c.run_id.in_(ids))):
        latest[row.run_id][row.key] = _metric(row)
    return [
        Run(
            run_id=row.run_id,
            run_name=row.run_name,
            experiment_id=str(row.experiment_id),
            user_id=row.user_id,
            status=RunStatus(row.status),
            start_time_ms=row.start_time_ms,
            end_time_ms=row.end_time_ms,
            artifact_uri=row.artifact_uri,
            lifecycle_stage=LifecycleStage(row.lifecycle_stage),
            params=params[row.run_id],
            metrics=latest[row.run_id],
            tags=tags[row.run_id],
        )
        for row in connection.execute(query)
    ]


def _pairs_of_runs(
    connection: Connection, table: Table, ids: Select[Any]
) -> dict[str, dict[str, str]]:
    pairs: dict[str, dict[str, str]] = defaultdict(dict)
    for row in connection.execute(select(table).where(table.c.run_id.in_(ids))):
        pairs[row.run_id][row.key] = row.value
    return pairs


def _replace_pairs(
    connection: Connection,
    table: Table,
    owner: Mapping[str, object],
    pairs: Mapping[str, str] | None,
) -> None:
    if not pairs:
        return
    of_owner = [table.c[column] == value for column, value in owner.items()]
    connection.execute(delete(table).where(*of_owner, table.c.key.in_(list(pairs))))
    connection.execute(
        insert(table), [{**owner, "key": key, "value": value} for key, value in pairs.items()]
    )


def _insert_metrics(connection: Connection, run: Run, points: Sequence[Metric]) -> None:
    if not points:
        return
    connection.execute(insert_new(metric_points), [_metric_row(run.run_id, it) for it in points])
    latest = rules.latest_points([*run.metrics.values(), *points])
    changed = {point.key: latest[point.key] for point in points}
    of_run = latest_metrics.c.run_id == run.run_id
    connection.execute(
        delete(latest_metrics).where(of_run, latest_metrics.c.key.in_(list(changed)))
    )
    connection.execute(
        insert(latest_metrics), [_metric_row(run.run_id, it) for it in changed.values()]
    )


def _metric_row(run_id: str, point: Metric) -> dict[str, object]:
    step, timestamp_ms, is_number, value = rules.metric_order(point)
    return {
        "run_id": run_id,
        "key": point.key,
        "step": step,
        "timestamp_ms": timestamp_ms,
        "is_nan": not is_number,
        "value": value,
    }


def _metric(row: Row[Any]) -> Metric:
    value = float("nan") if row.is_nan else float(row.value)
    return Metric(row.key, value, row.timestamp_ms, row.step)
