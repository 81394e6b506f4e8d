from __future__ import annotations

import math

import pyarrow as pa
import pytest

from sparkscore.errors import PredictionError, SignatureMismatchError
from sparkscore.scoring.ensemble import Combine, combined, combined_schema


def answers(*columns: list[object], kind: pa.DataType) -> list[pa.StructArray]:
    return [pa.StructArray.from_arrays([pa.array(one, kind)], names=["p"]) for one in columns]


@pytest.mark.parametrize(
    ("combine", "weights", "expected"),
    [
        (Combine.MEAN, (), [3.0, 4.0]),
        (Combine.MEDIAN, (), [2.0, 4.0]),
        (Combine.WEIGHTED, (2.0, 1.0, 1.0), [2.5, 4.0]),
        (Combine.VOTE, (), [1, 4]),
    ],
)
def test_numbers_become_one(
    combine: Combine, weights: tuple[float, ...], expected: list[float]
) -> None:
    each = answers([1, 4], [2, 4], [6, 4], kind=pa.int64())
    assert combined(each, combine, weights).field("p").to_pylist() == expected


def test_most_votes_win_and_of_equally_many_the_first_voters() -> None:
    each = answers(["a", "b", "c"], ["b", "a", None], ["b", "c", None], kind=pa.string())
    assert combined(each, Combine.VOTE, ()).field("p").to_pylist() == ["b", "b", None]


def test_lists_vote_as_a_whole() -> None:
    each = answers([[1, 2]], [[2, 1]], [[2, 1]], kind=pa.list_(pa.int64()))
    assert combined(each, Combine.VOTE, ()).field("p").to_pylist() == [[2, 1]]


def test_lists_are_combined_place_by_place() -> None:
    kind = pa.list_(pa.float32())
    each = answers([[0.0, 1.0], None, []], [[1.0, 0.0], [1.0], []], kind=kind)
    mean = combined(each, Combine.MEAN, ()).field("p")
    assert mean.to_pylist() == [[0.5, 0.5], None, []]
    assert mean.type == combined_schema(pa.schema([("p", kind)]), Combine.MEAN).field("p").type


def test_lists_of_other_lengths_are_refused() -> None:
    each = answers([[0.0, 1.0]], [[1.0]], kind=pa.list_(pa.float64()))
    with pytest.raises(PredictionError, match="lists of different lengths"):
        combined(each, Combine.MEAN, ())


def test_missing_prediction_is_missing_and_nan_is_nan() -> None:
    each = answers([1.0, None, math.nan], [1.0, 1.0, 1.0], kind=pa.float64())
    column = combined(each, Combine.MEAN, ()).field("p")
    assert column.is_valid().to_pylist() == [True, False, True]
    assert math.isnan(column[2].as_py())


def test_row_that_a_member_rejects_has_no_answer() -> None:
    first, second = answers([1.0, 2.0], [3.0, 4.0], kind=pa.float64())
    second = second.take(pa.array([0, None], pa.int64()))
    assert combined([first, second], Combine.MEAN, ()).to_pylist() == [{"p": 2.0}, None]


def test_texts_have_no_mean() -> None:
    with pytest.raises(SignatureMismatchError, match="let them vote"):
        combined_schema(pa.schema([("p", pa.string())]), Combine.MEAN)
