"""CatBoost's predictions from compiled trees."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from sparkscore.errors import shown
from sparkscore.flavors.compiled_trees import check_equal
from sparkscore.flavors.frames import float32_matrix
from sparkscore.trees.catboost_json import CatboostModel, read_catboost
from sparkscore.trees.forest import FloatMatrix, NotCompiledError
from sparkscore.trees.probes import probe_rows
from sparkscore.trees.scorer import ForestScorer

if TYPE_CHECKING:
    import pyarrow as pa

    from sparkscore.package.schema import ColumnSchema

_EXPONENTS = ("Poisson", "RMSEWithUncertainty", "Tweedie")
_LOSSES_OF_LABELS = ("CrossEntropy", "Logloss", "MultiClass", "MultiClassOneVsAll")
_MIDDLE = 0.5


class Model(Protocol):
    """`catboost.CatBoost`, as far as it is asked here."""

    def save_model(self, fname: str, format: str) -> None:  # noqa: A002 - CatBoost's own name
        """Write the model in one of its formats."""
        ...

    def predict(self, data: object, *, thread_count: int) -> np.ndarray:
        """Predictions for a matrix or frame."""
        ...


class _Classifier(Protocol):
    classes_: np.ndarray

    def predict(
        self, data: object, prediction_type: str = "Class", *, thread_count: int
    ) -> np.ndarray: ...

    def get_probability_threshold(self) -> float: ...


class CompiledCatboost:
    """What the model's `predict` answers, to the bit.

    Args:
        model: A loaded model of numerical features; not kept.
        schema: The signature's input columns, numbers and booleans in the order of the features.

    Raises:
        NotCompiledError: The model has something that compiled trees do not know.
    """

    def __init__(self, model: Model, schema: ColumnSchema) -> None:
        trees = _trees_of(model)
        if trees.forest.n_features != len(schema.columns):
            raise NotCompiledError(
                f"the model has {trees.forest.n_features} features, and its signature "
                f"{len(schema.columns)} columns"
            )
        self._schema = schema
        self._classes = _classes(model, trees)
        self._scale = trees.scale
        self._bias = trees.bias.reshape(-1, 1)
        self._scorer = ForestScorer(trees.forest, is_float32=True)
        rows = probe_rows(trees.forest, self._scorer.dtype)
        scores = self._scores(rows)
        if self._classes is None:
            native = model.predict(rows, thread_count=1)
        else:
            classifier = cast("_Classifier", model)
            native = classifier.predict(rows, "RawFormulaVal", thread_count=1)
            labels, expected = self._answer(scores), classifier.predict(rows, thread_count=1)
            if labels.dtype != expected.dtype or labels.tolist() != expected.tolist():
                raise NotCompiledError("compiled trees and the library disagree on labels")
        check_equal(scores, np.ascontiguousarray(native.reshape(len(rows), -1).T))

    def predict(self, batch: pa.RecordBatch) -> object:
        """Predictions of shape (n_rows,), or (n_rows, n_outputs); several classes: (n_rows, 1)."""
        return self._answer(self._scores(float32_matrix(batch, self._schema)))

    def _scores(self, matrix: np.ndarray) -> FloatMatrix:
        """(n_outputs, n_rows) raw scores."""
        scores = np.zeros((self._scorer.n_outputs, len(matrix)))
        self._scorer.add_scores(matrix, scores)
        scores *= self._scale
        scores += self._bias
        return scores

    def _answer(self, scores: FloatMatrix) -> np.ndarray:
        if self._classes is None:
            return scores[0] if len(scores) == 1 else np.ascontiguousarray(scores.T)
        if len(scores) == 1:
            return np.asarray(self._classes[(scores[0] > 0).astype(int)])
        return np.asarray(self._classes[np.argmax(scores, axis=0)].reshape(-1, 1))


def _trees_of(model: Model) -> CatboostModel:
    # CatBoost writes its formats to files only.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.json"
        model.save_model(str(path), format="json")
        return read_catboost(path.read_text("utf-8"))


def _classes(model: Model, trees: CatboostModel) -> np.ndarray | None:
    """The labels that a classifier answers with; None for what answers scores.

    Raises:
        NotCompiledError: It answers something else.
    """
    if not hasattr(model, "predict_proba"):
        if trees.loss in _EXPONENTS:
            raise NotCompiledError(
                f"with the loss {shown(trees.loss)} it answers by CatBoost's own exp"
            )
        return None
    if trees.loss not in _LOSSES_OF_LABELS:
        raise NotCompiledError(f"it is a classifier with the loss {shown(trees.loss)}")
    classifier = cast("_Classifier", model)
    n_outputs = trees.forest.n_outputs
    if n_outputs == 1 and classifier.get_probability_threshold() != _MIDDLE:
        raise NotCompiledError("it has a probability threshold of its own")
    classes = np.asarray(classifier.classes_)
    if len(classes) != max(2, n_outputs):
        raise NotCompiledError(f"it has {len(classes)} labels for {n_outputs} scores")
    return classes
