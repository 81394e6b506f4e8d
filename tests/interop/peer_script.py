"""Runs in MLflow's own environment: `write FOLDER` or `read FOLDER`.

It shares nothing with sparkscore but files: packages, parquet rows, NumPy answers, JSON.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import catboost
import lightgbm
import mlflow
import numpy as np
import onnx
import pandas as pd
import skops.io
import statsmodels.api
import xgboost
from mlflow.models import Model, infer_signature
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder


def write(folder: Path) -> None:
    """Packages as MLflow saves them, the rows they were fitted on, and MLflow's answers."""
    rows = pd.DataFrame(
        {
            "age": [31, 42, 53, 64] * 20,
            "income": [1.5, None, 2.25, 3.1] * 20,
            "town": ["Ulm", None, "Bonn", "Kiel"] * 20,
            "plan": ["a", "b"] * 40,
        }
    )
    numbers = rows[["age", "income"]].astype("float64")
    target = np.sin(np.arange(80.0))
    columns = ColumnTransformer(
        [
            ("numbers", SimpleImputer(), ["age", "income"]),
            ("town", OneHotEncoder(handle_unknown="ignore"), ["town"]),
            ("plan", OrdinalEncoder(), ["plan"]),
        ],
        sparse_threshold=0,
    )
    trees = HistGradientBoostingRegressor(max_iter=20, min_samples_leaf=2, random_state=0)
    pipeline = Pipeline([("columns", columns), ("trees", trees)]).fit(rows, target)
    regressor = lightgbm.LGBMRegressor(n_estimators=20, min_child_samples=2, n_jobs=1, verbose=-1)
    regressor.fit(numbers, target)
    linear = LinearRegression().fit(numbers.fillna(0), target)
    trusted = skops.io.get_untrusted_types(data=skops.io.dumps(pipeline))
    save = mlflow.sklearn.save_model
    of_rows = infer_signature(rows, pipeline.predict(rows))
    of_numbers = infer_signature(numbers, regressor.predict(numbers))
    save(
        pipeline,
        folder / "pipeline",
        signature=of_rows,
        input_example=rows.head(3),
        skops_trusted_types=trusted,
    )
    mlflow.lightgbm.save_model(regressor, folder / "regressor", signature=of_numbers)
    mlflow.lightgbm.save_model(regressor.booster_, folder / "booster", signature=of_numbers)
    grown = xgboost.XGBRegressor(n_estimators=20, n_jobs=1).fit(numbers, target)
    for model, name in ((grown, "xgb_regressor"), (grown.get_booster(), "xgb_booster")):
        for form in ("ubj", "json"):
            path = folder / f"{name}_{form}"
            mlflow.xgboost.save_model(model, path, signature=of_numbers, model_format=form)
    quiet = {"iterations": 20, "thread_count": 1, "verbose": 0, "allow_writing_files": False}
    grown = catboost.CatBoostRegressor(**quiet).fit(numbers, target)
    for form in ("cbm", "json"):
        path = folder / f"cat_regressor_{form}"
        mlflow.catboost.save_model(grown, path, signature=of_numbers, format=form)
    sorter = catboost.CatBoostClassifier(**quiet).fit(numbers, np.arange(80) // 30)
    of_labels = infer_signature(numbers, sorter.predict(numbers))
    mlflow.catboost.save_model(sorter, folder / "cat_classifier", signature=of_labels)
    for name, make in (("onnx_matrix", matrix_graph), ("onnx_columns", columns_graph)):
        for beside in (True, False):
            path = folder / f"{name}_{'beside' if beside else 'inside'}"
            answers = pd.DataFrame({"score": np.zeros(80, np.float32)})
            mlflow.onnx.save_model(
                make(),  # Saving moves the tensors out of the object.
                path,
                signature=infer_signature(numbers, answers),
                save_as_external_data=beside,
            )
    fitted = statsmodels.api.OLS(target, numbers.fillna(0)).fit()
    mlflow.statsmodels.save_model(fitted, folder / "statsmodels", signature=of_numbers)
    for how in ("pickle", "cloudpickle"):
        save(linear, folder / how, signature=of_numbers, serialization_format=how)
    for package in list(folder.iterdir()):
        name = package.name
        given = rows if name == "pipeline" else numbers
        given = given.fillna(0) if "pickle" in name else given
        given.to_parquet(folder / f"{name}.parquet")
        score(folder / name, folder / f"{name}.parquet", folder / f"{name}.npy")


def matrix_graph() -> onnx.ModelProto:
    """One input of all columns; its weights are large enough to lie beside the graph."""
    weights = np.random.default_rng(0).normal(size=(2, 400)).astype(np.float32)
    tensors = [
        onnx.numpy_helper.from_array(weights, "weights"),
        onnx.numpy_helper.from_array(np.ones((400, 1), np.float32), "ones"),
    ]
    nodes = [
        onnx.helper.make_node("MatMul", ["rows", "weights"], ["hidden"]),
        onnx.helper.make_node("MatMul", ["hidden", "ones"], ["score"]),
    ]
    return graph_of(nodes, [value("rows", [None, 2])], [value("score", [None, 1])], tensors)


def columns_graph() -> onnx.ModelProto:
    """An input for each column, in another order than the table's."""
    nodes = [onnx.helper.make_node("Div", ["income", "age"], ["score"])]
    inputs = [value("income", [None]), value("age", [None])]
    return graph_of(nodes, inputs, [value("score", [None])], [])


def value(name: str, shape: list[int | None]) -> onnx.ValueInfoProto:
    """An input or output of floats."""
    return onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)


def graph_of(
    nodes: list[onnx.NodeProto],
    inputs: list[onnx.ValueInfoProto],
    outputs: list[onnx.ValueInfoProto],
    tensors: list[onnx.TensorProto],
) -> onnx.ModelProto:
    """A model of these parts."""
    made = onnx.helper.make_graph(nodes, "graph", inputs, outputs, tensors)
    imports = [onnx.helper.make_opsetid("", 17)]
    return onnx.helper.make_model(made, opset_imports=imports, ir_version=8)


def score(package: Path, rows: Path, answers: Path) -> None:
    """MLflow's predictions of a package for parquet rows, as a NumPy file."""
    predictions = mlflow.pyfunc.load_model(str(package)).predict(pd.read_parquet(rows))
    if isinstance(predictions, pd.DataFrame) and predictions.shape[1] == 1:
        predictions = predictions.iloc[:, 0]
    np.save(answers, np.asarray(predictions))


def read(folder: Path) -> None:
    """For each package with rows beside it: MLflow's answers, and the signature as it reads it."""
    for rows in folder.glob("*.parquet"):
        package = rows.with_suffix("")
        score(package, rows, rows.with_suffix(".npy"))
        model = Model.load(str(package))
        n_rows = len(model.load_input_example(str(package)))
        parts = {"signature": model.signature.to_dict(), "n_example_rows": n_rows}
        rows.with_suffix(".json").write_text(json.dumps(parts), "utf-8")


if __name__ == "__main__":
    command = write if sys.argv[1] == "write" else read
    command(Path(sys.argv[2]))
