"""Microseconds a row of compiled trees beside the model's own library, on one thread.

Both sides are the predictors that a Python worker loads, given the same Arrow batches; rounds are
interleaved, and the smallest time of each side counts, since other load only ever adds. With
`--parity-rows`, as many rows full of ties, nulls and unseen categories are then compared. With
`--layouts`, bit vectors are timed beside walking down instead, over trees of growing size.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import catboost
import lightgbm
import numpy as np
import pandas as pd
import pyarrow as pa
import xgboost
from sklearn.ensemble import (
    GradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from threadpoolctl import threadpool_limits

from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import Package, TrustPolicy
from sparkscore.trees.bit_vectors import lay_out_bit_vectors
from sparkscore.trees.catboost_json import read_catboost
from sparkscore.trees.kernel_cache import load_kernels
from sparkscore.trees.lightgbm_text import read_lightgbm
from sparkscore.trees.traversal import lay_out_traversal
from sparkscore.trees.xgboost_json import read_xgboost

N_COLUMNS = 28
N_TRAINING_ROWS = 60_000
BATCH_ROWS = 10_240
SHARE_OF_NULLS = 0.1
TOWNS = [f"town {i}" for i in range(40)]

Thresholds = dict[int, np.ndarray]


@dataclass(frozen=True)
class Case:
    """A kind of model: how it is fitted, on how many rows, and whether it takes nulls and text."""

    name: str
    fit: Callable[[pd.DataFrame, np.ndarray], object]
    n_training_rows: int = N_TRAINING_ROWS
    takes_nulls: bool = True
    has_text: bool = False


def boosted(n_trees: int, **settings: object) -> Callable[[pd.DataFrame, np.ndarray], object]:
    """Trains LightGBM with 63 leaves a tree."""
    params = {"num_leaves": 63, "verbose": -1, "num_threads": 1, **settings}

    def fit(rows: pd.DataFrame, target: np.ndarray) -> object:
        texts = dict.fromkeys(rows.select_dtypes(object).columns, "category")
        data = lightgbm.Dataset(rows.astype(texts), target)
        return lightgbm.train(params, data, num_boost_round=n_trees)

    return fit


def grown(n_trees: int, **settings: object) -> Callable[[pd.DataFrame, np.ndarray], object]:
    """Trains xgboost; a logistic objective on the target's share of its range."""

    def fit(rows: pd.DataFrame, target: np.ndarray) -> object:
        spread = target - target.min()
        data = xgboost.DMatrix(rows, spread / spread.max() if "objective" in settings else target)
        return xgboost.train({"nthread": 1, **settings}, data, n_trees)

    return fit


def symmetric(n_trees: int, **settings: object) -> Callable[[pd.DataFrame, np.ndarray], object]:
    """Trains CatBoost, with 6 levels a tree unless told another depth."""
    params = {"verbose": 0, "thread_count": 1, "allow_writing_files": False, **settings}

    def fit(rows: pd.DataFrame, target: np.ndarray) -> object:
        return catboost.CatBoostRegressor(iterations=n_trees, **params).fit(rows, target)

    return fit


def classes(target: np.ndarray) -> np.ndarray:
    return np.asarray(np.digitize(target, np.quantile(target, [0.3, 0.7])))


CASES = (
    Case("LightGBM 100 x 63", boosted(100)),
    Case("LightGBM 500 x 63", boosted(500)),
    Case("LightGBM 100 x 255", boosted(100, num_leaves=255)),
    Case("LightGBM 100 x 63, text, nulls", boosted(100), has_text=True),
    Case("xgboost 200 x depth 6", grown(200, max_depth=6)),
    Case("xgboost 100 x depth 9, logistic", grown(100, max_depth=9, objective="reg:logistic")),
    Case("CatBoost 200 x depth 6", symmetric(200)),
    Case("CatBoost 1000 x depth 6", symmetric(1000)),
    Case("CatBoost 200 x depth 10", symmetric(200, depth=10)),
    Case(
        "HistGradientBoosting 100 x 31",
        lambda rows, target: HistGradientBoostingRegressor(max_iter=100).fit(rows, target),
    ),
    Case(
        "HistGradientBoosting 500 x 31",
        lambda rows, target: HistGradientBoostingRegressor(max_iter=500).fit(rows, target),
    ),
    Case(
        "GradientBoosting 100 x 3 classes",
        lambda rows, target: GradientBoostingClassifier().fit(rows, classes(target)),
        n_training_rows=5_000,
        takes_nulls=False,
    ),
    Case(
        "RandomForest 100 x 512 leaves",
        lambda rows, target: RandomForestRegressor(max_leaf_nodes=512, max_features=9).fit(
            rows, target
        ),
        n_training_rows=20_000,
    ),
    Case(
        "RandomForest 60, grown out",
        lambda rows, target: RandomForestClassifier(60).fit(rows, classes(target)),
        n_training_rows=20_000,
    ),
)


def main() -> None:
    args = parsed()
    if args.layouts:
        compare_layouts(args.rounds)
        return
    cases = [case for case in CASES if args.only in case.name]
    print(f"{'case':34}{'library':>10}{'ours':>9}{'times':>8}  largest difference, over rows")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1):
        for i, case in enumerate(cases):
            measure(case, Path(folder) / str(i), args)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=51_200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--parity-rows", type=int, default=100_000)
    parser.add_argument("--only", default="", help="Part of a case's name.")
    parser.add_argument("--layouts", action="store_true", help="Time the two layouts.")
    return parser.parse_args()


def compare_layouts(n_rounds: int) -> None:
    """Time both layouts over 10 trees of each size, in turn."""
    rng = np.random.default_rng(0)
    case = Case("", boosted(10), n_training_rows=200_000)
    rows, target = training_rows(case, rng)
    matrix = np.asfortranarray(sample(case, BATCH_ROWS, rng).to_numpy())
    kernels = load_kernels()
    print(f"{'leaves':>8}{'bit vectors':>14}{'walking down':>14}  us/row")
    for n_leaves in (31, 63, 127, 255, 511, 1023, 2047):
        booster = boosted(10, num_leaves=n_leaves, min_data_in_leaf=5)(rows, target)
        assert isinstance(booster, lightgbm.Booster)
        forest = read_lightgbm(booster.model_to_string()).forest
        scores = [np.zeros((1, BATCH_ROWS)) for _ in range(2)]
        bits, walk = lay_out_bit_vectors(forest), lay_out_traversal(forest)
        dtypes = matrix.dtype, scores[0].dtype
        sides = (
            (kernels.for_arguments(kernels.score_bit_vectors, bits, *dtypes), bits),
            (kernels.for_arguments(kernels.score_traversal, walk, *dtypes), walk),
        )
        best = [float("inf"), float("inf")]
        for _ in range(n_rounds):
            for side, (kernel, layout) in enumerate(sides):
                started = perf_counter()
                kernel(layout, matrix, scores[side])
                best[side] = min(best[side], perf_counter() - started)
        assert scores[0].tobytes() == scores[1].tobytes()
        print(f"{n_leaves:8}" + "".join(f"{1e6 * each / BATCH_ROWS:14.2f}" for each in best))


def measure(case: Case, folder: Path, args: argparse.Namespace) -> None:
    rng = np.random.default_rng(0)
    rows, target = training_rows(case, rng)
    model = case.fit(rows, target)
    package = save_model(model, folder, input_example=rows.head(100))
    native = load_predictor(package, TrustPolicy(), TreeRuntime.NATIVE)
    ours = load_predictor(package, TrustPolicy())
    if ours.runtime.name == "native":
        raise SystemExit(f"{case.name}: not compiled, since {ours.runtime.reason}")
    batches = [batch_of(package, sample(case, BATCH_ROWS, rng)) for _ in range(3)]
    seconds = interleaved(native, ours, batches, max(1, args.rows // BATCH_ROWS), args.rounds)
    largest, n_rows = 0.0, 0
    thresholds = thresholds_of(model)
    while n_rows < args.parity_rows:
        batch = batch_of(package, hard_rows(case, thresholds, rng))
        largest = max(largest, difference(native.predict(batch), ours.predict(batch)))
        n_rows += batch.num_rows
    library_us, ours_us = (1e6 * each / BATCH_ROWS for each in seconds)
    print(
        f"{case.name:34}{library_us:10.2f}{ours_us:9.2f}{library_us / ours_us:8.1f}  "
        f"{largest} over {n_rows}",
        flush=True,
    )


def interleaved(
    native: LoadedPredictor,
    ours: LoadedPredictor,
    batches: list[pa.RecordBatch],
    n_calls: int,
    n_rounds: int,
) -> list[float]:
    """The smallest seconds a batch of either side."""
    best = [float("inf"), float("inf")]
    for _ in range(n_rounds):
        for side, predictor in enumerate((native, ours)):
            for call in range(n_calls):
                started = perf_counter()
                predictor.predict(batches[call % len(batches)])
                best[side] = min(best[side], perf_counter() - started)
    return best


def training_rows(case: Case, rng: np.random.Generator) -> tuple[pd.DataFrame, np.ndarray]:
    rows = sample(case, case.n_training_rows, rng)
    x = np.nan_to_num(rows.select_dtypes(float).to_numpy())
    target = x[:, 0] * x[:, 1] + np.sin(3 * x[:, 2]) + x[:, 3] ** 2 + 0.1 * x[:, 4:20].sum(axis=1)
    if case.has_text:
        target = target + rows["town"].map({town: i % 7 for i, town in enumerate(TOWNS)}).fillna(3)
    return rows, np.asarray(target + 0.3 * rng.normal(size=len(rows)))


def sample(case: Case, n_rows: int, rng: np.random.Generator) -> pd.DataFrame:
    """Rows as a table has them; a tenth of the values null in the case with text."""
    x = rng.normal(size=(n_rows, N_COLUMNS))
    if case.has_text:
        x[rng.random(x.shape) < SHARE_OF_NULLS] = np.nan
    rows = pd.DataFrame(x, columns=[f"x{i}" for i in range(N_COLUMNS)])
    return rows.assign(town=rng.choice(np.array([*TOWNS, None]), n_rows)) if case.has_text else rows


def hard_rows(case: Case, thresholds: Thresholds, rng: np.random.Generator) -> pd.DataFrame:
    """Rows of which two values in three lie on a threshold or right beside one."""
    rows = sample(case, BATCH_ROWS, rng)
    for feature, values in thresholds.items():
        if rows.dtypes.iloc[feature] != np.float64:
            rows.isetitem(feature, rng.choice(np.array([*TOWNS, None, "elsewhere"]), len(rows)))
            continue
        ties = rng.choice(values, len(rows))
        with np.errstate(over="ignore"):
            rounded = ties.astype(np.float32).astype(np.float64)
        close = [ties, np.nextafter(ties, -np.inf), np.nextafter(ties, np.inf), rounded]
        planted = np.choose(rng.integers(0, len(close), len(rows)), close)
        column = np.where(rng.random(len(rows)) < 2 / 3, planted, rows.iloc[:, feature])
        if case.takes_nulls:
            column[rng.random(len(rows)) < SHARE_OF_NULLS] = np.nan
        rows.isetitem(feature, column)
    return rows


def thresholds_of(model: object) -> Thresholds:
    """Finite thresholds by feature, of any of the models here."""
    pairs = np.concatenate([np.stack(pair) for pair in splits(model)], axis=1)
    pairs = pairs[:, np.isfinite(pairs[1])]
    return {int(feature): pairs[1, pairs[0] == feature] for feature in np.unique(pairs[0])}


def splits(model: object) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    if isinstance(model, lightgbm.Booster):
        forest = read_lightgbm(model.model_to_string()).forest
        yield forest.feature, forest.threshold
    elif isinstance(model, xgboost.Booster):
        forest = read_xgboost(model.save_raw("json").decode()).forest
        yield forest.feature, forest.threshold
    elif isinstance(model, catboost.CatBoost):
        with tempfile.NamedTemporaryFile(suffix=".json") as file:
            model.save_model(file.name, format="json")
            forest = read_catboost(Path(file.name).read_text("utf-8")).forest
        yield forest.feature, forest.threshold
    elif isinstance(model, HistGradientBoostingRegressor):
        for (tree,) in model._predictors:
            nodes = tree.nodes[tree.nodes["is_leaf"] == 0]
            yield nodes["feature_idx"], nodes["num_threshold"]
    else:
        for each in np.ravel(model.estimators_):  # type: ignore[attr-defined]  # a forest
            inner = each.tree_.children_left >= 0
            yield each.tree_.feature[inner], each.tree_.threshold[inner]


def batch_of(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return record_batch(rows, column_inputs(package.description.signature))


def difference(native: object, ours: object) -> float:
    """The largest difference; 0 only where all bits are equal."""
    expected, got = np.asarray(native), np.asarray(ours)
    if expected.tobytes() == got.tobytes():
        return 0.0
    return max(float(np.abs(got - expected).max()), np.finfo(float).smallest_subnormal)


if __name__ == "__main__":
    main()
