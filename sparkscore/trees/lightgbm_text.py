"""LightGBM's text models, read into the flat form.

The format and its decisions are those of LightGBM's `Tree::NumericalDecision` and
`Tree::CategoricalDecision` (include/LightGBM/tree.h), of version v3 and v4.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from sparkscore.errors import shown
from sparkscore.trees.forest import (
    NUMERICAL,
    CategorySet,
    Forest,
    NotCompiledError,
)
from sparkscore.trees.forest_builder import ForestBuilder, TreeNodes
from sparkscore.trees.thresholds import below_with_zeros_flushed

_VERSIONS = ("v3", "v4")
_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_SHIFT, _MISSING_ZERO, _MISSING_NAN = 2, 1, 2


@dataclass(frozen=True)
class LightgbmModel:
    """A text model.

    Attributes:
        forest: The trees; scores are LightGBM's raw scores.
        objective: As the model spells it, such as `binary sigmoid:1`; empty if it has none.
        n_averaged: Iterations that raw scores are the mean of; None where they are sums.
    """

    forest: Forest
    objective: str
    n_averaged: int | None


def read_lightgbm(text: str) -> LightgbmModel:
    """The model that `Booster.model_to_string` wrote.

    Raises:
        NotCompiledError: It has linear trees, or is of a version or form that is not known.
    """
    header, *trees = _sections(text)
    version = header.get("version")
    if version not in _VERSIONS:
        raise NotCompiledError(f"version {shown(version)} of LightGBM's text is not known")
    try:
        n_per_iteration = int(header["num_tree_per_iteration"])
        builder = ForestBuilder(int(header["max_feature_idx"]) + 1, n_per_iteration)
        for i, tree in enumerate(trees):
            _add_tree(builder, tree, i % n_per_iteration)
        forest = builder.build()
    except (KeyError, ValueError, IndexError) as exc:
        if isinstance(exc, NotCompiledError):
            raise
        raise NotCompiledError(f"LightGBM's text has another form than known: {exc!r}") from exc
    n_iterations = len(trees) // n_per_iteration
    return LightgbmModel(
        forest=forest,
        objective=header.get("objective", ""),
        n_averaged=n_iterations if "average_output" in header else None,
    )


def _sections(text: str) -> Iterator[Mapping[str, str]]:
    """The header, then each tree, as key to value; a key alone has an empty value."""
    section: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "end of trees":
            break
        if key == "Tree":
            yield section
            section = {}
        section[key] = value
    yield section


def _add_tree(builder: ForestBuilder, tree: Mapping[str, str], output: int) -> None:
    if tree.get("is_linear", "0") != "0":
        raise NotCompiledError("its leaves are linear models (linear_tree)")
    leaf_value = _numbers(tree, "leaf_value", np.float64)
    if int(tree["num_leaves"]) == 1:
        builder.add_tree(None, leaf_value[:1], output)
        return
    kind = _numbers(tree, "decision_type", np.int64)
    missing = kind >> _MISSING_SHIFT
    if missing.max() > _MISSING_NAN:
        raise NotCompiledError(f"decision type {int(kind.max())} of LightGBM is not known")
    is_category = (kind & _CATEGORICAL) != 0
    is_default_left = (kind & _DEFAULT_LEFT) != 0
    written = _numbers(tree, "threshold", np.float64)
    threshold = below_with_zeros_flushed(written)
    # Where nothing counts as missing, NaN is taken for 0.
    missing_left = np.where(missing == 0, threshold >= 0, is_default_left)
    sets = np.full(len(kind), NUMERICAL)
    for node in np.flatnonzero(is_category):
        sets[node] = builder.category_set(_category_set(tree, int(written[node])))
    nodes = TreeNodes(
        feature=_numbers(tree, "split_feature", np.int64),
        threshold=threshold,
        left=_numbers(tree, "left_child", np.int64),
        right=_numbers(tree, "right_child", np.int64),
        missing_left=missing_left & ~is_category,
        zero_is_missing=(missing == _MISSING_ZERO) & ~is_category,
        category_set=sets,
    )
    builder.add_tree(nodes, leaf_value, output)


def _category_set(tree: Mapping[str, str], index: int) -> CategorySet:
    boundaries = _numbers(tree, "cat_boundaries", np.int64)
    words = _numbers(tree, "cat_threshold", np.int64)[boundaries[index] : boundaries[index + 1]]
    bits = (words[:, None] >> np.arange(32)) & 1
    return CategorySet(tuple(bool(bit) for bit in bits.reshape(-1)))


def _numbers(tree: Mapping[str, str], key: str, dtype: type) -> np.ndarray:
    return np.array(tree[key].split(), dtype)
