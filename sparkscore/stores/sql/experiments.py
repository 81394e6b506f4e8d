"""Experiments in SQL tables."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, Select, delete, insert, select, update

from sparkscore.names import ExperimentName
from sparkscore.records import Experiment, LifecycleStage
from sparkscore.search import Page, Query
from sparkscore.stores import rules
from sparkscore.stores.base import Clock
from sparkscore.stores.sql.database import Database
from sparkscore.stores.sql.purges import note_removals
from sparkscore.stores.sql.searched_tables import searched_experiments
from sparkscore.stores.sql.searching import in_stage, search_rows
from sparkscore.stores.sql.statements import delete_pair, in_slices, put_pairs
from sparkscore.stores.sql.tables import experiment_tags, experiments, logged_models, runs

_EXPERIMENT_ID = re.compile(r"0|[1-9][0-9]{0,17}")


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


class SqlExperiments:
    """The half of SqlRunStore that is about experiments."""

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

        def work(connection: Connection) -> Experiment:
            _check_name_is_free(connection, name)
            number = _insert_experiment(
                connection, name, location=artifact_location or "", now_ms=self._clock()
            )
            if not artifact_location:
                location = f"{self._artifact_root}/{number}"
                _update(connection, number, artifact_location=location)
            put_pairs(connection, experiment_tags, {"experiment_id": number}, tags)
            return get_experiment(connection, str(number))

        return self._database.write(work)

    def get_experiment(self, experiment_id: str) -> Experiment:
        """See RunStore."""
        with self._database.read() as connection:
            return get_experiment(connection, experiment_id)

    def find_experiment(self, name: ExperimentName) -> Experiment | None:
        """See RunStore."""
        query = select(experiments).where(experiments.c.name == name)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
            return next(iter(whole_experiments(connection, rows)), None)

    def list_experiments(self, *, limit: int = 1000) -> Sequence[Experiment]:
        """See RunStore."""
        query = (
            select(experiments)
            .where(experiments.c.lifecycle_stage == LifecycleStage.ACTIVE)
            .order_by(experiments.c.creation_time_ms.desc(), experiments.c.experiment_id.desc())
            .limit(limit)
        )
        with self._database.read() as connection:
            return whole_experiments(connection, connection.execute(query).all())

    def search_experiments(self, query: Query) -> Page[Experiment]:
        """See RunStore."""
        in_view = in_stage(experiments.c.lifecycle_stage, query.view)
        with self._database.read() as connection:
            found = search_rows(connection, searched_experiments, query, *in_view)
            return Page(tuple(whole_experiments(connection, found.rows)), found.next_token)

    def rename_experiment(self, experiment_id: str, name: ExperimentName) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            experiment = _active_experiment(connection, experiment_id)
            if experiment.name != name:
                _check_name_is_free(connection, name)
            _update(connection, int(experiment_id), name=name, last_update_time_ms=self._clock())

        self._database.write(work)

    def set_experiment_tags(self, experiment_id: str, tags: Mapping[str, str]) -> None:
        """See RunStore."""
        rules.check_tags(tags, rules.MAX_EXPERIMENT_TAG_CHARS)

        def work(connection: Connection) -> None:
            _active_experiment(connection, experiment_id)
            put_pairs(connection, experiment_tags, {"experiment_id": int(experiment_id)}, tags)

        self._database.write(work)

    def delete_experiment_tag(self, experiment_id: str, key: str) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            experiment = _active_experiment(connection, experiment_id)
            owner = {"experiment_id": int(experiment_id)}
            if not delete_pair(connection, experiment_tags, owner, key):
                raise rules.no_tag(f"experiment {experiment.name!r}", key, experiment.tags)

        self._database.write(work)

    def delete_experiment(self, experiment_id: str) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            _active_experiment(connection, experiment_id)
            now_ms = self._move(connection, experiment_id, LifecycleStage.DELETED)
            active = runs.c.lifecycle_stage == LifecycleStage.ACTIVE
            connection.execute(
                update(runs)
                .where(runs.c.experiment_id == int(experiment_id), active)
                .values(
                    lifecycle_stage=LifecycleStage.DELETED,
                    is_gone_with_experiment=True,
                    deletion_time_ms=now_ms,
                )
            )

        self._database.write(work)

    def restore_experiment(self, experiment_id: str) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            rules.check_deleted(get_experiment(connection, experiment_id, for_change=True))
            self._move(connection, experiment_id, LifecycleStage.ACTIVE)
            connection.execute(
                update(runs)
                .where(runs.c.experiment_id == int(experiment_id), runs.c.is_gone_with_experiment)
                .values(
                    lifecycle_stage=LifecycleStage.ACTIVE,
                    is_gone_with_experiment=False,
                    deletion_time_ms=None,
                )
            )

        self._database.write(work)

    def purge_experiment(self, experiment_id: str) -> None:
        """See RunStore."""

        def work(connection: Connection) -> None:
            rules.check_deleted(get_experiment(connection, experiment_id, for_change=True))
            note_removals(connection, runs.c.run_id, runs.c.experiment_id == int(experiment_id))
            of_it = logged_models.c.experiment_id == int(experiment_id)
            note_removals(connection, logged_models.c.model_id, of_it)
            connection.execute(
                delete(experiments).where(experiments.c.experiment_id == int(experiment_id))
            )

        self._database.write(work)

    def _move(self, connection: Connection, experiment_id: str, stage: LifecycleStage) -> int:
        now = self._clock()
        _update(connection, int(experiment_id), lifecycle_stage=stage, last_update_time_ms=now)
        return now


def experiment_number(experiment_id: str) -> int | None:
    """The number that an experiment's id is kept as; None for an id of no experiment."""
    # Only the way we write a number: '00' is not the experiment '0'.
    return int(experiment_id) if _EXPERIMENT_ID.fullmatch(experiment_id) else None


def get_experiment(
    connection: Connection,
    experiment_id: str,
    *,
    for_change: bool = False,
    for_children: bool = False,
) -> Experiment:
    """The experiment of this id.

    Args:
        connection: An open transaction.
        experiment_id: Which.
        for_change: No other transaction changes it, or adds to it, before this one ends.
        for_children: No other transaction changes it before this one ends.

    Raises:
        RecordNotFoundError: There is none.
    """
    number = experiment_number(experiment_id)
    query = select(experiments).where(experiments.c.experiment_id == number)
    if for_change or for_children:
        query = query.with_for_update(read=for_children)
    for experiment in whole_experiments(connection, connection.execute(query).all()):
        return experiment
    raise rules.no_experiment(experiment_id)


def whole_experiments(connection: Connection, rows: Sequence[Row[Any]]) -> list[Experiment]:
    """These rows of the table of experiments, with their tags."""
    tags: dict[int, dict[str, str]] = defaultdict(dict)
    ids = [row.experiment_id for row in rows]
    for tag in in_slices(connection, select(experiment_tags), experiment_tags.c.experiment_id, ids):
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
        for row in rows
    ]


def _active_experiment(connection: Connection, experiment_id: str) -> Experiment:
    experiment = get_experiment(connection, experiment_id, for_change=True)
    rules.check_active(experiment)
    return experiment


def _check_name_is_free(connection: Connection, name: str) -> None:
    query: Select[Any] = select(experiments.c.experiment_id).where(experiments.c.name == name)
    if connection.execute(query).first() is not None:
        raise rules.experiment_exists(name)


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


def _update(connection: Connection, number: int, **values: object) -> None:
    connection.execute(
        update(experiments).where(experiments.c.experiment_id == number).values(**values)
    )
