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


def tie_rows(forest: Forest, rows: np.ndarray, n_rows: int) -> np.ndarray:
    """(n_rows, n_features) float64 made of `rows`, with values on and beside thresholds.

    In half of them one value lies there, so that the rows take the ways that real ones take; in
    the others each value that a tree looks at. The same rows for the same arguments.

    Args:
        forest: The model's trees.
        rows: (any number but 0, n_features)
        n_rows: How many to make.
    """
    rng = np.random.default_rng(0)
    made = rows[rng.integers(0, len(rows), n_rows)].astype(np.float64)
    numerical = np.flatnonzero(forest.category_set == NUMERICAL)
    if not len(numerical):
        return made
    chosen = forest.feature[rng.choice(numerical, n_rows)]
    is_alone = np.arange(n_rows) % 2 == 0
    for feature in np.unique(forest.feature[numerical]):
        nodes = numerical[forest.feature[numerical] == feature]
        thresholds = forest.threshold[rng.choice(nodes, n_rows)]
        # A runtime in single precision has other neighbours.
        doubles, singles = (_close_to(thresholds, np.dtype(kind), rng) for kind in ("f8", "f4"))
        values = np.where(rng.random(n_rows) < 0.5, doubles, singles)  # noqa: PLR2004 - a half
        is_put = ~is_alone | (chosen == feature)
        made[:, feature] = np.where(is_put, values, made[:, feature])
    return made


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
