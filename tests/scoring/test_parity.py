from __future__ import annotations

import math

import pyarrow as pa
import pytest

from sparkscore.scoring.parity import Parity, differences, parity_of


def answers(values: list[object], kind: pa.DataType) -> pa.StructArray:
    return pa.StructArray.from_arrays([pa.array(values, kind)], names=["prediction"])


def test_rows_that_differ_are_counted_and_the_largest_is_named() -> None:
    expected = answers([1.0, 2.0, 3.0, math.nan], pa.float64())
    found = answers([1.0, 2.5, 1.0, math.nan], pa.float64())
    assert parity_of(expected, found) == Parity(4, 2, 2.0, 2)


def test_equal_predictions_have_no_difference() -> None:
    same = answers([1.0, math.inf, 0.0, None, math.nan], pa.float64())
    assert parity_of(same, answers([1.0, math.inf, -0.0, None, math.nan], pa.float64())) == Parity(
        5, 0, 0.0, 0
    )


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ("a", "b", pa.string()),
        (1, 2, pa.int64()),
        (1.0, None, pa.float64()),
        (None, 0.0, pa.float64()),
        (1.0, math.nan, pa.float64()),
        (math.inf, -math.inf, pa.float32()),
        ([1.0], [1.0, 2.0], pa.list_(pa.float64())),
        (None, [], pa.list_(pa.float64())),
    ],
)
def test_what_has_no_distance_is_infinitely_far(
    one: object, other: object, kind: pa.DataType
) -> None:
    assert parity_of(answers([one], kind), answers([other], kind)).largest_difference == math.inf


@pytest.mark.parametrize(
    ("largest", "tolerance", "is_within"),
    [
        (0.0, 0.0, True),
        (1e-6, 1e-6, True),
        (1e-6, 0.0, False),
        (1e-6, math.inf, True),
        (math.inf, math.inf, False),
        (1e-6, math.nan, False),
    ],
)
def test_labels_are_within_no_tolerance(
    largest: float, tolerance: float, *, is_within: bool
) -> None:
    assert Parity(10, 1, largest, 0).is_within(tolerance) is is_within


def test_lists_differ_by_their_largest_item() -> None:
    kind = pa.list_(pa.float32())
    expected = answers([[1.0, 2.0], [], [3.0, 4.0], None], kind)
    found = answers([[1.0, 2.0], [], [3.5, 4.25], None], kind)
    assert differences(expected, found).tolist() == [0.0, 0.0, 0.5, 0.0]


def test_a_row_differs_by_its_largest_column() -> None:
    columns = [pa.array([1.0, 1.0]), pa.array(["a", "b"])]
    expected = pa.StructArray.from_arrays(columns, names=["score", "label"])
    columns = [pa.array([1.5, 1.5]), pa.array(["a", "c"])]
    found = pa.StructArray.from_arrays(columns, names=["score", "label"])
    assert differences(expected, found).tolist() == [0.5, math.inf]
