"""Whether ways of scoring the same rows agree: column by column, to the bit where they can."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sparkscore.errors import shown

N_EPSILONS = 256
"""Two floats are close if they differ by at most so many units in the last place of the larger.

Enough for sums of some hundred products in another order, as a BLAS takes them when a batch has
another size; far too little for a flipped threshold of a tree.
"""


class Agreement(StrEnum):
    """How the predictions of one way of scoring compare with those of the direct call."""

    EQUAL = "equal"
    """Equal to the bit."""
    CLOSE = "close"
    """Floats differ, each by `N_EPSILONS` units at most."""
    DIFFERENT = "different"
    SKIPPED = "skipped"
    """Not compared; the detail says why."""


@dataclass(frozen=True)
class Check:
    """One way of scoring, compared.

    Attributes:
        name: What was done, such as `files engine, 7 files`.
        n_rows: Rows that were compared.
        n_differing: Rows of which a prediction is not equal to the bit.
        largest_difference: Between two finite floats; absolute.
        detail: The first difference, or why nothing was compared; empty where all is equal.
    """

    name: str
    agreement: Agreement
    n_rows: int = 0
    n_differing: int = 0
    largest_difference: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Certificate:
    """What was found for one model on one sample.

    Attributes:
        model: Name, version, URI and digest.
        sample: URI, version, filter and number of rows.
        runtime: Who scores the model in workers, and why.
        checks: All of them, in the order in which they were made.
        must_be_equal: Whether close is not enough.
    """

    model: dict[str, object]
    sample: dict[str, object]
    runtime: dict[str, object]
    checks: tuple[Check, ...]
    must_be_equal: bool = False

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that deny the certificate."""
        bad = {Agreement.DIFFERENT} | ({Agreement.CLOSE} if self.must_be_equal else set())
        return tuple(check for check in self.checks if check.agreement in bad)

    def as_facts(self) -> dict[str, object]:
        """The certificate as plain values."""
        return {
            "certified": not self.failed,
            "must_be_equal": self.must_be_equal,
            "model": self.model,
            "sample": self.sample,
            "runtime": self.runtime,
            "checks": [vars(check) | {"agreement": check.agreement.value} for check in self.checks],
        }


def compared(name: str, expected: pa.Table, found: pa.Table) -> Check:
    """The check that compares two tables of predictions.

    Args:
        name: What was done.
        expected: Number of a row (int64, sorted, unique), then the predictions.
        found: The same columns, of types that can be cast to those; rows in any order.
    """
    found = found.select(expected.column_names).cast(expected.schema)
    found = found.sort_by(expected.column_names[0])
    wanted, have = (np.asarray(table.column(0)) for table in (expected, found))
    if not np.array_equal(wanted, have):
        lost, surplus = np.setdiff1d(wanted, have), np.setdiff1d(have, wanted)
        n_twice = len(have) - len(np.unique(have))
        detail = f"{len(lost)} rows are missing, {len(surplus)} too many and {n_twice} doubled"
        return Check(name, Agreement.DIFFERENT, len(wanted), len(lost) + len(surplus), 0.0, detail)
    differences = [
        _difference(_whole(expected.column(column)), _whole(found.column(column)))
        for column in expected.column_names[1:]
    ]
    differs = np.zeros(len(wanted), bool)
    for difference in differences:
        differs |= difference.differs
    if not differs.any():
        return Check(name, Agreement.EQUAL, len(wanted))
    is_close = all(difference.is_close for difference in differences)
    return Check(
        name,
        Agreement.CLOSE if is_close else Agreement.DIFFERENT,
        len(wanted),
        int(differs.sum()),
        max(difference.largest for difference in differences),
        _first_difference(expected, found, int(np.flatnonzero(differs)[0])),
    )


@dataclass(frozen=True)
class _Difference:
    """Of one column: by row whether it differs, whether all differences are small, the largest."""

    differs: np.ndarray
    is_close: bool = True
    largest: float = 0.0


def _difference(expected: pa.Array, found: pa.Array) -> _Difference:
    if pa.types.is_floating(expected.type):
        return _difference_of_floats(expected, found)
    if pa.types.is_list(expected.type) and _have_same_lengths(expected, found):
        leaves = _difference(expected.flatten(), found.flatten())
        differs = np.zeros(len(expected), bool)
        differs[np.asarray(pc.list_parent_indices(expected))[leaves.differs]] = True
        return _Difference(differs, leaves.is_close, leaves.largest)
    pairs = zip(expected.to_pylist(), found.to_pylist(), strict=True)
    differs = np.fromiter((a != b for a, b in pairs), bool, len(expected))
    return _Difference(differs, is_close=not differs.any())


def _difference_of_floats(expected: pa.Array, found: pa.Array) -> _Difference:
    missing = np.asarray(expected.is_null()), np.asarray(found.is_null())
    ours, theirs = (
        np.asarray(pc.fill_null(array, 0.0).to_numpy(zero_copy_only=False))
        for array in (expected, found)
    )
    as_bits = np.dtype(f"u{ours.itemsize}")
    same = (ours.view(as_bits) == theirs.view(as_bits)) | (np.isnan(ours) & np.isnan(theirs))
    differs = ~same | (missing[0] != missing[1])
    scale = np.maximum(np.abs(ours), np.abs(theirs))
    with np.errstate(invalid="ignore", over="ignore"):
        distance = np.abs(ours - theirs)
        allowed = N_EPSILONS * np.finfo(ours.dtype).eps * np.maximum(scale, 1.0)
        is_near = same | (np.isfinite(distance) & (distance <= allowed))
    is_close = bool(is_near.all() and np.array_equal(*missing))
    finite = distance[differs & np.isfinite(distance)]
    return _Difference(differs, is_close, float(finite.max(initial=0.0)))


def _have_same_lengths(expected: pa.Array, found: pa.Array) -> bool:
    return bool(pc.list_value_length(expected).equals(pc.list_value_length(found)))


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)


def _first_difference(expected: pa.Table, found: pa.Table, row: int) -> str:
    ours, theirs = (table.slice(row, 1).to_pylist()[0] for table in (expected, found))
    columns: Sequence[str] = expected.column_names[1:]
    parts = [
        f"{name} is {shown(theirs[name])}, directly {shown(ours[name])}"
        for name in columns
        if ours[name] is not theirs[name] and repr(ours[name]) != repr(theirs[name])
    ]
    return f"first in row {ours[expected.column_names[0]]}: {'; '.join(parts)}"
