from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from sparkscore.scoring.certificate import N_EPSILONS, Agreement, Certificate, Check, compared

EPSILON = float(np.finfo(np.float64).eps)


def answers(values: Sequence[object] | pa.Array, rows: Sequence[int] | None = None) -> pa.Table:
    column = values if isinstance(values, pa.Array) else pa.array(values)
    numbers = range(len(column)) if rows is None else rows
    return pa.table({"row": pa.array(numbers, pa.int64()), "prediction": column})


@pytest.mark.parametrize(
    "values",
    [
        [1.5, math.nan, -0.0, math.inf, None],
        ["a", None, ""],
        [[1.0, None], [], None, [math.nan]],
        [{"a": 1, "b": "x"}, None],
        [True, None],
    ],
)
def test_the_same_answers_are_equal_in_any_order(values: list[object]) -> None:
    expected = answers(values)
    found = expected.take(list(reversed(range(len(values)))))
    assert compared("again", expected, found) == Check("again", Agreement.EQUAL, len(values))


def test_no_answers_agree_with_none() -> None:
    nothing = answers(pa.array([], pa.float64()))
    assert compared("nothing", nothing, nothing).agreement is Agreement.EQUAL


@pytest.mark.parametrize(
    ("expected", "found", "agreement"),
    [
        (0.0, -0.0, Agreement.CLOSE),
        (1.0, 1.0 + N_EPSILONS * EPSILON, Agreement.CLOSE),
        (1.0, 1.0 + 2 * N_EPSILONS * EPSILON, Agreement.DIFFERENT),
        (1e300, 1e300 * (1 + EPSILON), Agreement.CLOSE),
        (1e-9, 0.0, Agreement.DIFFERENT),
        (math.inf, 1e308, Agreement.DIFFERENT),
        (math.inf, -math.inf, Agreement.DIFFERENT),
        (math.nan, 0.0, Agreement.DIFFERENT),
        (None, 0.0, Agreement.DIFFERENT),
        (None, math.nan, Agreement.DIFFERENT),
    ],
)
def test_floats_agree_to_the_bit_closely_or_not(
    expected: float | None, found: float | None, agreement: Agreement
) -> None:
    ours, theirs = (answers(pa.array([0.5, value], pa.float64())) for value in (expected, found))
    check = compared("again", ours, theirs)
    assert (check.agreement, check.n_differing) == (agreement, 1)
    assert check.detail.startswith("first in row 1: prediction is ")


def test_floats_of_four_bytes_have_their_own_last_place() -> None:
    expected = pa.array([1.0], pa.float32())
    for n_units, agreement in ((N_EPSILONS, Agreement.CLOSE), (600, Agreement.DIFFERENT)):
        found = pa.array(np.array([1 + n_units * np.finfo(np.float32).eps], np.float32))
        assert compared("again", answers(expected), answers(found)).agreement is agreement


def test_a_difference_in_a_list_is_that_of_its_row() -> None:
    check = compared("again", answers([[0.5], [1.0, 2.0]]), answers([[0.5], [1.0, 2.5]]))
    assert (check.agreement, check.n_differing, check.largest_difference) == (
        Agreement.DIFFERENT,
        1,
        0.5,
    )
    longer = compared("again", answers([[0.5], [1.0]]), answers([[0.5], [1.0, 2.5]]))
    assert (longer.agreement, longer.n_differing) == (Agreement.DIFFERENT, 1)


@pytest.mark.parametrize(
    ("rows", "detail"),
    [
        ([0, 1], "1 rows are missing, 0 too many and 0 doubled"),
        ([0, 1, 2, 3], "0 rows are missing, 1 too many and 0 doubled"),
        ([0, 1, 2, 2], "0 rows are missing, 0 too many and 1 doubled"),
        ([0, 1, 3], "1 rows are missing, 1 too many and 0 doubled"),
    ],
)
def test_lost_and_doubled_rows_are_counted(rows: list[int], detail: str) -> None:
    check = compared("again", answers([1, 2, 3]), answers(list(range(len(rows))), rows))
    assert (check.agreement, check.detail) == (Agreement.DIFFERENT, detail)


def test_close_denies_a_certificate_only_where_equality_is_asked_for() -> None:
    good = (Agreement.EQUAL, Agreement.CLOSE, Agreement.SKIPPED)
    checks = tuple(Check(agreement.value, agreement) for agreement in good)
    assert Certificate({}, {}, {}, checks).failed == ()
    assert Certificate({}, {}, {}, checks, must_be_equal=True).failed == (checks[1],)
    wrong = Check("d", Agreement.DIFFERENT)
    assert Certificate({}, {}, {}, (*checks, wrong)).failed == (wrong,)
