from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from sparkscore.errors import UntrustedCodeError
from sparkscore.flavors import load_predictor
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, copy_sealed, open_package, verify
from sparkscore.package.environment import check_environment
from sparkscore.testing.flavor_contract import assert_same

PACKAGES = [
    "pipeline",
    "regressor",
    "booster",
    "xgb_regressor_ubj",
    "xgb_regressor_json",
    "xgb_booster_ubj",
    "xgb_booster_json",
    "cat_regressor_cbm",
    "cat_regressor_json",
    "cat_classifier",
    "onnx_matrix_beside",
    "onnx_matrix_inside",
    "onnx_columns_beside",
    "onnx_columns_inside",
]


def ours(folder: Path, name: str, trust: TrustPolicy) -> np.ndarray:
    package = open_package(folder / name)
    assert package.description.signature is not None
    rows = pd.read_parquet(folder / f"{name}.parquet")
    batch = record_batch(rows, column_inputs(package.description.signature))
    return np.asarray(load_predictor(package, trust).predict(batch))


@pytest.mark.parametrize("name", PACKAGES)
def test_package_of_mlflow_scores_the_same_without_any_trust(
    written_by_mlflow: Path, name: str
) -> None:
    expected = np.load(written_by_mlflow / f"{name}.npy")
    assert_same(ours(written_by_mlflow, name, TrustPolicy()), expected)


@pytest.mark.parametrize("name", ["pickle", "cloudpickle", "statsmodels"])
def test_pickled_package_of_mlflow_scores_the_same_if_trusted(
    written_by_mlflow: Path, name: str
) -> None:
    with pytest.raises(UntrustedCodeError):
        ours(written_by_mlflow, name, TrustPolicy())
    expected = np.load(written_by_mlflow / f"{name}.npy")
    assert_same(ours(written_by_mlflow, name, TrustPolicy(allow_pickle=True)), expected)


def test_package_of_mlflow_can_be_copied_sealed_and_compared(
    written_by_mlflow: Path, tmp_path: Path
) -> None:
    sealed = copy_sealed(written_by_mlflow / "pipeline", tmp_path / "copy")
    assert verify(tmp_path / "copy") == sealed
    package = open_package(tmp_path / "copy")
    assert package.description.mlflow_version == "3.17.2"
    # Both environments may hold other releases of a library; the text must be a plain line.
    assert all("\n" not in str(found) for found in check_environment(package))
