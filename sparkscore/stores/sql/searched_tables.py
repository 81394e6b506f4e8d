"""Which tables and columns the fields of searches mean."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import FromClause, String, cast, func, or_, select

from sparkscore.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    FieldKind,
    Order,
)
from sparkscore.stores import rules
from sparkscore.stores.sql.searching import SearchedTable
from sparkscore.stores.sql.tables import (
    datasets,
    experiment_tags,
    experiments,
    latest_metrics,
    logged_model_metrics,
    logged_model_params,
    logged_model_tags,
    logged_models,
    model_version_tags,
    model_versions,
    registered_model_tags,
    registered_models,
    run_dataset_tags,
    run_datasets,
    run_params,
    run_tags,
    runs,
)

_used = run_datasets.join(datasets)
_contexts = select(run_dataset_tags).where(run_dataset_tags.c.key == rules.CONTEXT_TAG).subquery()

searched_experiments = SearchedTable(
    searchable=EXPERIMENTS,
    table=experiments,
    identity=("experiment_id",),
    attributes={
        "name": experiments.c.name,
        "experiment_id": cast(experiments.c.experiment_id, String),
        "creation_time": experiments.c.creation_time_ms,
        "last_update_time": experiments.c.last_update_time_ms,
    },
    numbers={"experiment_id": experiments.c.experiment_id},
    pairs={FieldKind.TAG: experiment_tags},
)
searched_runs = SearchedTable(
    searchable=RUNS,
    table=runs,
    identity=("run_id",),
    attributes={
        "run_id": runs.c.run_id,
        "run_name": runs.c.run_name,
        "status": runs.c.status,
        "user_id": runs.c.user_id,
        "artifact_uri": runs.c.artifact_uri,
        "start_time": runs.c.start_time_ms,
        "end_time": runs.c.end_time_ms,
    },
    nullable=frozenset({"end_time"}),
    pairs={FieldKind.PARAM: run_params, FieldKind.TAG: run_tags},
    points=lambda _: latest_metrics,
    latest_points=lambda _: latest_metrics,
    datasets={
        "name": (_used, run_datasets.c.run_id, datasets.c.name),
        "digest": (_used, run_datasets.c.run_id, datasets.c.digest),
        "context": (_contexts, _contexts.c.run_id, _contexts.c.value),
    },
)
searched_models = SearchedTable(
    searchable=REGISTERED_MODELS,
    table=registered_models,
    identity=("name",),
    attributes={
        "name": registered_models.c.name,
        "creation_timestamp": registered_models.c.creation_time_ms,
        "last_updated_timestamp": registered_models.c.last_update_time_ms,
    },
    pairs={FieldKind.TAG: registered_model_tags},
)
searched_versions = SearchedTable(
    searchable=MODEL_VERSIONS,
    table=model_versions,
    identity=("name", "version"),
    attributes={
        "name": model_versions.c.name,
        "run_id": model_versions.c.run_id,
        "source_path": model_versions.c.source,
        "version_number": model_versions.c.version,
        "creation_timestamp": model_versions.c.creation_time_ms,
        "last_updated_timestamp": model_versions.c.last_update_time_ms,
    },
    pairs={FieldKind.TAG: model_version_tags},
)


def searched_logged_models(on: Sequence[tuple[str, str]]) -> SearchedTable:
    """The logged models, their metrics being those of these datasets, if any."""
    return SearchedTable(
        searchable=LOGGED_MODELS,
        table=logged_models,
        identity=("model_id",),
        attributes={
            "name": logged_models.c.name,
            "model_id": logged_models.c.model_id,
            "experiment_id": cast(logged_models.c.experiment_id, String),
            "model_type": logged_models.c.model_type,
            "status": logged_models.c.status,
            "source_run_id": logged_models.c.source_run_id,
            "artifact_location": logged_models.c.artifact_uri,
            "creation_timestamp": logged_models.c.creation_time_ms,
            "last_updated_timestamp": logged_models.c.last_update_time_ms,
        },
        numbers={"experiment_id": logged_models.c.experiment_id},
        pairs={FieldKind.PARAM: logged_model_params, FieldKind.TAG: logged_model_tags},
        points=lambda order: _points_on(order, on),
        latest_points=lambda order: _latest_on(order, on),
    )


def _points_on(order: Order, on: Sequence[tuple[str, str]]) -> FromClause:
    """A metric's points, measured on certain datasets."""
    it = logged_model_metrics.c
    query = select(logged_model_metrics).where(it.key == order.field.key)
    wanted = on if order.dataset is None else [order.dataset]
    if wanted:
        ways = (
            (it.dataset_name == name) & (it.dataset_digest == digest)
            if digest
            else it.dataset_name == name
            for name, digest in wanted
        )
        query = query.where(or_(*ways))
    return query.subquery()


def _latest_on(order: Order, on: Sequence[tuple[str, str]]) -> FromClause:
    """The last of these points of each model, by `rules.metric_order`."""
    points = _points_on(order, on)
    place = (
        points.c.step.desc(),
        points.c.timestamp_ms.desc(),
        points.c.is_nan,
        points.c.value.desc(),
    )
    numbered = select(
        points,
        func.row_number().over(partition_by=points.c.model_id, order_by=place).label("place"),
    ).subquery()
    return select(numbered).where(numbered.c.place == 1).subquery()
