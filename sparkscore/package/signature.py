"""What a model wants and gives, with the Arrow schemas that follow from it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
    "output_columns",
]

_PREDICTION = "prediction"


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


def arrow_schema(schema: Schema) -> pa.Schema:
    """The Arrow schema of batches for `schema`; a field is nullable where it is not required.

    A tensor becomes one field: its first axis is the rows, the others are lists.

    Raises:
        SignatureMismatchError: A type has no Arrow twin.
    """
    import pyarrow as pa

    columns = schema if isinstance(schema, ColumnSchema) else _columns_of(schema)
    return pa.schema(
        [
            pa.field(name, arrow_type(column.type), nullable=not column.required)
            for name, column in zip(columns.names, columns.columns, strict=True)
        ]
    )


def output_columns(signature: Signature) -> ColumnSchema:
    """The columns that predictions fill, each with a name.

    A tensor is a column of scalars (one axis) or of lists. What has no name is `prediction`,
    or `prediction_0`, `prediction_1`, ... if there are several. A signature without outputs
    means one column of doubles, as `mlflow.pyfunc.spark_udf` has it.
    """
    outputs = signature.outputs
    if outputs is None:
        return ColumnSchema((ColumnSpec(_PREDICTION, ScalarType.DOUBLE, required=False),))
    columns = outputs if isinstance(outputs, ColumnSchema) else _columns_of(outputs)
    several = len(columns.columns) > 1
    return ColumnSchema(
        tuple(
            ColumnSpec(
                c.name or (f"{_PREDICTION}_{i}" if several else _PREDICTION), c.type, c.required
            )
            for i, c in enumerate(columns.columns)
        )
    )


def infer_signature(
    data: pd.DataFrame | pa.Table | pa.RecordBatch,
    predictions: object = None,
    params: Mapping[str, object] | None = None,
) -> Signature:
    """The signature that `data` and the predictions for it show.

    Args:
        data: Inputs as the model was fitted on them. A column is required if it holds no null
            (NaN counts as null in pandas). Columns named by a RangeIndex have no name.
        predictions: What the model answered: an array of one axis (one column `prediction`) or
            two (one column of lists), a Series, DataFrame, list or Arrow data.
        params: Default of each param that a call may set.

    Raises:
        SignatureMismatchError: A column's type cannot be kept exactly, such as decimals.
        UsageError: The data is of another kind.
    """
    inputs = _schema_of(data, "column")
    if inputs is None:
        raise UsageError(
            f"a signature is inferred from a pandas DataFrame or an Arrow table, not from "
            f"{type(data).__name__}; wrap the array: pandas.DataFrame(array)"
        )
    outputs = None
    if predictions is not None:
        outputs = _schema_of(predictions, "prediction column") or _prediction_column(predictions)
    return Signature(inputs, outputs, tuple(_param(k, v) for k, v in (params or {}).items()))


def _schema_of(data: object, noun: str) -> ColumnSchema | None:
    columns = tuple(
        ColumnSpec(
            name, type_from_arrow(values.type, f"{noun} {name!r}"), required=values.null_count == 0
        )
        for name, values in _named_arrays(data, noun)
    )
    return ColumnSchema(columns) if columns else None


def _named_arrays(data: object, noun: str) -> Iterator[tuple[str | None, pa.Array]]:
    import pandas as pd
    import pyarrow as pa

    if isinstance(data, pa.Table | pa.RecordBatch):
        yield from zip(data.column_names, data.columns, strict=True)
    elif isinstance(data, pd.DataFrame):
        unnamed = isinstance(data.columns, pd.RangeIndex)
        for i, name in enumerate(data.columns):
            if not unnamed and not isinstance(name, str):
                raise UsageError(f"{noun} {shown(name)} must be named by text; rename it")
            yield None if unnamed else name, _array(data.iloc[:, i], f"{noun} {name!r}")


def _prediction_column(predictions: object) -> ColumnSchema:
    values = _array(predictions, "predictions")
    name = getattr(predictions, "name", None)
    column = ColumnSpec(
        name if isinstance(name, str) and name else _PREDICTION,
        type_from_arrow(values.type, "predictions"),
        required=values.null_count == 0,
    )
    return ColumnSchema((column,))


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


def _columns_of(schema: TensorSchema) -> ColumnSchema:
    return ColumnSchema(
        tuple(ColumnSpec(tensor.name, _tensor_type(tensor)) for tensor in schema.tensors)
    )


def _tensor_type(tensor: TensorSpec) -> DataType:
    """The type of one row of a tensor."""
    import numpy as np
    import pyarrow as pa

    try:
        dtype = np.dtype(tensor.dtype)
        is_text = dtype.kind in "UO"
        kind = type_from_arrow(pa.string() if is_text else pa.from_numpy_dtype(dtype), "tensor")
    except (TypeError, pa.ArrowNotImplementedError) as exc:
        raise SignatureMismatchError(
            f"a tensor of dtype {tensor.dtype!r} has no table column; use a column signature"
        ) from exc
    for _ in tensor.shape[1:]:
        kind = ArrayType(kind)
    return kind


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
