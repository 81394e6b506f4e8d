"""LightGBM's own predictions, to the bit: the model text read, scored and linked."""

from __future__ import annotations

from typing import Any, cast

import lightgbm
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparkscore.flavors.compiled_lightgbm import Booster, CompiledLightgbm
from sparkscore.package.datatypes import ScalarType
from sparkscore.package.schema import ColumnSchema, ColumnSpec
from sparkscore.trees.forest import ZERO, NotCompiledError
from sparkscore.trees.lightgbm_text import read_lightgbm

N_FEATURES = 5
CATEGORY = 3
SCHEMA = ColumnSchema(
    tuple(ColumnSpec(f"x{i}", ScalarType.DOUBLE, required=False) for i in range(N_FEATURES))
)
OBJECTIVES: dict[str, dict[str, object]] = {
    "regression": {},
    "reg_sqrt": {"objective": "regression", "reg_sqrt": True},
    "l1": {"objective": "l1"},
    "huber": {"objective": "huber"},
    "quantile": {"objective": "quantile"},
    "poisson": {"objective": "poisson"},
    "gamma": {"objective": "gamma"},
    "tweedie": {"objective": "tweedie"},
    "binary": {"objective": "binary", "sigmoid": 0.7},
    "cross_entropy": {"objective": "cross_entropy"},
    "cross_entropy_lambda": {"objective": "cross_entropy_lambda"},
    "multiclass": {"objective": "multiclass", "num_class": 3},
    "multiclassova": {"objective": "multiclassova", "num_class": 3},
    "rf": {"boosting": "rf", "bagging_fraction": 0.7, "bagging_freq": 1},
    "dart": {"boosting": "dart"},
}
SPLITS: dict[str, dict[str, object]] = {
    "missing": {},
    "zero as missing": {"zero_as_missing": True},
    "nothing missing": {"use_missing": False},
    "categories": {"categorical_feature": [CATEGORY]},
    "one category a split": {"categorical_feature": [CATEGORY], "max_cat_to_onehot": 64},
    "categories, zero as missing": {"categorical_feature": [CATEGORY], "zero_as_missing": True},
    "many thresholds": {"max_bin": 1000, "min_data_in_bin": 1},
}


def table(seed: int, n_rows: int = 1200) -> np.ndarray:
    """Normal values with nulls, zeros, and in one column categories."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, N_FEATURES))
    rows[:, CATEGORY] = rng.integers(0, 40, n_rows)
    rows[rng.random(rows.shape) < 0.1] = np.nan
    rows[:, 4] = np.where(rng.random(n_rows) < 0.4, 0.0, rows[:, 4])
    return rows


def trained(settings: dict[str, object], seed: int = 0, n_trees: int = 8) -> lightgbm.Booster:
    rows = table(seed)
    filled = np.nan_to_num(rows)
    target = filled[:, 0] * filled[:, 1] + np.sin(filled[:, CATEGORY]) + filled[:, 4]
    share = 1 / (1 + np.exp(-target))
    objective = settings.get("objective", "regression")
    if objective in ("multiclass", "multiclassova"):
        target = np.digitize(share, [0.4, 0.6])
    elif objective == "binary":
        target = share > 0.5
    elif objective != "regression" or "reg_sqrt" in settings:
        target = share
    params = {"verbose": -1, "num_threads": 1, "min_data_in_leaf": 3, "seed": 1, **settings}
    categories: Any = params.pop("categorical_feature", "auto")
    data = lightgbm.Dataset(rows, target, categorical_feature=categories)
    return lightgbm.train(params, data, num_boost_round=n_trees)


def hard_rows(booster: lightgbm.Booster, seed: int, n_rows: int = 400) -> np.ndarray:
    """Ties and their neighbours, in float64 and float32; nulls, zeros, and unseen categories."""
    rng = np.random.default_rng(seed)
    forest = read_lightgbm(booster.model_to_string()).forest
    rows = table(seed + 1, n_rows)
    special = [np.nan, np.inf, -np.inf, 0.0, -0.0, ZERO, -ZERO, 5e-324, -1e-40, 1e-34, 1e300]
    for feature in range(N_FEATURES):
        ties = forest.threshold[forest.feature == feature]
        if not len(ties):
            continue
        tie = rng.choice(ties, n_rows)
        close = [
            tie,
            np.nextafter(tie, -np.inf),
            np.nextafter(tie, np.inf),
            tie.astype(np.float32).astype(np.float64),
            rng.choice(special, n_rows),
            rows[:, feature],
        ]
        rows[:, feature] = np.choose(rng.integers(0, len(close), n_rows), close)
    unseen = [-1.0, -0.5, 39.5, 40.0, 64.0, 1e6, 2.0**31, 3e9, -3e9, 1e300, np.nan, np.inf]
    is_unseen = rng.random(n_rows) < 0.3
    rows[is_unseen, CATEGORY] = rng.choice(unseen, is_unseen.sum())
    return rows


def predicted(booster: lightgbm.Booster, rows: np.ndarray) -> np.ndarray:
    columns = [pa.array(np.ascontiguousarray(column)) for column in rows.T]
    batch = pa.RecordBatch.from_arrays(columns, names=SCHEMA.names)
    return np.asarray(CompiledLightgbm(cast("Booster", booster), SCHEMA).predict(batch))


def assert_equal_bits(booster: lightgbm.Booster, seed: int = 0) -> None:
    rows = hard_rows(booster, seed)
    expected = np.asarray(booster.predict(rows, num_threads=1))
    got = predicted(booster, rows)
    assert got.shape == expected.shape
    assert got.tobytes() == np.ascontiguousarray(expected).tobytes()


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_predicts_equal_bits(name: str) -> None:
    assert_equal_bits(trained(OBJECTIVES[name]))


@pytest.mark.parametrize("name", SPLITS)
def test_every_kind_of_split_predicts_equal_bits(name: str) -> None:
    assert_equal_bits(trained(SPLITS[name]))


@pytest.mark.parametrize("n_leaves", [2, 3, 64, 65, 500])
def test_trees_of_any_size_predict_equal_bits(n_leaves: int) -> None:
    assert_equal_bits(trained({"num_leaves": n_leaves, "min_data_in_leaf": 1}))


@settings(max_examples=12, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    split=st.sampled_from(sorted(SPLITS)),
    n_leaves=st.integers(2, 100),
    n_trees=st.integers(1, 12),
)
def test_any_model_predicts_equal_bits(seed: int, split: str, n_leaves: int, n_trees: int) -> None:
    booster = trained({**SPLITS[split], "num_leaves": n_leaves}, seed, n_trees)
    assert_equal_bits(booster, seed)


def test_model_of_one_leaf_predicts_equal_bits() -> None:
    data = lightgbm.Dataset(table(0), np.ones(1200))
    assert_equal_bits(lightgbm.train({"verbose": -1, "num_threads": 1}, data, 3))


def test_objective_of_the_users_own_predicts_raw_scores() -> None:
    def halves(scores: np.ndarray, data: lightgbm.Dataset) -> tuple[np.ndarray, np.ndarray]:
        return (scores - data.get_label()) / 2, np.ones(len(scores))

    assert_equal_bits(trained({"objective": halves}))


def test_model_stopped_early_predicts_with_its_best_iteration() -> None:
    booster = trained({})
    booster.best_iteration = 3
    assert_equal_bits(booster)
    assert len(read_lightgbm(booster.model_to_string()).forest.root) == 3


def test_threshold_at_zero_is_met_by_values_that_lightgbm_takes_for_zero() -> None:
    text = trained({"use_missing": False}, n_trees=1).model_to_string()
    old = next(line for line in text.splitlines() if line.startswith("threshold="))
    n_thresholds = len(old.split())
    planted = ["0", "-9.9e-36", "-1.0000000180025095e-35", "1.0000000180025095e-35", "5e-324"]
    new = "threshold=" + " ".join(planted[i % len(planted)] for i in range(n_thresholds))
    sizes = next(line for line in text.splitlines() if line.startswith("tree_sizes="))
    changed = text.replace(old, new).replace(sizes, "")
    assert_equal_bits(lightgbm.Booster(model_str=changed))


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("version=v4", "version=v9", "version 'v9'"),
        ("is_linear=0", "is_linear=1", "linear models"),
        ("max_feature_idx=4", "max_feature_idx=2", "beyond the 3"),
        ("num_tree_per_iteration=1", "", "another form"),
        ("decision_type=", "decision_type=12 ", "decision type"),
    ],
)
def test_text_that_is_not_understood_is_refused_and_why(old: str, new: str, said: str) -> None:
    text = trained({}).model_to_string()
    assert old in text
    with pytest.raises(NotCompiledError, match=said):
        read_lightgbm(text.replace(old, new))


def test_unknown_objective_is_refused_by_name() -> None:
    booster = trained({})

    class Renamed:
        pandas_categorical = None

        def model_to_string(self) -> str:
            return booster.model_to_string().replace("objective=regression", "objective=novel")

        def predict(self, data: np.ndarray, *, num_threads: int) -> np.ndarray:
            return np.asarray(booster.predict(data, num_threads=num_threads))

    with pytest.raises(NotCompiledError, match="'novel'"):
        CompiledLightgbm(Renamed(), SCHEMA)


def test_library_that_answers_otherwise_keeps_the_model() -> None:
    booster = trained({})

    class OffByOneBit:
        pandas_categorical = None

        def model_to_string(self) -> str:
            return booster.model_to_string()

        def predict(self, data: np.ndarray, *, num_threads: int) -> np.ndarray:
            own = np.asarray(booster.predict(data, num_threads=num_threads))
            return np.asarray(np.nextafter(own, np.inf))

    with pytest.raises(NotCompiledError, match="disagree"):
        CompiledLightgbm(OffByOneBit(), SCHEMA)
