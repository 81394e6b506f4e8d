from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import onnx
import pandas as pd
import pyarrow as pa
import pytest
import xgboost
from onnx import TensorProto, helper
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from sparkscore.errors import SignatureMismatchError, UsageError
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.tensors import example_batch, model_input
from sparkscore.package import TrustPolicy, open_package
from sparkscore.package.schema import ColumnSchema, TensorSchema, TensorSpec
from sparkscore.package.signature import infer_signature

RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(40, 3))
TARGET = ROWS.sum(axis=1)


def arrays_of(schema: TensorSchema, example: object) -> object:
    return model_input(example_batch(example, schema), schema)


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int8", "uint64", "bool", "str"]
)
@pytest.mark.parametrize("shape", [(5,), (5, 1), (5, 3), (5, 2, 3), (5, 2, 3, 1)])
def test_an_array_comes_to_the_model_as_it_was_given(dtype: str, shape: tuple[int, ...]) -> None:
    array = RNG.integers(0, 2, shape).astype(dtype)
    spec = (-1, *shape[1:])
    found = arrays_of(TensorSchema((TensorSpec(None, dtype, spec),)), array)
    named = TensorSchema((TensorSpec("b", dtype, spec), TensorSpec("a", dtype, spec)))
    both = arrays_of(named, {"a": array, "b": array})
    assert isinstance(both, dict)
    assert list(both) == ["b", "a"]
    for one in (found, both["a"], both["b"]):
        assert isinstance(one, np.ndarray)
        assert (one.dtype.type, one.shape) == (array.dtype.type, shape)
        assert one.flags.c_contiguous
        assert one.flags.writeable
        assert np.array_equal(one, array)


def test_null_among_floats_of_columns_is_nan_and_has_no_place_in_other_types() -> None:
    floats = TensorSchema((TensorSpec(None, "float32", (-1, 2)),))
    batch = pa.record_batch(
        {"0": pa.array([1.5, None], pa.float32()), "1": pa.array([0.5, 2.5], pa.float32())}
    )
    found = model_input(batch, floats)
    assert isinstance(found, np.ndarray)
    assert np.array_equal(found, np.array([[1.5, 0.5], [np.nan, 2.5]], "f4"), equal_nan=True)
    for dtype, values in {"int64": [1, None], "bool": [True, None], "str": ["a", None]}.items():
        schema = TensorSchema((TensorSpec("x", dtype, (-1,)),))
        with pytest.raises(SignatureMismatchError, match=f"tensor 'x' of {dtype} holds 1 nulls"):
            model_input(pa.record_batch({"x": values}), schema)


def test_rows_of_any_length_have_one_in_each_batch() -> None:
    schema = TensorSchema((TensorSpec("x", "float64", (-1, -1)),))
    kind = pa.list_(pa.float64())
    found = model_input(pa.record_batch({"x": pa.array([[1.0], [2.0]], kind)}), schema)
    assert isinstance(found, dict)
    assert found["x"].tolist() == [[1.0], [2.0]]
    with pytest.raises(SignatureMismatchError, match=r"lists of the lengths \[1, 2\]"):
        model_input(pa.record_batch({"x": pa.array([[1.0], [2.0, 3.0]], kind)}), schema)


@pytest.mark.parametrize(
    "example",
    [np.zeros((2, 4)), np.zeros(2), np.zeros((2, 3, 1)), {"x": np.zeros((2, 3))}],
    ids=["width", "vector", "axes", "named"],
)
def test_example_of_another_shape_is_refused(example: object) -> None:
    with pytest.raises(UsageError, match=r"array of shape \[-1, 3\]"):
        example_batch(example, TensorSchema((TensorSpec(None, "float64", (-1, 3)),)))


def fitted(estimator: object, rows: np.ndarray) -> object:
    return estimator.fit(rows, TARGET)  # type: ignore[attr-defined]


def picky(rows: np.ndarray) -> np.ndarray:
    """Takes arrays alone: a frame has no such index."""
    return rows[:, 0:2]


MODELS: dict[str, Callable[[np.ndarray], object]] = {
    "linear": lambda rows: fitted(LinearRegression(), rows),
    "forest": lambda rows: fitted(RandomForestRegressor(5, random_state=0), rows),
    "lightgbm": lambda rows: fitted(
        lightgbm.LGBMRegressor(n_estimators=5, verbose=-1, n_jobs=1), rows
    ),
    "xgboost": lambda rows: fitted(xgboost.XGBRegressor(n_estimators=5, n_jobs=1), rows),
}


@pytest.mark.parametrize("dtype", ["float64", "float32", "int64"])
@pytest.mark.parametrize("name", MODELS)
def test_model_fitted_on_an_array_predicts_the_same_from_its_package(
    name: str, dtype: str, tmp_path: Path
) -> None:
    rows = (ROWS * 10).astype(dtype)
    model = MODELS[name](rows)
    package = save_model(model, tmp_path / "model", input_example=rows)
    signature = package.description.signature
    assert signature is not None
    assert signature.inputs == TensorSchema((TensorSpec(None, dtype, (-1, 3)),))
    found = load_predictor(package, TrustPolicy()).predict(example_batch(rows, signature.inputs))
    expected = model.predict(rows)  # type: ignore[attr-defined]
    assert np.array_equal(np.asarray(found), expected)


def test_step_that_takes_arrays_alone_gets_one(tmp_path: Path) -> None:
    model = make_pipeline(FunctionTransformer(picky), LinearRegression()).fit(ROWS, TARGET)
    signature = infer_signature(ROWS, model.predict(ROWS))
    package = save_model(
        PipelineOf(model), tmp_path / "model", signature=signature, input_example=ROWS
    )
    loaded = load_predictor(package, TrustPolicy(allow_code=True))
    found = loaded.predict(example_batch(ROWS, signature.inputs))
    assert np.array_equal(np.asarray(found), model.predict(ROWS))


class PipelineOf:
    def __init__(self, model: object) -> None:
        self.model = model

    def predict(self, model_input: np.ndarray) -> np.ndarray:
        assert isinstance(model_input, np.ndarray)
        answer: np.ndarray = self.model.predict(model_input)  # type: ignore[attr-defined]
        return answer


def test_example_of_arrays_is_kept_as_mlflow_keeps_it(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS, TARGET)
    package = save_model(model, tmp_path / "model", input_example=ROWS)
    assert package.description.saved_input_example_info == {
        "artifact_path": "input_example.json",
        "type": "ndarray",
    }
    kept = json.loads((package.folder / "input_example.json").read_text("utf-8"))
    assert kept == ROWS[:10].tolist()


def of_images() -> onnx.ModelProto:
    """A graph of two inputs: sums images over their axes, and adds a number."""
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2])
    graph = helper.make_graph(
        [
            helper.make_node("ReduceSum", ["image", "axes"], ["sums"], keepdims=0),
            helper.make_node("Flatten", ["more"], ["flat"]),
            helper.make_node("ReduceSum", ["flat", "one"], ["last"], keepdims=0),
            helper.make_node("Add", ["sums", "last"], ["answer"]),
        ],
        "images",
        [
            helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 2, 2]),
            helper.make_tensor_value_info("more", TensorProto.FLOAT, ["n", 1]),
        ],
        [helper.make_tensor_value_info("answer", TensorProto.FLOAT, ["n"])],
        [axes, helper.make_tensor("one", TensorProto.INT64, [1], [1])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_graph_gets_its_tensors_by_name(tmp_path: Path) -> None:
    example = {
        "more": np.array([[0.5], [1.5]], "float32"),
        "image": np.arange(8, dtype="float32").reshape(2, 2, 2),
    }
    package = save_model(of_images(), tmp_path / "model", input_example=example)
    signature = open_package(package.folder).description.signature
    assert signature is not None
    assert isinstance(signature.outputs, ColumnSchema)
    batch = example_batch(example, signature.inputs)
    found = np.asarray(load_predictor(package, TrustPolicy()).predict(batch))
    assert found.tolist() == [6.5, 23.5]


def test_frame_of_columns_without_names_is_an_example_of_a_matrix(tmp_path: Path) -> None:
    model = LinearRegression().fit(ROWS, TARGET)
    signature = infer_signature(ROWS, TARGET)
    package = save_model(
        model, tmp_path / "model", signature=signature, input_example=pd.DataFrame(ROWS)
    )
    kept = json.loads((package.folder / "input_example.json").read_text("utf-8"))
    assert kept == ROWS[:10].tolist()
