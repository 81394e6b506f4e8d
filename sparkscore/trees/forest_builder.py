"""Puts the trees that a reader finds, one by one, into one flat forest."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sparkscore.trees.forest import NUMERICAL, CategorySet, Forest, NotCompiledError

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class TreeNodes:
    """The inner nodes of one tree; node 0 is the root. Arrays of (n_nodes,), as in `Forest`.

    A child is a node of this tree, or `~leaf` for one of its leaves.
    """

    feature: np.ndarray
    threshold: np.ndarray
    left: np.ndarray
    right: np.ndarray
    missing_left: np.ndarray
    zero_is_missing: np.ndarray
    category_set: np.ndarray

    @classmethod
    def numerical(
        cls,
        *,
        feature: np.ndarray,
        threshold: np.ndarray,
        left: np.ndarray,
        right: np.ndarray,
        missing_left: np.ndarray,
    ) -> TreeNodes:
        """Nodes of which each compares with its threshold."""
        n_nodes = len(feature)
        zero_is_missing, sets = np.zeros(n_nodes, bool), np.full(n_nodes, NUMERICAL)
        return cls(feature, threshold, left, right, missing_left, zero_is_missing, sets)


@dataclass
class ForestBuilder:
    """Collects trees in the order in which their leaves are added up."""

    n_features: int
    n_outputs: int
    _trees: list[TreeNodes] = field(default_factory=list)
    _leaf_values: list[np.ndarray] = field(default_factory=list)
    _outputs: list[int] = field(default_factory=list)
    _roots: list[int] = field(default_factory=list)
    _sets: dict[CategorySet, int] = field(default_factory=dict)
    _n_nodes: int = 0
    _n_leaves: int = 0

    def category_set(self, categories: CategorySet) -> int:
        """The index of a set, for `TreeNodes.category_set`; equal sets share one."""
        return self._sets.setdefault(categories, len(self._sets))

    def add_tree(self, nodes: TreeNodes | None, leaf_value: np.ndarray, output: int = 0) -> None:
        """Append a tree.

        Args:
            nodes: None for a tree of one leaf.
            leaf_value: (n_leaves,) or (n_leaves, n_values); as many values in every tree.
            output: Column of the scores that its first value is added to.

        Raises:
            NotCompiledError: The nodes are no tree over these leaves and features.
        """
        n_leaves = len(leaf_value)
        if nodes is not None:
            self._check(nodes, n_leaves)
            left, right = self._shifted(nodes.left), self._shifted(nodes.right)
            self._trees.append(replace(nodes, left=left, right=right))
        self._roots.append(~self._n_leaves if nodes is None else self._n_nodes)
        self._leaf_values.append(leaf_value.reshape(n_leaves, -1))
        self._outputs.append(output)
        self._n_nodes += 0 if nodes is None else len(nodes.feature)
        self._n_leaves += n_leaves

    def build(self) -> Forest:
        """The forest of all trees so far.

        Raises:
            NotCompiledError: There is no tree.
        """
        if not self._roots:
            raise NotCompiledError("it has no trees")
        return Forest(
            feature=self._joined("feature", np.int32),
            threshold=self._joined("threshold", np.float64),
            left=self._joined("left", np.int32),
            right=self._joined("right", np.int32),
            missing_left=self._joined("missing_left", np.bool_),
            zero_is_missing=self._joined("zero_is_missing", np.bool_),
            category_set=self._joined("category_set", np.int32),
            category_sets=tuple(self._sets),
            root=np.array(self._roots, np.int32),
            n_leaves=np.array([len(values) for values in self._leaf_values], np.int32),
            output=np.array(self._outputs, np.int32),
            leaf_value=np.concatenate(self._leaf_values).astype(np.float64),
            n_features=self.n_features,
            n_outputs=self.n_outputs,
        )

    def _joined(self, name: str, dtype: type) -> np.ndarray:
        return np.concatenate([np.empty(0, dtype), *self._arrays(name)]).astype(dtype)

    def _arrays(self, name: str) -> Iterator[np.ndarray]:
        return (getattr(tree, name) for tree in self._trees)

    def _shifted(self, child: np.ndarray) -> np.ndarray:
        return np.where(child >= 0, child + self._n_nodes, child - self._n_leaves)

    def _check(self, nodes: TreeNodes, n_leaves: int) -> None:
        """Kernels check no bounds: what is no tree must not get further than this."""
        n_nodes = len(nodes.feature)
        children = np.concatenate([nodes.left, nodes.right])
        inner, leaves = children[children >= 0], ~children[children < 0]
        is_tree = (
            n_leaves == n_nodes + 1
            and np.array_equal(np.sort(inner), np.arange(1, n_nodes))
            and np.array_equal(np.sort(leaves), np.arange(n_leaves))
        )
        if not is_tree:
            raise NotCompiledError(
                f"tree {len(self._roots)} is no binary tree of {n_leaves} leaves"
            )
        if n_nodes and not (0 <= nodes.feature.min() <= nodes.feature.max() < self.n_features):
            raise NotCompiledError(
                f"tree {len(self._roots)} names a feature beyond the {self.n_features} of the model"
            )
        if np.isnan(nodes.threshold).any():
            raise NotCompiledError(f"tree {len(self._roots)} has a threshold that is no number")
