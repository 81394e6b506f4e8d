"""xgboost: what is kept of `xgboost.train`, and of a fit of its scikit-learn API."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from sparkscore.autologging import sklearn
from sparkscore.autologging.boosting import TrainCall, add_step, log_importances, to_follow
from sparkscore.autologging.training import recorded

if TYPE_CHECKING:
    from types import ModuleType

    from xgboost import Booster, DMatrix
    from xgboost.callback import TrainingCallback

    from sparkscore.autologging.patches import Function, Patches
    from sparkscore.autologging.rows import Rows
    from sparkscore.autologging.training import Training

_LIBRARY = "xgboost"
# Of `train`'s arguments: data and functions, which are no params.
_NO_PARAMS = ("params", "dtrain", "evals", "obj", "evals_result", "xgb_model", "callbacks")
# Rows of a DMatrix that are copied out of it, for the digest and for a first prediction.
_MAX_COPIED_ROWS = 10_000


def watch(patches: Patches) -> None:
    """Record `train`, in the module if it is imported and else when it is."""
    patches.when_imported("xgboost", functools.partial(_watch_train, patches))


def record_train(
    original: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """What xgboost's own `train` returns or raises; see `recorded`."""

    def call() -> object:
        training = to_follow(_LIBRARY)
        if training is None:
            return original(*args, **kwargs)
        theirs = cast("Sequence[TrainingCallback]", kwargs.get("callbacks") or ())
        # First: one that stops the training keeps later ones from being called.
        return original(*args, **{**kwargs, "callbacks": [_callback(training), *theirs]})

    return recorded(lambda: Train.of(original, args, kwargs), call)


@dataclass
class Train(TrainCall):
    """A call of `xgboost.train`."""

    library = _LIBRARY
    name = "xgboost.train"

    @property
    def _matrix(self) -> DMatrix:
        return cast("DMatrix", self.arguments["dtrain"])

    def begin(self, training: Training) -> None:
        """See `Recorder`."""
        own = {k: v for k, v in self.arguments.items() if k not in _NO_PARAMS}
        training.log_params({**own, **dict(cast("Mapping[str, object]", self.arguments["params"]))})
        options = training.options
        if not (options.log_datasets or options.log_models):
            return
        from sparkscore.autologging.kept import keep_datasets

        with training.keeping("dataset and model"):
            self.rows = _rows(self._matrix)
            evals = cast("Sequence[tuple[DMatrix, str]]", self.arguments["evals"] or ())
            judged = [(name, _rows(matrix)) for matrix, name in evals]
            keep_datasets(training, self.rows, judged)

    def finish(self, training: Training, result: object) -> None:
        """See `Recorder`."""
        booster = cast("Booster", result)
        log_booster(training, booster)
        rows = self.rows
        if rows is not None:
            from sparkscore.autologging.kept import keep_model

            keep_model(training, booster, rows, lambda n: _predicted(booster, self._matrix, n))


@dataclass
class Fit(sklearn.Fit):
    """A call of `fit` of a model of xgboost's scikit-learn API."""

    library = _LIBRARY

    def finish(self, training: Training, result: object) -> None:  # noqa: ARG002 - the model itself
        """See `Recorder`."""
        model = cast("_Boosted", self.model)
        with training.keeping("the booster"):
            log_booster(training, model.get_booster())
        sklearn.keep_estimator(training, self.model, self.rows)


def log_booster(training: Training, booster: Booster) -> None:
    """Keep where training stopped, if it was to stop early, and what the features count."""
    with training.keeping("the best step"):
        # The booster has the attribute only if it was to stop early.
        if training.steps is not None and booster.attr("best_iteration") is not None:
            # A training that goes on from another model counts steps anew, but not its best one.
            earlier = max(0, booster.num_boosted_rounds() - training.steps.n_steps)
            training.steps.add_best(booster.best_iteration, first=earlier)
    with training.keeping("feature importances"):
        scores = booster.get_score(importance_type="weight")
        log_importances(training, "weight", cast("dict[str, float]", scores))


# xgboost's own type: a cross-validation, which is not recorded here, has pairs.
_History = dict[str, dict[str, list[float] | list[tuple[float, float]]]]


class _Boosted(Protocol):
    def get_booster(self) -> Booster: ...


def _watch_train(patches: Patches, module: ModuleType) -> None:
    patches.replace(module.training, "train", _recording_train, (module, module.sklearn))


def _recording_train(original: Function) -> Function:
    @functools.wraps(original)
    def train(*args: object, **kwargs: object) -> object:
        return record_train(original, args, kwargs)

    return train


def _callback(training: Training) -> TrainingCallback:
    from xgboost.callback import TrainingCallback

    class Collect(TrainingCallback):
        def after_iteration(self, model: object, epoch: int, evals_log: _History) -> bool:  # noqa: ARG002
            last = (
                (rows, measure, cast("float", values[-1]))
                for rows, measures in evals_log.items()
                for measure, values in measures.items()
            )
            add_step(training, epoch, last)
            return False

    return Collect()


def _predicted(booster: Booster, matrix: DMatrix, n_rows: int) -> object:
    from xgboost.core import XGBoostError

    try:
        return booster.predict(_head(matrix, n_rows))
    except XGBoostError:  # One that is quantized or kept on disk cannot be cut.
        return booster.predict(matrix)[:n_rows]


def _head(matrix: DMatrix, n_rows: int) -> DMatrix:
    return matrix.slice(list(range(min(n_rows, matrix.num_row()))))


def _rows(matrix: DMatrix) -> Rows:
    from xgboost.core import XGBoostError

    from sparkscore.autologging.rows import Rows, digest_of
    from sparkscore.package.signature import ColumnSchema, ColumnSpec, ScalarType

    # xgboost's names of what a column held before it became a float.
    types = {"int": ScalarType.LONG, "i": ScalarType.BOOLEAN, "c": ScalarType.STRING}
    n_columns = matrix.num_col()
    kinds = matrix.feature_types or ["float"] * n_columns
    names: Sequence[str | None] = matrix.feature_names or [None] * n_columns
    inputs = ColumnSchema(
        tuple(
            ColumnSpec(name, types.get(kind, ScalarType.DOUBLE))
            for name, kind in zip(names, kinds, strict=True)
        )
    )
    try:
        sample = _head(matrix, _MAX_COPIED_ROWS).get_data()
    except XGBoostError:
        sample = matrix.get_data()[:_MAX_COPIED_ROWS]
    n_rows = matrix.num_row()
    return Rows(n_rows, n_columns, inputs, sample, digest_of(sample, matrix.get_label(), n_rows))
