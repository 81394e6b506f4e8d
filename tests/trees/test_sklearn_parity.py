"""scikit-learn's own predictions, to the bit, from estimators with compiled trees inside."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from sklearn import ensemble, linear_model, pipeline, preprocessing, tree

from sparkscore.flavors.compiled_sklearn import compile_estimator
from sparkscore.trees.forest import NotCompiledError

Estimator = Any
"""scikit-learn has no types."""

N_FEATURES = 5
CATEGORY = 3

TAKE_NULLS: dict[str, Callable[[], Estimator]] = {
    "tree": lambda: tree.DecisionTreeRegressor(random_state=0),
    "tree of one leaf": lambda: tree.DecisionTreeRegressor(min_samples_leaf=600),
    "tree of classes": lambda: tree.DecisionTreeClassifier(max_depth=6, random_state=0),
    "forest": lambda: ensemble.RandomForestRegressor(8, random_state=0),
    "forest of classes": lambda: ensemble.RandomForestClassifier(8, random_state=0),
    "extra trees": lambda: ensemble.ExtraTreesRegressor(8, random_state=0),
    "hist": lambda: ensemble.HistGradientBoostingRegressor(max_iter=8),
    "hist, poisson": lambda: ensemble.HistGradientBoostingRegressor("poisson", max_iter=8),
    "hist of classes": lambda: ensemble.HistGradientBoostingClassifier(max_iter=5),
    "hist with categories": lambda: ensemble.HistGradientBoostingRegressor(
        max_iter=8, categorical_features=[CATEGORY], max_leaf_nodes=None
    ),
}
TAKE_NONE: dict[str, Callable[[], Estimator]] = {
    "extra tree": lambda: tree.ExtraTreeClassifier(random_state=0),
    "extra trees of classes": lambda: ensemble.ExtraTreesClassifier(8, max_leaf_nodes=70),
    "boosting": lambda: ensemble.GradientBoostingRegressor(n_estimators=8),
    "boosting from zero": lambda: ensemble.GradientBoostingRegressor(init="zero", n_estimators=8),
    "boosting of classes": lambda: ensemble.GradientBoostingClassifier(n_estimators=5),
    "boosting after a linear model": lambda: ensemble.GradientBoostingRegressor(
        init=linear_model.LinearRegression(), n_estimators=5
    ),
    "pipeline": lambda: pipeline.make_pipeline(
        preprocessing.StandardScaler(), ensemble.RandomForestRegressor(5, random_state=0)
    ),
}
ALL = TAKE_NULLS | TAKE_NONE


def table(seed: int, n_rows: int, *, nulls: bool) -> np.ndarray:
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(n_rows, N_FEATURES))
    rows[:, CATEGORY] = rng.integers(0, 30, n_rows)
    rows[:, 4] = np.where(rng.random(n_rows) < 0.4, 0.0, rows[:, 4])
    if nulls:
        rows[rng.random(rows.shape) < 0.1] = np.nan
    return rows


def fitted(name: str) -> Estimator:
    model = ALL[name]()
    rows = table(0, 1000, nulls=name in TAKE_NULLS)
    filled = np.nan_to_num(rows)
    target = np.abs(filled[:, 0] * filled[:, 1] + np.sin(filled[:, CATEGORY]) + filled[:, 4])
    if name.endswith("classes") or name == "extra tree":
        target = np.array(["a", "b", "c"])[np.digitize(target, [0.5, 1.0])]
    return model.fit(rows, target)


def hard_rows(model: Estimator, *, nulls: bool) -> np.ndarray:
    """Values on thresholds and beside them, before and after rounding to float32."""
    rng = np.random.default_rng(1)
    rows = table(2, 300, nulls=nulls)
    feature, threshold = splits(model)
    for column in range(N_FEATURES):
        ties = threshold[(feature == column) & np.isfinite(threshold)]
        if column == CATEGORY or not len(ties):
            continue
        tie = rng.choice(ties, len(rows))
        single = tie.astype(np.float32)
        close = [
            tie,
            np.nextafter(tie, -np.inf),
            np.nextafter(tie, np.inf),
            single.astype(np.float64),
            np.nextafter(single, np.float32(np.inf)).astype(np.float64),
            (single.astype(np.float64) + np.nextafter(single, np.float32(np.inf))) / 2,
            rng.choice([0.0, -0.0, 1e-45, -1e-320, 1e30], len(rows)),
            rows[:, column],
        ]
        rows[:, column] = np.choose(rng.integers(0, len(close), len(rows)), close)
    rows[:20, CATEGORY] = 200.0
    rows[20:30, CATEGORY] = -5.0
    return rows


def splits(model: Estimator) -> tuple[np.ndarray, np.ndarray]:
    """Features and thresholds of all nodes."""
    last = model[-1] if isinstance(model, pipeline.Pipeline) else model
    if hasattr(last, "_predictors"):
        nodes = np.concatenate([each.nodes for stage in last._predictors for each in stage])
        return nodes["feature_idx"], nodes["num_threshold"]
    trees = [each.tree_ for each in np.ravel(getattr(last, "estimators_", [last]))]
    return (
        np.concatenate([each.feature for each in trees]),
        np.concatenate([each.threshold for each in trees]),
    )


def assert_same_answers(compiled: Estimator, native: Estimator, rows: object) -> None:
    for method in ("predict", "predict_proba"):
        if hasattr(native, method):
            got, expected = getattr(compiled, method)(rows), getattr(native, method)(rows)
            assert got.dtype == expected.dtype
            assert got.shape == expected.shape
            assert got.tobytes() == expected.tobytes()


@pytest.mark.parametrize("name", ALL)
def test_every_kind_of_estimator_predicts_equal_bits(name: str) -> None:
    native = fitted(name)
    compiled = deepcopy(native)
    compile_estimator(compiled)
    assert_same_answers(compiled, native, hard_rows(native, nulls=name in TAKE_NULLS))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("n_rows", [1, 63, 64, 65])
def test_batch_of_any_length_predicts_equal_bits(name: str, n_rows: int) -> None:
    native = fitted(name)
    compiled = deepcopy(native)
    compile_estimator(compiled)
    assert_same_answers(compiled, native, table(5, n_rows, nulls=name in TAKE_NULLS))


@pytest.mark.parametrize("name", ["forest", "hist of classes", "boosting"])
def test_rows_that_the_estimator_refuses_are_refused_alike(name: str) -> None:
    native = fitted(name)
    compile_estimator(native)
    with pytest.raises(ValueError, match="features"):
        native.predict(np.zeros((2, N_FEATURES + 1)))


def test_infinite_value_is_refused_as_the_forest_refuses_it() -> None:
    native = fitted("forest")
    compile_estimator(native)
    with pytest.raises(ValueError, match="infinity"):
        native.predict(np.full((2, N_FEATURES), np.inf))


@pytest.mark.parametrize("name", ["extra trees of classes", "boosting", "forest", "tree"])
def test_sparse_rows_are_left_to_the_library(name: str) -> None:
    native = fitted(name)
    compiled = deepcopy(native)
    compile_estimator(compiled)
    rows = sparse.csr_matrix(table(6, 50, nulls=False))
    assert_same_answers(compiled, native, rows)


def test_tree_keeps_the_sign_of_a_zero() -> None:
    native = tree.DecisionTreeRegressor().fit([[0.0], [1.0]], [-0.0, -0.0])
    compiled = deepcopy(native)
    compile_estimator(compiled)
    assert_same_answers(compiled, native, [[0.0]])


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (linear_model.LinearRegression(), "LinearRegression"),
        (ensemble.RandomForestRegressor(2), "another form"),  # not fitted
        (type("Own", (ensemble.RandomForestRegressor,), {})(), "Own"),
    ],
)
def test_model_of_another_kind_is_left_as_it_is(model: object, said: str) -> None:
    before = dict(vars(model))
    with pytest.raises(NotCompiledError, match=said):
        compile_estimator(model)
    assert vars(model) == before


def test_forest_of_several_targets_is_left_to_the_library() -> None:
    rows = table(0, 50, nulls=False)
    model = ensemble.RandomForestRegressor(2).fit(rows, rows[:, :2])
    with pytest.raises(NotCompiledError, match="2 targets"):
        compile_estimator(model)
