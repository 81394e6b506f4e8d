"""The trees of a fitted model of any library, whoever scores them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sparkscore.trees.forest import Forest, NotCompiledError
from sparkscore.trees.lightgbm_text import read_lightgbm
from sparkscore.trees.sklearn_trees import read_boosted_trees, read_hist_trees, read_trees
from sparkscore.trees.xgboost_json import read_xgboost


def forest_of(model: object) -> Forest | None:
    """The trees that look at the columns of a model's input; None where it has none.

    The last step of a pipeline looks at what the steps before it have made, which are no columns.
    """
    library = type(model).__module__.partition(".")[0]
    read = _READERS.get(f"{library}.{type(model).__name__}") or _READERS.get(library)
    if read is None:
        return None
    try:
        return read(model)
    except (NotCompiledError, AttributeError, IndexError, KeyError, TypeError):
        # Another kind of booster, or fitted trees of another release: both have no known form.
        return None


def _of_lightgbm(model: Any) -> Forest:  # noqa: ANN401 - LightGBM's
    booster = getattr(model, "booster_", model)
    return read_lightgbm(booster.model_to_string()).forest


def _of_xgboost(model: Any) -> Forest:  # noqa: ANN401 - xgboost's
    booster = model.get_booster() if hasattr(model, "get_booster") else model
    return read_xgboost(bytes(booster.save_raw("json")).decode()).forest


def _of_tree(model: Any) -> Forest:  # noqa: ANN401 - scikit-learn's
    return read_trees([model.tree_])


def _of_bagging(model: Any) -> Forest:  # noqa: ANN401 - scikit-learn's
    return read_trees([each.tree_ for each in model.estimators_])


def _of_boosting(model: Any) -> Forest:  # noqa: ANN401 - scikit-learn's
    trees = [[each.tree_ for each in stage] for stage in model.estimators_]
    n_outputs = model.estimators_.shape[1]
    return read_boosted_trees(trees, model.n_features_in_, n_outputs, model.learning_rate)


def _of_hist(model: Any) -> Forest:  # noqa: ANN401 - scikit-learn's
    known, index = model._bin_mapper.make_known_categories_bitsets()
    return read_hist_trees(
        model._predictors, model.n_features_in_, model.n_trees_per_iteration_, known, index
    )


_READERS: dict[str, Callable[[Any], Forest]] = {
    "lightgbm": _of_lightgbm,
    "xgboost": _of_xgboost,
    "sklearn.DecisionTreeClassifier": _of_tree,
    "sklearn.DecisionTreeRegressor": _of_tree,
    "sklearn.ExtraTreeClassifier": _of_tree,
    "sklearn.ExtraTreeRegressor": _of_tree,
    "sklearn.RandomForestClassifier": _of_bagging,
    "sklearn.RandomForestRegressor": _of_bagging,
    "sklearn.ExtraTreesClassifier": _of_bagging,
    "sklearn.ExtraTreesRegressor": _of_bagging,
    "sklearn.GradientBoostingClassifier": _of_boosting,
    "sklearn.GradientBoostingRegressor": _of_boosting,
    "sklearn.HistGradientBoostingClassifier": _of_hist,
    "sklearn.HistGradientBoostingRegressor": _of_hist,
}
