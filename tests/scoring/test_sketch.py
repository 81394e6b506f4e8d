from __future__ import annotations

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparkscore.scoring.sketch import ColumnSketch, drift

DOUBLES = st.lists(st.none() | st.floats(), max_size=30)


def sketch(values: object, data_type: pa.DataType | None = None) -> ColumnSketch:
    made = ColumnSketch()
    made.add(pa.array(values, data_type))
    return made


@given(DOUBLES, DOUBLES)
def test_parts_add_up_to_the_whole_through_json(one: list[float], other: list[float]) -> None:
    parts = [sketch(values, pa.float64()) for values in (one, other)]
    told = [ColumnSketch.from_facts(json.loads(json.dumps(part.to_facts()))) for part in parts]
    assert told == parts
    assert told[0].plus(told[1]) == sketch(one + other, pa.float64())


@given(DOUBLES)
def test_every_row_is_counted_once(values: list[float]) -> None:
    made = sketch(values, pa.float64())
    assert made.n_rows == len(values)
    assert made.n_nulls + made.n_nan + sum(made.bins.values()) == len(values)


def test_extremes_are_exact_and_infinities_among_them() -> None:
    made = sketch([0.1, -3.5, math.nan, math.inf])
    assert (made.low, made.high, made.n_nan) == (-3.5, math.inf, 1)
    assert sketch([-0.0]).bins == sketch([0.0]).bins
    assert sketch([], pa.float64()) == ColumnSketch()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[0.5, 0.25], None, [], [0.5, None]], pa.list_(pa.float64())),
        pa.array([[[0.5], [0.25]], None, [], [[0.5, None], None]]),
    ],
)
def test_items_of_lists_are_values(column: pa.Array) -> None:
    made = sketch(column)
    assert (made.n_rows, made.n_nulls, sum(made.bins.values())) == (4, 1, 3)


def test_of_other_types_nulls_are_counted() -> None:
    made = sketch([{"prediction": 0.5}, None, {"prediction": None}])
    assert (made.n_rows, made.n_nulls, made.bins) == (3, 1, {})


def test_samples_of_one_distribution_do_not_drift_and_a_shift_does() -> None:
    rng = np.random.default_rng(1)
    before = sketch(rng.beta(2, 5, 20_000))
    assert drift(before, before) == 0
    assert drift(before, sketch(rng.beta(2, 5, 20_000))) < 0.01
    assert drift(before, sketch(rng.beta(2, 5, 20_000) + 0.02)) > 0.02
    assert drift(before, sketch(rng.beta(3, 4, 20_000))) > 0.25
    assert drift(before, sketch(-rng.beta(2, 5, 20_000))) > 1


def test_one_value_that_becomes_another_is_drift() -> None:
    before = sketch([0.5] * 100)
    assert drift(before, before) == 0
    for now in ([0.9] * 100, [-0.5] * 100, [0.5] * 80 + [math.nan] * 20):
        assert drift(before, sketch(now)) > 0.25


def test_texts_drift_by_their_shares() -> None:
    before = sketch(["a"] * 500 + ["b"] * 499 + ["c"])
    assert drift(before, sketch(["b"] * 500 + ["a"] * 500)) < 0.01
    assert drift(before, sketch(["a"] * 900 + ["b"] * 100)) > 0.25
    assert drift(before, sketch(["a"] * 500 + ["new"] * 500)) > 0.25
    many = sketch([str(i) for i in range(1000)])
    assert sum(many.bins.values()) == 1000


@pytest.mark.parametrize("kind", [pa.int64(), pa.bool_(), pa.float32(), pa.decimal128(30, 2)])
def test_every_kind_of_number_is_taken(kind: pa.DataType) -> None:
    made = sketch(pa.array([0, 1, 1, None], pa.int64()).cast(kind))
    assert (made.low, made.high, made.n_nulls) == (0, 1, 1)
    assert sorted(made.bins.values()) == [1, 2]
