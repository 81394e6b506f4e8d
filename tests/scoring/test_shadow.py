"""How the answers of two models to the same rows differ."""

from __future__ import annotations

import datetime as dt
import math

import pyarrow as pa
import pytest

from sparkscore.scoring.shadow import Compared, compared


def struct(**columns: object) -> pa.StructArray:
    arrays = {name: pa.array(values) for name, values in columns.items()}
    return pa.StructArray.from_arrays(list(arrays.values()), names=list(arrays))


def test_numbers_have_a_mean_difference_where_both_answer() -> None:
    first = struct(prediction=[1.0, 2.0, None, 4.0, math.nan])
    second = struct(prediction=[1, 4, 3, 3, 5])
    assert compared(first, second) == Compared(
        n_rows=4, n_different=3, difference=1.0, absolute=3.0
    )


def test_rows_without_an_answer_are_not_compared() -> None:
    answers = struct(prediction=[1.0, 2.0])
    masked = pa.StructArray.from_arrays(
        [answers.field(0)], names=["prediction"], mask=pa.array([True, False])
    )
    assert compared(masked, answers).n_rows == compared(answers, masked).n_rows == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (["a", "b", None, "c"], ["a", "c", "d", None]),
        ([True, False, None, True], [True, True, True, None]),
        ([dt.date(2026, 1, 1)] * 2, [dt.date(2026, 1, 1), dt.date(2026, 1, 2)]),
    ],
)
def test_labels_are_equal_or_not(first: list[object], second: list[object]) -> None:
    found = compared(struct(label=first, other=first), struct(label=second))
    assert (found.n_rows, found.n_different) == (2, 1)


@pytest.mark.parametrize(
    "second", [struct(other=[1.0]), struct(prediction=["1"]), struct(prediction=[[1.0]])]
)
def test_what_cannot_be_compared_is_not(second: pa.StructArray) -> None:
    assert compared(struct(prediction=[1.0]), second) == Compared()


def test_lists_and_no_rows_are_not_compared() -> None:
    lists = struct(prediction=[[1.0]])
    assert compared(lists, lists) == Compared()
    nothing = struct(prediction=pa.array([], pa.float64()))
    assert compared(nothing, nothing) == Compared()
