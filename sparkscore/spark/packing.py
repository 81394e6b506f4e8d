"""Rows that cross to Python and back as whole batches, a model's doubles packed into one array.

Each cell that Spark turns into Arrow costs time of its own; the values of one array column cross in
one piece, and are a matrix in Python without being touched. Spark's UDFs would also queue every
row until its prediction comes back; `mapInArrow` does not, and so the columns that stand in the
score table cross as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyspark.sql import functions as sf
from pyspark.sql.types import (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegralType,
    StringType,
    TimestampNTZType,
    TimestampType,
)

from sparkscore.scoring.casts import Cast
from sparkscore.scoring.comparison import Binding
from sparkscore.spark.columns import spark_type
from sparkscore.spark.source import quoted
from sparkscore.spark.worker import ScoringTask, score_batches

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

MIN_PACKED_COLUMNS = 4
"""Below this there is little to gain."""

_PACKED = "packed"
_CROSSING = (
    BinaryType,
    BooleanType,
    DateType,
    DecimalType,
    DoubleType,
    FloatType,
    IntegralType,
    StringType,
    TimestampNTZType,
    TimestampType,
)
"""Types whose values come back from Arrow as they went."""


@dataclass(frozen=True)
class Packing:
    """Which columns of a source cross to Python, and how.

    Attributes:
        packed: Columns that the model reads as doubles, as one array.
        single: What else the model reads.
    """

    packed: tuple[str, ...]
    single: tuple[str, ...]


def packing_of(bindings: Sequence[Binding]) -> Packing | None:
    """How a model's columns cross best; None where packing them would change or gain nothing.

    Only what becomes a double without a check is packed. Null becomes NaN, which is what every
    model sees of a double that is missing.
    """
    read: dict[str, list[Binding]] = {}
    for binding in bindings:
        if binding.source is not None:
            read.setdefault(binding.source.name, []).append(binding)
    packed = tuple(name for name, bound in read.items() if all(map(_is_plain_double, bound)))
    if len(packed) < MIN_PACKED_COLUMNS:
        return None
    return Packing(packed, tuple(name for name in read if name not in packed))


def crossing_of(
    bindings: Sequence[Binding], frame: DataFrame, carried: Sequence[str]
) -> tuple[Packing | None, str]:
    """How a job's columns cross to Python (None: as a UDF's, one by one), and why in one line.

    Args:
        bindings: How the model's columns are filled.
        frame: The source.
        carried: Its columns that stand in the score table, and would have to cross as well.
    """
    packing = packing_of(bindings)
    if packing is None:
        return None, way_of(packing)
    for name in carried:
        data_type = frame.schema[name].dataType
        if not isinstance(data_type, _CROSSING) or is_collated(data_type):
            kept = f"column {name!r} is kept and is {data_type.simpleString()}"
            return None, f"one by one: {kept}, which might not come back as it is"
    return packing, way_of(packing)


def way_of(packing: Packing | None) -> str:
    """How a model's columns cross to Python, in one line."""
    if packing is None:
        return f"one by one: fewer than {MIN_PACKED_COLUMNS} columns are doubles"
    singles = f", {len(packing.single)} columns beside it" if packing.single else ""
    return f"packed: {len(packing.packed)} doubles in one array{singles}"


def packed_expression(packing: Packing) -> str:
    """The packed columns of a DataFrame as one array of doubles, in SQL; null becomes NaN.

    As text, since each function that is called from Python is a dozen calls to the JVM.
    """
    doubles = (
        f"coalesce(CAST({quoted(name)} AS DOUBLE), DOUBLE('NaN'))" for name in packing.packed
    )
    return f"array({', '.join(doubles)}) AS {_PACKED}"


def with_answers(
    frame: DataFrame, task: ScoringTask, packing: Packing, carried: Sequence[str], prefix: str
) -> DataFrame:
    """The columns `carried` of `frame`, and then the fields of `task.answer_type`.

    Args:
        frame: Has the columns of `packing` and `carried`.
        task: What each worker does.
        packing: How the model's columns cross.
        carried: Columns of types that come back from Python as they are.
        prefix: Put before the names of the answer's fields, which the carried ones may have too.
    """
    # By number, since two columns may differ in case only, and a name may hold anything.
    kept = [sf.col(quoted(name)).alias(f"c{i}") for i, name in enumerate(carried)]
    single = [sf.col(quoted(name)).alias(f"s{i}") for i, name in enumerate(packing.single)]
    crossing = frame.select(*kept, *single, sf.expr(packed_expression(packing)))
    schema = crossing.select(*(f"c{i}" for i in range(len(kept)))).schema
    for field in spark_type(task.answer_type).fields:
        schema = schema.add(prefix + field.name, field.dataType)
    answered = crossing.mapInArrow(_mapper(task, packing, len(kept), prefix), schema)
    names = dict(zip((f"c{i}" for i in range(len(kept))), carried, strict=True))
    return answered.withColumnsRenamed(names)


def _mapper(
    task: ScoringTask, packing: Packing, n_kept: int, prefix: str
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    def score(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        kept: list[pa.RecordBatch] = []

        def inputs() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                kept.append(batch.select(range(n_kept)))
                yield unpacked(batch.select(range(n_kept, batch.num_columns)), packing)

        for answer in score_batches(task, inputs()):
            columns = kept.pop()
            yield pa.RecordBatch.from_arrays(
                [*columns.columns, *answer.flatten()],
                names=[*columns.schema.names, *(prefix + field.name for field in answer.type)],
            )

    return score


def unpacked(batch: pa.RecordBatch, packing: Packing) -> pa.RecordBatch:
    """A batch of single columns and, last, the array, as a batch of columns by their names."""
    *single, arrays = batch.columns
    n_columns = len(packing.packed)
    rows = arrays.flatten().to_numpy(zero_copy_only=False).reshape(batch.num_rows, n_columns)
    columns = np.ascontiguousarray(rows.T)  # One pass, instead of a strided one for each column.
    return pa.RecordBatch.from_arrays(
        [*single, *(pa.array(column) for column in columns)],
        names=[*packing.single, *packing.packed],
    )


def _is_plain_double(binding: Binding) -> bool:
    assert binding.source is not None
    return (
        pa.types.is_float64(binding.type)
        and binding.source.type is not None
        and not pa.types.is_null(binding.source.type)
        and binding.cast in (Cast.EXACT, Cast.WIDENED)
        and not binding.needs_value
    )


def is_collated(data_type: object) -> bool:
    """Whether a type is a text that Spark compares in another way than by its bytes."""
    return isinstance(data_type, StringType) and data_type.simpleString() != "string"
