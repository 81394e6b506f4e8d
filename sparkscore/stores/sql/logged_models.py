"""Models that experiments hold, in SQL tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select, update

from sparkscore.records import LifecycleStage, LoggedModel, LoggedModelStatus
from sparkscore.search import Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.experiments import experiment_number, get_experiment
from sparkscore.stores.sql.points import points_of_models
from sparkscore.stores.sql.purges import note_removals
from sparkscore.stores.sql.searched_tables import searched_logged_models
from sparkscore.stores.sql.searching import in_stage, search_rows
from sparkscore.stores.sql.statements import add_params, delete_pair, pairs_of, put_pairs
from sparkscore.stores.sql.tables import logged_model_params, logged_model_tags, logged_models


class SqlLoggedModelStore:
    """Logged models in the database of a SqlRunStore; safe between threads and processes."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    def create_logged_model(
        self,
        experiment_id: str,
        *,
        model_id: str,
        name: str,
        model_type: str = "",
        source_run_id: str = "",
        params: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> LoggedModel:
        """See LoggedModelStore."""
        rules.check_new_logged_model(model_id, name, model_type, source_run_id, params, tags)

        def work(connection: Connection) -> LoggedModel:
            experiment = get_experiment(connection, experiment_id, for_children=True)
            rules.check_active(experiment)
            if _rows(connection, model_id):
                raise rules.logged_model_exists(model_id)
            now = self._clock()
            connection.execute(
                insert(logged_models).values(
                    model_id=model_id,
                    experiment_id=int(experiment_id),
                    name=name,
                    model_type=model_type,
                    source_run_id=source_run_id,
                    status=LoggedModelStatus.PENDING,
                    status_message="",
                    artifact_uri=rules.logged_model_place(experiment, model_id),
                    creation_time_ms=now,
                    last_update_time_ms=now,
                    lifecycle_stage=LifecycleStage.ACTIVE,
                )
            )
            put_pairs(connection, logged_model_params, {"model_id": model_id}, params)
            put_pairs(connection, logged_model_tags, {"model_id": model_id}, tags)
            return _get(connection, model_id)

        return self._database.write(work)

    def get_logged_model(self, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
        """See LoggedModelStore."""
        with self._database.read() as connection:
            return _get(connection, model_id, allow_deleted=allow_deleted)

    def search_logged_models(
        self,
        experiment_ids: Sequence[str],
        query: Query,
        *,
        datasets: Sequence[tuple[str, str]] = (),
    ) -> Page[LoggedModel]:
        """See LoggedModelStore."""
        numbers = sorted({it for it in map(experiment_number, experiment_ids) if it is not None})
        it = logged_models.c
        where = [it.experiment_id.in_(numbers), *in_stage(it.lifecycle_stage, query.view)]
        searched, scope = searched_logged_models(datasets), [numbers, list(datasets)]
        with self._database.read() as connection:
            found = search_rows(connection, searched, query, *where, scope=scope)
            return Page(tuple(whole_logged_models(connection, found.rows)), found.next_token)

    def finish_logged_model(self, model_id: str, status: LoggedModelStatus) -> LoggedModel:
        """See LoggedModelStore."""
        rules.check_finish_logged(status)

        def work(connection: Connection) -> LoggedModel:
            _hold(connection, model_id)
            self._change(connection, model_id, status=status)
            return _get(connection, model_id)

        return self._database.write(work)

    def set_logged_model_tags(self, model_id: str, tags: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_tags(tags, rules.MAX_RUN_TAG_CHARS)

        def work(connection: Connection) -> None:
            _hold(connection, model_id)
            put_pairs(connection, logged_model_tags, {"model_id": model_id}, tags)

        self._database.write(work)

    def delete_logged_model_tag(self, model_id: str, key: str) -> None:
        """See LoggedModelStore."""

        def work(connection: Connection) -> None:
            _hold(connection, model_id)
            if not delete_pair(connection, logged_model_tags, {"model_id": model_id}, key):
                known = _get(connection, model_id).tags
                raise rules.no_tag(f"logged model {model_id!r}", key, known)

        self._database.write(work)

    def log_logged_model_params(self, model_id: str, params: Mapping[str, str]) -> None:
        """See LoggedModelStore."""
        rules.check_params(params)

        def work(connection: Connection) -> None:
            _hold(connection, model_id)
            noun = f"logged model {model_id!r}"
            add_params(connection, logged_model_params, {"model_id": model_id}, params, noun)

        self._database.write(work)

    def delete_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore."""

        def work(connection: Connection) -> None:
            _hold(connection, model_id)
            self._change(connection, model_id, lifecycle_stage=LifecycleStage.DELETED)

        self._database.write(work)

    def purge_logged_model(self, model_id: str) -> None:
        """See LoggedModelStore."""

        def work(connection: Connection) -> None:
            _hold(connection, model_id, allow_deleted=True)
            model = _get(connection, model_id, allow_deleted=True)
            rules.check_purgeable(model, get_experiment(connection, model.experiment_id))
            is_it = logged_models.c.model_id == model_id
            note_removals(connection, logged_models.c.model_id, is_it)
            connection.execute(delete(logged_models).where(is_it))

        self._database.write(work)

    def _change(self, connection: Connection, model_id: str, **values: object) -> None:
        connection.execute(
            update(logged_models)
            .where(logged_models.c.model_id == model_id)
            .values(last_update_time_ms=self._clock(), **values)
        )


def whole_logged_models(connection: Connection, rows: Sequence[Row[Any]]) -> list[LoggedModel]:
    """These rows of the table of logged models, with params, tags and metrics."""
    ids = [row.model_id for row in rows]
    params = pairs_of(connection, logged_model_params, "model_id", ids)
    tags = pairs_of(connection, logged_model_tags, "model_id", ids)
    points = points_of_models(connection, ids)
    return [
        LoggedModel(
            model_id=row.model_id,
            experiment_id=str(row.experiment_id),
            name=row.name,
            model_type=row.model_type,
            source_run_id=row.source_run_id,
            status=LoggedModelStatus(row.status),
            artifact_uri=row.artifact_uri,
            creation_time_ms=row.creation_time_ms,
            last_update_time_ms=row.last_update_time_ms,
            lifecycle_stage=LifecycleStage(row.lifecycle_stage),
            status_message=row.status_message,
            params=params[row.model_id],
            tags=tags[row.model_id],
            metrics=tuple(points[row.model_id]),
        )
        for row in rows
    ]


def _rows(connection: Connection, model_id: str, *, hold: bool = False) -> Sequence[Row[Any]]:
    query = select(logged_models).where(logged_models.c.model_id == model_id)
    return connection.execute(query.with_for_update(key_share=True) if hold else query).all()


def _hold(connection: Connection, model_id: str, *, allow_deleted: bool = False) -> None:
    """Keep other transactions from a model until this one ends.

    Raises:
        RecordNotFoundError: There is none, or it is deleted.
    """
    rows = _rows(connection, model_id, hold=True)
    if not rows or not (allow_deleted or rows[0].lifecycle_stage == LifecycleStage.ACTIVE):
        raise rules.no_logged_model(model_id)


def _get(connection: Connection, model_id: str, *, allow_deleted: bool = False) -> LoggedModel:
    for model in whole_logged_models(connection, _rows(connection, model_id)):
        if allow_deleted or model.lifecycle_stage is LifecycleStage.ACTIVE:
            return model
    raise rules.no_logged_model(model_id)
