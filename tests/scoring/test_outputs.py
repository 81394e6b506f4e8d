from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from sparkscore.errors import PredictionError
from sparkscore.scoring.outputs import prediction_columns

NAN = float("nan")
DOUBLE = pa.schema([("p", pa.float64())])
TWO = pa.schema([("p", pa.int64()), ("label", pa.string())])
LISTS = pa.schema([("p", pa.list_(pa.float64()))])


def column(answer: object, declared: pa.Schema, n_rows: int) -> list[object]:
    """The only declared column as Python values."""
    (array,) = prediction_columns(answer, declared, n_rows)
    assert array.type == declared.field(0).type
    values: list[object] = array.to_pylist()
    return values


@pytest.mark.parametrize(
    "answer",
    [
        np.array([1.5, 2.5]),
        np.array([[1.5], [2.5]]),
        np.array([1.5, 2.5], dtype=object),
        np.array([1.5, 2.5], dtype=np.float32),
        pd.Series([1.5, 2.5], index=[7, 9]),
        pd.Series([1.5, 2.5], dtype="Float64"),
        pd.DataFrame({"any": [1.5, 2.5]}),
        {"p": [1.5, 2.5]},
        [1.5, 2.5],
        (1.5, 2.5),
        pa.array([1.5, 2.5]),
        pa.chunked_array([[1.5], [2.5]]),
        pa.table({"any": [1.5, 2.5]}),
        pa.record_batch({"any": [1.5, 2.5]}),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_one_column_is_taken_from_any_container(answer: object) -> None:
    assert column(answer, DOUBLE, 2) == [1.5, 2.5]


@pytest.mark.parametrize(
    "answer",
    [
        pd.DataFrame({"label": ["a", None], "p": [1, 2], "more": [0, 0]}),
        {"label": ["a", None], "p": np.array([1, 2])},
        [(1, "a"), (2, None)],
        [[1, "a"], [2, None]],
        np.array([[1, "a"], [2, None]], dtype=object),
        pa.table({"label": ["a", None], "p": [1, 2]}),
        pa.StructArray.from_arrays([pa.array([1, 2]), pa.array(["a", None])], ["p", "label"]),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_several_columns_are_taken_from_any_container(answer: object) -> None:
    one, two = prediction_columns(answer, TWO, 2)
    assert one.to_pylist() == [1, 2]
    assert two.to_pylist() == ["a", None]


def test_large_integers_in_rows_of_mixed_values_stay_exact() -> None:
    declared = pa.schema([("p", pa.int64()), ("q", pa.float64())])
    one, _ = prediction_columns([(9223372036854775707, 0.5), (1, 1.5)], declared, 2)
    assert one.to_pylist() == [9223372036854775707, 1]


@pytest.mark.parametrize(
    "answer",
    [
        np.array([NAN, 1.0]),
        pd.Series([NAN, 1.0]),
        pa.array([NAN, 1.0]),
        [NAN, 1.0],
        np.array([NAN, 1.0], dtype=object),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_nan_stays_nan(answer: object) -> None:
    first, second = column(answer, DOUBLE, 2)
    assert isinstance(first, float)
    assert math.isnan(first)
    assert second == 1.0


@pytest.mark.parametrize(
    "answer",
    [
        [None, 1.0],
        np.array([None, 1.0], dtype=object),
        pd.Series([None, 1.0], dtype="Float64"),
        pa.array([None, 1.0]),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_none_becomes_null(answer: object) -> None:
    assert column(answer, DOUBLE, 2) == [None, 1.0]


@pytest.mark.parametrize(
    "answer",
    [
        np.array(["yes", "no"]),
        np.array(["yes", "no"], dtype=object),
        ["yes", "no"],
        pd.Series(["yes", "no"]),
        pd.Series(["yes", "no"], dtype="category"),
        pd.Series(["yes", "no"], dtype="string"),
        pa.array(["yes", "no"]).dictionary_encode(),
        pa.array(["yes", "no"], pa.large_string()),
    ],
    ids=lambda answer: f"{type(answer).__name__}-{getattr(answer, 'dtype', '')}",
)
def test_labels_stay_labels(answer: object) -> None:
    assert column(answer, pa.schema([("p", pa.string())]), 2) == ["yes", "no"]


def test_missing_label_of_pandas_becomes_null() -> None:
    answer = pd.Series(["yes", NAN], dtype=object)
    assert column(answer, pa.schema([("p", pa.string())]), 2) == ["yes", None]


@pytest.mark.parametrize(
    "answer",
    [
        [[1.0, None, 2.0], None, []],
        pd.Series([[1.0, None, 2.0], None, []]),
        pa.array([[1.0, None, 2.0], None, []]),
    ],
    ids=lambda answer: type(answer).__name__,
)
def test_lists_keep_their_nulls(answer: object) -> None:
    assert column(answer, LISTS, 3) == [[1.0, None, 2.0], None, []]


def test_matrix_becomes_a_column_of_lists_where_lists_are_declared() -> None:
    assert column(np.arange(4.0).reshape(2, 2), LISTS, 2) == [[0.0, 1.0], [2.0, 3.0]]


def test_array_of_three_axes_becomes_lists_of_lists() -> None:
    declared = pa.schema([("p", pa.list_(pa.list_(pa.int64())))])
    assert column(np.arange(8).reshape(2, 2, 2), declared, 2) == [
        [[0, 1], [2, 3]],
        [[4, 5], [6, 7]],
    ]


def test_list_of_vectors_becomes_a_column_of_lists() -> None:
    assert column([np.array([1.0]), np.array([2.0, 3.0])], LISTS, 2) == [[1.0], [2.0, 3.0]]


def test_dicts_become_structs_where_a_struct_is_declared() -> None:
    declared = pa.schema([("p", pa.struct([("a", pa.int64()), ("b", pa.string())]))])
    rows = [{"a": 1, "b": "x"}, None]
    assert column(rows, declared, 2) == rows
    assert column(pa.array(rows), declared, 2) == rows


def test_long_beside_null_stays_exact() -> None:
    declared = pa.schema([("p", pa.int64())])
    odd = [9223372036854775707, None]
    assert column(odd, declared, 2) == odd
    assert column(np.array(odd, dtype=object), declared, 2) == odd
    assert column(pd.Series(odd, dtype="Int64"), declared, 2) == odd


def test_nanoseconds_become_microseconds_where_nothing_is_lost() -> None:
    declared = pa.schema([("p", pa.timestamp("us"))])
    answer = np.array(["2013-10-01T00:00:00.000001", "NaT"], dtype="datetime64[ns]")
    assert column(answer, declared, 2) == [dt.datetime(2013, 10, 1, 0, 0, 0, 1), None]


def test_dates_are_the_times_of_their_midnights() -> None:
    declared = pa.schema([("p", pa.timestamp("us"))])
    answer = [dt.date(1, 1, 1), None]
    assert column(answer, declared, 2) == [dt.datetime(1, 1, 1), None]
    assert column(pd.Series(answer), declared, 2) == [dt.datetime(1, 1, 1), None]


def test_nan_in_an_object_stays_nan() -> None:
    declared = pa.schema([("p", pa.struct({"a": pa.float64(), "b": pa.string()}))])
    answer = pd.Series([{"a": NAN, "b": "x"}, {"a": None, "b": None}])
    first, second = column(answer, declared, 2)
    assert str(first) == "{'a': nan, 'b': 'x'}"
    assert second == {"a": None, "b": None}


@pytest.mark.parametrize("n_rows", [0, 1, 3])
def test_another_number_of_values_is_refused_with_both_numbers(n_rows: int) -> None:
    with pytest.raises(PredictionError, match=f"2 values in column 'p' for a batch of {n_rows}"):
        prediction_columns([1.0, 2.0], DOUBLE, n_rows)


@pytest.mark.parametrize(
    ("answer", "declared", "message"),
    [
        (np.ones((2, 3)), TWO, r"shape \(2, 3\).*2 columns 'p', 'label'"),
        (np.ones((2, 3)), DOUBLE, r"shape \(2, 3\).*single column 'p'"),
        (np.ones(2), TWO, r"shape \(2,\)"),
        (pd.DataFrame({"p": [1, 2], "q": [1, 2]}), TWO, "lacks the declared columns 'label'"),
        ({"q": [1.0]}, DOUBLE, "lacks the declared columns 'p'; it has 'q'"),
        (1.5, DOUBLE, "1.5, which is no column"),
        (None, DOUBLE, "None, which is no column"),
        ("ab", pa.schema([("p", pa.string())]), "'ab', which is no column"),
        ((n for n in (1.0, 2.0)), DOUBLE, "which is no column"),
    ],
    ids=["wide", "wide-single", "flat", "frame", "dict", "number", "none", "text", "generator"],
)
def test_another_shape_is_refused(answer: object, declared: pa.Schema, message: str) -> None:
    with pytest.raises(PredictionError, match=message):
        prediction_columns(answer, declared, 2)


@pytest.mark.parametrize(
    ("answer", "declared"),
    [
        (lambda: np.array(["1", "2"]), pa.int64()),
        (lambda: ["1", "2"], pa.float64()),
        (lambda: [1, 2], pa.string()),
        (lambda: np.array([1, 2]), pa.string()),
        (lambda: np.array([1.5, 2.0]), pa.int64()),
        (lambda: [1.5, 2.0], pa.int64()),
        (lambda: np.array([1.5, 2.0], dtype=object), pa.int32()),
        (lambda: [[1.5], [2.0]], pa.list_(pa.int64())),
        (lambda: np.array([NAN, 1.0]), pa.int64()),
        (lambda: np.array([2**40, 1]), pa.int32()),
        (lambda: np.array([2**53 + 1, 1]), pa.float64()),
        (lambda: np.array([0.1, 1.0]), pa.float32()),
        (lambda: np.array([1e300, 1.0]), pa.float32()),
        (lambda: np.array([2, 1]), pa.bool_()),
        (lambda: np.array([True, False]), pa.int64()),
        (lambda: np.array([1, 2]), pa.timestamp("us")),
        (lambda: np.array([b"a", b"b"]), pa.string()),
        (lambda: np.ones((2, 2)), pa.list_(pa.string())),
        (lambda: [{"a": 1}, {"a": 2}], pa.float64()),
        (lambda: [1.0, "a"], pa.float64()),
        (lambda: ["a", "\ud800"], pa.string()),
        (lambda: [dt.date(1, 1, 1), "a"], pa.timestamp("us")),
    ],
)
def test_values_of_another_type_are_refused_with_both_types(
    answer: Callable[[], object], declared: pa.DataType
) -> None:
    schema = pa.schema([("p", declared)])
    with pytest.raises(PredictionError, match=r"declares column 'p' as .* but the model answered"):
        prediction_columns(answer(), schema, 2)


def test_doubles_that_are_floats_become_floats() -> None:
    answer = np.array([0.5, NAN, np.inf])
    first, second, third = column(answer, pa.schema([("p", pa.float32())]), 3)
    assert (first, third) == (0.5, np.inf)
    assert isinstance(second, float)
    assert math.isnan(second)


@pytest.mark.parametrize("declared", [DOUBLE, TWO, LISTS], ids=["one", "two", "lists"])
def test_empty_answer_fits_a_batch_without_rows(declared: pa.Schema) -> None:
    shape = (0,) if len(declared) == 1 else (0, len(declared))
    columns = prediction_columns(np.empty(shape, dtype=object), declared, 0)
    assert [array.type for array in columns] == declared.types
    assert {len(array) for array in columns} == {0}
