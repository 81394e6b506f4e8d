"""LightGBM's predictions from compiled trees."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Protocol

import numpy as np

from sparkscore.errors import shown
from sparkscore.flavors.compiled_trees import check_equal
from sparkscore.flavors.frames import numeric_matrix, text_categories
from sparkscore.trees.forest import FloatMatrix, NotCompiledError
from sparkscore.trees.lightgbm_text import read_lightgbm
from sparkscore.trees.links import lightgbm_link
from sparkscore.trees.probes import probe_rows
from sparkscore.trees.scorer import ForestScorer

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema


class Booster(Protocol):
    """`lightgbm.Booster`, as far as it is asked here."""

    @property
    def pandas_categorical(self) -> list[list[object]] | None:
        """For each categorical column of the training frame its categories."""
        ...

    def model_to_string(self) -> str:
        """The iterations that it predicts with, as text."""
        ...

    def predict(self, data: np.ndarray, *, num_threads: int) -> np.ndarray:
        """Predictions for a matrix."""
        ...


class CompiledLightgbm:
    """What the booster's `predict` answers, to the bit.

    Args:
        booster: A loaded booster; not kept.
        schema: The signature's input columns.
        classes: Labels of a classifier of LightGBM's scikit-learn API; None for what else predicts.

    Raises:
        NotCompiledError: Model or columns have something that compiled trees do not know.
    """

    def __init__(
        self, booster: Booster, schema: ColumnSchema, classes: np.ndarray | None = None
    ) -> None:
        model = read_lightgbm(booster.model_to_string())
        if model.forest.n_features != len(schema.columns):
            raise NotCompiledError(
                f"the model has {model.forest.n_features} features, and its signature "
                f"{len(schema.columns)} columns"
            )
        self._schema = schema
        lists = booster.pandas_categorical
        categories = text_categories(schema, lists)
        if categories is None:
            raise NotCompiledError(
                f"its {len(lists or [])} categorical columns {shown(json.dumps(lists))} are not "
                "the text columns of its signature"
            )
        self._categories = categories
        self._classes = classes
        self._link = lightgbm_link(model.objective)
        self._n_averaged = model.n_averaged
        self._scorer = ForestScorer(model.forest)
        rows = probe_rows(model.forest, self._scorer.dtype)
        native = booster.predict(rows, num_threads=1).reshape(len(rows), -1)
        check_equal(self._scores(rows), np.ascontiguousarray(native.T))

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions of shape (n_rows,), or (n_rows, n_classes) for several trees an iteration."""
        matrix = numeric_matrix(batch, self._schema, self._categories)
        scores = self._scores(matrix)
        if self._classes is not None:
            return self._classes[_best_class(scores)]
        return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)

    def _scores(self, matrix: np.ndarray) -> FloatMatrix:
        """(n_outputs, n_rows) after the objective's link."""
        scores = np.zeros((self._scorer.n_outputs, len(matrix)))
        self._scorer.add_scores(matrix, scores)
        if self._n_averaged is not None:
            scores /= self._n_averaged
        self._link(scores)
        return scores


def _best_class(scores: FloatMatrix) -> np.ndarray:
    probabilities = np.concatenate([1.0 - scores, scores]) if len(scores) == 1 else scores
    best: np.ndarray = np.argmax(probabilities, axis=0)
    return best
