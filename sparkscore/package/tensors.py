"""The columns that stand for a signature's tensors in tables and batches.

A tensor's rows are its first axis. A tensor of shape (-1,) is one column of single values. An
unnamed matrix of shape (-1, k) is k such columns, called "0" to "k-1"; one of (-1, 1) is one, of
the tensor's name. Any other is one column of (nested) lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sparkscore.errors import SignatureMismatchError, shown
from sparkscore.package.datatypes import ArrayType, DataType, ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec, Schema, TensorSpec

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

_SCALARS = {
    "bool": ScalarType.BOOLEAN,
    "float16": ScalarType.FLOAT,
    "float32": ScalarType.FLOAT,
    "float64": ScalarType.DOUBLE,
    "int8": ScalarType.INTEGER,
    "int16": ScalarType.INTEGER,
    "int32": ScalarType.INTEGER,
    "int64": ScalarType.LONG,
    "uint8": ScalarType.INTEGER,
    "uint16": ScalarType.INTEGER,
    "uint32": ScalarType.LONG,
}
_MATRIX_AXES = 2


@dataclass(frozen=True)
class TensorColumns:
    """How one tensor stands in a batch.

    Attributes:
        tensor: Its name, NumPy type and shape.
        names: Of its columns, in order.
        type: Of each of them.
        rows: The type of a single column of lists that may fill all of them, one row a list; None
            where the column is of lists itself, or of the tensor's only axis.
    """

    tensor: TensorSpec
    names: tuple[str, ...]
    type: pa.DataType
    rows: pa.DataType | None

    @property
    def is_nested(self) -> bool:
        """Whether its one column is of lists."""
        return self.rows is None and len(self.tensor.shape) > 1

    @property
    def needs_value(self) -> bool:
        """Whether null has no place in it: only floats, times and objects have one."""
        return self.is_nested or not self.tensor.dtype.startswith(("float", "datetime", "object"))


def tensor_columns(tensor: TensorSpec) -> TensorColumns:
    """The columns of an input tensor.

    Raises:
        SignatureMismatchError: Its first axis is not of any length, or Arrow has no such type.
    """
    if tensor.shape[:1] != (-1,):
        raise SignatureMismatchError(
            f"{_label(tensor)} has the shape {shown(list(tensor.shape))}, whose first axis is not "
            "the rows; save the model again with a signature of shape (-1, ...)"
        )
    name, item = tensor.name or "0", tensor_type(tensor.dtype)
    lists = _list_type(item, tensor.shape[1:])
    if len(tensor.shape) == 1:
        return TensorColumns(tensor, (name,), item, None)
    width = tensor.shape[1] if len(tensor.shape) == _MATRIX_AXES else 0
    if width > 0 and (tensor.name is None or width == 1):
        names = tuple(map(str, range(width))) if tensor.name is None else (name,)
        return TensorColumns(tensor, names, item, lists)
    return TensorColumns(tensor, (name,), lists, None)


def as_column_schema(schema: Schema) -> ColumnSchema:
    """A schema as columns: those of its tensors are all required, and unnamed ones stay so.

    Raises:
        SignatureMismatchError: A tensor is of a type that no column has.
    """
    if isinstance(schema, ColumnSchema):
        return schema
    specs: list[ColumnSpec] = []
    for tensor in schema.tensors:
        columns = tensor_columns(tensor)
        kind: DataType = _scalar_of(tensor)
        for _ in tensor.shape[1:] if columns.is_nested else ():
            kind = ArrayType(kind)
        is_named = tensor.name is not None
        specs.extend(ColumnSpec(name if is_named else None, kind) for name in columns.names)
    return ColumnSchema(tuple(specs))


def tensor_type(dtype: str) -> pa.DataType:
    """The Arrow type for a NumPy dtype name of a tensor spec.

    Raises:
        SignatureMismatchError: Arrow has none for it.
    """
    import pyarrow as pa

    if dtype.startswith(("str", "object", "<U", "U")):
        return pa.string()
    try:
        return pa.from_numpy_dtype(dtype)
    except (TypeError, ValueError, pa.ArrowNotImplementedError) as exc:
        raise SignatureMismatchError(
            f"a tensor of dtype {dtype!r} has no column type; declare it as columns"
        ) from exc


def nested_lists(array: np.ndarray) -> pa.Array:
    """Rows of an array of two or more axes as (nested) lists over one contiguous buffer."""
    import numpy as np
    import pyarrow as pa

    flat: pa.Array = pa.array(np.ascontiguousarray(array).reshape(-1), from_pandas=False)
    for axis in range(array.ndim - 1, 0, -1):
        width = array.shape[axis]
        n_lists = int(np.prod(array.shape[:axis]))
        offsets = pa.array(np.arange(n_lists + 1, dtype=np.int32) * width)
        flat = pa.ListArray.from_arrays(offsets, flat)
    return flat


def _list_type(item: pa.DataType, axes: tuple[int, ...]) -> pa.DataType:
    """Lists of lists without a null inside, of the lengths that the axes have."""
    import pyarrow as pa

    for length in reversed(axes):
        # Arrow takes -1 for any length, as signatures do.
        item = pa.list_(pa.field("item", item, nullable=False), length)
    return item


def _scalar_of(tensor: TensorSpec) -> ScalarType:
    if tensor.dtype in _SCALARS:
        return _SCALARS[tensor.dtype]
    if tensor.dtype.startswith(("str", "object", "<U", "U")):
        return ScalarType.STRING
    raise SignatureMismatchError(
        f"{_label(tensor)} is of {tensor.dtype}, which no column of this flavor has; known are "
        f"{', '.join(_SCALARS)} and str"
    )


def _label(tensor: TensorSpec) -> str:
    return "the model's tensor" if tensor.name is None else f"the model's tensor {tensor.name!r}"
