"""Turns autologging on and off: which libraries are watched, and what is kept of a training."""

from __future__ import annotations

from threading import Lock

from sparkscore.autologging import estimators, lightgbm, xgboost
from sparkscore.autologging.patches import Patches
from sparkscore.autologging.training import AutologOptions, set_options
from sparkscore.names import parse_model_name
from sparkscore.workspace import Workspace

_WATCHED = (estimators.watch, lightgbm.watch, xgboost.watch)
_PATCHES = Patches()
_LOCK = Lock()


def autolog(
    *,
    log_models: bool = True,
    log_datasets: bool = True,
    log_input_examples: bool = False,
    registered_model_name: str | None = None,
    disable: bool = False,
    silent: bool = False,
    workspace: Workspace | None = None,
) -> None:
    """Record each training of scikit-learn, xgboost and LightGBM from now on, in all threads.

    A `fit` of what predicts, `xgboost.train`, `lightgbm.train` and a cross-validation are one run
    each, with params, metrics, model and dataset under MLflow's names; a run that is active in the
    thread takes them instead. Fits inside of a fit are part of it. Libraries are watched when they
    are imported, and none is imported here; a function such as `train` must be imported after this
    call, or be called as `xgboost.train`.

    What cannot be recorded is told in one warning of the logger `sparkscore.autologging`; it never
    disturbs the training. Called again, the last call's options are in force.

    Args:
        log_models: Whether the fitted model is kept as a package, loaded once to prove it.
        log_datasets: Whether name, digest and schema of the rows are kept, in `dataset.json`.
        log_input_examples: Whether the package holds five rows of its training.
        registered_model_name: Each model becomes the next version of this one.
        disable: Watch no longer; the libraries are as they were.
        silent: Whether the warning is left out.
        workspace: Where runs are kept; None opens the one that settings name, at the first
            training.

    Raises:
        InvalidNameError: `registered_model_name` is not usable.

    Example:
        >>> sparkscore.autolog()
        >>> LogisticRegression().fit(inputs, labels)
    """
    options = AutologOptions(
        log_models=log_models,
        log_datasets=log_datasets,
        log_input_examples=log_input_examples,
        registered_model=(
            None if registered_model_name is None else parse_model_name(registered_model_name)
        ),
        silent=silent,
        given=workspace,
    )
    with _LOCK:
        set_options(None if disable else options)
        if disable:
            _PATCHES.undo()
            return
        for watch in _WATCHED:
            watch(_PATCHES)
