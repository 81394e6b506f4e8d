"""Statistics of a data file, as the Delta log keeps them for data skipping."""

from __future__ import annotations

import datetime as dt
import json
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

_MAX_TEXT = 32
"""Characters of a text's bound; longer ones are cut, the upper one upwards."""
_LAST_CHARACTER = "\U0010ffff"


@dataclass
class FileStatistics:
    """Rows, nulls and bounds of the batches that went into one file.

    Bounds are kept for integers, floats without NaN, texts, dates and timestamps; nulls for all
    columns but structs, whose fields Delta counts one by one. What is left out is unknown to a
    reader, which then reads the file.
    """

    n_rows: int = 0
    _nulls: dict[str, int] = field(default_factory=dict)
    _lows: dict[str, Any] = field(default_factory=dict)
    _highs: dict[str, Any] = field(default_factory=dict)
    _unbounded: set[str] = field(default_factory=set)

    def add(self, batch: pa.RecordBatch) -> None:
        """Count a batch."""
        self.n_rows += batch.num_rows
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if not pa.types.is_struct(column.type):
                self._nulls[name] = self._nulls.get(name, 0) + column.null_count
            values = column.dictionary if pa.types.is_dictionary(column.type) else column
            if name not in self._unbounded and values.null_count < len(values):
                self._extend(name, values)

    def to_json(self) -> str:
        """The text that stands in the log."""
        lows = {name: _low(value) for name, value in self._lows.items()}
        highs = {name: _high(value) for name, value in self._highs.items()}
        facts = {
            "numRecords": self.n_rows,
            "minValues": lows,
            "maxValues": highs,
            "nullCount": self._nulls,
        }
        return json.dumps(facts, allow_nan=False)

    def _extend(self, name: str, column: pa.Array) -> None:
        bounds = _bounds(column)
        if bounds is None:
            self._unbounded.add(name)
            self._lows.pop(name, None)
            self._highs.pop(name, None)
            return
        low, high = bounds
        self._lows[name] = min(self._lows.get(name, low), low)
        self._highs[name] = max(self._highs.get(name, high), high)


def _bounds(column: pa.Array) -> tuple[Any, Any] | None:
    """The least and the greatest value; None where there is no order, or Python lacks the value."""
    if not _has_bounds(column):
        return None
    found = pc.min_max(column)
    try:
        return found["min"].as_py(), found["max"].as_py()
    except (OverflowError, ValueError):
        return None  # A date outside of the years 1 to 9999.


def _has_bounds(column: pa.Array) -> bool:
    types = pa.types
    if types.is_floating(column.type):
        return bool(pc.all(pc.is_finite(column)).as_py())
    return bool(
        types.is_integer(column.type)
        or types.is_string(column.type)
        or types.is_date(column.type)
        or types.is_timestamp(column.type)
    )


def _low(value: object) -> object:
    if isinstance(value, str):
        return value[:_MAX_TEXT]
    if isinstance(value, dt.datetime):
        return _written(value.replace(microsecond=value.microsecond // 1000 * 1000))
    return value.isoformat() if isinstance(value, dt.date) else value


def _high(value: object) -> object:
    if isinstance(value, str) and len(value) > _MAX_TEXT:
        return value[:_MAX_TEXT] + _LAST_CHARACTER
    if isinstance(value, dt.datetime):
        # Down, as Delta writes it: its readers add the millisecond that this may lack.
        return _low(value)
    return value.isoformat() if isinstance(value, dt.date) else value


def _written(value: dt.datetime) -> str:
    zone = "Z" if value.tzinfo is not None else ""
    text = value.replace(tzinfo=None).isoformat(timespec="milliseconds")
    return text + zone
