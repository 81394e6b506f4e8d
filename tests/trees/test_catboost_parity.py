"""CatBoost's own predictions, to the bit: the model's JSON read, scored and made labels of."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import catboost
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.flavors.compiled_catboost import CompiledCatboost
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.trees.catboost_json import read_catboost
from sparkscore.trees.forest import Forest, NotCompiledError

N_FEATURES = 5
N_ROWS = 1200
SCHEMA = ColumnSchema(
    tuple(ColumnSpec(f"x{i}", ScalarType.DOUBLE, required=False) for i in range(N_FEATURES))
)
QUIET: dict[str, object] = {"thread_count": 1, "verbose": 0, "allow_writing_files": False}
LOSSES = (
    "RMSE",
    "MAE",
    "Quantile:alpha=0.3",
    "Huber:delta=1",
    "LogLinQuantile",
    "MAPE",
    "MultiRMSE",
)
LOSSES_OF_LABELS = ("Logloss", "CrossEntropy", "MultiClass", "MultiClassOneVsAll")


class Trained(Protocol):
    """A model of CatBoost, which has no types of its own."""

    def save_model(self, fname: str, format: str) -> None: ...  # noqa: A002 - CatBoost's own name

    def predict(
        self, data: object, prediction_type: str = ..., *, thread_count: int = ...
    ) -> np.ndarray: ...

    def set_scale_and_bias(self, scale: float, bias: object) -> None: ...

    def set_probability_threshold(self, threshold: float) -> None: ...


def table(seed: int, n_rows: int = N_ROWS) -> np.ndarray:
    """Normal values with nulls and zeros."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, N_FEATURES))
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 4] = np.where(rng.random(n_rows) < 0.4, 0.0, rows[:, 4])
    return rows


def shares(rows: np.ndarray) -> np.ndarray:
    filled = np.nan_to_num(rows)
    share: np.ndarray = 1 / (1 + np.exp(-filled[:, 0] * filled[:, 1] - filled[:, 4]))
    return share


def trained(options: dict[str, object], seed: int = 0, n_trees: int = 8) -> Trained:
    rows = table(seed)
    target = shares(rows)
    loss = str(options.get("loss_function", "RMSE"))
    kind = catboost.CatBoostRegressor
    if loss in LOSSES_OF_LABELS:
        kind = catboost.CatBoostClassifier
        limits = [0.4, 0.6] if loss.startswith("Multi") else [0.5]
        target = target if loss == "CrossEntropy" else np.digitize(target, limits)
    elif loss == "MultiRMSE":
        target = np.stack([target, target**2], axis=1)
    model = kind(**{**QUIET, "iterations": n_trees, "random_seed": 1, **options})
    fitted: Trained = model.fit(rows, target)
    return fitted


def forest_of(model: Trained, folder: Path) -> Forest:
    model.save_model(str(folder / "model.json"), format="json")
    return read_catboost((folder / "model.json").read_text()).forest


def hard_rows(forest: Forest, seed: int, n_rows: int = 400) -> np.ndarray:
    """Ties with borders and their neighbours in both widths; nulls, zeros, huge values."""
    rng = np.random.default_rng(seed)
    rows = table(seed + 1, n_rows)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 5e-324, 1e300, -1e300]
    for feature in range(N_FEATURES):
        ties = forest.threshold[forest.feature == feature].astype(np.float32)
        if not len(ties):
            continue
        tie = rng.choice(ties, n_rows)
        with np.errstate(over="ignore"):  # The border of missing values is the largest float32.
            above = np.nextafter(tie, np.float32(np.inf))
        close = [
            tie,
            above,
            np.nextafter(tie.astype(np.float64), np.inf),
            tie.astype(np.float64) * (1 + 2**-24),
            rng.choice(special, n_rows),
            rows[:, feature],
        ]
        rows[:, feature] = np.choose(rng.integers(0, len(close), n_rows), close)
    return rows


def predicted(model: Trained, rows: np.ndarray) -> np.ndarray:
    columns = [pa.array(np.ascontiguousarray(column)) for column in rows.T]
    batch = pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)
    return np.asarray(CompiledCatboost(model, SCHEMA).predict(batch))


def assert_equal_bits(model: Trained, folder: Path, seed: int = 0) -> None:
    rows = hard_rows(forest_of(model, folder), seed)
    with np.errstate(over="ignore"):  # CatBoost makes infinities of what no float32 holds.
        expected = model.predict(pd.DataFrame(rows))
    got = predicted(model, rows)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.mark.parametrize("loss", [*LOSSES, *LOSSES_OF_LABELS])
def test_every_loss_predicts_equal_bits(loss: str, folder: Path) -> None:
    assert_equal_bits(trained({"loss_function": loss}), folder)


@pytest.mark.parametrize(
    "options",
    [
        {"nan_mode": "Max"},
        {"depth": 1},
        {"depth": 8},
        {"depth": 9},
        {"depth": 12},
        {"border_count": 1000, "depth": 8, "iterations": 60},
        {"learning_rate": 40.0},
        {"bootstrap_type": "Bernoulli", "subsample": 0.5, "rsm": 0.4},
        {"boosting_type": "Ordered"},
        {"model_shrink_rate": 0.2},
    ],
)
def test_trees_of_any_shape_predict_equal_bits(options: dict[str, object], folder: Path) -> None:
    assert_equal_bits(trained(options), folder)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    loss=st.sampled_from(sorted((*LOSSES, *LOSSES_OF_LABELS))),
    depth=st.integers(1, 10),
    n_trees=st.integers(1, 30),
)
def test_any_model_predicts_equal_bits(
    folder: Path, seed: int, loss: str, depth: int, n_trees: int
) -> None:
    model = trained({"loss_function": loss, "depth": depth}, seed, n_trees)
    assert_equal_bits(model, folder, seed)


def test_scale_and_bias_and_a_sum_of_models_predict_equal_bits(folder: Path) -> None:
    model = trained({})
    model.set_scale_and_bias(0.3, 1.7)
    assert_equal_bits(model, folder)
    parts = [trained({}, 1), trained({"depth": 4}, 2)]
    assert_equal_bits(catboost.sum_models(parts, weights=[0.3, 0.7]), folder)


def test_missing_value_that_was_not_trained_on_goes_with_the_low_ones(folder: Path) -> None:
    rows = np.nan_to_num(table(0))
    model = catboost.CatBoostRegressor(iterations=8, **QUIET).fit(rows, shares(rows))
    assert_equal_bits(model, folder)


def test_score_between_two_labels_is_the_first() -> None:
    rows = table(0)
    two = trained({"loss_function": "Logloss"})
    two.set_scale_and_bias(1, -float(two.predict(rows, "RawFormulaVal")[0]))
    assert two.predict(rows, "RawFormulaVal")[0] == 0.0
    three = trained({"loss_function": "MultiClass"})
    three.set_scale_and_bias(0, [0.0, 1.0, 1.0])
    for model in (two, three):
        assert np.array_equal(predicted(model, rows), model.predict(rows))


def test_numbers_of_every_type_become_the_float32_that_catboost_makes_of_them() -> None:
    kinds = (ScalarType.LONG, ScalarType.INTEGER, ScalarType.BOOLEAN, ScalarType.FLOAT)
    rng = np.random.default_rng(1)
    # The longs halfway between two float32: rounded to a double first, most would go elsewhere.
    halfway = rng.integers(2**23, 2**24, N_ROWS) * 2**38 + 2**37 + rng.integers(-1, 2, N_ROWS)
    frame = pd.DataFrame(
        {
            "long": halfway,
            "integer": rng.integers(-(2**31), 2**31, N_ROWS).astype(np.int32),
            "boolean": rng.random(N_ROWS) < 0.5,
            "float": rng.normal(size=N_ROWS).astype(np.float32),
        }
    )
    target = halfway / 2**62 + frame["integer"] / 2**31 + frame["boolean"] + frame["float"]
    model = catboost.CatBoostRegressor(iterations=200, border_count=1000, **QUIET)
    model.fit(frame, target)
    schema = ColumnSchema(tuple(ColumnSpec(str(kind), kind) for kind in kinds))
    batch = pa.RecordBatch.from_arrays(
        [pa.array(frame[name].to_numpy()) for name in frame], names=schema.names
    )
    got = np.asarray(CompiledCatboost(model, schema).predict(batch))
    assert got.tobytes() == model.predict(frame).tobytes()


class Changed:
    """A regressor whose JSON is another one."""

    def __init__(self, model: Trained, change: Callable[[dict[str, Any]], None]) -> None:
        self._model = model
        self._change = change

    def save_model(self, fname: str, format: str) -> None:  # noqa: A002 - CatBoost's own name
        self._model.save_model(fname, format=format)
        model = json.loads(Path(fname).read_text())
        self._change(model)
        Path(fname).write_text(json.dumps(model))

    def predict(self, data: object, *, thread_count: int) -> np.ndarray:
        return np.asarray(self._model.predict(data, thread_count=thread_count))


def _without_scale(model: dict[str, Any]) -> None:
    del model["scale_and_bias"]


def _with_a_category(model: dict[str, Any]) -> None:
    model["features_info"]["categorical_features"] = [{"feature_index": 0}]


def _of_another_split(model: dict[str, Any]) -> None:
    model["oblivious_trees"][0]["splits"][0]["split_type"] = "OneHotFeature"


def _with_a_leaf_too_few(model: dict[str, Any]) -> None:
    model["oblivious_trees"][0]["leaf_values"].pop()


def _of_novel_missing_values(model: dict[str, Any]) -> None:
    for feature in model["features_info"]["float_features"]:
        feature["nan_value_treatment"] = "AsZero"


def _with_another_leaf(model: dict[str, Any]) -> None:
    values = model["oblivious_trees"][0]["leaf_values"]
    values[:] = [float(np.nextafter(value, 1e9)) for value in values]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_scale, "another form than known: KeyError"),
        (_with_a_category, "beside numbers it has 'categorical_features'"),
        (_of_another_split, "splits by 'OneHotFeature'"),
        (_with_a_leaf_too_few, "has 63 leaves"),
        (_of_novel_missing_values, "another form than known: KeyError"),
        (_with_another_leaf, "disagree"),
    ],
)
def test_json_that_is_not_understood_is_refused_and_why(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    with pytest.raises(NotCompiledError, match=said):
        CompiledCatboost(Changed(trained({}), change), SCHEMA)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss_function": "Poisson"}, "loss 'Poisson'.*own exp"),
        ({"loss_function": "Tweedie:variance_power=1.5"}, "loss 'Tweedie'.*own exp"),
        ({"loss_function": "RMSEWithUncertainty"}, "own exp"),
        ({"grow_policy": "Depthwise"}, "not symmetric"),
        ({"grow_policy": "Lossguide"}, "not symmetric"),
    ],
)
def test_other_kinds_of_models_are_left_to_catboost(options: dict[str, object], said: str) -> None:
    with pytest.raises(NotCompiledError, match=said):
        CompiledCatboost(trained(options), SCHEMA)


def test_classifier_that_answers_several_labels_a_row_is_left_to_catboost() -> None:
    rows = table(0)
    labels = np.stack([shares(rows) > 0.4, shares(rows) > 0.6], axis=1)
    model = catboost.CatBoostClassifier(iterations=3, loss_function="MultiLogloss", **QUIET)
    with pytest.raises(NotCompiledError, match="loss 'MultiLogloss'"):
        CompiledCatboost(model.fit(rows, labels), SCHEMA)


def test_probability_threshold_of_the_users_own_is_left_to_catboost() -> None:
    model = trained({"loss_function": "Logloss"})
    model.set_probability_threshold(0.7)
    with pytest.raises(NotCompiledError, match="probability threshold"):
        CompiledCatboost(model, SCHEMA)


def test_label_that_was_declared_and_never_seen_is_left_to_catboost() -> None:
    rows = table(0)
    model = catboost.CatBoostClassifier(
        iterations=3, loss_function="MultiClass", class_names=[0, 1, 2, 3], **QUIET
    )
    model.fit(rows, np.digitize(shares(rows), [0.4, 0.6]))
    with pytest.raises(NotCompiledError, match="4 labels for 3 scores"):
        CompiledCatboost(model, SCHEMA)
