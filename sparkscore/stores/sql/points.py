"""Metric points of runs and of logged models in SQL tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, Row, select, tuple_

from sparkscore.records import Metric
from sparkscore.stores import rules
from sparkscore.stores.rules import PointKey
from sparkscore.stores.sql.statements import add_rows, in_slices, put_latest_points
from sparkscore.stores.sql.tables import (
    latest_metrics,
    logged_model_metrics,
    logged_models,
    metric_points,
)


def insert_points(connection: Connection, run_id: str, points: Sequence[Metric]) -> None:
    """Add points to a run, and to the logged models that they name.

    Raises:
        RecordNotFoundError: There is no such logged model.
    """
    if not points:
        return
    of_models = [point for point in points if point.model_id]
    _check_models(connection, {point.model_id for point in of_models})
    rows = [{"run_id": run_id, "model_id": it.model_id, **point_columns(it)} for it in points]
    add_rows(connection, metric_points, rows)
    latest = rules.latest_points(points).values()
    rows = [{"run_id": run_id, "model_id": it.model_id, **point_columns(it)} for it in latest]
    put_latest_points(connection, rows)
    if of_models:
        rows = [{"model_id": it.model_id, **point_columns(it)} for it in of_models]
        add_rows(connection, logged_model_metrics, rows)


def latest_of(connection: Connection, run_ids: Sequence[str]) -> Mapping[str, Mapping[str, Metric]]:
    """The latest point of each key, by run."""
    latest: dict[str, dict[str, Metric]] = defaultdict(dict)
    query = select(latest_metrics)
    for row in in_slices(connection, query, latest_metrics.c.run_id, run_ids):
        latest[row.run_id][row.key] = _metric(row, row.model_id)
    return latest


def history_of(
    connection: Connection,
    run_id: str,
    key: str,
    *,
    after: PointKey | None = None,
    limit: int | None = None,
) -> Sequence[Metric]:
    """Points of a run's metric in order, at most `limit`, from the one behind `after`."""
    it = metric_points.c
    order = (it.step, it.timestamp_ms, it.is_nan.desc(), it.value, it.dataset_name)
    query = select(metric_points).where(it.run_id == run_id, it.key == key)
    query = query.order_by(*order, it.dataset_digest).limit(limit)
    if after is not None:
        step, timestamp_ms, is_number, value, name, digest = after
        # NaN comes before every number, so its mark is compared the other way round.
        behind = tuple_(it.step, it.timestamp_ms) > tuple_(step, timestamp_ms)
        same_time = (it.step == step) & (it.timestamp_ms == timestamp_ms)
        if is_number:
            rest = tuple_(it.value, it.dataset_name, it.dataset_digest)
            behind |= same_time & ~it.is_nan & (rest > tuple_(value, name, digest))
        else:
            rest = tuple_(it.dataset_name, it.dataset_digest)
            behind |= same_time & (~it.is_nan | (rest > tuple_(name, digest)))
        query = query.where(it.step >= step, behind)
    return [_metric(row, row.model_id) for row in connection.execute(query)]


def points_of_models(
    connection: Connection, model_ids: Sequence[str]
) -> Mapping[str, Sequence[Metric]]:
    """All points of logged models, in `rules.model_point_order`."""
    points: dict[str, list[Metric]] = defaultdict(list)
    query = select(logged_model_metrics)
    for row in in_slices(connection, query, logged_model_metrics.c.model_id, model_ids):
        points[row.model_id].append(_metric(row, row.model_id))
    for of_model in points.values():
        of_model.sort(key=rules.model_point_order)
    return points


def point_columns(point: Metric) -> dict[str, object]:
    """The columns of a point in any table of points, but for who it is of."""
    step, timestamp_ms, is_number, value, name, digest = rules.point_key(point)
    return {
        "key": point.key,
        "step": step,
        "timestamp_ms": timestamp_ms,
        "is_nan": not is_number,
        "value": value,
        "dataset_name": name,
        "dataset_digest": digest,
    }


def _check_models(connection: Connection, model_ids: set[str]) -> None:
    query = select(logged_models.c.model_id)
    rows = in_slices(connection, query, logged_models.c.model_id, sorted(model_ids))
    for unknown in sorted(model_ids - {row.model_id for row in rows}):
        raise rules.no_logged_model(unknown)


def _metric(row: Row[Any], model_id: str) -> Metric:
    return Metric(
        key=row.key,
        value=float("nan") if row.is_nan else float(row.value),
        timestamp_ms=row.timestamp_ms,
        step=row.step,
        model_id=model_id,
        dataset_name=row.dataset_name,
        dataset_digest=row.dataset_digest,
    )
