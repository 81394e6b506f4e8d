"""From raw scores to predictions, by the arithmetic of each library's objectives."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from sparkscore.errors import shown
from sparkscore.trees.forest import NotCompiledError
from sparkscore.trees.kernel_cache import load_kernels

Link = Callable[[np.ndarray], None]
"""Turns raw scores (n_outputs, n_rows) into predictions, in place."""

_IDENTITY = (
    "regression",
    "regression_l1",
    "huber",
    "fair",
    "quantile",
    "mape",
    "lambdarank",
    "rank_xendcg",
    "custom",
    "none",
    "",
)
_EXP = ("poisson", "gamma", "tweedie")
_SIGMOID = ("binary", "multiclassova", "cross_entropy")


_XGBOOST_LOGISTIC = ("binary:logistic", "reg:logistic")
_XGBOOST_EXP = ("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox")
_XGBOOST_IDENTITY = (
    "reg:squarederror",
    "reg:absoluteerror",
    "reg:pseudohubererror",
    "reg:quantileerror",
    "reg:squaredlogerror",
    "binary:logitraw",
    "rank:map",
    "rank:ndcg",
    "rank:pairwise",
)


def lightgbm_link(objective: str) -> Link:
    """What LightGBM's objective makes of raw scores (`ConvertOutput` in its sources).

    Args:
        objective: As a text model spells it, such as `binary sigmoid:1`.

    Raises:
        NotCompiledError: The objective is not known, or numba cannot be loaded.
    """
    kernels = load_kernels()
    name, *options = objective.split() or [""]
    settings = dict(option.partition(":")[::2] for option in options)
    if name in _IDENTITY:
        return _signed_square if "sqrt" in settings else _keep
    if name in _EXP:
        return cast("Link", kernels.apply_exp)
    if name in _SIGMOID:
        factor = float(settings.get("sigmoid", 1.0))
        return lambda scores: kernels.apply_sigmoid(scores, factor)
    if name == "cross_entropy_lambda":
        return cast("Link", kernels.apply_log1p_exp)
    if name == "multiclass":
        return cast("Link", kernels.apply_softmax)
    raise NotCompiledError(f"LightGBM's objective {shown(objective)} is not known")


def xgboost_link(objective: str) -> tuple[Link, Link]:
    """What xgboost's objective makes of a base score and of margins, both in float32.

    Args:
        objective: Its name, such as `binary:logistic`.

    Returns:
        `ProbToMargin` and `PredTransform` of xgboost's sources.

    Raises:
        NotCompiledError: The objective is not known, or numba cannot be loaded.
    """
    kernels = load_kernels()
    if objective in _XGBOOST_IDENTITY:
        return _keep, _keep
    if objective in _XGBOOST_LOGISTIC:
        return _log_odds, cast("Link", kernels.apply_sigmoid_float32)
    if objective in _XGBOOST_EXP:
        return _log, cast("Link", kernels.apply_exp)
    if objective == "multi:softprob":
        return _keep, cast("Link", kernels.apply_softmax_float32)
    raise NotCompiledError(f"xgboost's objective {shown(objective)} is not known")


def _log(values: np.ndarray) -> None:
    log = load_kernels().float32_log
    values[...] = [log(value) for value in values]


def _log_odds(values: np.ndarray) -> None:
    one = np.float32(1.0)
    np.copyto(values, one / values - one)
    _log(values)
    np.negative(values, out=values)


def _keep(scores: np.ndarray) -> None:
    """The raw scores are the predictions."""


def _signed_square(scores: np.ndarray) -> None:
    np.copyto(scores, np.sign(scores) * scores * scores)
