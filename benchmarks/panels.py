"""Three challengers beside a champion: what they cost beside their own model calls and one scan.

The panel's whole job is compared with the sum of two things that it cannot do without: the calls of
all four models, timed in as many plain processes as there are cores, over rows in memory in batches
of the job's size; and one scan, which is the whole job of a model that answers zeros from the same
columns. Beside them stand the champion's job alone, and the four jobs one after the other.
Contenders take turns in each round; the first round is a warm-up.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import tempfile
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from lightgbm import LGBMRegressor
from sklearn.linear_model import Ridge
from threadpoolctl import threadpool_limits

from benchmarks.main_job import workspace_in
from benchmarks.workloads import Fit, Workload, Workshop
from sparkscore.batch_job import run_batch_job
from sparkscore.flavors import load_predictor
from sparkscore.flavors.load import LoadedPredictor
from sparkscore.package import TrustPolicy, open_package
from sparkscore.workspace import Workspace

N_MODELS = 4
N_ROWS, N_COLUMNS = 1_000_000, 28
TRUST = TrustPolicy(allow_code=True)

_models: list[LoadedPredictor] = []
_batches: list[pa.RecordBatch] = []
"""What a process of the pool has in memory."""


class Zeros:
    """Answers zeros: what a job costs beside its model."""

    def fit(self, rows: pd.DataFrame, target: np.ndarray) -> Zeros:  # noqa: ARG002 - the way of fits
        return self

    def predict(self, *given: object) -> np.ndarray:
        """The rows stand last: the package's way to call it puts a context before."""
        return np.zeros(len(given[-1]))  # type: ignore[arg-type]  # a frame


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--scale", type=float, default=1.0, help="Times the rows of the table.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds that count.")
    parser.add_argument("--models", nargs="+", default=FITS, choices=FITS, metavar="KIND")
    args = parser.parse_args()
    n_cores = len(os.sched_getaffinity(0))
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-"))
    workspace = workspace_in(folder, f"local[{n_cores}]")
    try:
        shop = Workshop(folder, args.scale)
        for kind in args.models:
            fits = [FITS[kind](seed) for seed in range(N_MODELS)]
            models = [
                shop.numeric(f"{kind}-{seed}", N_ROWS, N_COLUMNS, fit)
                for seed, fit in enumerate(fits)
            ]
            scan = shop.numeric(f"zeros-{kind}", N_ROWS, N_COLUMNS, Zeros().fit)
            seconds = _timed(workspace, models, scan, folder, n_cores, args.rounds)
            print(_told(kind, models[0].n_rows, seconds), flush=True)
    finally:
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)


def _timed(
    workspace: Workspace,
    models: Sequence[Workload],
    scan: Workload,
    folder: Path,
    n_cores: int,
    rounds: int,
) -> dict[str, list[float]]:
    champion, *challengers = models
    numbers = count()

    def job(model: Workload, beside: Sequence[Workload] = ()) -> float:
        name = f"{scan.name}-{next(numbers)}"
        described = {
            "name": "panels",
            "model": str(model.package),
            "challengers": [str(one.package) for one in beside],
            "source.uri": str(model.source),
            "target.uri": str(folder / "scores" / name),
            "key": ["id"],
        }
        settings = workspace.job(None, described).values
        started = perf_counter()
        run_batch_job(workspace, settings, name, lambda _: None)
        return perf_counter() - started

    packages = [str(model.package) for model in models]
    shares = [(packages, str(champion.source), i, n_cores) for i in range(n_cores)]
    seconds: dict[str, list[float]] = {}
    with ProcessPoolExecutor(n_cores, get_context("spawn"), _one_thread) as pool:

        def calls() -> float:
            # Each process is asked once: the pool hands an item to whoever is free.
            return max(pool.map(_called, shares))

        contenders: dict[str, Callable[[], float]] = {
            "model calls alone": calls,
            "one scan": lambda: job(scan),
            "champion alone": lambda: job(champion),
            "panel": lambda: job(champion, challengers),
            "four jobs": lambda: sum(job(model) for model in models),
        }
        for number in range(rounds + 1):
            for name, run in contenders.items():
                taken = run()
                if number:
                    seconds.setdefault(name, []).append(taken)
    return seconds


def _one_thread() -> None:
    threadpool_limits(1)


def _called(share: tuple[list[str], str, int, int]) -> float:
    """Seconds that the models take for a share of the rows, which are in memory already."""
    packages, source, place, n_shares = share
    if not _models:
        _models.extend(load_predictor(open_package(Path(one)), TRUST) for one in packages)
        rows = pq.read_table(source).drop_columns(["id"])
        size = rows.num_rows // n_shares
        own = rows.slice(place * size, size).combine_chunks()
        _batches.extend(own.to_batches(max_chunksize=10_000))
    started = perf_counter()
    for batch in _batches:
        for model in _models:
            model.predict(batch)
    return perf_counter() - started


def _told(kind: str, n_rows: int, seconds: dict[str, list[float]]) -> str:
    median = {name: statistics.median(taken) for name, taken in seconds.items()}
    lines = [f"4 x {kind}, {n_rows:,} rows x {N_COLUMNS} doubles"]
    lines += [
        f"  {name:20}{median[name]:7.2f} s ({min(taken):.2f}-{max(taken):.2f})"
        for name, taken in seconds.items()
    ]
    floor = median["model calls alone"] + median["one scan"]
    lines.append(f"  panel / (calls + scan): {median['panel'] / floor:.2f}")
    lines.append(f"  four jobs / panel: {median['four jobs'] / median['panel']:.2f}")
    return "\n".join(lines)


def _trees(seed: int) -> Fit:
    model = LGBMRegressor(
        n_estimators=100,
        num_leaves=63,
        subsample=0.8,
        subsample_freq=1,
        random_state=seed,
        verbose=-1,
        n_jobs=1,
    )
    return cast(Fit, model.fit)


def _linear(seed: int) -> Fit:
    return cast(Fit, Ridge(alpha=1.0 + seed).fit)


FITS: dict[str, Callable[[int], Fit]] = {
    "trees": _trees,
    "linear": _linear,
}

if __name__ == "__main__":
    main()
