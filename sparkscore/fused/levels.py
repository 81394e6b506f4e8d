"""Values of categories that a model was not fitted on: noted where they are met, for the record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import shown

if TYPE_CHECKING:
    import numpy as np


class UnknownLevels(NamedTuple):
    """Rows of one column whose value is no category that the model knows.

    Attributes:
        n_rows: How many.
        first: The value of the first one, as it is shown.
    """

    n_rows: int
    first: str


_noted: ContextVar[dict[str, UnknownLevels] | None] = ContextVar("unknown_levels", default=None)


@contextmanager
def noting_levels() -> Iterator[Mapping[str, UnknownLevels]]:
    """What is noted within, by the name of the column of the batch."""
    found: dict[str, UnknownLevels] = {}
    token = _noted.set(found)
    try:
        yield found
    finally:
        _noted.reset(token)


def note_rows(batch: pa.RecordBatch, index: int, is_unknown: np.ndarray[Any, Any]) -> None:
    """Note the rows whose value of a column is unknown; of two encoders', those of the first.

    Args:
        batch: What the model is given.
        index: The column's place in it.
        is_unknown: (n_rows,) whether a row's value is unknown.
    """
    noted = _noted.get()
    n_rows = int(is_unknown.sum())
    if noted is None or not n_rows:
        return
    first = shown(batch.column(index)[int(is_unknown.argmax())].as_py())
    noted.setdefault(batch.schema.names[index], UnknownLevels(n_rows, first))


def note_text(batch: pa.RecordBatch, index: int, known: Sequence[str]) -> pa.Array:
    """The place among `known` of each value of a text column; the rows without one are noted.

    Args:
        batch: What the model is given.
        index: The column's place in it.
        known: The categories.

    Returns:
        n_rows places from 0 on; null where the value is unknown or missing.
    """
    column = batch.column(index)
    places = pc.index_in(column, value_set=pa.array(known, pa.string()))
    if places.null_count > column.null_count:
        unknown = pc.and_(pc.is_null(places), pc.is_valid(column))
        note_rows(batch, index, unknown.to_numpy(zero_copy_only=False))
    return places


def added(each: Iterable[Mapping[str, UnknownLevels]]) -> dict[str, UnknownLevels]:
    """What was noted of several batches; the first value is that of the first of them."""
    total: dict[str, UnknownLevels] = {}
    for noted in each:
        for name, (n_rows, first) in noted.items():
            before = total.get(name, UnknownLevels(0, first))
            total[name] = UnknownLevels(before.n_rows + n_rows, before.first)
    return total
