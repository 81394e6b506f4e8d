"""The layout for oblivious trees, such as CatBoost grows: all nodes of a level have one test.

The answers of a tree's levels, written as bits, are the number of the leaf: one comparison a level
and no branch, where bit vectors take one a node.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from sparkscore.trees.forest import (
    NUMERICAL,
    FloatMatrix,
    Forest,
    IndexArray,
    Int8Array,
    IntArray,
    UInt8Array,
)

Float32Array = np.ndarray[tuple[int], np.dtype[np.float32]]

MAX_LEVELS = 16
"""The number of a leaf has so many bits."""

LOWEST_RANK = -128
"""The rank, as a signed byte, of a value that no threshold lies below."""

HIGHEST_COUNT = 255
"""Thresholds that a byte can tell apart, and the count of a missing value that goes right."""


class Oblivious(NamedTuple):
    """A forest for `kernels.score_oblivious`. Offsets have one entry more than what they part.

    A column is up to HIGHEST_COUNT thresholds of a feature, of which those below a value are
    counted.
    """

    column_feature: IntArray
    column_start: IntArray  # Offsets into threshold.
    column_missing_right: UInt8Array  # Whether a missing value goes right.
    threshold: Float32Array  # Ascending and distinct in each column.
    level_column: IntArray
    level_limit: Int8Array  # A higher rank goes right.
    tree_level: IntArray  # Offsets into level_*, from the root down.
    tree_leaf: IntArray
    tree_output: IntArray
    leaf_value: FloatMatrix  # Leaves of a tree from left to right.


def lay_out_oblivious(forest: Forest) -> Oblivious | None:
    """`forest` by its levels, to score float32 with; None if not all of its trees have such."""
    is_plain = np.all(forest.category_set == NUMERICAL) and not np.any(forest.zero_is_missing)
    with np.errstate(over="ignore"):
        is_float32 = np.array_equal(forest.threshold.astype(np.float32), forest.threshold)
    if not is_plain or not is_float32:
        return None
    levels = _levels(forest)
    if levels is None:
        return None
    columns, column, rank = _columns(forest, levels.node)
    return Oblivious(
        **columns,
        level_column=column.astype(np.int32),
        level_limit=(rank + LOWEST_RANK).astype(np.int8),
        tree_level=_offsets(levels.depth),
        tree_leaf=_offsets(1 << levels.depth)[:-1],
        tree_output=forest.output,
        leaf_value=np.ascontiguousarray(forest.leaf_value[levels.leaves]),
    )


@dataclass(frozen=True)
class _Levels:
    """What stands for the trees.

    Attributes:
        node: (n_levels,) a node of each level, tree by tree from the root down.
        depth: (n_trees,)
        leaves: (n_leaves,) tree by tree from left to right.
    """

    node: IndexArray
    depth: IndexArray
    leaves: IndexArray


def _levels(forest: Forest) -> _Levels | None:
    """All trees a level at a time; None once a level has two tests, or leaves beside nodes."""
    n_trees = len(forest.root)
    depth = np.zeros(n_trees, np.int64)
    leaves: list[np.ndarray] = [np.empty(0, np.int64)] * n_trees
    nodes: list[np.ndarray] = [np.empty(0, np.int64)]
    trees: list[np.ndarray] = [np.empty(0, np.int64)]
    tree, child = np.arange(n_trees), forest.root.reshape(-1, 1)
    while len(tree):
        is_leaf = child < 0
        ends = is_leaf[:, 0]
        if np.any(is_leaf != ends[:, None]):
            return None
        for i, numbers in zip(tree[ends], ~child[ends], strict=True):
            leaves[i] = numbers
        tree, child = tree[~ends], child[~ends]
        n_nodes = child.shape[1]
        if len(tree) and (n_nodes == 1 << MAX_LEVELS or not _have_one_test(forest, child)):
            return None
        nodes.append(child[:, 0])
        trees.append(tree)
        depth[tree] += 1
        below = np.stack([forest.left[child], forest.right[child]], axis=2)
        child = below.reshape(len(tree), 2 * n_nodes)
    node = np.concatenate(nodes)[np.argsort(np.concatenate(trees), kind="stable")]
    return _Levels(node, depth, np.concatenate(leaves))


def _have_one_test(forest: Forest, nodes: np.ndarray) -> bool:
    """Whether each row of `nodes` has one."""
    tests = (forest.feature, forest.threshold, forest.missing_left)
    return all(bool(np.all(test[nodes] == test[nodes[:, :1]])) for test in tests)


def _columns(
    forest: Forest, nodes: IndexArray
) -> tuple[dict[str, np.ndarray], IndexArray, IndexArray]:
    """Columns; then for each node its column, and the rank of its threshold there."""
    kinds, kind = np.unique(
        forest.feature[nodes].astype(np.int64) * 2 + forest.missing_left[nodes],
        return_inverse=True,
    )
    column, rank = (np.zeros(len(nodes), np.int64) for _ in range(2))
    features, is_right = [], []
    tables: list[np.ndarray] = []
    for i, (feature, missing_left) in enumerate(zip(*np.divmod(kinds, 2), strict=True)):
        own = kind == i
        thresholds = np.unique(forest.threshold[nodes[own]])
        part, rank[own] = np.divmod(
            np.searchsorted(thresholds, forest.threshold[nodes[own]]), HIGHEST_COUNT
        )
        column[own] = len(tables) + part
        parts = np.split(thresholds, range(HIGHEST_COUNT, len(thresholds), HIGHEST_COUNT))
        tables += parts
        features += [feature] * len(parts)
        is_right += [not missing_left] * len(parts)
    arrays: dict[str, np.ndarray] = {
        "column_feature": np.array(features, np.int32),
        "column_start": _offsets(np.array([len(table) for table in tables], np.int64)),
        "column_missing_right": np.array(is_right, np.uint8),
        "threshold": np.concatenate([*tables, np.empty(0)]).astype(np.float32),
    }
    return arrays, column, rank


def _offsets(sizes: IndexArray) -> IntArray:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int32)
