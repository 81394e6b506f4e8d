from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import catboost
import cloudpickle
import lightgbm
import numpy as np
import onnx
import pandas as pd
import pytest
import statsmodels.formula.api
import xgboost
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder

from sparkscore.flavors import LoaderModule, PythonModel, load_predictor, save_model
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.python_model import PythonContext
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.signature import infer_signature
from sparkscore.testing.flavor_contract import assert_same

ROWS = pd.DataFrame(
    {
        "age": [31, 42, 53, 64] * 20,
        "income": [1.5, None, 2.25, 3.1] * 20,
        "town": ["Ulm", None, "Bonn", "Kiel"] * 20,
    }
)
NUMBERS = ROWS[["age", "income"]].astype("float64")
TARGET = np.sin(np.arange(80.0))
FEW_TREES = {"iterations": 20, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
QUIET = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 2}


class Scaler:
    def load_context(self, context: PythonContext) -> None:
        self.factor = float(Path(context.artifacts["factor"]).read_text("utf-8"))

    def predict(self, context: object, model_input: pd.DataFrame) -> np.ndarray:  # noqa: ARG002
        return model_input["age"].to_numpy() * self.factor


def a_pipeline(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "income"]),
            ("town", OneHotEncoder(handle_unknown="ignore"), ["town"]),
        ],
        sparse_threshold=0,
    )
    model = HistGradientBoostingClassifier(max_iter=5, random_state=0)
    labels = np.where(TARGET > 0, "late", "early")
    return Pipeline([("columns", columns), ("model", model)]).fit(ROWS, labels), ROWS, {}


def a_booster(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    data = lightgbm.Dataset(NUMBERS, TARGET)
    return lightgbm.train(QUIET, data, num_boost_round=20), NUMBERS, {}


def a_regressor(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    model = lightgbm.LGBMRegressor(n_estimators=20, min_child_samples=2, n_jobs=1, verbose=-1)
    return model.fit(NUMBERS, TARGET), NUMBERS, {}


def an_xgboost_classifier(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    model = xgboost.XGBClassifier(n_estimators=20, n_jobs=1)
    return model.fit(NUMBERS, TARGET > 0), NUMBERS, {}


def an_xgboost_booster(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    return xgboost.train({"nthread": 1}, xgboost.DMatrix(NUMBERS, TARGET), 20), NUMBERS, {}


def a_catboost_regressor(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    return catboost.CatBoostRegressor(**FEW_TREES).fit(NUMBERS, TARGET), NUMBERS, {}


def a_catboost_classifier(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    labels = np.array(["early", "noon", "late"])[np.digitize(TARGET, [-0.5, 0.5])]
    return catboost.CatBoostClassifier(**FEW_TREES).fit(NUMBERS, labels), NUMBERS, {}


def an_onnx_graph(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    weights = np.array([[0.25], [-1.5]], np.float32)
    made = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["rows", "weights"], ["score"])],
        "graph",
        [onnx.helper.make_tensor_value_info("rows", onnx.TensorProto.FLOAT, [None, 2])],
        [onnx.helper.make_tensor_value_info("score", onnx.TensorProto.FLOAT, [None, 1])],
        [onnx.numpy_helper.from_array(weights, "weights")],
    )
    imports = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(made, opset_imports=imports, ir_version=8), NUMBERS, {}


def a_statsmodels_model(_: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    rows = ROWS.assign(target=TARGET)
    return statsmodels.formula.api.ols("target ~ age + I(age ** 2)", rows).fit(), ROWS, {}


def a_python_function(folder: Path) -> tuple[object, pd.DataFrame, dict[str, Path]]:
    (folder / "factor.txt").write_text("2.5", "utf-8")
    return Scaler(), ROWS, {"factor": folder / "factor.txt"}


Peer = Callable[[str, Path], None]
CASES = {
    "pipeline": a_pipeline,
    "booster": a_booster,
    "regressor": a_regressor,
    "xgboost_classifier": an_xgboost_classifier,
    "xgboost_booster": an_xgboost_booster,
    "catboost_regressor": a_catboost_regressor,
    "catboost_classifier": a_catboost_classifier,
    "onnx_graph": an_onnx_graph,
    "statsmodels_model": a_statsmodels_model,
    "python_function": a_python_function,
}


DOUBLES = pd.DataFrame({"x": np.arange(12.0) / 8})
SIGNATURE = infer_signature(DOUBLES, np.zeros(12), {"factor": 2.0})
FACTORS = "FACTOR = 3\n"
SCRIPT = """
from mlflow.models import set_model

from factors import FACTOR


def predict(model_input):
    return model_input["x"] * FACTOR


set_model(predict)
"""
LOADER = """
from pathlib import Path

from factors import FACTOR


class Model:
    def __init__(self, base):
        self.base = base

    def predict(self, rows, params=None):
        return rows["x"].to_numpy() * self.base * FACTOR * params["factor"]


def _load_pyfunc(path):
    return Model(float(Path(path).read_text("utf-8")))
"""
PARAMS = {"factor": 0.5}


class ByParams(PythonModel):
    def predict(self, model_input: pd.DataFrame, params: Mapping[str, float]) -> pd.Series[float]:
        scaled: pd.Series[float] = model_input["x"] * params["factor"]
        return scaled


def listed(model_input: list[float]) -> list[float]:
    return [value + 1 for value in model_input]


def save_python(folder: Path) -> dict[str, dict[str, float]]:
    """Packages of python_function in its forms; the params of a second call of each, by name."""
    source = folder / "source"
    source.mkdir()
    for name, text in {
        "factors.py": FACTORS,
        "model.py": SCRIPT,
        "own_loader.py": LOADER,
        "base.txt": "10",
    }.items():
        (source / name).write_text(text, "utf-8")
    save = partial(save_model, signature=SIGNATURE, input_example=DOUBLES)
    code = [source / "factors.py", source / "own_loader.py"]
    save(source / "model.py", folder / "script", code_paths=code)
    loader = LoaderModule("own_loader", source / "base.txt")
    save(loader, folder / "loader", code_paths=code)
    save(ByParams(), folder / "by_params")
    save(listed, folder / "listed")
    names = ("script", "loader", "by_params", "listed")
    for name in names:
        DOUBLES.to_parquet(folder / f"{name}.parquet")
    return {name: PARAMS if name in WITH_PARAMS else {} for name in names}


WITH_PARAMS = ("loader", "by_params")
FORMS = {"2.22": "cloudpickle"}
"""How models of scikit-learn's kind are saved for a release that reads no skops."""
NAMES = [*CASES, "script", "loader", "by_params", "listed"]


@pytest.fixture(scope="session")
def read_by_mlflow(each_peer: tuple[str, Peer], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of packages that we saved, with rows and MLflow's answers beside them."""
    release, run = each_peer
    folder = tmp_path_factory.mktemp("ours")
    # The peer cannot import this file, so its class travels inside the pickle.
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    for name, make in CASES.items():
        model, rows, artifacts = make(folder)
        save_model(
            model,
            folder / name,
            input_example=rows,
            artifacts=artifacts,
            serialization_format=FORMS.get(release) if name in ("pipeline", "regressor") else None,
        )
        rows.to_parquet(folder / f"{name}.parquet")
    params: dict[str, dict[str, float]] = {name: {} for name in CASES}
    params |= save_python(folder)
    for name, given in params.items():
        (folder / f"{name}.params.json").write_text(json.dumps(given), "utf-8")
    cloudpickle.unregister_pickle_by_value(module)
    run("read", folder)
    return folder


@pytest.mark.parametrize("name", NAMES)
def test_own_package_predicts_the_same_in_mlflow(read_by_mlflow: Path, name: str) -> None:
    package = open_package(read_by_mlflow / name)
    assert package.description.signature is not None
    rows = pd.read_parquet(read_by_mlflow / f"{name}.parquet")
    batch = record_batch(rows, column_inputs(package.description.signature))
    got = load_predictor(package, TrustPolicy(allow_code=True)).predict(batch)
    expected = np.load(read_by_mlflow / f"{name}.npy", allow_pickle=True)
    assert_same(np.asarray(got), expected)


@pytest.mark.parametrize("name", WITH_PARAMS)
def test_own_package_takes_params_in_mlflow_as_here(read_by_mlflow: Path, name: str) -> None:
    package = open_package(read_by_mlflow / name)
    batch = record_batch(DOUBLES, column_inputs(SIGNATURE))
    loaded = load_predictor(package, TrustPolicy(allow_code=True)).with_params(PARAMS)
    expected = np.load(read_by_mlflow / f"{name}.params.npy")
    assert_same(np.asarray(loaded.predict(batch)), expected)


@pytest.mark.parametrize("name", NAMES)
def test_mlflow_reads_our_signature_and_example(read_by_mlflow: Path, name: str) -> None:
    signature = open_package(read_by_mlflow / name).description.signature
    assert signature is not None
    answer = json.loads((read_by_mlflow / f"{name}.json").read_text("utf-8"))
    parts = signature.to_json_parts()
    assert {key: answer["signature"][key] for key in parts} == parts
    assert answer["n_example_rows"] == 10


class OfArrays:
    def predict(self, context: object, model_input: dict[str, np.ndarray]) -> np.ndarray:  # noqa: ARG002
        image, n = model_input["image"], model_input["n"]
        if (str(image.dtype), str(n.dtype)) != ("float32", "int64"):
            raise TypeError(f"{image.dtype} and {n.dtype}")
        answer: np.ndarray = image.sum(axis=(1, 2)) * n
        return answer


def test_models_of_arrays_and_their_examples_are_read_by_mlflow(
    each_peer: tuple[str, Peer], tmp_path: Path
) -> None:
    release, run = each_peer
    matrix = NUMBERS.fillna(0).to_numpy()
    named = {"image": np.arange(12, dtype="float32").reshape(3, 2, 2), "n": np.array([1, 2, 3])}
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    fitted = HistGradientBoostingClassifier(max_iter=5).fit(matrix, TARGET > 0)
    form = FORMS.get(release)
    save_model(fitted, tmp_path / "matrix", input_example=matrix, serialization_format=form)
    save_model(OfArrays(), tmp_path / "named", input_example=named)
    cloudpickle.unregister_pickle_by_value(module)
    run("examples", tmp_path)
    expected = {"matrix": fitted.predict(matrix[:10]), "named": [6.0, 44.0, 114.0]}
    for name, answer in expected.items():
        assert np.load(tmp_path / f"{name}.npy").tolist() == list(answer)
