"""What a model wants and gives, with the Arrow schemas that follow from it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from sparkscore.errors import SignatureMismatchError, UsageError, shown
from sparkscore.package.datatypes import (
    AnyType,
    ArrayType,
    DataType,
    MapType,
    ObjectType,
    Property,
    ScalarType,
    arrow_type,
    type_from_arrow,
)
from sparkscore.package.schema import (
    ColumnSchema,
    ColumnSpec,
    ParamSpec,
    Schema,
    TensorSchema,
    TensorSpec,
    dump_params,
    dump_schema,
    parse_params,
    parse_schema,
)
from sparkscore.package.tensors import tensor_columns

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "AnyType",
    "ArrayType",
    "ColumnSchema",
    "ColumnSpec",
    "DataType",
    "MapType",
    "ObjectType",
    "ParamSpec",
    "Property",
    "ScalarType",
    "Schema",
    "Signature",
    "TensorSchema",
    "TensorSpec",
    "arrow_schema",
    "arrow_type",
    "infer_signature",
]

_PREDICTION = "prediction"
_MAX_SPARK_ROWS = 1000


@runtime_checkable
class ToArrow(Protocol):
    """A Spark DataFrame, as far as a signature needs it."""

    def limit(self, num: int) -> ToArrow:
        """The first rows."""
        ...

    def toArrow(self) -> pa.Table:  # noqa: N802 - Spark's name
        """All rows, collected."""
        ...


@dataclass(frozen=True)
class Signature:
    """The contract of a model: what goes in, what comes out, what a call may set."""

    inputs: Schema
    outputs: Schema | None = None
    params: tuple[ParamSpec, ...] = ()

    @classmethod
    def from_json_parts(
        cls, inputs: str, outputs: str | None = None, params: str | None = None
    ) -> Signature:
        """A signature from the three JSON strings that MLmodel holds.

        Raises:
            PackageFormatError: A string is broken; names the part and the position.
        """
        return cls(
            parse_schema(inputs, "inputs"),
            None if outputs is None else parse_schema(outputs, "outputs"),
            () if params is None else parse_params(params),
        )

    def to_json_parts(self) -> dict[str, str | None]:
        """The JSON strings under `inputs`, `outputs` and `params`, exactly as MLflow has them."""
        return {
            "inputs": dump_schema(self.inputs),
            "outputs": None if self.outputs is None else dump_schema(self.outputs),
            "params": dump_params(self.params) if self.params else None,
        }


def arrow_schema(schema: ColumnSchema) -> pa.Schema:
    """The Arrow schema of batches for `schema`; a field is nullable where it is not required.

    Raises:
        SignatureMismatchError: A type has no Arrow twin.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field(name, arrow_type(column.type), nullable=not column.required)
            for name, column in zip(schema.names, schema.columns, strict=True)
        ]
    )


def infer_signature(
    data: pd.DataFrame
    | pa.Table
    | pa.RecordBatch
    | np.ndarray
    | Mapping[str, np.ndarray]
    | ToArrow,
    predictions: object = None,
    params: Mapping[str, object] | None = None,
) -> Signature:
    """The signature that `data` and the predictions for it show.

    Args:
        data: Inputs as the model was fitted on them. A column is required if it holds no null
            (NaN counts as null in pandas). Columns named by a RangeIndex have no name, and neither
            have those of an array of objects. Other arrays are tensors, of any number of rows; a
            mapping has one by each name. Of a Spark DataFrame, 1,000 rows are read.
        predictions: What the model answered: an array of one axis (one column `prediction`) or
            two (one column of lists), a Series, DataFrame, list, Arrow data, a Spark DataFrame, or
            a mapping of column to such arrays.
        params: Default of each param that a call may set.

    Raises:
        SignatureMismatchError: A column's type cannot be kept exactly, such as decimals.
        UsageError: The data is of another kind.
    """
    inputs = _tensors_of(data) or _schema_of(_as_frame(data), "column")
    if inputs is None:
        raise UsageError(
            "a signature is inferred from a pandas or Spark DataFrame, an Arrow table, a NumPy "
            f"array of one axis or more, or a mapping of names to such arrays, not from "
            f"{shown(data)}; take one of these, or pass a signature of your own"
        )
    outputs = None
    if predictions is not None:
        predictions = _collected(predictions)
        outputs = _schema_of(predictions, "prediction column")
        outputs = outputs or _prediction_column(predictions, _input_names(inputs))
    return Signature(inputs, outputs, tuple(_param(k, v) for k, v in (params or {}).items()))


def _tensors_of(data: object) -> TensorSchema | None:
    """The tensors that arrays are; None for other data."""
    import numpy as np

    named = data if isinstance(data, Mapping) else {None: data}
    arrays = {k: v for k, v in named.items() if isinstance(v, np.ndarray) and v.ndim}
    if not arrays or len(arrays) < len(named):
        return None
    if None in arrays and arrays[None].dtype == object:
        return None
    tensors = tuple(_tensor(None if k is None else str(k), v) for k, v in arrays.items())
    for tensor in tensors:
        tensor_columns(tensor)  # Refuses what no table could ever fill.
    return TensorSchema(tensors)


def _tensor(name: str | None, array: np.ndarray) -> TensorSpec:
    # A text's length in NumPy is that of the longest one, which says nothing.
    dtype = "str" if array.dtype.kind == "U" else array.dtype.name
    return TensorSpec(name, dtype, (-1, *array.shape[1:]))


def _input_names(inputs: Schema) -> Sequence[str]:
    if isinstance(inputs, ColumnSchema):
        return inputs.names
    return [tensor.name for tensor in inputs.tensors if tensor.name is not None]


def _as_frame(data: object) -> object:
    """Input data as columns: an array of objects is a table without names."""
    import numpy as np
    import pandas as pd

    if isinstance(data, np.ndarray) and data.ndim in (1, 2):
        return pd.DataFrame(data)
    return None if isinstance(data, Mapping) else _collected(data)


def _collected(data: object) -> object:
    """The first rows of a Spark DataFrame; other data as it is."""
    # By its methods, since only one room knows Spark.
    return data.limit(_MAX_SPARK_ROWS).toArrow() if isinstance(data, ToArrow) else data


def _schema_of(data: object, noun: str) -> ColumnSchema | None:
    columns = tuple(
        ColumnSpec(name, _type_of(values, f"{noun} {name!r}"), required=values.null_count == 0)
        for name, values in _named_arrays(data, noun)
    )
    return ColumnSchema(columns) if columns else None


def _named_arrays(data: object, noun: str) -> Iterator[tuple[str | None, pa.Array]]:
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.Table | pa.RecordBatch):
        yield from zip(data.column_names, data.columns, strict=True)
    elif isinstance(data, Mapping):
        for name, values in data.items():
            yield str(name), _array(values, f"{noun} {name!r}")
    elif isinstance(data, pd.DataFrame):
        unnamed = isinstance(data.columns, pd.RangeIndex)
        for i, name in enumerate(data.columns):
            if not unnamed and not isinstance(name, str):
                raise UsageError(f"{noun} {shown(name)} must be named by text; rename it")
            yield None if unnamed else name, _array(data.iloc[:, i], f"{noun} {name!r}")


def _prediction_column(predictions: object, input_names: Sequence[str]) -> ColumnSchema:
    if getattr(predictions, "shape", ())[1:] == (1,):
        # A matrix of one column is that column, as scoring takes it.
        predictions = predictions[:, 0]  # type: ignore[index]  # an array
    values = _array(predictions, "predictions")
    # A Series computed from one input column still has that column's name, which says nothing.
    name = getattr(predictions, "name", None)
    is_own = isinstance(name, str) and name != "" and name not in input_names
    column = ColumnSpec(
        str(name) if is_own else _PREDICTION,
        _type_of(values, "predictions"),
        required=values.null_count == 0,
    )
    return ColumnSchema((column,))


def _type_of(values: pa.Array | pa.ChunkedArray, where: str) -> DataType:
    """The type that values show; a part of objects is required if it is null in none of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        return ArrayType(_type_of(pc.list_flatten(values), where))
    if not pa.types.is_struct(values.type):
        return type_from_arrow(values.type, where)
    parts = values.filter(pc.is_valid(values)).flatten()
    return ObjectType(
        tuple(
            Property(field.name, _type_of(part, f"{where}.{field.name}"), part.null_count == 0)
            for field, part in zip(values.type, parts, strict=True)
        )
    )


def _array(values: object, where: str) -> pa.Array | pa.ChunkedArray:
    import numpy as np
    import pyarrow as pa

    if isinstance(values, pa.Array | pa.ChunkedArray):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        values = _rows(values)
    try:
        return pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise SignatureMismatchError(
            f"{where} holds values of mixed or unknown types ({exc}); make them one type, "
            "or pass a signature of your own"
        ) from exc


def _rows(array: np.ndarray) -> list[object]:
    """The rows of an array of two or more axes, as vectors or as lists of lists of them."""
    return [row if row.ndim == 1 else _rows(row) for row in array]


def _param(name: str, default: object) -> ParamSpec:
    sample = default[0] if isinstance(default, list) and default else default
    if isinstance(sample, bool):
        kind = ScalarType.BOOLEAN
    elif isinstance(sample, int):
        kind = ScalarType.LONG
    elif isinstance(sample, float):
        kind = ScalarType.DOUBLE
    elif isinstance(sample, str):
        kind = ScalarType.STRING
    elif isinstance(sample, dt.datetime):
        kind = ScalarType.DATETIME
    else:
        raise UsageError(
            f"the default of param {name!r} is {shown(default)}; take a boolean, a number, "
            "text, a datetime or a list of these"
        )
    plain = default.isoformat() if isinstance(default, dt.datetime) else default
    return ParamSpec(name, kind, plain, (-1,) if isinstance(default, list) else None)
