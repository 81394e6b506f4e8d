"""scikit-learn's tree ensembles, with compiled trees in the place of the walk down their own.

All else stays the library's code: validation, preprocessing, earlier steps, links and labels. Only
the one method that walks is replaced, on the loaded instance, which is ours alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, cast

import numpy as np

from sparkscore.flavors.compiled_trees import checked_scorer
from sparkscore.trees.forest import FloatMatrix, NotCompiledError
from sparkscore.trees.scorer import ForestScorer
from sparkscore.trees.sklearn_trees import (
    HistTree,
    Tree,
    read_boosted_trees,
    read_hist_trees,
    read_trees,
)


class PredictingTree(Tree, Protocol):
    """A fitted tree that predicts by itself."""

    def predict(self, rows: object) -> np.ndarray:
        """(n_rows, n_values) for float32 rows."""
        ...


def compile_estimator(model: object) -> None:
    """Let `model`, or the last step of a pipeline, score by compiled trees from now on.

    Raises:
        NotCompiledError: It is of another kind, or uses something that compiled trees do not
            know; it then is as it was.
    """
    estimator = _last_step(model)
    name = f"{type(estimator).__module__.partition('.')[0]}.{type(estimator).__name__}"
    if name not in _KINDS:
        raise NotCompiledError(f"compiled trees do not know a {type(estimator).__name__}")
    try:
        _KINDS[name](estimator)
    except (AttributeError, ImportError, IndexError, KeyError, TypeError) as exc:
        # Fitted trees are no public interface: another release may hold them in another way.
        raise NotCompiledError(f"its {type(estimator).__name__} has another form: {exc!r}") from exc


def _last_step(model: object) -> object:
    if type(model).__name__ != "Pipeline" or not type(model).__module__.startswith("sklearn."):
        return model
    return _last_step(cast("Any", model).steps[-1][1])


class _Hist(Protocol):
    n_features_in_: int
    n_trees_per_iteration_: int
    _bin_mapper: Any
    _predictors: Sequence[Sequence[HistTree]]
    _baseline_prediction: np.ndarray
    _predict_iterations: Callable[..., None]
    _preprocess_X: Callable[..., np.ndarray]  # noqa: N815 - scikit-learn's name
    _raw_predict: Callable[..., np.ndarray]


def _compile_hist(model: _Hist) -> None:
    known, index = model._bin_mapper.make_known_categories_bitsets()
    n_outputs = model.n_trees_per_iteration_
    forest = read_hist_trees(model._predictors, model.n_features_in_, n_outputs, known, index)

    def add_native(rows: np.ndarray, scores: FloatMatrix) -> None:
        model._predict_iterations(rows, model._predictors, scores.T, False, 1)

    scorer = checked_scorer(forest, add_native)
    native = model._raw_predict
    baseline = model._baseline_prediction.reshape(n_outputs, 1)

    def raw_predict(rows: object, n_threads: int | None = None) -> np.ndarray:
        matrix = model._preprocess_X(rows, reset=False)
        if not scorer.takes(matrix):
            return native(rows, n_threads)
        scores: np.ndarray = np.zeros((n_outputs, len(matrix))) + baseline
        scorer.add_scores(matrix, scores)
        return scores.T

    model._raw_predict = raw_predict


class _Boosting(Protocol):
    n_features_in_: int
    learning_rate: float
    estimators_: np.ndarray
    _raw_predict_init: Callable[[object], np.ndarray]
    _raw_predict: Callable[[object], np.ndarray]


def _compile_boosting(model: _Boosting) -> None:
    from sklearn.ensemble._gradient_boosting import predict_stages

    trees = [[each.tree_ for each in stage] for stage in model.estimators_]
    n_outputs = model.estimators_.shape[1]
    forest = read_boosted_trees(trees, model.n_features_in_, n_outputs, model.learning_rate)

    def add_native(rows: np.ndarray, scores: FloatMatrix) -> None:
        raw = np.ascontiguousarray(scores.T)
        predict_stages(model.estimators_, rows, model.learning_rate, raw)
        scores[:] = raw.T

    scorer = checked_scorer(forest, add_native, is_float32=True)
    native = model._raw_predict

    def raw_predict(rows: object) -> np.ndarray:
        if not scorer.takes(rows):
            return native(rows)
        scores = np.ascontiguousarray(model._raw_predict_init(rows).T)
        scorer.add_scores(cast("np.ndarray", rows), scores)
        return np.ascontiguousarray(scores.T)

    model._raw_predict = raw_predict


class _Bagging(Protocol):
    estimators_: Sequence[Any]
    _validate_X_predict: Callable[[object], object]  # noqa: N815 - scikit-learn's name
    predict: Callable[[object], np.ndarray]
    predict_proba: Callable[[object], np.ndarray]


def _compile_regressor(model: _Bagging) -> None:
    scorer = _scorer([each.tree_ for each in model.estimators_])
    native = model.predict

    def predict(rows: object) -> np.ndarray:
        matrix = model._validate_X_predict(rows)
        if not scorer.takes(matrix):
            return native(rows)
        mean: np.ndarray = _sums(scorer, matrix)[0] / len(model.estimators_)
        return mean

    model.predict = predict


def _compile_classifier(model: _Bagging) -> None:
    scorer = _scorer([each.tree_ for each in model.estimators_])
    native = model.predict_proba

    def predict_proba(rows: object) -> np.ndarray:
        matrix = model._validate_X_predict(rows)
        if not scorer.takes(matrix):
            return native(rows)
        return np.ascontiguousarray(_sums(scorer, matrix).T) / len(model.estimators_)

    model.predict_proba = predict_proba


class _CompiledTree:
    """What is asked of `estimator.tree_` to predict."""

    def __init__(self, tree: PredictingTree) -> None:
        self._scorer = _scorer([tree])
        self._native = tree.predict

    def predict(self, rows: object) -> np.ndarray:
        if not self._scorer.takes(rows):
            return self._native(rows)
        # A sum that starts at -0.0 is its one value to the bit, even where that is -0.0.
        return np.ascontiguousarray(_sums(self._scorer, rows, -0.0).T)


class _SingleTree(Protocol):
    tree_: Any


def _compile_tree(model: _SingleTree) -> None:
    model.tree_ = _CompiledTree(model.tree_)


def _scorer(trees: Sequence[PredictingTree]) -> ForestScorer:
    def add_native(rows: np.ndarray, scores: FloatMatrix) -> None:
        for tree in trees:
            scores += tree.predict(rows).T

    return checked_scorer(read_trees(trees), add_native, is_float32=True)


def _sums(scorer: ForestScorer, matrix: object, start: float = 0.0) -> FloatMatrix:
    rows = cast("np.ndarray", matrix)
    scores = np.full((scorer.n_outputs, len(rows)), start)
    scorer.add_scores(rows, scores)
    return scores


_KINDS: dict[str, Callable[[Any], None]] = {
    "sklearn.DecisionTreeClassifier": _compile_tree,
    "sklearn.DecisionTreeRegressor": _compile_tree,
    "sklearn.ExtraTreeClassifier": _compile_tree,
    "sklearn.ExtraTreeRegressor": _compile_tree,
    "sklearn.RandomForestClassifier": _compile_classifier,
    "sklearn.RandomForestRegressor": _compile_regressor,
    "sklearn.ExtraTreesClassifier": _compile_classifier,
    "sklearn.ExtraTreesRegressor": _compile_regressor,
    "sklearn.GradientBoostingClassifier": _compile_boosting,
    "sklearn.GradientBoostingRegressor": _compile_boosting,
    "sklearn.HistGradientBoostingClassifier": _compile_hist,
    "sklearn.HistGradientBoostingRegressor": _compile_hist,
}
