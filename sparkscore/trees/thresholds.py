"""Thresholds of libraries that compare in their own way, as those of `x <= threshold` in float64."""

from __future__ import annotations

import numpy as np

from sparkscore.trees.forest import ZERO, FloatArray


def below_as_float32(limits: FloatArray) -> FloatArray:
    """Thresholds t with (x <= t) == (float32(x) <= limit), for every float64 x but NaN.

    Rounding to float32 keeps the order, so the doubles that round to at most the limit end at one
    double: halfway to the next float32, where a tie goes to the even neighbour.
    """
    lower = _float32_at_most(limits)
    upper = np.nextafter(lower, np.float32(np.inf))
    finite_upper = np.where(np.isinf(upper), 2.0**128, upper.astype(np.float64))
    below = np.where(np.isneginf(lower), -(2.0**128), lower.astype(np.float64))
    halfway = below / 2 + finite_upper / 2
    is_even = (lower.view(np.int32) & 1) == 0
    threshold = np.where(is_even, halfway, np.nextafter(halfway, -np.inf))
    return np.where(np.isposinf(lower), np.inf, threshold)


def below_with_zeros_flushed(limits: FloatArray) -> FloatArray:
    """Thresholds t with (x <= t) == ((0 if |x| <= ZERO else x) <= limit), for every x but NaN."""
    near = (limits >= -ZERO) & (limits < ZERO)
    flushed = np.where(limits >= 0, ZERO, np.nextafter(-ZERO, -np.inf))
    return np.where(near, flushed, limits)


def _float32_at_most(limits: FloatArray) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    with np.errstate(over="ignore", under="ignore"):
        nearest = limits.astype(np.float32)
    lower = np.nextafter(nearest, np.float32(-np.inf))
    return np.where(nearest.astype(np.float64) > limits, lower, nearest)
