"""From Arrow batches to what models take: pandas frames and float matrices, value by value exact.

A column's dtype follows from the signature and never from the data: a batch that happens to hold
no null looks to the model like any other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from sparkscore.errors import (
    InvalidRowsError,
    SignatureMismatchError,
    UsageError,
    listed,
    shown,
)
from sparkscore.fused.levels import note_text
from sparkscore.package.datatypes import (
    AnyType,
    DataType,
    ScalarType,
    arrow_type,
    holds_any,
    type_from_arrow,
)
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.package.tensors import as_column_schema

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    from sparkscore.package.signature import Signature

NUMBERS = (
    ScalarType.BOOLEAN,
    ScalarType.INTEGER,
    ScalarType.LONG,
    ScalarType.FLOAT,
    ScalarType.DOUBLE,
)
"""Types of columns that a matrix has a place for."""

_INTEGERS = (ScalarType.INTEGER, ScalarType.LONG)


def column_inputs(signature: Signature) -> ColumnSchema:
    """The signature's input columns; of tensors, those that stand for them in a batch.

    Raises:
        SignatureMismatchError: A tensor is of a type that no column has.
    """
    return as_column_schema(signature.inputs)


def is_float_matrix(schema: ColumnSchema) -> bool:
    """Whether every column is a double, so that `float_matrix` can stand for the frame."""
    return all(column.type == ScalarType.DOUBLE for column in schema.columns)


def float_matrix(batch: pa.RecordBatch) -> np.ndarray:
    """The doubles of `batch` as one column-major float64 array; null becomes NaN."""
    import numpy as np

    matrix = np.empty((batch.num_rows, batch.num_columns), dtype=np.float64, order="F")
    for i, column in enumerate(batch.columns):
        matrix[:, i] = column.to_numpy(zero_copy_only=False)
    return matrix


def float32_matrix(batch: pa.RecordBatch, schema: ColumnSchema) -> np.ndarray:
    """`batch` as one column-major float32 array, each value the nearest float32; null is NaN.

    Args:
        batch: The schema's columns in its order: numbers and booleans.
        schema: Their types.

    Raises:
        SignatureMismatchError: A required integer or boolean column holds a null.
    """
    import numpy as np
    import pyarrow as pa

    matrix = np.empty((batch.num_rows, batch.num_columns), dtype=np.float32, order="F")
    for i, (column, spec) in enumerate(zip(batch.columns, schema.columns, strict=True)):
        if spec.type in (*_INTEGERS, ScalarType.BOOLEAN):
            check_required(column, spec)
        matrix[:, i] = column.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    return matrix


def numeric_matrix(
    batch: pa.RecordBatch, schema: ColumnSchema, categories: Mapping[int, Sequence[str]]
) -> np.ndarray:
    """`batch` as one column-major float64 array; null, and text of no category, becomes NaN.

    Args:
        batch: The schema's columns in its order: numbers, booleans, and text with categories.
        schema: Their types.
        categories: For each text column, by its index, its categories in the order of their
            numbers.

    Raises:
        SignatureMismatchError: A required integer or boolean column holds a null.
    """
    import numpy as np
    import pyarrow as pa

    matrix = np.empty((batch.num_rows, batch.num_columns), dtype=np.float64, order="F")
    for i, (column, spec) in enumerate(zip(batch.columns, schema.columns, strict=True)):
        values = column
        if i in categories:
            values = note_text(batch, i, categories[i])
        elif spec.type in (*_INTEGERS, ScalarType.BOOLEAN):
            check_required(column, spec)
        # Not safe: a long above 2**53 becomes the nearest double, as in NumPy.
        matrix[:, i] = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
    return matrix


def pandas_frame(batch: pa.RecordBatch, schema: ColumnSchema) -> pd.DataFrame:
    """`batch` as a new, writable frame with the dtypes that `schema` calls for.

    | column | required | optional |
    |---|---|---|
    | integer, long | int32, int64 | Int32, Int64 |
    | boolean | bool | boolean |
    | float, double | float32, float64, null is NaN | the same |
    | datetime | datetime64[us], null is NaT | the same |
    | string, binary, nested | object, null is None | the same |
    | any | as an optional column of its own type, else object | the same |

    Args:
        batch: The schema's columns in its order and with its Arrow types.
        schema: Columns without names become columns 0, 1, ...

    Raises:
        SignatureMismatchError: A required integer or boolean column holds a null.
    """
    import pandas as pd

    series = {i: _column(batch.column(i), spec) for i, spec in enumerate(schema.columns)}
    frame = pd.DataFrame(series, index=pd.RangeIndex(batch.num_rows))
    if schema.columns and schema.columns[0].name is not None:
        frame.columns = pd.Index(schema.names)
    return frame


def text_as_categories(frame: pd.DataFrame) -> pd.DataFrame:
    """`frame` with its text as categories, which boosters map to those that they were fitted on."""
    text = list(frame.select_dtypes(object).columns)
    return frame.astype(dict.fromkeys(text, "category"))


def text_categories(
    schema: ColumnSchema, pandas_categorical: list[list[object]] | None
) -> dict[int, Sequence[str]] | None:
    """For each text column, by its index, the categories that a booster was fitted on.

    None: its categories are those of other columns, or of other types.
    """
    lists = pandas_categorical or []
    texts = [i for i, column in enumerate(schema.columns) if column.type == ScalarType.STRING]
    if len(lists) != len(texts) or not all(
        isinstance(name, str) for names in lists for name in names
    ):
        return None
    return {i: [str(name) for name in names] for i, names in zip(texts, lists, strict=True)}


def record_batch(frame: pd.DataFrame, schema: ColumnSchema) -> pa.RecordBatch:
    """The schema's columns of `frame` as a batch, the way back from `pandas_frame`.

    Raises:
        UsageError: A column is missing, or holds what its type cannot.
    """
    import pyarrow as pa

    missing = [name for name in schema.names if name not in map(str, frame.columns)]
    if missing:
        raise UsageError(f"the input example lacks the columns {listed(missing)}")
    by_name = {str(name): frame.iloc[:, i] for i, name in enumerate(frame.columns)}
    types = [None if holds_any(c.type) else arrow_type(c.type) for c in schema.columns]
    try:
        arrays = [
            pa.array(by_name[name], type=kind, from_pandas=True)
            for name, kind in zip(schema.names, types, strict=True)
        ]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise UsageError(f"the input example does not fit the signature: {exc}") from exc
    fields = [
        pa.field(name, array.type, nullable=not column.required)
        for name, array, column in zip(schema.names, arrays, schema.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=pa.schema(fields))


def _column(values: pa.Array, spec: ColumnSpec) -> object:
    kind = _own_type(values) if isinstance(spec.type, AnyType) else spec.type
    if kind in (*_INTEGERS, ScalarType.BOOLEAN):
        return _whole(values, spec if kind is spec.type else ColumnSpec(spec.name, kind, False))
    if kind in (ScalarType.FLOAT, ScalarType.DOUBLE, ScalarType.STRING, ScalarType.BINARY):
        # to_numpy makes null NaN for floats and None for objects, without rounding anything.
        return values.to_numpy(zero_copy_only=False)
    if kind is ScalarType.DATETIME:
        return values.cast("timestamp[us]").to_numpy(zero_copy_only=False)
    return _objects(values, spec.name)


def _own_type(values: pa.Array) -> DataType:
    """The type that a signature would have for a column; `any` where there is none."""
    try:
        return type_from_arrow(values.type, "")
    except SignatureMismatchError:
        return AnyType()


def _whole(values: pa.Array, spec: ColumnSpec) -> object:
    """Integers or booleans: plain if required, else under a mask, never by way of a float."""
    import pandas as pd
    import pyarrow.compute as pc

    check_required(values, spec)
    if spec.required:
        return values.to_numpy(zero_copy_only=False)
    mask = values.is_null().to_numpy(zero_copy_only=False)
    is_boolean = spec.type is ScalarType.BOOLEAN
    plain = pc.fill_null(values, False if is_boolean else 0).to_numpy(zero_copy_only=False)
    array = pd.arrays.BooleanArray if is_boolean else pd.arrays.IntegerArray
    # to_numpy may hand out Arrow's own read-only memory; the model gets its own.
    return array(plain, mask, copy=True)


def check_required(values: pa.Array, spec: ColumnSpec) -> None:
    """Refuse nulls in a column that is required.

    Raises:
        SignatureMismatchError: It holds one.
    """
    if spec.required and values.null_count:
        raise SignatureMismatchError(
            f"column {spec.name!r} is required ({spec.type}), but {values.null_count} of "
            f"{len(values)} values are null; fill them, or declare the column optional"
        )


def _objects(values: pa.Array, name: str | None) -> np.ndarray:
    """Nested values as Python lists and dicts, one a row."""
    import numpy as np

    objects = np.empty(len(values), dtype=object)
    try:
        objects[:] = values.to_pylist(maps_as_pydicts="strict")
    except KeyError as exc:
        row = next(i for i, value in enumerate(values) if _has_doubled_key(value))
        raise InvalidRowsError(
            f"column {name!r} holds a map with a key that stands twice, in row {row} of a batch of "
            f"{len(values)}: {shown(str(values[row]))}; leave one of them in a view"
        ) from exc
    return objects


def _has_doubled_key(value: pa.Scalar) -> bool:
    try:
        value.as_py(maps_as_pydicts="strict")
    except KeyError:
        return True
    return False
