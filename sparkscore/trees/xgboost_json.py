"""xgboost's JSON models, read into the flat form.

The format is that of xgboost's `doc/model.schema` (3.x). A node sends a row left if its value
is less than the split condition, both as float32 (`src/predictor/cpu_predictor.cc`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparkscore.errors import shown
from sparkscore.trees.forest import Forest, NotCompiledError
from sparkscore.trees.forest_builder import ForestBuilder, TreeNodes
from sparkscore.trees.thresholds import below_as_float32

_Json = Mapping[str, Any]


@dataclass(frozen=True)
class XgboostModel:
    """A JSON model.

    Attributes:
        forest: The trees; scores are margins without the base score. Leaves are float32.
        objective: Its name, such as `binary:logistic`.
        base_score: (1,) or (n_outputs,) float32; a probability or mean where the objective has one.
    """

    forest: Forest
    objective: str
    base_score: np.ndarray


def read_xgboost(text: str, n_iterations: int | None = None) -> XgboostModel:
    """The model that `Booster.save_raw("json")` wrote.

    Args:
        text: The model.
        n_iterations: Only its first iterations; None: all.

    Raises:
        NotCompiledError: It is of a kind or form that is not known.
    """
    try:
        return _read(json.loads(text)["learner"], n_iterations)
    except (KeyError, ValueError, IndexError, TypeError) as exc:
        if isinstance(exc, NotCompiledError):
            raise
        raise NotCompiledError(f"xgboost's JSON has another form than known: {exc!r}") from exc


def _read(learner: _Json, n_iterations: int | None) -> XgboostModel:
    booster, params = learner["gradient_booster"], learner["learner_model_param"]
    if booster["name"] != "gbtree":
        raise NotCompiledError(f"its booster is {shown(booster['name'])}, not gbtree")
    if int(params.get("num_target", "1")) > 1:
        raise NotCompiledError("it predicts several targets at once")
    model = booster["model"]
    base_score = np.atleast_1d(np.array(json.loads(params["base_score"]), np.float32))
    n_outputs = max(1, int(params["num_class"]))
    builder = ForestBuilder(int(params["num_feature"]), n_outputs)
    n_trees = None if n_iterations is None else model["iteration_indptr"][n_iterations]
    for tree, output in zip(model["trees"][:n_trees], model["tree_info"][:n_trees], strict=True):
        _add_tree(builder, tree, int(output))
    return XgboostModel(builder.build(), str(learner["objective"]["name"]), base_score)


def _add_tree(builder: ForestBuilder, tree: _Json, output: int) -> None:
    if int(tree["tree_param"].get("size_leaf_vector", "1")) > 1:
        raise NotCompiledError("its leaves are vectors (multi_strategy)")
    if any(tree["split_type"]):
        raise NotCompiledError("it splits by category")
    left, right = (np.array(tree[side], np.int64) for side in ("left_children", "right_children"))
    kept = _reachable(left, right)
    is_leaf = left < 0
    inner, leaves = kept[~is_leaf[kept]], kept[is_leaf[kept]]
    condition = np.array(tree["split_conditions"], np.float32)
    if not len(inner):
        builder.add_tree(None, condition[leaves], output)
        return
    number = np.zeros(len(left), np.int64)
    number[inner], number[leaves] = np.arange(len(inner)), ~np.arange(len(leaves))
    nodes = TreeNodes.numerical(
        feature=np.array(tree["split_indices"], np.int64)[inner],
        threshold=below_as_float32(condition[inner]),
        left=number[left[inner]],
        right=number[right[inner]],
        missing_left=np.array(tree["default_left"], bool)[inner],
    )
    builder.add_tree(nodes, condition[leaves], output)


def _reachable(left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """The nodes below the root, itself first; pruning leaves others behind."""
    levels = [np.zeros(1, np.int64)]
    while len(levels[-1]):
        if sum(map(len, levels)) > len(left):
            raise NotCompiledError("its nodes are no tree")
        inner = levels[-1][left[levels[-1]] >= 0]
        levels.append(np.concatenate([left[inner], right[inner]]))
    return np.concatenate(levels)
