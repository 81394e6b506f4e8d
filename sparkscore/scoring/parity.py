"""By how much the predictions of two models differ, row by row."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Parity:
    """How the predictions of a model compare with those of the one that it shall replace.

    Attributes:
        n_rows: Rows that were compared.
        n_differing: Rows of which a prediction has another value.
        largest_difference: Between two predictions of a row; infinite where labels, missing
            values or numbers of items differ.
        worst_row: Index of a row that differs most.
    """

    n_rows: int
    n_differing: int
    largest_difference: float
    worst_row: int

    def is_within(self, tolerance: float) -> bool:
        """Whether no two predictions differ by more; what has no distance never is."""
        # NaN is no tolerance, and an infinite one says nothing of labels.
        return self.largest_difference <= tolerance and math.isfinite(self.largest_difference)


def parity_of(expected: pa.StructArray, found: pa.StructArray) -> Parity:
    """The comparison of two sets of predictions of the same columns, at least one row each."""
    by_row = differences(expected, found)
    worst = int(np.argmax(by_row))
    return Parity(
        n_rows=len(expected),
        n_differing=int((by_row > 0).sum()),
        largest_difference=float(by_row[worst]),
        worst_row=worst,
    )


def differences(expected: pa.StructArray, found: pa.StructArray) -> np.ndarray:
    """(n_rows,) the largest absolute difference of two predictions of each row; see `Parity`."""
    largest = np.zeros(len(expected))
    for ours, theirs in zip(expected.flatten(), found.flatten(), strict=True):
        largest = np.maximum(largest, _of_column(ours, theirs))
    return largest


def _of_column(expected: pa.Array, found: pa.Array) -> np.ndarray:
    """(n_rows,) absolute difference of each row; 0 where both are the same or both are NaN."""
    if pa.types.is_floating(expected.type):
        return _of_floats(expected, found)
    if pa.types.is_list(expected.type) and pa.types.is_floating(expected.type.value_type):
        return _of_lists(expected, found)
    pairs = zip(expected.to_pylist(), found.to_pylist(), strict=True)
    return np.fromiter((0.0 if a == b else np.inf for a, b in pairs), float, len(expected))


def _of_floats(expected: pa.Array, found: pa.Array) -> np.ndarray:
    ours, theirs = (
        np.asarray(pc.fill_null(array, 0.0).cast(pa.float64())) for array in (expected, found)
    )
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(ours - theirs)
    distance = np.where((ours == theirs) | (np.isnan(ours) & np.isnan(theirs)), 0.0, distance)
    distance = np.where(np.isnan(distance), np.inf, distance)
    is_one_null = np.asarray(expected.is_null()) != np.asarray(found.is_null())
    return np.where(is_one_null, np.inf, distance)


def _of_lists(expected: pa.ListArray, found: pa.ListArray) -> np.ndarray:
    lengths = (np.asarray(pc.fill_null(each.value_lengths(), -1)) for each in (expected, found))
    is_equal_length = np.equal(*lengths)
    kept = pa.array(is_equal_length)
    ours, theirs = expected.filter(kept), found.filter(kept)
    largest = np.zeros(len(ours))
    items = _of_floats(ours.flatten(), theirs.flatten())
    np.maximum.at(largest, np.asarray(pc.list_parent_indices(ours)), items)
    by_row = np.full(len(expected), np.inf)
    by_row[is_equal_length] = largest
    return by_row
