"""What runs used and made, in SQL tables: datasets and logged models."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, and_, delete, func, select

from sparkscore.records import Dataset, DatasetInput, LifecycleStage, ModelOutput
from sparkscore.stores import rules
from sparkscore.stores.sql.statements import add_rows, in_slices, put_pairs, put_rows
from sparkscore.stores.sql.tables import (
    datasets,
    run_dataset_tags,
    run_datasets,
    run_model_inputs,
    run_model_outputs,
    runs,
)


def put_datasets(
    connection: Connection, experiment_id: int, run_id: str, used: Sequence[DatasetInput]
) -> None:
    """Add datasets to a run; one that the experiment knows stays as it is."""
    for item in used:
        dataset_id = _dataset_id(connection, experiment_id, item.dataset)
        owner = {"run_id": run_id, "dataset_id": dataset_id}
        add_rows(connection, run_datasets, [owner])
        connection.execute(
            delete(run_dataset_tags).where(
                run_dataset_tags.c.run_id == run_id, run_dataset_tags.c.dataset_id == dataset_id
            )
        )
        put_pairs(connection, run_dataset_tags, owner, item.tags)


def put_model_inputs(connection: Connection, run_id: str, model_ids: Sequence[str]) -> None:
    """Add logged models that a run used."""
    rows = [{"run_id": run_id, "model_id": model_id} for model_id in model_ids]
    add_rows(connection, run_model_inputs, rows)


def put_model_outputs(connection: Connection, run_id: str, models: Sequence[ModelOutput]) -> None:
    """Add logged models that a run made; of one that is given twice the last step counts."""
    steps = {it.model_id: it.step for it in models}
    rows = [{"run_id": run_id, "model_id": it, "step": step} for it, step in steps.items()]
    put_rows(connection, run_model_outputs, rows)


def datasets_of(
    connection: Connection, run_ids: Sequence[str]
) -> Mapping[str, tuple[DatasetInput, ...]]:
    """The datasets that runs used, with their tags, by run and in `rules.dataset_key`'s order."""
    query = select(run_datasets.c.run_id, datasets).join(datasets)
    rows = list(in_slices(connection, query, run_datasets.c.run_id, run_ids))
    with_datasets = list({row.run_id for row in rows})
    tags: dict[tuple[str, int], dict[str, str]] = defaultdict(dict)
    query = select(run_dataset_tags)
    for row in in_slices(connection, query, run_dataset_tags.c.run_id, with_datasets):
        tags[row.run_id, row.dataset_id][row.key] = row.value
    used: dict[str, list[DatasetInput]] = defaultdict(list)
    for row in rows:
        used[row.run_id].append(DatasetInput(_dataset(row), tags[row.run_id, row.dataset_id]))
    ordered = {run_id: sorted(items, key=rules.dataset_key) for run_id, items in used.items()}
    return defaultdict(tuple, {run_id: tuple(items) for run_id, items in ordered.items()})


def uses_of_datasets(
    connection: Connection, experiment_ids: Sequence[int], limit: int
) -> list[tuple[str, DatasetInput]]:
    """What active runs of experiments used, each use once, as (experiment id, dataset)."""
    tag = run_dataset_tags
    is_context = and_(
        tag.c.run_id == run_datasets.c.run_id,
        tag.c.dataset_id == run_datasets.c.dataset_id,
        tag.c.key == rules.CONTEXT_TAG,
    )
    context = func.coalesce(tag.c.value, "").label("context")
    query = (
        select(datasets, context)
        .join(run_datasets, run_datasets.c.dataset_id == datasets.c.dataset_id)
        .join(runs, runs.c.run_id == run_datasets.c.run_id)
        .outerjoin(tag, is_context)
        .where(datasets.c.experiment_id.in_(experiment_ids))
        .where(runs.c.lifecycle_stage == LifecycleStage.ACTIVE)
        .order_by(datasets.c.experiment_id, datasets.c.name, datasets.c.digest, context)
        .distinct()
        .limit(limit)
    )
    return [
        (
            str(row.experiment_id),
            DatasetInput(_dataset(row), {rules.CONTEXT_TAG: row.context} if row.context else {}),
        )
        for row in connection.execute(query)
    ]


def model_inputs_of(
    connection: Connection, run_ids: Sequence[str]
) -> Mapping[str, tuple[str, ...]]:
    """The logged models that runs used, by run."""
    used: dict[str, list[str]] = defaultdict(list)
    query = select(run_model_inputs)
    for row in in_slices(connection, query, run_model_inputs.c.run_id, run_ids):
        used[row.run_id].append(row.model_id)
    return defaultdict(tuple, {run_id: tuple(sorted(ids)) for run_id, ids in used.items()})


def model_outputs_of(
    connection: Connection, run_ids: Sequence[str]
) -> Mapping[str, tuple[ModelOutput, ...]]:
    """The logged models that runs made, by run and in `rules.output_order`."""
    made: dict[str, list[ModelOutput]] = defaultdict(list)
    query = select(run_model_outputs)
    for row in in_slices(connection, query, run_model_outputs.c.run_id, run_ids):
        made[row.run_id].append(ModelOutput(row.model_id, row.step))
    ordered = {run_id: sorted(items, key=rules.output_order) for run_id, items in made.items()}
    return defaultdict(tuple, {run_id: tuple(items) for run_id, items in ordered.items()})


def _dataset(row: Row[Any]) -> Dataset:
    return Dataset(
        name=row.name,
        digest=row.digest,
        source_type=row.source_type,
        source=row.source,
        schema=row.schema,
        profile=row.profile,
    )


def _dataset_id(connection: Connection, experiment_id: int, dataset: Dataset) -> int:
    row = {
        "experiment_id": experiment_id,
        "name": dataset.name,
        "digest": dataset.digest,
        "source_type": dataset.source_type,
        "source": dataset.source,
        "schema": dataset.schema,
        "profile": dataset.profile,
    }
    add_rows(connection, datasets, [row])
    query = select(datasets.c.dataset_id).where(
        datasets.c.experiment_id == experiment_id,
        datasets.c.name == dataset.name,
        datasets.c.digest == dataset.digest,
    )
    return int(connection.scalars(query).one())
