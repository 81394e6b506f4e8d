"""CatBoost's JSON models, read into the flat form.

The format is what `CatBoost.save_model(format="json")` writes (1.2). A level of a tree sets a bit
of the leaf's number if the value is greater than the border, both as float32; leaves are float64,
added tree by tree (`catboost/libs/model/cpu/evaluator_impl.cpp`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sparkscore.errors import listed, shown
from sparkscore.trees.forest import FloatArray, Forest, NotCompiledError
from sparkscore.trees.forest_builder import ForestBuilder, TreeNodes

_Json = Mapping[str, Any]

_FLOATS = "float_features"
_MISSING_LEFT = {"AsIs": True, "AsFalse": True, "AsTrue": False}


@dataclass(frozen=True)
class CatboostModel:
    """A JSON model.

    Attributes:
        forest: The trees. A raw score is scale * (sum of leaves) + bias.
        scale: One for all outputs.
        bias: (n_outputs,)
        loss: Name of the loss function without its options, such as `RMSE`; empty if none is said.
    """

    forest: Forest
    scale: float
    bias: FloatArray
    loss: str


def read_catboost(text: str) -> CatboostModel:
    """The model that `save_model(format="json")` wrote.

    Raises:
        NotCompiledError: It is of a kind or form that is not known.
    """
    try:
        return _read(json.loads(text))
    except (KeyError, ValueError, IndexError, TypeError) as exc:
        if isinstance(exc, NotCompiledError):
            raise
        raise NotCompiledError(f"CatBoost's JSON has another form than known: {exc!r}") from exc


def _read(model: _Json) -> CatboostModel:
    features = model["features_info"]
    others = sorted(kind for kind, found in features.items() if kind != _FLOATS and found)
    if others:
        raise NotCompiledError(f"beside numbers it has {listed(others)}")
    if "oblivious_trees" not in model:
        raise NotCompiledError("its trees are not symmetric (grow_policy)")
    floats = features[_FLOATS]
    if [each["flat_feature_index"] for each in floats] != list(range(len(floats))):
        raise NotCompiledError("its features are not numbered through")
    scale, bias = model["scale_and_bias"]
    builder = ForestBuilder(len(floats), len(bias))
    for tree in model["oblivious_trees"]:
        leaf_value = np.array(tree["leaf_values"], np.float64).reshape(-1, len(bias))
        _add_tree(builder, tree["splits"] or [], leaf_value, floats)
    loss = model["model_info"].get("params", {}).get("loss_function", {}).get("type", "")
    return CatboostModel(builder.build(), float(scale), np.array(bias, np.float64), str(loss))


def _add_tree(
    builder: ForestBuilder, splits: Sequence[_Json], leaf_value: np.ndarray, floats: Sequence[_Json]
) -> None:
    if len(leaf_value) != 1 << len(splits):
        raise NotCompiledError(f"a tree of {len(splits)} levels has {len(leaf_value)} leaves")
    kinds = {split["split_type"] for split in splits} - {"FloatFeature"}
    if kinds:
        raise NotCompiledError(f"it splits by {shown(min(kinds))}")
    if not splits:
        builder.add_tree(None, leaf_value)
        return
    # The last split sets the highest bit, and so is the root's.
    feature = np.array([split["float_feature_index"] for split in reversed(splits)], np.int64)
    border = np.array([split["border"] for split in reversed(splits)], np.float32)
    missing_left = [_MISSING_LEFT[floats[i]["nan_value_treatment"]] for i in feature]
    level = np.repeat(np.arange(len(splits)), 1 << np.arange(len(splits)))
    # Nodes are numbered level by level from the left, and leaves go on from there.
    n_nodes = len(level)
    child = np.arange(1, 2 * n_nodes + 1)
    child = np.where(child < n_nodes, child, ~(child - n_nodes))
    nodes = TreeNodes.numerical(
        feature=feature[level],
        threshold=border[level].astype(np.float64),
        left=child[::2],
        right=child[1::2],
        missing_left=np.array(missing_left, bool)[level],
    )
    builder.add_tree(nodes, leaf_value)
