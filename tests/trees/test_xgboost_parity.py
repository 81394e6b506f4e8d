"""xgboost's own predictions, to the bit: the model's JSON read, scored in float32 and linked."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import xgboost
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.flavors.compiled_xgboost import CompiledXgboost
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.trees.forest import NotCompiledError
from sparkscore.trees.xgboost_json import read_xgboost

N_FEATURES = 5
N_ROWS = 1200
SCHEMA = ColumnSchema(
    tuple(ColumnSpec(f"x{i}", ScalarType.DOUBLE, required=False) for i in range(N_FEATURES))
)
OBJECTIVES: dict[str, dict[str, object]] = {
    "reg:squarederror": {},
    "reg:absoluteerror": {},
    "reg:pseudohubererror": {},
    "reg:quantileerror": {"quantile_alpha": 0.3},
    "reg:squaredlogerror": {},
    "reg:logistic": {},
    "reg:gamma": {},
    "reg:tweedie": {},
    "count:poisson": {},
    "binary:logistic": {"base_score": 0.2},
    "binary:logitraw": {},
    "rank:pairwise": {},
    "survival:cox": {},
    "multi:softprob": {"num_class": 3},
}


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


def trained(options: dict[str, object], seed: int = 0, n_trees: int = 8) -> xgboost.Booster:
    rows = table(seed)
    target = shares(rows)
    objective = str(options.get("objective", "reg:squarederror"))
    if objective.startswith("multi"):
        target = np.digitize(target, [0.4, 0.6])
    elif objective.startswith("binary"):
        target = target > 0.5
    data = xgboost.DMatrix(rows, target)
    if objective.startswith("rank"):
        data.set_group([N_ROWS // 2, N_ROWS // 2])
    return xgboost.train({"nthread": 1, "seed": 1, **options}, data, n_trees)


def hard_rows(booster: xgboost.Booster, seed: int, n_rows: int = 400) -> np.ndarray:
    """Ties with thresholds and their neighbours in both widths; nulls, zeros, huge values."""
    rng = np.random.default_rng(seed)
    forest = read_xgboost(booster.save_raw("json").decode()).forest
    rows = table(seed + 1, n_rows)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-45, 5e-324, 1e300, -1e300]
    for feature in range(N_FEATURES):
        ties = forest.threshold[forest.feature == feature].astype(np.float32)
        if not len(ties):
            continue
        tie = rng.choice(ties, n_rows)
        close = [
            tie,
            np.nextafter(tie, np.float32(np.inf)),
            np.nextafter(tie.astype(np.float64), np.inf),
            tie.astype(np.float64) * (1 + 2**-24),
            rng.choice(special, n_rows),
            rows[:, feature],
        ]
        rows[:, feature] = np.choose(rng.integers(0, len(close), n_rows), close)
    return rows


def predicted(model: object, rows: np.ndarray, schema: ColumnSchema = SCHEMA) -> np.ndarray:
    columns = [pa.array(np.ascontiguousarray(column)) for column in rows.T]
    batch = pa.RecordBatch.from_arrays(columns, names=schema.names)
    return np.asarray(CompiledXgboost(model, schema).predict(batch))


def assert_equal_bits(booster: xgboost.Booster, seed: int = 0) -> None:
    rows = hard_rows(booster, seed)
    expected = np.asarray(booster.inplace_predict(rows))
    got = predicted(booster, rows)
    assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_every_objective_predicts_equal_bits(objective: str) -> None:
    assert_equal_bits(trained({"objective": objective, **OBJECTIVES[objective]}))


@pytest.mark.parametrize(
    "options",
    [
        {"num_parallel_tree": 4, "subsample": 0.5},
        {"gamma": 1.0, "max_depth": 8},
        {"max_leaves": 500, "max_depth": 0, "tree_method": "hist", "grow_policy": "lossguide"},
        {"max_depth": 12, "min_child_weight": 0, "lambda": 0, "tree_method": "exact"},
        {"learning_rate": 40.0, "objective": "binary:logistic"},
        {"learning_rate": 40.0, "objective": "multi:softprob", "num_class": 3},
    ],
)
def test_trees_of_any_shape_predict_equal_bits(options: dict[str, object]) -> None:
    assert_equal_bits(trained(options))


def test_trees_of_too_many_leaves_for_bits_are_walked_down_to_equal_ones() -> None:
    rows = np.random.default_rng(0).normal(size=(6000, N_FEATURES))
    options = {"max_depth": 14, "min_child_weight": 0, "lambda": 0, "nthread": 1}
    booster = xgboost.train(options, xgboost.DMatrix(rows, rows.sum(axis=1) ** 3), 2)
    assert read_xgboost(booster.save_raw("json").decode()).forest.n_leaves.max() > 1024
    assert_equal_bits(booster)


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    objective=st.sampled_from(sorted(OBJECTIVES)),
    depth=st.integers(1, 9),
    n_trees=st.integers(1, 12),
)
def test_any_model_predicts_equal_bits(seed: int, objective: str, depth: int, n_trees: int) -> None:
    options = {"objective": objective, **OBJECTIVES[objective], "max_depth": depth}
    assert_equal_bits(trained(options, seed, n_trees), seed)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_classifier_answers_its_labels_with_its_best_iteration(n_classes: int) -> None:
    rows = table(3)
    labels = np.digitize(shares(rows), np.linspace(0, 1, n_classes + 1)[1:-1])
    noise = np.random.default_rng(0).permutation(labels)
    model = xgboost.XGBClassifier(n_estimators=30, early_stopping_rounds=2, n_jobs=1)
    model.fit(rows, labels, eval_set=[(rows, noise)], verbose=False)
    assert model.best_iteration < 25
    hard = hard_rows(model.get_booster(), 3)
    expected, got = model.predict(hard), predicted(model, hard)
    assert got.dtype == expected.dtype
    assert np.array_equal(got, expected)


def test_numbers_of_every_type_become_the_float32_that_xgboost_makes_of_them() -> None:
    kinds = (ScalarType.LONG, ScalarType.INTEGER, ScalarType.BOOLEAN, ScalarType.FLOAT)
    rng = np.random.default_rng(1)
    longs = rng.integers(-(2**62), 2**62, N_ROWS)
    columns: list[np.ndarray] = [
        longs,
        rng.integers(-(2**31), 2**31, N_ROWS).astype(np.int32),
        rng.random(N_ROWS) < 0.5,
        rng.normal(size=N_ROWS).astype(np.float32),
    ]
    floats = np.stack([column.astype(np.float32) for column in columns], axis=1)
    target = floats[:, 0] / 2**62 + floats[:, 1] / 2**31 + floats[:, 2] + floats[:, 3]
    booster = xgboost.train({"nthread": 1}, xgboost.DMatrix(floats, target), 8)
    schema = ColumnSchema(tuple(ColumnSpec(str(kind), kind) for kind in kinds))
    batch = pa.RecordBatch.from_arrays([pa.array(c) for c in columns], names=schema.names)
    got = np.asarray(CompiledXgboost(booster, schema).predict(batch))
    assert got.tobytes() == booster.inplace_predict(floats).tobytes()


def _renamed(model: dict[str, Any]) -> None:
    model["learner"]["objective"]["name"] = "reg:novel"


def _without_trees(model: dict[str, Any]) -> None:
    del model["learner"]["gradient_booster"]["model"]["trees"]


def _of_vectors(model: dict[str, Any]) -> None:
    trees = model["learner"]["gradient_booster"]["model"]["trees"]
    trees[0]["tree_param"]["size_leaf_vector"] = "3"


def _circular(model: dict[str, Any]) -> None:
    tree = model["learner"]["gradient_booster"]["model"]["trees"][0]
    tree["left_children"][1] = 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_renamed, "objective 'reg:novel' is not known"),
        (_without_trees, "another form than known: KeyError"),
        (_of_vectors, "its leaves are vectors"),
        (_circular, "are no tree"),
    ],
)
def test_json_that_is_not_understood_is_refused_and_why(
    change: Callable[[dict[str, Any]], None], said: str
) -> None:
    booster = trained({})
    model = json.loads(booster.save_raw("json"))
    change(model)

    class Changed:
        def save_raw(self, raw_format: str) -> bytearray:
            assert raw_format == "json"
            return bytearray(json.dumps(model).encode())

        def inplace_predict(self, data: np.ndarray, **_: object) -> np.ndarray:
            return np.asarray(booster.inplace_predict(data))

    with pytest.raises(NotCompiledError, match=said):
        CompiledXgboost(Changed(), SCHEMA)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"booster": "dart"}, "its booster is 'dart'"),
        ({"booster": "gblinear"}, "its booster is 'gblinear'"),
        ({"objective": "binary:hinge"}, "objective 'binary:hinge'"),
    ],
)
def test_other_kinds_of_models_are_left_to_xgboost(options: dict[str, object], said: str) -> None:
    with pytest.raises(NotCompiledError, match=said):
        CompiledXgboost(trained(options), SCHEMA)


def test_library_that_answers_otherwise_keeps_the_model() -> None:
    booster = trained({})

    class OffByOneBit:
        def save_raw(self, raw_format: str) -> bytearray:
            return bytearray(booster.save_raw(raw_format))

        def inplace_predict(self, data: np.ndarray, **_: object) -> np.ndarray:
            return np.nextafter(booster.inplace_predict(data), np.float32(np.inf))

    with pytest.raises(NotCompiledError, match="disagree"):
        CompiledXgboost(OffByOneBit(), SCHEMA)
