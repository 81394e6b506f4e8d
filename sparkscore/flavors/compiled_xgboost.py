"""xgboost's predictions from compiled trees."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from sparkscore.flavors.compiled_trees import check_equal
from sparkscore.flavors.frames import NUMBERS, float32_matrix
from sparkscore.trees.forest import NotCompiledError
from sparkscore.trees.links import xgboost_link
from sparkscore.trees.probes import probe_rows
from sparkscore.trees.scorer import ForestScorer
from sparkscore.trees.xgboost_json import read_xgboost

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema


class Booster(Protocol):
    """`xgboost.Booster`, as far as it is asked here."""

    def save_raw(self, raw_format: str) -> bytearray:
        """The model as JSON."""
        ...

    def inplace_predict(self, data: np.ndarray, iteration_range: tuple[int, int]) -> np.ndarray:
        """Predictions for a matrix."""
        ...


class _Estimator(Protocol):
    best_iteration: int

    def get_booster(self) -> Booster: ...


class CompiledXgboost:
    """What the model's `predict` answers, to the bit.

    Args:
        model: A loaded `xgboost.Booster`, or a model of the scikit-learn API; not kept.
        schema: The signature's input columns.

    Raises:
        NotCompiledError: Model or columns have something that compiled trees do not know.
    """

    def __init__(self, model: object, schema: ColumnSchema) -> None:
        others = sorted({str(c.type) for c in schema.columns if c.type not in NUMBERS})
        if others:
            raise NotCompiledError(f"its signature has columns of the types {', '.join(others)}")
        booster, n_iterations = _used(model)
        text = bytes(booster.save_raw("json")).decode()
        trees = read_xgboost(text, n_iterations)
        if trees.forest.n_features != len(schema.columns):
            raise NotCompiledError(
                f"the model has {trees.forest.n_features} features, and its signature "
                f"{len(schema.columns)} columns"
            )
        to_margin, self._link = xgboost_link(trees.objective)
        self._base_margin = trees.base_score.reshape(-1, 1)
        to_margin(self._base_margin[:, 0])
        self._schema = schema
        self._is_classifier = hasattr(model, "predict_proba")
        self._scorer = ForestScorer(trees.forest, is_float32=True, sums_float32=True)
        rows = probe_rows(trees.forest, self._scorer.dtype)
        native = booster.inplace_predict(rows, iteration_range=(0, n_iterations or 0))
        check_equal(self._scores(rows), np.ascontiguousarray(native.reshape(len(rows), -1).T))

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions of shape (n_rows,), or (n_rows, n_classes) for several trees an iteration."""
        scores = self._scores(float32_matrix(batch, self._schema))
        if self._is_classifier:
            return np.argmax(scores, axis=0) if len(scores) > 1 else (scores[0] > 0.5).astype(int)  # noqa: PLR2004
        return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)

    def _scores(self, matrix: np.ndarray) -> np.ndarray:
        """(n_outputs, n_rows) float32 after the objective's link."""
        scores = np.empty((self._scorer.n_outputs, len(matrix)), self._scorer.score_dtype)
        scores[...] = self._base_margin
        self._scorer.add_scores(matrix, scores)
        self._link(scores)
        return scores


def _used(model: object) -> tuple[Booster, int | None]:
    """The booster inside `model`, and how many of its iterations predict; None: all."""
    if not hasattr(model, "get_booster"):
        return cast("Booster", model), None
    estimator = cast("_Estimator", model)
    try:
        return estimator.get_booster(), estimator.best_iteration + 1
    except AttributeError:  # It was fitted without early stopping.
        return estimator.get_booster(), None
