"""Searches over records in memory: what every other store's search has to equal."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from functools import cache, cmp_to_key, partial
from typing import TypeVar

from sparkscore.records import Experiment, LoggedModel, Metric, ModelVersion, RegisteredModel, Run
from sparkscore.search import (
    All,
    Any,
    Comparison,
    Condition,
    FieldKind,
    Not,
    Operator,
    Order,
    Page,
    Query,
    Searchable,
)
from sparkscore.stores import rules
from sparkscore.stores.search_pages import (
    Rank,
    Scalar,
    SortKey,
    check_limit,
    last_seen,
    token_of,
    whole_order,
)

Record = TypeVar("Record")
Values = Sequence[Scalar]

# Attributes that records call by another name than searches do.
_NAMED_OTHERWISE = {
    "artifact_location": "artifact_uri",
    "creation_time": "creation_time_ms",
    "creation_timestamp": "creation_time_ms",
    "end_time": "end_time_ms",
    "last_update_time": "last_update_time_ms",
    "last_updated_timestamp": "last_update_time_ms",
    "source_path": "source",
    "start_time": "start_time_ms",
    "version_number": "version",
}


def page_of(
    records: Iterable[Record],
    query: Query,
    searchable: Searchable,
    values: Callable[[Record, Order], Values],
    scope: object = None,
) -> Page[Record]:
    """The page of a search.

    Args:
        records: Those in question, in any order.
        query: What to look for; its view is the caller's.
        searchable: What the records are.
        values: What a record has of a field; several where it may be any of them, the last one
            being what it is ordered by.
        scope: What decided which records are in question.

    Raises:
        UsageError: The token is of another query, or of none.
    """
    check_limit(query)
    after = last_seen(searchable, query, scope)
    order = whole_order(searchable, query.order)
    ascending = [item.ascending for item in order]
    found = [
        (tuple(_sort_key(values(record, item), item, searchable) for item in order), record)
        for record in records
        if query.where is None or _fits(query.where, record, values)
    ]
    by_keys = cmp_to_key(partial(_compared, ascending=ascending))
    found.sort(key=lambda item: by_keys(item[0]))
    if after is not None:
        found = [item for item in found if _compared(item[0], after, ascending) > 0]
    items = tuple(record for _, record in found[: query.limit])
    if len(found) <= query.limit:
        return Page(items)
    last, _ = found[query.limit - 1]
    return Page(items, token_of(searchable, query, scope, last))


def plain_values(record: Experiment | RegisteredModel | ModelVersion, order: Order) -> Values:
    """What a record that has attributes and tags has of a field."""
    if order.field.kind is FieldKind.TAG:
        return _one(record.tags.get(order.field.key))
    return _attribute(record, order.field.key)


def run_values(run: Run, order: Order) -> Values:
    """What a run has of a field."""
    field = order.field
    if field.kind is FieldKind.METRIC:
        metric = run.metrics.get(field.key)
        return () if metric is None else (metric.value,)
    if field.kind is FieldKind.DATASET:
        if field.key == "context":
            tags = [it.tags.get(rules.CONTEXT_TAG) for it in run.datasets]
            return [tag for tag in tags if tag is not None]
        return [str(getattr(it.dataset, field.key)) for it in run.datasets]
    return _of_pairs(run, order)


def logged_model_values(
    datasets: Sequence[tuple[str, str]],
) -> Callable[[LoggedModel, Order], Values]:
    """What a logged model has of a field, its metrics being those of these datasets, if any."""

    def values(model: LoggedModel, order: Order) -> Values:
        if order.field.kind is not FieldKind.METRIC:
            return _of_pairs(model, order)
        wanted = datasets if order.dataset is None else (order.dataset,)
        points = (it for it in model.metrics if it.key == order.field.key)
        measured = [it for it in points if not wanted or any(_is_on(it, on) for on in wanted)]
        return [it.value for it in sorted(measured, key=rules.metric_order)]

    return values


def _of_pairs(record: Run | LoggedModel, order: Order) -> Values:
    if order.field.kind is FieldKind.PARAM:
        return _one(record.params.get(order.field.key))
    if order.field.kind is FieldKind.TAG:
        return _one(record.tags.get(order.field.key))
    return _attribute(record, order.field.key)


def _attribute(record: object, name: str) -> Values:
    value: Scalar | None = getattr(record, _NAMED_OTHERWISE.get(name, name))
    return _one(value)


def _one(value: Scalar | None) -> Values:
    return () if value is None else (value,)


def _is_on(metric: Metric, dataset: tuple[str, str]) -> bool:
    name, digest = dataset
    return metric.dataset_name == name and digest in ("", metric.dataset_digest)


def _fits(where: Condition, record: Record, values: Callable[[Record, Order], Values]) -> bool:
    if isinstance(where, All):
        return all(_fits(part, record, values) for part in where.parts)
    if isinstance(where, Any):
        return any(_fits(part, record, values) for part in where.parts)
    if isinstance(where, Not):
        return not _fits(where.part, record, values)
    found = values(record, Order(where.field))
    if where.operator is Operator.IS_NULL:
        return not found
    return any(_holds(value, where) for value in found)


def _holds(value: Scalar, where: Comparison) -> bool:
    asked = where.value
    if where.operator is Operator.IS_NOT_NULL:
        return True
    if isinstance(value, float) and math.isnan(value):
        # It is something else than any number, and in no order with them.
        return where.operator in (Operator.NOT_EQUAL, Operator.NOT_IN)
    if isinstance(asked, tuple):
        return (value in asked) is (where.operator is Operator.IN)
    if where.operator in (Operator.LIKE, Operator.ILIKE):
        pattern = _pattern(str(asked), ignore_case=where.operator is Operator.ILIKE)
        return pattern.fullmatch(str(value)) is not None
    sign = -1 if _before(value, asked) else int(_before(asked, value))
    return {
        Operator.EQUAL: sign == 0,
        Operator.NOT_EQUAL: sign != 0,
        Operator.LESS: sign < 0,
        Operator.LESS_EQUAL: sign <= 0,
        Operator.GREATER: sign > 0,
        Operator.GREATER_EQUAL: sign >= 0,
    }[where.operator]


@cache
def _pattern(text: str, *, ignore_case: bool) -> re.Pattern[str]:
    """A pattern of SQL's; of letters without case only those of ASCII, as in every database."""
    wild = {"%": ".*", "_": "."}
    parts = (wild.get(char, re.escape(char)) for char in text)
    flags = re.DOTALL | (re.IGNORECASE | re.ASCII if ignore_case else re.NOFLAG)
    return re.compile("".join(parts), flags)


def _sort_key(values: Values, order: Order, searchable: Searchable) -> SortKey:
    if not values:
        return SortKey(Rank.MISSING, None)
    value = values[-1]
    if order.field.kind is FieldKind.ATTRIBUTE and order.field.key in searchable.numbered:
        value = int(value)
    if isinstance(value, float) and math.isnan(value):
        return SortKey(Rank.NAN, None)
    return SortKey(Rank.VALUE, value)


def _compared(one: Sequence[SortKey], other: Sequence[SortKey], ascending: Sequence[bool]) -> int:
    for a, b, is_up in zip(one, other, ascending, strict=True):
        if a.rank is not b.rank:
            return a.rank - b.rank
        if a.value != b.value:
            return -1 if _before(a.value, b.value) is is_up else 1
    return 0


def _before(one: object, other: object) -> bool:
    if isinstance(one, str) and isinstance(other, str):
        return one < other
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    return one < other
