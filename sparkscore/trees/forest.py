"""The flat form of a tree ensemble, which readers make and kernels are laid out from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

BoolArray = np.ndarray[tuple[int], np.dtype[np.bool_]]
IntArray = np.ndarray[tuple[int], np.dtype[np.int32]]
Int8Array = np.ndarray[tuple[int], np.dtype[np.int8]]
IndexArray = np.ndarray[Any, np.dtype[np.integer[Any]]]
UInt8Array = np.ndarray[tuple[int], np.dtype[np.uint8]]
FloatArray = np.ndarray[tuple[int], np.dtype[np.float64]]
FloatMatrix = np.ndarray[tuple[int, int], np.dtype[np.float64]]

ZERO = float(np.float32(1e-35))
"""LightGBM takes values up to this size for zero; it is a float32 there."""

NUMERICAL = -1
"""In `Forest.category_set`: the node compares with its threshold."""


class NotCompiledError(ValueError):
    """Compiled trees cannot serve a model; says in one line why.

    Caught where runtimes are chosen: the model's own library then serves.
    """


@dataclass(frozen=True)
class CategorySet:
    """Categories of one feature that go to the left child.

    A value counts as the category that it has without its fraction, as in C.

    Attributes:
        goes_left: For category 0, 1, ...: whether it goes left.
        others_left: Whether categories beyond those do, and negative ones.
    """

    goes_left: tuple[bool, ...]
    others_left: bool = False


@dataclass(frozen=True)
class Forest:
    """The trees of one model.

    A child is the index of a node, or `~leaf` for the index of a leaf. Node by node:

    - a missing value (NaN, and where `zero_is_missing` also |x| <= ZERO) goes left if
      `missing_left`, else right;
    - a node with a category set looks there;
    - any other goes left if x <= `threshold`, in float64. Readers of libraries that compare
      otherwise (float32, less than, zeros flushed) give the threshold that decides the same.

    Attributes:
        feature: (n_nodes,) column of the matrix.
        threshold: (n_nodes,) never NaN.
        left: (n_nodes,) child.
        right: (n_nodes,) child.
        missing_left: (n_nodes,)
        zero_is_missing: (n_nodes,)
        category_set: (n_nodes,) index into `category_sets`, or NUMERICAL.
        category_sets: Each distinct set once.
        root: (n_trees,) child, in the order in which leaves are added up.
        n_leaves: (n_trees,)
        output: (n_trees,) column of the scores that the first value of the tree's leaves goes to.
        leaf_value: (n_leaves, n_values) float64; several values go to columns side by side.
        n_features: Columns of the matrix.
        n_outputs: Columns of the scores.
    """

    feature: IntArray
    threshold: FloatArray
    left: IntArray
    right: IntArray
    missing_left: BoolArray
    zero_is_missing: BoolArray
    category_set: IntArray
    category_sets: tuple[CategorySet, ...]
    root: IntArray
    n_leaves: IntArray
    output: IntArray
    leaf_value: FloatMatrix
    n_features: int
    n_outputs: int


def node_levels(forest: Forest) -> Iterator[IntArray]:
    """The nodes of all trees level by level, roots first."""
    nodes = forest.root[forest.root >= 0]
    while len(nodes):
        yield nodes
        children = np.concatenate([forest.left[nodes], forest.right[nodes]])
        nodes = children[children >= 0]


def category_table(categories: CategorySet, n_categories: int, *, is_left: bool) -> BoolArray:
    """Whether category 0, 1, ..., any other number, and a missing value go to the right.

    Args:
        categories: The set.
        n_categories: At least as many as the set names.
        is_left: Whether a missing value goes left.
    """
    table = np.full(n_categories + 2, not categories.others_left)
    table[: len(categories.goes_left)] = np.logical_not(categories.goes_left)
    table[-1] = not is_left
    return table
