"""Who scores a package's trees: compiled ones where they are equal, else the library, and why."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestRegressor
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from sparkscore.errors import SignatureMismatchError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.package import Package, TrustPolicy
from sparkscore.testing.flavor_contract import assert_same

N_ROWS = 200
COMPILED = "compiled trees"


@pytest.fixture
def rows() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "x": np.where(rng.random(N_ROWS) < 0.1, np.nan, rng.normal(size=N_ROWS)),
            "count": pd.array(rng.integers(0, 9, N_ROWS), dtype="Int64"),
            "single": rng.normal(size=N_ROWS).astype(np.float32),
            "flag": rng.random(N_ROWS) < 0.5,
            "town": rng.choice(np.array(["Ulm", "Bonn", "Kiel", None]), N_ROWS),
        }
    )


@pytest.fixture
def target(rows: pd.DataFrame) -> np.ndarray:
    sums = np.nan_to_num(rows["x"]) + rows["count"].to_numpy(float) + 3 * (rows["town"] == "Ulm")
    return np.asarray(sums)


def trained(rows: pd.DataFrame, target: np.ndarray, **params: object) -> lightgbm.Booster:
    texts = dict.fromkeys(rows.select_dtypes(object).columns, "category")
    settings = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "min_data_per_group": 3}
    data = lightgbm.Dataset(rows.astype(texts), target)
    return lightgbm.train({**settings, **params}, data, 8)


def assert_runtimes_agree(package: Package, rows: pd.DataFrame) -> None:
    """Both runtimes answer alike, each under its own name."""
    assert package.description.signature is not None
    batch = record_batch(rows, column_inputs(package.description.signature))
    ours = load_predictor(package, TrustPolicy())
    native = load_predictor(package, TrustPolicy(), TreeRuntime.NATIVE)
    assert COMPILED in ours.runtime.name
    assert native.runtime.name == "native"
    assert_same(np.asarray(ours.predict(batch)), np.asarray(native.predict(batch)))


def test_booster_over_numbers_flags_and_text_is_compiled(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    package = save_model(trained(rows, target), tmp_path / "p", input_example=rows)
    assert_runtimes_agree(package, rows.assign(town=np.array([None, "Ulm", "Rome", "Kiel"] * 50)))


@pytest.mark.parametrize("n_labels", [2, 3])
def test_classifier_of_lightgbm_answers_with_its_labels(
    rows: pd.DataFrame, target: np.ndarray, n_labels: int, tmp_path: Path
) -> None:
    numbers = rows[["x", "single"]].astype(float)
    labels = np.array(["low", "middle", "high"])[target.astype(int) % n_labels]
    model = lightgbm.LGBMClassifier(n_estimators=5, n_jobs=1, verbose=-1).fit(numbers, labels)
    assert_runtimes_agree(save_model(model, tmp_path / "p", input_example=numbers), numbers)


def test_last_step_of_a_pipeline_is_compiled(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    steps = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["town"]),
        remainder="passthrough",
    )
    model = make_pipeline(steps, HistGradientBoostingClassifier(max_iter=5))
    model.fit(rows, target > target.mean())
    assert_runtimes_agree(save_model(model, tmp_path / "p", input_example=rows), rows)


def test_sparse_columns_of_a_pipeline_are_left_to_the_forest(
    rows: pd.DataFrame, target: np.ndarray, tmp_path: Path
) -> None:
    text = rows[["town"]]
    model = make_pipeline(OneHotEncoder(handle_unknown="ignore"), RandomForestRegressor(5))
    model.fit(text, target)
    assert_runtimes_agree(save_model(model, tmp_path / "p", input_example=text), text)


def test_null_where_a_number_is_required_is_refused_alike(
    target: np.ndarray, tmp_path: Path
) -> None:
    whole = pd.DataFrame({"n": np.arange(N_ROWS)})
    package = save_model(trained(whole, target), tmp_path / "p", input_example=whole)
    batch = pa.RecordBatch.from_arrays([pa.array([1, None], pa.int64())], names=["n"])
    for runtime in TreeRuntime:
        with pytest.raises(SignatureMismatchError, match="'n' is required"):
            load_predictor(package, TrustPolicy(), runtime).predict(batch)


def test_model_that_is_not_understood_is_scored_by_its_library(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"x": np.linspace(0, 1, N_ROWS)})
    model = trained(numbers, np.arange(float(N_ROWS)), linear_tree=True)
    loaded = load_predictor(save_model(model, tmp_path / "p", input_example=numbers), TrustPolicy())
    assert loaded.runtime.name == "native"
    assert "linear models" in loaded.runtime.reason


def test_parameter_that_changes_predictions_keeps_the_library(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"x": np.linspace(0, 1, N_ROWS)})
    model = lightgbm.LGBMRegressor(n_estimators=3, n_jobs=1, verbose=-1, pred_early_stop=True)
    model.fit(numbers, np.arange(float(N_ROWS)))
    loaded = load_predictor(save_model(model, tmp_path / "p", input_example=numbers), TrustPolicy())
    assert (loaded.runtime.name, "pred_early_stop" in loaded.runtime.reason) == ("native", True)


def test_model_that_is_neither_fused_nor_of_trees_says_so(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"x": [0.0, 1.0]})
    model = KNeighborsRegressor(1).fit(numbers, [0.0, 1.0])
    loaded = load_predictor(save_model(model, tmp_path / "p", input_example=numbers), TrustPolicy())
    assert loaded.runtime.name == "native"
    assert "compiled trees do not know a KNeighborsRegressor; not fused" in loaded.runtime.reason


def test_without_numba_the_library_serves_and_the_extra_is_named(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"x": np.linspace(0, 1, N_ROWS)})
    package = save_model(
        trained(numbers, np.arange(float(N_ROWS))), tmp_path / "p", input_example=numbers
    )
    code = (
        "import sys; sys.modules['numba'] = None\n"
        "from pathlib import Path\n"
        "from sparkscore.flavors import load_predictor\n"
        "from sparkscore.package import TrustPolicy, open_package\n"
        "runtime = load_predictor(open_package(Path(sys.argv[1])), TrustPolicy()).runtime\n"
        "print(runtime.name, '|', runtime.reason)"
    )
    command = [sys.executable, "-c", code, str(package.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.startswith("native | numba is not installed")
    assert "sparkscore[trees]" in done.stdout


def test_native_runtime_loads_no_numba(tmp_path: Path) -> None:
    numbers = pd.DataFrame({"x": np.linspace(0, 1, N_ROWS)})
    package = save_model(
        trained(numbers, np.arange(float(N_ROWS))), tmp_path / "p", input_example=numbers
    )
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sparkscore.flavors import load_predictor\n"
        "from sparkscore.flavors.base import TreeRuntime\n"
        "from sparkscore.package import TrustPolicy, open_package\n"
        "load_predictor(open_package(Path(sys.argv[1])), TrustPolicy(), TreeRuntime.NATIVE)\n"
        "print('numba' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(package.folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.strip() == "False"
