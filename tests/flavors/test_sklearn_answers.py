"""A classifier that answers its label and its probabilities at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    RandomForestClassifier,
)
from sklearn.linear_model import LogisticRegression, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparkscore.errors import PackageFormatError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, pandas_frame, record_batch
from sparkscore.flavors.sklearn_answers import LabelAnswer
from sparkscore.package import Package, TrustPolicy
from sparkscore.package.datatypes import ArrayType, ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.package.signature import Signature, arrow_schema, infer_signature
from sparkscore.scoring.outputs import prediction_columns

Estimator = Any
"""scikit-learn has no types."""

ROWS = pd.DataFrame(np.random.default_rng(0).normal(size=(300, 3)), columns=["x", "y", "z"])
LABELS = np.array(["low", "middle", "high"])[np.digitize(ROWS["x"] + ROWS["y"], [-0.5, 0.5])]

INPUTS = infer_signature(ROWS).inputs
assert isinstance(INPUTS, ColumnSchema)
FRAME = pandas_frame(record_batch(ROWS, INPUTS), INPUTS)
"""The rows in the memory order that models are given, which decides the last bits."""

LABEL = ColumnSpec("label", ScalarType.STRING)
LISTS = ColumnSpec("probability", ArrayType(ScalarType.DOUBLE))
DOUBLES = tuple(ColumnSpec(f"p_{name}", ScalarType.DOUBLE) for name in ("high", "low", "middle"))

CLASSIFIERS: dict[str, Callable[[], Estimator]] = {
    "logistic": LogisticRegression,
    "sgd": lambda: SGDClassifier(loss="modified_huber", random_state=0),
    "forest": lambda: RandomForestClassifier(5, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=3),
    "hist": lambda: HistGradientBoostingClassifier(max_iter=3),
    "bayes": GaussianNB,
}


def saved(model: Estimator, folder: Path, *outputs: ColumnSpec) -> Package:
    signature = Signature(INPUTS, ColumnSchema(tuple(outputs)))
    return save_model(model, folder, signature=signature, input_example=ROWS.head(5))


def answered(package: Package, runtime: TreeRuntime) -> list[list[object]]:
    """The declared columns, as values."""
    signature = package.description.signature
    assert signature is not None
    assert isinstance(signature.outputs, ColumnSchema)
    batch = record_batch(ROWS, column_inputs(signature))
    answer = load_predictor(package, TrustPolicy(), runtime).predict(batch)
    declared = arrow_schema(signature.outputs)
    return [each.to_pylist() for each in prediction_columns(answer, declared, len(ROWS))]


@pytest.mark.parametrize("runtime", TreeRuntime)
@pytest.mark.parametrize("name", CLASSIFIERS)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_label_and_probabilities_are_those_of_two_calls(
    name: str, n_classes: int, runtime: TreeRuntime, tmp_path: Path
) -> None:
    labels = np.where(LABELS == "middle", "low", LABELS) if n_classes == 2 else LABELS
    model = make_pipeline(StandardScaler(), CLASSIFIERS[name]()).fit(ROWS, labels)
    package = saved(model, tmp_path / "p", LABEL, LISTS)
    label, lists = answered(package, runtime)
    assert label == model.predict(FRAME).tolist()
    assert lists == model.predict_proba(FRAME).tolist()


def test_each_class_may_have_a_column_of_its_own(tmp_path: Path) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    _, *columns = answered(saved(model, tmp_path / "p", LABEL, *DOUBLES), TreeRuntime.AUTO)
    assert columns == model.predict_proba(FRAME).T.tolist()


def test_other_number_of_columns_than_classes_is_refused(tmp_path: Path) -> None:
    model = LogisticRegression().fit(ROWS, LABELS)
    with pytest.raises(PackageFormatError, match=r"after the label 'label'.* has 3 classes"):
        saved(model, tmp_path / "p", LABEL, *DOUBLES[:2])


class CountingScaler(StandardScaler):  # type: ignore[misc]  # scikit-learn has no types
    """Counts how often rows pass it."""

    n_passes = 0

    def transform(self, X: object, copy: bool | None = None) -> object:  # noqa: N803
        self.n_passes += 1
        return super().transform(X, copy)


def test_rows_pass_the_steps_and_the_scores_once() -> None:
    model = make_pipeline(CountingScaler(), LogisticRegression()).fit(ROWS, LABELS)
    head, n_scored = model[-1], []

    def counting(rows: object) -> np.ndarray:
        n_scored.append(rows)
        return np.asarray(type(head).decision_function(head, rows))

    head.decision_function = counting
    n_passes = model[0].n_passes
    LabelAnswer("label", ("probability",))(model, FRAME)
    assert (model[0].n_passes - n_passes, len(n_scored)) == (1, 1)


def test_classifier_is_as_it_was_after_it_has_answered() -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(ROWS, LABELS)
    before = dict(vars(model[-1]))
    LabelAnswer("label", ("probability",))(model, FRAME)
    assert vars(model[-1]) == before
