"""Runs in SQL tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, exists, insert, select, update

from sparkscore.names import RunId
from sparkscore.records import (
    DatasetInput,
    LifecycleStage,
    Metric,
    ModelOutput,
    Run,
    RunStatus,
)
from sparkscore.search import Page, Query
from sparkscore.stores import metric_pages, rules
from sparkscore.stores.sql import inputs
from sparkscore.stores.sql.experiments import SqlExperiments, experiment_number, get_experiment
from sparkscore.stores.sql.points import history_of, insert_points, latest_of
from sparkscore.stores.sql.purges import note_removals
from sparkscore.stores.sql.searched_tables import searched_runs
from sparkscore.stores.sql.searching import in_stage, search_rows
from sparkscore.stores.sql.statements import add_params, delete_pair, pairs_of, put_pairs
from sparkscore.stores.sql.tables import run_params, run_tags, runs


class SqlRunStore(SqlExperiments):
    """Experiments and runs in a SQL database; safe between threads and processes."""

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

        def work(connection: Connection) -> Run:
            experiment = get_experiment(connection, experiment_id, for_children=True)
            rules.check_active(experiment)
            known = whole_runs(connection, _rows(connection, run_id))
            if known:
                rules.check_same_experiment(known[0], experiment_id)
                return known[0]
            run = Run(
                run_id=run_id,
                run_name=run_name,
                experiment_id=experiment_id,
                user_id=user_id,
                status=RunStatus.RUNNING,
                start_time_ms=start_time_ms,
                end_time_ms=None,
                artifact_uri=f"{experiment.artifact_location}/{run_id}/artifacts",
                lifecycle_stage=LifecycleStage.ACTIVE,
                tags=dict(tags or {}),
            )
            connection.execute(insert(runs), run_columns(run))
            put_pairs(connection, run_tags, {"run_id": run_id}, tags)
            return run

        return self._database.write(work)

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
            numbers = map(experiment_number, experiment_ids)
            query = query.where(runs.c.experiment_id.in_([it for it in numbers if it is not None]))
        for key, value in (tags or {}).items():
            of_run = run_tags.c.run_id == runs.c.run_id
            query = query.where(
                exists().where(and_(of_run, run_tags.c.key == key, run_tags.c.value == value))
            )
        query = query.order_by(runs.c.start_time_ms.desc(), runs.c.run_id).limit(limit)
        with self._database.read() as connection:
            return whole_runs(connection, connection.execute(query).all())

    def search_runs(self, experiment_ids: Sequence[str], query: Query) -> Page[Run]:
        """See RunStore."""
        numbers = sorted({it for it in map(experiment_number, experiment_ids) if it is not None})
        where = [runs.c.experiment_id.in_(numbers), *in_stage(runs.c.lifecycle_stage, query.view)]
        with self._database.read() as connection:
            found = search_rows(connection, searched_runs, query, *where, scope=numbers)
            return Page(tuple(whole_runs(connection, found.rows)), found.next_token)

    def search_datasets(
        self, experiment_ids: Sequence[str], *, limit: int = 1000
    ) -> Sequence[tuple[str, DatasetInput]]:
        """See RunStore."""
        numbers = [it for it in map(experiment_number, experiment_ids) if it is not None]
        with self._database.read() as connection:
            return inputs.uses_of_datasets(connection, numbers, limit)

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

        def work(connection: Connection) -> None:
            _hold_active_run(connection, run_id)
            add_params(connection, run_params, {"run_id": run_id}, params, f"run {run_id!r}")
            put_pairs(connection, run_tags, {"run_id": run_id}, tags)
            insert_points(connection, run_id, metrics)

        self._database.write(work)

    def rename_run(self, run_id: RunId, name: str) -> Run:
        """See RunStore."""
        rules.check_run_name(name)

        def work(connection: Connection) -> Run:
            _hold_active_run(connection, run_id)
            _update(connection, run_id, run_name=name)
            put_pairs(connection, run_tags, {"run_id": run_id}, {rules.RUN_NAME_TAG: name})
            return _get_run(connection, run_id)

        return self._database.write(work)

    def delete_run_tag(self, run_id: RunId, key: str) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            _hold_active_run(connection, run_id)
            if not delete_pair(connection, run_tags, {"run_id": run_id}, key):
                raise rules.no_tag(f"run {run_id!r}", key, _get_run(connection, run_id).tags)

        self._database.write(work)

    def delete_run(self, run_id: RunId) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            if _hold_run(connection, run_id)[1] is LifecycleStage.ACTIVE:
                _update(
                    connection,
                    run_id,
                    lifecycle_stage=LifecycleStage.DELETED,
                    deletion_time_ms=self._clock(),
                )

        self._database.write(work)

    def restore_run(self, run_id: RunId) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            # The experiment before the run, as who deletes an experiment takes them.
            of_run = _get_run(connection, run_id)
            experiment = get_experiment(connection, of_run.experiment_id, for_children=True)
            rules.check_restorable(of_run, experiment)
            _hold_run(connection, run_id)
            _update(
                connection,
                run_id,
                lifecycle_stage=LifecycleStage.ACTIVE,
                is_gone_with_experiment=False,
                deletion_time_ms=None,
            )

        self._database.write(work)

    def purge_run(self, run_id: RunId) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            _hold_run(connection, run_id)
            rules.check_deleted(_get_run(connection, run_id))
            note_removals(connection, runs.c.run_id, runs.c.run_id == run_id)
            connection.execute(delete(runs).where(runs.c.run_id == run_id))

        self._database.write(work)

    def log_inputs(
        self,
        run_id: RunId,
        *,
        datasets: Sequence[DatasetInput] = (),
        model_ids: Sequence[str] = (),
    ) -> None:
        """See RunStore."""
        rules.check_inputs(datasets, model_ids)

        def work(connection: Connection) -> None:
            experiment = _hold_active_run(connection, run_id)
            inputs.put_datasets(connection, experiment, run_id, datasets)
            inputs.put_model_inputs(connection, run_id, model_ids)

        self._database.write(work)

    def log_outputs(self, run_id: RunId, models: Sequence[ModelOutput]) -> None:
        """See RunStore."""
        rules.check_outputs(models)

        def work(connection: Connection) -> None:
            _hold_active_run(connection, run_id)
            inputs.put_model_outputs(connection, run_id, models)

        self._database.write(work)

    def update_run(self, run_id: RunId, status: RunStatus, end_time_ms: int | None) -> Run:
        """See RunStore."""
        rules.check_int64(end_time_ms or 0, "end time")

        def work(connection: Connection) -> Run:
            _hold_active_run(connection, run_id)
            _update(connection, run_id, status=status, end_time_ms=end_time_ms)
            return _get_run(connection, run_id)

        return self._database.write(work)

    def metric_history(self, run_id: RunId, key: str) -> Sequence[Metric]:
        """See RunStore."""
        with self._database.read() as connection:
            _check_run(connection, run_id)
            return history_of(connection, run_id, key)

    def metric_history_page(
        self, run_id: RunId, key: str, *, limit: int, token: str | None = None
    ) -> Page[Metric]:
        """See RunStore."""
        metric_pages.check_limit(limit)
        after = metric_pages.last_seen(token, run_id, key)
        with self._database.read() as connection:
            _check_run(connection, run_id)
            points = history_of(connection, run_id, key, after=after, limit=limit + 1)
        return metric_pages.page_of(points, run_id, key, limit)


def whole_runs(connection: Connection, rows: Sequence[Row[Any]]) -> list[Run]:
    """These rows of the table of runs, with all that belongs to them."""
    ids = [row.run_id for row in rows]
    params = pairs_of(connection, run_params, "run_id", ids)
    tags = pairs_of(connection, run_tags, "run_id", ids)
    latest = latest_of(connection, ids)
    used = inputs.datasets_of(connection, ids)
    model_inputs = inputs.model_inputs_of(connection, ids)
    model_outputs = inputs.model_outputs_of(connection, ids)
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
            datasets=used[row.run_id],
            model_inputs=model_inputs[row.run_id],
            model_outputs=model_outputs[row.run_id],
        )
        for row in rows
    ]


def run_columns(run: Run) -> dict[str, object]:
    """The columns of an active or deleted run in the table of runs."""
    return {
        "run_id": run.run_id,
        "experiment_id": int(run.experiment_id),
        "run_name": run.run_name,
        "user_id": run.user_id,
        "status": run.status,
        "start_time_ms": run.start_time_ms,
        "end_time_ms": run.end_time_ms,
        "artifact_uri": run.artifact_uri,
        "lifecycle_stage": run.lifecycle_stage,
        "is_gone_with_experiment": False,
    }


def _rows(connection: Connection, run_id: str) -> Sequence[Row[Any]]:
    return connection.execute(select(runs).where(runs.c.run_id == run_id)).all()


def _get_run(connection: Connection, run_id: str) -> Run:
    for run in whole_runs(connection, _rows(connection, run_id)):
        return run
    raise rules.no_run(run_id)


def _check_run(connection: Connection, run_id: str) -> None:
    if connection.execute(select(runs.c.run_id).where(runs.c.run_id == run_id)).first() is None:
        raise rules.no_run(run_id)


def _hold_run(connection: Connection, run_id: str) -> tuple[int, LifecycleStage]:
    """The experiment and stage of a run that no other transaction changes before this one ends."""
    query = select(runs.c.experiment_id, runs.c.lifecycle_stage).where(runs.c.run_id == run_id)
    for number, stage in connection.execute(query.with_for_update(key_share=True)):
        return number, LifecycleStage(stage)
    raise rules.no_run(run_id)


def _hold_active_run(connection: Connection, run_id: str) -> int:
    """The experiment of an active run, held."""
    number, stage = _hold_run(connection, run_id)
    if stage is LifecycleStage.DELETED:
        raise rules.deleted_run(run_id)
    return number


def _update(connection: Connection, run_id: str, **values: object) -> None:
    connection.execute(update(runs).where(runs.c.run_id == run_id).values(**values))
