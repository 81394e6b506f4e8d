from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
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


PYTHON = [
    "python_class",
    "python_words",
    "python_doubled",
    "python_plain",
    "python_script",
    "python_loader",
]


def ours(
    folder: Path, name: str, trust: TrustPolicy, params: Mapping[str, object] | None = None
) -> np.ndarray:
    package = open_package(folder / name)
    assert package.description.signature is not None
    rows = pd.read_parquet(folder / f"{name}.parquet")
    batch = record_batch(rows, column_inputs(package.description.signature))
    loaded = load_predictor(package, trust)
    return np.asarray((loaded.with_params(params) if params else loaded).predict(batch))


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
    assert_same(ours(written_by_mlflow, name, TrustPolicy(allow_code=True)), expected)


@pytest.mark.parametrize("name", PYTHON)
def test_python_function_of_mlflow_scores_the_same_if_trusted(
    written_by_mlflow: Path, name: str
) -> None:
    with pytest.raises(UntrustedCodeError):
        ours(written_by_mlflow, name, TrustPolicy())
    expected = np.load(written_by_mlflow / f"{name}.npy")
    assert_same(ours(written_by_mlflow, name, TrustPolicy(allow_code=True)), expected)
    assert not {"mlflow", "factors", "own_loader"} & sys.modules.keys()


@pytest.mark.parametrize("name", ["python_class", "python_script", "python_loader"])
def test_python_function_of_mlflow_takes_params_as_there(
    written_by_mlflow: Path, name: str
) -> None:
    expected = np.load(written_by_mlflow / f"{name}-params.npy")
    trust = TrustPolicy(allow_code=True)
    assert_same(ours(written_by_mlflow, name, trust, {"factor": 0.5}), expected)


BESIDE_MLFLOW = """
import sys
import mlflow
import numpy as np
import pandas as pd
from pathlib import Path
from sparkscore.flavors import load_predictor
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import TrustPolicy, open_package

for name in sys.argv[2:]:
    package = open_package(Path(sys.argv[1], name))
    rows = pd.read_parquet(package.folder.with_suffix(".parquet"))
    batch = record_batch(rows, column_inputs(package.description.signature))
    loaded = load_predictor(package, TrustPolicy(allow_code=True))
    np.save(package.folder.with_suffix(".beside.npy"), np.asarray(loaded.predict(batch)))
assert isinstance(sys.modules["mlflow"].__version__, str), "MLflow's own names must stay"
"""


def test_where_mlflow_is_installed_its_own_names_serve(written_by_mlflow: Path) -> None:
    python = os.environ["SPARKSCORE_MLFLOW_PYTHON"]
    environ = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    environ["PYTHONPATH"] = str(Path(__file__).parents[2])
    command = [python, "-W", "ignore", "-c", BESIDE_MLFLOW, str(written_by_mlflow), *PYTHON]
    done = subprocess.run(
        command, env=environ, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    for name in PYTHON:
        expected = np.load(written_by_mlflow / f"{name}.npy")
        assert_same(np.load(written_by_mlflow / f"{name}.beside.npy"), expected)


def test_package_of_mlflow_can_be_copied_sealed_and_compared(
    written_by_mlflow: Path, tmp_path: Path
) -> None:
    sealed = copy_sealed(written_by_mlflow / "pipeline", tmp_path / "copy")
    assert verify(tmp_path / "copy") == sealed
    package = open_package(tmp_path / "copy")
    assert package.description.mlflow_version == "3.17.2"
    # Both environments may hold other releases of a library; the text must be a plain line.
    assert all("\n" not in str(found) for found in check_environment(package))
