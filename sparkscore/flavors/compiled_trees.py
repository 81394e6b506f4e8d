"""Compiled trees stand in for a library only where they were seen to be equal to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sparkscore.trees.forest import FloatMatrix, Forest, NotCompiledError
from sparkscore.trees.probes import probe_rows
from sparkscore.trees.scorer import ForestScorer

if TYPE_CHECKING:
    from collections.abc import Callable


def checked_scorer(
    forest: Forest,
    add_native: Callable[[np.ndarray, FloatMatrix], None],
    *,
    is_float32: bool = False,
) -> ForestScorer:
    """A scorer that was seen to agree with the model's own library, to the bit.

    Args:
        forest: The model's trees.
        add_native: Adds the library's own scores of a matrix, as `ForestScorer.add_scores` does.
        is_float32: Whether the library is given float32.

    Raises:
        NotCompiledError: They differ on rows around the model's thresholds, or the forest cannot
            be compiled.
    """
    scorer = ForestScorer(forest, is_float32=is_float32)
    rows = probe_rows(forest, scorer.dtype)
    ours, native = (np.zeros((forest.n_outputs, len(rows))) for _ in range(2))
    scorer.add_scores(rows, ours)
    add_native(rows, native)
    check_equal(ours, native)
    return scorer


def check_equal(ours: np.ndarray, native: np.ndarray) -> None:
    """Compare scores of probe rows.

    Raises:
        NotCompiledError: They differ in a bit.
    """
    same = ours.shape == native.shape and ours.tobytes() == native.tobytes()
    if not same:
        raise NotCompiledError(
            "compiled trees and the library disagree on rows near its thresholds"
        )
