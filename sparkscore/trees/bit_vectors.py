"""The layout for bit vectors over leaves, which need no branch and no walk.

The leaves of a tree are numbered so that the smaller child of each node comes first, eight to a
plane. A row starts with all leaves; a node whose test sends it to the second child takes the
leaves of the first child away; the first leaf that is left is the exit (Lucchese et al.,
"QuickScorer", SIGIR 2015; planes of bytes: Ye et al., "RapidScorer", KDD 2018). Here a value is
first replaced by its rank among the thresholds of its feature, so that a test compares bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparkscore.trees.forest import (
    NUMERICAL,
    BoolArray,
    FloatArray,
    FloatMatrix,
    Forest,
    IndexArray,
    Int8Array,
    IntArray,
    UInt8Array,
    category_table,
    node_levels,
)

BLOCK_ROWS = 256
"""Rows that are scored together: their ranks and sums stay in the first-level cache."""

LEAVES_PER_PLANE = 8
MAX_LEAVES = 1024
"""Up to here faster than walking down; at 2,047 leaves either was, by the number of trees.

A plane's number is a byte, so that the layout itself would hold twice as many.
"""

ALL_LEFT = -128
"""The rank, as a signed byte, that no step is below."""

MISSING = -1
"""Found by a search where the value is missing."""

_RANKS_PER_COLUMN = 255
"""Thresholds that a byte can tell apart."""

_GOES_LEFT = 2
"""Flag of columns whose missing values go left; the other flag, 1, is that of mirrored ones."""


class BitVectors(NamedTuple):
    """A forest for `kernels.score_bit_vectors`. Offsets have one entry more than what they part.

    Columns of ranks are numbered through: numerical ones in the order of searches, then
    categorical ones in the order of groups. A step is a node's test on one plane.
    """

    search_feature: IntArray
    search_zero: UInt8Array  # Whether zeros are missing values.
    search_start: IntArray  # Offsets into threshold.
    search_column: IntArray  # Offsets into column_*.
    threshold: FloatArray  # Ascending and distinct in each search.
    column_start: IntArray  # First threshold of the search that the column tells apart.
    column_missing: IntArray  # Rank of a missing value.
    column_mirror: Int8Array  # -1: ranks are inverted, for tests that take leaves where x <= t.
    group_feature: IntArray
    group_n_categories: IntArray
    group_column: IntArray  # Offsets into column_table.
    column_table: IntArray  # Start of the column's ranks by category, others, NaN.
    table: Int8Array
    step_column: IntArray
    step_limit: Int8Array
    step_clear: UInt8Array  # The leaves that are taken away above the limit.
    plane_step: IntArray  # Offsets into step_*.
    tree_plane: IntArray  # Offsets into planes.
    tree_leaf: IntArray
    tree_output: IntArray
    leaf_value: FloatMatrix


def lay_out_bit_vectors(forest: Forest) -> BitVectors:
    """`forest` as bit vectors; none of its trees has more than MAX_LEAVES leaves."""
    order = _leaf_order(forest)
    searches, numerical, rank = _numerical_columns(forest, order)
    groups, categorical = _categorical_columns(forest, order)
    is_category = forest.category_set != NUMERICAL
    column = np.zeros(len(forest.feature), np.int64)
    column[~is_category] = numerical
    column[is_category] = categorical + len(searches["column_start"])
    # x > t is rank > limit; for a mirrored column x <= t is -1 - rank > limit.
    limit = np.full(len(forest.feature), ALL_LEFT)
    is_mirrored = order.is_mirrored[~is_category]
    limit[~is_category] = np.where(is_mirrored, -2 - (rank + ALL_LEFT), rank + ALL_LEFT)
    return BitVectors(
        **searches,
        **groups,
        **_steps(order, column, limit),
        tree_leaf=order.tree_leaf[:-1].astype(np.int32),
        tree_output=forest.output,
        leaf_value=np.ascontiguousarray(forest.leaf_value[order.leaves]),
    )


@dataclass(frozen=True)
class _LeafOrder:
    """How leaves are numbered; nodes are those of the forest.

    Attributes:
        is_mirrored: (n_nodes,) whether the right child has fewer leaves, and so comes first.
        start: (n_nodes,) number in its tree of the first leaf below the node.
        n_first: (n_nodes,) leaves below the first child.
        tree: (n_nodes,)
        tree_leaf: (n_trees + 1,) offsets into `leaves`.
        leaves: (n_leaves,) the forest's leaves, tree by tree in their new order.
    """

    is_mirrored: BoolArray
    start: IndexArray
    n_first: IndexArray
    tree: IndexArray
    tree_leaf: IndexArray
    leaves: IndexArray


def _leaf_order(forest: Forest) -> _LeafOrder:
    n_nodes, roots = len(forest.feature), forest.root
    levels = list(node_levels(forest))
    n_leaves = np.zeros(n_nodes, np.int64)

    def count(child: IntArray) -> IndexArray:
        return np.where(child >= 0, n_leaves[np.maximum(child, 0)], 1) if n_nodes else child * 0 + 1

    for nodes in reversed(levels):
        n_leaves[nodes] = count(forest.left[nodes]) + count(forest.right[nodes])
    is_mirrored = count(forest.left) > count(forest.right)
    first = np.where(is_mirrored, forest.right, forest.left)
    second = np.where(is_mirrored, forest.left, forest.right)
    n_first = count(first)
    tree_leaf = np.concatenate([[0], np.cumsum(count(roots))])
    # Nodes and leaves, ~leaf from the end: both are numbered from their parent's number.
    start, tree = (np.zeros(n_nodes + len(forest.leaf_value), np.int64) for _ in range(2))
    tree[roots] = np.arange(len(roots))
    for nodes in levels:
        for child, offset in ((first[nodes], 0), (second[nodes], n_first[nodes])):
            start[child] = start[nodes] + offset
            tree[child] = tree[nodes]
    used = np.concatenate([roots, first, second])
    used = used[used < 0]
    leaves = np.zeros(len(used), np.int64)
    leaves[tree_leaf[tree[used]] + start[used]] = ~used
    return _LeafOrder(is_mirrored, start[:n_nodes], n_first, tree[:n_nodes], tree_leaf, leaves)


def _numerical_columns(
    forest: Forest, order: _LeafOrder
) -> tuple[dict[str, np.ndarray], IndexArray, IndexArray]:
    """Searches and columns; then for each numerical node its column, and its rank there."""
    nodes = np.flatnonzero(forest.category_set == NUMERICAL)
    kinds, search = np.unique(
        forest.feature[nodes].astype(np.int64) * 2 + forest.zero_is_missing[nodes],
        return_inverse=True,
    )
    tables = [np.unique(forest.threshold[nodes[search == i]]) for i in range(len(kinds))]
    position = np.zeros(len(nodes), np.int64)
    for i, table in enumerate(tables):
        position[search == i] = np.searchsorted(table, forest.threshold[nodes[search == i]])
    # Columns differ in search, in which thresholds they tell apart, and in two flags.
    part, rank = np.divmod(position, _RANKS_PER_COLUMN)
    flags = forest.missing_left[nodes] * _GOES_LEFT + order.is_mirrored[nodes]
    keys, column = np.unique(
        np.stack([search, part, flags], axis=1).reshape(-1, 3), axis=0, return_inverse=True
    )
    arrays: dict[str, np.ndarray] = {
        "search_feature": (kinds // 2).astype(np.int32),
        "search_zero": (kinds % 2).astype(np.uint8),
        "search_start": _offsets([len(table) for table in tables]),
        "search_column": _offsets(np.bincount(keys[:, 0], minlength=len(kinds))),
        "threshold": np.concatenate([*tables, np.empty(0)]),
        "column_start": (keys[:, 1] * _RANKS_PER_COLUMN).astype(np.int32),
        "column_missing": np.where(keys[:, 2] >= _GOES_LEFT, 0, _RANKS_PER_COLUMN).astype(np.int32),
        "column_mirror": -(keys[:, 2] % 2).astype(np.int8),
    }
    return arrays, column.reshape(-1), rank


def _categorical_columns(
    forest: Forest, order: _LeafOrder
) -> tuple[dict[str, np.ndarray], IndexArray]:
    """Groups of columns by feature; then for each categorical node its column among them."""
    nodes = np.flatnonzero(forest.category_set != NUMERICAL)
    flags = forest.missing_left[nodes] * _GOES_LEFT + order.is_mirrored[nodes]
    keys, column = np.unique(
        np.stack([forest.feature[nodes], forest.category_set[nodes], flags], axis=1).reshape(-1, 3),
        axis=0,
        return_inverse=True,
    )
    features, group = np.unique(keys[:, 0], return_inverse=True)
    widths = np.zeros(len(features), np.int64)
    np.maximum.at(widths, group, [len(forest.category_sets[key].goes_left) for key in keys[:, 1]])
    starts = _offsets(widths[group] + 2)
    goes_right = [
        category_table(forest.category_sets[key], int(width), is_left=flag >= _GOES_LEFT)
        for (_, key, flag), width in zip(keys, widths[group], strict=True)
    ]
    is_second = [table ^ bool(flag % 2) for table, flag in zip(goes_right, keys[:, 2], strict=True)]
    arrays: dict[str, np.ndarray] = {
        "group_feature": features.astype(np.int32),
        "group_n_categories": widths.astype(np.int32),
        "group_column": _offsets(np.bincount(group, minlength=len(features))),
        "column_table": starts[:-1],
        # The rank of a value that goes to the second child is one higher.
        "table": (np.concatenate([*is_second, np.empty(0, bool)]) + ALL_LEFT).astype(np.int8),
    }
    return arrays, column.reshape(-1)


def _steps(order: _LeafOrder, column: IndexArray, limit: IndexArray) -> dict[str, np.ndarray]:
    """One step for each node and each plane that the first child of it has leaves in."""
    n_planes = -(-np.diff(order.tree_leaf) // LEAVES_PER_PLANE)
    tree_plane = _offsets(n_planes)
    end = order.start + order.n_first
    first_plane = order.start // LEAVES_PER_PLANE
    n_steps = (end - 1) // LEAVES_PER_PLANE - first_plane + 1
    node = np.repeat(np.arange(len(column)), n_steps)
    nth = np.arange(len(node)) - np.repeat(np.cumsum(n_steps) - n_steps, n_steps)
    plane = first_plane[node] + nth
    low = np.maximum(order.start[node] - plane * LEAVES_PER_PLANE, 0)
    high = np.minimum(end[node] - plane * LEAVES_PER_PLANE, LEAVES_PER_PLANE)
    plane += tree_plane[order.tree[node]]
    sequence = np.lexsort((column[node], plane))
    node = node[sequence]
    return {
        "step_column": column[node].astype(np.int32),
        "step_limit": limit[node].astype(np.int8),
        "step_clear": ((1 << high) - (1 << low))[sequence].astype(np.uint8),
        "plane_step": _offsets(np.bincount(plane, minlength=int(n_planes.sum()))),
        "tree_plane": tree_plane,
    }


def _offsets(sizes: Sequence[int] | IndexArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
