"""Whole scoring jobs, Delta to Delta, beside the peers on Spark and the limit without Spark.

Contenders run in turn and never at once, warm, in rounds of which the first is not counted; all
answers are joined by id and compared. sparkscore's job also pins and verifies the model, asks the
table's history, writes five columns of origin a row, and records the run; the others read, predict
and write.
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
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

from deltalake import DeltaTable
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as sf

from benchmarks.workloads import GROWTH, NAMES, Workload, Workshop
from sparkscore.batch_job import run_batch_job
from sparkscore.job_result import JobResult
from sparkscore.spark.defaults import session_conf, with_tries
from sparkscore.spark.jars import resolve_jars
from sparkscore.spark.java import find_java
from sparkscore.spark.launch import LAUNCH_OPTIONS, prepare_environment
from sparkscore.workspace import Workspace

ENGINES = ("files", "arrow", "pandas")
PEERS = ("mlflow.pyfunc.spark_udf", "predict_batch_udf", "pandas_udf")
BASE, LIMIT = PEERS[0], "limit without Spark"
CONTENDERS = (*PEERS, *(f"sparkscore {engine}" for engine in ENGINES), LIMIT)
LARGEST_DIFFERENCE = 1e-9
"""Between contenders that are not sparkscore's; xgboost's and NumPy's sums depend on the batch."""

Score = Callable[[Path], float]


def main() -> int:
    args = _parse()
    folder = Path(tempfile.mkdtemp(prefix="sparkscore-bench-", dir=args.folder))
    workspace = workspace_in(folder, args.master or f"local[{args.cores}]")
    peers = None
    try:
        shop = Workshop(folder, args.scale)
        peers = Peers(args.peers_python.absolute(), workspace)
        print(_head(args), flush=True)
        for name in args.workloads or (GROWTH if args.growth else NAMES):
            workload = shop.workload(name)
            with Limit(workload, args.cores) as limit:
                bench = Bench(workload, workspace, peers, limit, folder / "scores")
                print(bench.table(args.contenders, args.rounds, args.cores), flush=True)
    finally:
        if peers is not None:
            peers.close()
        workspace.close()
        shutil.rmtree(folder, ignore_errors=True)
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peers-python", type=Path, required=True, help="Python with MLflow.")
    parser.add_argument("--scale", type=float, default=1.0, help="Times the rows of each table.")
    parser.add_argument("--rounds", type=int, default=3, help="Rounds that count.")
    parser.add_argument("--workloads", nargs="+", choices=(*NAMES, *GROWTH), metavar="NAME")
    parser.add_argument("--growth", action="store_true", help="Tables that grow, instead.")
    parser.add_argument(
        "--contenders", nargs="+", default=CONTENDERS, choices=CONTENDERS, metavar="NAME"
    )
    parser.add_argument("--cores", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--master", help="Spark's master; default: local[cores].")
    parser.add_argument("--folder", type=Path, help="Where tables are written; default: /tmp.")
    return parser.parse_args()


def workspace_in(folder: Path, master: str) -> Workspace:
    """A workspace whose records lie in a folder."""
    overrides = {
        "tracking.uri": f"sqlite:///{folder}/sparkscore.db",
        "tracking.outbox": f"{folder}/outbox",
        "artifacts.uri": f"{folder}/artifacts",
        "spark.master": master,
        "trust.allow_code": True,  # Of the models that are made here.
    }
    return Workspace.open(overrides=overrides)


def _head(args: argparse.Namespace) -> str:
    master = args.master or f"local[{args.cores}]"
    return (
        f"{dt.datetime.now(dt.UTC):%Y-%m-%d}, `{master}`, {platform.machine()}, Python "
        f"{platform.python_version()}, {args.rounds} rounds after a warm-up, rows x {args.scale:g}"
        "\n\n| workload | contender | s, median (min-max) | rows/s/core | times MLflow's speed "
        "| time, times the limit's |\n|---|---|---|---|---|---|"
    )


class Talk:
    """A child process that answers JSON lines with JSON lines."""

    def __init__(
        self, command: Sequence[object], environ: Mapping[str, str], first: Mapping[str, object]
    ) -> None:
        self._process = subprocess.Popen(
            [str(part) for part in command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environ,
        )
        self.tell(first)
        self.answer()

    def tell(self, question: Mapping[str, object]) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()

    def answer(self) -> Mapping[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        answer: Mapping[str, object] = json.loads(line) if line else {"error": "it ended"}
        if "error" in answer:
            raise SystemExit(f"{self._process.args!r} failed: {answer['error']}")
        return answer

    def close(self) -> None:
        self._process.communicate()


class Peers:
    """MLflow and Spark's own UDFs, in a process and a Spark session of their own."""

    def __init__(
        self,
        python: Path,
        workspace: Workspace,
        *,
        script: str = "peers.py",
        with_class_archive: bool = True,
    ) -> None:
        settings = workspace.session_settings
        cache = settings.jars.cache
        java = find_java(cache, os.environ)
        environ = one_thread() | {"PYSPARK_PYTHON": str(python)}
        prepare_environment(java, environ, cache)
        del environ["SPARK_HOME"]  # Its own PySpark, of the same version.
        if not with_class_archive:
            environ.pop(LAUNCH_OPTIONS, None)
        jars = resolve_jars(settings.jars, java, os.environ)
        master = with_tries(settings.master)
        conf = session_conf(settings.conf, master, jars, cache) | {"spark.master": master}
        command = [python, "-W", "ignore", Path(__file__).with_name(script)]
        self.talk = Talk(command, environ, conf)

    def score(self, workload: Workload, contender: str, target: Path) -> float:
        """Seconds of one job, as the peer's own clock says."""
        job = {
            "contender": contender,
            "package": str(workload.package),
            "pickled": str(workload.pickled),
            "source": str(workload.source),
            "columns": workload.columns,
            "keep": workload.keep,
            "target": str(target),
        }
        self.talk.tell(job)
        seconds = self.talk.answer()["seconds"]
        assert isinstance(seconds, float)
        return seconds

    def close(self) -> None:
        self.talk.close()


class Limit:
    """As many plain processes as there are cores, which share the files among them."""

    def __init__(self, workload: Workload, n_processes: int) -> None:
        files = [str(path) for path in DeltaTable(workload.source).file_uris()]
        self._shares = [files[i::n_processes] for i in range(n_processes)]
        self._workload = workload
        first = {
            "pickled": str(workload.pickled),
            "columns": workload.columns,
            "is_matrix": workload.is_matrix,
        }
        script = Path(__file__).with_name("limit.py")
        self._talks = [Talk([sys.executable, script], one_thread(), first) for _ in self._shares]

    def __enter__(self) -> Limit:
        return self

    def __exit__(self, *exc_info: object) -> None:
        for talk in self._talks:
            talk.close()

    def score(self, target: Path) -> float:
        started = perf_counter()
        target.mkdir(parents=True)
        for i, (talk, files) in enumerate(zip(self._talks, self._shares, strict=True)):
            out = target / f"{i}.parquet"
            talk.tell({"files": files, "keep": self._workload.keep, "target": str(out)})
        for talk in self._talks:
            talk.answer()
        return perf_counter() - started


def one_thread() -> dict[str, str]:
    """An environment in which libraries start one thread a process, as sparkscore sees to."""
    names = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
    return {**os.environ, **dict.fromkeys(names, "1")}


class Bench:
    """One workload, all contenders."""

    def __init__(
        self, workload: Workload, workspace: Workspace, peers: Peers, limit: Limit, targets: Path
    ) -> None:
        self._workload = workload
        self._workspace = workspace
        self._peers = peers
        self._limit = limit
        self._targets = targets
        self._splits: list[Mapping[str, float]] = []

    def table(self, contenders: Sequence[str], n_rounds: int, n_cores: int) -> str:
        """The lines of the report; `predict_batch_udf` takes nothing but numbers."""
        able = [c for c in contenders if self._workload.is_matrix or c != "predict_batch_udf"]
        seconds = self._measured(able, n_rounds)
        medians = {name: statistics.median(taken) for name, taken in seconds.items()}
        lines = []
        for name, taken in seconds.items():
            rate = self._workload.n_rows / medians[name] / n_cores
            spread = f"{medians[name]:.2f} ({min(taken):.2f}-{max(taken):.2f})"
            gain = _ratio(medians.get(BASE), medians[name])
            loss = _ratio(medians[name], medians.get(LIMIT))
            cells = (self._workload.name, name, spread, f"{rate:,.0f}", gain, loss)
            lines.append(f"| {' | '.join(cells)} |")
        if self._splits:
            lines.append(_split_text(self._splits, n_cores))
        return "\n".join(lines)

    def _measured(self, contenders: Sequence[str], n_rounds: int) -> Mapping[str, list[float]]:
        """Seconds of each counted round by contender; refuses answers that differ."""
        seconds: dict[str, list[float]] = {name: [] for name in contenders}
        for number in range(n_rounds + 1):
            folder = self._targets / self._workload.package.name / str(number)
            targets = {name: folder / str(i) for i, name in enumerate(contenders)}
            for name, target in targets.items():
                elapsed = self._score_by(name)(target)
                print(f"{self._workload.name}, {number}, {name}: {elapsed:.2f} s", file=sys.stderr)
                seconds[name].append(elapsed)
            if number == 0:  # The warm-up.
                seconds = {name: [] for name in contenders}
                self._splits = []
            self._check_equal(targets)
            shutil.rmtree(folder)
        return seconds

    def _score_by(self, contender: str) -> Score:
        if contender == LIMIT:
            return self._limit.score
        if contender in PEERS:
            return partial(self._peers.score, self._workload, contender)
        return partial(self._score, contender.split()[1])

    def _score(self, engine: str, target: Path) -> float:
        started = perf_counter()
        job = self._workspace.job(
            None,
            {
                "name": f"bench-{engine}",
                "model": str(self._workload.package),
                "source.uri": str(self._workload.source),
                "target.uri": str(target),
                "key": ["id"],
                "keep": list(self._workload.keep),
                "engine": engine,
            },
        )
        result = run_batch_job(self._workspace, job.values, target.name, lambda _: None)
        elapsed = perf_counter() - started
        if engine == "files":
            self._splits.append(_split_of(result, elapsed))
        return elapsed

    def _check_equal(self, targets: Mapping[str, Path]) -> None:
        """Every id of the source once in each target, and the same prediction."""
        spark = self._workspace.spark
        frames = [_scores(spark, name, target) for name, target in targets.items()]
        first = frames[0].withColumnRenamed("prediction", "a")
        for name, other in zip(targets, frames, strict=True):
            pairs = first.join(other, "id")
            gap = sf.abs(sf.col("a") - sf.col("prediction"))
            counted = pairs.agg(sf.count(sf.lit(1)), sf.max(gap), sf.count("prediction")).first()
            assert counted is not None
            n_pairs, largest, n_values = counted
            n_rows = self._workload.n_rows
            if not n_pairs == n_values == other.count() == n_rows or largest > LARGEST_DIFFERENCE:
                raise SystemExit(
                    f"{self._workload.name}, {name}: {n_pairs} of {n_rows} rows pair up, "
                    f"and predictions differ by up to {largest}"
                )


def _scores(spark: SparkSession, contender: str, target: Path) -> DataFrame:
    kind = "parquet" if contender == LIMIT else "delta"
    return spark.read.format(kind).load(str(target)).select("id", "prediction")


def _split_of(result: JobResult, elapsed: float) -> Mapping[str, float]:
    """Seconds of one job of the engine `files` by what was done; those of workers are added up."""
    known = {name.removeprefix("seconds_"): value for name, value in result.metrics.items()}
    parts = ("in_workers_read", "in_workers_convert", "in_workers_predict", "in_workers_write")
    return {
        **{part: known[part] for part in (*parts, "in_workers_tasks")},
        "score": known["score_and_commit"] - known["commit"],
        "commit": known["commit"],
        "job": elapsed,
    }


def _split_text(splits: Sequence[Mapping[str, float]], n_cores: int) -> str:
    median = {part: statistics.median(split[part] for split in splits) for part in splits[0]}
    idle = median["score"] - median["in_workers_tasks"] / n_cores
    shown = ", ".join(
        f"{part.removeprefix('in_workers_')} {median[part] / n_cores:.2f}"
        for part in median
        if part.startswith("in_workers") and part != "in_workers_tasks"
    )
    before = median["job"] - median["score"] - median["commit"]
    return (
        f"| | files, s a core | {shown}; Spark's own {idle:.2f}; commit {median['commit']:.2f}; "
        f"resolve, plan, record {before:.2f} | | | |"
    )


def _ratio(above: float | None, below: float | None) -> str:
    return "" if above is None or below is None else f"{above / below:.2f}"


if __name__ == "__main__":
    sys.exit(main())
