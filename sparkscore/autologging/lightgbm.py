"""LightGBM: what is kept of `lightgbm.train`, and of a fit of its scikit-learn API."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

from sparkscore.autologging import sklearn
from sparkscore.autologging.boosting import TrainCall, add_step, log_importances, to_follow
from sparkscore.autologging.training import recorded

if TYPE_CHECKING:
    from types import ModuleType

    import numpy as np

    from sparkscore.autologging.patches import Function, Patches
    from sparkscore.autologging.rows import Rows
    from sparkscore.autologging.training import Training

_LIBRARY = "lightgbm"
# Those of `train`'s arguments that are params, beside its own `params`.
_PARAMS = ("num_boost_round", "keep_training_booster")
# After its own callbacks that measure, before those that stop.
_ORDER = 25


class Booster(Protocol):
    """A trained model of LightGBM, as far as it is read here."""

    best_iteration: int

    def feature_name(self) -> list[str]:
        """Names of its features."""
        ...

    def feature_importance(self, importance_type: str) -> np.ndarray:
        """How much each of them counts."""
        ...

    def predict(self, data: object) -> object:
        """Its answers for rows."""
        ...


def watch(patches: Patches) -> None:
    """Record `train`, in the module if it is imported and else when it is."""
    patches.when_imported("lightgbm", functools.partial(_watch_train, patches))


def record_train(
    original: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """What LightGBM's own `train` returns or raises; see `recorded`."""

    def call() -> object:
        given = sklearn.bound(original, args, kwargs)
        training = None if given is None else to_follow(_LIBRARY)
        if given is None or training is None:
            return original(*args, **kwargs)
        theirs = cast("Sequence[object]", given.get("callbacks") or ())
        return original(**{**given, "callbacks": [*theirs, _callback(training)]})

    return recorded(lambda: Train.of(original, args, kwargs), call)


@dataclass
class Train(TrainCall):
    """A call of `lightgbm.train`."""

    library = _LIBRARY
    name = "lightgbm.train"

    def begin(self, training: Training) -> None:
        """See `Recorder`."""
        own = {k: v for k, v in self.arguments.items() if k in _PARAMS}
        training.log_params({**own, **cast("Mapping[str, object]", self.arguments["params"])})
        options = training.options
        if not (options.log_datasets or options.log_models):
            return
        from sparkscore.autologging.kept import keep_datasets

        with training.keeping("dataset and model"):
            # Now: LightGBM lets go of the rows once it has packed them.
            train_set = cast("_Dataset", self.arguments["train_set"])
            self.rows = _rows(train_set)
            keep_datasets(training, self.rows, self._judged())

    def finish(self, training: Training, result: object) -> None:
        """See `Recorder`."""
        booster = cast("Booster", result)
        log_booster(training, booster)
        rows = self.rows
        if rows is not None:
            from sparkscore.autologging.kept import keep_model

            keep_model(training, booster, rows, lambda n: booster.predict(rows.sample[:n]))

    def _judged(self) -> Iterable[tuple[str, Rows]]:
        sets = cast("Sequence[_Dataset]", self.arguments.get("valid_sets") or ())
        names = cast("Sequence[str]", self.arguments.get("valid_names") or ())
        for i, data in enumerate(sets):
            if data is not self.arguments["train_set"] and data.data is not None:
                yield names[i] if i < len(names) else f"valid_{i}", _rows(data)


@dataclass
class Fit(sklearn.Fit):
    """A call of `fit` of a model of LightGBM's scikit-learn API."""

    library = _LIBRARY

    def finish(self, training: Training, result: object) -> None:  # noqa: ARG002 - the model itself
        """See `Recorder`."""
        with training.keeping("the booster"):
            log_booster(training, cast("_Boosted", self.model).booster_)
        sklearn.keep_estimator(training, self.model, self.rows)


def log_booster(training: Training, booster: Booster) -> None:
    """Keep where training stopped, if it was to stop early, and what the features count."""
    with training.keeping("the best step"):
        # It is 0, or less, unless training was to stop early.
        if training.steps is not None and booster.best_iteration > 0:
            training.steps.add_best(booster.best_iteration, first=1)
    for kind in ("split", "gain"):
        with training.keeping("feature importances"):
            counts = booster.feature_importance(importance_type=kind).tolist()
            log_importances(training, kind, dict(zip(booster.feature_name(), counts, strict=True)))


class _Boosted(Protocol):
    booster_: Booster


class _Dataset(Protocol):
    data: object
    label: object


class _Step(Protocol):
    """What LightGBM tells a callback."""

    iteration: int
    evaluation_result_list: Sequence[tuple[str, str, float, bool]]


def _watch_train(patches: Patches, module: ModuleType) -> None:
    patches.replace(module.engine, "train", _recording_train, (module, module.sklearn))


def _recording_train(original: Function) -> Function:
    @functools.wraps(original)
    def train(*args: object, **kwargs: object) -> object:
        return record_train(original, args, kwargs)

    return train


def _callback(training: Training) -> Callable[[_Step], None]:
    def collect(step: _Step) -> None:
        measured = (each[:3] for each in step.evaluation_result_list or ())
        add_step(training, step.iteration, measured)

    vars(collect)["order"] = _ORDER
    return collect


def _rows(data: _Dataset) -> Rows:
    from sparkscore.autologging.rows import rows_of
    from sparkscore.errors import UsageError

    if data.data is None:
        raise UsageError(
            "the lightgbm.Dataset has let go of its rows; make it with free_raw_data=False"
        )
    return rows_of(data.data, data.label)
