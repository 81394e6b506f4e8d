"""Rows that the steps of a pipeline find hard, to compare what was fused with the pipeline."""

from __future__ import annotations

from collections.abc import Iterable
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from sparkscore.fused.sources import Codes, NumberCodes, TextCodes
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.signature import arrow_schema

if TYPE_CHECKING:
    from sparkscore.package.schema import ColumnSchema, ColumnSpec

N_PROBES = 512
_SHARE_OF_MISSING = 0.1
_SPECIAL = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-300, -1e-35, 1e15, -1e9, 2.0**53 + 2)
_WHOLE = (0, 1, -1, 2, 7, 2**31 - 1)
_LONG = (*_WHOLE, 2**53 + 1)


class Hardness(IntEnum):
    """What rows hold; not every model takes all of it."""

    KNOWN_VALUES = 0
    """No missing value, and no category that an encoder does not know."""
    UNKNOWN_CATEGORIES = 1
    """Those too, and missing text."""
    MISSING_NUMBERS = 2
    """All of it."""


def probe_rows(
    schema: ColumnSchema, sources: Iterable[object], hardness: Hardness
) -> pa.RecordBatch:
    """N_PROBES rows: categories, unknown ones, numbers of all sizes, and missing values.

    The same rows for the same arguments. Values that an encoder would raise for are left out.

    Args:
        schema: The columns.
        sources: What a `matrix.Filling` reads.
        hardness: What they hold.
    """
    rng = np.random.default_rng(0)
    by_column: dict[int, list[Codes]] = {}
    for source in sources:
        if isinstance(source, TextCodes):
            by_column.setdefault(source.index, []).append(source)
        elif isinstance(source, NumberCodes):
            by_column.setdefault(source.column.source.index, []).append(source)
    arrow = arrow_schema(schema)
    arrays = []
    for i, (field, spec) in enumerate(zip(arrow, schema.columns, strict=True)):
        pool = _pool(spec, by_column.get(i, []), rng, hardness)
        places = rng.integers(0, len(pool), N_PROBES)
        arrays.append(pa.array([pool[place] for place in places], field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=arrow)


def _pool(
    spec: ColumnSpec, encoders: list[Codes], rng: np.random.Generator, hardness: Hardness
) -> list[Any]:
    is_text = spec.type is ScalarType.STRING
    known = [encoder.values for encoder in encoders]
    pool = [value for value in dict.fromkeys(sum(known, ())) if _is_taken(value, encoders)]
    is_plain = bool(encoders) and hardness is Hardness.KNOWN_VALUES
    if not (is_plain or any(encoder.refuses_other for encoder in encoders)):
        pool += ["", "?", "no category"] if is_text else _numbers(spec, rng)
    is_float = spec.type in {ScalarType.FLOAT, ScalarType.DOUBLE}
    may_be_missing = (is_text and hardness >= Hardness.UNKNOWN_CATEGORIES) or (
        hardness is Hardness.MISSING_NUMBERS and (is_float or not spec.required)
    )
    if may_be_missing and not any(encoder.refuses_missing for encoder in encoders):
        pool += [None] * max(1, round(_SHARE_OF_MISSING * len(pool)))
    return pool


def _is_taken(value: object, encoders: list[Codes]) -> bool:
    return all(value in encoder.values or not encoder.refuses_other for encoder in encoders)


def _numbers(spec: ColumnSpec, rng: np.random.Generator) -> list[Any]:
    if spec.type is ScalarType.BOOLEAN:
        return [False, True]
    if spec.type is ScalarType.INTEGER:
        return [*_WHOLE, *rng.integers(-1000, 1000, 60).tolist()]
    if spec.type is ScalarType.LONG:
        return [*_LONG, *rng.integers(-(10**6), 10**6, 60).tolist()]
    scales = 10.0 ** rng.integers(-4, 7, 120)
    drawn = [*_SPECIAL, *(rng.normal(size=120) * scales).tolist()]
    single = spec.type is ScalarType.FLOAT
    return np.array(drawn, np.float32).tolist() if single else drawn
