"""Watches the `fit` of every estimator of scikit-learn's kind, and its cross-validations."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from inspect import isfunction
from types import ModuleType
from typing import cast

from sparkscore.autologging import lightgbm, sklearn, xgboost
from sparkscore.autologging.patches import Function, Patches
from sparkscore.autologging.training import Recorder, recorded

# Estimators of these libraries have files of their own here; all others are scikit-learn's.
_OWN_FILES: Mapping[str, type[sklearn.Fit]] = {"lightgbm": lightgbm.Fit, "xgboost": xgboost.Fit}
# Most classes have the latter two from a mixin, which calls `fit`; some do without it, and fit
# other models on the way.
_FITS = ("fit", "fit_predict", "fit_transform")
# Each fits clones of a model, and leaves no model.
_CROSS_VALIDATIONS = (
    "cross_val_predict",
    "cross_validate",
    "learning_curve",
    "permutation_test_score",
    "validation_curve",
)
# What they call for each clone: a notebook may have their names from before, and these are looked
# up when they are called.
_FOLDS = ("_fit_and_predict", "_fit_and_score", "_permutation_test_score")


def watch(patches: Patches) -> None:
    """Record fits and cross-validations, in modules that are imported and in those to come."""
    patches.when_imported("sklearn.base", functools.partial(_watch_estimators, patches))
    patches.when_imported(
        "sklearn.model_selection._validation", functools.partial(_watch_validation, patches)
    )


def record_fit(
    original: Function, model: object, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """What a class's own `fit`, or the like, returns or raises for a model; see `recorded`."""
    return recorded(
        lambda: _recorder(model, original, args, kwargs),
        lambda: original(model, *args, **kwargs),
    )


def record_validation(
    original: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> object:
    """What a cross-validation returns or raises, its fits as parts of one run."""

    def make() -> Recorder | None:
        if original.__name__ != "cross_validate":
            return None
        return sklearn.CrossValidation.of(original, args, kwargs)

    return recorded(make, lambda: original(*args, **kwargs))


def _watch_estimators(patches: Patches, module: ModuleType) -> None:
    base: type = module.BaseEstimator
    watch_class = functools.partial(_watch_class, patches)
    for kind in _family(base):
        watch_class(kind)
    _watch_new_classes(base, watch_class, patches)


def _watch_class(patches: Patches, kind: type) -> None:
    for name in _FITS:
        # Only what is a function in the class itself: what it inherits is replaced where it stands.
        if isfunction(vars(kind).get(name)):
            patches.replace(kind, name, _recording_fit)


def _watch_new_classes(base: type, watch_class: Callable[[type], None], patches: Patches) -> None:
    """Have classes watched that are defined from now on: other modules, and the user's own."""
    if "__init_subclass__" in vars(base):
        return

    def init_subclass(kind: type, /, **options: object) -> None:
        super(base, kind).__init_subclass__(**options)  # type: ignore[arg-type]  # base is a class
        watch_class(kind)

    # mypy takes no assignment to a class's own method, and classmethod() is meant.
    setattr(base, "__init_subclass__", classmethod(init_subclass))  # noqa: B010
    patches.on_undo(lambda: delattr(base, "__init_subclass__"))


def _watch_validation(patches: Patches, module: ModuleType) -> None:
    # These have taken the functions over by now, or will.
    takers = ("sklearn.model_selection", "sklearn.model_selection._search")
    also = [sys.modules[name] for name in takers if name in sys.modules]
    for name in (*_CROSS_VALIDATIONS, *_FOLDS):
        patches.replace(module, name, _recording_validation, also)


def _recording_fit(original: Function) -> Function:
    # It refers to nothing but a function of a module: cloudpickle sends the classes of a notebook
    # to other processes, and this with them.
    @functools.wraps(original)
    def fit(self: object, *args: object, **kwargs: object) -> object:
        return record_fit(original, self, args, kwargs)

    return fit


def _recording_validation(original: Function) -> Function:
    @functools.wraps(original)
    def validation(*args: object, **kwargs: object) -> object:
        return record_validation(original, args, kwargs)

    return validation


def _recorder(
    model: object, fit: Function, args: tuple[object, ...], kwargs: Mapping[str, object]
) -> Recorder | None:
    libraries = {kind.__module__.partition(".")[0] for kind in type(model).__mro__}
    own = next((kind for name, kind in _OWN_FILES.items() if name in libraries), sklearn.Fit)
    return own.of(cast("sklearn.Estimator", model), fit, args, kwargs)


def _family(base: type[object]) -> set[type[object]]:
    """A class and all those below it."""
    return {base}.union(*map(_family, base.__subclasses__()))
