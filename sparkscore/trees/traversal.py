"""The layout for walking down: for trees with more leaves than bit vectors are good for."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sparkscore.trees.forest import (
    NUMERICAL,
    FloatArray,
    FloatMatrix,
    Forest,
    IntArray,
    UInt8Array,
    category_table,
)

LinkMatrix = np.ndarray[tuple[int, int], np.dtype[np.int32]]


class Traversal(NamedTuple):
    """A forest for `kernels.score_traversal`.

    A column is a feature whose missing values were replaced by what decides the same: -inf, which
    is below every threshold, or NaN, which is below none.
    """

    column_feature: IntArray
    column_zero: UInt8Array  # Whether zeros are missing values.
    column_missing: FloatArray
    column_n_categories: IntArray  # -1: numerical; else the column holds rows of a table.
    threshold: FloatArray  # A view into the same memory as `link`, so that a node is one place.
    link: LinkMatrix  # Left child, right child, column, and start of the node's table or -1.
    table: UInt8Array  # Whether a category goes right.
    tree_root: IntArray
    tree_output: IntArray
    leaf_value: FloatMatrix


def lay_out_traversal(forest: Forest) -> Traversal:
    """`forest` for walking down its trees, however large they are."""
    is_category = forest.category_set != NUMERICAL
    keys, column = np.unique(
        np.stack(
            [
                forest.feature,
                is_category,
                forest.zero_is_missing & ~is_category,
                forest.missing_left & ~is_category,
            ],
            axis=1,
        ).reshape(-1, 4),
        axis=0,
        return_inverse=True,
    )
    widths = np.full(len(keys), -1)
    n_named = np.array([len(each.goes_left) for each in forest.category_sets], np.int64)
    column = column.reshape(-1)
    np.maximum.at(widths, column[is_category], n_named[forest.category_set[is_category]])
    table, start = _tables(forest, widths[column])
    n_nodes = len(forest.feature)
    # Two rows more than needed: numba gives arrays of one row another type, and compiles again.
    nodes = np.zeros((n_nodes + 2, 3), np.float64)
    nodes[:n_nodes, 0] = forest.threshold
    link = nodes.view(np.int32)[:, 2:]
    link[:n_nodes] = np.stack([forest.left, forest.right, column, start], axis=1)
    return Traversal(
        column_feature=keys[:, 0].astype(np.int32),
        column_zero=keys[:, 2].astype(np.uint8),
        column_missing=np.where(keys[:, 3], -np.inf, np.nan),
        column_n_categories=widths.astype(np.int32),
        threshold=nodes[:, 0],
        link=link,
        table=table,
        tree_root=forest.root,
        tree_output=forest.output,
        leaf_value=forest.leaf_value,
    )


def _tables(forest: Forest, widths: np.ndarray) -> tuple[UInt8Array, IntArray]:
    """The tables of all categorical nodes, equal ones once, and where each node's starts."""
    start = np.full(len(forest.feature), -1, np.int32)
    known: dict[tuple[int, int, bool], int] = {}
    tables = []
    n_bytes = 0
    for node in np.flatnonzero(forest.category_set != NUMERICAL):
        index, width = int(forest.category_set[node]), int(widths[node])
        is_left = bool(forest.missing_left[node])
        if (index, width, is_left) not in known:
            known[index, width, is_left] = n_bytes
            tables.append(category_table(forest.category_sets[index], width, is_left=is_left))
            n_bytes += width + 2
        start[node] = known[index, width, is_left]
    return np.concatenate([*tables, np.empty(0, bool)]).astype(np.uint8), start
