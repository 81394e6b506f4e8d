from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.errors import InvalidRowsError, SignatureMismatchError, UsageError
from sparkscore.flavors.frames import float_matrix, pandas_frame, record_batch
from sparkscore.package.signature import (
    AnyType,
    ArrayType,
    ColumnSchema,
    ColumnSpec,
    MapType,
    ScalarType,
    arrow_schema,
    infer_signature,
)

WHOLE = {
    ScalarType.INTEGER: st.integers(-(2**31), 2**31 - 1),
    ScalarType.LONG: st.integers(-(2**63), 2**63 - 1),
    ScalarType.BOOLEAN: st.booleans(),
}
OTHERS = {
    ScalarType.FLOAT: st.floats(width=32, allow_nan=False),
    ScalarType.DOUBLE: st.floats(allow_nan=False),
    ScalarType.STRING: st.text(st.characters(codec="utf-8")),
    ScalarType.BINARY: st.binary(),
    ScalarType.DATETIME: st.datetimes(dt.datetime(1, 1, 1), dt.datetime(9999, 12, 31)),
}
DTYPES = {
    (ScalarType.INTEGER, True): "int32",
    (ScalarType.INTEGER, False): "Int32",
    (ScalarType.LONG, True): "int64",
    (ScalarType.LONG, False): "Int64",
    (ScalarType.BOOLEAN, True): "bool",
    (ScalarType.BOOLEAN, False): "boolean",
    (ScalarType.FLOAT, False): "float32",
    (ScalarType.DOUBLE, False): "float64",
    (ScalarType.STRING, False): "object",
    (ScalarType.BINARY, False): "object",
    (ScalarType.DATETIME, False): "datetime64[us]",
}


def schema_of(kind: ScalarType, *, required: bool) -> ColumnSchema:
    return ColumnSchema((ColumnSpec("x", kind, required),))


def batch_of(values: list[object], schema: ColumnSchema) -> pa.RecordBatch:
    arrow = arrow_schema(schema)
    return pa.RecordBatch.from_arrays([pa.array(values, arrow.field(0).type)], schema=arrow)


@pytest.mark.parametrize("kind", [*WHOLE, *OTHERS])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_optional_column_keeps_every_value_and_null(kind: ScalarType, data: st.DataObject) -> None:
    values = data.draw(st.lists(st.none() | {**WHOLE, **OTHERS}[kind], max_size=20))
    schema = schema_of(kind, required=False)
    batch = batch_of(list(values), schema)
    frame = pandas_frame(batch, schema)
    assert frame["x"].dtype == DTYPES[kind, False]
    assert [None if pd.isna(v) else v for v in frame["x"]] == values
    assert record_batch(frame, schema) == batch


@pytest.mark.parametrize("kind", list(WHOLE))
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_required_whole_column_is_plain_and_exact(kind: ScalarType, data: st.DataObject) -> None:
    values = data.draw(st.lists(WHOLE[kind], max_size=20))
    schema = schema_of(kind, required=True)
    frame = pandas_frame(batch_of(list(values), schema), schema)
    assert frame["x"].dtype == DTYPES[kind, True]
    assert frame["x"].tolist() == values


def test_largest_integers_beside_a_null_stay_what_they_are() -> None:
    schema = schema_of(ScalarType.LONG, required=False)
    frame = pandas_frame(batch_of([9223372036854775707, None], schema), schema)
    assert frame["x"][0] == 9223372036854775707
    assert frame["x"][1] is pd.NA


def test_null_in_a_required_integer_column_is_refused() -> None:
    schema = schema_of(ScalarType.LONG, required=True)
    with pytest.raises(SignatureMismatchError, match=r"column 'x' is required .*1 of 2"):
        pandas_frame(batch_of([1, None], schema), schema)


def test_frame_is_the_models_own_and_writable() -> None:
    schema = schema_of(ScalarType.DOUBLE, required=True)
    batch = batch_of([1.0, 2.0], schema)
    frame = pandas_frame(batch, schema)
    frame.loc[0, "x"] = 7.0
    assert batch.column(0).to_pylist() == [1.0, 2.0]


def test_nested_columns_become_lists_and_dicts() -> None:
    schema = ColumnSchema(
        (
            ColumnSpec("a", ArrayType(ScalarType.LONG), required=False),
            ColumnSpec("m", MapType(ScalarType.DOUBLE), required=False),
        )
    )
    batch = pa.RecordBatch.from_pydict(
        {"a": [[1, 2], None], "m": [{"k": 0.5}, None]}, schema=arrow_schema(schema)
    )
    frame = pandas_frame(batch, schema)
    assert frame["a"].tolist() == [[1, 2], None]
    assert frame["m"].tolist() == [{"k": 0.5}, None]


def test_map_whose_key_stands_twice_is_named_with_its_row() -> None:
    schema = ColumnSchema((ColumnSpec("m", MapType(ScalarType.LONG)),))
    maps = pa.array([[("a", 1)], [("a", 1), ("a", 2)]], pa.map_(pa.string(), pa.int64()))
    with pytest.raises(
        InvalidRowsError, match=r"column 'm' holds a map .* in row 1 of a batch of 2"
    ):
        pandas_frame(pa.record_batch({"m": maps}), schema)


def test_columns_without_names_are_numbered() -> None:
    rows = pd.DataFrame(np.array([[1.0, 2.0]]))
    schema = infer_signature(rows).inputs
    assert isinstance(schema, ColumnSchema)
    frame = pandas_frame(record_batch(rows, schema), schema)
    assert list(map(repr, frame.columns)) == ["0", "1"]


def test_float_matrix_is_column_major_and_null_is_nan() -> None:
    batch = pa.RecordBatch.from_pydict({"a": [1.0, None], "b": [3.0, 4.0]})
    matrix = float_matrix(batch)
    assert matrix.flags.f_contiguous
    assert np.array_equal(matrix, [[1.0, 3.0], [np.nan, 4.0]], equal_nan=True)


def test_example_that_lacks_a_column_or_a_type_is_refused() -> None:
    schema = schema_of(ScalarType.LONG, required=True)
    with pytest.raises(UsageError, match="lacks the columns 'x'"):
        record_batch(pd.DataFrame({"y": [1]}), schema)
    with pytest.raises(UsageError, match="does not fit the signature"):
        record_batch(pd.DataFrame({"x": ["n/a"]}), schema)


def test_columns_of_any_type_come_in_their_own_and_examples_of_them_are_taken() -> None:
    schema = ColumnSchema(tuple(ColumnSpec(name, AnyType()) for name in ("n", "x", "d", "o")))
    batch = pa.record_batch(
        {
            "n": pa.array([9223372036854775707, None], pa.int64()),
            "x": pa.array([0.5, None], pa.float64()),
            "d": pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)),
            "o": [{"a": [1, 2]}, None],
        }
    )
    frame = pandas_frame(batch, schema)
    assert [str(dtype) for dtype in frame.dtypes] == ["Int64", "float64", "object", "object"]
    assert frame["n"].tolist() == [9223372036854775707, pd.NA]
    assert frame["d"].tolist() == [Decimal("1.50"), None]
    assert frame["o"].tolist() == [{"a": [1, 2]}, None]
    again = record_batch(frame, schema)
    assert again.to_pydict() == batch.to_pydict()
