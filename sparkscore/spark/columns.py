"""A model as a column of Spark: the Arrow UDF and the pandas UDF around the one worker code."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import pandas as pd
import pyarrow as pa
from pyspark.sql import functions as sf
from pyspark.sql.pandas.types import from_arrow_type

from sparkscore.scoring.casts import is_list
from sparkscore.scoring.comparison import Binding
from sparkscore.spark.source import quoted
from sparkscore.spark.worker import ScoringTask, score_batches

if TYPE_CHECKING:
    from pyspark.sql import Column
    from pyspark.sql._typing import UserDefinedFunctionLike
    from pyspark.sql.types import StructType

EXACT_INTEGERS_KEY = "spark.sql.execution.pythonUDF.pandas.preferIntExtensionDtype"
"""Without it Spark hands nullable integers to pandas as floats, which changes large values."""


def answer_column(task: ScoringTask, inputs: Sequence[tuple[str, Column]], engine: str) -> Column:
    """The struct column `task.answer_type` over columns of a DataFrame.

    Args:
        task: What each worker does.
        inputs: Name that the bindings read by, and the column that fills it.
        engine: `arrow` or `pandas`.
    """
    # A model without any input in the table still answers for each row.
    filled = list(inputs) or [("_", sf.lit(True))]
    struct = sf.struct(*(column.alias(name) for name, column in filled))
    if engine == "pandas":
        return _pandas_udf(task)(struct)
    return _arrow_udf(task)(struct)


def source_columns(bindings: Sequence[Binding]) -> list[tuple[str, Column]]:
    """What the bindings read, by name, from a DataFrame that has these columns."""
    names = [binding.source.name for binding in bindings if binding.source is not None]
    return [(name, sf.col(quoted(name))) for name in dict.fromkeys(names)]


def spark_type(arrow_type: pa.DataType) -> StructType:
    """The Spark type of an Arrow struct type."""
    data_type: StructType = from_arrow_type(arrow_type)  # type: ignore[assignment]  # a struct
    return data_type


def _arrow_udf(task: ScoringTask) -> UserDefinedFunctionLike:
    def score(columns: Iterator[pa.Array]) -> Iterator[pa.Array]:
        batches = (pa.RecordBatch.from_struct_array(column) for column in columns)
        yield from score_batches(task, batches)

    # Spark reads the kind of UDF off real types; the annotations of this module are strings.
    score.__annotations__ = {"columns": Iterator[pa.Array], "return": Iterator[pa.Array]}
    udf: UserDefinedFunctionLike = sf.arrow_udf(  # type: ignore[attr-defined]  # untyped there
        score, returnType=spark_type(task.answer_type)
    )
    return udf


def _pandas_udf(task: ScoringTask) -> UserDefinedFunctionLike:
    columns = {
        binding.source.name: (binding.source.type, binding.type)
        for binding in task.batch.bindings
        if binding.source is not None
    }

    def score(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        batches = (_as_batch(frame, columns) for frame in frames)
        for answer in score_batches(task, batches):
            yield pa.RecordBatch.from_struct_array(answer).to_pandas(types_mapper=pd.ArrowDtype)

    score.__annotations__ = {"frames": Iterator[pd.DataFrame], "return": Iterator[pd.DataFrame]}
    udf: UserDefinedFunctionLike = sf.pandas_udf(  # type: ignore[attr-defined]  # untyped there
        score, returnType=spark_type(task.answer_type)
    )
    return udf


def _as_batch(
    frame: pd.DataFrame, columns: Mapping[str, tuple[pa.DataType | None, pa.DataType]]
) -> pa.RecordBatch:
    """The columns of `frame` by name, of their own types where these are known."""
    if not columns:
        return pa.RecordBatch.from_pylist([{}] * len(frame), schema=pa.schema([]))
    arrays = {}
    for name, (known, wanted) in columns.items():
        values = frame[name]
        # Integers and lists keep their type, so that what is filled from them is checked.
        is_checked = pd.api.types.is_integer_dtype(values.dtype) or is_list(wanted)
        own = None if is_checked else wanted
        arrays[name] = pa.Array.from_pandas(values, type=known or own)
    return pa.RecordBatch.from_pydict(arrays)
