"""How well a scikit-learn model does on the rows it was fitted on, under MLflow's names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

if TYPE_CHECKING:
    from sparkscore.autologging.training import Training

_N_BINARY = 2


class _Fitted(Protocol):
    def predict(self, X: object) -> np.ndarray: ...  # noqa: N803 - scikit-learn's name

    def predict_proba(self, X: object) -> np.ndarray: ...  # noqa: N803 - scikit-learn's name

    def score(self, X: object, y: object, **weights: object) -> float: ...  # noqa: N803


def training_metrics(
    model: object, features: object, targets: object, weights: object, training: Training
) -> dict[str, float]:
    """The metrics that are defined for a classifier or regressor; none for other models.

    Args:
        model: Fitted.
        features: The rows it was fitted on.
        targets: Their labels.
        weights: Their weights, or None.
        training: Is told of a metric that fails; the others are there.
    """
    from sklearn.base import is_classifier, is_regressor

    if targets is None or not callable(getattr(model, "predict", None)):
        return {}
    fitted = cast("_Fitted", model)
    if is_classifier(model):
        measures, main = _of_classifier(fitted, features, targets, weights), "accuracy_score"
    elif is_regressor(model):
        measures, main = _of_regressor(fitted, features, targets, weights), "r2_score"
    else:
        return {}
    values: dict[str, float] = {}
    for name, measure in measures.items():
        with training.keeping(f"training_{name}"):
            values[f"training_{name}"] = float(measure())
    with training.keeping("training_score"):
        if f"training_{main}" in values and _has_usual_score(model):
            # That of scikit-learn itself, which would predict all rows once more.
            values["training_score"] = values[f"training_{main}"]
        else:
            given = {} if weights is None else {"sample_weight": weights}
            values["training_score"] = float(fitted.score(features, targets, **given))
    return values


def _of_classifier(
    model: _Fitted, features: object, targets: object, weights: object
) -> Mapping[str, Callable[[], float]]:
    from sklearn import metrics

    predicted = model.predict(features)
    weighted = {"sample_weight": weights}
    # A class that is never predicted counts 0, without a warning.
    mean = {"average": "weighted", "zero_division": 0, **weighted}
    measures: dict[str, Callable[[], float]] = {
        "accuracy_score": lambda: metrics.accuracy_score(targets, predicted, **weighted),
        "precision_score": lambda: metrics.precision_score(targets, predicted, **mean),
        "recall_score": lambda: metrics.recall_score(targets, predicted, **mean),
        "f1_score": lambda: metrics.f1_score(targets, predicted, **mean),
    }
    given = np.asarray(targets)
    labels = np.unique(given)
    is_plain = given.ndim == 1 and len(labels) >= _N_BINARY
    if is_plain and callable(getattr(model, "predict_proba", None)):
        chances = model.predict_proba(features)
        # Of two classes the area is that of the second one.
        ranked = chances[:, 1] if len(labels) == _N_BINARY else chances
        how = {"average": "weighted", "multi_class": "ovo"} if len(labels) > _N_BINARY else {}
        weight = weighted if len(labels) == _N_BINARY else {}
        measures["log_loss"] = lambda: metrics.log_loss(targets, chances, labels=labels, **weighted)
        measures["roc_auc"] = lambda: metrics.roc_auc_score(targets, ranked, **how, **weight)
    return measures


def _of_regressor(
    model: _Fitted, features: object, targets: object, weights: object
) -> Mapping[str, Callable[[], float]]:
    from sklearn import metrics

    predicted = model.predict(features)
    # Their names are those of the functions.
    functions: tuple[Callable[..., float], ...] = (
        metrics.mean_squared_error,
        metrics.root_mean_squared_error,
        metrics.mean_absolute_error,
        metrics.r2_score,
    )
    return {f.__name__: partial(f, targets, predicted, sample_weight=weights) for f in functions}


def _has_usual_score(model: object) -> bool:
    from sklearn.base import ClassifierMixin, RegressorMixin

    return type(model).score in (ClassifierMixin.score, RegressorMixin.score)  # type: ignore[attr-defined]
