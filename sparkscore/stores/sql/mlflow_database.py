"""MLflow's own databases, of its second and third series: read, and never written to."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import (
    URL,
    ColumnElement,
    Connection,
    Engine,
    MetaData,
    Row,
    Select,
    Table,
    create_engine,
    func,
    inspect,
    select,
)
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from sparkscore.errors import (
    MissingExtraError,
    RecordNotFoundError,
    StoreUnavailableError,
    UsageError,
)
from sparkscore.records import (
    DatasetInput,
    Experiment,
    LoggedModel,
    Metric,
    ModelOutput,
    ModelVersion,
    RegisteredModel,
    Run,
)
from sparkscore.stores import mlflow_values as values
from sparkscore.stores.copies_base import ModelCopy, Refuse, RunPoint
from sparkscore.stores.sql.statements import in_slices

_PAGE = 10_000
_NEEDED = ("experiments", "runs", "metrics", "params", "tags")


class MlflowDatabase:
    """A database that MLflow made, of any schema since its second series.

    Args:
        url: As MLflow is given it, such as `sqlite:////FILE` or `postgresql://HOST/DATABASE`.

    Raises:
        UsageError: The URL is of no database that is known here.
        MissingExtraError: The database's driver is not installed.
        RecordNotFoundError: It is not MLflow's.
        StoreUnavailableError: It did not answer.
    """

    def __init__(self, url: str) -> None:
        self._engine = _engine(url)
        self._where = self._engine.url.render_as_string()
        with self._reading() as connection:
            names = set(inspect(connection).get_table_names())
            missing = [name for name in _NEEDED if name not in names]
            if missing or "alembic_version" not in names:
                raise RecordNotFoundError(
                    f"the database {url_without_password(url)!r} is not MLflow's: it has no table "
                    f"{(missing or ['alembic_version'])[0]!r}. Name the one of MLflow's "
                    "--backend-store-uri"
                )
            self._names = names

    def experiments(self, refuse: Refuse) -> Iterator[Experiment]:
        """See RecordSource."""
        table = self._tables["experiments"]
        with self._reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.experiment_id)).all()
            tags = _pairs(connection, self._tables.get("experiment_tags"), "experiment_id")
            if "trace_info" in self._names:
                n_traces = connection.scalar(select(func.count()).select_from(self._traces))
                if n_traces:
                    refuse("trace", f"{n_traces} of all experiments", values.NO_TRACES)
        for row in rows:
            fields = row._asdict()
            if not _is_default(fields):
                refuse("experiment", values.text(row.name), values.OTHER_WORKSPACE)
                continue
            yield Experiment(
                experiment_id=str(row.experiment_id),
                name=row.name,
                artifact_location=values.text(row.artifact_location),
                lifecycle_stage=values.stage(row.lifecycle_stage),
                creation_time_ms=values.whole(fields.get("creation_time")),
                last_update_time_ms=values.whole(fields.get("last_update_time")),
                tags=tags[row.experiment_id],
            )

    def run_ids(self, experiment_id: str) -> Iterator[str]:
        """See RecordSource."""
        it = self._tables["runs"].c
        query = select(it.run_uuid).where(it.experiment_id == int(experiment_id))
        yield from self._paged(query, it.run_uuid)

    def runs(self, experiment_id: str, run_ids: Sequence[str], refuse: Refuse) -> Iterator[Run]:
        """See RecordSource."""
        table = self._tables["runs"]
        with self._reading() as connection:
            rows = list(in_slices(connection, select(table), table.c.run_uuid, run_ids))
            params = _pairs(connection, self._tables["params"], "run_uuid", run_ids)
            tags = _pairs(connection, self._tables["tags"], "run_uuid", run_ids)
            datasets = self._datasets(connection, run_ids)
            models = self._models_of_runs(connection, run_ids)
        for row in sorted(rows, key=lambda row: str(row.run_uuid)):
            fields = row._asdict()
            run_id = str(row.run_uuid)
            try:
                yield Run(
                    run_id=run_id,
                    run_name=str(fields.get("name") or tags[run_id].get("mlflow.runName", "")),
                    experiment_id=experiment_id,
                    user_id=values.text(row.user_id),
                    status=values.run_status(row.status),
                    start_time_ms=values.whole(row.start_time),
                    end_time_ms=row.end_time,
                    artifact_uri=values.text(row.artifact_uri),
                    lifecycle_stage=values.stage(row.lifecycle_stage),
                    params=params[run_id],
                    tags=tags[run_id],
                    datasets=tuple(datasets[run_id]),
                    model_inputs=tuple(models["RUN_INPUT", run_id]),
                    model_outputs=tuple(
                        ModelOutput(model_id, step)
                        for model_id, step in models["RUN_OUTPUT", run_id].items()
                    ),
                )
            except ValueError as exc:
                refuse("run", run_id, f"its record does not hold: {exc}")

    def points(self, runs: Sequence[Run], refuse: Refuse) -> Iterator[RunPoint]:  # noqa: ARG002
        """See RecordSource."""
        it = self._tables["metrics"].c
        query = select(it.run_uuid, it.key, it.value, it.timestamp, it.step, it.is_nan)
        query = query.order_by(it.run_uuid).execution_options(yield_per=_PAGE)
        with self._reading() as connection:
            for row in in_slices(connection, query, it.run_uuid, [run.run_id for run in runs]):
                value = float("nan") if row.is_nan else float(row.value)
                yield RunPoint(row.run_uuid, Metric(row.key, value, row.timestamp, row.step))

    def logged_models(self, experiment_id: str, refuse: Refuse) -> Iterator[LoggedModel]:
        """See RecordSource."""
        table = self._tables.get("logged_models")
        if table is None:
            return
        query = select(table.c.model_id).where(table.c.experiment_id == int(experiment_id))
        ids = list(self._paged(query, table.c.model_id))
        with self._reading() as connection:
            rows = list(in_slices(connection, select(table), table.c.model_id, ids))
            params = self._model_pairs(connection, "param", ids)
            tags = self._model_pairs(connection, "tag", ids)
            points = self._model_points(connection, ids)
        for row in rows:
            try:
                yield LoggedModel(
                    model_id=row.model_id,
                    experiment_id=experiment_id,
                    name=row.name,
                    model_type=values.text(row.model_type),
                    source_run_id=values.text(row.source_run_id),
                    status=values.logged_status(row.status),
                    artifact_uri=row.artifact_location,
                    creation_time_ms=row.creation_timestamp_ms,
                    last_update_time_ms=row.last_updated_timestamp_ms,
                    lifecycle_stage=values.stage(row.lifecycle_stage),
                    status_message=values.text(row.status_message),
                    params=params[row.model_id],
                    tags=tags[row.model_id],
                    metrics=tuple(points[row.model_id]),
                )
            except ValueError as exc:
                refuse("logged model", row.model_id, f"its record does not hold: {exc}")

    def models(self, refuse: Refuse) -> Iterator[ModelCopy]:
        """See RecordSource."""
        if "registered_models" not in self._names:
            return
        table = self._tables["registered_models"]
        with self._reading() as connection:
            rows = connection.execute(select(table).order_by(table.c.name)).all()
        for row in rows:
            fields = row._asdict()
            if not _is_default(fields):
                refuse("registered model", row.name, values.OTHER_WORKSPACE)
                continue
            with self._reading() as connection:
                tags = self._of_model(connection, "registered_model_tags", row.name)
                aliases = self._of_model(connection, "registered_model_aliases", row.name)
                found = list(self._versions(connection, row.name, refuse))
            model = RegisteredModel(
                name=row.name,
                creation_time_ms=values.whole(row.creation_time),
                last_update_time_ms=values.whole(row.last_updated_time),
                description=values.text(row.description),
                tags={tag.key: values.text(tag.value) for tag in tags},
                aliases={it.alias: int(it.version) for it in aliases},
            )
            kept = tuple(version for _, version in found if version is not None)
            yield ModelCopy(model, kept, max((number for number, _ in found), default=0))

    def places(self, ids: Sequence[str]) -> Mapping[str, str]:
        """See RecordSource."""
        it = self._tables["runs"].c
        with self._reading() as connection:
            query = select(it.run_uuid, it.artifact_uri)
            found = {
                str(row.run_uuid): values.text(row.artifact_uri)
                for row in in_slices(connection, query, it.run_uuid, ids)
            }
            models = self._tables.get("logged_models")
            if models is not None:
                query = select(models.c.model_id, models.c.artifact_location)
                for row in in_slices(connection, query, models.c.model_id, ids):
                    found[row.model_id] = values.text(row.artifact_location)
        return found

    def current_place(self, uri: str) -> str:
        """See RecordSource; a database knows no other."""
        return uri

    @cached_property
    def _tables(self) -> Mapping[str, Table]:
        """MLflow's tables as they are in this database: columns differ from release to release."""
        wanted = [name for name in READ if name in self._names]
        metadata = MetaData()
        with self._reading() as connection:
            metadata.reflect(connection, only=wanted, resolve_fks=False)
        return metadata.tables

    @cached_property
    def _traces(self) -> Table:
        with self._reading() as connection:
            return Table("trace_info", MetaData(), autoload_with=connection, resolve_fks=False)

    def _paged(self, query: Select[Any], column: ColumnElement[Any]) -> Iterator[str]:
        """A column's values in order, by pages: no transaction is held between two of them."""
        page, last = [""], None
        while page:
            more = query if last is None else query.where(column > last)
            with self._reading() as connection:
                page = list(connection.scalars(more.order_by(column).limit(_PAGE)))
            yield from page
            last = page[-1] if page else last

    def _datasets(
        self, connection: Connection, run_ids: Sequence[str]
    ) -> Mapping[str, list[DatasetInput]]:
        found: dict[str, list[DatasetInput]] = defaultdict(list)
        if not {"inputs", "datasets", "input_tags"} <= self._names:
            return found
        used, data = self._tables["inputs"], self._tables["datasets"]
        query = (
            select(used.c.destination_id, used.c.input_uuid, data)
            .join(data, data.c.dataset_uuid == used.c.source_id)
            .where(used.c.source_type == "DATASET", used.c.destination_type == "RUN")
        )
        rows = list(in_slices(connection, query, used.c.destination_id, run_ids))
        ids = [row.input_uuid for row in rows]
        tags = _pairs(connection, self._tables["input_tags"], "input_uuid", ids, key="name")
        for row in rows:
            fields = {
                "name": row.name,
                "digest": row.digest,
                "source_type": row.dataset_source_type,
                "source": row.dataset_source,
                "schema": row.dataset_schema,
                "profile": row.dataset_profile,
            }
            item = DatasetInput(values.dataset(fields), tags[row.input_uuid])
            found[str(row.destination_id)].append(item)
        return found

    def _models_of_runs(
        self, connection: Connection, run_ids: Sequence[str]
    ) -> Mapping[tuple[str, str], dict[str, int]]:
        """Logged models, with steps, by (how a run is bound to them, run)."""
        found: dict[tuple[str, str], dict[str, int]] = defaultdict(dict)
        if "logged_models" not in self._names:
            return found
        it = self._tables["inputs"].c
        query = select(it.source_type, it.source_id, it.destination_id, it.step)
        query = query.where(it.source_type.in_(("RUN_INPUT", "RUN_OUTPUT")))
        for row in in_slices(connection, query, it.source_id, run_ids):
            found[row.source_type, str(row.source_id)][str(row.destination_id)] = row.step or 0
        return found

    def _model_pairs(
        self, connection: Connection, noun: str, ids: Sequence[str]
    ) -> Mapping[Any, dict[str, str]]:
        table = self._tables[f"logged_model_{noun}s"]
        key, value = f"{noun}_key", f"{noun}_value"
        return _pairs(connection, table, "model_id", ids, key=key, value=value)

    def _model_points(
        self, connection: Connection, ids: Sequence[str]
    ) -> Mapping[str, list[Metric]]:
        found: dict[str, list[Metric]] = defaultdict(list)
        table = self._tables["logged_model_metrics"]
        for row in in_slices(connection, select(table), table.c.model_id, ids):
            point = Metric(
                key=row.metric_name,
                value=float("nan") if row.metric_value is None else float(row.metric_value),
                timestamp_ms=row.metric_timestamp_ms,
                step=row.metric_step,
                model_id=row.model_id,
                dataset_name=values.text(row.dataset_name),
                dataset_digest=values.text(row.dataset_digest),
            )
            found[row.model_id].append(point)
        return found

    def _of_model(self, connection: Connection, table: str, name: str) -> Sequence[Row[Any]]:
        if table not in self._names:
            return []
        found = self._tables[table]
        query = select(found).where(found.c.name == name)
        if "workspace" in found.c:
            query = query.where(found.c.workspace == values.DEFAULT_WORKSPACE)
        return connection.execute(query).all()

    def _versions(
        self, connection: Connection, name: str, refuse: Refuse
    ) -> Iterator[tuple[int, ModelVersion | None]]:
        tags: dict[int, dict[str, str]] = defaultdict(dict)
        for tag in self._of_model(connection, "model_version_tags", name):
            tags[tag.version][tag.key] = values.text(tag.value)
        for row in self._of_model(connection, "model_versions", name):
            number = int(row.version)
            yield number, values.version(name, number, row._asdict(), tags[number], refuse)

    @contextmanager
    def _reading(self) -> Iterator[Connection]:
        try:
            with self._engine.connect() as connection:
                yield connection
        except SQLAlchemyError as exc:
            raise StoreUnavailableError(
                f"MLflow's database {self._where!r} did not answer: "
                f"{str(exc).splitlines()[0]}. Check that it is there and can be read, and run again"
            ) from exc


READ = (
    *_NEEDED,
    "experiment_tags",
    "datasets",
    "inputs",
    "input_tags",
    "logged_models",
    "logged_model_params",
    "logged_model_tags",
    "logged_model_metrics",
    "registered_models",
    "registered_model_tags",
    "registered_model_aliases",
    "model_versions",
    "model_version_tags",
)
"""Those of MLflow's tables that are read, where they are."""


def url_without_password(url: str) -> str:
    """A database's URL as messages show it."""
    return make_url(url).render_as_string()


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
        kind = parsed.get_backend_name()
    except (ArgumentError, ValueError, NoSuchModuleError) as exc:
        raise UsageError(
            "the source is no URL of a database that is known here: give sqlite:////FILE or "
            "postgresql://USER:PASSWORD@HOST/DATABASE, as MLflow has it"
        ) from exc
    if kind == "sqlite":
        return _sqlite_engine(parsed)
    if kind in ("postgresql", "postgres"):
        parsed = parsed.set(drivername="postgresql+psycopg")
    try:
        engine = create_engine(parsed, poolclass=NullPool)
    except (ModuleNotFoundError, NoSuchModuleError) as exc:
        raise MissingExtraError(
            f"the driver of {parsed.drivername!r} is not installed: PostgreSQL's comes with "
            "pip install 'sparkscore[postgres]'"
        ) from exc
    options = {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True}
    return engine.execution_options(**options) if engine.name == "postgresql" else engine


def _sqlite_engine(url: URL) -> Engine:
    path = Path(url.database or "").absolute()
    if not path.is_file():
        raise RecordNotFoundError(f"there is no database file {str(path)!r} to read from")

    def connect() -> sqlite3.Connection:
        return sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True)

    return create_engine(url, creator=connect, poolclass=NullPool)


def _is_default(fields: Mapping[str, Any]) -> bool:
    return bool(fields.get("workspace", values.DEFAULT_WORKSPACE) == values.DEFAULT_WORKSPACE)


def _pairs(
    connection: Connection,
    table: Table | None,
    owner: str,
    owners: Sequence[str] | None = None,
    *,
    key: str = "key",
    value: str = "value",
) -> Mapping[Any, dict[str, str]]:
    """Keys and values by owner, of these owners or of all."""
    found: dict[Any, dict[str, str]] = defaultdict(dict)
    if table is None:
        return found
    query = select(table)
    if owners is None:
        rows: Iterable[Row[Any]] = connection.execute(query)
    else:
        rows = in_slices(connection, query, table.c[owner], owners)
    for row in rows:
        fields = row._mapping
        found[fields[owner]][fields[key]] = values.text(fields[value])
    return found
