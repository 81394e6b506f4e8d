"""Pages of searches: in which order records come, and where a page ends, as a token.

A token holds the sort keys of the last record, not a count: what is added or removed between two
pages neither doubles nor hides another record, and page 20 costs what page 1 does.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from sparkscore.errors import UsageError, shown
from sparkscore.search import (
    EXPERIMENTS,
    LOGGED_MODELS,
    MODEL_VERSIONS,
    REGISTERED_MODELS,
    RUNS,
    Field,
    FieldKind,
    Order,
    Query,
    Searchable,
    ValueType,
)

_INT64 = range(-(2**63), 2**63)


class Rank(IntEnum):
    """What a record has of a sort key; whichever the direction, this is the order."""

    VALUE = 0
    NAN = 1
    MISSING = 2


Scalar = str | int | float


@dataclass(frozen=True)
class SortKey:
    """One sort key of one record; `value` is None where the rank is not VALUE."""

    rank: Rank
    value: Scalar | None


def _by(name: str, *, ascending: bool) -> Order:
    return Order(Field(FieldKind.ATTRIBUTE, name), ascending)


_DEFAULTS = {
    EXPERIMENTS.noun: (
        _by("creation_time", ascending=False),
        _by("experiment_id", ascending=False),
    ),
    RUNS.noun: (_by("start_time", ascending=False), _by("run_id", ascending=True)),
    REGISTERED_MODELS.noun: (_by("name", ascending=True),),
    MODEL_VERSIONS.noun: (
        _by("last_updated_timestamp", ascending=False),
        _by("name", ascending=True),
        _by("version_number", ascending=False),
    ),
    LOGGED_MODELS.noun: (
        _by("creation_timestamp", ascending=False),
        _by("model_id", ascending=True),
    ),
}


def whole_order(searchable: Searchable, order: Sequence[Order]) -> tuple[Order, ...]:
    """The order asked for, and then what tells all records apart."""
    asked = {item.field for item in order}
    return (*order, *(it for it in _DEFAULTS[searchable.noun] if it.field not in asked))


def check_limit(query: Query) -> None:
    """Refuse a page without records.

    Raises:
        UsageError: The limit is not positive.
    """
    if query.limit < 1:
        raise UsageError(f"a page has the limit {query.limit}: give 1 or more")


def token_of(searchable: Searchable, query: Query, scope: object, keys: Sequence[SortKey]) -> str:
    """The token of the page behind the record with these sort keys."""
    parts = [_digest(searchable, query, scope), [[int(it.rank), it.value] for it in keys]]
    return base64.urlsafe_b64encode(json.dumps(parts).encode()).decode("ascii")


def last_seen(searchable: Searchable, query: Query, scope: object) -> tuple[SortKey, ...] | None:
    """The sort keys of the record that the page before ended with; None on the first page.

    Args:
        searchable: What is searched.
        query: The search, with the token.
        scope: What else decides which records it finds.

    Raises:
        UsageError: The token is of another search, or of none.
    """
    if query.token is None:
        return None
    try:
        digest, raw = json.loads(base64.urlsafe_b64decode(query.token.encode("ascii")))
        keys = tuple(SortKey(Rank(rank), value) for rank, value in raw)
    except (ValueError, TypeError, RecursionError) as exc:
        raise _foreign(searchable, query.token) from exc
    order = whole_order(searchable, query.order)
    if digest != _digest(searchable, query, scope) or len(keys) != len(order):
        raise _foreign(searchable, query.token)
    for key, item in zip(keys, order, strict=True):
        if not _is_sound(key, is_text=not _is_number(searchable, item.field)):
            raise _foreign(searchable, query.token)
    return keys


def _is_number(searchable: Searchable, field: Field) -> bool:
    """Whether records are ordered by numbers of this field."""
    if field.kind is not FieldKind.ATTRIBUTE:
        return field.kind is FieldKind.METRIC
    is_number = searchable.attributes[field.key] is ValueType.NUMBER
    return is_number or field.key in searchable.numbered


def _is_sound(key: SortKey, *, is_text: bool) -> bool:
    if key.rank is not Rank.VALUE:
        return key.value is None
    if isinstance(key.value, str) is not is_text:
        return False
    if isinstance(key.value, int) and not isinstance(key.value, bool):
        return key.value in _INT64
    if isinstance(key.value, str):
        return "\0" not in key.value and not any("\ud800" <= c <= "\udfff" for c in key.value)
    return isinstance(key.value, float) and not math.isnan(key.value)


def _digest(searchable: Searchable, query: Query, scope: object) -> str:
    asked = repr((searchable.noun, query.where, query.order, query.view, scope))
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def _foreign(searchable: Searchable, token: str) -> UsageError:
    return UsageError(
        f"page token {shown(token)} is none of this search of {searchable.noun}: give the one that "
        "came with the page before it, or none for the first page"
    )
