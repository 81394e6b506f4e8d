"""Rows on which a model's answer hangs by one unit in the last place of a value."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa

from sparkscore.scoring.parity import differences

Predict = Callable[[pa.RecordBatch], pa.StructArray]

_MAX_STEPS = 80
"""Enough for two doubles without a third between them, unless these are all but zero."""


def searched_ties(
    predict: Predict, rows: pa.RecordBatch, columns: Sequence[int], n_pairs: int
) -> pa.RecordBatch | None:
    """Rows on both sides of points where the answer jumps, found without knowing the model.

    A value of a row is moved towards that of another row until the answer changes between two
    neighbouring doubles. Both are given, and the floats next to them.

    Args:
        predict: Answers rows like `rows`.
        rows: At least one.
        columns: Positions of columns of doubles, at least one.
        n_pairs: How many points to look for.

    Returns:
        Up to 4 * n_pairs rows; None where no answer changes.
    """
    rng = np.random.default_rng(0)
    base = rows.take(pa.array(rng.integers(0, rows.num_rows, n_pairs)))
    others = rows.take(pa.array(rng.integers(0, rows.num_rows, n_pairs)))
    chosen = rng.choice(list(columns), n_pairs)
    low, high = (_chosen_values(batch, chosen, columns) for batch in (base, others))
    expected = predict(_with_values(base, chosen, columns, low))
    jumps = differences(expected, predict(_with_values(base, chosen, columns, high))) > 0
    found = np.flatnonzero(jumps & np.isfinite(low) & np.isfinite(high))
    if not len(found):
        return None
    kept = pa.array(found)
    base, expected = base.take(kept), expected.take(kept)
    chosen, low, high = chosen[found], low[found], high[found]
    for _ in range(_MAX_STEPS):
        middle = low + (high - low) / 2
        if ((middle == low) | (middle == high)).all():
            break
        is_beyond = differences(expected, predict(_with_values(base, chosen, columns, middle))) > 0
        low, high = np.where(is_beyond, low, middle), np.where(is_beyond, middle, high)
    sides = (low, high, low.astype(np.float32), high.astype(np.float32))
    made = [_with_values(base, chosen, columns, side) for side in sides]
    (rows,) = pa.Table.from_batches(made).combine_chunks().to_batches()
    return rows


def _chosen_values(batch: pa.RecordBatch, chosen: np.ndarray, columns: Sequence[int]) -> np.ndarray:
    """Of each row the value in its chosen column; null is NaN."""
    values = np.empty(batch.num_rows)
    for column in columns:
        at = chosen == column
        values[at] = batch.column(column).to_numpy(zero_copy_only=False)[at]
    return values


def _with_values(
    batch: pa.RecordBatch, chosen: np.ndarray, columns: Sequence[int], values: np.ndarray
) -> pa.RecordBatch:
    """`batch` with other values in the chosen columns; null stays null elsewhere."""
    arrays = list(batch.columns)
    for column in columns:
        mixed = np.where(
            chosen == column, values, batch.column(column).to_numpy(zero_copy_only=False)
        )
        arrays[column] = pa.array(mixed, mask=np.isnan(mixed))
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)
