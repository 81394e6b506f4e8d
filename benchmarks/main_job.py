"""Rows/s/core of the whole main job, Delta to Delta, beside `mlflow.pyfunc.spark_udf`.

Both sides run in a warm local session of the same Spark settings, in turn and never at once; the
first round is not counted. sparkscore's job also pins the model, asks the table's history, writes
keys and origin of each row, and records the run; MLflow's reads, predicts and writes.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import perf_counter

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pyspark.sql import SparkSession
from pyspark.sql import functions as sf

from sparkscore.batch_job import run_batch_job
from sparkscore.demo.flights import FEATURES, NUMBERS, read_flights, training_flights
from sparkscore.demo.models import package, train_pipeline
from sparkscore.flavors import save_model
from sparkscore.package.signature import infer_signature
from sparkscore.spark.defaults import session_conf, with_tries
from sparkscore.spark.jars import resolve_jars
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import prepare_environment
from sparkscore.workspace import Workspace

N_COLUMNS = 28
N_TRAINING_ROWS = 50_000
N_FILES = 8
ENGINES = ("files", "arrow", "pandas")


@dataclass(frozen=True)
class Case:
    """One model over one Delta table with the columns `id` and `columns`."""

    name: str
    source: Path
    package: Path
    columns: tuple[str, ...]
    n_rows: int


def main() -> int:
    args = _parse()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-", dir=args.folder))
    workspace = _workspace(folder, args.cores)
    rival = None
    try:
        cases = _cases(workspace.spark, folder, args.rows)
        rival = _Rival(args.rival_python, workspace)
        measured = [_measured(case, workspace, rival, folder, args.rounds) for case in cases]
        print(_report(cases, measured, args))
    finally:
        if rival is not None:
            rival.close()
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rival-python", type=Path, required=True, help="Python with MLflow.")
    parser.add_argument("--rows", type=int, default=1_000_000, help="Rows of the numeric table.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds that count.")
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    return parser.parse_args()


def _workspace(folder: Path, cores: int) -> Workspace:
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/sparkscore.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": f"{folder}/artifacts",
        "spark.master": f"local[{cores}]",
    }
    return Workspace.open(overrides=overrides)


def _cases(spark: SparkSession, folder: Path, n_rows: int) -> list[Case]:
    numbers, columns = _number_table(spark, folder / "numbers", n_rows)
    linear, trees = _number_models(columns, folder)
    table = f"{n_rows / 1e6:g}M x {N_COLUMNS} float64"
    return [
        Case(f"{table}, linear", numbers, linear, columns, n_rows),
        Case(f"{table}, LightGBM 100 x 63", numbers, trees, columns, n_rows),
        _flights(spark, folder),
    ]


def _number_table(spark: SparkSession, path: Path, n_rows: int) -> tuple[Path, tuple[str, ...]]:
    columns = tuple(f"x{i}" for i in range(N_COLUMNS))
    drawn = [sf.randn(i).alias(name) for i, name in enumerate(columns)]
    frame = spark.range(0, n_rows, 1, N_FILES).select("id", *drawn)
    frame.write.format("delta").save(str(path))
    return path, columns


def _number_models(columns: tuple[str, ...], folder: Path) -> tuple[Path, Path]:
    from lightgbm import LGBMRegressor
    from sklearn.linear_model import LinearRegression

    matrix = np.random.default_rng(0).standard_normal((N_TRAINING_ROWS, len(columns)))
    rows = pd.DataFrame(matrix, columns=list(columns))
    label = matrix[:, 0] * 2 + np.sin(matrix[:, 1] * 3) + matrix[:, 2] * matrix[:, 3]
    trees = LGBMRegressor(n_estimators=100, num_leaves=63, random_state=0, verbose=-1, n_jobs=1)
    saved = []
    for name, model in (("linear", LinearRegression()), ("trees", trees)):
        model.fit(rows, label)
        save_model(
            model,
            folder / "packages" / name,
            signature=infer_signature(rows, pa.array([0.0])),
            input_example=rows.head(3),
        )
        saved.append(folder / "packages" / name)
    return saved[0], saved[1]


def _flights(spark: SparkSession, folder: Path) -> Case:
    """The flights with their numbers as floats: MLflow's UDF refuses nullable integers."""
    flights = read_flights()
    for name in NUMBERS:
        index = flights.schema.get_field_index(name)
        flights = flights.set_column(index, name, flights[name].cast(pa.float64()))
    saved = folder / "packages" / "flights"
    package(train_pipeline(training_flights(flights)), flights, saved)
    table = flights.select(["flight_id", *FEATURES]).rename_columns(["id", *FEATURES])
    pq.write_table(table, folder / "flights.parquet")
    frame = spark.read.parquet(str(folder / "flights.parquet")).repartition(N_FILES)
    frame.write.format("delta").save(str(folder / "flights"))
    return Case("flights, sklearn pipeline", folder / "flights", saved, FEATURES, flights.num_rows)


class _Rival:
    """MLflow in a process, a Spark session and an environment of its own."""

    def __init__(self, python: Path, workspace: Workspace) -> None:
        settings = workspace.session_settings
        cache = settings.jars.cache
        java = find_java(cache, os.environ)
        # One thread a task, as sparkscore sees to itself: LightGBM would start one a core.
        environ = {**os.environ, "OMP_NUM_THREADS": "1", "PYSPARK_PYTHON": str(python)}
        prepare_environment(java, environ, cache)
        del environ["SPARK_HOME"]  # Its own PySpark, of the same version.
        jars = resolve_jars(settings.jars, java, os.environ)
        master = with_tries(settings.master)
        conf = session_conf(settings.conf, master, jars, cache) | {"spark.master": master}
        self._process = subprocess.Popen(
            [python, "-W", "ignore", Path(__file__).with_name("mlflow_job.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self._ask(conf)

    def score(self, case: Case, target: Path) -> float:
        return self._ask(
            {
                "package": str(case.package),
                "source": str(case.source),
                "columns": case.columns,
                "target": str(target),
            }
        )

    def close(self) -> None:
        self._process.communicate()

    def _ask(self, question: Mapping[str, object]) -> float:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        answer = json.loads(line) if line else {"error": "its process ended"}
        if "error" in answer:
            raise SystemExit(f"MLflow's side failed: {answer['error']}")
        return float(answer["seconds"])


def _score(workspace: Workspace, case: Case, engine: str, target: Path) -> float:
    started = perf_counter()
    job = workspace.job(
        None,
        {
            "name": f"bench-{engine}",
            "model": str(case.package),
            "source.uri": str(case.source),
            "target.uri": str(target),
            "key": ["id"],
            "engine": engine,
        },
    )
    run_batch_job(workspace, job.values, target.name, lambda _: None)
    return perf_counter() - started


def _measured(
    case: Case, workspace: Workspace, rival: _Rival, targets: Path, n_rounds: int
) -> dict[str, list[float]]:
    """Seconds of each counted round by contender; refuses answers that differ."""
    contenders: dict[str, Callable[[Path], float]] = {
        "mlflow.pyfunc.spark_udf": partial(rival.score, case)
    }
    for engine in ENGINES:
        contenders[f"sparkscore {engine}"] = partial(_score, workspace, case, engine)
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(n_rounds + 1):
        written = {name: targets / f"scores-{i}" for i, name in enumerate(contenders)}
        for name, score in contenders.items():
            elapsed = score(written[name])
            print(f"{case.name}, round {number}, {name}: {elapsed:.2f} s", file=sys.stderr)
            if number > 0:
                seconds[name].append(elapsed)
        _check_equal(workspace.spark, case, list(written.values()))
        for target in written.values():
            shutil.rmtree(target)
    return seconds


def _check_equal(spark: SparkSession, case: Case, targets: list[Path]) -> None:
    """Every id of the source once in each target, and the same prediction to the bit."""
    first, *others = (spark.read.format("delta").load(str(target)) for target in targets)
    for other in others:
        pairs = first.select("id", first["prediction"].alias("a")).join(
            other.select("id", other["prediction"].alias("b")), "id"
        )
        n_equal = pairs.where(sf.col("a").eqNullSafe(sf.col("b"))).count()
        if not n_equal == first.count() == other.count() == case.n_rows:
            raise SystemExit(f"{case.name}: only {n_equal} of {case.n_rows} predictions are equal")


def _report(
    cases: list[Case], measured: list[dict[str, list[float]]], args: argparse.Namespace
) -> str:
    load = os.getloadavg()[2]
    how = (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, `local[{args.cores}]`, {platform.machine()}, Python "
        f"{platform.python_version()}, {args.rounds} rounds after a warm-up, load {load:.1f} over "
        "the last 15 minutes, its own included. Predictions are equal to the bit."
    )
    lines = [
        how,
        "",
        "| case | contender | s, median (min-max) | rows/s/core | against MLflow |",
        "|---|---|---|---|---|",
    ]
    for case, seconds in zip(cases, measured, strict=True):
        base = statistics.median(next(iter(seconds.values())))
        for name, taken in seconds.items():
            median = statistics.median(taken)
            rate = case.n_rows / median / args.cores
            spread = f"{median:.2f} ({min(taken):.2f}-{max(taken):.2f})"
            lines.append(
                f"| {case.name} | {name} | {spread} | {rate:,.0f} | {base / median:.2f}x |"
            )
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
