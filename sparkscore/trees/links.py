"""From LightGBM's raw scores to its predictions, by the objective's own arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np

from sparkscore.errors import shown
from sparkscore.trees.forest import FloatMatrix, NotCompiledError
from sparkscore.trees.kernel_cache import load_kernels

Link = Callable[[FloatMatrix], None]
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


def _keep(scores: FloatMatrix) -> None:
    """The raw scores are the predictions."""


def _signed_square(scores: FloatMatrix) -> None:
    np.copyto(scores, np.sign(scores) * scores * scores)
