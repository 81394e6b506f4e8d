"""Microseconds a row of fused scikit-learn pipelines beside the pipelines themselves.

Both sides are the predictors that a Python worker loads, given the same Arrow batches on one
thread; rounds are interleaved, and the smallest time of each side counts, since other load only
ever adds. Then all rows are compared, to the bit: a tenth of the numbers and texts are null, and
one text in fifty was never seen in training.
"""

from __future__ import annotations

import argparse
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pyarrow as pa
from sklearn.compose import make_column_transformer
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from threadpoolctl import threadpool_limits

from sparkscore.demo import models
from sparkscore.demo.flights import features, read_flights, training_flights
from sparkscore.flavors import load_predictor, save_model
from sparkscore.flavors.base import TreeRuntime
from sparkscore.flavors.frames import column_inputs, record_batch
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import Package, TrustPolicy

NUMBERS = [f"x{i}" for i in range(8)]
COUNTS = [f"n{i}" for i in range(4)]
TEXTS = [f"town{i}" for i in range(4)]
TOWNS = [f"town {i}" for i in range(20)]
N_TRAINING_ROWS = 50_000
BATCH_ROWS = 10_000
"""The default of `scoring.max_rows_per_batch`."""
SHARE_OF_NULLS = 0.1
SHARE_OF_UNSEEN = 0.02

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True)
class Case:
    """A package, and its rows batch by batch."""

    name: str
    package: Package
    batches: Callable[[int], Batches]


def main() -> None:
    args = parsed()
    print(f"{'pipeline':44}{'its own':>9}{'fused':>9}{'times':>7}  largest difference, over rows")
    with tempfile.TemporaryDirectory() as folder, threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Of unknown categories, which are meant here.
        for case in cases(Path(folder), args.only):
            measure(case, args)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="Rows that are compared.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="Part of a case's name.")
    return parser.parse_args()


def cases(folder: Path, only: str) -> Iterator[Case]:
    dense = OneHotEncoder(handle_unknown="ignore", sparse_output=False)
    codes = OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=-1)
    mixed = {
        "1M x 16 mixed, linear, one-hot": (dense, LinearRegression()),
        "1M x 16 mixed, logistic, one-hot": (dense, LogisticRegression()),
        "1M x 16 mixed, logistic, one-hot, sparse": (
            OneHotEncoder(handle_unknown="ignore"),
            LogisticRegression(),
        ),
        "1M x 16 mixed, HistGradientBoosting 100": (codes, HistGradientBoostingRegressor()),
    }
    for i, (name, (encoder, head)) in enumerate(mixed.items()):
        if only in name:
            yield mixed_case(name, encoder, head, folder / str(i))
    if only in "flights":
        yield flights_case(folder / "flights")


def mixed_case(name: str, encoder: object, head: object, folder: Path) -> Case:
    rng = np.random.default_rng(0)
    rows = sample(N_TRAINING_ROWS, rng)
    target = np.nan_to_num(rows["x0"]) + rows["n0"] / 50 + (rows["town0"] == TOWNS[1])
    target = target + np.nan_to_num(rows["x1"]) * np.nan_to_num(rows["x2"])
    labels = target > target.mean() if isinstance(head, LogisticRegression) else target
    package = save_model(pipeline(encoder, head).fit(rows, labels), folder, input_example=rows)

    def batches(n_rows: int) -> Batches:
        drawn = np.random.default_rng(1)
        for _ in range(0, n_rows, BATCH_ROWS):
            yield batch_of(package, sample(BATCH_ROWS, drawn, has_unseen=True))

    return Case(name, package, batches)


def pipeline(encoder: object, head: object) -> Pipeline:
    columns = make_column_transformer(
        (make_pipeline(SimpleImputer(), StandardScaler()), NUMBERS),
        (StandardScaler(), COUNTS),
        (encoder, TEXTS),
    )
    return make_pipeline(columns, head)


def sample(n_rows: int, rng: np.random.Generator, *, has_unseen: bool = False) -> pd.DataFrame:
    """8 doubles and 4 texts with nulls, 4 whole numbers."""
    towns = np.array([*TOWNS, "elsewhere", None], dtype=object)
    unseen = SHARE_OF_UNSEEN if has_unseen else 0.0
    share = (1 - unseen - SHARE_OF_NULLS) / len(TOWNS)
    shares = [*[share] * len(TOWNS), unseen, SHARE_OF_NULLS]
    numbers = rng.normal(size=(n_rows, len(NUMBERS)))
    numbers[rng.random(numbers.shape) < SHARE_OF_NULLS] = np.nan
    values = dict(zip(NUMBERS, numbers.T, strict=True))
    counts = {name: rng.integers(0, 100, n_rows) for name in COUNTS}
    texts = {name: rng.choice(towns, n_rows, p=shares) for name in TEXTS}
    return pd.DataFrame({**values, **counts, **texts})


def flights_case(folder: Path) -> Case:
    """The demo's pipeline, over the flights again and again."""
    flights = read_flights()
    package = models.package(models.train_pipeline(training_flights(flights)), flights, folder)
    rows = batch_of(package, features(flights))
    starts = range(0, rows.num_rows - BATCH_ROWS + 1, BATCH_ROWS)

    def batches(n_rows: int) -> Batches:
        for start in islice(cycle(starts), n_rows // BATCH_ROWS):
            yield rows.slice(start, BATCH_ROWS)

    return Case("flights, HistGradientBoosting 50", package, batches)


def batch_of(package: Package, rows: pd.DataFrame) -> pa.RecordBatch:
    assert package.description.signature is not None
    return record_batch(rows, column_inputs(package.description.signature))


def measure(case: Case, args: argparse.Namespace) -> None:
    native = load_predictor(case.package, TrustPolicy(), TreeRuntime.NATIVE)
    ours = load_predictor(case.package, TrustPolicy())
    if not ours.runtime.name.startswith("fused"):
        raise SystemExit(f"{case.name}: not fused, since {ours.runtime.reason}")
    native_s, ours_s = interleaved(native, ours, list(case.batches(8 * BATCH_ROWS)), args.rounds)
    largest, n_rows = 0.0, 0
    for batch in case.batches(args.rows):
        largest = max(largest, difference(native.predict(batch), ours.predict(batch)))
        n_rows += batch.num_rows
    print(
        f"{case.name:44}{1e6 * native_s:9.2f}{1e6 * ours_s:9.2f}{native_s / ours_s:7.1f}  "
        f"{largest} over {n_rows}",
        flush=True,
    )


def interleaved(
    native: LoadedPredictor,
    ours: LoadedPredictor,
    batches: list[pa.RecordBatch],
    n_rounds: int,
) -> tuple[float, float]:
    """The smallest seconds a row of either side."""
    best = [float("inf"), float("inf")]
    for _ in range(n_rounds):
        for batch in batches:
            for side, predictor in enumerate((native, ours)):
                started = perf_counter()
                predictor.predict(batch)
                best[side] = min(best[side], (perf_counter() - started) / batch.num_rows)
    return best[0], best[1]


def difference(native: object, ours: object) -> float:
    """The largest difference; 0 only where all bits are equal."""
    expected, got = np.asarray(native), np.asarray(ours)
    if expected.dtype == got.dtype and expected.tobytes() == got.tobytes():
        return 0.0
    apart = np.abs(got.astype(float) - expected.astype(float))
    return max(float(apart.max()), np.finfo(float).smallest_subnormal)


if __name__ == "__main__":
    main()
