"""Arrow's types and rows as PostgreSQL knows them."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable

import pyarrow as pa
from pyarrow import csv

from sparkscore.errors import ConfigError

_BYTES_OF_INTEGERS = {16: "smallint", 32: "integer", 64: "bigint"}
_KINDS: tuple[tuple[Callable[[pa.DataType], bool], str], ...] = (
    (pa.types.is_boolean, "boolean"),
    (pa.types.is_float32, "real"),
    (pa.types.is_float64, "double precision"),
    (pa.types.is_string, "text"),
    (pa.types.is_binary, "bytea"),
    (pa.types.is_date, "date"),
    (pa.types.is_nested, "jsonb"),
)


def column_type(kind: pa.DataType) -> str:
    """What PostgreSQL calls a type of a score table, as its catalogue writes it.

    Raises:
        ConfigError: It has none.
    """
    if pa.types.is_integer(kind):
        return _BYTES_OF_INTEGERS[max(16, kind.bit_width)]
    if pa.types.is_decimal(kind):
        return f"numeric({kind.precision},{kind.scale})"
    if pa.types.is_timestamp(kind):
        return f"timestamp with{'' if kind.tz else 'out'} time zone"
    known = next((name for is_kind, name in _KINDS if is_kind(kind)), None)
    if known is None:
        raise ConfigError(f"PostgreSQL has no type for {kind}; leave columns of it out of --keep")
    return known


def copy_text(rows: pa.RecordBatch) -> memoryview:
    """Rows as `COPY ... (FORMAT csv)` takes them: null is nothing, and an empty text is quoted."""
    columns = {f.name: _plain(rows.column(i)) for i, f in enumerate(rows.schema)}
    sink = io.BytesIO()
    options = csv.WriteOptions(include_header=False, quoting_style="all_valid")
    csv.write_csv(pa.table(columns), sink, options)
    return sink.getbuffer()


def _plain(column: pa.Array) -> pa.Array:
    """A column of what Arrow writes as text by itself."""
    if pa.types.is_binary(column.type):
        texts = (None if value is None else f"\\x{value.hex()}" for value in column.to_pylist())
        return pa.array(texts, pa.string())
    if pa.types.is_nested(column.type):
        return pa.array(map(_json, column.to_pylist(maps_as_pydicts="strict")), pa.string())
    return column


def _json(value: object) -> str | None:
    return None if value is None else json.dumps(_finite(value), default=str)


def _finite(value: object) -> object:
    """A value without numbers that JSON lacks: they are texts, as Spark writes them too."""
    if isinstance(value, dict):
        return {str(name): _finite(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value
