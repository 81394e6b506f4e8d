"""From Arrow batches to what models take that were fitted on arrays, and back from examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from sparkscore.errors import SignatureMismatchError, UsageError, listed, shown
from sparkscore.flavors.frames import NUMBERS, check_required, pandas_frame, record_batch
from sparkscore.package.datatypes import ArrayType, ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec, Schema, TensorSchema, TensorSpec
from sparkscore.package.tensors import TensorColumns, nested_lists, tensor_columns

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from sparkscore.package.signature import Signature

_DTYPES = {
    ScalarType.BOOLEAN: "bool",
    ScalarType.INTEGER: "int32",
    ScalarType.LONG: "int64",
    ScalarType.FLOAT: "float32",
    ScalarType.DOUBLE: "float64",
}
_HALVES = ("float16", "bfloat16")


def model_input(
    batch: pa.RecordBatch, schema: Schema
) -> pd.DataFrame | np.ndarray | dict[str, np.ndarray]:
    """`batch` as MLflow gives it to a model: a frame, an array, or named arrays.

    Args:
        batch: The columns that stand for `schema`, in order; see `package.tensors`.
        schema: Columns or tensors; an array has the type and shape of its tensor, is in C order,
            and may be written to. Null in floats becomes NaN.

    Raises:
        SignatureMismatchError: A null or a length that the tensor has no place for.
    """
    if isinstance(schema, ColumnSchema):
        return pandas_frame(batch, schema)
    return model_arrays(batch, schema)


def array_input(batch: pa.RecordBatch, schema: Schema) -> np.ndarray | dict[str, np.ndarray]:
    """`batch` for a model that takes arrays alone: columns of numbers become one matrix.

    Args:
        batch: The columns that stand for `schema`, in order.
        schema: Tensors as in `model_input`. Columns become (n_rows, n_columns) of the smallest
            type of NumPy that holds all of theirs; null in floats, and in optional integers, which
            count as doubles then, becomes NaN.

    Raises:
        SignatureMismatchError: A column is no number, or a required integer is null.
    """
    if not isinstance(schema, ColumnSchema):
        return model_arrays(batch, schema)
    other = [name for name, c in zip(schema.names, schema.columns, strict=True) if not _fits(c)]
    if other:
        raise SignatureMismatchError(
            f"the model takes one array of numbers, and the columns {listed(other)} are none; save "
            "it again with arrays as its input example, which declare tensors"
        )
    dtypes = [_dtype_of(column) for column in schema.columns]
    matrix = np.empty((batch.num_rows, batch.num_columns), np.result_type(*dtypes))
    for i, (values, column) in enumerate(zip(batch.columns, schema.columns, strict=True)):
        if _dtype_of(column).kind != "f":
            check_required(values, column)
        elif column.type not in (ScalarType.FLOAT, ScalarType.DOUBLE):
            values = values.cast("double", safe=False)  # noqa: PLW2901 - to have a place for null
        matrix[:, i] = values.to_numpy(zero_copy_only=False)
    return matrix


def tensor_answer(answer: object, names: Sequence[str], signature: Signature) -> object:
    """What a model of tensors answered, by the prediction columns that a signature declares.

    Args:
        answer: An array; or several, as a sequence or by their names.
        names: What the model calls the outputs of a sequence, where the signature does not name
            them; else they are `output_0`, `output_1`, ...
        signature: Its columns name the outputs of a sequence, if there are as many.

    Returns:
        The array, if it is the only one; else a mapping of name to array. float16 becomes float32,
        and a matrix of one column that column where the signature declares no lists.

    """
    if isinstance(answer, Mapping):
        named = {str(name): value for name, value in answer.items()}
    elif isinstance(answer, Sequence):
        named = dict(zip(_output_names(len(answer), names, signature), answer, strict=True))
    else:
        return _known_float(answer)
    if len(named) == 1:
        return _known_float(next(iter(named.values())))
    lists = _declared_lists(signature)
    return {name: _column_of(value, is_list=name in lists) for name, value in named.items()}


def model_arrays(batch: pa.RecordBatch, schema: TensorSchema) -> np.ndarray | dict[str, np.ndarray]:
    """The tensors of `batch`, by name where they have one; see `model_input`."""
    arrays: dict[str, np.ndarray] = {}
    start = 0
    for tensor in schema.tensors:
        columns = tensor_columns(tensor)
        end = start + len(columns.names)
        arrays[tensor.name or ""] = _array(batch.columns[start:end], columns)
        start = end
    return arrays if schema.tensors[0].name is not None else arrays[""]


def example_batch(example: object, schema: Schema) -> pa.RecordBatch:
    """An input example as a batch, the way back from `model_input`.

    Args:
        example: A frame, of any schema; an array for an unnamed tensor; a mapping of names to
            arrays for named ones.
        schema: What the model takes.

    Raises:
        UsageError: The example is of another kind or shape, or holds what its type cannot.
    """
    import pandas as pd
    import pyarrow as pa

    if isinstance(schema, ColumnSchema):
        if not isinstance(example, pd.DataFrame):
            raise UsageError(
                f"the signature declares columns, and the input example is a "
                f"{type(example).__name__}; take a pandas DataFrame"
            )
        return record_batch(example, schema)
    arrays: dict[str, pa.Array] = {}
    for tensor in schema.tensors:
        columns = tensor_columns(tensor)
        values = (
            example.get(tensor.name) if isinstance(example, Mapping | pd.DataFrame) else example
        )
        if tensor.name is None and isinstance(example, pd.DataFrame):
            values = example.to_numpy()
        array = np.asarray(values) if values is not None else np.empty(())
        is_fitting = array.ndim == len(tensor.shape) and all(
            want in (-1, have) for have, want in zip(array.shape, tensor.shape, strict=True)
        )
        if not is_fitting:
            what = shown(list(array.shape)) if values is not None else "nothing"
            raise UsageError(
                f"the input example must have an array of shape {shown(list(tensor.shape))} for "
                f"the tensor {tensor.name or '0'!r}, and has {what}"
            )
        arrays.update(_as_columns(array, columns))
    return pa.RecordBatch.from_pydict(arrays)


def _fits(column: ColumnSpec) -> bool:
    return column.type in NUMBERS


def _dtype_of(column: ColumnSpec) -> np.dtype[np.generic]:
    if not column.required and column.type not in (ScalarType.FLOAT, ScalarType.DOUBLE):
        return np.dtype(np.float64)
    return np.dtype(_DTYPES[column.type])  # type: ignore[index]  # a number; the caller has looked


def _output_names(n: int, names: Sequence[str], signature: Signature) -> Sequence[str]:
    outputs = signature.outputs
    specs = outputs.columns if isinstance(outputs, ColumnSchema) else ()
    declared = [spec.name for spec in specs if spec.name is not None]
    if isinstance(outputs, TensorSchema):
        declared = [tensor.name for tensor in outputs.tensors if tensor.name is not None]
    for known in (declared, list(names)):
        if len(known) == n and len(set(known)) == n:
            return known
    return [f"output_{i}" for i in range(n)]


def _declared_lists(signature: Signature) -> set[str | None]:
    if isinstance(signature.outputs, TensorSchema):
        return {tensor.name for tensor in signature.outputs.tensors if len(tensor.shape) > 1}
    specs = () if signature.outputs is None else signature.outputs.columns
    return {spec.name for spec in specs if isinstance(spec.type, ArrayType)}


def _column_of(value: object, *, is_list: bool) -> object:
    array = _known_float(value)
    if getattr(array, "shape", ())[1:] == (1,) and not is_list:
        return array[:, 0]  # type: ignore[index]  # an array
    return array


def _known_float(value: object) -> object:
    """An array whose type Arrow has: of floats of two bytes, those of four that hold the same."""
    dtype = getattr(value, "dtype", None)
    return value.astype(np.float32) if str(dtype) in _HALVES else value  # type: ignore[attr-defined]  # an array


def _array(parts: Sequence[pa.Array], columns: TensorColumns) -> np.ndarray:
    if columns.is_nested:
        return _stacked(parts[0], columns.tensor)
    arrays = [_values(part, columns.tensor, needs_value=columns.needs_value) for part in parts]
    return arrays[0].copy() if columns.rows is None else np.stack(arrays, axis=1)


def _stacked(lists: pa.Array, tensor: TensorSpec) -> np.ndarray:
    import pyarrow.compute as pc

    shape = [len(lists)]
    for length in tensor.shape[1:]:
        found = pc.unique(pc.list_value_length(lists)).to_pylist()
        if length == -1 and len(found) == 1 and found[0] is not None:
            length = found[0]  # noqa: PLW2901 - the length of this batch
        if any(n != length for n in found):
            raise SignatureMismatchError(
                f"the tensor {tensor.name or '0'!r} has the shape {shown(list(tensor.shape))}, but "
                f"the rows of a batch have lists of the lengths {shown(found)} along one axis, "
                "where None is null; give all rows one length"
            )
        shape.append(max(length, 0))
        lists = lists.flatten()
    return _values(lists, tensor, needs_value=True).reshape(shape).copy()


def _values(values: pa.Array, tensor: TensorSpec, *, needs_value: bool) -> np.ndarray:
    if needs_value and values.null_count:
        raise SignatureMismatchError(
            f"the tensor {tensor.name or '0'!r} of {tensor.dtype} holds {values.null_count} nulls, "
            "for which it has no place; fill or filter them"
        )
    is_text = tensor.dtype.startswith(("str", "<U", "U"))
    # Not of the dtype's own length, which would cut longer texts.
    dtype = np.dtype(str if is_text else tensor.dtype)
    return np.asarray(values.to_numpy(zero_copy_only=False), dtype)


def _as_columns(array: np.ndarray, columns: TensorColumns) -> dict[str, pa.Array]:
    import pyarrow as pa

    try:
        if columns.is_nested:
            return {columns.names[0]: nested_lists(array).cast(columns.type)}
        parts = array.T if columns.rows is not None else [array]
        arrays = [pa.array(part).cast(columns.type) for part in parts]
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError) as exc:
        raise UsageError(f"the input example does not fit the signature: {exc}") from exc
    return dict(zip(columns.names, arrays, strict=True))
