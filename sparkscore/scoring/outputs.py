"""From whatever a model's library answers to the declared prediction columns, as Arrow.

Values are converted only where nothing is lost: a NaN stays a NaN, None becomes null, a label
stays a label. What does not fit is an error that names the column, the declared type and what came.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import PredictionError, listed, shown
from sparkscore.package.tensors import nested_lists

if TYPE_CHECKING:
    from collections.abc import Iterator


def prediction_columns(answer: object, declared: pa.Schema, n_rows: int) -> list[pa.Array]:
    """The declared columns, n_rows each, out of a model's answer.

    Args:
        answer: An ndarray of shape (n_rows,) or (n_rows, k), a pandas Series or DataFrame, an
            Arrow array, table or batch, a mapping of column to values, or a sequence.
        declared: Names and types of the prediction columns.
        n_rows: Rows that were given to the model.

    Raises:
        PredictionError: Another number of rows or columns, or values of another type.
    """
    columns = []
    for field, values in zip(declared, _by_column(answer, declared), strict=True):
        array = _as_array(values, field)
        if len(array) != n_rows:
            raise PredictionError(
                f"the model answered {len(array)} values in column {field.name!r} "
                f"for a batch of {n_rows} rows",
                field.name,
            )
        columns.append(array)
    return columns


def nan_rows(predictions: pa.Array) -> pa.Array | None:
    """A mask of the rows that hold a NaN, in lists and structs too; None: none does."""
    kind = predictions.type
    if pa.types.is_floating(kind):
        mask = pc.fill_null(pc.is_nan(predictions), False)
        return mask if mask.true_count else None
    if pa.types.is_list(kind):
        inner = nan_rows(predictions.flatten())
        if inner is None:
            return None
        rows = pc.list_parent_indices(predictions).filter(inner)
        return pc.is_in(pa.array(range(len(predictions)), rows.type), value_set=rows)
    if pa.types.is_struct(kind):
        masks = [mask for mask in map(nan_rows, predictions.flatten()) if mask is not None]
        return reduce(pc.or_, masks) if masks else None
    return None


def _by_column(answer: object, declared: pa.Schema) -> Iterator[object]:
    names = declared.names
    if isinstance(answer, pa.Table | pa.RecordBatch) or hasattr(answer, "columns"):
        return _from_frame(answer, names)
    if isinstance(answer, Mapping):
        return _from_mapping(answer, names)
    if len(names) == 1:
        return iter([_single(answer, declared.field(0))])
    if isinstance(answer, pa.StructArray):
        return iter(_from_frame(pa.RecordBatch.from_struct_array(answer), names))
    # Rows of Python values keep their own types: as one array, 1 and "a" would both be text.
    matrix = answer if isinstance(answer, np.ndarray) else np.array(answer, dtype=object)
    if matrix.ndim != 2 or matrix.shape[1] != len(names):  # noqa: PLR2004 - a matrix has two axes
        raise PredictionError(
            f"the model answered an array of shape {matrix.shape}, but its signature declares "
            f"the {len(names)} columns {listed(names)}"
        )
    return (matrix[:, i] for i in range(len(names)))


def _from_frame(frame: object, names: Sequence[str]) -> Iterator[object]:
    if isinstance(frame, pa.Table | pa.RecordBatch):
        have: list[object] = list(frame.schema.names)
        columns: list[object] = list(frame.columns)
    else:
        have = list(frame.columns)  # type: ignore[attr-defined]  # a pandas DataFrame
        columns = [frame.iloc[:, i] for i in range(len(have))]  # type: ignore[attr-defined]
    if len(names) == 1 and len(have) == 1:
        return iter(columns)
    missing = [name for name in names if name not in have]
    if missing:
        raise PredictionError(
            f"the model's answer lacks the declared columns {listed(missing)}; "
            f"it has {listed(have)}"
        )
    return (columns[have.index(name)] for name in names)


def _from_mapping(answer: Mapping[object, object], names: Sequence[str]) -> Iterator[object]:
    missing = [name for name in names if name not in answer]
    if missing:
        raise PredictionError(
            f"the model's answer lacks the declared columns {listed(missing)}; "
            f"it has {listed(answer)}"
        )
    return (answer[name] for name in names)


def _single(answer: object, field: pa.Field) -> object:
    """The one declared column: a matrix of one column is that column, unless lists are declared."""
    if isinstance(answer, np.ndarray) and answer.ndim > 1 and not pa.types.is_list(field.type):
        if answer.shape[1:] != (1,):
            raise PredictionError(
                f"the model answered an array of shape {answer.shape}, but its signature declares "
                f"the single column {field.name!r} of type {field.type}"
            )
        return answer[:, 0]
    return answer


def _as_array(values: object, field: pa.Field) -> pa.Array:
    try:
        array = _to_arrow(values, field.type)
        if array.type.equals(field.type):
            return array
        if pa.types.is_dictionary(array.type):
            array = array.dictionary_decode()
        if _kind(array.type) not in (_kind(field.type), None):
            raise PredictionError(_type_text(field, str(array.type)), field.name)
        cast = array.cast(field.type)
    except (
        pa.ArrowInvalid,
        pa.ArrowTypeError,
        pa.ArrowNotImplementedError,
        UnicodeEncodeError,  # Text with a lone surrogate.
    ) as exc:
        text = _type_text(field, f"{type(values).__name__}: {exc}")
        raise PredictionError(text, field.name) from exc
    if pa.types.is_float32(field.type):
        _check_not_rounded(array, cast, field)
    return cast


def _to_arrow(values: object, declared: pa.DataType) -> pa.Array:
    if isinstance(values, pa.ChunkedArray):
        return values.combine_chunks()
    if isinstance(values, pa.Array):
        return values
    if isinstance(values, np.ndarray) and values.ndim > 1:
        return nested_lists(values)
    dtype = getattr(values, "dtype", None)
    if isinstance(dtype, np.dtype) and dtype.kind != "O":
        return pa.array(np.asarray(values), from_pandas=False)
    if dtype is not None and not isinstance(dtype, np.dtype):
        return pa.Array.from_pandas(values)
    if isinstance(values, str | bytes) or (dtype is None and not isinstance(values, Sequence)):
        raise PredictionError(f"the model answered {shown(values)}, which is no column of values")
    inner = _innermost(declared)
    # Told the type, PyArrow would cut 0.5 to the integer 0; found out by itself, the cast refuses.
    # And it would take no dates for times.
    wanted = None if pa.types.is_integer(inner) or pa.types.is_timestamp(inner) else declared
    # pandas writes NaN for a missing label; among floats, and in objects, it is a value of its own.
    has_nan = pa.types.is_floating(inner) or pa.types.is_struct(inner)
    return pa.array(values, type=wanted, from_pandas=not has_nan)


def _innermost(data_type: pa.DataType) -> pa.DataType:
    return _innermost(data_type.value_type) if pa.types.is_list(data_type) else data_type


def _kind(data_type: pa.DataType) -> str | None:
    """What values of a type are; a cast to another kind is nothing that a model means."""
    types = pa.types
    if types.is_string(data_type) or types.is_large_string(data_type):
        return "text"
    if types.is_integer(data_type) or types.is_floating(data_type):
        return "number"
    if types.is_binary(data_type) or types.is_large_binary(data_type):
        return "bytes"
    if types.is_timestamp(data_type) or types.is_date(data_type):
        return "time"
    if types.is_list(data_type) or types.is_large_list(data_type):
        return f"list of {_kind(data_type.value_type)}"
    return None if types.is_null(data_type) else str(data_type.id)


def _check_not_rounded(array: pa.Array, cast: pa.Array, field: pa.Field) -> None:
    """Refuse doubles that are no floats: Arrow rounds them without a word."""
    same = pc.or_(pc.equal(cast.cast(pa.float64()), array.cast(pa.float64())), pc.is_nan(array))
    if not pc.all(same).as_py():
        first = array.filter(pc.invert(same))[0]
        text = _type_text(field, f"{array.type} {first}, which would be rounded")
        raise PredictionError(text, field.name)


def _type_text(field: pa.Field, found: str) -> str:
    return (
        f"the model's signature declares column {field.name!r} as {field.type}, "
        f"but the model answered {found}"
    )
