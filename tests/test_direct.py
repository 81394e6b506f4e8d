from __future__ import annotations

import inspect
import sys
from pathlib import Path

import cloudpickle
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.linear_model import LinearRegression

import sparkscore
from sparkscore.direct import HowToSave, LoadedModel
from sparkscore.errors import (
    ConfigError,
    InvalidRowsError,
    SignatureMismatchError,
    UntrustedCodeError,
    UsageError,
)
from sparkscore.package.signature import (
    ColumnSchema,
    ColumnSpec,
    ScalarType,
    Signature,
    infer_signature,
)
from sparkscore.workspace import Workspace

ROWS = pd.DataFrame({"x": [0.0, 1.0, 2.0], "z": [1.0, 0.0, 4.0]}, index=[7, 8, 9])
EXPECTED = [2.0, 3.0, 14.0]


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{tmp_path}/store.db",
        "artifacts.uri": str(tmp_path / "artifacts"),
        "cache.folder": str(tmp_path / "cache"),
    }
    return Workspace.open(overrides=overrides)


def line() -> LinearRegression:
    """The model 3 x + 2 z."""
    model = LinearRegression()
    model.coef_, model.intercept_ = np.array([3.0, 2.0]), 0.0
    model.feature_names_in_, model.n_features_in_ = np.array(["x", "z"], dtype=object), 2
    return model


@pytest.fixture
def linear(tmp_path: Path, workspace: Workspace) -> LoadedModel:
    sparkscore.save_model(line(), tmp_path / "linear", input_example=ROWS)
    return sparkscore.load_model(str(tmp_path / "linear"), workspace=workspace)


def test_answer_comes_in_the_kind_of_the_data(linear: LoadedModel) -> None:
    series = linear.predict(ROWS[["z", "x"]].assign(more="a"))
    assert isinstance(series, pd.Series)
    assert (series.tolist(), series.index.tolist()) == (EXPECTED, [7, 8, 9])
    table = pa.Table.from_pandas(ROWS)
    answer = linear.predict(table)
    assert isinstance(answer, pa.Table)
    assert answer.to_pydict() == {"prediction": EXPECTED}
    assert linear.predict(table.to_batches()[0]) == answer
    array = linear.predict(ROWS.to_numpy())
    assert isinstance(array, np.ndarray)
    assert array.tolist() == EXPECTED
    assert linear.predict({"x": [0, 1, 2], "z": np.array([1.0, 0, 4])}) == {"prediction": EXPECTED}


def test_batches_are_within_the_limits_and_whole(linear: LoadedModel) -> None:
    rows = pd.DataFrame({"x": np.arange(25_000.0), "z": 0.0})
    answer = linear.predict(rows)
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == [3.0 * x for x in range(25_000)]


def test_column_without_values_fits_whatever_type_pandas_guesses(linear: LoadedModel) -> None:
    empty = pd.DataFrame({"x": [], "z": np.array([], object)})
    answer = linear.predict(empty.astype({"x": "str"}))
    assert isinstance(answer, pd.Series)
    assert (answer.tolist(), str(answer.dtype)) == ([], "float64")


def test_no_rows_give_no_answers(linear: LoadedModel) -> None:
    answer = linear.predict(ROWS.head(0))
    assert isinstance(answer, pd.Series)
    assert answer.tolist() == []


class Two:
    def predict(self, model_input: pd.DataFrame, params: dict[str, float]) -> pd.DataFrame:
        n = model_input["n"]
        missing = n.isna().to_numpy(dtype=bool)
        return pd.DataFrame({"scaled": n.fillna(0).astype(float) * params["by"], "none": missing})


@pytest.fixture
def two(tmp_path: Path, workspace: Workspace) -> LoadedModel:
    """A model of an optional long and a param, of two columns."""
    inputs = ColumnSchema((ColumnSpec("n", ScalarType.LONG, required=False),))
    outputs = ColumnSchema(
        (ColumnSpec("scaled", ScalarType.DOUBLE), ColumnSpec("none", ScalarType.BOOLEAN))
    )
    params = infer_signature(pd.DataFrame({"n": [1]}), params={"by": 2.0}).params
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        sparkscore.save_model(Two(), tmp_path / "two", signature=Signature(inputs, outputs, params))
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    return sparkscore.load_model(str(tmp_path / "two"), trust=True, workspace=workspace)


def test_params_and_missing_values_reach_the_model(two: LoadedModel) -> None:
    data: dict[str, object] = {"n": [1, None, 3]}
    none = [False, True, False]
    assert two.predict(data) == {"scaled": [2.0, 0.0, 6.0], "none": none}
    assert two.predict(data, {"by": 10}) == {"scaled": [10.0, 0.0, 30.0], "none": none}
    assert two.predict({"n": [None]}) == {"scaled": [0.0], "none": [True]}
    frame = two.predict(pd.DataFrame({"n": [1]}, index=[5]))
    assert isinstance(frame, pd.DataFrame)
    assert frame.to_dict("list") == {"scaled": [2.0], "none": [False]}
    assert frame.index.tolist() == [5]
    with pytest.raises(ConfigError, match="'bye' is unknown"):
        two.predict(data, {"bye": 1})


def test_code_needs_trust(two: LoadedModel, workspace: Workspace) -> None:
    with pytest.raises(UntrustedCodeError, match="--trust-code"):
        sparkscore.load_model(str(two.facts.folder), workspace=workspace)


@pytest.mark.parametrize(
    ("data", "error", "said"),
    [
        ({"x": [1.0], "Z": [1.0]}, SignatureMismatchError, r"needs column 'z' \(did you mean 'Z'"),
        ({"q": [1.0]}, SignatureMismatchError, "needs column 'x'; the data has 'q'"),
        ({"x": ["a"], "z": [1.0]}, SignatureMismatchError, "'x' is double, .* string"),
        ({"x": [2**53 + 1], "z": [1.0]}, InvalidRowsError, "9007199254740993"),
        ({"x": [1.0], "z": [1.0, 2.0]}, UsageError, "one length each, but have 1, 2"),
        ({"x": 1.0, "z": 1.0}, UsageError, r"column 'x' is a float that makes no column"),
        ({"x": [1, "a"], "z": [1, 2]}, UsageError, r"'x' is a list .* Could not convert 'a'"),
        ({"x": ["a\ud800"], "z": [1]}, InvalidRowsError, r"no Unicode: U\+D800 at character 1"),
        (ROWS[["x", "x", "z"]], SignatureMismatchError, "several columns 'x', of which"),
        (
            pa.table([[1.0]] * 3, names=["x", "z", "x"]),
            SignatureMismatchError,
            "several columns 'x', of which",
        ),
        (np.zeros((2, 3)), UsageError, r"shape \(2, 3\) .* takes 2 columns"),
        ([[1.0, 2.0]], UsageError, "a list was given; take a pandas DataFrame"),
    ],
)
def test_data_that_does_not_fit_is_one_error(
    data: dict[str, object], error: type[Exception], said: str, linear: LoadedModel
) -> None:
    with pytest.raises(error, match=said):
        linear.predict(data)


def test_model_of_unnamed_columns_takes_arrays_and_frames(
    tmp_path: Path, workspace: Workspace
) -> None:
    array = ROWS.to_numpy()
    model = LinearRegression().fit(array, [2.0, 3.0, 11.0])
    signature = infer_signature(array, model.predict(array))
    sparkscore.save_model(model, tmp_path / "p", signature=signature)
    loaded = sparkscore.load_model(str(tmp_path / "p"), workspace=workspace)
    expected = model.predict(array).tolist()
    answer = loaded.predict(array)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == expected
    series = loaded.predict(pd.DataFrame(array))
    assert isinstance(series, pd.Series)
    assert series.tolist() == expected


def test_logged_model_is_the_next_version(workspace: Workspace) -> None:
    versions = [
        sparkscore.log_model(
            line(), "line", alias="champion", workspace=workspace, input_example=ROWS
        )
        for _ in range(2)
    ]
    assert [version.version for version in versions] == [1, 2]
    loaded = sparkscore.load_model("models:/line@champion", workspace=workspace)
    assert loaded.facts.version == 2
    assert loaded.predict({"x": [1.0], "z": [0.0]}) == {"prediction": [3.0]}


def test_model_that_cannot_be_packed_is_not_registered(workspace: Workspace) -> None:
    with pytest.raises(UsageError, match="input_example="):
        sparkscore.log_model(line(), "line", workspace=workspace)
    assert list(workspace.registry.list_models()) == []
    with pytest.raises(UsageError, match="no file"):
        sparkscore.log_model(
            line(), "line", workspace=workspace, input_example=ROWS, code_paths=["gone"]
        )
    assert list(workspace.registry.list_models()) == []


def test_logging_takes_what_saving_takes() -> None:
    parameters = inspect.signature(sparkscore.save_model).parameters.values()
    keywords = {p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}
    assert keywords == HowToSave.__annotations__.keys()


def test_matrix_is_taken_as_an_array_as_columns_or_as_lists(
    tmp_path: Path, workspace: Workspace
) -> None:
    rows = ROWS.to_numpy()
    model = LinearRegression()
    model.coef_, model.intercept_, model.n_features_in_ = np.array([3.0, 2.0]), 0.0, 2
    sparkscore.save_model(model, tmp_path / "matrix", input_example=rows)
    loaded = sparkscore.load_model(str(tmp_path / "matrix"), workspace=workspace)
    answer = loaded.predict(rows)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == EXPECTED
    expected = {"prediction": EXPECTED}
    assert loaded.predict({"0": ROWS["x"], "1": ROWS["z"]}) == expected
    assert loaded.predict({"0": rows}) == expected
    assert loaded.predict({"0": [list(row) for row in rows]}) == expected
    with pytest.raises(InvalidRowsError, match=r"column '0' is \[1.0\], .* the first is its row 1"):
        loaded.predict({"0": [[1.0, 2.0], [1.0]]})
    with pytest.raises(
        UsageError, match=r"shape \(3, 3\) was given, but the model takes 2 columns"
    ):
        loaded.predict(np.zeros((3, 3)))


def test_array_of_more_axes_is_one_tensor(tmp_path: Path, workspace: Workspace) -> None:
    images = np.arange(12.0).reshape(3, 2, 2)
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    try:
        sparkscore.save_model(Summed(), tmp_path / "images", input_example=images)
    finally:
        cloudpickle.unregister_pickle_by_value(sys.modules[__name__])
    loaded = sparkscore.load_model(str(tmp_path / "images"), trust=True, workspace=workspace)
    answer = loaded.predict(images)
    assert isinstance(answer, np.ndarray)
    assert answer.tolist() == [6.0, 22.0, 38.0]
    assert loaded.predict({"0": images.tolist()}) == {"prediction": [6.0, 22.0, 38.0]}
    with pytest.raises(InvalidRowsError, match=r"no row of double\[2, 2\]"):
        loaded.predict(np.zeros((3, 2, 3)))


class Summed:
    def predict(self, model_input: np.ndarray) -> np.ndarray:
        answer: np.ndarray = model_input.sum(axis=(1, 2))
        return answer
