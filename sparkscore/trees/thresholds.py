"""Thresholds of libraries that compare in their own way, as those of `x <= threshold`."""

from __future__ import annotations

import numpy as np

from sparkscore.trees.forest import ZERO, FloatArray


def below_as_float32(limits: np.ndarray) -> FloatArray:
    """Thresholds t with (x <= t) == (x < limit), for every float32 x but NaN."""
    below: np.ndarray = np.nextafter(limits.astype(np.float32), np.float32(-np.inf))
    return below.astype(np.float64)


def below_with_zeros_flushed(limits: FloatArray) -> FloatArray:
    """Thresholds t with (x <= t) == ((0 if |x| <= ZERO else x) <= limit), for every x but NaN.

    LightGBM hands rows to its trees as lists of the values that are not zero.
    """
    near_zero = (limits >= -ZERO) & (limits < ZERO)
    flushed = np.where(limits >= 0, ZERO, np.nextafter(-ZERO, -np.inf))
    return np.where(near_zero, flushed, limits)
