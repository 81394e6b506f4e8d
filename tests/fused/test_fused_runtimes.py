"""Who does the steps of a package's pipeline: fused ones where they are equal, and why not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import KNNImputer, SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import Package, TrustPolicy
from sparkscore.testing.flavor_contract import assert_same

Estimator = Any
"""scikit-learn has no types."""

N_ROWS = 3000


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": rng.normal(size=N_ROWS),
            "single": rng.normal(size=N_ROWS).astype(np.float32),
            "count": rng.integers(0, 9, N_ROWS),
            "small": rng.integers(0, 9, N_ROWS).astype(np.int32),
            "flag": rng.random(N_ROWS) < 0.5,
        }
    )


@pytest.fixture
def target(rows: pd.DataFrame) -> np.ndarray:
    return np.asarray(rows["x"] + rows["count"])


def loaded(package: Package, runtime: TreeRuntime = TreeRuntime.AUTO) -> LoadedPredictor:
    return load_predictor(package, TrustPolicy(), runtime)


def assert_runtimes_agree(package: Package, rows: pd.DataFrame) -> None:
    """Both answer alike, whatever the number of rows."""
    assert package.description.signature is not None
    batch = record_batch(rows, column_inputs(package.description.signature))
    ours, native = loaded(package), loaded(package, TreeRuntime.NATIVE)
    for n_rows in (1, 2, 31, N_ROWS):
        piece = batch.slice(0, n_rows)
        assert_same(np.asarray(ours.predict(piece)), np.asarray(native.predict(piece)))


@pytest.mark.parametrize(
    "columns",
    [["x"], ["single"], ["count", "small"], ["x", "count"], ["x", "single", "small", "flag"]],
)
@pytest.mark.parametrize("head", [LinearRegression, LogisticRegression, RandomForestClassifier])
def test_estimator_alone_is_given_the_array_of_its_frame(
    columns: list[str], head: Estimator, rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    labels = target > 4 if head is not LinearRegression else target
    some = rows[columns]
    model = head(5) if head is RandomForestClassifier else head()
    package = save_model(model.fit(some, labels), tmp_path / "p", input_example=some)
    assert loaded(package).runtime.name.startswith("fused pipeline")
    assert_runtimes_agree(package, some)


def test_columns_without_names_are_fused(target: np.ndarray, tmp_path: Path) -> None:
    numbers = pd.DataFrame(np.random.default_rng(1).normal(size=(N_ROWS, 3)))
    model = make_pipeline(SimpleImputer(), StandardScaler(), LinearRegression())
    package = save_model(
        model.fit(numbers.to_numpy(), target), tmp_path / "p", input_example=numbers
    )
    assert loaded(package).runtime.name == "fused pipeline"
    assert_runtimes_agree(package, numbers)


def test_trees_after_fused_steps_are_compiled(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), HistGradientBoostingRegressor(max_iter=5))
    package = save_model(model.fit(rows, target), tmp_path / "p", input_example=rows)
    assert loaded(package).runtime.name == "fused pipeline, compiled trees"
    assert_runtimes_agree(package, rows)


def test_trees_of_a_pipeline_that_cannot_be_fused_are_compiled_and_the_step_is_named(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    model = make_pipeline(KNNImputer(), HistGradientBoostingRegressor(max_iter=5))
    package = save_model(model.fit(rows[["x"]], target), tmp_path / "p", input_example=rows[["x"]])
    runtime = loaded(package).runtime
    assert runtime.name == "compiled trees"
    assert "not fused: the step KNNImputer is not known" in runtime.reason


def test_native_runtime_leaves_the_pipeline_as_it_is(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    model = make_pipeline(StandardScaler(), LinearRegression()).fit(rows, target)
    package = save_model(model, tmp_path / "p", input_example=rows)
    assert loaded(package, TreeRuntime.NATIVE).runtime.name == "native"
