"""scikit-learn: what is kept of a fit, of a search for params, and of a cross-validation."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from sparkscore.autologging.patches import Function
from sparkscore.autologging.training import plain_key
from sparkscore.records import Metric
from sparkscore.stores.base import system_clock

if TYPE_CHECKING:
    import numpy as np

    from sparkscore.autologging.rows import Rows
    from sparkscore.autologging.training import Training


class Estimator(Protocol):
    """A model of scikit-learn's kind, as far as it is read here."""

    def get_params(self, deep: bool = True) -> Mapping[str, object]:
        """Its params; deep: those of its parts too."""
        ...

    def predict(self, X: object) -> object:  # noqa: N803 - scikit-learn's name
        """Its answers for rows."""
        ...


def log_estimator(training: Training, model: Estimator) -> None:
    """Keep params and class of a model that is about to be fitted."""
    # Those of a search's estimator are what it is about to find.
    training.log_params(model.get_params(deep=not _is_search(model)))
    kind = type(model)
    with training.keeping("tags"):
        training.run.set_tags(
            {
                "estimator_name": kind.__name__,
                "estimator_class": f"{kind.__module__}.{kind.__name__}",
            }
        )


@dataclass
class Fit:
    """A call of `fit`."""

    model: Estimator
    features: object
    targets: object
    weights: object
    library = "sklearn"
    rows: Rows | None = None

    @classmethod
    def of(
        cls, model: Estimator, fit: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> Fit | None:
        """The record of a call; None for what transforms, and for a call that does not bind."""
        given = bound(fit, (model, *args), kwargs)
        if given is None or not (_predicts(model) or _is_search(model)):
            return None
        more = given.get("kwargs") or given.get("params") or given.get("fit_params") or {}
        weights = given.get(
            "sample_weight", cast("Mapping[str, object]", more).get("sample_weight")
        )
        features = list(given.values())[1]
        return cls(model, features, given.get("y"), weights)

    @property
    def name(self) -> str:
        """The class of the model."""
        return type(self.model).__name__

    def begin(self, training: Training) -> None:
        """See `Recorder`."""
        log_estimator(training, self.model)
        self.rows = observed(training, self.features, self.targets)

    def finish(self, training: Training, result: object) -> None:  # noqa: ARG002 - the model itself
        """See `Recorder`."""
        from sparkscore.autologging.sklearn_metrics import training_metrics

        with training.keeping("metrics"):
            training.run.log_metrics(
                training_metrics(self.model, self.features, self.targets, self.weights, training)
            )
        log_search(training, self.model)
        keep_estimator(training, self.model, self.rows)


def observed(training: Training, features: object, targets: object) -> Rows | None:
    """The rows that a model is about to be fitted on, their dataset kept; None if they are odd."""
    options = training.options
    if not (options.log_datasets or options.log_models):
        return None
    # pandas and Arrow are loaded for what trains, and not by what turns autologging on.
    from sparkscore.autologging.kept import keep_datasets
    from sparkscore.autologging.rows import rows_of

    rows = None
    with training.keeping("dataset and model"):
        rows = rows_of(features, targets)
        keep_datasets(training, rows)
    return rows


def keep_estimator(training: Training, model: Estimator, rows: Rows | None) -> None:
    """Keep a fitted model, if it can predict and its rows are known."""
    if rows is None or not _predicts(model):
        return
    from sparkscore.autologging.kept import keep_model

    keep_model(training, model, rows, lambda n_rows: model.predict(rows.sample[:n_rows]))


def log_search(training: Training, model: object) -> None:
    """Keep what a search for params found: the best ones, their score, and all of its results."""
    if not _is_search(model):
        return
    with training.keeping("search"):
        import pandas as pd

        results = pd.DataFrame(getattr(model, "cv_results_", {}))
        training.run.log_text(results.to_csv(index=False), "cv_results.csv")
        if hasattr(model, "best_score_"):
            training.run.log_metric("best_cv_score", float(model.best_score_))
    best = getattr(model, "best_params_", {})
    training.log_params({f"best_{name}": value for name, value in best.items()})


@dataclass
class CrossValidation:
    """A call of `cross_validate`, which `cross_val_score` calls as well."""

    model: Estimator
    features: object
    targets: object
    folds: object
    library = "sklearn"
    name = "cross_validate"

    @classmethod
    def of(
        cls, function: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
    ) -> CrossValidation | None:
        """The record of a call; None for one that does not bind."""
        given = bound(function, args, kwargs)
        if given is None:
            return None
        model = cast("Estimator", given["estimator"])
        return cls(model, given.get("X"), given.get("y"), given.get("cv"))

    def begin(self, training: Training) -> None:
        """See `Recorder`."""
        log_estimator(training, self.model)
        training.log_params({"cv": self.folds})
        observed(training, self.features, self.targets)

    def finish(self, training: Training, result: object) -> None:
        """Keep each measure of each fold, the fold's number as its step; mean and deviation."""
        with training.keeping("metrics"):
            now_ms = system_clock()
            points = []
            for name, values in cast("Mapping[str, np.ndarray]", result).items():
                if not (name.startswith(("test_", "train_")) or name.endswith("_time")):
                    continue
                key = plain_key(name)
                points += [Metric(key, float(v), now_ms, fold) for fold, v in enumerate(values)]
                points.append(Metric(f"mean_{key}", float(values.mean()), now_ms))
                points.append(Metric(f"std_{key}", float(values.std()), now_ms))
            training.run.log_points(points)


def bound(
    function: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> dict[str, object] | None:
    """The arguments of a call by name, defaults too; None where the call does not fit.

    The function itself will say so then.
    """
    try:
        call = inspect.signature(function).bind(*args, **kwargs)
    except TypeError:
        return None
    call.apply_defaults()
    return call.arguments


def _predicts(model: object) -> bool:
    return callable(getattr(model, "predict", None))


def _is_search(model: object) -> bool:
    """Whether a model looks for the params of another one; it predicts only if it is to refit."""
    return hasattr(model, "estimator") and hasattr(model, "refit")
