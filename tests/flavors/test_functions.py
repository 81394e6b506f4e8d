"""Models asked by another of their functions than the one they were packaged with."""

from __future__ import annotations

from pathlib import Path

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pytest
import xgboost
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparkscore.errors import ConfigError, PackageFormatError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.functions import asked_by
from sparkscore.flavors.load import flavor_of
from sparkscore.package import Package
from sparkscore.package.trust import TrustPolicy
from sparkscore.scoring.facts import prediction_schema
from sparkscore.scoring.outputs import prediction_columns

TRUST = TrustPolicy(allow_code=True)


@pytest.fixture
def rows() -> pd.DataFrame:
    values = np.random.default_rng(5).normal(size=(200, 4))
    # Column by column, as frames are that come from Arrow: BLAS sums by the layout.
    return pd.DataFrame(dict(zip("abcd", values.T, strict=True)))


@pytest.fixture
def classes(rows: pd.DataFrame) -> np.ndarray:
    return np.where(rows["a"] + rows["b"] > 0, 1, 0) + np.where(rows["c"] > 1, 1, 0)


def asked(package: Package, predict: str, rows: pd.DataFrame, runtime: TreeRuntime) -> object:
    """What the declared column of a function holds for the rows."""
    signature = asked_by(package, flavor_of(package), predict).description.signature
    assert signature is not None
    declared = prediction_schema(signature)
    assert declared.names == [predict]
    loaded = load_predictor(package, TRUST, runtime, predict)
    answer = loaded.predict(record_batch(rows, column_inputs(signature)))
    return prediction_columns(answer, declared, len(rows))[0].to_pylist()


@pytest.mark.parametrize("runtime", list(TreeRuntime))
@pytest.mark.parametrize("predict", ["predict_proba", "predict_log_proba", "decision_function"])
def test_pipeline_answers_what_its_method_does(
    tmp_path: Path, rows: pd.DataFrame, classes: np.ndarray, predict: str, runtime: TreeRuntime
) -> None:
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(rows, classes)
    package = save_model(model, tmp_path / "model", input_example=rows)
    assert asked(package, predict, rows, runtime) == getattr(model, predict)(rows).tolist()


@pytest.mark.parametrize("runtime", list(TreeRuntime))
def test_forest_answers_its_probabilities_compiled_or_not(
    tmp_path: Path, rows: pd.DataFrame, classes: np.ndarray, runtime: TreeRuntime
) -> None:
    model = RandomForestClassifier(10, random_state=1).fit(rows, classes)
    package = save_model(model, tmp_path / "model", input_example=rows)
    answer = asked(package, "predict_proba", rows, runtime)
    assert answer == model.predict_proba(rows).tolist()


@pytest.mark.parametrize("runtime", list(TreeRuntime))
def test_decision_of_two_classes_is_a_list_of_one(
    tmp_path: Path, rows: pd.DataFrame, classes: np.ndarray, runtime: TreeRuntime
) -> None:
    model = LogisticRegression().fit(rows, classes > 0)
    package = save_model(model, tmp_path / "model", input_example=rows)
    answer = asked(package, "decision_function", rows, runtime)
    assert answer == [[score] for score in model.decision_function(rows).tolist()]


@pytest.mark.parametrize(
    "model",
    [
        lightgbm.LGBMClassifier(n_estimators=5, verbose=-1),
        xgboost.XGBClassifier(n_estimators=5),
        catboost.CatBoostClassifier(iterations=5, verbose=0, allow_writing_files=False),
    ],
    ids=["lightgbm", "xgboost", "catboost"],
)
def test_boosted_classifier_answers_its_probabilities_by_its_library(
    tmp_path: Path, rows: pd.DataFrame, classes: np.ndarray, model: RandomForestClassifier
) -> None:
    model.fit(rows, classes)
    package = save_model(model, tmp_path / "model", input_example=rows)
    answer = asked(package, "predict_proba", rows, TreeRuntime.AUTO)
    assert answer == model.predict_proba(rows).astype(float).tolist()
    runtime = load_predictor(package, TRUST, predict="predict_proba").runtime
    assert (runtime.name, runtime.reason) == ("native", "predict_proba is left to the library")


def test_packaged_function_leaves_the_package_as_it_is(tmp_path: Path, rows: pd.DataFrame) -> None:
    package = save_model(
        LinearRegression().fit(rows, rows["a"]), tmp_path / "model", input_example=rows
    )
    assert asked_by(package, "sklearn", "predict") is package


@pytest.mark.parametrize("predict", ["predict_prob", "__class__", "fit"])
def test_unknown_function_is_refused_with_those_there_are(
    tmp_path: Path, rows: pd.DataFrame, predict: str
) -> None:
    package = save_model(
        LinearRegression().fit(rows, rows["a"]), tmp_path / "model", input_example=rows
    )
    with pytest.raises(ConfigError, match="predict, predict_proba") as caught:
        load_predictor(package, TRUST, predict=predict)
    assert ("did you mean 'predict_proba'" in str(caught.value)) == (predict == "predict_prob")


def test_function_that_this_model_lacks_is_named_with_those_it_has(
    tmp_path: Path, rows: pd.DataFrame
) -> None:
    package = save_model(
        LinearRegression().fit(rows, rows["a"]), tmp_path / "model", input_example=rows
    )
    with pytest.raises(PackageFormatError, match=r"of a LinearRegression.*; it has predict$"):
        load_predictor(package, TRUST, predict="predict_proba")
