"""scikit-learn's fitted trees, read into the flat form.

Estimators are read by their attributes, so that nothing here imports scikit-learn; it compares
float32 values with float64 thresholds (`sklearn/tree/_tree.pyx`), and float64 values in
HistGradientBoosting (`_hist_gradient_boosting/_predictor.pyx`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from sparkscore.trees.forest import NUMERICAL, CategorySet, Forest, NotCompiledError
from sparkscore.trees.forest_builder import ForestBuilder, TreeNodes


class Tree(Protocol):
    """`sklearn.tree._tree.Tree`: arrays by node; a leaf has no child (-1)."""

    children_left: np.ndarray
    children_right: np.ndarray
    feature: np.ndarray
    threshold: np.ndarray
    missing_go_to_left: np.ndarray
    value: np.ndarray
    n_features: int
    n_outputs: int


class HistTree(Protocol):
    """`TreePredictor` of HistGradientBoosting."""

    nodes: np.ndarray
    raw_left_cat_bitsets: np.ndarray


def read_trees(trees: Sequence[Tree]) -> Forest:
    """Trees whose leaves are added up side by side: one column a class, or one alone.

    Raises:
        NotCompiledError: They predict several targets at once.
    """
    first = trees[0]
    if first.n_outputs != 1:
        raise NotCompiledError(f"its trees predict {first.n_outputs} targets at once")
    builder = ForestBuilder(first.n_features, first.value.shape[2])
    for tree in trees:
        _add_tree(builder, tree, tree.value[:, 0, :])
    return builder.build()


def read_boosted_trees(
    iterations: Iterable[Iterable[Tree]], n_features: int, n_outputs: int, scale: float
) -> Forest:
    """Trees of gradient boosting: of each iteration one a score, each value times `scale`.

    NaN goes right in them: GradientBoosting does not ask where missing values went in fitting.
    """
    builder = ForestBuilder(n_features, n_outputs)
    for trees in iterations:
        for output, tree in enumerate(trees):
            value = scale * tree.value[:, 0, 0]
            _add_tree(builder, tree, value, output, follows_missing=False)
    return builder.build()


def read_hist_trees(
    iterations: Iterable[Iterable[HistTree]],
    n_features: int,
    n_outputs: int,
    known_categories: np.ndarray,
    known_index: np.ndarray,
) -> Forest:
    """Trees of HistGradientBoosting: of each iteration one a score.

    Args:
        iterations: Fitted predictors.
        n_features: Columns after the estimator's own preprocessing.
        n_outputs: Trees an iteration.
        known_categories: (n_categorical, 8) bitsets of the categories seen in fitting.
        known_index: (n_features,) row of `known_categories` for a categorical feature.
    """
    builder = ForestBuilder(n_features, n_outputs)
    known = _bits(known_categories)
    for trees in iterations:
        for output, tree in enumerate(trees):
            _add_hist_tree(builder, tree, known, known_index, output)
    return builder.build()


def _add_tree(
    builder: ForestBuilder,
    tree: Tree,
    value: np.ndarray,
    output: int = 0,
    *,
    follows_missing: bool = True,
) -> None:
    is_leaf = tree.children_left < 0
    if is_leaf[0]:
        builder.add_tree(None, value[:1], output)
        return
    child = _children(is_leaf)
    inner = ~is_leaf
    nodes = TreeNodes.numerical(
        feature=tree.feature[inner],
        threshold=tree.threshold[inner],
        left=child[tree.children_left[inner]],
        right=child[tree.children_right[inner]],
        missing_left=(tree.missing_go_to_left[inner] != 0) & follows_missing,
    )
    builder.add_tree(nodes, value[is_leaf], output)


def _add_hist_tree(
    builder: ForestBuilder,
    tree: HistTree,
    known: np.ndarray,
    known_index: np.ndarray,
    output: int,
) -> None:
    is_leaf = tree.nodes["is_leaf"] != 0
    value = tree.nodes["value"][is_leaf]
    if is_leaf[0]:
        builder.add_tree(None, value, output)
        return
    inner = tree.nodes[~is_leaf]
    child = _children(is_leaf)
    missing_left = inner["missing_go_to_left"] != 0
    is_category = inner["is_categorical"] != 0
    left = _bits(tree.raw_left_cat_bitsets)
    sets = np.full(len(inner), NUMERICAL)
    for node in np.flatnonzero(is_category):
        # A category that was never seen counts as missing.
        others_left = bool(missing_left[node])
        goes_left = left[inner["bitset_idx"][node]]
        is_known = known[known_index[inner["feature_idx"][node]]]
        goes_left = goes_left | ~is_known if others_left else goes_left
        sets[node] = builder.category_set(CategorySet(tuple(goes_left.tolist()), others_left))
    nodes = TreeNodes(
        feature=inner["feature_idx"],
        threshold=np.where(is_category, 0.0, inner["num_threshold"]),
        left=child[inner["left"]],
        right=child[inner["right"]],
        missing_left=missing_left,
        zero_is_missing=np.zeros(len(inner), bool),
        category_set=sets,
    )
    builder.add_tree(nodes, value, output)


def _children(is_leaf: np.ndarray) -> np.ndarray:
    """For each node of scikit-learn's numbering: its number among inner nodes, or ~leaf."""
    return np.where(is_leaf, ~(np.cumsum(is_leaf) - 1), np.cumsum(~is_leaf) - 1)


def _bits(bitsets: np.ndarray) -> np.ndarray:
    """(n, 8) words of 32 bits as (n, 256) booleans."""
    bits = (bitsets[:, :, None] >> np.arange(32, dtype=np.uint32)) & np.uint32(1)
    return bits.reshape(len(bitsets), bitsets.shape[1] * 32).astype(bool)
