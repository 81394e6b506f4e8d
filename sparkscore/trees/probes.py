"""Rows that a forest finds hard, to compare a scorer with the library it stands in for."""

from __future__ import annotations

import numpy as np

from sparkscore.trees.forest import NUMERICAL, Forest

N_PROBES = 512
_SHARE_OF_SPECIAL = 0.1
_SPECIAL = np.array([np.nan, 0.0, -0.0, 1e-35, -1e-35, 1e300, -1e300, -1.0, 3.0])


def probe_rows(forest: Forest, dtype: np.dtype[np.generic]) -> np.ndarray:
    """(N_PROBES, n_features) of `dtype`: thresholds, their neighbours, categories, missing values.

    The same rows for the same forest.
    """
    rng = np.random.default_rng(0)
    rows = rng.choice(_SPECIAL, size=(N_PROBES, forest.n_features))
    for feature in range(forest.n_features):
        nodes = np.flatnonzero(forest.feature == feature)
        if not len(nodes):
            continue
        sample = rng.choice(nodes, N_PROBES)
        sets = forest.category_set[sample]
        if (sets != NUMERICAL).any():
            n_categories = max(len(forest.category_sets[i].goes_left) for i in sets if i >= 0)
            categories = [np.nan, *range(-1, n_categories)]
            rows[:, feature] = rng.choice(categories, N_PROBES)
        else:
            is_special = rng.random(N_PROBES) < _SHARE_OF_SPECIAL
            values = _close_to(forest.threshold[sample], dtype, rng)
            rows[:, feature] = np.where(is_special, rows[:, feature], values)
    with np.errstate(over="ignore"):
        return rows.astype(dtype)


def _close_to(
    thresholds: np.ndarray, dtype: np.dtype[np.generic], rng: np.random.Generator
) -> np.ndarray:
    """Each threshold itself, the next number of `dtype` on either side, or one somewhat away."""
    n_rows = len(thresholds)
    scale = np.abs(thresholds) * 0.05 + 1e-3
    low, high = np.array([-np.inf, np.inf]).astype(dtype)
    with np.errstate(over="ignore"):  # A threshold may be the largest number of all.
        rounded = thresholds.astype(dtype)
        lower, upper = np.nextafter(rounded, low), np.nextafter(rounded, high)
    with np.errstate(over="ignore", invalid="ignore"):  # A threshold may be infinite.
        away = thresholds + scale * rng.normal(size=n_rows)
    close: np.ndarray = np.choose(rng.integers(0, 4, n_rows), [thresholds, lower, upper, away])
    return close
